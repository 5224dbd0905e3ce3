"use strict";

// Conditions on margins and metrics: rows of a form, each with a quantity, a minimum and a maximum.

function readNumber(input) {
  return input.value.trim() === "" || Number.isNaN(input.valueAsNumber) ? null : input.valueAsNumber;
}

function limitInput(name) {
  return element("input", { type: "number", step: "any", class: name, "aria-label": name, placeholder: name, autocomplete: "off" });
}

function quantitySelect(table) {
  const option = (value, text) => element("option", { value }, text);
  const group = (label, options) => element("optgroup", { label }, ...options);
  const margins = table.modalities.map(({ name, label }) => option("margin_" + name, label + " margin"));
  const metrics = (kind) => table.metrics.map(({ name, label }) => option(`${kind}:${name}`, label));
  return element(
    "select",
    { "aria-label": "quantity", autocomplete: "off" },
    group("Margin", [option("margin", "Total margin"), ...margins]),
    group("Winner ahead in", metrics("metric")),
    group("Winner's", metrics("chosen")),
    group("Loser's", metrics("rejected")),
  );
}

/** Adds a condition. `changed` is called when the condition is removed; the form itself notices input in it. */
function addCondition(table, list, changed) {
  const remove = element("button", { type: "button", class: "quiet", "aria-label": "Remove this condition" }, "\u00d7");
  const condition = element(
    "div",
    { class: "condition" },
    quantitySelect(table),
    limitInput("min"),
    limitInput("max"),
    remove,
  );
  remove.addEventListener("click", () => {
    condition.remove();
    changed();
  });
  list.append(condition);
  condition.querySelector("select").focus();
}

function readConditions(table, list) {
  return [...list.querySelectorAll(".condition")]
    .map((condition) => ({
      key: condition.querySelector("select").value,
      min: readNumber(condition.querySelector(".min")),
      max: readNumber(condition.querySelector(".max")),
    }))
    .filter(({ min, max }) => min !== null || max !== null)
    .map(({ key, min, max }) => ({ values: valuesOf(table, key), min, max }));
}

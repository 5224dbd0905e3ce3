"use strict";

// One pair as a card. Text from the table only ever becomes textContent, never markup.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function formatNumber(value, signed = false) {
  if (value === null) return "n/a";
  const text = Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
  return signed && value > 0 ? "+" + text : text;
}

/** Length of a bar in percent: 0 is the worst value in the whole table, 100 the best, whichever direction the metric has. */
function barLength(metric, value) {
  if (metric.high === metric.low) return 100;
  const position = (value - metric.low) / (metric.high - metric.low);
  return 100 * (metric.higher_is_better ? position : 1 - position);
}

function bar(metric, side, value, other) {
  const sign = metric.higher_is_better ? 1 : -1;
  const better = value !== null && other !== null && sign * (value - other) > 0;
  const fill = element("span", { class: "bar-fill" });
  if (value === null) fill.hidden = true;
  else fill.style.width = barLength(metric, value) + "%";
  return element(
    "div",
    { class: `bar ${side}` + (better ? " better" : ""), "data-side": side },
    element("span", { class: "visually-hidden" }, side === "chosen" ? "winner" : "loser"),
    element("span", { class: "bar-track", "aria-hidden": "true" }, fill),
    element("span", { class: "bar-value" }, formatNumber(value)),
  );
}

function metricRow(table, metric, row) {
  const [chosen, rejected] = SIDES.map((side) => table.columns[`${side}_${metric.name}`][row]);
  const range = `${formatNumber(metric.low)} to ${formatNumber(metric.high)} in this dataset`;
  const direction = metric.higher_is_better ? "higher is better" : "lower is better";
  return element(
    "div",
    { class: "metric", "data-metric": metric.name, title: `${metric.name}: ${direction}, ${range}` },
    element(
      "span",
      { class: "metric-label" },
      metric.label + " ",
      element("span", { class: "arrow", role: "img", "aria-label": direction }, metric.higher_is_better ? "\u2191" : "\u2193"),
    ),
    element("div", { class: "bars" }, bar(metric, "chosen", chosen, rejected), bar(metric, "rejected", rejected, chosen)),
  );
}

function modalityBlock(table, modality, row) {
  const margin = table.columns["margin_" + modality.name][row];
  const metrics = table.metrics.filter((metric) => metric.modality === modality.name);
  return element(
    "section",
    { class: "modality", "data-modality": modality.name },
    element(
      "h4",
      {},
      modality.label,
      element("span", { class: "margin", title: "margin_" + modality.name }, "margin " + formatNumber(margin, true)),
    ),
    metricRow(table, modality.score, row),
    ...metrics.map((metric) => metricRow(table, metric, row)),
  );
}

function otherMetrics(table, row) {
  const metrics = table.metrics.filter((metric) => metric.modality === null);
  if (metrics.length === 0) return null;
  return element(
    "details",
    { class: "other-metrics" },
    element("summary", {}, `Other metrics (${metrics.length})`),
    ...metrics.map((metric) => metricRow(table, metric, row)),
  );
}

function player(table, side, row) {
  const column = (name) => table.columns[`${side}_${name}`][row];
  const isGroundTruth = column("is_ground_truth");
  const video = element("video", { controls: "", playsinline: "", preload: "none", "data-side": side, src: column("video_url") });
  const message = element("p", { class: "video-error", role: "alert", hidden: "" });
  video.setAttribute("aria-label", side === "chosen" ? "Winner" : "Loser");
  video.style.aspectRatio = table.columns.width ? `${table.columns.width[row]} / ${table.columns.height[row]}` : "1";
  video.addEventListener("error", () => {
    message.textContent = "This clip could not be loaded: " + decodeURIComponent(column("video_url"));
    message.hidden = false;
  });
  const wav = column("audio_url");
  return element(
    "figure",
    { class: `player ${side}` },
    element(
      "figcaption",
      {},
      element("span", { class: "side" }, side === "chosen" ? "Winner" : "Loser"),
      element("span", { class: "source" + (isGroundTruth ? " ground-truth" : "") }, column("source")),
    ),
    video,
    message,
    element(
      "p",
      { class: "origin" },
      element("span", { class: "seed" }, column("seed") === null ? "no seed" : "seed " + column("seed")),
      wav === null ? null : element("a", { href: wav, title: "The lossless sound that was scored" }, "wav"),
    ),
  );
}

function buildCard(table, row) {
  const { prompt_id: ids, prompt: prompts, margin } = table.columns;
  const card = element("article", { class: "card", tabindex: "-1", "data-row": row, "data-sound": "chosen" });
  card.append(
    element(
      "header",
      {},
      element("h3", { class: "prompt", dir: "auto" }, prompts[row]),
      element(
        "p",
        { class: "card-facts" },
        element("bdi", { class: "prompt-id" }, ids[row]),
        element("span", { class: "margin total", title: "margin" }, "margin " + formatNumber(margin[row], true)),
      ),
    ),
    element(
      "div",
      { class: "players" },
      ...SIDES.map((side) => player(table, side, row)),
      element(
        "div",
        { class: "play-controls" },
        element("button", { type: "button", class: "play-both", "aria-pressed": "false" }, "Play both"),
        element("button", { type: "button", class: "sound quiet" }, "Sound: winner"),
      ),
      otherMetrics(table, row),
    ),
    element(
      "div",
      { class: "metrics" },
      ...table.modalities.map((modality) => modalityBlock(table, modality, row)),
    ),
  );
  card.querySelector(".play-both").addEventListener("click", () => togglePlay(card));
  card.querySelector(".sound").addEventListener("click", () => toggleSound(card));
  return card;
}

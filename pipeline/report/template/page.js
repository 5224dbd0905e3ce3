"use strict";

// The controls, the pages of pairs, the two modes (browsing and labelling) and the keyboard.

const PER_PAGE = { cards: 20, gallery: 60 };
const byId = (id) => document.getElementById(id);
const table = loadTable(byId("report-data").textContent);
const view = { rows: [], page: 0, kind: "cards" };

// Loads pictures and clips when their card comes near the window, so that a page of large clips opens at once.
const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const video of playersOf(target)) fetchClip(video, "metadata");
      nearWindow.unobserve(target);
    }
  },
  { rootMargin: "800px 0px" },
);

/** Returns the labels of a row, translated from A and B to winner and loser. */
function labelsOf(row) {
  const sides = sidesOf(table, row);
  const names = { a: sides[0], b: sides[1], tie: "tie" };
  return Object.entries(labelling.store.get(table.columns.pair_id[row])).map(([name, [winner]]) => ({
    label: modalityLabel(name),
    winner: names[winner],
  }));
}

const LABEL_FILTERS = {
  any: () => true,
  labelled: (row) => labelsOf(row).length > 0,
  unlabelled: (row) => labelsOf(row).length === 0,
  against: (row) => labelsOf(row).some(({ winner }) => winner === "rejected"),
};

function readFilter() {
  const minimum = ({ name }) => ({ values: table.columns["margin_" + name], min: readNumber(byId("min-margin-" + name)), max: null });
  const set = ({ min, max }) => min !== null || max !== null;
  return {
    text: byId("search").value,
    groundTruth: byId("ground-truth").value,
    strategy: byId("strategy")?.value ?? "any",
    ranges: [...table.modalities.map(minimum).filter(set), ...readConditions(table, byId("conditions"))],
    accepts: LABEL_FILTERS[byId("labelled").value],
  };
}

function numPages() {
  return Math.max(1, Math.ceil(view.rows.length / PER_PAGE[view.kind]));
}

function buildItem(row) {
  return view.kind === "cards" ? buildCard(table, row, labelsOf(row)) : buildGalleryItem(table, row, openCard);
}

function showPage(page) {
  stopBoth();
  nearWindow.disconnect();
  view.page = Math.min(Math.max(page, 0), numPages() - 1);
  const first = view.page * PER_PAGE[view.kind];
  const items = view.rows.slice(first, first + PER_PAGE[view.kind]).map(buildItem);
  byId("items").className = view.kind;
  byId("items").replaceChildren(...items);
  if (view.kind === "cards") items.forEach((item) => nearWindow.observe(item));
  byId("nothing").hidden = items.length > 0 || table.size === 0;
  byId("pager").hidden = numPages() === 1;
  byId("page-number").textContent = `Page ${view.page + 1} of ${numPages()}`;
  byId("go-to-page").max = numPages();
  byId("previous-page").disabled = view.page === 0;
  byId("next-page").disabled = view.page === numPages() - 1;
}

/** Applies filters and order. `page` is the page to show, or the last one if there are fewer pages. */
function update({ page = 0 } = {}) {
  const descending = byId("order").value === "descending";
  view.rows = sortRows(valuesOf(table, byId("sort").value), selectRows(table, readFilter()), descending);
  const total = table.size.toLocaleString("en") + (table.size === 1 ? " pair" : " pairs");
  byId("count").textContent = (view.rows.length < table.size ? view.rows.length.toLocaleString("en") + " of " : "") + total;
  showPage(page);
}

function turnPage(step) {
  if (view.page + step < 0 || view.page + step >= numPages()) return;
  showPage(view.page + step);
  byId("items").firstElementChild?.focus({ preventScroll: true });
  document.querySelector("main").scrollIntoView();
}

/** Returns the pair that has the focus, or that contains the focused element. */
function focusedItem() {
  return document.activeElement.closest("#items > *");
}

function focusItem(item) {
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: view.kind === "cards" ? "start" : "nearest" });
}

function moveFocus(step) {
  const items = [...byId("items").children];
  const current = focusedItem();
  const next = items[current === null ? 0 : items.indexOf(current) + step];
  if (next === undefined) turnPage(step);
  else focusItem(next);
}

/** Shows the page that holds `row` and focuses its pair. */
function showRow(row) {
  showPage(Math.floor(view.rows.indexOf(row) / PER_PAGE[view.kind]));
  focusItem(byId("items").querySelector(`[data-row="${row}"]`));
}

function setView(kind) {
  const row = Number((focusedItem() ?? byId("items").firstElementChild)?.dataset.row);
  const hadFocus = focusedItem() !== null;
  view.kind = kind;
  byId("toggle-view").textContent = kind === "cards" ? "Gallery" : "Cards";
  if (hadFocus) showRow(row);
  else showPage(Math.max(0, Math.floor(view.rows.indexOf(row) / PER_PAGE[kind])));
}

function openCard(row) {
  setView("cards");
  showRow(row);
}

function toggleView() {
  setView(view.kind === "cards" ? "gallery" : "cards");
}

function setLabelling(on) {
  stopBoth();
  document.querySelectorAll("video").forEach((video) => video.pause());
  byId("labelling").hidden = !on;
  byId("browsing").hidden = on;
  if (on) {
    byId("items").replaceChildren(); // removes everything that shows the winners
    document.activeElement.blur();
    startLabelling(view.rows);
  } else {
    byId("label-pair").replaceChildren();
    update({ page: view.page });
  }
}

function toggleHelp() {
  if (byId("help").open) byId("help").close();
  else byId("help").showModal();
}

function inCard(act) {
  const item = focusedItem();
  if (item !== null && view.kind === "cards") act(item);
}

const BROWSING_KEYS = {
  j: { help: "next pair", run: () => moveFocus(1) },
  k: { help: "previous pair", run: () => moveFocus(-1) },
  ArrowRight: { help: "next page", run: () => turnPage(1) },
  ArrowLeft: { help: "previous page", run: () => turnPage(-1) },
  p: { help: "play both clips of the pair, or stop", run: () => inCard(togglePlay) },
  s: { help: "switch the sound between winner and loser", run: () => inCard(toggleSound) },
  v: { help: "cards or gallery (Enter opens a pair)", run: toggleView },
  "/": { help: "search", run: () => byId("search").focus() },
  c: { help: "add a condition on a margin or metric", run: () => byId("add-condition").click() },
  g: { help: "go to a page", run: () => byId("pager").hidden || byId("go-to-page").focus() },
  l: { help: "label the pairs that pass the filters", run: () => setLabelling(true) },
  "?": { help: "show these keys", run: toggleHelp },
};
Object.assign(LABELLING_KEYS, {
  "?": { help: "show these keys", run: toggleHelp },
  Escape: { help: "back to the pairs", run: () => setLabelling(false) },
});

function onKey(event) {
  if (takesText(event.target)) {
    if (event.key === "Escape") event.target.blur();
  } else if (byId("help").open) {
    if (event.key === "?") toggleHelp();
  } else if (event.target.matches("video") && event.key.startsWith("Arrow")) {
    return; // the player handles these keys itself
  } else {
    runShortcut(byId("labelling").hidden ? BROWSING_KEYS : LABELLING_KEYS, event);
  }
}

byId("controls").addEventListener("input", () => update());
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("reset", () => {
  byId("conditions").replaceChildren();
  setTimeout(() => update());
});
byId("add-condition").addEventListener("click", () => addCondition(table, byId("conditions"), () => update()));
byId("toggle-view").addEventListener("click", toggleView);
byId("start-labelling").addEventListener("click", () => setLabelling(true));
byId("leave-labelling").addEventListener("click", () => setLabelling(false));
byId("open-help").addEventListener("click", toggleHelp);
byId("previous-page").addEventListener("click", () => turnPage(-1));
byId("next-page").addEventListener("click", () => turnPage(1));
byId("go-to-page").addEventListener("change", ({ target }) => {
  if (readNumber(target) !== null) turnPage(Math.min(Math.max(target.valueAsNumber, 1), numPages()) - 1 - view.page);
  target.value = "";
});
document.addEventListener("keydown", onKey);
document.addEventListener("play", (event) => silenceOtherCards(event.target.closest("article")), true); // play does not bubble
fillHelp(byId("help"), [["Browsing", BROWSING_KEYS], ["Labelling", LABELLING_KEYS]]);
connectLabelling();
update();

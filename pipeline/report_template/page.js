"use strict";

// The controls, the pages of cards, and the keyboard.

const CARDS_PER_PAGE = 20;
const byId = (id) => document.getElementById(id);
const table = loadTable(byId("report-data").textContent);
const view = { rows: [], page: 0 };

// Clips are fetched as their card nears the window, so that a page of large clips opens at once.
const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const video of target.querySelectorAll("video")) video.preload = "metadata";
      nearWindow.unobserve(target);
    }
  },
  { rootMargin: "800px 0px" },
);

function readNumber(input) {
  return input.value.trim() === "" || Number.isNaN(input.valueAsNumber) ? null : input.valueAsNumber;
}

function readFilter() {
  const minMargins = {};
  for (const { name } of table.modalities) minMargins[name] = readNumber(byId("min-margin-" + name));
  return { text: byId("search").value, winner: byId("winner").value, minMargins };
}

function numPages() {
  return Math.max(1, Math.ceil(view.rows.length / CARDS_PER_PAGE));
}

function showPage(page) {
  stopBoth();
  nearWindow.disconnect();
  view.page = Math.min(Math.max(page, 0), numPages() - 1);
  const first = view.page * CARDS_PER_PAGE;
  const cards = view.rows.slice(first, first + CARDS_PER_PAGE).map((row) => buildCard(table, row));
  byId("cards").replaceChildren(...cards);
  cards.forEach((card) => nearWindow.observe(card));
  byId("nothing").hidden = cards.length > 0 || table.size === 0;
  byId("pager").hidden = numPages() === 1;
  byId("page-number").textContent = `Page ${view.page + 1} of ${numPages()}`;
  byId("previous-page").disabled = view.page === 0;
  byId("next-page").disabled = view.page === numPages() - 1;
}

function update() {
  const descending = byId("order").value === "descending";
  view.rows = sortRows(table, selectRows(table, readFilter()), byId("sort").value, descending);
  const total = table.size.toLocaleString("en") + (table.size === 1 ? " pair" : " pairs");
  byId("count").textContent = (view.rows.length < table.size ? view.rows.length.toLocaleString("en") + " of " : "") + total;
  showPage(0);
}

function turnPage(step) {
  showPage(view.page + step);
  byId("cards").firstElementChild?.focus({ preventScroll: true });
  document.querySelector("main").scrollIntoView();
}

function focusedCard() {
  return document.activeElement.closest(".card");
}

function moveFocus(step) {
  const cards = [...byId("cards").children];
  const current = focusedCard();
  const next = cards[current === null ? 0 : cards.indexOf(current) + step];
  if (next === undefined) {
    if (view.page + step >= 0 && view.page + step < numPages()) turnPage(step);
    return;
  }
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

const SHORTCUTS = {
  j: () => moveFocus(1),
  k: () => moveFocus(-1),
  p: () => focusedCard() && togglePlay(focusedCard()),
  s: () => focusedCard() && toggleSound(focusedCard()),
  "/": () => byId("search").focus(),
};

function onKey(event) {
  const typing = event.target.matches("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in SHORTCUTS)) return;
  event.preventDefault();
  SHORTCUTS[event.key]();
}

byId("controls").addEventListener("input", update);
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("reset", () => setTimeout(update));
byId("previous-page").addEventListener("click", () => turnPage(-1));
byId("next-page").addEventListener("click", () => turnPage(1));
document.addEventListener("keydown", onKey);
document.addEventListener("play", (event) => silenceOtherCards(event.target.closest(".card")), true); // play does not bubble
update();

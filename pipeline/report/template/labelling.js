"use strict";

// Labelling: shows one pair at a time as A and B, without any hint on the page at the ranking's winner.

const labelling = { store: null, queue: [], position: 0, active: null };
const labelModalities = () => [...table.modalities.map(({ name }) => name), OVERALL];
const askedModalities = () => labelModalities().filter((name) => byId("ask-" + name).checked);
const currentRow = () => labelling.queue[labelling.position];
const now = () => Math.floor(Date.now() / 1000);

function modalityLabel(name) {
  return name === OVERALL ? "Overall" : table.modalities.find((modality) => modality.name === name).label;
}

function say(text) {
  byId("label-message").textContent = labelling.store.problem ?? text;
}

function isDone(row, asked = askedModalities()) {
  const labels = labelling.store.get(table.columns.pair_id[row]);
  return asked.every((modality) => labels[modality] !== undefined);
}

/** Starts labelling `rows` at the first pair that is not done. */
function startLabelling(rows) {
  const possible = rows.filter((row) => canBeLabelled(table, row));
  labelling.queue = shuffledRows(table, possible);
  const asked = askedModalities();
  labelling.position = Math.max(0, labelling.queue.findIndex((row) => !isDone(row, asked)));
  const left = rows.length - possible.length;
  say(left ? `Pairs left out because a side joins picture and sound of different candidates: ${left}.` : "");
  showPair();
}

function showPair() {
  stopBoth();
  if (labelling.queue.length === 0) {
    byId("label-pair").replaceChildren(element("p", { class: "nothing" }, "No pair that can be labelled passes the filters."));
  } else {
    byId("label-pair").replaceChildren(buildLabelPair(currentRow()));
    labelling.active = null;
    activate(firstOpenQuestion() ?? askedModalities()[0] ?? null);
  }
  showProgress();
}

function buildLabelPair(row) {
  const sides = sidesOf(table, row);
  const pair = element(
    "article",
    { class: "label-card" },
    element("h3", { class: "prompt", dir: "auto" }, table.columns.prompt[row]),
    element("div", { class: "players" }, ...sides.map((side, index) => blindPlayer(side, row, "AB"[index])), playControls()),
    element("div", { class: "questions" }, ...askedModalities().map((modality) => question(modality, row))),
  );
  connectPlayers(pair);
  return pair;
}

function blindPlayer(side, row, name) {
  const video = buildVideo(table, side, row, name);
  video.setAttribute("controlslist", "nodownload"); // the download menu would reveal the file's name
  const message = videoError(video, `Clip ${name} could not be loaded.`);
  fetchClip(video, "auto");
  return element("figure", { class: "player" }, element("figcaption", { class: "letter" }, name), video, message);
}

function question(modality, row) {
  const label = labelling.store.get(table.columns.pair_id[row])[modality];
  const choices = { a: "A", tie: "Tie", b: "B" };
  const buttons = Object.entries(choices).map(([winner, text]) => {
    const pressed = label !== undefined && label[0] === winner;
    const button = element("button", { type: "button", "data-winner": winner, "aria-pressed": String(pressed) }, text);
    button.addEventListener("click", () => answer(modality, winner));
    return button;
  });
  const name = modalityLabel(modality);
  return element(
    "div",
    { class: "question", role: "group", "aria-label": name, "data-modality": modality },
    element("span", { class: "question-label" }, name),
    ...buttons,
  );
}

function firstOpenQuestion() {
  const labels = labelling.store.get(table.columns.pair_id[currentRow()]);
  return askedModalities().find((modality) => labels[modality] === undefined);
}

/** Marks the question that the keys a, t and b answer. */
function activate(modality) {
  labelling.active = modality;
  for (const node of byId("label-pair").querySelectorAll(".question")) {
    node.toggleAttribute("data-active", node.dataset.modality === modality);
  }
}

function moveQuestion(step) {
  const asked = askedModalities();
  const place = asked.indexOf(labelling.active) + step;
  if (place >= 0 && place < asked.length) activate(asked[place]);
}

/** Stores an answer. The same answer again removes it. After the last open question, the next pair is shown. */
function answer(modality, winner) {
  if (labelling.queue.length === 0 || modality === null) return;
  const pairId = table.columns.pair_id[currentRow()];
  const wasDone = isDone(currentRow());
  const again = labelling.store.get(pairId)[modality]?.[0] === winner;
  labelling.store.set(pairId, modality, again ? null : winner, now());
  if (!wasDone && isDone(currentRow())) {
    say("");
    toOpenPair();
    return;
  }
  refreshQuestions();
  activate(again ? modality : firstOpenQuestion() ?? modality);
  say("");
}

function refreshQuestions() {
  const questions = askedModalities().map((modality) => question(modality, currentRow()));
  byId("label-pair").querySelector(".questions").replaceChildren(...questions);
  showProgress();
}

function movePair(step) {
  const place = labelling.position + step;
  if (place < 0 || place >= labelling.queue.length) return;
  labelling.position = place;
  showPair();
}

/** Shows the next pair with an open question; after the last pair the search continues at the first. */
function toOpenPair() {
  const { queue, position } = labelling;
  const asked = askedModalities();
  for (let step = 1; step <= queue.length; step++) {
    const place = (position + step) % queue.length;
    if (!isDone(queue[place], asked)) {
      labelling.position = place;
      showPair();
      return;
    }
  }
  showPair();
  say("All pairs that pass the filters are labelled. Export the labels, or change the filters.");
}

function undoAnswer() {
  const undone = labelling.store.undo();
  if (undone === null) return say("There is nothing to undo.");
  const place = labelling.queue.findIndex((row) => table.columns.pair_id[row] === undone.pairId);
  if (place >= 0) labelling.position = place;
  showPair();
  if (place >= 0) activate(undone.modality);
  say(place >= 0 ? "Undone." : "Undone. The answer was for a pair that does not pass the filters.");
}

function showProgress() {
  const asked = askedModalities();
  const done = labelling.queue.filter((row) => isDone(row, asked)).length;
  const total = labelling.queue.length;
  byId("label-progress").max = Math.max(1, total);
  byId("label-progress").value = done;
  const count = (number) => number.toLocaleString("en");
  const place = total ? `pair ${count(labelling.position + 1)}; ` : "";
  byId("label-count").textContent = `${place}${count(done)} of ${count(total)} labelled`;
}

/** Switches to the labels of an annotator. Labels without a name are taken over by the first name that is entered. */
function setAnnotator(name) {
  const former = labelling.store;
  const annotator = name.trim() || ANONYMOUS;
  if (annotator === former?.annotator) return;
  labelling.store = new LabelStore(table.dataset, annotator);
  if (former?.annotator === ANONYMOUS && labelling.store.pairs.size === 0) labelling.store.adopt(former);
  byId("annotator").value = annotator;
  remember(STORAGE_PREFIX + "annotator", annotator);
}

function exportLabels() {
  const { store } = labelling;
  const csv = labelsToCsv(table, store, labelModalities());
  const url = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  const name = store.annotator.replace(/[^\p{L}\p{N}_-]+/gu, "-");
  element("a", { href: url, download: `labels-${name}-${new Date().toISOString().slice(0, 10)}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  say(`Pairs exported: ${store.pairs.size.toLocaleString("en")}.`);
}

async function importFile(file) {
  try {
    const records = csvRecords(await file.text());
    const names = new Set(records.map(({ annotator }) => annotator).filter(Boolean));
    if (names.size === 1 && labelling.store.annotator === ANONYMOUS) setAnnotator([...names][0]);
    const { taken, unknown, others } = importLabels(table, labelling.store, labelModalities(), records);
      showPair();
    const notes = [`Labels imported: ${taken}.`];
    if (unknown) notes.push(`Ignored, because this page does not have their pairs: ${unknown}.`);
    if (others) notes.push(`Ignored, because they are by other annotators (${[...names].join(", ")}): ${others}. Enter a name to import its labels.`);
    say(notes.join(" "));
  } catch (error) {
    say(error.message);
  }
}

const LABELLING_KEYS = {
  a: { help: "A is better", run: () => answer(labelling.active, "a") },
  t: { help: "tie", run: () => answer(labelling.active, "tie") },
  b: { help: "B is better", run: () => answer(labelling.active, "b") },
  ArrowUp: { help: "question above", run: () => moveQuestion(-1) },
  ArrowDown: { help: "question below", run: () => moveQuestion(1) },
  ArrowRight: { help: "next pair", run: () => movePair(1) },
  ArrowLeft: { help: "previous pair", run: () => movePair(-1) },
  n: { help: "next pair with an open question", run: () => toOpenPair() },
  u: { help: "undo the last answer", run: () => undoAnswer() },
  p: { help: "play both, or stop", run: () => pressInPair(".play-both") },
  s: { help: "switch the sound between A and B", run: () => pressInPair(".sound") },
  e: { help: "export the labels as CSV", run: () => exportLabels() },
};

function pressInPair(selector) {
  byId("label-pair").querySelector(selector)?.click();
}

function connectLabelling() {
  setAnnotator(openStorage()?.getItem(STORAGE_PREFIX + "annotator") ?? ANONYMOUS);
  byId("annotator").addEventListener("change", (event) => {
    setAnnotator(event.target.value);
      startLabelling(labelling.queue);
  });
  byId("asked").addEventListener("change", showPair);
  byId("undo").addEventListener("click", undoAnswer);
  byId("export-labels").addEventListener("click", exportLabels);
  byId("import-labels").addEventListener("click", () => byId("label-file").click());
  byId("label-file").addEventListener("change", ({ target }) => {
    if (target.files.length) importFile(target.files[0]);
    target.value = "";
  });
  byId("previous-pair").addEventListener("click", () => movePair(-1));
  byId("next-pair").addEventListener("click", () => movePair(1));
}

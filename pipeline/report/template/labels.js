"use strict";

// The labels of one person, saved in the browser after every answer, with undo. This file does not change the page.

const ANONYMOUS = "anonymous";
const OVERALL = "overall";
const STORAGE_PREFIX = "avdpo-labels/";
const MAX_UNDO = 500;

/** Hashes a text to 32 bits with FNV-1a and the finaliser of MurmurHash3. */
function hashText(text) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Returns the sides in the order of their candidate ids and a name of the pair; neither depends on the ranking's winner. */
function impartial(table, row) {
  const [chosen, rejected] = SIDES.map((side) => table.columns[side + "_candidate_id"][row]);
  return chosen < rejected
    ? { sides: ["chosen", "rejected"], name: chosen + "\0" + rejected }
    : { sides: ["rejected", "chosen"], name: rejected + "\0" + chosen };
}

/** Returns the sides shown as A and B: pseudo-random, and always the same for the same two candidates. */
function sidesOf(table, row) {
  const { sides, name } = impartial(table, row);
  return hashText("side/" + name) & 1 ? sides.reverse() : sides;
}

/** Shuffles rows independently of their scores, so that the first labelled pairs are a random sample. */
function shuffledRows(table, rows) {
  const places = new Map(rows.map((row) => [row, hashText("order/" + impartial(table, row).name)]));
  return rows.slice().sort((a, b) => places.get(a) - places.get(b) || a - b);
}

/** Returns whether both clips exist. A side with picture and sound of different candidates has no clip to judge. */
function canBeLabelled(table, row) {
  return SIDES.every((side) => candidateNumbers(table, side, row).length === 1);
}

/** Returns the browser's storage, or null if it is not available. */
function openStorage() {
  try {
    localStorage.getItem(STORAGE_PREFIX);
    return localStorage;
  } catch {
    return null;
  }
}

/** Saves a text in the browser, or removes it if null. Returns false if there is no storage or no room. */
function remember(key, text) {
  try {
    if (text === null) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

/** The labels of one annotator for one dataset: per pair {modality: ["a" | "b" | "tie", seconds since 1970]}. */
class LabelStore {
  constructor(dataset, annotator) {
    this.annotator = annotator;
    this.prefix = `${STORAGE_PREFIX}${dataset}/${encodeURIComponent(annotator)}/`;
    this.problem = null; // message for the annotator
    this.pairs = new Map();
    this.history = [];
    const storage = openStorage();
    if (storage !== null) this.load(storage);
  }

  load(storage) {
    const pairPrefix = this.prefix + "pair/";
    for (let index = 0; index < storage.length; index++) {
      const key = storage.key(index);
      if (key.startsWith(pairPrefix)) this.pairs.set(key.slice(pairPrefix.length), JSON.parse(storage.getItem(key)));
    }
    this.history = JSON.parse(storage.getItem(this.prefix + "history") ?? "[]");
  }

  get(pairId) {
    return this.pairs.get(pairId) ?? {};
  }

  /** Sets a label; `winner` null removes it. */
  set(pairId, modality, winner, seconds) {
    this.history.push([pairId, modality, this.get(pairId)[modality] ?? null]);
    this.history.splice(0, this.history.length - MAX_UNDO);
    this.put(pairId, modality, winner === null ? null : [winner, seconds]);
    this.save("history", this.history);
  }

  /** Undoes the last answer, also one from before a reload. Returns its pair and modality, or null. */
  undo() {
    const last = this.history.pop();
    if (last === undefined) return null;
    const [pairId, modality, former] = last;
    this.put(pairId, modality, former);
    this.save("history", this.history);
    return { pairId, modality };
  }

  /** Sets or removes a label without recording it for undo. */
  put(pairId, modality, label) {
    const labels = { ...this.get(pairId) };
    if (label === null) delete labels[modality];
    else labels[modality] = label;
    const empty = Object.keys(labels).length === 0;
    if (empty) this.pairs.delete(pairId);
    else this.pairs.set(pairId, labels);
    this.save("pair/" + pairId, empty ? null : labels);
  }

  forgetHistory() {
    this.history = [];
    this.save("history", null);
  }

  save(name, value) {
    const saved = remember(this.prefix + name, value === null ? null : JSON.stringify(value));
    if (!saved) this.problem = "The last labels could not be saved in this browser. Export them before you close the page.";
  }

  /** Takes over the labels that were given before the annotator entered a name. */
  adopt(other) {
    for (const [pairId, labels] of other.pairs) {
      for (const [modality, label] of Object.entries(labels)) this.put(pairId, modality, label);
      for (const modality of Object.keys(labels)) other.put(pairId, modality, null);
    }
    this.history = other.history;
    this.save("history", this.history);
    other.forgetHistory();
  }
}

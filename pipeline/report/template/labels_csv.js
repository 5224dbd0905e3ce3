"use strict";

// Export and import of labels as CSV: pair_id, modality, winner (a, b or tie), a, b (candidate ids), annotator, time (UTC).

const CSV_COLUMNS = ["pair_id", "modality", "winner", "a", "b", "annotator", "time"];
const CSV_NEEDED = ["a", "b", "winner"];
const WINNERS = ["a", "b", "tie"];

function csvField(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function candidatesOf(table, row) {
  return sidesOf(table, row).map((side) => table.columns[side + "_candidate_id"][row]);
}

function labelsToCsv(table, store, modalities) {
  const lines = [CSV_COLUMNS];
  table.columns.pair_id.forEach((pairId, row) => {
    const labels = store.get(pairId);
    for (const modality of modalities) {
      if (labels[modality] === undefined) continue;
      const [winner, seconds] = labels[modality];
      const time = new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
      lines.push([pairId, modality, winner, ...candidatesOf(table, row), store.annotator, time]);
    }
  });
  return lines.map((fields) => fields.map(csvField).join(",") + "\n").join("");
}

/** Parses a CSV file into arrays of texts. Quoted fields may hold commas, line breaks and doubled quotes. */
function parseCsv(text) {
  const rows = [];
  const pattern = /("(?:[^"]|"")*"|(?!")[^,\r\n]*)(,|\r\n|\r|\n|$)/gy;
  let fields = [];
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text);
    if (match === null) throw new Error(`The file is not valid CSV: row ${rows.length + 1} has a misplaced quote. Export it again.`);
    const field = match[1];
    fields.push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field);
    if (match[2] === ",") {
      if (pattern.lastIndex === text.length) fields.push("");
      else continue;
    }
    if (fields.length > 1 || fields[0] !== "") rows.push(fields);
    fields = [];
  }
  return rows;
}

function csvRecords(text) {
  const [header = [], ...rows] = parseCsv(text.replace(/^\ufeff/, ""));
  const missing = CSV_NEEDED.filter((name) => !header.includes(name));
  if (missing.length) throw new Error(`The file has no column ${missing.join(", ")}, so it holds no labels of this page. Choose an exported file.`);
  return rows.map((fields) => Object.fromEntries(header.map((name, index) => [name, fields[index] ?? ""])));
}

const unordered = (a, b) => [a, b].sort().join("\0");

function checkRecord(record, number, modalities) {
  const modality = record.modality || OVERALL;
  const winner = record.winner.trim().toLowerCase();
  if (!WINNERS.includes(winner)) throw new Error(`Row ${number}: the winner is "${record.winner}", but must be a, b or tie.`);
  if (!modalities.includes(modality)) {
    throw new Error(`Row ${number}: the modality is "${modality}", but must be one of ${modalities.join(", ")}.`);
  }
  return { ...record, modality, winner };
}

/**
 * Imports labels from a file. Of two labels for the same question the later one is kept. If any row is invalid, nothing is
 * imported. Returns how many rows were taken, were of pairs that this page does not have, or were of other annotators.
 */
function importLabels(table, store, modalities, records) {
  const checked = records.map((record, index) => checkRecord(record, index + 1, modalities));
  const rows = new Map(table.columns.pair_id.map((_, row) => [unordered(...candidatesOf(table, row)), row]));
  const counts = { taken: 0, unknown: 0, others: 0 };
  for (const { a, b, winner, modality, annotator, time } of checked) {
    const row = rows.get(unordered(a, b));
    if (annotator && annotator !== store.annotator) counts.others += 1;
    else if (row === undefined) counts.unknown += 1;
    else {
      const pairId = table.columns.pair_id[row];
      const swapped = candidatesOf(table, row)[0] !== a && winner !== "tie";
      const seconds = Math.floor(Date.parse(time) / 1000) || 0;
      const former = store.get(pairId)[modality];
      if (former === undefined || former[1] <= seconds) {
        store.put(pairId, modality, [swapped ? (winner === "a" ? "b" : "a") : winner, seconds]);
      }
      counts.taken += 1;
    }
  }
  store.forgetHistory();
  return counts;
}

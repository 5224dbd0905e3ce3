"use strict";

// The pairs as columns, and the filtering and sorting of rows. This file does not change the page.

const SIDES = ["chosen", "rejected"];

function loadTable(text) {
  const data = JSON.parse(text);
  const table = { ...data, size: data.columns.prompt_id.length };
  for (const [name, encoded] of Object.entries(data.numbers)) table.columns[name] = decodeNumbers(encoded);
  table.columns.pair_id ??= table.columns.prompt_id;
  const { prompt_id: ids, prompt: prompts } = table.columns;
  table.searchText = ids.map((id, row) => (id + "\n" + prompts[row]).toLowerCase());
  return table;
}

/** Decodes little-endian float32 in base64. Missing values are NaN, which fails every comparison. */
function decodeNumbers(encoded) {
  const binary = atob(encoded);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return new Float32Array(bytes.buffer);
}

/** Returns a clip's URL. `name` is chosen_video, rejected_audio, ...; a file beside the winner's video is stored by name only. */
function clipUrl(table, name, row) {
  const url = table.columns[name + "_url"][row];
  if (url === null || url.startsWith("../")) return url;
  const first = table.columns.chosen_video_url[row];
  return first.slice(0, first.lastIndexOf("/") + 1) + url;
}

function thumbnailUrl(table, side, row) {
  if (!table.columns[side + "_has_thumbnail"][row]) return null;
  return `${table.thumbnail_folder}/${clipUrl(table, side + "_video", row).slice("../".length)}.webp`;
}

/** Returns the candidate numbers of a side ("gt" for ground truth). A side with picture and sound of different candidates has two ids, joined by "+". */
function candidateNumbers(table, side, row) {
  const promptId = table.columns.prompt_id[row];
  const id = table.columns[side + "_candidate_id"][row];
  const prefix = promptId + "/";
  return (id.startsWith(prefix) ? id.slice(prefix.length) : id).split("+" + prefix);
}

function describeSource(table, side, row) {
  const names = candidateNumbers(table, side, row).map((number) => (number === "gt" ? "ground truth" : "candidate " + number));
  return names.length === 1 ? names[0] : `picture of ${names[0]}, sound (wav) of ${names[1]}`;
}

/** Returns the names of the strategies that choose the same pair; `chosen_by` has a bit for each. */
function strategiesOf(table, row) {
  return table.strategies.filter((_, place) => table.columns.chosen_by[row] & (1 << place));
}

/** Returns a filter of rows. `choice` is "any", or "with:" or "without:" followed by a strategy's name. */
function strategyPasses(table, choice) {
  if (choice === "any") return () => true;
  const [kind, name] = choice.split(":");
  const bit = 1 << table.strategies.indexOf(name);
  return (row) => Boolean(table.columns.chosen_by[row] & bit) === (kind === "with");
}

const GROUND_TRUTH = {
  any: () => true,
  won: (won) => won,
  lost: (won, lost) => lost,
  not_won: (won) => !won,
  absent: (won, lost) => !won && !lost,
};

/**
 * Returns the rows that pass `filter`: {text, groundTruth: a key of GROUND_TRUTH, strategy: see strategyPasses, ranges, accepts}.
 * Each range is {values, min, max}, where null means no limit; `accepts(row)` is tested last.
 */
function selectRows(table, filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const { chosen_is_ground_truth: won, rejected_is_ground_truth: lost } = table.columns;
  const strategyAgrees = strategyPasses(table, filter.strategy);
  const groundTruthPasses = GROUND_TRUTH[filter.groundTruth];
  const ranges = filter.ranges.map(({ values, min, max }) => ({ values, min: min ?? -Infinity, max: max ?? Infinity }));
  const rows = [];
  for (let row = 0; row < table.size; row++) {
    const passes =
      groundTruthPasses(Boolean(won[row]), Boolean(lost[row])) &&
      strategyAgrees(row) &&
      ranges.every(({ values, min, max }) => values[row] >= min && values[row] <= max) &&
      words.every((word) => table.searchText[row].includes(word)) &&
      filter.accepts(row);
    if (passes) rows.push(row);
  }
  return rows;
}

/** Returns the winner's lead in a metric: positive if the winner is better, for metrics of either direction. */
function advantages(table, metric) {
  const sign = metric.higher_is_better ? 1 : -1;
  const rejected = table.columns["rejected_" + metric.name];
  return table.columns["chosen_" + metric.name].map((value, row) => sign * (value - rejected[row]));
}

/** Returns the values for a sort key: "prompt_id", a margin's column, "metric:<name>" (the winner's lead), "chosen:<name>" or "rejected:<name>". */
function valuesOf(table, key) {
  const [kind, name] = key.split(":");
  if (name === undefined) return table.columns[key];
  if (kind !== "metric") return table.columns[`${kind}_${name}`];
  return advantages(table, table.metrics.find((metric) => metric.name === name));
}

/** Sorts rows by `values`. Rows without a value come last in either direction; equal rows keep the table's order. */
function sortRows(values, rows, descending) {
  const direction = descending ? -1 : 1;
  const missing = (value) => value !== value;
  return rows.slice().sort((a, b) => {
    const left = values[a];
    const right = values[b];
    if (missing(left) || missing(right)) return missing(left) - missing(right) || a - b;
    if (left === right) return a - b;
    return left < right ? -direction : direction;
  });
}

"use strict";

// The pairs as columns, and which rows to show in which order. Nothing here touches the page.

const SIDES = ["chosen", "rejected"];

function loadTable(text) {
  const data = JSON.parse(text);
  const table = { ...data, size: data.columns.prompt_id.length };
  const { prompt_id: ids, prompt: prompts } = table.columns;
  table.searchText = ids.map((id, row) => (id + "\n" + prompts[row]).toLowerCase());
  return table;
}

/** Rows that pass `filter`: {text, winner: "any" | "ground_truth" | "generated", minMargins: {video: number | null, ...}}. */
function selectRows(table, filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const margins = Object.entries(filter.minMargins)
    .filter(([, least]) => least !== null)
    .map(([modality, least]) => [table.columns["margin_" + modality], least]);
  const groundTruthWon = table.columns.chosen_is_ground_truth;
  const rows = [];
  for (let row = 0; row < table.size; row++) {
    const passes =
      (filter.winner === "any" || groundTruthWon[row] === (filter.winner === "ground_truth")) &&
      margins.every(([column, least]) => column[row] !== null && column[row] >= least) &&
      words.every((word) => table.searchText[row].includes(word));
    if (passes) rows.push(row);
  }
  return rows;
}

/** How much better the winner is in a metric: positive always favours the winner, whichever direction the metric has. */
function advantages(table, metric) {
  const sign = metric.higher_is_better ? 1 : -1;
  const chosen = table.columns["chosen_" + metric.name];
  const rejected = table.columns["rejected_" + metric.name];
  return chosen.map((value, row) =>
    value === null || rejected[row] === null ? null : sign * (value - rejected[row]),
  );
}

/** `key` is "prompt_id", "margin", "margin_<modality>" or "metric:<name>"; rows without a value come last either way. */
function sortRows(table, rows, key, descending) {
  const metric = table.metrics.find((candidate) => "metric:" + candidate.name === key);
  const values = metric ? advantages(table, metric) : table.columns[key];
  const direction = descending ? -1 : 1;
  return rows.slice().sort((a, b) => {
    const left = values[a];
    const right = values[b];
    if (left === null || right === null) return (left === null) - (right === null) || a - b;
    if (left === right) return a - b;
    return left < right ? -direction : direction;
  });
}

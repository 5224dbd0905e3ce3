"use strict";

// The card of one pair. Text from the table is only ever set as textContent, never as markup.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function formatNumber(value, signed = false) {
  if (value === null || Number.isNaN(value)) return "n/a";
  const text = Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
  return signed && value > 0 ? "+" + text : text;
}

/** Returns the length of a bar in percent: 0 is the worst value in the table, 100 the best, for metrics of either direction. */
function barLength(metric, value) {
  if (metric.high === metric.low) return 100;
  const position = (value - metric.low) / (metric.high - metric.low);
  return 100 * (metric.higher_is_better ? position : 1 - position);
}

function bar(metric, side, value, other) {
  const sign = metric.higher_is_better ? 1 : -1;
  const better = sign * (value - other) > 0;
  const fill = element("span", { class: "bar-fill" });
  if (Number.isNaN(value)) fill.hidden = true;
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

/** Builds a player in the shape of its clip, without a source until `fetchClip`, because forty players with a source load slowly. */
function buildVideo(table, side, row, name) {
  const video = element("video", {
    ...{ controls: "", playsinline: "", preload: "none", "data-name": name, "aria-label": "Clip: " + name },
    "data-url": clipUrl(table, side + "_video", row),
    "data-thumbnail": thumbnailUrl(table, side, row),
  });
  const { width, height } = table.columns;
  video.style.aspectRatio = width?.[row] > 0 && height?.[row] > 0 ? `${width[row]} / ${height[row]}` : "1";
  return video;
}

function fetchClip(video, preload) {
  const { url, thumbnail } = video.dataset;
  if (video.src || url === undefined) return;
  if (thumbnail !== undefined) video.poster = thumbnail;
  video.preload = preload;
  video.src = url;
}

/** Builds the message that is shown if a clip cannot be loaded. */
function videoError(video, text) {
  const message = element("p", { class: "video-error", role: "alert", hidden: "" });
  video.addEventListener("error", () => {
    message.textContent = text;
    message.hidden = false;
  });
  return message;
}

function player(table, side, row) {
  const isGroundTruth = table.columns[side + "_is_ground_truth"][row];
  const seed = table.columns[side + "_seed"][row];
  const video = buildVideo(table, side, row, side === "chosen" ? "winner" : "loser");
  const url = clipUrl(table, side + "_video", row);
  const wav = clipUrl(table, side + "_audio", row);
  return element(
    "figure",
    { class: `player ${side}` },
    element(
      "figcaption",
      {},
      element("span", { class: "side" }, side === "chosen" ? "Winner" : "Loser"),
      element("span", { class: "source" + (isGroundTruth ? " ground-truth" : "") }, describeSource(table, side, row)),
    ),
    video,
    url === null
      ? element("p", { class: "video-error" }, "The table has no path for this clip.")
      : videoError(video, "This clip could not be loaded: " + decodeURIComponent(url)),
    element(
      "p",
      { class: "origin" },
      element("span", { class: "seed" }, seed === null ? "no seed" : "seed " + seed),
      wav === null ? null : element("a", { href: wav, title: "The lossless sound that was scored" }, "wav"),
    ),
  );
}

function strategiesLine(table, row) {
  const names = strategiesOf(table, row);
  return names.length ? element("span", { class: "strategies" }, "Also chosen by " + names.join(", ")) : null;
}

function labelledLine(labels) {
  const names = { chosen: "winner", rejected: "loser", tie: "tie" };
  const parts = labels.map(({ label, winner }) => `${label.toLowerCase()} ${names[winner]}`);
  return parts.length ? element("span", { class: "labels" }, "Labelled: " + parts.join(", ")) : null;
}

/** Builds a card. `labels` are a person's labels of the pair: [{label: displayed modality, winner: "chosen" | "rejected" | "tie"}]. */
function buildCard(table, row, labels) {
  const { prompt_id: ids, prompt: prompts, margin } = table.columns;
  const card = element("article", { class: "card", tabindex: "-1", "data-row": row });
  card.append(
    element(
      "header",
      {},
      element("h3", { class: "prompt", dir: "auto" }, prompts[row]),
      element(
        "p",
        { class: "card-facts" },
        element("bdi", { class: "prompt-id" }, ids[row]),
        strategiesLine(table, row),
        labelledLine(labels),
        element("span", { class: "margin total", title: "margin" }, "margin " + formatNumber(margin[row], true)),
      ),
    ),
    element(
      "div",
      { class: "players" },
      ...SIDES.map((side) => player(table, side, row)),
      playControls(),
      otherMetrics(table, row),
    ),
    element(
      "div",
      { class: "metrics" },
      ...table.modalities.map((modality) => modalityBlock(table, modality, row)),
    ),
  );
  connectPlayers(card);
  return card;
}

"use strict";

// The gallery: many pairs as small pictures of winner and loser. A click or Enter opens the pair's card.

function picture(table, side, row) {
  const url = thumbnailUrl(table, side, row);
  const name = side === "chosen" ? "winner" : "loser";
  if (url === null) return element("span", { class: `picture none ${side}` }, name);
  return element("img", { class: `picture ${side}`, src: url, alt: name, loading: "lazy", decoding: "async" });
}

function buildGalleryItem(table, row, open) {
  const { prompt_id: ids, prompt: prompts, margin } = table.columns;
  const item = element(
    "article",
    { class: "gallery-item", tabindex: "0", "data-row": row, title: ids[row] },
    element("div", { class: "pictures" }, ...SIDES.map((side) => picture(table, side, row))),
    element("p", { class: "gallery-prompt", dir: "auto" }, prompts[row]),
    element("p", { class: "margin" }, "margin " + formatNumber(margin[row], true)),
  );
  item.addEventListener("click", () => open(row));
  item.addEventListener("keydown", (event) => event.key === "Enter" && open(row));
  return item;
}

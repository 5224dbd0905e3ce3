"use strict";

// Keyboard shortcuts: tables {key: {help, run}}, and the dialog that lists them.

const KEY_NAMES = { ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", Escape: "Esc" };

function keyTable(title, shortcuts) {
  const rows = Object.entries(shortcuts).map(([key, { help }]) =>
    element("tr", {}, element("td", {}, element("kbd", {}, KEY_NAMES[key] ?? key)), element("td", {}, help)),
  );
  return element("section", {}, element("h3", {}, title), element("table", {}, ...rows));
}

function fillHelp(dialog, tables) {
  dialog.querySelector(".key-tables").replaceChildren(...tables.map(([title, shortcuts]) => keyTable(title, shortcuts)));
}

/** Returns whether keys typed in an element are text input; check boxes and file buttons take none. */
function takesText(target) {
  return target.matches("select, textarea, input:not([type='checkbox'], [type='file'])");
}

function runShortcut(shortcuts, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(shortcuts, event.key)) return;
  event.preventDefault();
  shortcuts[event.key].run();
}

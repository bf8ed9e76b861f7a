/* The keyboard: one table feeds the handler and the list that a reader sees.

   No key is used with Alt or AltGr: on many keyboards these write characters. Letters can be switched off (WCAG 2.1.4). */

/** Keys of the window and of the zoom, the same on every page. */
export const LOOK_KEYS = [
  [["i"], "invert", "invert", true],
  [["q"], "window narrower", "narrower", true],
  [["w"], "window wider", "wider", true],
  [["s"], "darker", "darker", true],
  [["e"], "brighter", "brighter", true],
  [["r"], "window as sent", "resetWindow", true],
  [["f"], "fit", "fit", true],
  [["o"], "1:1, one image pixel a screen pixel", "oneToOne", true],
  [["+"], "zoom in", "zoomIn", true],
  [["-"], "zoom out", "zoomOut", true],
];

/** [title, [[keys, words, act, needs an image?]]]; `act` names a method of the actions. */
export const KEYS = [
  ["Images", [
    [["j", "PageDown"], "next image", "next", false],
    [["k", "PageUp"], "previous image", "previous", false],
    [["Enter"], "done, next; with A: a box in the middle", "enter", false],
    [["/"], "search", "search", false],
    [["l"], "worklist on or off", "list", false],
    [["v"], "one, two models, prior", "nextView", true],
  ]],
  ["Look", [
    ...LOOK_KEYS,
    [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "move the image, or the chosen box (Shift: 10 px)", "arrow", true],
  ]],
  ["Boxes", [
    [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "pick a box", "pick", true],
    [["h"], "heat map", "heat", true],
    [["b"], "boxes on or off", "boxes", true],
    [["t"], "threshold down, more boxes", "lower", true],
    [["Shift+t"], "threshold up, fewer boxes", "higher", true],
  ]],
  ["Judge", [
    [["y"], "accept", "accept", true],
    [["n"], "reject", "reject", true],
    [["a"], "add a box", "add", true],
    [["g"], "arrows move: box, first corner, last corner", "grip", true],
    [["c"], "next class", "nextClass", true],
    [["Delete", "Backspace"], "remove your box, reject a predicted one", "reject", true],
    [["0"], "normal", "normal", true],
    [["m"], "note", "note", true],
    [["z"], "undo", "undo", true],
    [["Shift+z"], "redo", "redo", true],
  ]],
  ["Page", [
    [["?"], "this list", "help", false],
    [["Escape"], "put down, leave, close", "escape", false],
  ]],
];

export const MOUSE = [
  ["Wheel, pinch", "zoom at the pointer"],
  ["Drag", "move the image (or the window, a setting)"],
  ["Right drag", "window: right is wider, up is brighter"],
  ["Middle drag", "move the image"],
  ["Shift drag", "add a box"],
  ["Click a box", "pick it and show its heat map; again: the box under it"],
  ["Drag a border, label or corner", "move or resize the picked box"],
  ["Double click", "1:1 at the pointer, or fit"],
];

/** Key -> {act, needs} of a list as above. */
export const tableOf = (list) => new Map(list.flatMap(([, rows]) => rows.flatMap(([keys, , act, needs]) => keys.map((key) => [key, { act, needs }]))));
const TABLE = tableOf(KEYS);

const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", PageDown: "Page ↓", PageUp: "Page ↑", Escape: "Esc", Delete: "Del", Backspace: "⌫" };
export const keyWords = (key) => (key === "+" ? "+" : key.split("+").map((part) => SHOWN[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" "));

const isLetter = (name) => name.replace("Shift+", "").length === 1 && name !== "?";

/** The entry for a key press; null for one that means nothing here.
 *  Digits and signs are taken as written, letters whatever Shift or Caps Lock made of them. */
export function lookUp(event, lettersOn, table = TABLE) {
  if (event.ctrlKey || event.metaKey) {
    if (event.altKey || !/^[zy]$/i.test(event.key)) return null;
    return { act: event.key.toLowerCase() === "y" || event.shiftKey ? "redo" : "undo", needs: true };
  }
  if (event.altKey) return null;
  let name = event.key === "=" ? "+" : event.key;
  if (/^[a-z]$/i.test(name)) name = (event.shiftKey ? "Shift+" : "") + name.toLowerCase();
  const found = table.get(name) ?? table.get(name.replace("Shift+", ""));
  if (!found || (isLetter(name) && !lettersOn)) return null;
  return found;
}

/** Whether keys write text here. */
export const isTyping = (node) => node.matches('textarea, select, [contenteditable], input:not([type="range"]):not([type="checkbox"]):not([type="file"])');

/** Whether the control has its own use for a key. */
export function isOwnKey(node, key) {
  if (node.matches('input[type="range"]')) return /^(Arrow|Home|End|Page)/.test(key);
  return (key === "Enter" || key === " ") && Boolean(node.closest('button, summary, a, input, [role="option"], g[role="button"]'));
}

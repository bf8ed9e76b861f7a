/* The keyboard of a reader study: everything that is done to a case, and no way to another one but submitting. */

import { LOOK_KEYS } from "./keys.js";

export const STUDY_KEYS = [
  ["Case", [
    [["Enter"], "submit for good; with A: a mark in the middle", "enter", false],
    [["m"], "note", "note", true],
    [["z"], "undo", "undo", true],
    [["Shift+z"], "redo", "redo", true],
  ]],
  ["Marks", [
    [["a"], "add a mark", "add", true],
    [["j"], "next mark or box", "nextBox", true],
    [["k"], "mark or box before", "previousBox", true],
    [["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"], "how sure: 1 to 9 tenths of the scale, 0 its end; on a scale up to 9 the number itself", "rate", true],
    [[",", "."], "a little less sure, a little surer", "rateBy", true],
    [["y"], "take the model's box as a mark, or no longer", "take", true],
    [["c"], "next class", "nextClass", true],
    [["g"], "arrows move: mark, first corner, last corner", "grip", true],
    [["Delete", "Backspace"], "remove the mark", "remove", true],
  ]],
  ["Look", [
    ...LOOK_KEYS,
    [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "move the image, or the chosen mark (Shift: 10 px)", "arrow", true],
    [["b"], "marks and boxes on or off", "boxes", true],
    [["h"], "heat map of the model's box, where the study has them", "heat", true],
  ]],
  ["Page", [
    [["?"], "this list", "help", false],
    [["Escape"], "put down, leave, close", "escape", false],
  ]],
];

export const STUDY_MOUSE = [
  ["Wheel, pinch", "zoom at the pointer"],
  ["Drag", "move the image (or the window, a setting)"],
  ["Right drag", "window: right is wider, up is brighter"],
  ["Shift drag", "add a mark"],
  ["Click a box", "pick it; again: the box under it"],
  ["Drag a border, label or corner", "move or resize the picked mark"],
  ["Double click", "1:1 at the pointer, or fit"],
];

/** The rating that a digit stands for on a scale from 1 to `highest`. */
export function ratingOf(digit, highest) {
  if (highest <= 9) return digit >= 1 && digit <= highest ? digit : null;
  return digit === 0 ? highest : Math.max(1, Math.round((highest * digit) / 10));
}

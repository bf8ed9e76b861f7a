/* Boxes as SVG: drawn in screen pixels so that lines keep their width, kept in image pixels. */

import { draw, put, write } from "./dom.js";
import { boxOnScreen, gripPoints } from "./geometry.js";
import { labelPlace } from "./labels.js";
import { SIGNS, WORDS } from "./marks.js";

const LABEL_HEIGHT = 19;
const MOST_LABELS = 24; // boxes from which not each has its label: they would cover the picture
const SMALL = 0.12; // share of a pane below which a box's inside is kept free of labels

const ruler = new OffscreenCanvas(1, 1).getContext("2d");
ruler.font = '600 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, "Liberation Sans", sans-serif';
const widths = new Map();
function textWidth(text) {
  if (widths.size > 2000) widths.clear();
  if (!widths.has(text)) widths.set(text, ruler.measureText(text).width);
  return widths.get(text);
}

export const scoreWords = (box) => (box.score == null ? "" : box.score.toFixed(2));
export const boxWords = (box) =>
  `Box ${box.number}, ${box.class}${box.score == null ? "" : `, score ${scoreWords(box)}`}, ${WORDS[box.verdict] ?? "not judged"}`;

/** Draw the boxes of a pane.
 *  `boxes`: [{key, kind, class, score, verdict, box, from, number, reader, lone}]; `kind` is predicted, own or other.
 *  `chosen`: key; `grip`: what the arrows move; `onFocus(key)`: a box was reached by Tab. */
export function drawBoxes(pane, boxes, { chosen, grip, onFocus }) {
  const place = pane.empty ? null : pane.place(), list = place ? boxes : [];
  const rects = list.map((box) => boxOnScreen(place, box.box));
  const free = rects.filter((r) => r.width * r.height < pane.width * pane.height * SMALL);
  const labels = [], keep = new Set(list.map((box) => box.key)), crowd = list.length > MOST_LABELS;
  pane.svg.classList.toggle("crowd", crowd && list.some((box) => box.key === chosen));
  // in a crowd: what is chosen, what was judged, and what a digit picks
  const named = (box) => !crowd || box.key === chosen || box.verdict || box.kind === "other" || box.number <= 9;
  list.forEach((box, i) => {
    const node = pane.nodes.get(box.key) ?? newNode(pane, box, onFocus), on = box.key === chosen, rect = rects[i];
    const [ghost, casing, edge, strike, grips] = node.children, [plate, text] = node.label.children;
    const look = [box.kind, box.verdict ?? "", on ? "chosen" : ""].join(" ");
    put(node, { class: look });
    put(node.label, { class: look });
    for (const line of [casing, edge]) put(line, rect);
    put(strike, { x1: rect.x, y1: rect.y + rect.height, x2: rect.x + rect.width, y2: rect.y });
    put(ghost, box.from ? { ...boxOnScreen(place, box.from), visibility: "visible" } : { visibility: "hidden" });
    const words = labelWords(box, pane.width > 500), size = { width: textWidth(words) + 10, height: LABEL_HEIGHT };
    const seen = named(box) && rect.x + rect.width > 0 && rect.x < pane.width && rect.y + rect.height > 0 && rect.y < pane.height;
    const at = labelPlace(rect, size, pane, labels, free);
    if (seen) labels.push(at);
    put(plate, at);
    put(text, { x: at.x + 5, y: at.y + 13.5 });
    write(text, words);
    put(node.label, { visibility: seen ? "visible" : "hidden" }); // a label leaves with its box
    box.label = seen ? at : null;
    if (box.kind !== "other") put(node, { "aria-pressed": on, "aria-label": boxWords(box) });
    drawGrips(grips, on && box.kind !== "other" ? gripPoints(rect) : [], grip);
  });
  for (const [key, node] of pane.nodes)
    if (!keep.has(key)) {
      node.label.remove();
      node.remove();
      pane.nodes.delete(key);
    }
  inOrder(pane, list);
  pane.shown = list;
}

function labelWords(box, wide) {
  const sign = SIGNS[box.verdict] ? `${SIGNS[box.verdict]} ` : "";
  if (box.kind === "other") return `${sign}${box.reader} ${box.class}`;
  return `${sign}${box.number} ${box.class}${wide && box.score != null ? ` ${scoreWords(box)}` : ""}${box.lone ? "  only here" : ""}`;
}

function newNode(pane, box, onFocus) {
  const node = draw("g");
  node.dataset.key = box.key;
  node.append(draw("rect", { class: "ghost" }), draw("rect", { class: "casing" }), draw("rect", { class: "edge" }), draw("line", { class: "strike" }), draw("g"));
  node.label = draw("g");
  node.label.append(draw("rect", { class: "plate", rx: 4 }), draw("text"));
  pane.labels.append(node.label);
  if (box.kind !== "other") {
    put(node, { tabindex: "0", role: "button" });
    node.addEventListener("focus", () => { if (node.matches(":focus-visible")) onFocus(box.key); });
  }
  pane.nodes.set(box.key, node);
  pane.lines.append(node);
  return node;
}

function drawGrips(group, points, now) {
  while (group.childElementCount > points.length) group.lastChild.remove();
  while (group.childElementCount < points.length) group.append(draw("rect", { width: 8, height: 8 }));
  points.forEach((point, i) => put(group.children[i], { x: point.x - 4, y: point.y - 4, class: point.grip === now ? "grip now" : "grip" }));
}

/** Tab follows the numbers, so the order in the document is that of the list. */
function inOrder(pane, list) {
  const order = list.map((box) => box.key).join("\n");
  if (pane.order === order) return;
  pane.order = order;
  const focus = document.activeElement;
  for (const box of list) pane.lines.append(pane.nodes.get(box.key));
  if (focus !== document.activeElement && focus?.ownerSVGElement === pane.svg && focus.isConnected) focus.focus();
}

/** The box that is being drawn; null takes it away. */
export function drawRubber(pane, box) {
  let rubber = pane.svg.querySelector(".rubber");
  if (!box) return rubber?.remove();
  if (!rubber) pane.svg.append((rubber = draw("rect", { class: "rubber" })));
  put(rubber, boxOnScreen(pane.place(), box));
}

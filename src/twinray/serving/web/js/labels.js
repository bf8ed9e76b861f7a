/* Where a box's label stands: beside its box, where it hides least. */

import { clamp } from "./geometry.js";

const GAP = 3;

const common = (a, b) =>
  Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x)) *
  Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y));

/** The rectangle of a label of the given size beside `box` (a rectangle of the pane).
 *  `labels`: those that have their place. `keepFree`: small boxes, whose inside must stay visible. */
export function labelPlace(box, size, pane, labels, keepFree) {
  const right = box.x + box.width - size.width, above = box.y - size.height - GAP, below = box.y + box.height + GAP;
  const outside = box.x + box.width + GAP, before = box.x - size.width - GAP, bottom = box.y + box.height - size.height;
  const tries = [[box.x, above], [right, above], [box.x, below], [right, below], [outside, box.y], [before, box.y], [outside, bottom], [before, bottom], [box.x + 4, box.y + 4]];
  let best = null, least = Infinity;
  tries.forEach(([x, y], i) => {
    const at = {
      x: clamp(x, 2, Math.max(2, pane.width - size.width - 2)),
      y: clamp(y, 2, Math.max(2, pane.height - size.height - 2)),
      ...size,
    };
    const cost = i * 12 + labels.reduce((sum, l) => sum + 20 * common(at, l), 0) + keepFree.reduce((sum, b) => sum + common(at, b), 0);
    if (cost < least) [best, least] = [at, cost];
  });
  return best;
}

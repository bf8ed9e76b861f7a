/* Which boxes are on the page now, in the order of their numbers. */

import { overlap } from "./geometry.js";
import { boxesOf } from "./marks.js";
import { at, firstThreshold, thresholdFor } from "./points.js";
import { hidden, modelOf, state } from "./state.js";

const SAME_PLACE = 0.3; // IoU from which two models mean the same

/** Models whose boxes are on the page. */
export const shownModels = () => (state.view === "models" && state.second ? [state.first, state.second] : [state.first]);

/** The score from which a model's boxes are shown. The second model's is where it has the first one's false positives an
 *  image on validation, never the same score; without such figures it is the second's own. */
export function thresholdOf(model) {
  if (model === state.first) return state.threshold;
  const here = at(modelOf(state.first), state.threshold), other = modelOf(model);
  return (here && thresholdFor(other, here.fp_per_image)) ?? firstThreshold(other);
}

/** Whether both models have the figures by which they can be compared. */
export const comparable = () => Boolean(at(modelOf(state.first), 0.5) && at(modelOf(state.second), 0.5));

/** Boxes of all shown models, each once, then the reader's own. */
export function listed(open = state.case) {
  if (!open) return [];
  const found = new Map();
  for (const model of shownModels())
    for (const box of boxesOf(open.reading, model, open.predictions.get(model) ?? [], thresholdOf(model), { hidden: hidden(open) }))
      found.set(box.key, box);
  const boxes = [...found.values()].sort((a, b) => (a.kind === "own") - (b.kind === "own"));
  boxes.forEach((box, i) => { box.number = i + 1; });
  // only where both have answered: a model that has not looked, or failed, has not left a box out
  if (state.view === "models" && shownModels().every((model) => open.answers.find((one) => one.model === model)?.state === "done"))
    for (const box of boxes)
      box.lone = box.kind === "predicted" && box.verdict !== "rejected" &&
        !boxes.some((o) => o.kind === "predicted" && o.model !== box.model && o.class === box.class && overlap(o.box, box.box) > SAME_PLACE);
  return boxes;
}

export const chosen = () => listed().find((box) => box.key === state.chosen) ?? null;

/** Boxes of other readers, where this reader is done or asked for them. */
export function othersOf(open = state.case) {
  if (!open?.othersShown) return [];
  return open.others.flatMap((reading) =>
    reading.marks.filter((mark) => mark.verdict !== "rejected").map((mark, i) => ({
      key: `other:${reading.reader}:${i}`, kind: "other", reader: reading.reader, class: mark.class, box: mark.box, verdict: null, score: null, from: null,
    })));
}

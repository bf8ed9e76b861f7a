/* Which boxes and labels are on the page now, in the order of their numbers. */

import { overlap } from "./geometry.js";
import { boxesOf } from "./marks.js";
import { at, firstThreshold, thresholdFor } from "./points.js";
import { called, givesLabels, ruleName } from "./rules.js";
import { hidden, modelOf, state } from "./state.js";

const SAME_PLACE = 0.3; // IoU from which two models mean the same

/** Models whose boxes are on the page. */
export const shownModels = () => (state.view === "models" && state.second ? [state.first, state.second] : [state.first]);

/** Models whose labels are on the page: classifiers among the shown ones, else the one that stands beside. */
export function labellers() {
  const shown = shownModels().filter((hash) => givesLabels(modelOf(hash)));
  return shown.length || !state.labeller ? shown : [state.labeller];
}

/** Models whose answers the page needs. */
export const askedModels = () => [...new Set([...shownModels(), ...labellers()])].filter(Boolean);

/** Whether boxes of two detectors stand side by side. */
export const twoDetectors = () => Boolean(state.view === "models" && state.second && !givesLabels(modelOf(state.first)) && !givesLabels(modelOf(state.second)));

/** The score from which a model's boxes are shown. The second model's is where it has the first one's false positives an
 *  image on validation, never the same score; without such figures it is the second's own. */
export function thresholdOf(model) {
  if (model === state.first) return state.threshold;
  const here = at(modelOf(state.first), state.threshold), other = modelOf(model);
  return (here && thresholdFor(other, here.fp_per_image)) ?? firstThreshold(other);
}

/** Whether both models have the figures by which they can be compared. */
export const comparable = () => Boolean(at(modelOf(state.first), 0.5) && at(modelOf(state.second), 0.5));

/** A mark on a box of a model that is not shown, or not served any more: the reader said it, so it stays in sight. */
const keptBox = (key, mark) => ({
  key, kind: mark.model ? "predicted" : "own", kept: true, model: mark.model, prediction: mark.prediction, score: mark.score, verdict: mark.verdict,
  class: mark.class, box: mark.box, from: null,
});

/** Boxes of all shown models, each once, then marks on boxes of others, then the reader's own. */
export function listed(open = state.case) {
  if (!open) return [];
  const found = new Map();
  for (const model of shownModels())
    for (const box of boxesOf(open.reading, model, open.predictions.get(model) ?? [], thresholdOf(model), { hidden: hidden(open) }))
      found.set(box.key, box);
  if (!hidden(open))
    for (const [key, mark] of open.reading.marks) if (!found.has(key) && mark.verdict !== "rejected") found.set(key, keptBox(key, mark));
  const boxes = [...found.values()].sort((a, b) => (a.kind === "own") - (b.kind === "own") || Boolean(a.kept) - Boolean(b.kept));
  boxes.forEach((box, i) => { box.number = i + 1; });
  // only where both have answered: a model that has not looked, or failed, has not left a box out
  if (twoDetectors() && shownModels().every((model) => open.answers.find((one) => one.model === model)?.state === "done"))
    for (const box of boxes)
      box.lone = box.kind === "predicted" && !box.kept && box.verdict !== "rejected" &&
        !boxes.some((o) => o.kind === "predicted" && !o.kept && o.model !== box.model && o.class === box.class && overlap(o.box, box.box) > SAME_PLACE);
  return boxes;
}

export const chosen = () => listed().find((box) => box.key === state.chosen) ?? null;

/** Labels of the whole image by classifiers, called ones first; their numbers go on after those of the boxes. */
export function labelled(open = state.case) {
  if (!open || hidden(open) || open.state !== "done") return [];
  const rows = [];
  for (const model of labellers()) {
    const about = modelOf(model), labels = open.labels.get(model) ?? [], on = called(about, ruleName(about, state.rule), labels);
    const own = labels.map((one, label) => ({ key: `${model}:label:${label}`, kind: "label", model, label, class: one.class, score: one.score, called: on[label], stated: open.reading.labels.get(one.class) ?? null }));
    rows.push(...own.sort((a, b) => b.called - a.called || b.score - a.score));
  }
  const boxes = listed(open).length;
  rows.forEach((row, i) => { row.number = boxes + i + 1; });
  return rows;
}

export const chosenLabel = () => labelled().find((row) => row.key === state.chosen) ?? null;

/** The box or label that is chosen. */
export const picked = () => chosen() ?? chosenLabel();

/** What a heat map can be asked for of the box or label that is chosen; null of a reader's own box. */
export function explained() {
  const it = picked();
  if (it?.kind === "label") return { ...it, what: { label: it.label } };
  return it?.kind === "predicted" && !it.kept ? { ...it, what: { box: it.prediction } } : null;
}

/** Boxes of other readers, where this reader is done or asked for them. */
export function othersOf(open = state.case) {
  if (!open?.othersShown) return [];
  return open.others.flatMap((reading) =>
    reading.marks.filter((mark) => mark.verdict !== "rejected").map((mark, i) => ({
      key: `other:${reading.reader}:${i}`, kind: "other", reader: reading.reader, class: mark.class, box: mark.box, verdict: null, score: null, from: null,
    })));
}

/* What a classifier calls, and what that meant on its validation images.

   Of a model (`GET /api/models`):
     exclusive     an image has exactly one of the classes
     rules         {name: {words, by_class: {class: {threshold, sensitivity, n_called, n_with, specificity, n_false, n_without}}}}, the first unless another is chosen
     validation    {n_images, by_class: {class: {by_score: [{low, high, share_with, n_with, n}]}}} or {why_none}
   A sentence without numbers behind it is not made (null). */

import { bandOf, SMALL } from "./points.js";

const NOTHING = new Set(["nofinding", "nofindings", "normal", "negative", "healthy", "background", "none", "nolesion"]);

/** Whether a class says that there is nothing to find, as "No Finding" does. */
export const saysNothing = (name) => NOTHING.has(name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, ""));

export const givesLabels = (model) => model?.kind === "classifier";

/** The rule by which a model calls: the chosen one where it has that, else its first. */
export const ruleName = (model, wanted) => (model?.rules?.[wanted] ? wanted : Object.keys(model?.rules ?? {})[0] ?? null);

/** For each of a model's labels [{class, score}] whether it is called. As the server calls them, by any of the rules. */
export function called(model, rule, labels) {
  const own = model?.rules?.[rule]?.by_class;
  if (!own || !labels.length) return labels.map(() => null);
  const least = labels.map((one) => own[one.class]?.threshold ?? null);
  if (least.every((one) => one == null)) {
    const best = labels.reduce((at, one, i) => (one.score > labels[at].score ? i : at), 0);
    return labels.map((_, i) => i === best);
  }
  const reached = labels.map((one, i) => one.score >= least[i]);
  return model.exclusive ? [!reached[1], reached[1]] : reached;
}

const SHORT = { youden: "sensitivity + specificity highest", f1: "F1 highest", "specificity@90": "specificity of 0.90 or more", "specificity@95": "specificity of 0.95 or more", highest: "highest score", fixed: "score of 0.5 or more" };
export const ruleWords = (rule) => SHORT[rule] ?? rule;

/** Two digits; more where these would say 0 or 1 of a score that is neither. */
export function digits(score) {
  let n = 2;
  while (n < 8 && score > 0 && score < 1 && [0, 1].includes(Number(score.toFixed(n)))) n++;
  return score.toFixed(n);
}

/** "Called from 0.41 on." and the like. */
export function thresholdWords(model, rule, name) {
  const least = model?.rules?.[rule]?.by_class?.[name]?.threshold;
  if (model?.rules?.[rule] && least == null) return "The class of the highest score is called.";
  if (least == null) return null;
  if (!model.exclusive) return `Called from a score of ${digits(least)} on.`;
  const [first, second] = model.classes, from = model.rules[rule].by_class[second].threshold;
  return `${second} is called from a score of ${digits(from)} on, else ${first}.`;
}

/** "On validation it called 18 of 20 images with it (sensitivity 0.90) and 3 of 30 without it (specificity 0.90)."; or null. */
export function meaningWords(model, rule, name) {
  const own = model?.rules?.[rule]?.by_class?.[name];
  if (!own || own.sensitivity == null || own.specificity == null) return null;
  return `On validation it called ${own.n_called} of ${own.n_with} images with it (sensitivity ${own.sensitivity.toFixed(2)}) and ${own.n_false} of ${own.n_without} without it (specificity ${own.specificity.toFixed(2)}).`;
}

/** "Of 10 validation images with this score, about 7 had it (n = 23)."; or null. */
export function bandOfLabel(model, score, name) {
  const band = bandOf(model?.validation?.by_class?.[name]?.by_score, score);
  if (!band || band.n < SMALL) return null;
  const had = Math.round(band.share_with * 10), words = had <= 0 ? "almost none" : had >= 10 ? "almost all" : `about ${had}`;
  return `Of 10 validation images with this score, ${words} had it (n = ${band.n}).`;
}

/* What a score threshold meant on a model's validation images.

   The `validation` of a model (`GET /api/models`), each figure with its n:
     n_images, n_boxes
     by_threshold  [{score, fp_per_image, share_found}] by falling score: what is shown from that score on
     by_score      [{low, high, share_met, n}]: share of the boxes with such a score that met a reader's box
     by_class      the same of one class
   or {why_none}. A sentence without numbers behind it is not made (null). */

export const SMALL = 10; // boxes below which a share says nothing

const steps = (model) => (model?.validation?.by_threshold ?? []).filter((step) => step.fp_per_image != null);

/** False positives an image and share of findings found at a threshold; null without figures.
 *  The figures are those of all boxes that score at least as much: steps, not a curve. */
export function at(model, threshold) {
  const all = steps(model);
  if (!all.length) return null;
  return all.findLast((step) => step.score >= threshold) ?? { score: threshold, fp_per_image: 0, share_found: 0 };
}

/** The lowest threshold at which a model has no more false positives an image; null without figures.
 *  This is how two models are compared: at the same false positives, never at the same score. */
export function thresholdFor(model, falsePositives) {
  const all = steps(model);
  if (!all.length) return null;
  const step = all.findLast((one) => one.fp_per_image <= falsePositives + 1e-9);
  return step?.score ?? Math.min(1, all[0].score + 1e-6);
}

/** Where the slider starts: half a false positive an image, or a score of 0.5. */
export const firstThreshold = (model) => thresholdFor(model, 0.5) ?? 0.5;

/** Ends of the slider: scores that the model's boxes have. */
export function scoreRange(model) {
  const all = steps(model), low = all.length ? Math.floor(all.at(-1).score * 100) / 100 : 0.05;
  const high = all.length ? Math.ceil(all[0].score * 100) / 100 : 1;
  return high - low >= 0.05 ? { low, high } : { low: 0, high: 1 };
}

export function rateWords(falsePositives) {
  if (falsePositives <= 0) return "no false positive";
  if (falsePositives >= 0.1) return `about ${falsePositives.toFixed(1)} false positives an image`;
  return `about 1 false positive in ${Math.round(1 / falsePositives)} images`;
}

/** A share in tenths, never 0 or 10 of 10: validation images do not promise that. */
export const tenths = (share) => `${Math.min(9, Math.max(1, Math.round(share * 10)))} of 10`;

export const bandOf = (bands, score) => (bands ?? []).find((b) => score >= b.low && (score < b.high || (b.high >= 1 && score <= 1)));

/** "Of 10 validation boxes with this score, about 7 met a reader's box.", of the class where it has enough boxes; or null. */
export function bandWords(model, score, name) {
  const own = bandOf(model?.validation?.by_class?.[name]?.by_score, score), all = bandOf(model?.validation?.by_score, score);
  const [band, of] = own?.n >= SMALL ? [own, `${name} boxes`] : [all, "boxes"];
  if (band?.share_met == null || band.n < SMALL) return null;
  const met = Math.round(band.share_met * 10), words = met <= 0 ? "almost none" : met >= 10 ? "almost all" : `about ${met}`;
  return `Of 10 validation ${of} with this score, ${words} met a reader's box (n = ${band.n}).`;
}

/** Marks of the axis under the slider: [{share of the way, word}]. */
export function axis(model, low, high) {
  const all = steps(model), out = [];
  if (!all.length) return out;
  for (const [rate, word] of [[4, "4"], [2, "2"], [1, "1"], [0.5, "½"], [0.25, "¼"], [0.125, "⅛"]]) {
    const score = thresholdFor(model, rate);
    if (at(model, score).fp_per_image < 0.75 * rate) continue; // the table has no step near it
    const share = (score - low) / (high - low);
    if (share >= 0 && share <= 1 && out.every((mark) => Math.abs(mark.share - share) > 0.07)) out.push({ share, word });
  }
  return out;
}

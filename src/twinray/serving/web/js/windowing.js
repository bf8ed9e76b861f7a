/* 16-bit values -> grey, by a table of one entry a value.

   The order is that of DICOM PS3.4 annex N, once: rescale, VOI LUT or window, polarity. Values are kept as they came; a new
   window is a new table. The rules are those by which the package makes the picture that a model sees.

   A display is what `GET /api/images/{id}/display` says of an image:
     slope, intercept  value after the rescale = slope x value + intercept; windows are stated in it
     function          LINEAR, LINEAR_EXACT, SIGMOID or LUT
     centre, width_of_window, low, high   the first window
     lut               grey 0..255 for each whole value from `low` on, or null
     padding           [smallest, largest] value that is no picture, or null
     inverted          true where black and white change places (Presentation LUT Shape if present, else MONOCHROME1) */

import { clamp } from "./geometry.js";

const VALUES = 1 << 16;
const LOW = 0.5, HIGH = 99.5; // percentiles

/** Round half to even, as numpy does: the table then agrees with the package's to the last value. */
function rint(x) {
  const down = Math.floor(x), left = x - down;
  if (left !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}

/** Value after the rescale, for every value. */
export function modalityValues(display) {
  const out = new Float64Array(VALUES), slope = display.slope || 1, intercept = display.intercept ?? 0;
  for (let v = 0; v < VALUES; v++) out[v] = v * slope + intercept;
  return out;
}

const unit = (value, low, high) => (high > low ? clamp((value - low) / (high - low), 0, 1) : 0);

/** Grey from 0 to 1 of a value after the rescale. */
function levelOf(value, voi) {
  if (voi.kind === "lut") return voi.entries[clamp(rint(value) - voi.first, 0, voi.entries.length - 1)] / 255;
  if (voi.kind === "range") return unit(value, voi.low, voi.high);
  const { center, width } = voi;
  if (voi.function === "SIGMOID") return 1 / (1 + Math.exp(clamp((-4 * (value - center)) / width, -700, 700)));
  if (voi.function === "LINEAR_EXACT" || width < 1) return unit(value, center - width / 2, center + width / 2);
  if (width === 1) return value > center - 0.5 ? 1 : 0;
  return unit(value, center - width / 2, center + width / 2 - 1); // PS3.3 C.11.2.1.2.1: the ends lie half a level inside
}

/** Table of 65,536 RGBA pixels (as little-endian words), one for each value.
 *  `inverted`: the reader's own flag, beside the image's polarity. */
export function greyTable(display, modality, voi, inverted = false) {
  const table = new Uint32Array(VALUES), turn = Boolean(display.inverted) !== Boolean(inverted);
  for (let v = 0; v < VALUES; v++) {
    const level = levelOf(modality[v], voi);
    const grey = rint((turn ? 1 - level : level) * 255);
    table[v] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

/** The picture: `out` (Uint32Array of pixels) from values (Uint16Array). */
export function applyTable(values, table, out) {
  for (let i = 0; i < values.length; i++) out[i] = table[values[i]];
}

/** How often each value occurs. */
export function countValues(values) {
  const counts = new Uint32Array(VALUES);
  for (let i = 0; i < values.length; i++) counts[values[i]]++;
  return counts;
}

/** The values that occur by rising modality value, padding left out. */
function occurring(display, modality, counts) {
  const all = [];
  for (let v = 0; v < VALUES; v++) if (counts[v]) all.push(v);
  const [from, to] = display.padding ?? [1, 0];
  const picture = all.filter((v) => v < from || v > to);
  return (picture.length ? picture : all).sort((a, b) => modality[a] - modality[b]);
}

/** The values at two percentiles. */
export function percentileRange(display, modality, counts, low = LOW, high = HIGH) {
  const order = occurring(display, modality, counts), all = order.reduce((sum, v) => sum + counts[v], 0);
  const at = (percent) => {
    let seen = 0;
    for (const v of order) if ((seen += counts[v]) * 100 >= percent * all) return modality[v];
    return modality[order.at(-1)];
  };
  const [least, most] = [at(low), at(high)];
  return most > least ? { low: least, high: most } : { low: modality[order[0]], high: modality[order.at(-1)] };
}

function sent(display) {
  if (display.lut?.length) return { kind: "lut", first: display.low, entries: display.lut };
  if (display.function === "LUT") return { kind: "range", low: display.low, high: display.high };
  if (display.function === "LINEAR_EXACT") return { kind: "range", low: display.low, high: display.high };
  return { kind: "window", center: display.centre, width: display.width_of_window, function: display.function };
}

/** The windows to choose from: as sent, the file's further ones, percentiles, and all values. */
export function presets(display, modality, counts) {
  const order = occurring(display, modality, counts);
  const further = (display.windows ?? []).map((w, i) => ({
    name: w.name ? String(w.name).slice(0, 24) : `Window ${i + 2}`,
    voi: { kind: "window", center: w.centre, width: w.width, function: w.function ?? "LINEAR" },
  }));
  return [
    { name: "As sent", voi: sent(display) },
    ...further,
    { name: "Percentiles", voi: { kind: "range", ...percentileRange(display, modality, counts) } },
    { name: "All values", voi: { kind: "range", low: modality[order[0]], high: modality[order.at(-1)] } },
  ];
}

/** Centre and width of whatever sets the grey: where a reader's own window starts. */
export function asWindow(voi) {
  if (voi.kind === "window") return { center: voi.center, width: voi.width };
  const low = voi.kind === "lut" ? voi.first : voi.low, high = voi.kind === "lut" ? voi.first + voi.entries.length - 1 : voi.high;
  return { center: (low + high + 1) / 2, width: Math.max(0, high - low) + 1 };
}

/** A window of the reader's own: DICOM's LINEAR, or SIGMOID where the image came with one.
 *  `span`: width of all values. Values with a span of less than 16 are no whole numbers, so their ends are exact. */
export function ownWindow(voi, center, width, span) {
  const whole = span >= 16, sigmoid = voi.kind === "window" && voi.function === "SIGMOID";
  const name = sigmoid ? "SIGMOID" : whole ? "LINEAR" : "LINEAR_EXACT";
  return { kind: "window", function: name, center, width: clamp(width, whole ? 2 : span / 4096, span * 4) };
}

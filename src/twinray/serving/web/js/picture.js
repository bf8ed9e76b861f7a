/* The values of an image, fetched once, and the canvas that a window makes of them. */

import { applyTable, asWindow, countValues, greyTable, modalityValues, ownWindow, presets } from "./windowing.js";

const KEPT = 6; // pictures: some 30 bytes a pixel in all

export class Picture {
  constructor(id, display, values) {
    Object.assign(this, { id, display, values, width: display.width, height: display.height });
    this.modality = modalityValues(display);
    this.presets = presets(display, this.modality, countValues(values));
    this.canvas = new OffscreenCanvas(this.width, this.height);
    this.inverted = false; // the reader's own, beside the polarity of the image
    this.choose(0);
  }

  choose(preset) {
    this.preset = preset;
    this.voi = this.presets[preset].voi;
    this.stale = true;
  }

  invert(on = !this.inverted) {
    this.inverted = on;
    this.stale = true;
  }

  get window() {
    return asWindow(this.voi);
  }

  /** The width of all values, which tells how far a drag goes. */
  get span() {
    const { low, high } = this.presets.at(-1).voi;
    return high - low || 1;
  }

  setWindow(center, width) {
    this.voi = ownWindow(this.voi, center, width, this.span);
    this.preset = -1;
    this.stale = true;
  }

  /** Whether a larger value is darker: brightness then goes the other way. */
  get dark() {
    return Boolean(this.display.inverted) !== this.inverted;
  }

  /** The canvas under the present window. */
  drawn() {
    if (this.stale) {
      const pixels = new ImageData(this.width, this.height);
      applyTable(this.values, greyTable(this.display, this.modality, this.voi, this.inverted), new Uint32Array(pixels.data.buffer));
      this.canvas.getContext("2d", { alpha: false }).putImageData(pixels, 0, 0);
      this.stale = false;
    }
    return this.canvas;
  }

  /** The value of the pixel whose square holds the point, after the modality transform; null outside. */
  valueAt(x, y) {
    const column = Math.floor(x), row = Math.floor(y);
    if (!(column >= 0 && row >= 0 && column < this.width && row < this.height)) return null;
    return this.modality[this.values[row * this.width + column]];
  }
}

/** Pictures by image, the latest few kept. A picture keeps its window while it is here. */
export class Pictures {
  constructor(api) {
    this.api = api;
    this.kept = new Map();
  }

  has(id) {
    return this.kept.has(id);
  }

  get(id) {
    const found = this.kept.get(id);
    this.kept.delete(id);
    const picture = found ?? this.#fetch(id);
    this.kept.set(id, picture);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return picture;
  }

  #fetch(id) {
    const picture = Promise.all([this.api.display(id), this.api.pixels(id)]).then(([display, values]) => {
      if (values.length !== display.width * display.height)
        throw new Error(`expected ${display.width} x ${display.height} pixels, ${values.length} came`);
      return new Picture(id, display, values);
    });
    picture.catch(() => { if (this.kept.get(id) === picture) this.kept.delete(id); }); // asked again, it is fetched again
    return picture;
  }

  clear() {
    this.kept.clear();
  }
}

/* The panes together: one view for both, painted once a frame. */

import { $, write } from "./dom.js";
import { boxOnScreen, fitted, linked, oneToOne, panned, zoomedAt } from "./geometry.js";
import { drawBoxes } from "./boxes.js";
import { explained, listed, othersOf } from "./listing.js";
import { Pane } from "./pane.js";
import { draws, given, hidden, modelOf, refresh, state } from "./state.js";

const OWN = "own";

export class Viewport {
  /** `heatMaps`: where maps come from; `onFocus(key)`: a box was reached by Tab; `onResize()`. */
  constructor({ heatMaps, onFocus }) {
    Object.assign(this, { heatMaps, onFocus, dragged: null });
    this.panes = [0, 1].map((n) => new Pane(n, $(`pane-${n}`)));
    this.view = null; // of the first pane; the second moves with it
    draws("image", () => this.paint());
    const seen = new ResizeObserver((entries) => this.#resized(entries));
    for (const pane of this.panes) seen.observe(pane.element);
  }

  #resized(entries) {
    for (const entry of entries) {
      this.panes.find((one) => one.element === entry.target)?.measure();
    }
    if (this.view?.fit) this.fit();
    this.paint(); // in the same frame: a canvas that was resized is empty
  }

  get active() {
    return this.panes[state.active];
  }

  get picture() {
    return this.active.picture;
  }

  /** Give the panes their pictures; null empties one. A picture of another size is fitted. */
  setPictures(first, second) {
    const [a, b] = this.panes, before = a.picture;
    a.picture = first;
    b.picture = second;
    if (first && (!this.view || before !== first)) this.fit();
    refresh("image");
  }

  // ------------------------------------------------------------------ view
  fit() {
    const [pane] = this.panes;
    if (pane.picture && pane.width > 1) this.view = fitted(pane, pane.picture);
    this.#follow();
  }

  /** The second pane shows the same part. */
  #follow() {
    const [a, b] = this.panes;
    a.view = this.view;
    b.view = this.view && a.picture && b.picture && b.width > 1 ? linked(this.view, a, a.picture, b, b.picture) : null;
    refresh("image");
  }

  #change(pane, make) {
    if (pane.empty) return;
    const view = make(pane.view, pane.picture), [a] = this.panes;
    this.view = pane === a ? view : linked(view, pane, pane.picture, a, a.picture);
    this.#follow();
  }

  zoomAt(pane, x, y, factor) {
    this.#change(pane, (view, image) => zoomedAt(view, pane, image, x, y, factor));
  }

  zoom(factor) {
    this.zoomAt(this.active, this.active.width / 2, this.active.height / 2, factor);
  }

  oneToOne(pane = this.active, x = pane.width / 2, y = pane.height / 2) {
    this.#change(pane, (view, image) => oneToOne(view, pane, image, x, y));
  }

  pan(pane, dx, dy) {
    this.#change(pane, (view, image) => panned(view, image, dx, dy));
  }

  /** Bring a box that was chosen by key into sight. */
  bringIn(box) {
    const pane = this.active;
    if (pane.empty) return;
    const r = boxOnScreen(pane.place(), box);
    if (r.x + r.width < 20 || r.y + r.height < 20 || r.x > pane.width - 20 || r.y > pane.height - 20)
      this.#change(pane, (view) => ({ ...view, x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2, fit: false }));
  }

  // ------------------------------------------------------------------ painting
  isPrior(pane) {
    return state.view === "prior" && pane.number === 1;
  }

  /** The heat map that a pane shows, or null. */
  heatOf(pane) {
    const open = state.case;
    if (!state.heat || !open || hidden(open) || this.isPrior(pane) || pane.picture?.id !== open.id) return null;
    const it = explained();
    if (!it || !this.#shows(pane, it)) return null;
    return this.heatMaps.get(open.id, it.model, it.what, methodOf(it.model));
  }

  /** Whether something is of a pane; labels of a classifier that stands beside are of the first. */
  #shows(pane, it) {
    if (it.model === pane.model || it.kind !== "label") return it.model === pane.model;
    return this.#alone(pane, it);
  }

  /** Whether something of a model that no pane shows belongs to this one, the first. */
  #alone(pane, it) {
    return pane.number === 0 && !this.panes.some((one) => one.model === it.model && !one.column.hidden);
  }

  #boxesOf(pane, all) {
    if (!state.case || this.isPrior(pane)) return [];
    const drawn = state.boxes ? all : all.filter((box) => box.key === this.dragged);
    if (pane.picture?.id !== state.case.id) return []; // boxes are of one picture, and are drawn on no other
    const here = drawn.filter((box) => box.kind === OWN || box.model === pane.model || (box.kept && this.#alone(pane, box))).map((box) => ({ ...box }));
    return state.boxes ? [...here, ...othersOf()] : here;
  }

  paint() {
    const all = listed();
    for (const pane of this.panes) {
      if (pane.column.hidden || pane.width < 2) continue;
      pane.paint(this.heatOf(pane), state.heatOpacity);
      drawBoxes(pane, this.#boxesOf(pane, all), { chosen: state.chosen, grip: state.grip, onFocus: this.onFocus });
      this.#words(pane);
    }
    const { view, picture } = this.active;
    write($("zoom"), view ? `${Math.round(view.scale * this.active.ratio * 100)} %` : "");
    $("invert-button").setAttribute("aria-pressed", Boolean(picture?.inverted));
  }

  #words(pane) {
    const open = state.case, { picture } = pane, map = this.heatOf(pane);
    const what = given() === "boxes" ? "Boxes" : "Labels";
    let told = "";
    if (open && picture && !this.isPrior(pane)) {
      if (map) told = { coming: "Computing the heat map", shown: "Heat map", empty: "Heat map is empty", failed: `No heat map: ${map.reason}` }[map.state];
      else if (open.state === "queued") told = open.place ? `${what} later, ${open.place} before it` : `${what} in a moment`;
      else if (open.state === "running") told = `${what} in a moment`;
      else if (open.state === "done" && pane.model && !open.predictions.has(pane.model)) told = "Not looked yet";
      else if (hidden(open)) told = `${what} hidden`;
      else if (!state.boxes) told = "Boxes off";
    }
    if (open && !picture && pane.card.hidden) told = "The image is coming";
    write(pane.told, told);
    if (picture) {
      const { center, width } = picture.window, digits = picture.span < 16 ? 3 : 0;
      write(pane.window, `C ${center.toFixed(digits)} W ${width.toFixed(digits)}${picture.inverted ? ", inverted" : ""}`);
    } else write(pane.window, "");
    if (pane.number !== state.active) return;
    const at = pane.pointer, value = at && picture ? picture.valueAt(at.x, at.y) : null;
    write($("at"), value == null ? "" : `x ${Math.floor(at.x)}, y ${Math.floor(at.y)}: ${Number(value.toPrecision(8))}`);
  }
}

/** The heat map's method for a model: the reader's choice where the model has a use for it. */
export function methodOf(hash) {
  const methods = modelOf(hash)?.heat_maps ?? ["ablation"];
  return methods.includes(state.method) ? state.method : methods[0];
}


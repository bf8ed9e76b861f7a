/* A pane: the canvas that holds the pixels, and its size in CSS and in device pixels. */

import { placed } from "./geometry.js";

const GROUND = "#060606";
const PLAIN_FROM = 8; // device pixels an image pixel: above, pixels are squares

export class Pane {
  constructor(number, element) {
    const column = element.parentElement, part = (name) => column.querySelector(name);
    Object.assign(this, {
      number, element, column, canvas: part("canvas"), svg: part(".boxes"), lines: part(".lines"), labels: part(".labels"),
      what: part(".what"), told: part(".told"), window: part(".window"), card: part(".card"),
    });
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.nodes = new Map(); // of boxes, by key
    this.shown = []; // boxes drawn, with their labels' places
    Object.assign(this, { width: 0, height: 0, ratio: 1, picture: null, model: null, view: null, pointer: null });
  }

  /** Take the size that the layout gave. */
  measure() {
    const ratio = devicePixelRatio || 1, box = this.element.getBoundingClientRect();
    // the edges of an element are drawn on whole device pixels, so its size is the distance of the rounded edges;
    // the browser's own count (device-pixel-content-box) leaves an emulated ratio out
    const wide = Math.round(box.right * ratio) - Math.round(box.left * ratio);
    const high = Math.round(box.bottom * ratio) - Math.round(box.top * ratio);
    Object.assign(this, { ratio, width: wide / ratio, height: high / ratio, left: Math.round(box.left * ratio) / ratio, top: Math.round(box.top * ratio) / ratio });
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
    }
    for (const { style } of [this.canvas, this.svg]) {
      // on whole device pixels: a canvas between them would be resampled
      style.left = `${this.left - box.left}px`;
      style.top = `${this.top - box.top}px`;
      style.width = `${this.width}px`;
      style.height = `${this.height}px`;
    }
  }

  get empty() {
    return this.column.hidden || !this.picture || this.width < 2 || this.height < 2 || !this.view;
  }

  place() {
    return placed(this.view, this);
  }

  point(event) {
    return { x: event.clientX - this.left, y: event.clientY - this.top };
  }

  /** Draw picture and heat map; nothing here changes the window. */
  paint(heat, opacity) {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = GROUND;
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.empty) return;
    const place = this.place(), exact = Math.abs(place.scale * place.ratio - 1) < 1e-9, by = exact ? 1 : place.scale * place.ratio;
    // whole device pixels: the product of an offset and a ratio may miss one by an error of rounding
    context.setTransform(by, 0, 0, by, Math.round(place.left * place.ratio), Math.round(place.top * place.ratio));
    context.imageSmoothingEnabled = by < PLAIN_FROM && !exact;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture.drawn(), 0, 0);
    if (!heat?.picture) return;
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(heat.picture, 0, 0, this.picture.width, this.picture.height);
    context.globalAlpha = 1;
  }
}

/* Mouse, pen and touch on a pane: one gesture at a time, and Esc gives it up. */

import { drawRubber } from "./boxes.js";
import { area, between, boxOnScreen, clamp, resized, shifted, toImage, touched } from "./geometry.js";
import { refresh, state } from "./state.js";

const CURSORS = { nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew", border: "move" };
const REACH = { mouse: 9, pen: 9, touch: 22 }; // CSS pixels around what is meant
const SLOP = { mouse: 4, pen: 4, touch: 9 }; // CSS pixels that a press may wander before it is a drag
const LEAST = 6; // CSS pixels of a drawn box
const DOUBLE_MS = 320, DOUBLE_PX = 24;

export class Pointer {
  /** `viewport`, `editor`; `activate(n)`, `setWindow(pane, center, width)`, `setHeat(on)`. */
  constructor(parts) {
    Object.assign(this, parts, { gesture: null, touches: new Map(), last: null });
    for (const pane of this.viewport.panes) this.#listen(pane);
    addEventListener("blur", () => this.abort());
  }

  #listen(pane) {
    const on = (type, run, options) => pane.element.addEventListener(type, run, options);
    on("contextmenu", (e) => e.preventDefault());
    // without this Chromium takes the next quick tap for the end of a fling, and swallows it
    on("touchstart", (e) => { if (!e.target.closest("button")) e.preventDefault(); }, { passive: false });
    on("wheel", (e) => this.#wheel(pane, e), { passive: false });
    on("pointerdown", (e) => this.#down(pane, e));
    on("pointermove", (e) => this.#move(pane, e));
    on("pointerup", (e) => this.#up(pane, e));
    on("pointercancel", (e) => { this.touches.delete(e.pointerId); this.abort(); });
    on("lostpointercapture", (e) => {
      this.touches.delete(e.pointerId);
      if (this.gesture?.id === e.pointerId) this.abort();
    });
    on("pointerleave", () => { pane.pointer = null; refresh("image"); });
    on("focus", () => this.activate(pane.number));
  }

  #wheel(pane, event) {
    if (pane.empty) return;
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? pane.height : 1, { x, y } = pane.point(event);
    // a pinch on a trackpad comes as a wheel with Ctrl, in small steps
    this.viewport.zoomAt(pane, x, y, clamp(Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.0016)), 0.6, 1.7));
  }

  /** What is under a point: {what: resize | move | box | none, box, grip, stack}. */
  hit(pane, x, y, kind) {
    if (pane.empty) return { what: "none", stack: [] };
    const place = pane.place(), reach = REACH[kind] ?? 9, boxes = pane.shown.filter((box) => box.kind !== "other");
    const onLabel = ({ label: l }) => l && x >= l.x && x <= l.x + l.width && y >= l.y && y <= l.y + l.height;
    const inside = (box, by) => {
      const r = boxOnScreen(place, box.box);
      return x > r.x - by && x < r.x + r.width + by && y > r.y - by && y < r.y + r.height + by;
    };
    const stack = boxes.filter((box) => inside(box, 5) || onLabel(box)).sort((a, b) => area(a.box) - area(b.box));
    const held = boxes.find((box) => box.key === state.chosen);
    if (held && state.tool !== "box") {
      const part = touched(boxOnScreen(place, held.box), x, y, reach);
      if (part && part !== "inside" && part !== "border") return { what: "resize", box: held, grip: part, stack };
      if (part === "border" || onLabel(held)) return { what: "move", box: held, stack };
    }
    return stack.length ? { what: "box", box: stack[0], stack } : { what: "none", stack };
  }

  #down(pane, event) {
    if (pane.empty || event.target.closest("button")) return;
    pane.measure();
    pane.element.setPointerCapture(event.pointerId);
    const point = pane.point(event);
    this.touches.set(event.pointerId, point);
    this.activate(pane.number);
    pane.element.focus({ preventScroll: true });
    if (this.touches.size === 2) {
      this.abort();
      this.gesture = { kind: "pinch", pane, ...pinchOf(this.touches) };
      return;
    }
    if (this.gesture || this.touches.size > 2) return;
    const { x, y } = point, found = this.hit(pane, x, y, event.pointerType), place = pane.place();
    const begun = { pane, x, y, x0: x, y0: y, id: event.pointerId, moved: false, slop: SLOP[event.pointerType] ?? 4 };
    const drawing = event.button === 0 && (state.tool === "box" || event.shiftKey) && !this.viewport.isPrior(pane);
    if (event.button === 2) this.gesture = { ...begun, kind: "window" };
    else if (event.button === 1) {
      event.preventDefault();
      this.gesture = { ...begun, kind: "pan" };
    } else if (drawing) this.gesture = { ...begun, kind: "draw", from: toImage(place, x, y) };
    else if (found.what === "resize" || found.what === "move") {
      const open = state.case;
      this.gesture = { ...begun, kind: found.what, grip: found.grip, box: found.box, at: [...found.box.box], open, before: open.reading.snapshot() };
      this.viewport.dragged = found.box.key;
    } else this.gesture = { ...begun, kind: state.tool === "window" ? "window" : "pan" };
  }

  #move(pane, event) {
    const { x, y } = pane.point(event), gesture = this.gesture;
    if (!pane.empty && event.pointerType !== "touch") pane.pointer = toImage(pane.place(), x, y);
    if (this.touches.has(event.pointerId)) this.touches.set(event.pointerId, { x, y });
    if (!gesture) {
      if (event.pointerType === "mouse") this.#hover(pane, x, y);
      return refresh("image");
    }
    if (gesture.pane !== pane) return;
    if (gesture.kind === "pinch") return this.#pinch(gesture);
    if (event.pointerId !== gesture.id) return;
    if (!gesture.moved && Math.hypot(x - gesture.x0, y - gesture.y0) < gesture.slop) return;
    gesture.moved = true;
    this.#drag(gesture, x, y);
    Object.assign(gesture, { x, y });
  }

  #hover(pane, x, y) {
    const { what, grip } = this.hit(pane, x, y, "mouse");
    const free = state.tool === "pan" ? "" : state.tool;
    pane.element.dataset.cursor = what === "resize" ? CURSORS[grip] : what === "move" ? "move" : state.tool === "box" ? "box" : what === "box" ? "pointer" : free;
  }

  #pinch(gesture) {
    if (this.touches.size < 2) return;
    const now = pinchOf(this.touches);
    this.viewport.pan(gesture.pane, now.x - gesture.x, now.y - gesture.y);
    this.viewport.zoomAt(gesture.pane, now.x, now.y, now.distance / (gesture.distance || now.distance || 1));
    Object.assign(gesture, now);
  }

  #drag(gesture, x, y) {
    const { pane, kind } = gesture, image = pane.picture, dx = x - gesture.x, dy = y - gesture.y;
    if (!image) return;
    if (kind === "pan") {
      pane.element.dataset.cursor = "grabbing";
      this.viewport.pan(pane, dx, dy);
    } else if (kind === "window") {
      const { center, width } = image.window, step = Math.max(width, image.span / 40) / 420;
      // right is wider, up is brighter: where a larger value is darker, the centre goes the other way
      this.setWindow(pane, center + (image.dark ? -dy : dy) * step, width + dx * step);
    } else if (kind === "move") {
      const { scale } = pane.view;
      this.editor.place(gesture.box, shifted(gesture.at, (x - gesture.x0) / scale, (y - gesture.y0) / scale, image));
    } else if (kind === "resize") {
      this.editor.place(gesture.box, resized(gesture.at, gesture.grip, toImage(pane.place(), x, y), image));
    } else if (kind === "draw") {
      gesture.to = toImage(pane.place(), x, y);
      drawRubber(pane, between(gesture.from, gesture.to, image));
    }
  }

  #up(pane, event) {
    this.touches.delete(event.pointerId);
    const gesture = this.gesture;
    if (!gesture || gesture.pane !== pane) return;
    if (gesture.kind === "pinch") {
      if (!this.touches.size) this.gesture = null;
      return;
    }
    if (gesture.id !== event.pointerId) return;
    this.gesture = null;
    this.viewport.dragged = null;
    pane.element.dataset.cursor = state.tool === "pan" ? "" : state.tool;
    if (gesture.kind === "draw") {
      drawRubber(pane, null);
      const box = gesture.moved && gesture.to && between(gesture.from, gesture.to, pane.picture);
      if (box && Math.min(box[2] - box[0], box[3] - box[1]) * pane.view.scale >= LEAST) this.editor.add(box);
    } else if (gesture.moved && gesture.before) {
      const word = gesture.kind === "move" ? "moved" : "resized";
      this.editor.commit(`Box ${gesture.box.number} ${word}`, null, { before: gesture.before });
    } else if (!gesture.moved && event.button === 0) this.#tap(gesture, event.pointerType);
  }

  /** Give a gesture up: what it changed goes back. Returns whether there was one. */
  abort() {
    const gesture = this.gesture;
    if (!gesture) return false;
    this.gesture = null;
    this.viewport.dragged = null;
    for (const pane of this.viewport.panes) drawRubber(pane, null);
    gesture.pane.element.dataset.cursor = state.tool === "pan" ? "" : state.tool;
    if (gesture.before) gesture.open.reading.restore(gesture.before);
    refresh("image", "findings");
    return true;
  }

  /** A press without a drag: pick a box, then the one under it; on nothing put it down; twice on nothing 1:1 or fit. */
  #tap({ pane, x0, y0 }, kind) {
    const { stack } = this.hit(pane, x0, y0, kind);
    if (stack.length) {
      const now = stack.findIndex((box) => box.key === state.chosen), next = stack[now + 1];
      if (now >= 0 && !next) {
        this.setHeat(false);
        return this.editor.select(null);
      }
      this.editor.select(next.key);
      if (next.kind === "predicted") this.setHeat(true);
      return;
    }
    const now = performance.now();
    const twice = this.last && now - this.last.at < DOUBLE_MS && Math.hypot(this.last.x - x0, this.last.y - y0) < DOUBLE_PX;
    this.last = twice ? null : { at: now, x: x0, y: y0 };
    if (!twice) return this.editor.select(null);
    if (this.viewport.view.fit) this.viewport.oneToOne(pane, x0, y0);
    else this.viewport.fit();
  }
}

function pinchOf(touches) {
  const [a, b] = [...touches.values()];
  return { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}

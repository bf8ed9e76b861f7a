/* A reader's reading of one image: marks, normal, labels, note; every change is one step that can be undone.

   A mark is {box, class, verdict, model, prediction, score, from}. `prediction` is the index of the box among the model's
   own and is null for an added box; `from` is the place where the model had put a moved one. A predicted box without a mark
   is not judged, which is no verdict. A label of the whole image is present (true) or absent (false); one that is not among
   the labels is not judged either, whatever a classifier said. */

import { saysNothing } from "./rules.js";

const copyMarks = (marks) => new Map([...marks].map(([key, mark]) => [key, { ...mark, box: [...mark.box] }]));

export const keyOf = (model, prediction) => `${model}:${prediction}`;

export class Reading {
  constructor() {
    this.marks = new Map();
    this.normal = false;
    this.labels = new Map();
    this.text = "";
    this.done = false;
    this.past = [];
    this.future = [];
    this.added = 0;
  }

  snapshot() {
    return { marks: copyMarks(this.marks), normal: this.normal, labels: new Map(this.labels), text: this.text, done: this.done };
  }

  restore(was) {
    Object.assign(this, { marks: copyMarks(was.marks), normal: was.normal, labels: new Map(was.labels), text: was.text, done: was.done });
  }

  /** What two snapshots differ in, in a form that can be compared. */
  static trace(s) {
    return JSON.stringify([[...s.marks], s.normal, [...s.labels].sort(), s.text, s.done]);
  }

  /** Make a change one step. `before`: the snapshot where the change went on for a while (a drag).
   *  `merge`: steps in a row with the same word are one (keys held, letters typed). Returns whether anything changed. */
  commit(label, change, { before = this.snapshot(), merge = null } = {}) {
    change?.(this);
    if (Reading.trace(before) === Reading.trace(this)) return false;
    const last = this.past.at(-1);
    if (!(merge && last?.merge === merge)) this.past.push({ label, was: before, merge });
    this.future.length = 0;
    return true;
  }

  #step(from, to) {
    const step = from.pop();
    if (!step) return null;
    to.push({ label: step.label, merge: null, was: this.snapshot() });
    this.restore(step.was);
    return step.label;
  }

  /** The label of what was undone; null if there was nothing. */
  undo() {
    return this.#step(this.past, this.future);
  }

  redo() {
    return this.#step(this.future, this.past);
  }

  // ---------------------------------------------------------------- changes; each is called inside commit
  /** Accept or reject a predicted box; the same verdict again takes it back. */
  judge(box, verdict) {
    if (this.marks.get(box.key)?.verdict === verdict) this.marks.delete(box.key);
    else this.marks.set(box.key, { ...markOf(box), box: [...(box.from ?? box.box)], verdict, from: null });
    if (verdict === "accepted") this.#found(this.marks.get(box.key)?.class);
  }

  /** Put a box elsewhere. A predicted one is "moved" and remembers where the model had it. */
  place(box, to) {
    const mark = this.marks.get(box.key) ?? markOf(box);
    const own = mark.verdict === "added";
    this.marks.set(box.key, { ...mark, box: [...to], verdict: own ? "added" : "moved", from: own ? null : (mark.from ?? box.from ?? box.box) });
    this.#found(mark.class);
  }

  rename(box, name) {
    const mark = this.marks.get(box.key) ?? markOf(box);
    const verdict = mark.verdict === "added" || mark.verdict === "moved" ? mark.verdict : "accepted";
    this.marks.set(box.key, { ...mark, class: name, verdict });
    this.#found(name);
  }

  add(box, name) {
    let key;
    do key = `own:${++this.added}`; while (this.marks.has(key));
    this.marks.set(key, { box: [...box], class: name, verdict: "added", model: null, prediction: null, score: null, from: null });
    this.#found(name);
    return key;
  }

  remove(key) {
    this.marks.delete(key);
  }

  /** A box says that its class is there: the image is not normal, and a label that said otherwise is taken back. */
  #found(name) {
    this.normal = false;
    if (this.labels.get(name) === false) this.labels.delete(name);
  }

  /** Normal rejects boxes and called labels that were not judged; it is refused (false) where the reader marked a finding. */
  setNormal(unjudged, called = []) {
    if (this.findings().length || this.present().length) return false;
    this.normal = true;
    for (const box of unjudged) this.marks.set(box.key, { ...markOf(box), verdict: "rejected" });
    for (const name of [...called, ...this.labels.keys()]) this.labels.set(name, saysNothing(name));
    return true;
  }

  /** State a label: present (true), absent (false), or nothing of it (null). `others`: classes that exclude this one, of which
   *  one that was stated is absent then. */
  setLabel(name, value, others = []) {
    if (value == null) this.labels.delete(name);
    else this.labels.set(name, value);
    if (value !== true) return;
    for (const other of others) if (this.labels.get(other)) this.labels.set(other, false);
    if (!saysNothing(name)) this.normal = false;
  }

  /** Labels of findings that the reader states. */
  present() {
    return [...this.labels].filter(([name, value]) => value && !saysNothing(name)).map(([name]) => name);
  }

  /** Marks that say "there is something". */
  findings() {
    return [...this.marks.values()].filter((mark) => mark.verdict !== "rejected");
  }

  /** The body of `POST /api/images/{id}/marks`, less reader, key and what was shown. */
  body() {
    return {
      marks: [...this.marks.values()].map((mark) => {
        const out = { box: mark.box, class: mark.class, verdict: mark.verdict };
        if (mark.prediction != null) Object.assign(out, { prediction: mark.prediction, model: mark.model });
        return out;
      }),
      // null: nothing was said; a box or a label of a finding says that the image is not normal
      normal: this.normal ? true : this.findings().length || this.present().length ? false : null,
      labels: Object.fromEntries([...this.labels].sort()),
      text: this.text,
      finished: this.done,
    };
  }

  /** This reading with one that was saved elsewhere under the same name. What only one of both changed since `base`, which
   *  both began with, is as that one has it; what both changed is as it is here. Nothing that either marked is left out. */
  joined(theirs, base = new Reading()) {
    const out = new Reading();
    const merge = (a, b, c) => {
      const told = (map, key) => JSON.stringify(map.get(key) ?? null), all = new Map();
      for (const key of new Set([...b.keys(), ...a.keys()])) {
        const from = told(a, key) === told(c, key) ? b : a;
        if (from.has(key)) all.set(key, from.get(key));
      }
      return all;
    };
    // an own box is known by where it is: two pages number theirs alike
    const placed = (reading) => new Map([...reading.marks].map(([key, mark]) => {
      const { box, class: name, verdict, model, prediction } = mark, own = key.startsWith("own:");
      return [own ? JSON.stringify([box, name]) : key, { box, class: name, verdict, model, prediction }];
    }));
    for (const [key, mark] of merge(placed(this), placed(theirs), placed(base)))
      out.marks.set(mark.prediction != null && mark.model ? key : `own:${++out.added}`, { score: null, from: null, ...mark });
    out.labels = merge(this.labels, theirs.labels, base.labels);
    const changed = this.text !== base.text;
    out.text = changed && theirs.text !== base.text && theirs.text !== this.text ? [theirs.text, this.text].filter(Boolean).join("\n") : changed ? this.text : theirs.text;
    out.normal = (this.normal !== base.normal ? this.normal : theirs.normal) && !out.findings().length && !out.present().length;
    out.done = this.done;
    return out;
  }

  /** The reading that a saved body stands for. */
  static of(saved) {
    const reading = new Reading();
    reading.normal = Boolean(saved.normal);
    reading.labels = new Map(Object.entries(saved.labels ?? {}));
    reading.text = saved.text ?? "";
    reading.done = Boolean(saved.finished);
    for (const mark of saved.marks ?? []) {
      const predicted = mark.prediction != null && mark.model;
      const key = predicted ? keyOf(mark.model, mark.prediction) : `own:${++reading.added}`;
      reading.marks.set(key, {
        box: [...mark.box], class: mark.class, verdict: mark.verdict, model: mark.model ?? null,
        prediction: mark.prediction ?? null, score: mark.score ?? null, from: mark.from ?? null,
      });
    }
    return reading;
  }
}

const markOf = (box) => ({
  box: [...box.box], class: box.class, verdict: box.verdict, model: box.model ?? null,
  prediction: box.prediction ?? null, score: box.score ?? null, from: box.from ?? null,
});

/** The boxes of one model on an image as a reader sees them: predictions at or above the threshold or marked, then the reader's own. */
export function boxesOf(reading, model, predictions, threshold, { hidden = false } = {}) {
  const out = [];
  if (!hidden)
    predictions.forEach((prediction, i) => {
      const key = keyOf(model, i), mark = reading.marks.get(key);
      if (!mark && prediction.score < threshold) return;
      out.push({
        key, kind: "predicted", model, prediction: i, score: prediction.score, verdict: mark?.verdict ?? null,
        class: mark?.class ?? prediction.class, box: mark?.box ?? prediction.box, from: mark?.verdict === "moved" ? prediction.box : null,
      });
    });
  for (const [key, mark] of reading.marks)
    if (mark.verdict === "added")
      out.push({ key, kind: "own", model: null, prediction: null, score: null, verdict: "added", class: mark.class, box: mark.box, from: null });
  return out;
}

export const SIGNS = { accepted: "✓", rejected: "✕", moved: "↔", added: "+" };
export const WORDS = { accepted: "accepted", rejected: "rejected", moved: "moved", added: "added by you" };

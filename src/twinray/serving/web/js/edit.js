/* What a reader does to the open image. Every act is one step that can be undone, and is saved by itself. */

import { $, plural, say } from "./dom.js";
import { clamp, resized, shifted } from "./geometry.js";
import { chosen, chosenLabel, labelled, listed, picked } from "./listing.js";
import { WORDS } from "./marks.js";
import { hideToast, toast } from "./notices.js";
import { digits, saysNothing } from "./rules.js";
import { given, hidden, modelOf, refresh, state } from "./state.js";

/** Called labels that the reader has not judged. */
export const unstated = () => labelled().filter((row) => row.called && row.stated == null);

/** "2 boxes and 1 label": what "normal" rejects. A label that says the same is none of it. */
export function rejectedWords(boxes, names) {
  const labels = new Set(names.filter((name) => !saysNothing(name))).size; // of two classifiers each class counts once
  return [boxes.length ? plural(boxes.length, "box", "boxes") : null, labels ? plural(labels, "label") : null].filter(Boolean).join(" and ");
}

const NO_MARKS = "This image was not taken, so it cannot be marked.";

export class Editor {
  /** `save(open)`: puts the reading of a case into the outbox. `onSelect()`: a box was chosen. */
  constructor({ save, onSelect, setTool }) {
    Object.assign(this, { save, onSelect, setTool });
  }

  get #open() {
    const open = state.case;
    if (!open?.loaded) return null;
    if (open.state === "failed") { say(NO_MARKS); return null; }
    return open;
  }

  /** Make a change one step, say so, save it. */
  commit(label, change, { before, merge, quiet = false } = {}) {
    const open = this.#open;
    if (!open?.reading.commit(label, change, { before, merge })) return;
    this.#changed(open);
    if (quiet) hideToast(); // its way back would be another step's by now
    else toast(label, "Undo", () => this.undo());
  }

  #changed(open) {
    this.save(open);
    refresh("findings", "list", "image");
  }

  #step(word, run) {
    const open = this.#open, label = open && run(open.reading);
    if (!label) return say(`Nothing to ${word === "Undone" ? "undo" : "do again"}`);
    if (!picked()) state.chosen = null;
    hideToast();
    if (document.activeElement !== $("note")) $("note").value = open.reading.text;
    this.#changed(open);
    say(`${word}: ${label}`);
  }

  undo() {
    this.#step("Undone", (reading) => reading.undo());
  }

  redo() {
    this.#step("Done again", (reading) => reading.redo());
  }

  /** Choose a box or a label, or none. */
  select(key, { quiet = false } = {}) {
    if (state.chosen === key) return;
    state.chosen = key;
    state.grip = "whole";
    const box = chosen(), row = box ? null : chosenLabel();
    if (row && !quiet) say(`Label ${row.number}, ${row.class}, score ${digits(row.score)}, ${row.called ? "called" : "not called"}`);
    if (box) {
      this.onSelect(box);
      if (!quiet) say(`Box ${box.number}, ${box.class}${box.score == null ? "" : `, score ${box.score.toFixed(2)}`}, ${WORDS[box.verdict] ?? "not judged"}`);
    }
    refresh("findings", "image");
  }

  judge(verdict) {
    const open = this.#open;
    if (!open) return;
    const box = chosen(), row = chosenLabel();
    if (row) return this.state(row, verdict === "accepted");
    if (!box) {
      const first = listed().find((one) => !one.verdict) ?? unstated()[0];
      if (!first) return say(hidden(open) ? `${given() === "boxes" ? "Boxes" : "Labels"} are hidden` : "Nothing to judge");
      this.select(first.key, { quiet: true });
      return say(`${first.kind === "label" ? "Label" : "Box"} ${first.number}, ${first.class} chosen. Press again to ${verdict === "accepted" ? "accept" : "reject"}.`);
    }
    if (box.kind === "own") {
      if (verdict === "rejected") this.remove(box);
      return;
    }
    const again = box.verdict === verdict;
    this.commit(again ? `Box ${box.number} not judged` : `Box ${box.number} ${WORDS[verdict]}`, (reading) => reading.judge(box, verdict));
    if (again) return;
    const after = listed(), next = after.find((one) => one.number > box.number && !one.verdict) ?? after.find((one) => !one.verdict);
    if (next) this.select(next.key, { quiet: true });
  }

  /** Accept or reject a label of a classifier: state it present or absent. The same again takes it back. */
  state(row, present) {
    const open = this.#open;
    if (!open) return;
    const again = row.stated === present, about = modelOf(row.model);
    if (!again && !present && this.#hasBox(open, row.class)) return;
    const others = about.exclusive ? about.classes.filter((name) => name !== row.class) : [];
    this.commit(again ? `${row.class} not judged` : `${row.class} ${present ? "present" : "absent"}`, (reading) => reading.setLabel(row.class, again ? null : present, others));
    const next = again ? null : unstated().find((one) => one.number > row.number) ?? unstated()[0];
    if (next) this.select(next.key, { quiet: true });
  }

  /** A box of a class and "absent" contradict each other. */
  #hasBox(open, name) {
    if (!open.reading.findings().some((mark) => mark.class === name)) return false;
    say(`Not set: you marked a box of ${name}.`);
    toast(`Not set: you marked a box of ${name}.`);
    return true;
  }

  remove(box) {
    this.commit(`Box ${box.number} removed`, (reading) => reading.remove(box.key));
    state.chosen = null;
    refresh("findings", "image");
  }

  normal() {
    const open = this.#open;
    if (!open) return;
    const { reading } = open;
    if (reading.normal) return this.commit("Not marked normal", (r) => { r.normal = false; });
    const marked = reading.findings().length + reading.present().length;
    if (marked) {
      const words = `Not set: you marked ${marked === 1 ? "a finding" : plural(marked, "finding")}.`;
      $("normal-note").textContent = words;
      return say(words);
    }
    const open_boxes = hidden(open) ? [] : listed().filter((box) => box.kind === "predicted" && !box.verdict), names = unstated().map((row) => row.class);
    const words = rejectedWords(open_boxes, names);
    this.commit(words ? `Normal, ${words} rejected` : "Normal", (r) => r.setNormal(open_boxes, names));
  }

  label(name) {
    const open = this.#open;
    if (!open) return;
    const on = open.reading.labels.get(name) !== true;
    this.commit(on ? `Whole image: ${name}` : `Whole image: no longer ${name}`, (reading) => reading.setLabel(name, on || null));
  }

  note(text) {
    this.commit("Note", (reading) => { reading.text = text; }, { merge: "note", quiet: true });
  }

  add(box, word = "added") {
    const open = this.#open;
    if (!open) return null;
    const name = state.lastClass ?? state.classes[0] ?? "finding";
    let key = null;
    this.commit(`Box ${word}: ${name}`, (reading) => { key = reading.add(box, name); });
    if (key) this.select(key, { quiet: true });
    this.setTool(state.leftDrag);
    return key;
  }

  /** A box in the middle of what is seen, for keys alone. */
  addInMiddle(view, image) {
    const half = Math.min(image.width, image.height) * 0.075;
    const x = clamp(view.x, half, image.width - half), y = clamp(view.y, half, image.height - half);
    return this.add([x - half, y - half, x + half, y + half].map(Math.round), "added in the middle");
  }

  rename(box, name) {
    state.lastClass = name;
    this.commit(`Box ${box.number} is ${name}`, (reading) => reading.rename(box, name));
  }

  nextClass() {
    const after = (name) => state.classes[(state.classes.indexOf(name) + 1) % state.classes.length];
    if (!state.classes.length) return;
    const box = chosen();
    if (box) return this.rename(box, after(box.class));
    state.lastClass = after(state.lastClass);
    say(`New boxes are ${state.lastClass}`);
    refresh("hints", "findings");
  }

  /** Put a box somewhere while it is dragged; the caller commits at the end. */
  place(box, to) {
    const open = this.#open;
    if (!open) return;
    open.reading.place(box, to);
    refresh("image");
  }

  /** Move the chosen box, or the corner that the arrows hold, by image pixels. Returns whether there was one. */
  nudge(dx, dy, image) {
    const box = chosen(), open = this.#open;
    if (!box || !open) return false;
    const { grip } = state, [x0, y0, x1, y1] = box.box;
    const corner = grip === "nw" ? { x: x0 + dx, y: y0 + dy } : { x: x1 + dx, y: y1 + dy };
    const to = grip === "whole" ? shifted(box.box, dx, dy, image) : resized(box.box, grip, corner, image);
    if (to.some((c, i) => c !== box.box[i]))
      this.commit(`Box ${box.number} moved`, (reading) => reading.place(box, to), { merge: `nudge ${box.key}`, quiet: true });
    return true;
  }

  grip() {
    state.grip = { whole: "nw", nw: "se", se: "whole" }[state.grip];
    say({ whole: "Arrows move the box", nw: "Arrows move the top left corner", se: "Arrows move the bottom right corner" }[state.grip]);
    refresh("hints", "image");
  }

  /** Show what "read first" hid. */
  reveal() {
    const open = state.case;
    if (!open || open.state !== "done") return;
    open.revealed = true;
    open.marksBefore = open.reading.marks.size;
    open.watch.once("revealed", { marks_before: open.marksBefore });
    this.save(open, { onlyIfMarked: true });
    refresh("findings", "list", "image");
    say(`${plural(listed().length, "box", "boxes")} shown`);
  }

}


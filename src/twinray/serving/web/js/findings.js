/* The panel beside the image: boxes, the whole image, the threshold, other readers. */

import { $, draw, icon, key, make, plural, put, rebuild, write } from "./dom.js";
import { scoreWords } from "./boxes.js";
import { stops } from "./heat.js";
import { unstated, rejectedWords } from "./edit.js";
import { chosen, chosenLabel, comparable, explained, labellers, listed, picked, thresholdOf, twoDetectors } from "./listing.js";
import { SIGNS, WORDS } from "./marks.js";
import { at, axis, bandWords, rateWords, scoreRange, tenths } from "./points.js";
import { givesLabels } from "./rules.js";
import { Scores } from "./scores.js";
import { draws, given, hidden, keep, modelOf, refresh, state } from "./state.js";
import { methodOf } from "./viewport.js";

const RANK = "A score is a rank, not the chance of disease.";

export const nameOf = (hash) => `${modelOf(hash)?.name ?? "model"} ${hash?.slice(0, 6) ?? ""}`;
export const letterOf = (hash) => (hash === state.first ? "A" : "B");

export class Findings {
  /** `editor`, `viewport`, `setHeat(on)`, `setLabeller(hash)`, `home(event)`: gives the keys back to the image after a mouse click. */
  constructor(parts) {
    Object.assign(this, parts);
    this.scores = new Scores({ ...parts, heatControls: (row) => this.#heatControls(row) });
    draws("findings", () => this.draw());
    draws("hints", () => this.drawHints());
    this.threshold = null;
  }

  draw() {
    const open = state.case, list = listed(), shut = open && hidden(open), ready = open?.state === "done";
    this.#drawNotes(open, list, shut, ready);
    this.#drawBoxes(list);
    this.#drawWhole(open, list);
    this.#drawThreshold(ready && !shut && !givesLabels(modelOf(state.first)));
    this.#drawOthers(open, ready);
    write($("kept-words"), open ? `Kept with your marks: reader ${state.reader ?? "not named"}, time, model ${[...new Set([state.first, ...labellers()])].map((hash) => hash?.slice(0, 6) ?? "").join(" and ")}, and what was on the screen for how long.` : "");
    this.#drawButtons(open, shut, ready);
    this.drawHints();
  }

  // ------------------------------------------------------------------ boxes
  #drawNotes(open, list, shut, ready) {
    write($("boxes-title"), shut ? "Your boxes" : "Boxes");
    let note = null;
    if (ready && shut)
      note = make("div", { class: "box-note" }, make("span", {}, `${given() === "boxes" ? "Boxes" : "Labels"} and scores are hidden. Mark what you see, then show them.`),
        make("button", { class: "main-act", "data-keep": "show", on: { click: (e) => { this.editor.reveal(); this.home(e); } } }, `Show the ${given()} `, key("B")));
    else if (open?.revealed && state.readFirst && open.watch.events.revealed)
      note = make("p", { class: "small muted" }, `${given() === "boxes" ? "Boxes" : "Labels"} shown after ${Math.round(open.watch.events.revealed.after)} s. ${plural(open.marksBefore ?? 0, "mark")} of yours came first.`);
    rebuild($("first-note"), note);
    const all = open?.predictions.get(state.first) ?? [];
    const below = ready && !shut ? all.filter((box) => box.score < state.threshold).length - list.filter((box) => box.kind === "predicted" && box.model === state.first && box.score < state.threshold).length : 0;
    write($("more-below"), below > 0 ? `${below} more below` : "");
    const words = this.#boxesWords(open, list, shut, ready);
    write($("boxes-note"), words);
    $("boxes-note").hidden = !words;
  }

  #boxesWords(open, list, shut, ready) {
    if (!open) return "";
    if (givesLabels(modelOf(state.first))) return "This model labels the whole image and draws no boxes. You can add your own.";
    if (open.state === "queued" || open.state === "running") return open.state === "running" ? "The model is looking. You can, too." : "No boxes yet. You can look and mark already.";
    if (!ready) return "";
    if (shut) return list.length ? "" : "None yet.";
    const answer = open.answers.find((one) => one.model === state.first);
    if (answer?.state === "failed") return `This model gave no answer: ${answer.reason}`;
    if (!open.predictions.has(state.first)) return "This model has not looked at the image yet. Nothing is known of its boxes.";
    if (list.some((box) => box.kind === "predicted" && !box.kept)) return "";
    const point = at(modelOf(state.first), state.threshold);
    const missed = point?.share_found == null ? "" : `: on validation the model missed about ${tenths(1 - point.share_found)}`;
    return `No box at this threshold. That is not a normal finding${missed}.`;
  }

  #drawBoxes(list) {
    const rows = [];
    let group = null;
    for (const box of list) {
      const from = box.model ?? "own";
      if (state.view === "models" && from !== group) rows.push(make("li", { class: "small muted" }, box.kept ? `Marked before, on ${nameOf(box.model)}` : box.model ? `${letterOf(box.model)}  ${nameOf(box.model)}` : "Yours"));
      group = from;
      rows.push(this.#boxRow(box));
    }
    rebuild($("box-list"), rows);
  }

  #boxRow(box) {
    const on = box.key === state.chosen;
    const verdict = (word, value, sign, letter) => make("button", {
      class: "verdict", "data-keep": `${letter} ${box.key}`, "aria-pressed": box.verdict === value, "aria-label": `${word} box ${box.number}, ${box.class}`, title: `${word} (${letter})`,
      on: { click: (e) => { this.editor.select(box.key, { quiet: true }); this.editor.judge(value); this.home(e); } },
    }, icon(sign));
    const pick = make("button", { class: "pick", "data-keep": box.key, "aria-expanded": on, on: { click: () => this.editor.select(on ? null : box.key) } },
      make("span", { class: "number" }, String(box.number)),
      make("span", {}, make("span", { class: "name" }, box.class), box.verdict ? make("span", { class: "state" }, `${SIGNS[box.verdict]} ${WORDS[box.verdict]}`) : null),
      make("span", { class: "score" }, scoreWords(box)));
    const judge = box.kind === "predicted" ? [verdict("Accept", "accepted", "yes", "Y"), verdict("Reject", "rejected", "no", "N")] : [];
    return make("li", { class: `finding${on ? " chosen" : ""} ${box.verdict ?? ""}` }, make("div", { class: "line" }, pick, judge), on ? this.#more(box) : null);
  }

  #more(box) {
    const more = make("div", { class: "more" });
    if (box.kept && box.model) more.append(make("p", { class: "small muted" }, `You marked a box of ${nameOf(box.model)}, which is not shown now. It has no heat map here.`));
    else if (box.kind === "predicted") {
      const words = bandWords(modelOf(box.model), box.score, (state.case.predictions.get(box.model) ?? [])[box.prediction]?.class);
      more.append(make("p", { class: "small" }, words ? `${words} ${RANK}` : RANK), ...this.#heatControls(box));
    } else more.append(make("p", { class: "small muted" }, "Your box. It has no score, so it has no heat map."));
    const names = state.classes.includes(box.class) ? state.classes : [box.class, ...state.classes];
    const choose = make("select", { id: "class-of-box", "data-keep": "class", on: { change: (e) => this.editor.rename(box, e.target.value) } }, names.map((name) => make("option", { value: name, selected: name === box.class }, name)));
    more.append(make("div", { class: "pair" }, make("label", { for: "class-of-box", class: "small muted" }, "Class"), choose));
    if (box.kind === "own") more.append(make("button", { class: "outlined", "data-keep": "remove", on: { click: () => this.editor.remove(box) } }, "Remove this box"));
    return more;
  }

  #heatControls(box) {
    const out = [make("label", { class: "tick" }, make("input", { type: "checkbox", "data-keep": "heat", checked: state.heat, on: { change: (e) => this.setHeat(e.target.checked) } }), make("span", {}, `Heat map of this ${box.kind === "label" ? "label" : "box"} `, key("H")))];
    if (!state.heat) return out;
    const methods = modelOf(box.model)?.heat_maps ?? [], { what } = explained(), map = this.viewport.heatMaps.get(state.case.id, box.model, what, methodOf(box.model));
    const words = { coming: "Computing", shown: `Exact ${methodOf(box.model)} map of this ${box.kind === "label" ? "label's log-odds" : "box's score"}.`, empty: "The map is empty: no part of the image raised this score.", failed: `No heat map: ${map.reason}` }[map.state];
    out.push(make("p", { class: "small muted" }, words));
    if (map.state === "failed") out.push(make("button", { class: "outlined", "data-keep": "heat-again", on: { click: () => { this.viewport.heatMaps.again(); refresh("findings", "image"); } } }, "Try again"));
    if (methods.length > 1)
      out.push(make("div", { class: "pair" }, make("label", { for: "heat-method", class: "small muted" }, "Method"),
        make("select", { id: "heat-method", "data-keep": "method", on: { change: (e) => { state.method = e.target.value; keep(); this.setHeat(true); } } }, methods.map((name) => make("option", { value: name, selected: name === methodOf(box.model) }, name)))));
    out.push(make("div", { class: "pair" }, make("label", { for: "heat-opacity", class: "small muted" }, "Opacity"),
      make("input", { id: "heat-opacity", "data-keep": "opacity", type: "range", min: 0, max: 1, step: 0.05, value: state.heatOpacity, on: { input: (e) => { state.heatOpacity = Number(e.target.value); keep(); refresh("image"); } } })));
    out.push(make("div", {}, ramp(), make("div", { class: "ends" }, make("span", {}, "matters less to this score"), make("span", {}, "more"))));
    return out;
  }

  // ------------------------------------------------------------------ whole image
  #drawWhole(open, list) {
    const reading = open?.reading, unjudged = list.filter((box) => box.kind === "predicted" && !box.verdict);
    for (const id of ["normal", "thumb-normal"]) $(id).setAttribute("aria-pressed", Boolean(reading?.normal));
    const free = reading && !reading.findings().length && !reading.present().length, words = rejectedWords(unjudged, unstated().map((row) => row.class));
    write($("normal-note"), reading?.normal ? "Whole image marked normal." : free && words ? `Rejects the ${words.replace(/^1 (box|label)$/, "$1")} not judged.` : "");
    const rows = this.scores.draw(open);
    rebuild($("labels"), state.labelClasses.filter((name) => !rows.has(name)).map((name) => make("button", { "aria-pressed": reading?.labels.get(name) === true, "data-keep": name, disabled: !open || open.state === "failed", on: { click: (e) => { this.editor.label(name); this.home(e); } } }, name)));
    const note = $("note");
    note.disabled = !open || open.state === "failed";
    if (document.activeElement !== note && note.value !== (reading?.text ?? "")) note.value = reading?.text ?? "";
  }

  #drawButtons(open, shut, ready) {
    const { past = [], future = [] } = open?.reading ?? {};
    for (const id of ["undo", "thumb-undo"]) $(id).disabled = !past.length;
    $("redo").disabled = !future.length;
    const words = ready && shut ? `Show the ${given()}` : "Done, next";
    for (const id of ["done", "thumb-done"]) {
      $(id).disabled = !open?.loaded;
      write($(id).firstElementChild, open?.state === "failed" ? "Next" : words);
    }
    for (const id of ["normal", "thumb-normal", "add-box", "thumb-yes", "thumb-no"]) $(id).disabled = !open?.loaded || open.state === "failed";
  }

  // ------------------------------------------------------------------ threshold
  /** Built once and then changed: a slider that is replaced while it is dragged would let go. */
  #buildThreshold() {
    const parts = {
      number: make("span", { class: "small muted last" }), words: make("p", { class: "rate" }), body: make("div"),
      slider: make("input", { type: "range", id: "score", step: 0.01, on: { input: (e) => this.setThreshold(Number(e.target.value)) } }),
      axis: draw("svg", { class: "axis", "aria-hidden": "true" }), under: make("p", { class: "small muted" }),
      compared: make("p", { class: "small" }),
      first: make("input", { type: "checkbox", id: "read-first", on: { change: (e) => this.readFirst(e.target.checked) } }),
    };
    parts.body.append(make("div", { class: "section-head" }, make("h2", { id: "threshold-title" }, "Threshold"), parts.number), parts.words, make("label", { class: "unseen", for: "score" }, "Score threshold"), parts.slider, parts.axis, parts.under, parts.compared);
    $("threshold").replaceChildren(parts.body, make("label", { class: "tick" }, parts.first, parts.firstWords = make("span")));
    this.threshold = parts;
  }

  setThreshold(score) {
    const { low, high } = scoreRange(modelOf(state.first));
    state.threshold = Math.min(high, Math.max(low, Math.round(score * 100) / 100));
    state.case?.watch.once("threshold_moved");
    if (!picked()) state.chosen = null;
    refresh("findings", "image", "list");
  }

  #drawThreshold(shown) {
    if (!this.threshold) this.#buildThreshold();
    const parts = this.threshold, model = modelOf(state.first), two = twoDetectors();
    parts.first.checked = state.readFirst;
    write(parts.firstWords, `Read first, then show the ${given()}`);
    parts.body.hidden = !shown;
    $("threshold").setAttribute("aria-labelledby", shown ? "threshold-title" : "");
    if (!shown) $("threshold").removeAttribute("aria-labelledby");
    const { low, high } = scoreRange(model), t = state.threshold, point = at(model, t);
    put(parts.slider, { min: low, max: high });
    if (Number(parts.slider.value) !== t) parts.slider.value = t;
    write(parts.number, two ? `A ${t.toFixed(2)}, B ${thresholdOf(state.second).toFixed(2)}` : `score ${t.toFixed(2)}`);
    const n = model?.validation?.n_images;
    if (point) {
      const rate = rateWords(point.fp_per_image), other = two ? at(modelOf(state.second), thresholdOf(state.second)) : null;
      const found = point.share_found == null ? "" : ` Finds about ${tenths(point.share_found)} findings${other?.share_found != null ? ` (A), ${tenths(other.share_found)} (B)` : ""}.`;
      rebuild(parts.words, make("b", {}, rate[0].toUpperCase() + rate.slice(1)), ` on validation.${found}`);
      write(parts.under, `false positives an image on ${n} validation ${n === 1 ? "image" : "images"}${two && !comparable() ? `. ${modelOf(state.second)?.name} keeps no such figures: it is shown at its own threshold, and cannot be compared.` : ""}`);
      parts.slider.setAttribute("aria-valuetext", `${t.toFixed(2)}, ${rate} on validation`);
    } else {
      rebuild(parts.words, "What this score means is not known.");
      write(parts.under, `No figures: ${model?.validation?.why_none ?? "the run keeps none of validation images"}.${two ? " Two models cannot be compared without them." : ""}`);
      parts.slider.setAttribute("aria-valuetext", t.toFixed(2));
    }
    this.#drawAxis(parts.axis, axis(model, low, high));
    // where one of the two was trained from the other, a page says which is better on the same test patients
    const [newer] = two ? [state.first, state.second].filter((hash) => [state.first, state.second].includes(modelOf(hash)?.compared_with)) : [];
    rebuild(parts.compared, newer ? make("a", { href: `api/models/${newer}/comparison`, target: "_blank", rel: "noopener", "data-keep": "compared" }, `${letterOf(newer)} and ${letterOf(modelOf(newer).compared_with)} on the same test patients`) : null);
  }

  #drawAxis(svg, marks) {
    const told = JSON.stringify(marks);
    if (svg.dataset.told === told) return;
    svg.dataset.told = told;
    svg.replaceChildren(...marks.flatMap(({ share, word }) => {
      const x = `${share * 100}%`, text = draw("text", { x, y: 20 });
      text.textContent = word;
      return [draw("line", { x1: x, x2: x, y1: 0, y2: 6 }), text];
    }));
  }

  readFirst(on) {
    state.readFirst = on;
    keep();
    if (on) {
      Object.assign(state, { heat: false, chosen: null });
      if (state.case) state.case.revealed = false;
    }
    this.onReadFirst();
    refresh("findings", "image", "list");
  }

  // ------------------------------------------------------------------ other readers
  #drawOthers(open, ready) {
    const names = ready ? [...new Set(open.others.map((one) => one.reader))] : [];
    if (!names.length) return rebuild($("others"));
    const toggle = () => {
      open.othersShown = !open.othersShown;
      if (open.othersShown) open.watch.once("others_shown");
      refresh("findings", "image");
    };
    const words = open.othersShown
      ? `${names.join(", ")}: boxes in long dashes. Every opinion is kept.`
      : `${plural(names.length, "other reader has", "other readers have")} marked this image. Hidden until you are done, or choose to look.`;
    rebuild($("others"), make("div", { class: "section-head" }, make("h2", {}, "Other readers"), make("button", { class: "outlined last", "data-keep": "others", "aria-pressed": open.othersShown, on: { click: toggle } }, open.othersShown ? "Hide" : "Show")),
      make("p", { class: "small muted" }, words),
      ...(open.othersShown ? open.others.filter((one) => one.normal || one.text || Object.keys(one.labels ?? {}).length).map((one) => make("p", { class: "small" }, `${one.reader}: ${[one.normal ? "normal" : null, ...Object.entries(one.labels ?? {}).map(([name, value]) => (value ? name : `no ${name}`)), one.text || null].filter(Boolean).join("; ")}`)) : []));
  }

  // ------------------------------------------------------------------ hints
  drawHints() {
    const open = state.case, box = open ? chosen() : null, row = open && !box ? chosenLabel() : null;
    const hint = (keys, words) => make("span", {}, keys.map((one) => make("kbd", {}, one)), words);
    const judge = box?.kind === "predicted" ? [hint(["Y"], "accept"), hint(["N"], "reject"), hint(["H"], "heat map")] : [hint(["Del"], "remove")];
    const now = open?.state === "failed" ? [hint(["Enter"], "next"), hint(["J"], "next image"), hint(["?"], "all keys")] : state.tool === "box" ? [hint([], "Drag a box"), hint(["Enter"], "box in the middle"), hint(["C"], state.lastClass ?? ""), hint(["Esc"], "leave")]
      : row ? [hint(["Y"], "accept"), hint(["N"], "reject"), hint(["H"], "heat map"), hint(["Z"], "undo")]
      : box ? [...judge, hint(["←", "→"], state.grip === "whole" ? "move" : "move the corner"), hint(["G"], "corner"), hint(["C"], "class"), hint(["Z"], "undo")]
        : open && hidden(open) ? [hint(["A"], "add a box"), hint(["0"], "normal"), hint(["B"], `show the ${given()}`)]
          : [hint(["?"], "all keys"), hint(["1"], `to 9 pick a ${given() === "boxes" ? "box" : "label"}`), hint(["A"], "add"), hint(["0"], "normal"), hint(["J"], "next image"), hint(["I"], "invert"), hint(["F"], "fit")];
    $("hints").replaceChildren(...(state.keysOn ? now : [make("span", {}, "Letter keys are off")]));
  }
}

function ramp() {
  const svg = draw("svg", { class: "ramp", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
  const gradient = draw("linearGradient", { id: "heat-ramp" });
  for (const { share, colour } of stops) gradient.append(draw("stop", { offset: share, "stop-color": colour }));
  svg.append(gradient, draw("rect", { width: 100, height: 8, fill: "url(#heat-ramp)" }));
  return svg;
}

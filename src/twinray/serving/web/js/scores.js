/* Labels of the whole image by classifiers: a row a class, judged as boxes are, and the rule by which they are called. */

import { $, icon, make, rebuild } from "./dom.js";
import { labelled, labellers } from "./listing.js";
import { bandOfLabel, digits, meaningWords, ruleName, ruleWords, thresholdWords } from "./rules.js";
import { hidden, keep, modelOf, refresh, state } from "./state.js";

const FEW = 4; // classes that are shown whether called or not
const RANK = "A score is a rank, not the chance of disease.";

/** What stands under a label's name: what the model said, or what the reader made of it. */
function stateWords({ called, stated }) {
  if (stated == null) return called ? "called" : "not called";
  if (called) return stated ? "✓ accepted" : "✕ rejected";
  return stated ? "+ added by you" : "✕ absent";
}

export class Scores {
  /** `editor`; `heatControls(row)`: the heat map of a row; `home(event)`: gives the keys back to the image; `setLabeller(hash)`. */
  constructor(parts) {
    Object.assign(this, parts);
  }

  /** Draw; returns the classes that have a row. */
  draw(open) {
    const list = $("label-list");
    if (!open || hidden(open) || !labellers().length) {
      rebuild(list);
      return new Set();
    }
    const rows = labelled(open), parts = [], seen = new Set();
    for (const model of labellers()) {
      const own = rows.filter((row) => row.model === model), all = own.length <= FEW || state.allLabels;
      const shown = own.filter((row) => all || row.called || row.stated != null || row.key === state.chosen);
      for (const row of shown) seen.add(row.class);
      parts.push(this.#head(model), this.#notYet(open, model) ?? this.#rows(shown), ...this.#foot(model, own, all));
    }
    rebuild(list, parts);
    return seen;
  }

  #head(model) {
    const several = state.models.filter((one) => one.kind === "classifier"), name = `${modelOf(model).name} ${model.slice(0, 6)}`;
    const letter = state.view === "models" ? `${model === state.first ? "A" : "B"}  ` : "";
    if (several.length < 2 || model !== state.labeller || state.view === "models") return make("p", { class: "small muted" }, `${letter}Labels by ${name}`);
    const select = make("select", { id: "labeller", "data-keep": "labeller", on: { change: (e) => this.setLabeller(e.target.value) } }, several.map((one) => make("option", { value: one.model, selected: one.model === model }, `${one.name} ${one.model.slice(0, 6)}`)));
    return make("div", { class: "pair" }, make("label", { for: "labeller", class: "small muted" }, "Labels by"), select);
  }

  #notYet(open, model) {
    const answer = open.answers.find((one) => one.model === model), say = (words) => make("p", { class: "small muted" }, words);
    if (answer?.state === "failed") return say(`This model gave no answer: ${answer.reason}`);
    if (open.state === "queued" || open.state === "running") return say("No labels yet. You can look and mark already.");
    if (open.state === "done" && !open.labels.get(model)?.length) return say("This model has not looked at the image yet. Nothing is known of its labels.");
    return null;
  }

  #rows(rows) {
    return make("ol", { class: "box-list" }, rows.length ? rows.map((row) => this.#row(row)) : make("li", { class: "small muted" }, "No label is called at this threshold. That is not a normal finding."));
  }

  #row(row) {
    const on = row.key === state.chosen;
    const verdict = (word, value, sign, letter) => make("button", {
      class: "verdict", "data-keep": `${letter} ${row.key}`, "aria-pressed": row.stated === value, "aria-label": `${word} label ${row.number}, ${row.class}`, title: `${word} (${letter})`,
      on: { click: (e) => { this.editor.select(row.key, { quiet: true }); this.editor.state(row, value); this.home(e); } },
    }, icon(sign));
    const pick = make("button", { class: "pick", "data-keep": row.key, "aria-expanded": on, on: { click: () => this.editor.select(on ? null : row.key) } },
      make("span", { class: "number" }, String(row.number)),
      make("span", {}, make("span", { class: "name" }, row.class), make("span", { class: "state" }, stateWords(row))),
      make("span", { class: "score" }, digits(row.score)));
    return make("li", { class: `finding label${row.called ? " called" : ""}${on ? " chosen" : ""}${row.stated === false ? " rejected" : ""}` },
      make("div", { class: "line" }, pick, verdict("Accept", true, "yes", "Y"), verdict("Reject", false, "no", "N")), on ? this.#more(row) : null);
  }

  #more(row) {
    const model = modelOf(row.model), rule = ruleName(model, state.rule);
    const words = [thresholdWords(model, rule, row.class), meaningWords(model, rule, row.class), bandOfLabel(model, row.score, row.class), RANK];
    return make("div", { class: "more" }, make("p", { class: "small" }, words.filter(Boolean).join(" ")), this.heatControls(row));
  }

  /** More classes, and which threshold calls; beneath it what is known of it. */
  #foot(model, own, all) {
    const about = modelOf(model), names = Object.keys(about.rules ?? {}), rule = ruleName(about, state.rule), out = [];
    if (own.length > FEW) {
      const toggle = () => { state.allLabels = !state.allLabels; refresh("findings"); };
      out.push(make("button", { class: "outlined", "data-keep": `all ${model}`, "aria-pressed": all, on: { click: toggle } }, all ? "Called labels alone" : `Scores of all ${own.length} classes`));
    }
    if (names.length > 1) {
      const id = `rule-${model.slice(0, 6)}`, choose = (e) => { state.rule = e.target.value; keep(); refresh("findings", "image"); };
      out.push(make("div", { class: "pair" }, make("label", { for: id, class: "small muted" }, "Called at"),
        make("select", { id, "data-keep": id, on: { change: choose } }, names.map((name) => make("option", { value: name, selected: name === rule }, ruleWords(name))))));
    }
    const n = about.validation?.n_images;
    out.push(make("p", { class: "small muted" }, n ? `Chosen and measured on ${n} validation images, so a little too good.` : `What a score means is not known: ${about.validation?.why_none ?? "the run keeps no figures"}.`));
    return out;
  }
}

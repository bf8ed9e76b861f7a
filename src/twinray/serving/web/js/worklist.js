/* The worklist: what to read, what waits, what failed. */

import { $, ago, check, draw, icon, make, rebuild, say } from "./dom.js";
import { draws, refresh, state } from "./state.js";

const CHIPS = [
  ["unread", "To read", ["unread", "queued", "running", "done"]],
  ["waiting", "Waiting", ["queued", "running"]],
  ["failed", "Failed", ["failed"]],
  ["read", "Read", ["read"]],
  ["all", "All", []],
];
const ORDERS = [["newest", "Newest"], ["suspicious", "Suspicious"], ["active", "Teaches most"]];
const EVERY_MS = 5000, SOON_MS = 1000, TYPING_MS = 250;
const LOCKED = "An order by score would give the answer away before reading";

export const shortPatient = (row) => (row.patient ? `Patient ${row.patient.slice(0, 6)}` : row.name);

export class Worklist {
  /** `open(row)`: a row was chosen. `addImages()`: the file dialog. */
  constructor({ api, open, addImages }) {
    Object.assign(this, { api, open, addImages, chip: "unread", order: "newest", q: "", page: 1, pages: 1, total: 0, rows: [], counts: {}, asked: 0, timer: null, loaded: false });
    draws("list", () => this.draw());
    $("search").addEventListener("input", (e) => {
      this.q = e.target.value.trim();
      this.page = 1;
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.load(), TYPING_MS);
    });
    $("page-back").addEventListener("click", () => this.turn(-1));
    $("page-on").addEventListener("click", () => this.turn(1));
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.loaded) this.load(); });
  }

  turn(by) {
    this.page = Math.min(this.pages, Math.max(1, this.page + by));
    return this.load();
  }

  show(chip) {
    Object.assign(this, { chip, page: 1 });
    return this.load();
  }

  /** Ask the server. An answer that was overtaken by a later question is dropped. */
  async load() {
    clearTimeout(this.timer);
    const turn = ++this.asked, states = CHIPS.find(([name]) => name === this.chip)[2];
    const order = state.readFirst ? "newest" : this.order;
    try {
      // the model that was chosen, where that is not the one that the server orders by
      const model = order !== "newest" && state.orderBy ? state.orderBy : null;
      const found = await this.api.images({ states, q: this.q, order, page: this.page, model });
      if (turn !== this.asked) return;
      Object.assign(this, { rows: found.images, pages: found.pages, total: found.total, page: found.page, size: found.size, counts: found.counts ?? {}, loaded: true });
      refresh("list");
    } catch {
      // the banner says what is wrong; the list that was here stays
    }
    this.#again();
  }

  #again() {
    clearTimeout(this.timer);
    const waits = this.rows.some((row) => row.state === "queued" || row.state === "running");
    this.timer = setTimeout(() => (document.hidden ? this.#again() : this.load()), waits ? SOON_MS : EVERY_MS);
  }

  /** What became known of an image elsewhere on the page. */
  note(row) {
    const at = this.rows.findIndex((one) => one.id === row.id);
    if (at < 0) return;
    Object.assign(this.rows[at], row);
    refresh("list");
  }

  /** The row after or before the open image; null at the ends. */
  beside(by) {
    const at = this.rows.findIndex((row) => row.id === state.case?.id);
    if (at < 0) return this.rows[by > 0 ? Math.min(this.at ?? 0, this.rows.length - 1) : 0] ?? null;
    return this.rows[at + by] ?? null;
  }

  /** The next image to read; null if there is none on this page. */
  next() {
    const at = this.rows.findIndex((row) => row.id === state.case?.id);
    const open = (row) => !row.read && row.state !== "failed" && row.id !== state.case?.id;
    return this.rows.slice(at + 1).find(open) ?? this.rows.slice(0, Math.max(0, at)).find(open) ?? null;
  }

  // ------------------------------------------------------------------ drawing
  draw() {
    const at = this.rows.findIndex((row) => row.id === state.case?.id);
    if (at >= 0) this.at = at; // where to go on when the open one leaves the list
    const unread = this.counts.unread ?? (this.chip === "unread" && !this.q ? this.total : null);
    $("unread-count").textContent = unread ?? "";
    rebuild($("chips"), CHIPS.map(([name, words]) => make("button", { "aria-pressed": this.chip === name, "data-keep": name, on: { click: () => this.show(name) } }, `${words} `, make("b", {}, this.counts[name] ?? (name === this.chip ? this.total : "")))));
    rebuild($("order"), ORDERS.map(([name, words]) => this.#orderButton(name, words)));
    check($("order"), (radio) => radio.dataset.order === (state.readFirst ? "newest" : this.order));
    const rows = [];
    let group = null;
    for (const row of this.rows) {
      const name = this.#groupOf(row);
      if (name && name !== group) rows.push(make("div", { class: "group", role: "presentation" }, name));
      group = name;
      rows.push(this.#row(row));
    }
    const list = $("rows"), focused = list.contains(document.activeElement), where = document.activeElement?.dataset?.keep;
    list.replaceChildren(...rows);
    const stop = list.querySelector(`[data-keep="${CSS.escape(where ?? "")}"]`) ?? list.querySelector('[aria-selected="true"]') ?? list.querySelector('[role="option"]');
    if (stop) stop.tabIndex = 0;
    if (stop && focused) stop.focus({ preventScroll: true });
    list.hidden = !this.rows.length;
    $("nothing").hidden = Boolean(this.rows.length) || !this.loaded;
    if (!this.rows.length && this.loaded) this.#nothing();
    const from = (this.page - 1) * (this.size ?? 0);
    $("page-words").textContent = this.rows.length ? `${from + 1} to ${from + this.rows.length} of ${this.total.toLocaleString("en-GB")}` : "0 images";
    $("page-back").disabled = this.page <= 1;
    $("page-on").disabled = this.page >= this.pages;
  }

  #orderButton(name, words) {
    const locked = state.readFirst && name !== "newest";
    const choose = () => {
      if (locked) return say(LOCKED);
      Object.assign(this, { order: name, page: 1 });
      this.load();
      refresh("list");
    };
    return make("button", { role: "radio", "data-order": name, "data-keep": name, "aria-disabled": locked || null, title: locked ? LOCKED : null, on: { click: choose } }, words);
  }

  #groupOf(row) {
    if (this.order === "newest" || state.readFirst) return null;
    if (this.order === "suspicious") return row.score == null ? "No score yet" : "Highest score first";
    return row.teach == null ? "Nothing known of it" : "Labelling teaches most";
  }

  #row(row) {
    const open = state.case?.id === row.id ? state.case : null, shut = state.readFirst && !(open?.revealed);
    const [sign, words] = this.#words(row, shut);
    const node = make("div", {
      class: `item${row.read ? " is-read" : ""}`, role: "option", tabindex: "-1", "data-keep": row.id, "aria-selected": Boolean(open), on: { click: () => this.open(row) },
    },
      make("span", { class: "who" }, shortPatient(row), row.patient && row.view ? make("span", {}, `  ${row.view}`) : null),
      make("span", { class: "when" }, ago(Date.parse(row.created) / 1000)),
      make("span", { class: `what${row.state === "failed" ? " fail" : ""}` }, icon(sign, row.state === "running" ? "spin" : ""), make("span", {}, words)));
    if (row.state === "done" && !row.read && !shut && row.score > 0) node.lastElementChild.append(scoreBar(row.score));
    return node;
  }

  #words(row, shut) {
    if (row.state === "failed") return ["fail", row.reason || "could not be analysed"];
    if (row.read) return ["read", row.state === "done" ? "read" : "read, model not done"];
    if (row.state === "queued") return ["queued", "queued"];
    if (row.state === "running") return ["running", "model is looking"];
    if (shut) return ["done", "ready to read"];
    if (row.score == null) return ["done", "no score"];
    if (state.models.find((one) => one.first)?.kind === "classifier") return ["done", `score ${row.score.toFixed(2)}`];
    return ["done", row.score >= state.threshold ? `highest score ${row.score.toFixed(2)}` : "no box at this threshold"];
  }

  #nothing() {
    const all = make("button", { class: "outlined", on: { click: () => this.show("all") } }, "Show all");
    const clear = make("button", { class: "outlined", on: { click: () => { $("search").value = this.q = ""; this.load(); $("search").focus(); } } }, "Clear the search");
    const add = make("button", { class: "outlined", on: { click: () => this.addImages() } }, icon("plus"), "Add images");
    const muted = (words) => make("span", { class: "muted" }, words);
    if (this.q) return rebuild($("nothing"), make("b", {}, `Nothing matches “${this.q}”`), muted(`Searched: ${CHIPS.find(([name]) => name === this.chip)[1].toLowerCase()}.`), clear);
    if (this.counts.all || this.chip !== "unread") {
      return rebuild($("nothing"), make("b", {}, this.chip === "unread" ? "Nothing more to read" : "Nothing here"), muted("Other images are under the other chips."), this.chip === "all" ? add : all);
    }
    return rebuild($("nothing"), make("b", {}, "No images to read"), muted("Add files here, or let the archive send them. Each is listed as soon as it arrives, before it is analysed."), add, all);
  }
}

function scoreBar(score) {
  const svg = draw("svg", { class: "bar", viewBox: "0 0 44 5", "aria-hidden": "true" });
  svg.append(draw("rect", { class: "bar-ground", width: 44, height: 5, rx: 2.5 }), draw("rect", { class: "bar-score", width: Math.max(2, 44 * Math.min(1, score)), height: 5, rx: 2.5 }));
  return svg;
}

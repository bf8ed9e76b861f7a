/* The archive: studies are looked for and fetched, results of the open image go back. Both are there only where the server
   was told of an archive. What is looked for is kept nowhere: not in the address, not in this browser. */

import { $, icon, make, plural, rebuild, say } from "./dom.js";
import { draws, hidden, modelOf, refresh, state } from "./state.js";

const WAIT_MS = 1500;
const STATES = { queued: "on its way", sent: "sent", failed: "not sent", stale: "taken back, or replaced by a later reading" };
const OBJECTS = { sr: "structured report", sc: "picture", gsps: "presentation state" };

export class Archive {
  /** `finish(open)`: finish the reading of the open image and wait until it is kept; resolves to whether it is.
   *  `onFetched()`: images came. `tell(text)`: say what was done. */
  constructor({ api, finish, onFetched, tell }) {
    Object.assign(this, { api, finish, onFetched, tell, about: null, found: null, trouble: "", busy: "", armed: null, sends: new Map(), timer: null });
    draws("findings", () => this.#drawSends());
    $("archive-button").addEventListener("click", () => this.toggle());
  }

  /** Ask the server whether it knows an archive. */
  async start() {
    try {
      const about = await this.api.archive();
      this.about = about.archive || about.peer ? about : null;
    } catch {
      this.about = null; // the page works without
    }
    $("archive-button").hidden = !this.about?.archive;
    if (this.about?.archive) $("archive-button").title = `Fetch from ${this.about.archive}`;
  }

  // ------------------------------------------------------------------ fetching
  toggle(on = $("from-archive").hidden) {
    const panel = $("from-archive");
    panel.hidden = !on;
    $("archive-button").setAttribute("aria-expanded", on);
    Object.assign(this, { found: null, trouble: "", busy: "" });
    if (!on) {
      panel.replaceChildren(); // what was typed goes with it
      $("archive-button").focus();
      return;
    }
    const field = (name, words, more = {}) => make("div", { class: "field" }, make("label", { for: `find-${name}`, class: "small muted" }, words),
      make("input", { type: "text", id: `find-${name}`, name, autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...more }));
    const form = make("form", { autocomplete: "off", on: { submit: (e) => { e.preventDefault(); this.#find(new FormData(form)); } } },
      make("div", { class: "section-head" }, make("h2", {}, this.about.archive), make("button", { type: "button", class: "last", on: { click: () => this.toggle(false) } }, "Close")),
      field("patient_id", "Patient ID", { maxlength: 64 }), field("accession", "Accession", { maxlength: 16 }), field("date", "Study date", { type: "date" }),
      make("button", { class: "outlined" }, "Find studies"));
    panel.replaceChildren(form, make("div", { id: "archive-answer" }));
    panel.querySelector("input").focus();
  }

  async #find(fields) {
    const wanted = { patient_id: fields.get("patient_id").trim(), accession: fields.get("accession").trim(), date: fields.get("date").replaceAll("-", "") };
    if (!Object.values(wanted).some(Boolean)) {
      Object.assign(this, { trouble: "Give a patient's number, an accession number or a date.", found: null });
      return this.#drawAnswer();
    }
    Object.assign(this, { busy: "find", trouble: "", found: null });
    this.#drawAnswer();
    try {
      this.found = (await this.api.studies(wanted)).map((one) => ({ ...one, told: "" })).sort((a, b) => b.date.localeCompare(a.date));
      say(`${plural(this.found.length, "study", "studies")} found`);
    } catch (error) {
      this.trouble = `Not found out: ${error.message}`;
    }
    this.busy = "";
    this.#drawAnswer();
  }

  async #fetch(study) {
    study.told = "Fetching";
    this.#drawAnswer();
    try {
      const { new: n, failed } = await this.api.fetchStudy(study.study);
      study.told = [n ? `${plural(n, "image")} fetched` : "nothing new", failed ? `${failed} failed` : ""].filter(Boolean).join(", ");
      this.onFetched();
    } catch (error) {
      study.told = `Not fetched: ${error.message}`;
    }
    say(study.told);
    this.#drawAnswer();
    // the button that was pressed has gone: the keys go on at the next one, or at the form
    if (document.activeElement === document.body) ($("archive-answer")?.querySelector("button") ?? $("find-patient_id"))?.focus();
  }

  #drawAnswer() {
    const place = $("archive-answer");
    if (!place) return;
    if (this.busy) return rebuild(place, make("p", { class: "small muted" }, "Asking the archive"));
    if (this.trouble) return rebuild(place, make("p", { class: "small fail", role: "alert" }, this.trouble));
    if (!this.found) return rebuild(place);
    if (!this.found.length) return rebuild(place, make("p", { class: "small muted" }, "The archive has no such study."));
    rebuild(place, make("ul", { "aria-label": "Studies" }, this.found.map((study, n) => make("li", {},
      make("span", { class: "small" }, [day(study.date), study.modalities.join(" "), study.objects == null ? "" : plural(study.objects, "object")].filter(Boolean).join(", ")),
      study.told ? make("span", { class: `small ${study.told.startsWith("Not") ? "fail" : "muted"}`, role: "status" }, study.told)
        : make("button", { class: "outlined", "data-keep": `fetch${n}`, "aria-label": `Fetch the study of ${day(study.date)}`, on: { click: () => this.#fetch(study) } }, "Fetch")))));
  }

  // ------------------------------------------------------------------ sending
  /** What went of an image is asked when it is opened, and again while something is on its way. */
  async look(open) {
    clearTimeout(this.timer);
    this.armed = null;
    if (!this.#sendable(open)) return;
    try {
      this.sends.set(open.id, await this.api.sends(open.id));
    } catch {
      return; // the banner says so
    }
    if (state.case !== open) return;
    refresh("findings");
    if (this.sends.get(open.id).some((one) => one.state === "queued")) this.timer = setTimeout(() => (state.case === open ? this.look(open) : null), WAIT_MS);
  }

  #sendable(open) {
    return Boolean(this.about?.can_send && open?.row.origin === "archive" && open.row.kind === "dicom");
  }

  async #send(open, what) {
    this.armed = null;
    try {
      if (what === "reading" && !(await this.finish(open))) {
        this.tell("Not sent to the archive: your reading is not saved yet. Send it when it is.");
        return;
      }
      await this.api.sendBack(open.id, what === "reading" ? { reader: state.reader } : { model: state.first });
      this.tell(`On its way to the archive: ${what === "reading" ? "your reading" : "the model's boxes"}`);
    } catch (error) {
      this.tell(`Not sent to the archive: ${error.message}`);
    }
    await this.look(open);
    refresh("findings");
  }

  #drawSends() {
    const open = state.case, place = $("send-back");
    if (!this.#sendable(open) || !open.loaded) return rebuild(place);
    const arm = (what) => { this.armed = what; refresh("findings"); };
    const answered = open.state === "done" && !hidden(open);
    const button = (what, words, disabled) => make("button", { class: "outlined", "data-keep": `send-${what}`, disabled, on: { click: () => arm(what) } }, words);
    const ask = this.armed && make("div", { class: "box-note" },
      make("span", {}, `${this.armed === "reading" ? "Your reading is finished and goes" : "The model's boxes go, read by nobody,"} to the patient's study. What the archive has taken cannot be taken back here.`),
      make("div", { class: "wrap" }, make("button", { class: "outlined", "data-keep": "send-yes", on: { click: () => this.#send(open, this.armed) } }, "Send"), make("button", { "data-keep": "send-no", on: { click: () => arm(null) } }, "Not now")));
    const byItself = { signed: "Readings go by themselves when you are done.", always: "The first model's boxes go by themselves, and readings when you are done." }[this.about.send_back];
    rebuild(place, make("h2", {}, "Archive"),
      make("p", { class: "small muted" }, `${byItself ? `${byItself} ` : ""}Sent as ${this.about.objects.map((one) => OBJECTS[one] ?? one).join(" and ")}.`),
      ...(this.sends.get(open.id) ?? []).map((one) => sendLine(one)),
      ask || make("div", { class: "wrap" }, button("reading", open.reading.done ? "Send my reading" : "Finish and send", false), modelOf(state.first)?.kind === "classifier" ? null : button("model", "Send the model's boxes", !answered)));
  }
}

function sendLine(one) {
  const by = { token: "", server: ", by itself" }[one.who] ?? `, asked for by ${one.who}`, what = `${one.what === "reading" ? "Reading" : "Model's boxes"}${by}`;
  const when = one.finished ? ` ${new Date(one.finished).toLocaleTimeString("en-GB")}` : "";
  return make("p", { class: `small pair${one.state === "failed" ? " fail" : ""}` }, icon({ queued: "running", sent: "yes", failed: "fail" }[one.state] ?? "no"),
    make("span", {}, `${what}: ${STATES[one.state] ?? one.state}${when}${one.reason ? ` (${one.reason})` : ""}`));
}

const day = (date) => (/^\d{8}$/.test(date ?? "") ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6, 8)}` : "no date");

/* The viewer: opens images, hands acts to the parts, saves what a reader says. */

import { Api } from "./api.js";
import { Archive } from "./archive.js";
import { $, check, clock, icon, make, narrow, plural, rebuild, say } from "./dom.js";
import { Editor } from "./edit.js";
import { Findings, letterOf, nameOf } from "./findings.js";
import { HeatMaps } from "./heat.js";
import { toggleHelp } from "./help.js";
import { isOwnKey, isTyping, lookUp } from "./keys.js";
import { askedModels, explained, labelled, listed, picked, twoDetectors } from "./listing.js";
import { Look } from "./look.js";
import { Reading } from "./marks.js";
import { hideToast, showSaving, startNotices, toast } from "./notices.js";
import { newKey, Outbox, Overtaken } from "./outbox.js";
import { Pictures } from "./picture.js";
import { firstThreshold } from "./points.js";
import { Pointer } from "./pointer.js";
import { askWho, keptReader } from "./session.js";
import { givesLabels } from "./rules.js";
import { draws, given, hidden, keep, modelOf, refresh, state } from "./state.js";
import { methodOf, Viewport } from "./viewport.js";
import { Watch } from "./watch.js";
import { shortPatient, Worklist } from "./worklist.js";

const POLL_MS = 300;
const KEPT_CASES = 60;
const UNSENT = "twinray.unsent";
const PAN_PX = 40;
const ONCE = new Set(["enter", "accept", "reject", "normal", "add", "boxes", "heat", "invert"]); // a key that is held judges one image, and no other after it

const api = new Api();
const pictures = new Pictures(api);
const heatMaps = new HeatMaps(api, (map) => {
  refresh("image", "findings");
  if (state.heat && map.state !== "coming" && map.state !== "failed") say(map.state === "shown" ? "Heat map shown" : "The heat map is empty");
});
const viewport = new Viewport({ heatMaps, onFocus: (key) => editor.select(key) });
const look = new Look(viewport);
const editor = new Editor({ save, onSelect: (box) => { viewport.bringIn(box.box); noteHeat(); }, setTool });
const findings = new Findings({ editor, viewport, setHeat, setLabeller, home, onReadFirst: () => { watchScreen(); worklist.load(); } });
const worklist = new Worklist({ api, open, addImages: () => $("files").click() });
const pointer = new Pointer({ viewport, editor, activate, setHeat, setWindow: (pane, center, width) => look.set(pane.picture, center, width) });
const outbox = new Outbox({
  send, reader: () => state.reader, clock, newKey, onChange: () => refresh("bars"), keep: keepUnsent,
});
const archive = new Archive({ api, finish, onFetched: () => worklist.show("unread"), tell: toast });
draws("bars", () => showSaving(outbox, { signIn: signInAgain, retry: () => outbox.resume().then(() => worklist.load()) }));

// ------------------------------------------------------------------ unsent work
const bases = new Map(); // reader and image -> the newest reading of the server that this page has seen; what is changed here was changed of it
const sent = new Set(); // keys of saves of this page
const nothing = { id: "", marks: [], labels: {}, text: "", normal: null };
const placeOf = (reader, id) => `${reader}\n${id}`;
const ownOf = (readings, reader) => readings.find((one) => one.reader === reader) ?? null;

/** A save goes out, after the one that it was made of and no other. */
async function send(id, body) {
  const place = placeOf(body.reader, id);
  // of one from before a reload the note is not known here: the one that the server has stays
  if (body.text == null) body.text = ownOf(await api.readings(id), body.reader)?.text ?? "";
  for (let tries = 0; ; tries++) {
    sent.add(body.key);
    const after = bases.get(place)?.id ?? body.after;
    try {
      bases.set(place, await api.save(id, { ...body, ...(after == null ? {} : { after }) }, { keepalive: document.hidden }));
      return;
    } catch (error) {
      if (!(error instanceof Overtaken) || tries > 2) throw error;
    }
    const all = (await api.readings(id, { every: true })).filter((one) => one.reader === body.reader), theirs = all.at(-1) ?? nothing, here = cases.get(id);
    bases.set(place, theirs);
    if (sent.has(theirs.key)) continue; // this page's own save, whose answer was lost
    const base = Reading.of(all.find((one) => one.id === after) ?? nothing);
    if (here?.loaded && state.reader === body.reader) {
      if (state.case === here) leave();
      const joined = here.reading.joined(Reading.of(theirs), base);
      here.reading.commit("Joined with marks made elsewhere", (reading) => reading.restore(joined.snapshot()));
      here.reading.added = Math.max(here.reading.added, joined.added);
      if (state.case === here) state.chosen = null;
      save(here); // in place of this one
      refresh("findings", "image", "list");
    } else Object.assign(body, Reading.of(body).joined(Reading.of(theirs), base).body(), { key: newKey() });
    toast("This image was marked elsewhere under your name, too. Both are kept: look over the boxes.");
    if (here?.loaded && state.reader === body.reader) return;
  }
}

/** What was not sent survives a tab that the system puts aside. A note may hold a name, so it is kept in memory alone. */
function keepUnsent(entries) {
  try {
    if (entries.length) sessionStorage.setItem(UNSENT, JSON.stringify(entries.map((one) => ({ ...one, body: { ...one.body, text: null }, note: one.note || Boolean(one.body.text) }))));
    else sessionStorage.removeItem(UNSENT);
  } catch {
    // the tab itself still holds it
  }
}

function restoreUnsent() {
  let entries = [];
  try {
    entries = JSON.parse(sessionStorage.getItem(UNSENT) ?? "[]");
  } catch {
    return;
  }
  outbox.restore(entries);
  if (entries.some((one) => one.note)) toast("Marks of before are sent now. Notes typed then may be lost: they are never stored on this machine.");
}

// ------------------------------------------------------------------ an image
class Case {
  constructor(row) {
    Object.assign(this, { id: row.id, row, state: row.state, reason: row.reason, place: null, answers: [], predictions: new Map(), labels: new Map(), priors: [], prior: 0, reading: new Reading(), others: [], othersShown: false, revealed: false, loaded: false, wasHere: false, watch: new Watch() });
  }
}
const cases = new Map();

function caseOf(row) {
  const found = cases.get(row.id) ?? new Case(row);
  cases.delete(row.id);
  cases.set(row.id, found);
  if (cases.size > KEPT_CASES) cases.delete(cases.keys().next().value);
  return found;
}

/** What was begun on the image before ends with it: a drag is given up, and the note takes no more letters. */
function leave() {
  pointer.abort();
  if (document.activeElement === $("note")) viewport.active.element.focus({ preventScroll: true });
}

/** Open an image. Every answer is dropped that comes after another image was chosen. */
async function open(row) {
  leave();
  hideToast();
  closeDrawer();
  state.case?.watch.stop();
  const here = caseOf(row);
  Object.assign(state, { case: here, chosen: null, heat: false, grip: "whole" });
  if (state.tool === "box") setTool(state.leftDrag);
  const current = () => state.case === here;
  for (const pane of viewport.panes) pane.card.hidden = true;
  $("findings").scrollTop = 0; // the boxes first
  if (viewport.panes[0].picture?.id !== row.id) viewport.setPictures(null, null); // nothing of the image before is seen under this one's name
  refresh("list", "findings", "image");
  $("rows").querySelector(`[data-keep="${CSS.escape(row.id)}"]`)?.scrollIntoView({ block: "nearest" });
  const before = pictures.has(row.id), picture = pictures.get(row.id);
  picture.then((p) => { if (current()) showPictures(here, p); }, (error) => { if (current()) noPicture(here, error); });
  try {
    await load(here);
  } catch (error) {
    if (current() && !here.loaded) say(`Not loaded: ${error.message}`);
    return;
  }
  if (!current()) return;
  if (here.state === "failed" && !viewport.panes[0].card.hidden) noPicture(here, null); // the picture's error came before the state
  watchScreen();
  if (state.view === "prior" && !here.priors.length) setView("one", { quiet: true });
  showHeads();
  refresh("list", "findings", "image");
  archive.look(here);
  if (before) lookForPriors(here); // others of this patient may have come since it was fetched
  if (waits(here)) poll(here);
  picture.then(() => ahead(here)).catch(() => {});
}

/** What is known of an image: answers of the shown models, readings, earlier images. */
async function load(here) {
  const wanted = askedModels().filter((hash) => !(here.state === "done" && here.predictions.has(hash)));
  const reader = state.reader, place = placeOf(reader, here.id), base = bases.get(place), busy = Boolean(outbox.waiting(here.id, reader));
  const [details, readings] = await Promise.all([
    Promise.all((wanted.length ? wanted : [state.first]).map((hash) => api.image(here.id, hash))),
    api.readings(here.id),
  ]);
  take(here, details);
  const own = ownOf(readings, reader), waits = outbox.waiting(here.id, reader);
  here.others = readings.filter((one) => one.reader !== reader);
  // read on under the same name elsewhere, and nothing was changed here since: that is what counts now
  const elsewhere = here.loaded && !busy && !waits && base === bases.get(place) && (own?.id ?? "") !== (base?.id ?? "");
  if (elsewhere) Object.assign(here, { reading: Reading.of(own ?? nothing), wasHere: Boolean(own) });
  if (!waits && (elsewhere || !here.loaded)) bases.set(place, own ?? nothing);
  if (!here.loaded) {
    if (waits || own) here.reading = Reading.of(waits ? { ...waits, text: waits.text ?? own?.text } : own);
    here.wasHere = Boolean(own);
    here.othersShown = false;
  }
  here.loaded = true;
}

function take(here, details) {
  const before = here.state;
  for (const one of details) {
    Object.assign(here, { state: one.state, reason: one.reason, place: one.place, answers: one.models });
    const answer = one.models.find((model) => model.model === one.model);
    if (one.model && answer?.state !== "queued" && answer?.state !== "running") {
      here.predictions.set(one.model, one.predictions);
      here.labels.set(one.model, one.labels);
    }
    worklist.note({ id: one.id, state: one.state, reason: one.reason, score: one.score, read: one.read, patient: one.patient, view: one.view });
    Object.assign(here.row, { patient: one.patient, view: one.view, acquired: one.acquired, origin: one.origin, kind: one.kind });
  }
  return before !== here.state;
}

/** Whether a shown model has not answered yet: an image is done by any model, a new one looks at it later. */
function waits(here) {
  if (here.state === "queued" || here.state === "running") return true;
  return here.state === "done" && askedModels().some((hash) => !here.predictions.has(hash));
}

/** Ask until the shown models have answered, while the image is open. */
async function poll(here) {
  if (here.polled) return;
  here.polled = true;
  try {
    await pollUntil(here);
  } finally {
    here.polled = false;
  }
}

async function pollUntil(here) {
  while (state.case === here && waits(here)) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (document.hidden || state.case !== here) continue;
    try {
      const had = here.predictions.size, changed = take(here, await Promise.all(askedModels().map((hash) => api.image(here.id, hash))));
      if (changed || here.predictions.size > had) refresh("findings", "image", "list");
      else if (here.state === "done") await new Promise((resolve) => setTimeout(resolve, 5 * POLL_MS)); // a new model takes images in turn
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 5 * POLL_MS));
    }
  }
  if (state.case !== here) return;
  showHeads();
  if (here.state === "failed") return noPicture(here, null);
  lookForPriors(here);
  watchScreen();
  say(hidden(here) ? `The model has finished. ${given() === "boxes" ? "Boxes" : "Labels"} stay hidden until you show them.` : given() === "boxes" ? `${plural(listed().length, "box", "boxes")} arrived` : `${plural(labelled().filter((row) => row.called).length, "label")} called`);
}

/** Whose image it is comes with its analysis: earlier ones are asked for again then. */
async function lookForPriors(here) {
  try {
    const [picture, display] = await Promise.all([pictures.get(here.id), api.display(here.id)]);
    if (JSON.stringify(display.priors) === JSON.stringify(picture.display.priors)) return;
    picture.display.priors = display.priors;
    if (state.case === here) await showPictures(here, picture);
  } catch {
    // the image is looked at without
  }
}

async function showPictures(here, picture) {
  if (here.priors !== picture.display.priors) {
    here.priors = picture.display.priors ?? [];
    here.prior = Math.max(0, here.priors.findIndex((one) => one.view && one.view === here.row.view)); // the newest of the same view
  }
  const priorButton = document.querySelector('[data-view="prior"]');
  priorButton.disabled = !here.priors.length;
  priorButton.title = here.priors.length ? "" : "No earlier image of this patient";
  const [first, second] = viewport.panes;
  first.model = state.first;
  second.model = state.second;
  let beside = state.view === "models" ? picture : null;
  viewport.setPictures(picture, beside);
  if (here.state === "failed") noPicture(here, null);
  look.show();
  if (state.view === "prior" && here.priors.length) {
    const asked = here.prior;
    beside = await pictures.get(here.priors[asked].id).catch(() => null);
    if (state.case === here && state.view === "prior" && here.prior === asked) {
      viewport.setPictures(picture, beside);
      viewport.panes[1].card.hidden = Boolean(beside);
      if (!beside) rebuild(viewport.panes[1].card, icon("fail"), make("p", {}, "The prior image cannot be shown."));
    }
  }
  showHeads();
}

/** A failed image is queued again; one that could not be shown is only asked for again. */
async function tryAgain(here) {
  if (here.state === "failed") {
    try {
      await api.again(here.id);
    } catch (error) {
      toast(`Not queued again: ${error.message}`);
      return;
    }
  }
  open(here.row);
}

function noPicture(here, error) {
  if (here.state !== "failed" && error == null) return;
  const [pane] = viewport.panes;
  if (here.state === "failed" && pane.picture?.id === here.id) {
    // it can be looked at although no model answered
    refresh("findings", "image");
    toast(`Not analysed: ${here.reason}`);
    return;
  }
  if (here.state !== "failed") viewport.setPictures(null, null);
  else viewport.setPictures(null, null);
  const reason = here.state === "failed" ? here.reason : error.message;
  const again = make("button", { class: "outlined", on: { click: () => tryAgain(here) } }, "Try again");
  pane.card.hidden = false;
  rebuild(pane.card, icon("fail"), make("p", {}, make("b", {}, here.state === "failed" ? "This image was not taken." : "The image cannot be shown.")), make("p", {}, reason), make("p", {}, here.state === "failed" && !reason.includes(";") ? "Send it again from where it came, or in another form." : ""), again);
  refresh("findings");
}

/** The next image and this patient's last one are fetched while the reader looks. */
function ahead(here) {
  const later = globalThis.requestIdleCallback ?? ((run) => setTimeout(run, 200));
  for (const id of [worklist.next()?.id, here.priors[here.prior]?.id]) if (id) later(() => { if (state.case === here) pictures.get(id).catch(() => {}); });
}

// ------------------------------------------------------------------ saving
function save(here, { onlyIfMarked = false } = {}) {
  const { reading } = here;
  if (onlyIfMarked && !here.wasHere && !reading.marks.size && !reading.normal && !reading.labels.size && !reading.text) return;
  here.wasHere = true;
  const after = bases.get(placeOf(state.reader, here.id))?.id ?? outbox.waiting(here.id, state.reader)?.after;
  outbox.put(here.id, { ...reading.body(), ...(after == null ? {} : { after }), reader: state.reader, model: state.first, seconds: here.watch.told().seconds, shown: shownNow(here) });
}

function shownNow(here) {
  return {
    ...here.watch.told(), view: state.view, models: askedModels(), threshold: state.threshold, rule: state.rule,
    boxes: state.boxes && !hidden(here), read_first: state.readFirst, order: state.readFirst ? "newest" : worklist.order,
  };
}

function watchScreen() {
  const here = state.case;
  if (!here || document.hidden) return;
  here.watch.start(state.boxes && !hidden(here) && here.state === "done");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    state.case?.watch.stop();
    outbox.flush();
  } else watchScreen();
});

/** The reading is finished and kept by the server; false where it could not be saved. */
async function finish(here) {
  here.reading.commit("done", (reading) => { reading.done = true; });
  save(here);
  worklist.note({ id: here.id, read: new Date().toISOString() });
  // a save that was under way when this one came is waited for, then this one
  for (let tries = 0; tries < 3 && outbox.waiting(here.id, state.reader) && !outbox.trouble; tries++) await outbox.flush();
  return !outbox.waiting(here.id, state.reader);
}

/** Done: the reading is finished, the next image comes. */
async function done() {
  const here = state.case;
  if (!here?.loaded) return;
  if (here.state !== "failed") {
    if (viewport.panes[0].picture?.id !== here.id) return say("The image is not on the screen: it cannot be done yet. J goes to the next.");
    if (here.state === "done" && hidden(here)) return editor.reveal();
    here.reading.commit("done", (reading) => { reading.done = true; });
    save(here);
    here.othersShown = false;
    worklist.note({ id: here.id, read: new Date().toISOString() });
  }
  const next = worklist.next();
  if (next) await open(next);
  else allRead(here);
  if (here.state !== "failed") toast(`${shortPatient(here.row)} done`, "Back", () => back(here));
}

/** "Done" is taken back, of that image and no other: the reader may have gone on meanwhile. */
async function back(here) {
  await open(here.row);
  if (state.case !== here) return;
  if (here.reading.past.at(-1)?.label === "done") editor.undo();
  else editor.commit("Not done", (reading) => { reading.done = false; }); // marks made elsewhere came in between, and stay
  worklist.note({ id: here.id, read: null });
}

function allRead(here) {
  leave();
  here.watch.stop();
  state.case = null;
  state.chosen = null;
  viewport.setPictures(null, null);
  const { card } = viewport.panes[0];
  card.hidden = false;
  rebuild(card, icon("read"), make("p", {}, make("b", {}, "Nothing more to read here.")), make("p", {}, "New images appear in the worklist by themselves."), make("button", { class: "outlined", on: { click: () => worklist.show("read") } }, "Look at the read ones"));
  refresh("list", "findings", "image");
  worklist.load();
}

function welcome() {
  const { card } = viewport.panes[0];
  look.show();
  if (state.case) return;
  card.hidden = false;
  rebuild(card, icon("list"), make("p", {}, make("b", {}, "No image is open")), make("p", {}, "Drop image files here, add them, or choose one from the worklist."), make("button", { class: "outlined", on: { click: () => $("files").click() } }, "Add images"));
}

// ------------------------------------------------------------------ uploading
async function upload(files) {
  if (!files.length) return;
  const was = state.case;
  say(`Sending ${plural(files.length, "file")}`);
  try {
    const { images, refused } = await api.upload(files);
    const known = images.filter((one) => one.known).length;
    const words = [`${plural(images.length - known, "image")} added`, known ? `${known} here already` : null, refused.length ? `refused: ${refused.map((one) => `${one.name} (${one.reason})`).join(", ")}` : null];
    toast(words.filter(Boolean).join("; "));
    // an upload may take long: it takes nobody away from an image that was opened, or is being marked, meanwhile
    if (images.length === 1 && state.case === was && !pointer.gesture && document.activeElement !== $("note")) await open({ ...images[0], reason: "", created: new Date().toISOString(), patient: null, view: null, read: null, score: null });
    await worklist.show(images.length ? "unread" : worklist.chip);
    if (!state.case && worklist.rows[0]) await open(worklist.rows[0]);
  } catch (error) {
    toast(`Not sent: ${error.message}`);
  }
}

// ------------------------------------------------------------------ looking
function setHeat(on) {
  if (on && !picked()) editor.select((listed().find((box) => box.kind === "predicted" && !box.kept) ?? labelled()[0])?.key ?? null);
  state.heat = on && Boolean(picked());
  noteHeat();
  refresh("findings", "image");
}

function noteHeat() {
  const it = state.heat ? explained() : null;
  if (it) state.case.watch.heatMap(it.key, methodOf(it.model));
}

function setTool(name) {
  state.tool = name;
  check($("tool"), (radio) => radio.dataset.tool === name);
  for (const pane of viewport.panes) pane.element.dataset.cursor = name === "pan" ? "" : name;
  refresh("hints", "image");
}

async function setView(name, { quiet = false } = {}) {
  const here = state.case;
  if (name === "prior" && !here?.priors.length) return say("No earlier image of this patient");
  if (name === "models" && !state.second) return say("This server shows one model");
  state.view = name;
  check($("view"), (radio) => radio.dataset.view === name);
  const two = name !== "one", [, second] = viewport.panes;
  second.column.hidden = !two;
  $("panes").classList.toggle("two", two);
  $("pane-switch").hidden = !two;
  [...$("pane-switch").children].forEach((radio, i) => { radio.textContent = (name === "prior" ? ["Now", "Prior"] : ["A", "B"])[i]; });
  if (!narrow.matches) toggleList(!two);
  activate(0);
  for (const pane of viewport.panes) if (!pane.column.hidden) pane.measure();
  if (!picked()) state.chosen = null;
  here?.watch.once(`view_${name}`);
  if (here) {
    const picture = await pictures.get(here.id).catch(() => null);
    if (state.case !== here || state.view !== name) return;
    if (picture) await showPictures(here, picture);
    if (name === "models" && here.state === "done" && !here.predictions.has(state.second)) await load(here).catch(() => {});
    if (waits(here)) poll(here);
    viewport.fit();
  }
  showHeads();
  refresh("findings", "image");
  if (!quiet) say({ one: "One image", models: twoDetectors() ? "Two models at the same false positives an image" : "Two models", prior: "Prior image beside it" }[name]);
}

/** The words above the panes. Where several models can be chosen, a list of them stands there. */
function showHeads() {
  const here = state.case;
  viewport.panes.forEach((pane, n) => {
    const prior = viewport.isPrior(pane), hash = n ? state.second : state.first;
    pane.model = prior ? null : hash;
    const words = !here ? "" : prior ? priorWords(here.priors[here.prior]) : state.view === "models" ? `${letterOf(hash)}  ${nameOf(hash)}` : [shortPatient(here.row), here.row.view].filter(Boolean).join(", ");
    if (prior && here?.priors.length > 1) {
      rebuild(pane.what, make("select", { "aria-label": "Prior image", "data-keep": "prior", on: { change: (e) => { here.prior = Number(e.target.value); setView("prior", { quiet: true }); } } }, here.priors.map((one, i) => make("option", { value: i, selected: i === here.prior }, [priorWords(one), one.view].filter(Boolean).join(", ")))));
      pane.element.setAttribute("aria-label", "Prior image");
      return;
    }
    const few = prior || state.view === "prior" || state.models.length < 2 || (state.view !== "models" && n) || !here;
    rebuild(pane.what, !few && state.view === "models" ? null : make("span", { class: "name" }, words), few ? null : make("select", { "aria-label": n ? "Second model" : "Model", "data-keep": `model${n}`, on: { change: (e) => setModel(n, e.target.value) } }, state.models.map((one) => make("option", { value: one.model, selected: one.model === hash }, `${state.view === "models" ? `${n ? "B" : "A"}  ` : ""}${one.name} ${one.model.slice(0, 6)}`))));
    pane.element.setAttribute("aria-label", !here ? "No image" : prior ? "Prior image" : `Image of ${shortPatient(here.row)}${n ? ", second model" : ""}`);
  });
}

function priorWords(prior) {
  if (!prior.acquired || !state.case.row.acquired) return "Prior, days between not known"; // the day of arrival says nothing of it
  const day = prior.acquired, then = Date.UTC(day.slice(0, 4), day.slice(4, 6) - 1, day.slice(6, 8));
  const now = state.case.row.acquired, from = Date.UTC(now.slice(0, 4), now.slice(4, 6) - 1, now.slice(6, 8));
  const days = Math.round((from - then) / 86400000);
  const words = days < 1 ? "same day" : days < 60 ? `${plural(days, "day")} earlier` : days < 730 ? `${Math.round(days / 30.4)} months earlier` : `${Math.round(days / 365)} years earlier`;
  return `Prior, ${words}`;
}

async function setModel(n, hash) {
  const other = n ? state.first : state.second;
  if (hash === other) Object.assign(state, { first: state.second, second: state.first });
  else state[n ? "second" : "first"] = hash;
  state.orderBy = state.first;
  if (!n || hash === other) state.threshold = firstThreshold(modelOf(state.first));
  showRun();
  if (state.case) await load(state.case).catch(() => {});
  if (state.case && waits(state.case)) poll(state.case);
  showHeads();
  refresh("findings", "image", "list");
}

/** Labels of another classifier beside the boxes. */
async function setLabeller(hash) {
  state.labeller = hash;
  if (!picked()) state.chosen = null;
  if (state.case) await load(state.case).catch(() => {});
  if (state.case && waits(state.case)) poll(state.case);
  refresh("findings", "image");
}

function showRun() {
  const words = state.first ? `${modelOf(state.first).name} · ${state.first.slice(0, 6)}` : "";
  $("run-name").textContent = words;
  $("strip-run").textContent = words;
}

function activate(n) {
  if (state.active === n && viewport.panes[n].column.classList.contains("active")) return;
  state.active = n;
  for (const pane of viewport.panes) pane.column.classList.toggle("active", pane.number === n);
  check($("pane-switch"), (radio) => radio === $("pane-switch").children[n]);
  look.show();
  refresh("image");
}

function toggleBoxes() {
  const here = state.case;
  if (here && hidden(here) && here.state === "done") return editor.reveal();
  state.boxes = !state.boxes;
  $("boxes-button").setAttribute("aria-pressed", state.boxes);
  $("boxes-button").querySelector("use").setAttribute("href", state.boxes ? "#i-eye" : "#i-eye-off");
  watchScreen();
  refresh("image");
  say(state.boxes ? "Boxes shown" : "Boxes hidden");
}

function toggleList(on) {
  const room = $("room"), list = $("list"), button = $("list-button");
  if (narrow.matches) {
    const shown = on ?? !room.classList.contains("drawer");
    room.classList.toggle("drawer", shown);
    list.inert = !shown;
    button.setAttribute("aria-expanded", shown);
    if (shown) (list.querySelector('[role="option"][tabindex="0"]') ?? $("search")).focus();
    else if (list.contains(document.activeElement)) button.focus();
    return;
  }
  room.classList.remove("drawer");
  const shown = on ?? room.classList.contains("no-list");
  room.classList.toggle("no-list", !shown);
  list.inert = !shown;
  button.setAttribute("aria-expanded", shown);
}
const closeDrawer = () => { if (narrow.matches && $("room").classList.contains("drawer")) toggleList(false); };

function toggleTheme() {
  const light = getComputedStyle(document.documentElement).colorScheme === "light";
  state.theme = light ? "dark" : "light";
  document.documentElement.dataset.theme = state.theme;
  keep();
}

/** After a click with the mouse the keys go back to the image: Enter must not press the button again. */
function home(event) {
  if (event.detail > 0) viewport.active.element.focus({ preventScroll: true });
}

// ------------------------------------------------------------------ keys
async function step(by) {
  let next = worklist.beside(by);
  if (!next && by > 0 && worklist.page < worklist.pages) {
    await worklist.turn(1);
    next = worklist.rows[0];
  } else if (!next && by < 0 && worklist.page > 1) {
    await worklist.turn(-1);
    next = worklist.rows.at(-1);
  }
  if (next && next.id !== state.case?.id) return open(next);
  say(by > 0 ? "Last image" : "First image");
}

const actions = {
  next: () => step(1),
  previous: () => step(-1),
  enter: () => (state.tool === "box" && viewport.picture ? editor.addInMiddle(viewport.active.view, viewport.picture) : done()),
  search: () => { toggleList(true); $("search").focus(); },
  list: () => toggleList(),
  nextView: () => {
    const all = ["one", state.second && "models", state.case?.priors.length && "prior"].filter(Boolean);
    setView(all[(all.indexOf(state.view) + 1) % all.length]);
  },
  ...look.actions(),
  arrow: (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], by = event.shiftKey ? 10 : 1;
    if (state.chosen && viewport.picture && editor.nudge(dx * by, dy * by, viewport.picture)) return;
    const far = PAN_PX * (event.shiftKey ? 4 : 1);
    viewport.pan(viewport.active, -dx * far, -dy * far);
  },
  pick: (event) => {
    const it = [...listed(), ...labelled()][Number(event.key) - 1];
    if (it) editor.select(it.key);
    else say(`No ${given() === "boxes" ? "box" : "label"} ${event.key}`);
  },
  heat: () => setHeat(!state.heat),
  boxes: toggleBoxes,
  lower: () => findings.setThreshold(state.threshold - 0.05),
  higher: () => findings.setThreshold(state.threshold + 0.05),
  accept: () => editor.judge("accepted"),
  reject: () => editor.judge("rejected"),
  add: () => setTool(state.tool === "box" ? state.leftDrag : "box"),
  grip: () => editor.grip(),
  nextClass: () => editor.nextClass(),
  normal: () => editor.normal(),
  note: () => $("note").focus(),
  undo: () => editor.undo(),
  redo: () => editor.redo(),
  help: () => toggleHelp(helpActions),
};
const helpActions = { setTool, canSignOut: () => Boolean(api.csrf), signOut };

function escape(node) {
  if (pointer.abort()) return;
  if (!$("help").hidden) return toggleHelp(helpActions, false);
  if (!$("from-archive").hidden && (node === document.body || node.closest(".list"))) return archive.toggle(false);
  if ($("room").classList.contains("drawer")) return toggleList(false);
  if (isTyping(node) || node.closest(".list, .findings")) return viewport.active.element.focus({ preventScroll: true });
  if (state.tool === "box") return setTool(state.leftDrag);
  if (state.heat) return setHeat(false);
  editor.select(null);
}

function keyDown(event) {
  const node = event.target instanceof Element ? event.target : document.body;
  if (event.isComposing || !$("sign-in").hidden) return;
  if (event.key === "Escape") return escape(node);
  if (isTyping(node)) {
    if (node.id === "search" && (event.key === "ArrowDown" || event.key === "Enter")) {
      event.preventDefault();
      $("rows").querySelector('[role="option"][tabindex="0"]')?.focus();
    }
    return;
  }
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && (inGroup(event, node) || inList(event, node) || onBox(event, node))) return event.preventDefault();
  if (isOwnKey(node, event.key)) return;
  const found = lookUp(event, state.keysOn);
  if (!found || (found.needs && !state.case)) return;
  event.preventDefault();
  if (event.repeat && ONCE.has(found.act)) return;
  actions[found.act](event);
}

/** Arrows go on inside a group of radios. */
function inGroup(event, node) {
  const group = node.closest('[role="radiogroup"]');
  if (!group || !/^Arrow/.test(event.key)) return false;
  const all = [...group.querySelectorAll('[role="radio"]:not(:disabled)')], by = /Right|Down/.test(event.key) ? 1 : -1;
  const next = all[(all.indexOf(node) + by + all.length) % all.length];
  next.focus();
  next.click();
  return true;
}

function inList(event, node) {
  const row = node.closest('[role="option"]');
  if (!row) return false;
  const all = [...$("rows").querySelectorAll('[role="option"]')], at = all.indexOf(row);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined) {
    const next = all[Math.min(all.length - 1, Math.max(0, to))];
    for (const one of all) one.tabIndex = one === next ? 0 : -1;
    next.focus();
    return true;
  }
  if (event.key !== "Enter" && event.key !== " ") return false;
  row.click();
  return true;
}

function onBox(event, node) {
  const box = node.closest?.('g[role="button"]');
  if (!box || (event.key !== "Enter" && event.key !== " ")) return false;
  const was = state.chosen === box.dataset.key;
  editor.select(box.dataset.key);
  setHeat(!was || !state.heat);
  return true;
}

// ------------------------------------------------------------------ who
async function signInAgain() {
  const { reader, session } = await askWho(api, { secret: true, again: true, reader: state.reader });
  await become(reader, session);
  worklist.load();
}

async function become(reader, session) {
  const other = state.reader && state.reader !== reader;
  state.reader = reader;
  $("reader-name").textContent = `Reader ${reader}`;
  if (session?.csrf) api.csrf = session.csrf;
  if (other) { // another reader's marks are not this one's
    cases.clear();
    if (state.case) await open(state.case.row);
  }
  outbox.resume();
}

async function signOut() {
  toggleHelp(helpActions, false);
  await outbox.flush();
  try {
    await api.signOut();
  } catch {
    // it ends with the banner all the same
  }
  outbox.report("signed-out");
  signInAgain();
}

// ------------------------------------------------------------------ start
function listen() {
  const click = (id, run) => $(id).addEventListener("click", (event) => { run(event); home(event); });
  for (const id of ["undo", "thumb-undo"]) click(id, actions.undo);
  for (const id of ["done", "thumb-done"]) click(id, done);
  for (const id of ["normal", "thumb-normal"]) click(id, actions.normal);
  click("redo", actions.redo);
  click("thumb-yes", actions.accept);
  click("thumb-no", actions.reject);
  click("add-box", () => setTool("box"));
  click("theme-button", toggleTheme);
  click("boxes-button", toggleBoxes);
  click("invert-button", actions.invert);
  click("fit-button", actions.fit);
  click("one-button", actions.oneToOne);
  $("list-button").addEventListener("click", () => toggleList());
  $("shade").addEventListener("click", () => toggleList(false));
  $("help-button").addEventListener("click", () => toggleHelp(helpActions));
  $("add-images").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", (event) => { upload([...event.target.files]); event.target.value = ""; });
  $("tool").addEventListener("click", (event) => {
    const tool = event.target.closest("[data-tool]")?.dataset.tool;
    if (!tool) return;
    if (tool !== "box") { state.leftDrag = tool; keep(); }
    setTool(tool);
  });
  $("view").addEventListener("click", (event) => {
    const radio = event.target.closest("[data-view]");
    if (radio && !radio.disabled) setView(radio.dataset.view);
  });
  $("pane-switch").addEventListener("click", (event) => {
    const n = [...$("pane-switch").children].indexOf(event.target.closest("button"));
    if (n >= 0) {
      activate(n);
      for (const pane of viewport.panes) pane.measure();
      viewport.fit();
    }
  });
  look.start();
  $("note").addEventListener("input", (event) => editor.note(event.target.value));
  addEventListener("keydown", keyDown);
  let pressed = null; // after a choice with the mouse the keys go back to the image
  addEventListener("pointerdown", (event) => { pressed = event.target instanceof Element && event.target.matches("select") ? event.target : null; }, true);
  addEventListener("change", (event) => {
    if (!pressed || !event.target.matches("select")) return;
    pressed = null;
    viewport.active.element.focus({ preventScroll: true });
  });
  addEventListener("beforeunload", (event) => { if (outbox.count) { outbox.flush(); event.preventDefault(); } });
  const room = $("room");
  addEventListener("dragover", (event) => { event.preventDefault(); room.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) room.classList.remove("dropping"); });
  addEventListener("drop", (event) => { event.preventDefault(); room.classList.remove("dropping"); upload([...event.dataTransfer.files]); });
  const onWidth = () => {
    room.classList.remove("drawer", "no-list");
    $("list").inert = narrow.matches;
    $("list-button").setAttribute("aria-expanded", !narrow.matches);
  };
  narrow.addEventListener("change", onWidth);
  onWidth();
  for (const button of document.querySelectorAll(".tools button, .top button")) {
    const words = button.querySelector(".unseen")?.textContent, letter = button.getAttribute("aria-keyshortcuts")?.split(" ")[0];
    if (words && button.id !== "list-button") button.title = words + (letter ? ` (${letter.toUpperCase()})` : "");
  }
  startNotices();
}

async function start() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  listen();
  setTool(state.leftDrag);
  check($("view"), (radio) => radio.dataset.view === "one");
  check($("pane-switch"), (radio) => radio === $("pane-switch").children[0]);
  let session = null;
  try {
    session = await api.session();
  } catch {
    // not signed in, or no server: the form or the banner says so
  }
  const secret = !session, known = session?.named ? session.who : session ? keptReader() : null;
  if (known) await become(known, session);
  else {
    const who = await askWho(api, { secret });
    await become(who.reader, who.session);
  }
  api.onSignedOut = () => outbox.report("signed-out");
  api.onSilence = (reason) => outbox.report("offline", reason);
  api.onAnswer = () => { if (outbox.silent && !outbox.sending) outbox.resume(); };
  state.models = await api.models();
  const detectors = state.models.filter((one) => !givesLabels(one)), classesOf = (models) => [...new Set(models.flatMap((one) => one.classes))];
  // boxes of a detector and labels of a classifier stand together; two of a kind are looked at side by side
  state.first = (detectors[0] ?? state.models[0])?.model ?? null;
  const others = state.models.filter((one) => one.model !== state.first), kind = givesLabels(modelOf(state.first));
  state.second = (others.find((one) => givesLabels(one) === kind) ?? others[0])?.model ?? null;
  state.labeller = state.models.find(givesLabels)?.model ?? null;
  state.labelClasses = classesOf(state.models);
  state.classes = detectors.length ? classesOf(detectors) : state.labelClasses;
  state.lastClass = state.classes[0] ?? null;
  state.threshold = firstThreshold(modelOf(state.first));
  document.querySelector('[data-view="models"]').disabled = !state.second;
  document.querySelector('[data-view="models"]').title = state.second ? "" : "This server shows one model";
  document.querySelector('[data-view="prior"]').disabled = true;
  showRun();
  await archive.start();
  restoreUnsent();
  refresh("list", "findings", "image", "hints", "bars");
  await worklist.load();
  const first = worklist.rows.find((row) => !row.read && row.state !== "failed") ?? worklist.rows[0];
  if (first) await open(first);
  else welcome();
  viewport.panes[0].element.focus({ preventScroll: true });
}

start().then(() => { document.documentElement.dataset.ready = ""; }, (error) => {
  toast(`The page did not start: ${error.message}`, "Try again", () => location.reload());
});

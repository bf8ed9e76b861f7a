/* A reader study: one case after the other, marks with how sure the reader is, and no way back.

   The server says which case lies open and gives the model's boxes in one of the two arms alone; this page has nothing to hide. */

import { Api } from "./api.js";
import { $, check, clock, icon, make, plural, rebuild, say, write } from "./dom.js";
import { Editor } from "./edit.js";
import { HeatMaps } from "./heat.js";
import { toggleHelp } from "./help.js";
import { isOwnKey, isTyping, lookUp, tableOf } from "./keys.js";
import { chosen, listed } from "./listing.js";
import { Look } from "./look.js";
import { keyOf, Reading } from "./marks.js";
import { hideToast, showSaving, startNotices, toast } from "./notices.js";
import { newKey, Offline, Outbox, SignedOut } from "./outbox.js";
import { Pictures } from "./picture.js";
import { Pointer } from "./pointer.js";
import { askWho } from "./session.js";
import { draws, keep, refresh, state } from "./state.js";
import { ratingOf, STUDY_KEYS, STUDY_MOUSE } from "./study_keys.js";
import { Viewport } from "./viewport.js";
import { Watch } from "./watch.js";

const PAN_PX = 40;
const LOOK_AGAIN_MS = 5000;
const MODEL = "shown"; // the model has no name here: readers are not told which it is
const KEYS = tableOf(STUDY_KEYS);

const api = new Api();
const pictures = new Pictures({ display: (place) => api.caseDisplay(place), pixels: (place) => api.casePixels(place) });
const heatMaps = new HeatMaps({ heatMap: (place, _model, { box }) => api.caseHeatMap(place, box) }, () => refresh("image", "marks"));
const viewport = new Viewport({ heatMaps, onFocus: (key) => editor.select(key) });
const look = new Look(viewport);
const editor = new Editor({ save, onSelect: (box) => { viewport.bringIn(box.box); noteHeat(); }, setTool });
const pointer = new Pointer({ viewport, editor, activate: () => {}, setHeat: () => {}, setWindow: (pane, center, width) => look.set(pane.picture, center, width) });
const outbox = new Outbox({
  send: (place, { reader: _, ...body }) => api.saveCase(place, body, { keepalive: document.hidden }),
  reader: () => state.reader, clock, newKey, onChange: () => refresh("bars"),
});
draws("bars", () => showSaving(outbox, { signIn: signInAgain, retry: () => outbox.resume() }));
draws("marks", drawMarks);
draws("findings", drawMarks); // the editor's word for the panel
draws("hints", drawHints);

let now = null; // where the reader stands
let sure = false; // Enter was pressed on a case without a mark
let submitting = false;

// ------------------------------------------------------------------ a case
class Case {
  constructor(given) {
    const { session, position, arm, boxes, draft } = given;
    Object.assign(this, { id: `${session}/${position}`, arm, position, state: "done", loaded: true, revealed: true, ready: false, others: [], othersShown: false, answers: [], priors: [] });
    this.predictions = new Map([[MODEL, boxes.map((box) => ({ ...box, score: now.scores ? box.score : null }))]]);
    this.reading = readingOf(draft, boxes);
    this.watch = new Watch();
    this.watch.seconds = draft?.seconds ?? 0; // the time goes on where it was
    this.finalKey = newKey();
  }
}

/** What was saved before the page was left. */
function readingOf(draft, boxes) {
  const reading = new Reading();
  for (const mark of draft?.marks ?? []) {
    const predicted = mark.prediction != null, from = predicted ? boxes[mark.prediction].box : null;
    const same = predicted && mark.class === boxes[mark.prediction].class && from.every((x, i) => Math.abs(x - mark.box[i]) <= 0.5);
    reading.marks.set(predicted ? keyOf(MODEL, mark.prediction) : `own:${++reading.added}`, {
      box: [...mark.box], class: mark.class, verdict: predicted ? (same ? "accepted" : "moved") : "added",
      model: predicted ? MODEL : null, prediction: mark.prediction, score: null, from: predicted && !same ? [...from] : null, rating: mark.rating,
    });
  }
  reading.text = draft?.text ?? "";
  return reading;
}

const marksOf = (reading) => [...reading.marks].filter(([, mark]) => mark.verdict !== "rejected");
const ratingOfBox = (box) => state.case?.reading.marks.get(box?.key)?.rating ?? null;
const isMark = (box) => Boolean(box && state.case?.reading.marks.has(box.key));

function bodyOf(here, finished) {
  const { seconds, boxes_seconds, heat_maps } = here.watch.told();
  return {
    marks: marksOf(here.reading).map(([, mark]) => ({ box: mark.box, class: mark.class, rating: mark.rating ?? null, prediction: mark.prediction ?? null })),
    text: here.reading.text, seconds, shown: { boxes_seconds, heat_maps: heat_maps.length, boxes: state.boxes }, finished,
  };
}

function save(here) {
  sure = false;
  outbox.put(here.id, { ...bodyOf(here, false), reader: state.reader });
}

/** Ask where the reader stands, and show it. */
async function stand({ begin = false } = {}) {
  try {
    now = await api.study();
  } catch (error) {
    if (error instanceof SignedOut) return signInAgain();
    return card("fail", "The study cannot be shown.", error.message, "Try again", () => stand({ begin }));
  }
  showWho();
  if (now.state === "reading" && begin) return openNext();
  closeCase();
  if (now.state === "reading") {
    const words = now.done ? `${now.done} of ${now.planned} cases are read. The next one opens when you begin.` : `${plural(now.planned, "case")}, one after the other. Time counts while a case is on the screen.`;
    if (!now.session) return card("box", "Practice", `${words} Cases come without and with the model's boxes in turn. They count nowhere: learn the keys, the marks and the ratings.`, now.done ? "Go on" : "Begin", openNext);
    return card("box", `Session ${now.session} of ${now.sessions}`, `${words} Half of the cases come with the model's boxes. A submitted case cannot be changed.`, now.done ? "Go on" : "Begin", openNext);
  }
  if (now.state === "waiting") return card("read", `Session ${now.session} of ${now.sessions} is done.`, `The next one opens on ${whenWords(now.until)}.`, "Sign out", signOut);
  if (now.state === "finished") return card("read", "All cases are read.", "Thank you. Nothing is left to do.", "Sign out", signOut);
  card("running", "Cases are being prepared.", now.why, "Look again", () => stand());
  setTimeout(() => { if (now.state === "preparing" && !state.case) stand(); }, LOOK_AGAIN_MS);
}

const whenWords = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });

async function openNext() {
  hideToast();
  let given;
  try {
    given = await api.nextCase();
  } catch (error) {
    if (error instanceof SignedOut) return signInAgain();
    return card("fail", "The case cannot be opened.", error.message, "Try again", () => stand());
  }
  const here = new Case(given);
  Object.assign(state, { case: here, chosen: null, heat: false, grip: "whole", boxes: true });
  $("boxes-button").setAttribute("aria-pressed", true);
  $("note").value = here.reading.text;
  setTool(state.leftDrag === "box" ? "pan" : state.leftDrag);
  viewport.panes[0].card.hidden = true;
  refresh("marks", "image", "hints");
  try {
    const picture = await pictures.get(here.id);
    if (state.case !== here) return;
    viewport.setPictures(picture, null);
    here.ready = true; // nothing is marked or submitted that was not seen
    look.show();
    refresh("marks");
  } catch (error) {
    closeCase();
    return card("fail", "The image cannot be shown.", error.message, "Try again", () => stand({ begin: true }));
  }
  watchScreen();
  viewport.panes[0].element.focus({ preventScroll: true });
  say(`${caseWords(here)}, ${armWords(here)}`);
}

const caseWords = (here) => (now.session ? `Case ${here.position} of ${now.planned}` : `Practice ${here.position} of ${now.planned}, not counted`);

const armWords = (here) => (here.arm === "with" ? "with the model's boxes" : "without the model's boxes");

function closeCase() {
  state.case?.watch.stop();
  Object.assign(state, { case: null, chosen: null, heat: false });
  viewport.setPictures(null, null);
  pictures.clear(); // nothing of a case stays in the page
  refresh("marks", "image", "hints");
}

/** Words in the place of the image, with one thing to do. */
function card(sign, what, words, act, run) {
  const place = viewport.panes[0].card;
  place.hidden = false;
  const button = make("button", { class: "outlined", on: { click: run } }, act);
  rebuild(place, icon(sign), make("p", {}, make("b", {}, what)), make("p", {}, words), button);
  button.focus();
  say(`${what} ${words}`);
}

/** Submit for good: every mark has its rating, and a case without a mark is meant so. */
async function submit() {
  const here = state.case;
  if (!here || submitting) return;
  if (!here.ready) return say("The image is still coming");
  const marks = marksOf(here.reading), open = marks.find(([, mark]) => mark.rating == null);
  if (open) {
    editor.select(open[0], { quiet: true });
    return toast("Not submitted: say how sure this mark is.");
  }
  if (!marks.length && !sure) {
    sure = true;
    return toast("No mark: nothing found here? Enter again submits.", "Submit", submit);
  }
  submitting = true;
  here.watch.stop();
  refresh("marks");
  try {
    await outbox.flush();
    // the same key however often it is sent: an answer that was lost is the same submission
    now = await api.saveCase(here.id, { ...bodyOf(here, true), key: here.finalKey });
  } catch (error) {
    submitting = false;
    watchScreen();
    refresh("marks");
    if (error instanceof SignedOut) return outbox.report("signed-out");
    if (error instanceof Offline) return toast(`Not submitted: ${error.message}.`, "Try again", submit);
    toast(`Not submitted: ${error.message}`);
    return stand({ begin: true }); // submitted in another tab, say
  }
  outbox.drop(here.id, state.reader);
  submitting = false;
  sure = false;
  closeCase();
  if (now.state === "reading" && now.done) return openNext();
  stand();
}

// ------------------------------------------------------------------ drawing
function drawMarks() {
  const here = state.case, list = listed(), own = list.filter(isMark), theirs = list.filter((box) => !isMark(box));
  write($("case-title"), here ? caseWords(here) : !now ? "Reader study" : now.session ? `Session ${now.session} of ${now.sessions}` : "Practice");
  $("arm").hidden = !here;
  if (here) {
    $("arm").dataset.arm = here.arm;
    write($("arm"), here.arm === "with" ? "With the model's boxes" : "Without the model's boxes");
  }
  for (const id of ["marks", "note-section"]) $(id).hidden = !here;
  $("model").hidden = here?.arm !== "with";
  rebuild($("mark-list"), own.map(markRow));
  $("no-marks").hidden = own.length > 0;
  rebuild($("model-list"), theirs.map(boxRow));
  $("no-boxes").hidden = list.some((box) => box.kind === "predicted");
  drawRating();
  for (const id of ["submit", "thumb-submit"]) $(id).disabled = !here?.ready || submitting;
  for (const id of ["undo", "thumb-undo"]) $(id).disabled = !here?.reading.past.length;
  $("redo").disabled = !here?.reading.future.length;
  $("thumb-take").hidden = here?.arm !== "with";
  $("thumb-take").disabled = !theirs.length;
  $("thumb-remove").disabled = !isMark(chosen());
  for (const id of ["add-mark", "thumb-add"]) $(id).disabled = !here?.ready;
  drawHints();
}

function row(box, words, ...more) {
  const on = box.key === state.chosen;
  return make("li", { class: `finding${on ? " chosen" : ""}` }, make("div", { class: "line" },
    make("button", { class: "pick", "data-keep": `pick ${box.key}`, "aria-pressed": on, on: { click: (event) => { editor.select(on ? null : box.key); home(event); } } },
      make("span", { class: "number" }, String(box.number)), make("span", { class: "name" }, box.class), words), ...more));
}

function markRow(box) {
  const rating = ratingOfBox(box);
  const words = make("span", { class: rating == null ? "unrated" : "score" }, rating == null ? "not rated" : `${rating} of ${now.highest_rating}`);
  return row(box, words, make("button", { class: "verdict", "data-keep": `remove ${box.key}`, "aria-label": `Remove mark ${box.number}`, title: "Remove (Delete)", on: { click: (event) => { removeMark(box); home(event); } } }, icon("no")));
}

function boxRow(box) {
  return row(box, make("span", { class: "score" }, box.score == null ? "" : box.score.toFixed(2)),
    make("button", { class: "take outlined", "data-keep": `take ${box.key}`, "aria-label": `Take box ${box.number} as a mark`, on: { click: (event) => { take(box); home(event); } } }, "Take"));
}

function drawRating() {
  const box = chosen(), on = isMark(box), rating = ratingOfBox(box), range = $("rating-range"), highest = now?.highest_rating ?? 100;
  $("rating").hidden = !on;
  if (!on) return;
  range.max = highest;
  range.value = rating ?? Math.round((1 + highest) / 2);
  range.setAttribute("aria-valuetext", rating == null ? "not rated" : `${rating} of ${highest}`);
  $("rating").toggleAttribute("data-unset", rating == null);
  write($("rating-words"), rating == null ? "Not rated" : `${rating} of ${highest}`);
  write($("rating-high"), `${highest}, certain`);
  write($("rating-keys"), highest <= 9 ? `Keys 1 to ${highest}. Comma and full stop change it by one.` : "Keys 1 to 9 and 0: tenths of the scale. Comma and full stop change it by one.");
  rebuild($("classes"), now.classes.length < 2 ? null : now.classes.map((name) => make("button", { "data-keep": `class ${name}`, "aria-pressed": name === box.class, on: { click: (event) => { editor.rename(box, name); home(event); } } }, name)));
}

function drawHints() {
  const here = state.case, box = chosen(), hint = (name, words) => make("span", {}, make("kbd", {}, name), words);
  const words = !here ? [] : state.tool === "box" ? [hint("Enter", "mark in the middle"), hint("Esc", "no mark")]
    : isMark(box) ? [hint("1 to 0", "how sure"), hint("G", "resize"), hint("Del", "remove"), hint("Enter", "submit")]
      : box ? [hint("Y", "take"), hint("Esc", "put down")] : [hint("A", "add a mark"), hint("J", "next box"), hint("Enter", "submit")];
  rebuild($("hints"), words);
}

// ------------------------------------------------------------------ what a reader does
function rate(value) {
  const here = state.case, box = chosen();
  if (!here) return;
  if (!isMark(box)) return say("Pick a mark first");
  const rating = Math.min(now.highest_rating, Math.max(1, Math.round(value)));
  editor.commit(`Mark ${box.number}: ${rating}`, (reading) => { reading.marks.get(box.key).rating = rating; }, { merge: `rate ${box.key}`, quiet: true });
  say(`${rating} of ${now.highest_rating}`);
}

function take(box = chosen()) {
  const here = state.case;
  if (!here) return;
  if (!box) {
    const first = listed().find((one) => !isMark(one));
    return first ? editor.select(first.key) : say("No box of the model to take");
  }
  if (box.kind !== "predicted") return say("This is your own mark");
  editor.commit(isMark(box) ? `Box ${box.number} no longer taken` : `Box ${box.number} taken: how sure is it?`, (reading) => {
    if (reading.marks.has(box.key)) reading.marks.delete(box.key);
    else reading.judge(box, "accepted");
  });
  editor.select(box.key, { quiet: true });
}

function removeMark(box = chosen()) {
  if (isMark(box)) editor.remove(box);
}

function stepBox(by) {
  const list = listed();
  if (!list.length) return say("No mark");
  const at = list.findIndex((box) => box.key === state.chosen);
  editor.select(list[at < 0 ? (by > 0 ? 0 : list.length - 1) : (at + by + list.length) % list.length].key);
}

function noteHeat() {
  const box = state.heat ? chosen() : null;
  if (box?.kind === "predicted") state.case.watch.heatMap(box.key, "model's own");
}

function toggleHeat() {
  if (!now.heat_maps || chosen()?.kind !== "predicted") return;
  state.heat = !state.heat;
  noteHeat();
  refresh("image");
}

function setTool(name) {
  state.tool = name;
  check($("tool"), (radio) => radio.dataset.tool === name);
  viewport.panes[0].element.dataset.cursor = name === "pan" ? "" : name;
  refresh("hints", "image");
}

function toggleBoxes() {
  state.boxes = !state.boxes;
  $("boxes-button").setAttribute("aria-pressed", state.boxes);
  $("boxes-button").querySelector("use").setAttribute("href", state.boxes ? "#i-eye" : "#i-eye-off");
  watchScreen();
  refresh("image");
  say(state.boxes ? "Shown" : "Hidden");
}

/** Time counts while the case is on the screen. */
function watchScreen() {
  const here = state.case;
  if (here?.ready && !document.hidden) here.watch.start(state.boxes && here.arm === "with");
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return watchScreen();
  if (!state.case?.ready) return;
  state.case.watch.stop();
  save(state.case); // the time so far, too
  outbox.flush();
});

function toggleTheme() {
  const light = getComputedStyle(document.documentElement).colorScheme === "light";
  state.theme = light ? "dark" : "light";
  document.documentElement.dataset.theme = state.theme;
  keep();
}

/** After a click with the mouse the keys go back to the image: Enter must not press the button again. */
function home(event) {
  if (event.detail > 0) viewport.panes[0].element.focus({ preventScroll: true });
}

// ------------------------------------------------------------------ keys
const actions = {
  enter: () => (state.tool === "box" && viewport.picture ? editor.addInMiddle(viewport.active.view, viewport.picture) : submit()),
  note: () => $("note").focus(),
  undo: () => editor.undo(),
  redo: () => editor.redo(),
  add: () => setTool(state.tool === "box" ? state.leftDrag : "box"),
  nextBox: () => stepBox(1),
  previousBox: () => stepBox(-1),
  rate: (event) => {
    const value = ratingOf(Number(event.key), now.highest_rating);
    if (value != null) rate(value);
  },
  rateBy: (event) => {
    const rating = ratingOfBox(chosen());
    if (rating != null) rate(rating + (event.key === "," ? -1 : 1));
  },
  take: () => take(),
  nextClass: () => editor.nextClass(),
  grip: () => editor.grip(),
  remove: () => removeMark(),
  ...look.actions(),
  arrow: (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], by = event.shiftKey ? 10 : 1;
    if (isMark(chosen()) && viewport.picture && editor.nudge(dx * by, dy * by, viewport.picture)) return;
    const far = PAN_PX * (event.shiftKey ? 4 : 1);
    viewport.pan(viewport.active, -dx * far, -dy * far);
  },
  boxes: toggleBoxes,
  heat: toggleHeat,
  help: () => toggleHelp(helpActions),
};
const helpActions = { setTool, canSignOut: () => Boolean(api.csrf), signOut, keys: STUDY_KEYS, mouse: STUDY_MOUSE };

function escape(node) {
  sure = false;
  if (pointer.abort()) return;
  if (!$("help").hidden) return toggleHelp(helpActions, false);
  if (isTyping(node) || node.closest(".findings")) return viewport.panes[0].element.focus({ preventScroll: true });
  if (state.tool === "box") return setTool(state.leftDrag);
  if (state.heat) return toggleHeat();
  editor.select(null);
}

function keyDown(event) {
  const node = event.target instanceof Element ? event.target : document.body;
  if (event.isComposing || event.repeat && event.key === "Enter" || !$("sign-in").hidden) return;
  if (event.key === "Escape") return escape(node);
  if (isTyping(node)) return;
  const radios = node.closest('[role="radiogroup"]');
  if (radios && /^Arrow/.test(event.key)) {
    const all = [...radios.querySelectorAll('[role="radio"]')], by = /Right|Down/.test(event.key) ? 1 : -1;
    const next = all[(all.indexOf(node) + by + all.length) % all.length];
    next.focus();
    next.click();
    return event.preventDefault();
  }
  const box = node.closest?.('g[role="button"]');
  if (box && (event.key === " ")) {
    editor.select(state.chosen === box.dataset.key ? null : box.dataset.key);
    return event.preventDefault();
  }
  if (!box && isOwnKey(node, event.key)) return;
  const found = lookUp(event, state.keysOn, KEYS);
  if (!found || (found.needs && !state.case?.ready)) return;
  event.preventDefault();
  actions[found.act](event);
}

// ------------------------------------------------------------------ who
function showWho() {
  write($("reader-name"), `Reader ${state.reader}`);
  write($("study-name"), now?.study ?? "");
  write($("strip-study"), now?.study ?? "");
  state.classes = now?.classes ?? [];
  state.lastClass ??= state.classes[0] ?? null;
  state.models = [{ model: MODEL, name: "", classes: state.classes, heat_maps: ["ablation"] }];
}

async function signInAgain() {
  const { reader, session } = await askWho(api, { secret: true, again: Boolean(state.case), reader: state.reader });
  if (state.reader && reader !== state.reader) return location.reload(); // another reader has other cases
  state.reader = reader;
  if (session?.csrf) api.csrf = session.csrf;
  await outbox.resume();
  if (!state.case) await stand();
}

async function signOut() {
  if (!$("help").hidden) toggleHelp(helpActions, false);
  await outbox.flush();
  await api.signOut().catch(() => {});
  closeCase();
  location.reload();
}

// ------------------------------------------------------------------ start
function listen() {
  const click = (id, run) => $(id).addEventListener("click", (event) => { run(event); home(event); });
  for (const id of ["undo", "thumb-undo"]) click(id, actions.undo);
  for (const id of ["submit", "thumb-submit"]) click(id, submit);
  for (const id of ["add-mark", "thumb-add"]) click(id, () => setTool("box"));
  click("redo", actions.redo);
  click("thumb-take", () => take());
  click("thumb-remove", () => removeMark());
  click("theme-button", toggleTheme);
  click("boxes-button", toggleBoxes);
  click("invert-button", actions.invert);
  click("fit-button", actions.fit);
  click("one-button", actions.oneToOne);
  $("help-button").addEventListener("click", () => toggleHelp(helpActions));
  $("tool").addEventListener("click", (event) => {
    const tool = event.target.closest("[data-tool]")?.dataset.tool;
    if (!tool) return;
    if (tool !== "box") { state.leftDrag = tool; keep(); }
    setTool(tool);
  });
  look.start();
  $("note").addEventListener("input", (event) => editor.note(event.target.value));
  const range = $("rating-range");
  range.addEventListener("input", () => rate(Number(range.value)));
  // the value that it stands at can be meant as well
  range.addEventListener("pointerup", () => { if (ratingOfBox(chosen()) == null) rate(Number(range.value)); });
  addEventListener("keydown", keyDown);
  addEventListener("beforeunload", (event) => { if (outbox.count) { outbox.flush(); event.preventDefault(); } });
  startNotices();
}

async function start() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  // settings of the viewer in this browser must not hide or show anything here
  Object.assign(state, { readFirst: false, view: "one", threshold: 0, first: MODEL, second: null, heatOpacity: 0.6 });
  viewport.panes[0].model = MODEL;
  listen();
  setTool(state.leftDrag);
  let session = null;
  try {
    session = await api.session();
  } catch {
    // not signed in: the form says so
  }
  if (!session) ({ session } = await askWho(api, { secret: true }));
  state.reader = session.who;
  api.onSignedOut = () => outbox.report("signed-out");
  api.onSilence = (reason) => outbox.report("offline", reason);
  api.onAnswer = () => { if (outbox.silent && !outbox.sending) outbox.resume(); };
  refresh("marks", "image", "hints", "bars");
  await stand();
}

start().then(() => { document.documentElement.dataset.ready = ""; }, (error) => {
  toast(`The page did not start: ${error.message}`, "Try again", () => location.reload());
});

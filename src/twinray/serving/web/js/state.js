/* What the page knows now, and who draws it again when it changed. */

const KEPT = "twinray.viewer";
const settings = { theme: null, keysOn: true, leftDrag: "pan", readFirst: false, heatOpacity: 0.6, method: "ablation", rule: "youden" };

function kept() {
  try {
    return { ...settings, ...JSON.parse(localStorage.getItem(KEPT) ?? "{}") };
  } catch {
    return { ...settings };
  }
}

export const state = {
  ...kept(),
  reader: null, // who is signed in
  classes: [], // of boxes
  labelClasses: [], // of the whole image
  models: [], // of GET /api/models
  first: null, // hash of the model that is shown
  second: null, // hash of the one beside it
  orderBy: null, // hash of the model that orders the worklist, once one was chosen
  labeller: null, // hash of the classifier whose labels stand beside a detector's boxes
  allLabels: false, // scores of classes that are not called are on the page, too
  threshold: 0.5, // score, of the first model
  case: null, // the image that is open
  view: "one", // one, models, prior
  active: 0, // pane
  tool: "pan",
  boxes: true, // boxes drawn
  chosen: null, // key of a box
  heat: false, // heat map of the chosen box drawn
  grip: "whole", // what arrows move: whole, nw, se
  lastClass: null,
};

/** Settings of this browser. Never anything of an image, a patient or a file. */
export function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(Object.keys(settings).map((name) => [name, state[name]]))));
  } catch {
    // a browser that keeps nothing shows the page as well
  }
}

const drawers = new Map();
const asked = new Set();

/** Say what draws a part: image (once a frame), list, findings, bars (once, after what runs now). */
export const draws = (part, run) => drawers.set(part, [...(drawers.get(part) ?? []), run]);

export function refresh(...parts) {
  for (const part of parts) {
    if (asked.has(part)) continue;
    asked.add(part);
    const run = () => {
      asked.delete(part);
      for (const drawer of drawers.get(part) ?? []) drawer();
    };
    if (part === "image") requestAnimationFrame(run);
    else queueMicrotask(run);
  }
}

export const modelOf = (hash) => state.models.find((model) => model.model === hash) ?? null;
/** What the served models give, in a word. */
export const given = () => (state.models.length && state.models.every((model) => model.kind === "classifier") ? "labels" : "boxes");
/** Boxes, scores and orders by score are hidden until this reader asks for them. */
export const hidden = (open = state.case) => Boolean(state.readFirst && open && !open.revealed);

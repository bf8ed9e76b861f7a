/* What the page says of itself: whether work is saved, a banner while it cannot be, and what was just done with its undo. */

import { $, icon, make, plural, rebuild, say } from "./dom.js";

const TOAST_MS = 7000;
let timer = null;

/** What was just done, in the line under the image, with a way back. */
export function toast(text, action = null, run = null) {
  const bar = $("toast"), [words, button] = bar.children;
  bar.hidden = false;
  words.textContent = text;
  words.title = text;
  button.hidden = !action;
  button.textContent = action ?? "";
  button.onclick = () => { hideToast(); run?.(); };
  say(text);
  clearTimeout(timer);
  timer = setTimeout(hideToast, TOAST_MS);
}

export function hideToast() {
  const bar = $("toast");
  if (bar.contains(document.activeElement)) $("pane-0").focus({ preventScroll: true });
  bar.hidden = true;
}

export function startNotices() {
  for (const type of ["pointerenter", "focusin"]) $("toast").addEventListener(type, () => clearTimeout(timer));
  $("toast").addEventListener("pointerleave", () => { timer = setTimeout(hideToast, TOAST_MS); });
}

const LOOK = { saved: ["yes", ""], saving: ["running", "spin"], kept: ["off", ""] };

/** The state of autosave. `signIn()` and `retry()` are what the banner offers. */
export function showSaving(outbox, { signIn, retry }) {
  const { state, text } = outbox.status(), save = $("save");
  if (save.dataset.state !== state || save.title !== text) {
    save.dataset.state = state;
    save.title = text;
    save.replaceChildren(icon(...LOOK[state]), make("span", {}, text));
  }
  const words = bannerWords(outbox), banner = $("banner"), told = JSON.stringify(words);
  if (banner.dataset.told === told) return;
  banner.dataset.told = told;
  banner.hidden = !words;
  if (!words) return banner.replaceChildren();
  const run = words.act === "Sign in here" ? signIn : retry;
  rebuild(banner, icon("off"), make("span", {}, make("b", {}, words.what), ` ${words.kept}`), words.act && make("button", { class: "outlined", "data-keep": "banner", on: { click: run } }, words.act));
}

function bannerWords(outbox) {
  const { trouble, count } = outbox, others = Object.entries(outbox.ofOthers());
  const kept = count ? `${plural(count, "change is", "changes are")} kept in this tab. Leave it open.` : "";
  if (trouble?.kind === "offline")
    return { what: trouble.reason ? `The server cannot go on since ${trouble.since}: ${trouble.reason}.` : `No connection since ${trouble.since}.`, kept: kept || "Open images stay usable. New boxes and heat maps wait.", act: "Try now" };
  if (trouble?.kind === "signed-out") return { what: `Signed out at ${trouble.since}.`, kept: kept || "Open images stay usable.", act: "Sign in here" };
  if (trouble?.kind === "refused") return { what: `Not saved: ${trouble.reason}.`, kept, act: "Try again" };
  if (others.length) {
    const list = others.map(([reader, n]) => `${plural(n, "change")} of ${reader}`).join(", ");
    return { what: `${list} not sent.`, kept: "They are sent when that reader signs in here. Leave this tab open.", act: "Sign in here" };
  }
  return null;
}

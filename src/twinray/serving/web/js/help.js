/* Keys and settings: the list is made of the table that the handler uses. */

import { $, make } from "./dom.js";
import { keyWords, KEYS, MOUSE } from "./keys.js";
import { keep, refresh, state } from "./state.js";

function tick(words, on, change) {
  return make("label", { class: "tick" }, make("input", { type: "checkbox", checked: on, on: { change: (e) => { change(e.target.checked); keep(); refresh("hints", "image", "findings", "list"); } } }), make("span", {}, words));
}

const table = (rows) => make("table", {}, make("tbody", {}, rows.map(([head, words]) => make("tr", {}, make("th", { scope: "row" }, head), make("td", {}, words)))));

/** Open or close. `actions`: {setTool, canSignOut, signOut, keys, mouse}; the last two in place of the viewer's own. */
export function toggleHelp(actions, on = $("help").hidden) {
  const help = $("help");
  help.hidden = !on;
  $("help-button").setAttribute("aria-expanded", on);
  if (!on) {
    $("help-button").focus();
    return;
  }
  const close = make("button", { class: "outlined last", on: { click: () => toggleHelp(actions, false) } }, "Close ", make("kbd", { "aria-hidden": "true" }, "Esc"));
  help.replaceChildren(
    make("div", { class: "section-head" }, make("h2", {}, "Keys and settings"), close),
    tick("Letter and number keys on", state.keysOn, (set) => { state.keysOn = set; }),
    tick("Left drag sets the window, as in many archives", state.leftDrag === "window", (set) => {
      state.leftDrag = set ? "window" : "pan";
      actions.setTool(state.leftDrag);
    }),
    ...(actions.canSignOut() ? [make("div", {}, make("button", { class: "outlined", on: { click: actions.signOut } }, `Sign out ${state.reader ?? ""}`))] : []),
    ...(actions.keys ?? KEYS).map(([title, rows]) => make("div", {}, make("h3", {}, title), table(rows.map(([keys, words]) => [keysOf(keys), words])))),
    make("div", {}, make("h3", {}, "Mouse and touch"), table(actions.mouse ?? MOUSE)),
    make("p", { class: "small muted" }, "Research software, not a medical device."),
  );
  close.focus();
}

function keysOf(keys) {
  const span = make("span");
  (keys.length > 5 ? ["1 to 9"] : keys).forEach((one, i) => span.append(i ? " " : "", make("kbd", {}, keys.length > 5 ? one : keyWords(one))));
  return span;
}

/* Who reads. A server that asks for it is signed in to here; the work on the screen stays where it is meanwhile. */

import { $, make } from "./dom.js";
import { Refused, SignedOut } from "./outbox.js";

const CODE = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
const KEPT = "twinray.reader";

/** The code under which this browser's reader reads where nobody signs in. */
export function keptReader() {
  try {
    const code = localStorage.getItem(KEPT) ?? "";
    return CODE.test(code) ? code : null;
  } catch {
    return null;
  }
}

function keepReader(code) {
  try {
    localStorage.setItem(KEPT, code);
  } catch {
    // asked again next time
  }
}

/** Ask who reads. Resolves with {reader, session} once it is known.
 *  `secret`: whether the server asks for a password or token. `again`: the page goes on behind the form. */
export function askWho(api, { secret, again = false, reader = keptReader() }) {
  const panel = $("sign-in");
  // nothing behind the form takes the keys before somebody reads; later the work on the screen stays usable
  const behind = again ? [] : [...panel.parentElement.children].filter((node) => node !== panel && !node.inert);
  for (const node of behind) node.inert = true;
  return new Promise((resolve) => {
    const name = make("input", { type: "text", id: "who", autocomplete: "username", spellcheck: "false", autocapitalize: "off", maxlength: 64, required: true, value: reader ?? "" });
    const word = make("input", { type: "password", id: "secret", autocomplete: "current-password", required: true });
    const trouble = make("p", { class: "small fail", role: "alert" });
    const act = make("button", { class: "main-act" }, secret ? "Sign in" : "Start reading");
    const field = (input, words) => make("div", { class: "field" }, make("label", { for: input.id, class: "small muted" }, words), input);
    const submit = async (event) => {
      event.preventDefault();
      const who = name.value.trim();
      if (!CODE.test(who)) return void (trouble.textContent = "A reader's code has letters, digits and . _ @ - only.");
      act.disabled = true;
      trouble.textContent = "";
      try {
        const session = secret ? await signIn(api, who, word.value) : null;
        if (!session?.named) keepReader(who);
        for (const node of behind) node.inert = false;
        panel.hidden = true;
        panel.replaceChildren();
        resolve({ reader: session?.named ? session.who : who, session });
      } catch (error) {
        trouble.textContent = error instanceof SignedOut ? "That name and secret do not open this server." : error.message;
        act.disabled = false;
        word.focus();
      }
    };
    const form = make("form", { on: { submit } }, make("h2", { id: "sign-in-title" }, secret ? "Sign in" : "Who reads?"),
      make("p", { class: "small muted" }, secret ? "A user's name and password, or your reader's code and the server's token." : "Marks are kept under a reader's code, for instance R1. Take no name of a patient."),
      field(name, secret ? "Name" : "Reader's code"), secret ? field(word, "Password or token") : null, trouble, act,
      make("p", { class: "small muted" }, "Research software, not a medical device."));
    panel.classList.toggle("again", again);
    panel.replaceChildren(form);
    panel.hidden = false;
    (name.value && secret ? word : name).focus();
  });
}

/** A user's password first, then the server's token. */
async function signIn(api, who, secret) {
  try {
    return await api.signIn({ user: who, password: secret });
  } catch (error) {
    if (!(error instanceof SignedOut || error instanceof Refused)) throw error;
    return api.signIn({ token: secret });
  }
}

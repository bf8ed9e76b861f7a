/* Autosave: what a reader changed goes out by itself, and nothing leaves this list before the server has said that it is kept.

   One entry an image: a later body takes the place of one that was not sent, under a new key. The key stays the same when a
   send is repeated, so that a save whose answer was lost is kept once. Bodies belong to the reader who made them and are
   sent in that reader's name alone. */

export class Offline extends Error {}
/** The server answered that it cannot now, and why: it is not away. */
export class Busy extends Offline {}
export class SignedOut extends Error {}
/** The server understood and will not have it: sending the same again is of no use. */
export class Refused extends Error {}
/** Somebody else was first: what the server has is later than what was changed here. */
export class Overtaken extends Refused {}

/** A name that no other save has. `crypto.randomUUID` is not there on a page that came by plain HTTP from another machine. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const WAIT_MS = 400; // after the last change
const RETRY_MS = [2000, 4000, 8000, 15000, 30000];

export class Outbox {
  /** `send(image, body)`: a promise, rejected with one of the errors above.
   *  `reader()`: who is signed in. `clock()`: text of the time. `onChange()`: called whenever `status()` may have changed.
   *  `keep(entries)`: called with what is not sent. */
  constructor({ send, reader, clock, onChange = () => {}, keep = () => {}, newKey, timers = globalThis }) {
    Object.assign(this, { send, reader, clock, onChange, keep, newKey, timers });
    this.entries = new Map();
    this.sending = null;
    this.savedAt = null;
    this.trouble = null; // {kind: "offline" | "signed-out" | "refused", since, reason}
    this.tries = 0;
    this.timer = null;
  }

  /** Take a body to be saved. It replaces one of the same image and reader that still waits. */
  put(image, body) {
    const id = `${body.reader}\n${image}`, changes = (this.entries.get(id)?.changes ?? 0) + 1;
    this.entries.set(id, { image, body: { ...body, key: this.newKey() }, changes, refused: null });
    this.keep([...this.entries.values()]);
    if (this.trouble?.kind === "refused") this.trouble = null;
    if (!this.trouble) this.#later(WAIT_MS);
    this.onChange();
  }

  /** Entries from before (a tab that was put aside by the system). */
  restore(entries) {
    for (const entry of entries) this.entries.set(`${entry.body.reader}\n${entry.image}`, { ...entry, refused: null });
    if (this.entries.size) this.#later(0);
    this.onChange();
  }

  /** Give up what waits of an image: something later was kept. */
  drop(image, reader) {
    this.entries.delete(`${reader}\n${image}`);
    this.keep([...this.entries.values()]);
    this.onChange();
  }

  /** What waits for an image: a reading that is newer than the server's. */
  waiting(image, reader) {
    return this.entries.get(`${reader}\n${image}`)?.body ?? null;
  }

  #later(ms) {
    this.timers.clearTimeout(this.timer);
    this.timer = this.timers.setTimeout(() => this.flush(), ms);
  }

  /** Send now what waits. */
  async flush() {
    this.timers.clearTimeout(this.timer);
    if (this.sending) return this.sending;
    this.sending = this.#flush().finally(() => { this.sending = null; });
    await this.sending;
    if (!this.trouble && this.#next()) this.#later(0); // changed while it was sent
    this.onChange();
  }

  #next() {
    return [...this.entries].find(([, entry]) => !entry.refused && entry.body.reader === this.reader());
  }

  async #flush() {
    for (let next; (next = this.#next()); ) {
      const [id, entry] = next;
      this.onChange();
      try {
        await this.send(entry.image, entry.body);
      } catch (error) {
        if (error instanceof Refused) {
          entry.refused = error.message;
          this.trouble = { kind: "refused", since: this.clock(), reason: error.message };
          continue;
        }
        const kind = error instanceof SignedOut ? "signed-out" : "offline";
        if (this.trouble?.kind !== kind) this.trouble = { kind, since: this.clock(), reason: "" };
        this.trouble.reason = error instanceof Busy || kind !== "offline" ? error.message : "";
        if (kind === "offline") this.#later(RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
        return;
      }
      this.tries = 0;
      if (this.trouble?.kind !== "refused") this.trouble = null;
      this.savedAt = this.clock();
      if (this.entries.get(id) === entry) this.entries.delete(id); // else it was changed meanwhile and goes out again
      this.keep([...this.entries.values()]);
    }
  }

  /** Say that the server does not answer, or that nobody is signed in, when something else than a save found out. */
  report(kind, reason = "") {
    if (this.trouble?.kind === kind) {
      if (this.trouble.reason !== reason && !this.count) this.trouble.reason = reason; // what waits says itself why it does not go
      return this.onChange();
    }
    this.trouble = { kind, since: this.clock(), reason };
    if (kind === "offline") this.#later(RETRY_MS[0]);
    this.onChange();
  }

  /** The connection or the session is back. */
  resume() {
    this.trouble = null;
    this.tries = 0;
    for (const entry of this.entries.values()) entry.refused = null;
    this.onChange();
    return this.flush();
  }

  /** Whether any answer of the server ends the trouble: one that says why it cannot save is asked again in its time. */
  get silent() {
    return this.trouble?.kind === "offline" && !(this.trouble.reason && this.count);
  }

  get count() {
    return [...this.entries.values()].reduce((sum, entry) => sum + entry.changes, 0);
  }

  /** Changes that wait for a reader who is not signed in: {reader: count}. */
  ofOthers() {
    const out = {};
    for (const { body, changes } of this.entries.values()) if (body.reader !== this.reader()) out[body.reader] = (out[body.reader] ?? 0) + changes;
    return out;
  }

  /** One of saved, saving, kept, with its words. */
  status() {
    if (this.trouble && this.count) return { state: "kept", text: `Kept here, ${this.count} to send` };
    if (this.trouble) return { state: "kept", text: this.trouble.kind === "signed-out" ? "Signed out" : this.trouble.reason ? "Server busy" : "No connection" };
    if (this.#next()) return { state: "saving", text: "Saving" };
    if (this.count) return { state: "kept", text: `Kept here, ${this.count} to send` };
    return { state: "saved", text: this.savedAt ? `Saved ${this.savedAt}` : "All saved" };
  }
}

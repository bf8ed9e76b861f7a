/* The server, as far as this page asks it. Every request goes to this page's own origin. */

import { Busy, Offline, Overtaken, Refused, SignedOut } from "./outbox.js";

const LIMIT_MS = 30000;
const BUSY_TRIES = 12, BUSY_MS = 1500; // while models are loaded, or many ask at once

export class Api {
  constructor() {
    this.csrf = null;
    this.onSignedOut = () => {};
    this.onAnswer = () => {}; // the server answered, whatever it said
    this.onSilence = () => {}; // called with why, where the server said so
  }

  /** `beyond`: the answer is of a place behind the server, whose silence is not the server's.
   *  `part`: of a part of the server that may be busy while all others work: no pixels yet, no room for files. */
  async #ask(path, { method = "GET", body = null, limit = LIMIT_MS, keepalive = false, beyond = false, part = false } = {}) {
    const headers = {};
    if (method !== "GET" && this.csrf) headers["X-CSRF-Token"] = this.csrf;
    if (body && !(body instanceof FormData)) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(path, { method, headers, body, keepalive, credentials: "same-origin", cache: "no-store", redirect: "error", signal: AbortSignal.timeout(limit) });
    } catch (error) {
      this.onSilence();
      throw new Offline(error.name === "TimeoutError" ? "the server did not answer in time" : "the server does not answer");
    }
    if (response.status === 401) {
      if (path !== "api/session" || method === "GET") this.onSignedOut();
      throw new SignedOut("signed out");
    }
    if (beyond && (response.status === 502 || response.status === 503)) {
      this.onAnswer();
      throw new Refused(await reasonOf(response));
    }
    if (response.status >= 500 || response.status === 429) {
      const reason = await reasonOf(response);
      if ([429, 503, 507].includes(response.status)) {
        if (!part && response.status !== 429) this.onSilence(reason);
        throw new Busy(reason);
      }
      if (response.status >= 502) this.onSilence();
      throw new Offline(reason);
    }
    this.onAnswer();
    if (response.status === 409) throw new Overtaken(await reasonOf(response));
    if (!response.ok) throw new Refused(await reasonOf(response));
    return response;
  }

  async #json(path, options) {
    return (await this.#ask(path, options)).json();
  }

  /** What a busy part of the server gives a little later is waited for. */
  async #patient(path, options = {}) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#ask(path, { ...options, part: true });
      } catch (error) {
        if (!(error instanceof Busy) || tries >= BUSY_TRIES) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
    }
  }

  // ------------------------------------------------------------------ who
  /** {who, named, needed, csrf}: who is signed in. `named`: a user, who reads under no other name. */
  async session() {
    return this.#held(await this.#json("api/session"));
  }

  async signIn(fields) {
    return this.#held(await this.#json("api/session", { method: "POST", body: fields }));
  }

  async signOut() {
    await this.#ask("api/session", { method: "DELETE" });
    this.csrf = null;
  }

  #held(session) {
    this.csrf = session.csrf ?? null;
    return session;
  }

  // ------------------------------------------------------------------ what
  async models() {
    return (await this.#json("api/models")).models;
  }

  /** A page of the worklist. `states`: any of queued, running, done, failed, read, unread. */
  images({ states, q, order, page, model }) {
    // what is searched for may be a name, and addresses end in logs of proxies: it goes in the body
    return this.#json("api/images/search", { method: "POST", body: { state: states.join(","), q, order, page, ...(model ? { model } : {}) } });
  }

  image(id, model = null) {
    return this.#json(`api/images/${encodeURIComponent(id)}${model ? `?model=${encodeURIComponent(model)}` : ""}`);
  }

  /** The newest reading of each reader; `every`: all that were ever saved, oldest first. */
  readings(id, { every = false } = {}) {
    return this.#json(`api/images/${encodeURIComponent(id)}/readings${every ? "?every=true" : ""}`);
  }

  async display(id) {
    return (await this.#patient(`api/images/${encodeURIComponent(id)}/display`)).json();
  }

  /** The values of an image: 16-bit, little-endian. */
  async pixels(id) {
    const response = await this.#patient(`api/images/${encodeURIComponent(id)}/pixels`, { limit: 120000 });
    return new Uint16Array(await response.arrayBuffer());
  }

  /** `what`: {box} or {label}, numbers among the model's. */
  async heatMap(id, model, what, method) {
    const ask = new URLSearchParams({ ...what, model, method });
    return (await this.#patient(`api/images/${encodeURIComponent(id)}/heat-map?${ask}`)).blob();
  }

  save(id, body, { keepalive = false } = {}) {
    return this.#json(`api/images/${encodeURIComponent(id)}/marks`, { method: "POST", body, keepalive });
  }

  upload(files) {
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    return this.#json("api/images", { method: "POST", body: form, limit: 600000, part: true });
  }

  // ------------------------------------------------------------------ the archive
  /** How the link to the archive stands; {archive: null} where none was named. */
  archive() {
    return this.#json("api/archive");
  }

  /** Studies that match {patient_id, accession, date}. What is looked for travels in the body: addresses are kept by browsers. */
  async studies(wanted) {
    return (await this.#json("api/archive/studies", { method: "POST", body: wanted, beyond: true, limit: 60000 })).studies;
  }

  /** {new, failed}: images of a study that came. */
  fetchStudy(study) {
    return this.#json("api/archive/fetch", { method: "POST", body: { study }, beyond: true, limit: 600000 });
  }

  /** Results of an image go to the archive: a reader's newest finished reading, or a model's boxes. */
  sendBack(id, body) {
    return this.#json(`api/images/${encodeURIComponent(id)}/send`, { method: "POST", body, beyond: true });
  }

  async sends(id) {
    return (await this.#json(`api/images/${encodeURIComponent(id)}/sends`)).sends;
  }

  again(id) {
    return this.#json(`api/images/${encodeURIComponent(id)}/again`, { method: "POST" });
  }

  // ------------------------------------------------------------------ a reader study; a case is known by session/position
  /** Where the reader stands. */
  study() {
    return this.#json("api/study");
  }

  /** Open the next case; one that lies open is given again. */
  nextCase() {
    return this.#json("api/study/next", { method: "POST" });
  }

  async caseDisplay(place) {
    return (await this.#patient(`api/study/cases/${place}/display`)).json();
  }

  async casePixels(place) {
    const response = await this.#patient(`api/study/cases/${place}/pixels`, { limit: 120000 });
    return new Uint16Array(await response.arrayBuffer());
  }

  async caseHeatMap(place, box) {
    return (await this.#patient(`api/study/cases/${place}/heat-map?box=${box}`)).blob();
  }

  saveCase(place, body, { keepalive = false } = {}) {
    return this.#json(`api/study/cases/${place}/marks`, { method: "POST", body, keepalive });
  }
}

async function reasonOf(response) {
  try {
    const said = await response.json(), detail = said.detail ?? said.reason ?? said.error;
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map((one) => one.msg).join("; ");
  } catch {
    // no words came with it
  }
  return `the server answered ${response.status}`;
}

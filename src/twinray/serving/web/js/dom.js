/* Small helpers for elements. Text goes in as text, never as markup: a name that holds a tag is shown, not run. */

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element; `on` holds listeners, true and false make or leave out an attribute, null and undefined leave it out. */
export function make(tag, attributes = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [type, run] of Object.entries(value)) node.addEventListener(type, run);
    else if (value == null) continue;
    else if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false) node.setAttribute(name, value);
  }
  node.append(...inside.flat().filter((x) => x != null && x !== false));
  return node;
}

export function draw(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  put(node, attributes);
  return node;
}

export function put(node, attributes) {
  for (const name in attributes) node.setAttribute(name, attributes[name]);
}

export function icon(name, extra = "") {
  const svg = draw("svg", { class: `icon ${extra}`, "aria-hidden": "true" });
  svg.append(draw("use", { href: `#i-${name}` }));
  return svg;
}

export const key = (name) => make("kbd", { class: "wide", "aria-hidden": "true" }, name);

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Say something to a screen reader, and only there. */
export function say(text) {
  $("say").textContent = "";
  requestAnimationFrame(() => { $("say").textContent = text; });
}

/** Build the children of a node anew and give the focus back to the control that had it, known by its data-keep. */
export function rebuild(node, ...children) {
  const held = node.contains(document.activeElement) ? document.activeElement.closest("[data-keep]")?.dataset.keep : null;
  node.replaceChildren(...children.flat().filter((x) => x != null && x !== false));
  if (held) node.querySelector(`[data-keep="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

/** A group of radios has one stop for Tab; the arrows go on inside. */
export function check(group, isOn) {
  const radios = [...group.querySelectorAll('[role="radio"]')];
  for (const radio of radios) radio.setAttribute("aria-checked", String(isOn(radio)));
  const stop = radios.find((radio) => isOn(radio)) ?? radios[0];
  for (const radio of radios) radio.tabIndex = radio === stop ? 0 : -1;
}

export const phone = matchMedia("(max-width: 760px)");
export const narrow = matchMedia("(max-width: 1140px)");

export const clock = () => new Date().toLocaleTimeString("en-GB");

export function ago(seconds) {
  const minutes = Math.floor((Date.now() / 1000 - seconds) / 60);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / 1440)} d`;
}

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

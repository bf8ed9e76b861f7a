/* How the open image is looked at: its window, the list of presets, zoom. What the keys of the section Look do, on every page. */

import { $, make, say } from "./dom.js";
import { refresh } from "./state.js";

const TURN = 1.15, SHIFT = 0.06, ZOOM = 1.25;

export class Look {
  constructor(viewport) {
    this.viewport = viewport;
  }

  /** Listen to the list of presets. */
  start() {
    $("preset").addEventListener("change", (event) => this.choose(Number(event.target.value)));
  }

  /** The list of presets as the open image has them. */
  show() {
    const { picture } = this.viewport, select = $("preset");
    select.disabled = !picture;
    const names = picture ? [...picture.presets.map((one) => one.name), ...(picture.preset < 0 ? ["Own window"] : [])] : ["As sent"];
    if (select.options.length !== names.length || names.some((name, i) => select.options[i].text !== name)) select.replaceChildren(...names.map((name, i) => make("option", { value: i }, name)));
    if (picture) select.value = picture.preset < 0 ? names.length - 1 : picture.preset;
  }

  choose(n) {
    const { picture } = this.viewport;
    if (!picture?.presets[n]) return;
    picture.choose(n);
    this.show();
    refresh("image");
  }

  /** A window of the reader's own. */
  set(picture, center, width) {
    picture.setWindow(center, width);
    this.show();
    refresh("image");
  }

  #turn(change) {
    const { picture } = this.viewport;
    if (!picture) return;
    const { center, width } = picture.window, next = change({ center, width, way: picture.dark ? -1 : 1 });
    this.set(picture, next.center, next.width);
  }

  /** Act of a key -> what it does. */
  actions() {
    const { viewport } = this;
    return {
      invert: () => { viewport.picture?.invert(); refresh("image"); say(viewport.picture?.inverted ? "Inverted" : "Not inverted"); },
      narrower: () => this.#turn(({ center, width }) => ({ center, width: width / TURN })),
      wider: () => this.#turn(({ center, width }) => ({ center, width: width * TURN })),
      darker: () => this.#turn(({ center, width, way }) => ({ center: center + way * width * SHIFT, width })),
      brighter: () => this.#turn(({ center, width, way }) => ({ center: center - way * width * SHIFT, width })),
      resetWindow: () => { viewport.picture?.invert(false); this.choose(0); },
      fit: () => viewport.fit(),
      oneToOne: () => viewport.oneToOne(),
      zoomIn: () => viewport.zoom(ZOOM),
      zoomOut: () => viewport.zoom(1 / ZOOM),
    };
  }
}

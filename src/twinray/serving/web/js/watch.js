/* How long an image was looked at, and what was on the screen meanwhile: kept with a reader's marks. */

export class Watch {
  constructor(now = () => performance.now()) {
    this.now = now;
    this.seconds = 0;
    this.boxes = 0; // seconds with boxes on the screen
    this.since = null;
    this.withBoxes = false;
    this.heat = new Set();
    this.events = {};
  }

  #count() {
    if (this.since == null) return;
    const passed = (this.now() - this.since) / 1000;
    this.seconds += passed;
    if (this.withBoxes) this.boxes += passed;
    this.since = this.now();
  }

  start(withBoxes) {
    this.#count();
    this.since = this.now();
    this.withBoxes = withBoxes;
  }

  /** The image left the screen, or the tab did. */
  stop() {
    this.#count();
    this.since = null;
  }

  /** Note something the first time that it happens, by the second. */
  once(name, more = {}) {
    this.#count();
    this.events[name] ??= { after: round(this.seconds), ...more };
  }

  heatMap(key, method) {
    this.heat.add(`${key} ${method}`);
  }

  told() {
    this.#count();
    return { seconds: round(this.seconds), boxes_seconds: round(this.boxes), heat_maps: [...this.heat], ...this.events };
  }
}

const round = (x) => Math.round(x * 10) / 10;

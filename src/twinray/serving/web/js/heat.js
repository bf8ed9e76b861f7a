/* Exact heat maps of boxes, fetched when asked for and laid over the whole image.

   A map comes as a PNG of colours whose opacity is the heat. Its cells cover the whole image rectangle, so that a cell's
   centre meets the centre of what it stands for. */

const KEPT = 24;

// matplotlib's inferno, as the server draws with it; for the key under a box
const INFERNO = ["#000004", "#210c4a", "#56106e", "#8a226a", "#bc3754", "#e35933", "#f98e09", "#f9cb35", "#fcffa4"];
export const stops = INFERNO.map((colour, i) => ({ share: i / (INFERNO.length - 1), colour }));

export class HeatMaps {
  /** `onChange(map)`: called when a map arrived or failed. */
  constructor(api, onChange) {
    Object.assign(this, { api, onChange, maps: new Map() });
  }

  /** {state: "coming" | "shown" | "failed", picture, reason} of a predicted box; asked for once. */
  get(image, model, prediction, method) {
    const id = `${image} ${model} ${prediction} ${method}`, found = this.maps.get(id);
    if (found) return found;
    const map = { state: "coming", picture: null, reason: "" };
    this.maps.set(id, map);
    if (this.maps.size > KEPT) this.maps.delete(this.maps.keys().next().value);
    this.api.heatMap(image, model, prediction, method).then((blob) => createImageBitmap(blob)).then(
      (picture) => Object.assign(map, { state: "shown", picture }),
      (error) => Object.assign(map, { state: "failed", reason: error.message }),
    ).then(() => this.onChange(map));
    return map;
  }

  /** Forget what failed, so that it is asked for again. */
  again() {
    for (const [id, map] of this.maps) if (map.state === "failed") this.maps.delete(id);
  }
}

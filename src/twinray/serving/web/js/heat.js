/* Exact heat maps of boxes and of labels, fetched when asked for and laid over the whole image.

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

  /** {state: "coming" | "shown" | "empty" | "failed", picture, reason} of what was predicted, {box} or {label} by its number; asked for once. */
  get(image, model, what, method) {
    const id = `${image} ${model} ${JSON.stringify(what)} ${method}`, found = this.maps.get(id);
    if (found) return found;
    const map = { state: "coming", picture: null, reason: "" };
    this.maps.set(id, map);
    if (this.maps.size > KEPT) this.maps.delete(this.maps.keys().next().value);
    this.api.heatMap(image, model, what, method).then((blob) => createImageBitmap(blob)).then(
      (picture) => Object.assign(map, { state: isEmpty(picture) ? "empty" : "shown", picture }),
      (error) => Object.assign(map, { state: "failed", reason: error.message }),
    ).then(() => this.onChange(map));
    return map;
  }

  /** Forget what failed, so that it is asked for again. */
  again() {
    for (const [id, map] of this.maps) if (map.state === "failed") this.maps.delete(id);
  }
}

/** Whether no part of a map has any heat: nothing in the image raised the score. */
function isEmpty(picture) {
  const side = 64, pen = new OffscreenCanvas(side, side).getContext("2d");
  pen.drawImage(picture, 0, 0, side, side);
  return !pen.getImageData(0, 0, side, side).data.some(Boolean);
}

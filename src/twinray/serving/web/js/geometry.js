/* The one map between image and screen: canvas, SVG and hit test all ask here.

   Image coordinates are continuous. Pixel i covers [i, i + 1), its centre is i + 0.5, and a box's right and bottom are
   exclusive. A view is the image point in the middle of a pane and a scale in CSS pixels an image pixel. */

export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

const LARGEST = 32; // device pixels an image pixel
const SMALLEST = 0.5; // share of the scale that fits

/** Scale at which the whole image is inside the pane. */
export const fitScale = (pane, image) => Math.min(pane.width / image.width, pane.height / image.height);

/** The view that shows the whole image. It stays "fit" while the pane changes size. */
export function fitted(pane, image) {
  return { x: image.width / 2, y: image.height / 2, scale: fitScale(pane, image), fit: true };
}

/** Scale and offset from image to CSS pixels of the pane.
 *  The offset is rounded to device pixels: at 1:1 every image pixel then covers one of the screen's. */
export function placed(view, pane) {
  const snap = (x) => Math.round(x * pane.ratio) / pane.ratio;
  const left = snap(pane.width / 2 - view.x * view.scale);
  const top = snap(pane.height / 2 - view.y * view.scale);
  return { scale: view.scale, left, top, ratio: pane.ratio };
}

export const toScreen = (place, x, y) => ({ x: x * place.scale + place.left, y: y * place.scale + place.top });
export const toImage = (place, x, y) => ({ x: (x - place.left) / place.scale, y: (y - place.top) / place.scale });

/** A box [x0, y0, x1, y1] of the image as a rectangle of the pane. */
export function boxOnScreen(place, [x0, y0, x1, y1]) {
  const from = toScreen(place, x0, y0);
  return { x: from.x, y: from.y, width: (x1 - x0) * place.scale, height: (y1 - y0) * place.scale };
}

/** A scale next to 1:1 is 1:1: no pixel is blurred by an error of rounding. */
const exact = (scale, ratio) => (Math.abs(scale * ratio - 1) < 1e-9 ? 1 / ratio : scale);

const inside = (view, image) => ({ ...view, x: clamp(view.x, 0, image.width), y: clamp(view.y, 0, image.height) });

/** The view after a zoom that leaves the image point under (x, y) of the pane where it is. */
export function zoomedAt(view, pane, image, x, y, factor) {
  const under = toImage(placed(view, pane), x, y);
  const least = Math.min(fitScale(pane, image) * SMALLEST, 1 / pane.ratio);
  const scale = exact(clamp(view.scale * factor, least, LARGEST / pane.ratio), pane.ratio);
  const moved = { scale, fit: false, x: under.x - (x - pane.width / 2) / scale, y: under.y - (y - pane.height / 2) / scale };
  return inside(moved, image);
}

/** One image pixel a device pixel. */
export const oneToOne = (view, pane, image, x = pane.width / 2, y = pane.height / 2) =>
  zoomedAt(view, pane, image, x, y, 1 / pane.ratio / view.scale);

export const panned = (view, image, dx, dy) =>
  inside({ ...view, x: view.x - dx / view.scale, y: view.y - dy / view.scale, fit: false }, image);

/** The view of a second image that moves with the first: the same part of the picture at the same share of its fit. */
export function linked(view, pane, image, otherPane, otherImage) {
  if (image.width === otherImage.width && image.height === otherImage.height && pane.width === otherPane.width && pane.height === otherPane.height) return view;
  return {
    x: (view.x / image.width) * otherImage.width,
    y: (view.y / image.height) * otherImage.height,
    scale: exact((view.scale / fitScale(pane, image)) * fitScale(otherPane, otherImage), otherPane.ratio),
    fit: view.fit,
  };
}

// ------------------------------------------------------------------ boxes
export const area = ([x0, y0, x1, y1]) => Math.max(0, x1 - x0) * Math.max(0, y1 - y0);

/** Intersection over union. */
export function overlap(a, b) {
  const common = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return common ? common / (area(a) + area(b) - common) : 0;
}

/** The box between two points, inside the image. */
export function between(a, b, image) {
  const [x0, x1] = [a.x, b.x].map((x) => clamp(x, 0, image.width)).sort((p, q) => p - q);
  const [y0, y1] = [a.y, b.y].map((y) => clamp(y, 0, image.height)).sort((p, q) => p - q);
  return [x0, y0, x1, y1];
}

/** The box shifted, kept whole and inside the image. */
export function shifted([x0, y0, x1, y1], dx, dy, image) {
  const width = Math.min(x1 - x0, image.width), height = Math.min(y1 - y0, image.height);
  const left = clamp(x0 + dx, 0, image.width - width), top = clamp(y0 + dy, 0, image.height - height);
  return [left, top, left + width, top + height];
}

export const LEAST_SIDE = 2; // image pixels

/** The box with the edges that `grip` names (n, e, s, w and their corners) at the point. */
export function resized(box, grip, point, image) {
  const [x0, y0, x1, y1] = box;
  return [
    grip.includes("w") ? clamp(point.x, 0, x1 - LEAST_SIDE) : x0,
    grip.includes("n") ? clamp(point.y, 0, y1 - LEAST_SIDE) : y0,
    grip.includes("e") ? clamp(point.x, x0 + LEAST_SIDE, image.width) : x1,
    grip.includes("s") ? clamp(point.y, y0 + LEAST_SIDE, image.height) : y1,
  ];
}

export const GRIPS = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** Where the grips of a rectangle of the pane are; a small one has its corners alone. */
export function gripPoints({ x, y, width, height }) {
  const small = Math.min(width, height) < 34;
  const across = { w: x, e: x + width }, down = { n: y, s: y + height };
  return GRIPS.filter((grip) => !small || grip.length === 2).map((grip) => ({
    grip,
    x: across[grip.at(-1)] ?? x + width / 2,
    y: down[grip[0]] ?? y + height / 2,
  }));
}

/** What of a rectangle a point touches: a grip, its border, its inside, or nothing (null).
 *  `near`: reach in CSS pixels. */
export function touched(rect, px, py, near) {
  for (const { grip, x, y } of gripPoints(rect)) if (Math.hypot(px - x, py - y) <= near) return grip;
  const within = (by) => px > rect.x - by && px < rect.x + rect.width + by && py > rect.y - by && py < rect.y + rect.height + by;
  if (!within(near)) return null;
  return within(-near) ? "inside" : "border";
}

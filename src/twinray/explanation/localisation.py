"""How well a classifier's heat map localises the findings that people boxed on the image (weak localisation).

Measures of one map of one class on one image; ``faithfulness_figures`` sums them up.

- Pointing game (Zhang et al. 2016) and energy (Wang et al. 2020), as in ``faithfulness``, over all true boxes of the class together.
- Localised at T (Wang et al., ChestX-ray8, CVPR 2017): whether a box of the map overlaps a true box
  enough. The map is cut at half of its peak, and a box is drawn round each connected piece. One of
  these boxes has an intersection over union with one of the true boxes of at least T.
- IoU: that of the map cut at half of its peak with the true boxes' area, pixel by pixel.
- Empty maps, which point nowhere.

Floors show what these measures are worth without any look at the image. They are the whole image, a
Gaussian in its middle, and the average of where boxes of the class lie on other patients' images.
That average knows that hearts are in the middle and effusions below. A map that does not beat the
last says no more than the class's name.

Maps are (h, w), 0 or more, over the network's input; boxes are xyxy in its pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twinray.explanation.faithfulness import box_floor, gaussian_floor, is_empty
from twinray.geometry import box_iou, to_xywh
from twinray.records import FloatArray

IOUS = (0.1, 0.3, 0.5)
CUT = 0.5
"""Share of the peak at which a map is cut."""
LOCALISATION_MEASURES = (
    "pointing",
    "energy",
    "empty",
    *(f"localised@{iou:g}" for iou in IOUS),
    "iou",
)
LOCALISATION_FLOORS = ("whole", "middle", "elsewhere")
FLOOR_DEFINITIONS = {
    "whole": "floor: the whole image, evenly",
    "middle": "floor: a Gaussian in the middle of the image, its edges at two standard deviations",
    "elsewhere": "floor: where boxes of the class lie on other patients' images, averaged",
}
_Map = npt.NDArray[np.float32]


def measure_map(heat: FloatArray, boxes: FloatArray) -> FloatArray:
    """(measures,) of one map, in the order of ``LOCALISATION_MEASURES``.

    Args:
        heat: (h, w), 0 or more.
        boxes: (n, 4) true boxes of the class; at least one.
    """
    area = union(boxes, (heat.shape[0], heat.shape[1]))
    total, peak = float(heat.sum(dtype=np.float64)), float(heat.max())
    if peak <= 0:
        return np.array([0.0, 0.0, 1.0, *(0.0 for _ in IOUS), 0.0])
    rows, columns = np.nonzero(heat == peak)
    x, y = columns + 0.5, rows + 0.5
    inside = np.zeros(len(x), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        inside |= (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    energy = min(1.0, float((heat.astype(np.float64) * area).sum()) / total)
    cut = heat >= CUT * peak
    best = float(box_iou(to_xywh(pieces(cut)), to_xywh(boxes)).max())
    both = float(np.minimum(cut, area).sum())
    iou = both / (float(cut.sum()) + float(area.sum()) - both)
    return np.array([inside.mean(), energy, is_empty(heat), *(best >= t for t in IOUS), iou])


def union(boxes: FloatArray, image_size: tuple[int, int]) -> FloatArray:
    """(h, w): how much of each pixel lies in one of the boxes, 0..1; where boxes overlap, the larger share."""
    parts = [box_floor(box, image_size) for box in boxes]
    return np.asarray(np.max(parts, axis=0), dtype=np.float64)


def pieces(cut: npt.NDArray[np.bool_]) -> FloatArray:
    """(m, 4) boxes round the connected pieces of a mask (h, w); pixels that touch at a corner are connected."""
    named, _ = ndimage.label(cut, structure=np.ones((3, 3)))
    slices = ndimage.find_objects(named)
    return np.array(
        [[s[1].start, s[0].start, s[1].stop, s[0].stop] for s in slices], dtype=np.float64
    ).reshape(-1, 4)


def whole_floor(image_size: tuple[int, int]) -> _Map:
    """1 everywhere: (h, w)."""
    return np.ones(image_size, dtype=np.float32)


def middle_floor(image_size: tuple[int, int]) -> _Map:
    """A Gaussian in the middle of the image: (h, w)."""
    return gaussian_floor(np.array([0.0, 0.0, image_size[1], image_size[0]]), image_size)


def elsewhere_floor(others: FloatArray, image_size: tuple[int, int]) -> _Map:
    """How many of other patients' boxes cover each pixel, its peak 1: (h, w); even where there is no other box.

    Args:
        others: (n, 4) boxes of the class on images of other patients.
        image_size: (height, width).
    """
    if not len(others):
        return whole_floor(image_size)
    total = np.zeros(image_size, dtype=np.float64)
    for box in others:
        total += box_floor(box, image_size)
    return np.asarray(total / max(float(total.max()), 1e-12), dtype=np.float32)

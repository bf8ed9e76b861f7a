"""Which predicted boxes hit which true boxes: computed once, kept, never recomputed.

Conventions (those of COCO, Lin et al., ECCV 2014, as pycocotools computes them)

- Images stand in the order of their ids: integers by value, then texts in code point order. Equal
  scores are taken in that order, and within one image in the order given. The order in which images
  are handed over therefore does not matter.
- Per image and class only the 100 highest-scored predictions count.
- Predictions of one image and class are taken by falling score. Each takes the free true box of its
  class with the highest intersection over union (IoU), if that reaches the threshold. Of equal
  boxes it takes the last. A true box is taken once: a second prediction on it is a false positive.
- IoU is computed from (x, y, width, height), without the pixel that some codes add to width and height.
- ``"centre"`` in place of a threshold: a prediction hits if its centre lies inside the true box
  (borders included), whatever the IoU. Among several such boxes it takes the one with the highest
  IoU.
- A *repeat* is a prediction that took no true box but overlaps one of its class as a hit must. All
  of these were taken by predictions of higher scores. Average precision counts it as a false
  positive; FROC does so or ignores it (``boxes.FrocRule``).
- A crowd region (``Boxes.crowd``) is no true box. A prediction that takes none and lies in such a
  region of its class, by intersection over the *prediction's* area, is ignored. It is neither hit
  nor false positive. A region ignores any number.
- Under a range of areas, true boxes outside it are as good as absent, but a prediction that takes
  one is ignored. A prediction that takes nothing and whose own area is outside is ignored too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.geometry import box_iou, to_xywh
from twinray.records import Boxes, FloatArray, IntArray

ImageId: TypeAlias = str | int
BoxesByImage: TypeAlias = Mapping[ImageId, Boxes] | Sequence[Boxes]
"""Image id -> boxes; a sequence stands for the ids 0, 1, 2, ..."""

Images: TypeAlias = Literal["all", "with_boxes"]
Areas: TypeAlias = tuple[float, float]
"""Least and greatest area of a box in square pixels, both included."""

EVERY_AREA: Areas = (0.0, float("inf"))
MAX_DETECTIONS = 100
_ALMOST_ONE = (
    1.0 - 1e-10
)  # pycocotools' cap on a threshold, so that IoU 1 is reachable in floating point


@dataclass(frozen=True, slots=True, eq=False)
class FlatBoxes:
    """True and predicted boxes of a set of images in flat arrays, checked.

    Attributes:
        ids: (images,) in evaluation order.
        box_classes: (k,) names that labels index.
        truth_image, truth_label: (true boxes,) position in ``ids``, class id.
        truth_xywh: (true boxes, 4) x, y, width, height in pixels.
        truth_crowd: (true boxes,) whether it is a crowd region.
        truth_area: (true boxes,) square pixels.
        image, label: (predictions,) position in ``ids``, class id.
        xywh: (predictions, 4).
        score: (predictions,) in 0..1.
    """

    ids: tuple[ImageId, ...]
    box_classes: tuple[str, ...]
    truth_image: IntArray
    truth_label: IntArray
    truth_xywh: FloatArray
    truth_crowd: npt.NDArray[np.bool_]
    truth_area: FloatArray
    image: IntArray
    label: IntArray
    xywh: FloatArray
    score: FloatArray

    def truth_counts(self, areas: Areas = EVERY_AREA) -> IntArray:
        """(images, k) int64: true boxes of each class in each image, crowd regions and other areas left out."""
        counts = np.zeros((len(self.ids), len(self.box_classes)), dtype=np.int64)
        counted = ~self.ignored_truth(areas)
        np.add.at(counts, (self.truth_image[counted], self.truth_label[counted]), 1)
        return counts

    def ignored_truth(self, areas: Areas = EVERY_AREA) -> npt.NDArray[np.bool_]:
        """(true boxes,) crowd regions, and boxes whose area is outside the range, its ends included."""
        return self.truth_crowd | (self.truth_area < areas[0]) | (self.truth_area > areas[1])

    def subset(self, keep: npt.NDArray[np.bool_]) -> FlatBoxes:
        """Only the images where ``keep`` (images,) is true, with all their boxes."""
        position = np.cumsum(keep) - 1
        true, predicted = keep[self.truth_image], keep[self.image]
        return FlatBoxes(
            tuple(i for i, kept in zip(self.ids, keep, strict=True) if kept),
            self.box_classes,
            position[self.truth_image[true]],
            self.truth_label[true],
            self.truth_xywh[true],
            self.truth_crowd[true],
            self.truth_area[true],
            position[self.image[predicted]],
            self.label[predicted],
            self.xywh[predicted],
            self.score[predicted],
        )

    def select(self, images: Images) -> FlatBoxes:
        """All images, or those with at least one true box of any class."""
        if images == "all":
            return self
        if images != "with_boxes":
            raise InputError(f"images: expected 'all' or 'with_boxes', got {images!r}")
        return self.subset(self.truth_counts().sum(axis=1) > 0)


@dataclass(frozen=True, slots=True, eq=False)
class BoxMatches:
    """Hits and false positives of a set of images, ready to be accumulated with any weights.

    Attributes:
        n_images: images, with and without boxes.
        thresholds: (t,) IoU thresholds, or ``("centre",)``.
        image, label, score: (d,) of the predictions kept, by class, then falling score, then image.
        hit: (t, d) whether the prediction took a true box.
        repeat: (t, d) whether it took none but overlaps a taken one of its class as a hit must.
        starts: (k + 1,) class c owns predictions ``starts[c]`` to ``starts[c + 1]``.
        truth_counts: (images, k) true boxes.
        ignored: (t, d) whether the prediction is neither hit nor false positive; None where none is.
        rank: (d,) place of the prediction among those of its image and class, by falling score from 0.
        true_box: (t, d) position in the truth of the true box that a hit took; -1 where the prediction is no hit.
    """

    n_images: int
    thresholds: tuple[float | str, ...]
    image: IntArray
    label: IntArray
    score: FloatArray
    hit: npt.NDArray[np.bool_]
    repeat: npt.NDArray[np.bool_]
    starts: IntArray
    truth_counts: IntArray
    ignored: npt.NDArray[np.bool_] | None = None
    rank: IntArray | None = None
    true_box: IntArray | None = None

    def counted(self, row: int, *, ignore_repeats: bool = False) -> npt.NDArray[np.bool_]:
        """(d,) predictions that are a hit or a false positive at the threshold of a row; repeats are false positives or not."""
        counted = (
            np.ones(len(self.score), dtype=bool) if self.ignored is None else ~self.ignored[row]
        )
        return counted & ~self.repeat[row] if ignore_repeats else counted

    @property
    def n_classes(self) -> int:
        """Number of box classes."""
        return int(self.truth_counts.shape[1])

    def row(self, threshold: float | str) -> int:
        """Row of ``hit`` for a threshold.

        Raises:
            KeyError: it was not matched at this threshold.
        """
        for position, value in enumerate(self.thresholds):
            same_number = (
                not isinstance(value, str)
                and not isinstance(threshold, str)
                and abs(value - threshold) < 1e-9
            )
            if value == threshold or same_number:
                return position
        raise KeyError(f"not matched at {threshold}; matched at {self.thresholds}")


def image_order(ids: Sequence[ImageId]) -> list[int]:
    """Positions of ``ids`` in evaluation order: integers by value, then texts."""
    return sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))


def as_mapping(boxes: BoxesByImage) -> Mapping[ImageId, Boxes]:
    """A sequence becomes a mapping from 0, 1, 2, ..."""
    return boxes if isinstance(boxes, Mapping) else dict(enumerate(boxes))


def flatten(
    truth: BoxesByImage, predictions: BoxesByImage, box_classes: Sequence[str]
) -> FlatBoxes:
    """Check true and predicted boxes and lay them out flat.

    Args:
        truth: every image to evaluate on; ``Boxes.empty()`` for an image that has none.
        predictions: boxes with scores; an image without an entry has no prediction.
        box_classes: names that both index.

    Raises:
        InputError: a prediction for an image without truth, a score that is missing, NaN or outside
            0..1, or a coordinate that is not finite. Also a box of negative size (or, if true, of
            no size), or a class id that names no class.
    """
    true, predicted = as_mapping(truth), as_mapping(predictions)
    ids = list(true)
    ids = [ids[i] for i in image_order(ids)]
    position = {image: i for i, image in enumerate(ids)}
    stranger = next((image for image in predicted if image not in position), None)
    if stranger is not None:
        raise InputError(
            f"predictions: image {stranger!r} is not among the {len(ids)} images with truth; "
            "evaluate on the data that was predicted"
        )
    n_classes = len(box_classes)
    for image, boxes in true.items():
        check_boxes(boxes, n_classes, f"true boxes of image {image!r}", scored=False)
    for image, boxes in predicted.items():
        check_boxes(boxes, n_classes, f"predictions of image {image!r}", scored=True)
    truth_image, truth_label, truth_xywh, _ = _stack(ids, true)
    image_index, label, xywh, score = _stack(ids, predicted)
    own = [true[image] for image in ids]
    crowd = [
        np.zeros(len(b), dtype=bool) if b.crowd is None else np.asarray(b.crowd, dtype=bool)
        for b in own
    ]
    area = [
        np.prod(b.xyxy[:, 2:] - b.xyxy[:, :2], axis=1) if b.area is None else b.area for b in own
    ]
    return FlatBoxes(
        tuple(ids),
        tuple(box_classes),
        truth_image,
        truth_label,
        truth_xywh,
        np.concatenate([np.zeros(0, dtype=bool), *crowd]),
        np.concatenate([np.zeros(0), *area]),
        image_index,
        label,
        xywh,
        score,
    )


def check_boxes(boxes: Boxes, n_classes: int, where: str, *, scored: bool) -> None:
    """Refuse boxes that no measure can be taken of.

    Args:
        boxes: boxes of one image.
        n_classes: number of classes.
        where: name of the boxes in the message.
        scored: True of predictions, which need scores and may have no size (a model may clip a box
            to a border). True boxes of no size are refused, since nothing can ever hit them.

    Raises:
        InputError: naming the first bad box, counted from 0.
    """
    finite = np.isfinite(boxes.xyxy).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise InputError(
            f"{where}: expected finite coordinates, box {bad} is {boxes.xyxy[bad].tolist()}; correct or drop it"
        )
    size = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    fits = (size >= 0).all(axis=1) if scored else (size > 0).all(axis=1)
    if not fits.all():
        bad = int(np.argmin(fits))
        wanted = "x2 >= x1 and y2 >= y1" if scored else "x2 > x1 and y2 > y1"
        raise InputError(
            f"{where}: expected {wanted}, box {bad} is {boxes.xyxy[bad].tolist()}; correct or drop it"
        )
    named = (boxes.labels >= 0) & (boxes.labels < n_classes)
    if not named.all():
        bad = int(np.argmin(named))
        raise InputError(
            f"{where}: expected class ids 0 to {n_classes - 1}, box {bad} has {int(boxes.labels[bad])}; "
            "compare the class lists"
        )
    if not scored:
        return
    if boxes.scores is None:
        raise InputError(
            f"{where}: expected a score for each box, found none; hand over predictions, not true boxes"
        )
    inside = (boxes.scores >= 0) & (boxes.scores <= 1)
    if not inside.all():
        bad = int(np.argmin(inside))
        raise InputError(
            f"{where}: expected scores in 0..1, box {bad} has {float(boxes.scores[bad])}; check the model's output"
        )


def _stack(
    ids: Sequence[ImageId], boxes: Mapping[ImageId, Boxes]
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    present = [
        (i, boxes[image]) for i, image in enumerate(ids) if image in boxes and len(boxes[image])
    ]
    if not present:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros((0, 4)), np.zeros(0)
    image = np.repeat([i for i, _ in present], [len(b) for _, b in present]).astype(np.int64)
    label = np.concatenate([b.labels for _, b in present]).astype(np.int64)
    xywh = np.concatenate([to_xywh(b.xyxy) for _, b in present])
    score = np.concatenate([np.zeros(len(b)) if b.scores is None else b.scores for _, b in present])
    return image, label, xywh, score.astype(np.float64)


def _centre_overlap(predicted: FloatArray, true: FloatArray) -> npt.NDArray[np.float64]:
    """IoU where the prediction's centre is inside the true box, -1 elsewhere: (m, 4), (n, 4) -> (m, n)."""
    centre = predicted[:, None, :2] + predicted[:, None, 2:] / 2
    inside = (centre >= true[None, :, :2]) & (centre <= true[None, :, :2] + true[None, :, 2:])
    return np.where(inside.all(axis=2), box_iou(predicted, true), -1.0)


def share_inside(predicted: FloatArray, region: FloatArray) -> npt.NDArray[np.float64]:
    """Share of each prediction's area that lies in each region: (m, 4), (n, 4) xywh -> (m, n) in 0..1."""
    low = np.maximum(predicted[:, None, :2], region[None, :, :2])
    high = np.minimum(
        predicted[:, None, :2] + predicted[:, None, 2:], region[None, :, :2] + region[None, :, 2:]
    )
    common = np.clip(high - low, 0.0, None).prod(axis=2)
    area = predicted[:, 2:].prod(axis=1)[:, None]
    return np.asarray(np.divide(common, area, out=np.zeros_like(common), where=area > 0))


def greedy(
    overlap: FloatArray,
    limits: FloatArray,
    ignored: npt.NDArray[np.bool_] | None = None,
    crowd: npt.NDArray[np.bool_] | None = None,
) -> IntArray:
    """Hand out true boxes to predictions in the order of the rows.

    Args:
        overlap: (m, n) of every prediction, by falling score, with every true box.
        limits: (t,) overlap that a hit must reach.
        ignored: (n,) true boxes that are taken only where no other can be; none if None.
        crowd: (n,) those of the ignored ones that can be taken any number of times; none if None.

    Returns:
        (t, m) int64: the true box taken, -1 for none.
    """
    m, n = overlap.shape
    taken = np.full((len(limits), m), -1, dtype=np.int64)
    if n == 0:
        return taken
    free = np.ones((len(limits), n), dtype=bool)
    rows = np.arange(len(limits))
    kinds = (np.ones(n, dtype=bool),) if ignored is None else (~ignored, ignored)
    for i in np.flatnonzero(overlap.max(axis=1) >= limits.min()):
        open_rows = np.ones(len(limits), dtype=bool)
        for kind in kinds:
            offers = np.where(free & kind, overlap[i], -2.0)
            best = n - 1 - offers[:, ::-1].argmax(axis=1)
            won = open_rows & (offers[rows, best] >= limits)
            taken[won, i] = best[won]
            used = won if crowd is None else won & ~crowd[best]
            free[rows[used], best[used]] = False
            open_rows &= ~won
    return taken


def ranked_by_image(flat: FlatBoxes, max_detections: int = MAX_DETECTIONS) -> IntArray:
    """Predictions that count, by image, then class, then falling score: (kept,) positions in ``flat``."""
    order = np.lexsort((-flat.score, flat.label, flat.image))
    key = flat.image[order] * len(flat.box_classes) + flat.label[order]
    first = np.searchsorted(key, key, side="left")
    return np.asarray(order[np.arange(len(order)) - first < max_detections], dtype=np.int64)


def _pairs(key: IntArray, true_key: IntArray) -> Iterator[tuple[slice, slice]]:
    """Slices of predictions and of true boxes for each (image, class) that has both; both keys sorted."""
    for value in np.intersect1d(key, true_key):
        start, stop = np.searchsorted(key, [value, value + 1])
        true_start, true_stop = np.searchsorted(true_key, [value, value + 1])
        yield slice(start, stop), slice(true_start, true_stop)


def match(
    flat: FlatBoxes,
    thresholds: Sequence[float] | Literal["centre"],
    max_detections: int = MAX_DETECTIONS,
    areas: Areas = EVERY_AREA,
) -> BoxMatches:
    """Match every image and class once, at all thresholds.

    Args:
        flat: checked boxes.
        thresholds: IoU values in 0..1 that a hit must reach, or ``"centre"`` (see the module's conventions).
        max_detections: predictions that count per image and class.
        areas: range of areas of the true boxes that count.

    Raises:
        InputError: a threshold outside 0..1 (0 itself excluded).
    """
    by_centre = isinstance(thresholds, str)
    if isinstance(thresholds, str):
        limits = np.zeros(1)
    else:
        limits = np.minimum(np.asarray(thresholds, dtype=np.float64), _ALMOST_ONE)
        if not all(0 < t <= 1 for t in thresholds):
            raise InputError(
                f"IoU threshold: expected values above 0 and up to 1, got {list(thresholds)}"
            )
    n_classes = len(flat.box_classes)
    kept = ranked_by_image(flat, max_detections)
    image, label, xywh = flat.image[kept], flat.label[kept], flat.xywh[kept]
    true_key = flat.truth_image * n_classes + flat.truth_label
    true_order = np.argsort(true_key, kind="stable")
    true_xywh, crowd = flat.truth_xywh[true_order], flat.truth_crowd[true_order]
    left_out = flat.ignored_truth(areas)[true_order]
    special = bool(left_out.any()) or areas != EVERY_AREA
    true_box = np.full((len(limits), len(kept)), -1, dtype=np.int64)
    hit = np.zeros((len(limits), len(kept)), dtype=bool)
    near = np.zeros_like(hit)
    ignored = np.zeros_like(hit)
    key = image * n_classes + label
    for predicted, true in _pairs(key, true_key[true_order]):
        overlap = (_centre_overlap if by_centre else box_iou)(xywh[predicted], true_xywh[true])
        if not special:
            taken = greedy(overlap, limits)
            hit[:, predicted] = taken >= 0
            true_box[:, predicted] = np.where(taken >= 0, true_order[true][taken], -1)
            near[:, predicted] = overlap.max(axis=1) >= limits[:, None]
            continue
        within = (
            np.where(overlap >= 0, 1.0, -1.0)
            if by_centre
            else share_inside(xywh[predicted], true_xywh[true])
        )
        overlap = np.where(crowd[true], within, overlap)
        taken = greedy(overlap, limits, left_out[true], crowd[true])
        hit[:, predicted] = (taken >= 0) & ~left_out[true][taken]
        true_box[:, predicted] = np.where(hit[:, predicted], true_order[true][taken], -1)
        ignored[:, predicted] = (taken >= 0) & left_out[true][taken]
        counting = np.where(left_out[true], -2.0, overlap)
        near[:, predicted] = counting.max(axis=1) >= limits[:, None]
    if areas != EVERY_AREA:
        own = xywh[:, 2] * xywh[:, 3]
        ignored |= ~hit & ((own < areas[0]) | (own > areas[1]))
    rank = np.arange(len(kept)) - np.searchsorted(key, key, side="left")
    order = np.lexsort((image, -flat.score[kept], label))
    return BoxMatches(
        n_images=len(flat.ids),
        thresholds=("centre",)
        if isinstance(thresholds, str)
        else tuple(float(t) for t in thresholds),
        image=image[order],
        label=label[order],
        score=flat.score[kept][order],
        hit=hit[:, order],
        repeat=(near & ~hit & ~ignored)[:, order],
        starts=np.searchsorted(label[order], np.arange(n_classes + 1)),
        truth_counts=flat.truth_counts(areas),
        ignored=ignored[:, order] if special else None,
        rank=rank[order],
        true_box=true_box[:, order],
    )

"""How well predicted boxes agree with true ones: mAP, FROC, their intervals, and two runs compared.

Conventions

- mAP is the mean over classes of COCO's average precision, classes without any true box left out.
  The IoU is 0.5 (``map50``), 0.75 (``map75``), 0.4 (``map40``, VinBigData's rule), or the figure is
  averaged over 0.5, 0.55, ..., 0.95 (``map``).
- ``map_small``, ``map_medium``, ``map_large``: ``map`` of true boxes by area. Small is up to 32 x
  32 pixels of the original image, medium up to 96 x 96, large above. The limits are COCO's
  (``sizes``: others). Predictions on boxes of other sizes are ignored.
- ``ar1``, ``ar10``, ``ar100``: COCO's average recall. It is the share of true boxes that the first
  1, 10 or 100 predictions of each image and class find. The mean is over IoU 0.5, ..., 0.95 and
  classes. ``ar_small``, ... are by size, with 100 predictions.
- FROC: a hit is a prediction of the right class with IoU >= 0.5 (:class:`FrocRule`: another IoU, or
  its centre inside the true box). A further prediction on a found box is a false positive or is
  ignored (:class:`FrocRule`). The first is the count of nnDetection, the second that
  of LUNA16, CAMELYON16, MONAI and picai_eval by default. ``froc@r`` is the sensitivity over all true boxes of all classes
  at r false positives per image. All classes together have one score threshold. ``froc`` is the
  mean over r = 1/8, 1/4, 1/2, 1, 2, 4, 8. Per class, only that class's boxes are counted.
- Each figure is given over all images and over images with at least one true box of any class.
  Normal images can only add false positives, so mAP is never lower over the second. Papers that
  leave normal images out report it. False positives per image are counted per image of the set in
  question.
- Patients are resampled. In a resample where a class has no true box, the mean is that of the other classes.

``matching`` defines what a hit is and how ties are taken, ``accumulate`` how curves are read.
``intervals`` defines how patients are resampled, ``levels`` how intervals are made of it and what
they are intervals of.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.accumulate import (
    FROC_RATES,
    RECALL_DETECTIONS,
    FrocRows,
    HitRows,
    Weights,
    average_precision,
    average_recall,
    froc,
    froc_rows,
    hit_rows,
    mean_over_classes,
)
from twinray.evaluation.coco_engine import COCO_IOUS, IOUS, coco_average_precision, coco_tables
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Difference,
    Resampling,
    bootstrap_groups,
    differences_record,
    group_index,
)
from twinray.evaluation.levels import BoxSupport, difference, lacking_over_folds, level, variance
from twinray.evaluation.levels import Key as Key
from twinray.evaluation.matching import (
    EVERY_AREA,
    Areas,
    BoxesByImage,
    FlatBoxes,
    Images,
    flatten,
    match,
)
from twinray.evaluation.multiplicity import comparisons, over_classes, tests_record
from twinray.evaluation.record import ClassFigures, SplitFigures, figure_of, split_as_json
from twinray.records import FloatArray, IntArray, Interval

FrocHit: TypeAlias = float | Literal["centre"]
Repeats: TypeAlias = Literal["false-positive", "ignore"]


@dataclass(frozen=True, slots=True)
class FrocRule:
    """How FROC counts.

    Attributes:
        hit: IoU that a hit must reach, above 0 and up to 1, or ``"centre"``. With ``"centre"``, the
            centre of the prediction must lie in the true box.
        repeats: role of a further prediction on a found box. It is a ``false-positive``
            (nnDetection; picai_eval where asked to), or nothing with ``ignore``. LUNA16 (Setio et al. 2017),
            CAMELYON16 (Ehteshami Bejnordi et al. 2017), MONAI and picai_eval by default ignore it.

    Raises:
        InputError: another value.
    """

    hit: FrocHit = 0.5
    repeats: Repeats = "false-positive"

    def __post_init__(self) -> None:
        if self.hit != "centre" and not (isinstance(self.hit, int | float) and 0 < self.hit <= 1):
            raise InputError(
                f"FROC: expected a hit of IoU above 0 and up to 1, or centre, got {self.hit!r}"
            )
        if self.repeats not in ("false-positive", "ignore"):
            raise InputError(
                f"FROC: expected repeats false-positive or ignore, got {self.repeats!r}"
            )

    def told(self) -> str:
        """The rule in words."""
        hit = (
            "the centre of the box lies in a true box"
            if self.hit == "centre"
            else f"IoU is {self.hit:g} or more"
        )
        repeats = "are ignored" if self.repeats == "ignore" else "are false positives"
        return f"a box hits where {hit}; further boxes on a found one {repeats}"


FROC_RULE = FrocRule()
GroupsByImage: TypeAlias = Mapping[Hashable, object] | Sequence[object] | npt.NDArray[np.generic]
"""Patient of each image (None where unknown): by image id, or in the order of the truth."""

Figures: TypeAlias = dict[Key, FloatArray]

Sizes: TypeAlias = Mapping[str, Areas]

COCO_SIZES: Sizes = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, float("inf")),
}
"""Ranges of areas in square pixels of the original image, both ends included as COCO has them."""


@dataclass(frozen=True, slots=True)
class BoxRules:
    """What counts, beside the matching that COCO fixes.

    Attributes:
        froc: rule by which FROC counts.
        sizes: ranges of areas by name (see ``sizes_between``).
    """

    froc: FrocRule = FROC_RULE
    sizes: Sizes = field(default_factory=lambda: COCO_SIZES)


BOX_RULES = BoxRules()

_RECALLS = tuple(f"ar{most}" for most in RECALL_DETECTIONS)
MEANS = {"map50": "ap50", "map75": "ap75", "map40": "ap40", "map": "ap"} | {
    name: name for name in _RECALLS
}
MEANS |= {f"map_{size}": f"ap_{size}" for size in COCO_SIZES} | {
    f"ar_{size}": f"ar_{size}" for size in COCO_SIZES
}
"""Measure over all classes -> the measure by class that it is the mean of."""


def sizes_between(limits: Sequence[float]) -> Sizes:
    """Small, medium and large from the two sides (pixels) of squares that part them.

    Raises:
        InputError: not two rising numbers above 0.
    """
    if len(limits) != 2 or not 0 < limits[0] < limits[1] < float("inf"):
        raise InputError(
            f"sizes of boxes: expected two rising sides in pixels such as 32 96, got {list(limits)}"
        )
    small, large = (float(side) ** 2 for side in limits)
    return {"small": (0.0, small), "medium": (small, large), "large": (large, float("inf"))}


@dataclass(frozen=True, slots=True, eq=False)
class BoxFigures:
    """All measures over one set of images.

    Attributes:
        n_images: images evaluated.
        n_boxes: true boxes by class.
        metrics: ``map50``, ``map40``, ``map75``, ``map``, those by size, ``ar1``, ``ar10``, ``ar100``, ``froc``, ``froc@0.125`` ...
            ``froc@8``.
        per_class: same figures by class name, ``ap`` for ``map``.
    """

    n_images: int
    n_boxes: Mapping[str, int]
    metrics: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]

    def record(self) -> SplitFigures:
        """What is kept and shown."""
        return SplitFigures(
            {name: figure_of(interval) for name, interval in self.metrics.items()},
            {
                name: ClassFigures(
                    {m: figure_of(i) for m, i in figures.items()}, {"n_boxes": self.n_boxes[name]}
                )
                for name, figures in self.per_class.items()
            },
            {"n_images": self.n_images, "n_boxes": sum(self.n_boxes.values())},
        )


@dataclass(frozen=True, slots=True, eq=False)
class BoxReport:
    """Measures over all images and over those with at least one true box (None if there is none)."""

    all_images: BoxFigures
    with_boxes: BoxFigures | None

    def record(self) -> SplitFigures:
        """What is kept and shown: over all images, and those over images with boxes inside."""
        some = None if self.with_boxes is None else self.with_boxes.record()
        return replace(self.all_images.record(), with_boxes=some)

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


@dataclass(frozen=True, slots=True, eq=False)
class BoxComparison:
    """Candidate minus baseline on the same images: overall measures, and by class name."""

    n_images: int
    metrics: Mapping[str, Difference]
    per_class: Mapping[str, Mapping[str, Difference]]

    def record(self) -> SplitFigures:
        """What is kept and shown."""
        tests = tests_record(comparisons(self.per_class))
        return replace(
            differences_record(self.metrics, self.per_class, self.n_images), details=tests
        )

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


def class_average_precision(
    truth: BoxesByImage,
    predictions: BoxesByImage,
    box_classes: Sequence[str],
    ious: tuple[float, ...] = IOUS,
    images: Images = "all",
) -> FloatArray:
    """Average precision of every class, without intervals.

    Args:
        truth: image id -> true boxes, for every image to evaluate on; a sequence stands for ids 0, 1, ...
        predictions: image id -> boxes with scores; an image without an entry has no prediction.
        box_classes: names that labels index.
        ious: (t,) thresholds that a hit must reach, above 0 and up to 1.
        images: ``all``, or ``with_boxes``: those with at least one true box of any class.

    Returns:
        (t, k) in 0..1; NaN for a class without any true box.

    Raises:
        InputError: see ``matching.flatten``.
    """
    return coco_average_precision(flatten(truth, predictions, box_classes).select(images), ious)


def mean_average_precision(
    truth: BoxesByImage,
    predictions: BoxesByImage,
    box_classes: Sequence[str],
    ious: tuple[float, ...] = (0.5,),
    images: Images = "all",
) -> float:
    """Mean of ``class_average_precision`` over thresholds and classes with true boxes; NaN if there are none."""
    table = class_average_precision(truth, predictions, box_classes, ious, images)
    return float(mean_over_classes(table.mean(axis=0)[:, None])[0])


def evaluate_boxes(
    truth: BoxesByImage,
    predictions: BoxesByImage,
    box_classes: Sequence[str],
    groups: GroupsByImage | None = None,
    *,
    resampling: Resampling = PLAIN_RESAMPLING,
    rules: BoxRules = BOX_RULES,
) -> BoxReport:
    """Every measure with its 95 % interval, over all images and over images with boxes.

    Args:
        truth: image id -> true boxes, for every image to evaluate on; a sequence stands for ids 0, 1, ...
        predictions: image id -> boxes with scores in 0..1; an image without an entry has no prediction.
        box_classes: names that labels index.
        groups: patient of each image; None, or None for an image, where it is unknown.
        resampling: number of resamples of patients and their seed.
        rules: rule of FROC and ranges of areas.

    Raises:
        InputError: no image at all, or boxes that ``matching.flatten`` refuses.
    """
    flat = flatten(truth, predictions, box_classes)
    if not flat.ids:
        raise InputError(
            "evaluation of boxes: expected at least one image with truth, found none; check the split"
        )
    index = _group_by_position(groups, truth, flat)
    keep = flat.truth_counts().sum(axis=1) > 0
    everything = _figures(flat, index, resampling, rules)
    if not keep.any():
        return BoxReport(everything, None)
    if keep.all():
        return BoxReport(everything, everything)
    return BoxReport(
        everything,
        _figures(flat.subset(keep), _renumbered(index[keep]), resampling, rules),
    )


def compare_boxes(
    truth: BoxesByImage,
    baseline: BoxesByImage,
    candidate: BoxesByImage,
    box_classes: Sequence[str],
    groups: GroupsByImage | None = None,
    *,
    images: Images = "all",
    resampling: Resampling = PLAIN_RESAMPLING,
    rules: BoxRules = BOX_RULES,
) -> BoxComparison:
    """Candidate minus baseline with paired 95 % intervals: both are measured on the same resamples.

    Of each measure, p over the classes is corrected by Holm's method (``multiplicity``); intervals are not.

    Args:
        truth: argument as in ``evaluate_boxes``.
        baseline: predictions of the first run.
        candidate: predictions of the second run, on the same images.
        box_classes: names that labels of all three index.
        groups: argument as in ``evaluate_boxes``.
        images: ``all`` or ``with_boxes``.
        resampling: number of resamples of patients and their seed.
        rules: rule of FROC and ranges of areas.

    Raises:
        InputError: as ``evaluate_boxes``.
    """
    first, second = flatten(truth, baseline, box_classes), flatten(truth, candidate, box_classes)
    keep = (
        np.ones(len(first.ids), dtype=bool)
        if images == "all"
        else first.truth_counts().sum(axis=1) > 0
    )
    index = _renumbered(_group_by_position(groups, truth, first)[keep])
    first, second = first.select(images), second.select(images)
    if not first.ids:
        raise InputError(
            f"comparison of boxes: expected at least one image ({images}), found none; check the split"
        )
    caches = (
        BoxCache(first, index, rules.froc, rules.sizes),
        BoxCache(second, index, rules.froc, rules.sizes),
    )
    values = plain_figures(first, caches[0]), plain_figures(second, caches[1])
    samples = _resampled(caches, index, resampling)
    apart = {key: samples[1][key] - samples[0][key] for key in values[0]}
    supports = box_supports(first, index, rules.sizes)
    lacks = lacking_by_size([apart], [supports])
    differences = {
        key: difference(
            key,
            float(values[1][key][0] - values[0][key][0]),
            apart[key],
            lacks[key],
            supports[size_of(key[1])],
        )
        for key in values[0]
    }
    per_class = {
        class_name: {name: value for (label, name), value in differences.items() if label == i}
        for i, class_name in enumerate(first.box_classes)
    }
    return BoxComparison(
        len(first.ids),
        {name: value for (label, name), value in differences.items() if label is None},
        over_classes(per_class),
    )


def _group_by_position(
    groups: GroupsByImage | None, truth: BoxesByImage, flat: FlatBoxes
) -> IntArray:
    """Group number of each image in evaluation order; a sequence of groups is in the truth's own order."""
    ids = list(truth) if isinstance(truth, Mapping) else list(range(len(truth)))
    by_image = dict(zip(ids, group_index(groups, ids).tolist(), strict=True))
    return np.array([by_image[image] for image in flat.ids], dtype=np.int64)


def _renumbered(groups: IntArray) -> IntArray:
    """Without gaps, in the same order."""
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64)


def size_of(measure: str) -> str:
    """The size that a measure looks at; empty for all."""
    size = measure.rpartition("_")[2]
    return size if size in COCO_SIZES and measure != size else ""


def box_supports(
    flat: FlatBoxes, groups: IntArray, sizes: Sizes = COCO_SIZES
) -> dict[str, BoxSupport]:
    """What the figures rest on, by size; all sizes under the empty name."""
    return {
        size: BoxSupport.of(flat.truth_counts(areas), groups)
        for size, areas in {"": EVERY_AREA, **sizes}.items()
    }


def lacking_by_size(
    folds: Sequence[Mapping[Key, FloatArray]], supports: Sequence[Mapping[str, BoxSupport]]
) -> dict[Key, float]:
    """``levels.lacking_over_folds`` of all measures; one fold is one set of images."""
    found: dict[Key, float] = {}
    for size in supports[0]:
        own = [
            {key: values for key, values in fold.items() if size_of(key[1]) == size}
            for fold in folds
        ]
        found |= lacking_over_folds(own, [of_fold[size] for of_fold in supports], MEANS)
    return found


class BoxCache:
    """The matches of one run, boiled down for resampling.

    Args:
        flat: checked boxes.
        groups: (images,) group numbers from 0 without gaps, in the order of ``flat.ids``.
        froc_rule: rule by which FROC counts.
        sizes: ranges of areas by name.
    """

    def __init__(
        self, flat: FlatBoxes, groups: IntArray, froc_rule: FrocRule, sizes: Sizes = COCO_SIZES
    ) -> None:
        self.n_groups = int(groups.max()) + 1
        self.sizes = sizes
        matches = match(flat, IOUS)
        classes = range(matches.n_classes)
        self.hits: list[HitRows] = [hit_rows(matches, label, groups) for label in classes]
        self.sized: dict[str, list[HitRows | None]] = {
            size: self._sized(flat, groups, sizes[size]) for size in sizes
        }
        if froc_rule.hit not in IOUS:
            matches = match(
                flat, froc_rule.hit if isinstance(froc_rule.hit, str) else (froc_rule.hit,)
            )
        ignore = froc_rule.repeats == "ignore"
        rows = [
            froc_rows(matches, froc_rule.hit, groups, one, ignore_repeats=ignore)
            for one in (None, *classes)
        ]
        self.pooled: FrocRows = rows[0]
        self.froc: list[FrocRows] = rows[1:]

    def _sized(self, flat: FlatBoxes, groups: IntArray, areas: Areas) -> list[HitRows | None]:
        """By class; None where it has no box of the size. Where all boxes are of one size, nothing is matched again."""
        counts = flat.truth_counts(areas).sum(axis=0)
        if not counts.any():
            return [None] * len(counts)
        matches = match(flat, COCO_IOUS, areas=areas)
        return [
            hit_rows(matches, label, groups) if n else None
            for label, n in enumerate(counts.tolist())
        ]

    def figures(self, weights: FloatArray) -> Figures:
        """Every measure for (groups, r) multiplicities: each (r,)."""
        whole = weights.astype(np.int32)  # running sums of integers are faster (``accumulate``)
        table = np.stack([average_precision(rows, whole) for rows in self.hits], axis=1)  # t, k, r
        recalls = {
            most: np.stack(
                [average_recall(rows, weights, most)[1:].mean(axis=0) for rows in self.hits]
            )
            for most in RECALL_DETECTIONS
        }
        nothing = np.full(weights.shape[1], np.nan)
        most = RECALL_DETECTIONS[-1]
        sized = {
            size: (
                np.stack(
                    [
                        nothing if r is None else average_precision(r, whole).mean(axis=0)
                        for r in rows
                    ]
                ),
                np.stack(
                    [
                        nothing if r is None else average_recall(r, weights, most).mean(axis=0)
                        for r in rows
                    ]
                ),
            )
            for size, rows in self.sized.items()
        }
        return {
            **_map_figures(table),
            **_recall_and_size_figures(recalls, sized),
            **_froc_figures(self, whole),
        }


def _map_figures(table: FloatArray) -> Figures:
    """(t, k, r) average precisions at ``IOUS`` -> AP by class and mAP."""
    by_iou = {
        "50": table[IOUS.index(0.5)],
        "40": table[IOUS.index(0.4)],
        "75": table[IOUS.index(0.75)],
        "": table[[IOUS.index(t) for t in COCO_IOUS]].mean(axis=0),
    }
    figures: Figures = {
        (None, f"map{name}"): mean_over_classes(own) for name, own in by_iou.items()
    }
    for label in range(table.shape[1]):
        figures.update({(label, f"ap{name}"): own[label] for name, own in by_iou.items()})
    return figures


def _recall_and_size_figures(
    recalls: Mapping[int, FloatArray], sized: Mapping[str, tuple[FloatArray, FloatArray]]
) -> Figures:
    """Recalls by number of predictions, and average precision and recall by size, each (k, r)."""
    by_class = {f"ar{most}": own for most, own in recalls.items()}
    by_class |= {f"ap_{size}": own for size, (own, _) in sized.items()}
    by_class |= {f"ar_{size}": own for size, (_, own) in sized.items()}
    figures: Figures = {}
    for overall, name in MEANS.items():
        if name in by_class:
            figures[None, overall] = mean_over_classes(by_class[name])
    for name, own in by_class.items():
        figures.update({(label, name): values for label, values in enumerate(own)})
    return figures


def _froc_figures(cache: BoxCache, weights: Weights) -> Figures:
    figures: Figures = {}
    everything: Iterable[tuple[int | None, FrocRows]] = [
        (None, cache.pooled),
        *enumerate(cache.froc),
    ]
    for label, rows in everything:
        sensitivity = froc(rows, weights)
        figures[label, "froc"] = sensitivity.mean(axis=0)
        figures.update(
            {(label, f"froc@{rate:g}"): sensitivity[i] for i, rate in enumerate(FROC_RATES)}
        )
    return figures


def plain_figures(flat: FlatBoxes, cache: BoxCache) -> Figures:
    """Every measure of the plain data, average precision and recall by the engine: (class id or None, measure) -> (1,)."""
    tables = coco_tables(flat, IOUS, (EVERY_AREA, *cache.sizes.values()))
    precision, recall = (
        tables.precision[1:].mean(axis=0),
        tables.recall[1:].mean(axis=0),
    )  # over COCO's ten IoUs
    recalls = {most: recall[:, :1, i] for i, most in enumerate(RECALL_DETECTIONS)}
    sized = {
        size: (precision[:, i : i + 1], recall[:, i : i + 1, -1])
        for i, size in enumerate(cache.sizes, start=1)
    }
    return {
        **_map_figures(tables.precision[:, :, :1]),
        **_recall_and_size_figures(recalls, sized),
        **_froc_figures(cache, np.ones((cache.n_groups, 1))),
    }


def _resampled(
    caches: Sequence[BoxCache], groups: IntArray, resampling: Resampling
) -> list[Figures]:
    """Every measure of every run on the same resamples: each (resamples,)."""
    keys = caches[0].figures(np.ones((caches[0].n_groups, 1)))
    pieces: list[list[Figures]] = [[] for _ in caches]
    for weights in bootstrap_groups(groups, resampling.n, resampling.seed):
        for piece, cache in zip(pieces, caches, strict=True):
            piece.append(cache.figures(weights))
    return [
        {key: np.concatenate([np.zeros(0), *(p[key] for p in piece)]) for key in keys}
        for piece in pieces
    ]


def _figures(
    flat: FlatBoxes, groups: IntArray, resampling: Resampling, rules: BoxRules
) -> BoxFigures:
    cache = BoxCache(flat, groups, rules.froc, rules.sizes)
    values = plain_figures(flat, cache)
    (samples,) = _resampled([cache], groups, resampling)
    supports = box_supports(flat, groups, rules.sizes)
    lacks = lacking_by_size([samples], [supports])
    intervals = {
        key: level(
            key,
            float(values[key][0]),
            variance(samples[key]) + lacks[key],
            supports[size_of(key[1])],
        )
        for key in values
    }
    counts = flat.truth_counts().sum(axis=0).tolist()
    return BoxFigures(
        len(flat.ids),
        dict(zip(flat.box_classes, counts, strict=True)),
        {name: interval for (label, name), interval in intervals.items() if label is None},
        {
            class_name: {
                name: interval for (label, name), interval in intervals.items() if label == i
            }
            for i, class_name in enumerate(flat.box_classes)
        },
    )

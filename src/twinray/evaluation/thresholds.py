"""Score thresholds, one a class, chosen on validation for a wanted number of false positives per image.

Conventions

- A prediction is shown if ``score >= threshold``; all predictions of one score are shown together.
- A hit is a prediction of the right class with IoU >= 0.5 (``matching``); what is no hit is a false positive. They are
  counted over all images, those without true boxes included.
- The wanted number is a total over all classes. On n images it is a budget of floor(wanted * n)
  false positives, shared out evenly over the classes. The shares are max-min fair: what a class has
  no use for goes to the others. One left over goes to the class with the most false positives. So
  the total never exceeds what was wanted, and no class takes the share of another by having larger
  scores.
- The threshold of a class is the lowest of its validation scores that keeps it within its share. It
  is the number just above its highest score where not even that one does.
- A class gets a fallback, with the reason beside it, where validation cannot decide. With fewer
  than ``MIN_IMAGES`` images or no predicted box of the class it is ``FALLBACK_SCORE``. With no true
  box of the class it is the higher of its own threshold, which false positives alone give, and
  ``FALLBACK_SCORE``.

The sensitivities beside the thresholds were measured on the images that chose them: they are a little too good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.accumulate import FROC_RATES
from twinray.evaluation.matching import BoxesByImage, BoxMatches, flatten, match
from twinray.records import FloatArray, IntArray

DEFAULT_FP_PER_IMAGE = 0.25
OPERATING_POINTS = FROC_RATES
"""Wanted totals that are worked out at once: those at which FROC reads its sensitivities."""

FALLBACK_SCORE = 0.3
MIN_IMAGES = 20
MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class ClassThreshold:
    """One class at one operating point.

    Attributes:
        threshold: score that a shown box reaches at least.
        n_boxes: true boxes on validation.
        sensitivity: share of them found, 0..1; None without any.
        fp_per_image: false positives of this class per image at the threshold; None without images.
        fallback: why the threshold is not the class's own; empty where it is.
    """

    threshold: float
    n_boxes: int
    sensitivity: float | None
    fp_per_image: float | None
    fallback: str = ""

    def as_json(self) -> dict[str, object]:
        """Plain values; ``fallback`` is null where the threshold is the class's own."""
        return {
            "threshold": self.threshold,
            "sensitivity": self.sensitivity,
            "fp_per_image": self.fp_per_image,
            "n_boxes": self.n_boxes,
            "fallback": self.fallback or None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """Thresholds for one wanted number of false positives per image.

    Attributes:
        fp_per_image: wanted, in total over the classes.
        measured: false positives per image at the thresholds; None without images.
        sensitivity: share of all true boxes found at them; None without any.
        per_class: results by class name, in the order of the classes.
    """

    fp_per_image: float
    measured: float | None
    sensitivity: float | None
    per_class: Mapping[str, ClassThreshold]

    def thresholds(self) -> npt.NDArray[np.float64]:
        """(k,) thresholds by class id."""
        return np.array([one.threshold for one in self.per_class.values()], dtype=np.float64)

    def as_json(self) -> dict[str, object]:
        """``{"fp_per_image", "fp_per_image_measured", "sensitivity", "per_class": {name: {...}}}``."""
        return {
            "fp_per_image": self.fp_per_image,
            "fp_per_image_measured": self.measured,
            "sensitivity": self.sensitivity,
            "per_class": {name: one.as_json() for name, one in self.per_class.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """Operating points of one detector, by rising number of false positives; one of them the default."""

    default: float
    points: tuple[OperatingPoint, ...]
    n_images: int

    def has(self, fp_per_image: float) -> bool:
        """Whether the thresholds for so many false positives per image were worked out."""
        return any(
            math.isclose(point.fp_per_image, fp_per_image, rel_tol=1e-9) for point in self.points
        )

    def at(self, fp_per_image: float | None) -> OperatingPoint:
        """The operating point for a wanted number of false positives per image; the default for None.

        Raises:
            InputError: it was not worked out; the message lists those that were.
        """
        wanted = self.default if fp_per_image is None else fp_per_image
        for point in self.points:
            if math.isclose(point.fp_per_image, wanted, rel_tol=1e-9):
                return point
        stored = ", ".join(f"{point.fp_per_image:g}" for point in self.points)
        raise InputError(
            f"expected --fp-per-image to be one of those stored with the model ({stored}), got {wanted:g}"
        )

    def as_json(self) -> dict[str, object]:
        """The default operating point, how it was chosen, and under ``operating_points`` all of them."""
        return {
            "chosen_on": "val",
            "iou": MATCH_IOU,
            "n_images": self.n_images,
            **self.at(None).as_json(),
            "operating_points": [point.as_json() for point in self.points],
        }


def choose_thresholds(
    truth: BoxesByImage,
    predictions: BoxesByImage,
    box_classes: Sequence[str],
    *,
    default: float = DEFAULT_FP_PER_IMAGE,
    rates: Sequence[float] = OPERATING_POINTS,
) -> Thresholds:
    """Thresholds for several numbers of false positives per image, from predictions on validation images.

    Args:
        truth: image id -> true boxes, for every validation image; a sequence stands for ids 0, 1, ...
        predictions: image id -> boxes with scores; an image without an entry has no prediction.
        box_classes: names that labels index.
        default: wanted false positives per image, in total over the classes, where users name none.
        rates: further numbers to work out.

    Raises:
        InputError: a number of false positives that is not finite and above 0; or see ``matching.flatten``.
    """
    wanted = sorted({float(rate) for rate in (*rates, default)})
    bad = [rate for rate in wanted if not (math.isfinite(rate) and rate > 0)]
    if bad:
        raise InputError(
            f"false positives per image: expected finite numbers above 0, got {bad[0]}"
        )
    matches = match(flatten(truth, predictions, box_classes), (MATCH_IOU,))
    steps = [_steps(matches, label) for label in range(len(box_classes))]
    points = tuple(_point(rate, matches, steps, box_classes) for rate in wanted)
    return Thresholds(float(default), points, matches.n_images)


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """One class: its different scores, falling, with hits and false positives at or above each."""

    score: FloatArray
    hits: IntArray
    false: IntArray


def _steps(matches: BoxMatches, label: int) -> _Steps:
    own = slice(int(matches.starts[label]), int(matches.starts[label + 1]))
    counted = matches.counted(matches.row(MATCH_IOU))[own]
    score, hit = matches.score[own][counted], matches.hit[matches.row(MATCH_IOU), own][counted]
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # the last prediction of each score
    return _Steps(
        score[last], np.cumsum(hit, dtype=np.int64)[last], np.cumsum(~hit, dtype=np.int64)[last]
    )


def _shares(budget: int, available: Sequence[int]) -> list[int]:
    """Share ``budget`` out evenly; nobody gets more than is ``available`` to it."""
    shares = [0] * len(available)
    order = sorted(range(len(available)), key=lambda i: (available[i], i))
    for position, i in enumerate(order):
        shares[i] = min(available[i], budget // (len(order) - position))
        budget -= shares[i]
    return shares


def _point(
    rate: float, matches: BoxMatches, steps: Sequence[_Steps], box_classes: Sequence[str]
) -> OperatingPoint:
    n_images, n_boxes = matches.n_images, matches.truth_counts.sum(axis=0)
    budget = math.floor(rate * n_images * (1 + 1e-12))  # 0.1 * 30 must give 3
    shares = _shares(budget, [int(s.false[-1]) if len(s.false) else 0 for s in steps])
    per_class: dict[str, ClassThreshold] = {}
    hits = false = 0
    for name, own, share, n in zip(box_classes, steps, shares, n_boxes.tolist(), strict=True):
        threshold, why = _threshold(own, share, n, n_images)
        shown = np.count_nonzero(own.score >= threshold)
        found, wrong = (int(own.hits[shown - 1]), int(own.false[shown - 1])) if shown else (0, 0)
        per_class[name] = ClassThreshold(
            threshold, n, _ratio(found, n), _ratio(wrong, n_images), why
        )
        hits, false = hits + found, false + wrong
    return OperatingPoint(
        rate, _ratio(false, n_images), _ratio(hits, int(n_boxes.sum())), per_class
    )


def _threshold(own: _Steps, share: int, n_boxes: int, n_images: int) -> tuple[float, str]:
    """The threshold of a class and, if it is a fallback, why."""
    if n_images < MIN_IMAGES:
        return FALLBACK_SCORE, f"{n_images} validation images, fewer than {MIN_IMAGES}"
    if len(own.score) == 0:
        return FALLBACK_SCORE, "no predicted box of this class on validation"
    within = int(np.count_nonzero(own.false <= share))  # false positives never fall
    threshold = (
        float(own.score[within - 1]) if within else float(np.nextafter(own.score[0], np.inf))
    )
    if n_boxes == 0:
        return max(threshold, FALLBACK_SCORE), "no true box of this class on validation"
    return threshold, ""


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def thresholds_from_json(raw: Any, box_classes: Sequence[str], where: str) -> Thresholds:
    """What ``Thresholds.as_json`` wrote.

    Args:
        raw: value as read from JSON.
        box_classes: names that the model's labels index.
        where: the file, for messages.

    Raises:
        InputError: it is something else, or of other classes.
    """
    try:
        points = tuple(_point_from_json(one) for one in raw["operating_points"])
        read = Thresholds(float(raw["fp_per_image"]), points, int(raw["n_images"]))
        read.at(None)
    except (InputError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{where}: the thresholds cannot be read ({type(error).__name__}: {error}); restore the file, "
            "or take them out and give --score-threshold"
        ) from error
    for point in read.points:
        if tuple(point.per_class) != tuple(box_classes):
            raise InputError(
                f"{where}: the thresholds are for {list(point.per_class)}, the model's classes are {list(box_classes)}; "
                "restore the file"
            )
    return read


def _point_from_json(raw: Any) -> OperatingPoint:
    per_class = {
        str(name): ClassThreshold(
            float(one["threshold"]),
            int(one["n_boxes"]),
            one["sensitivity"],
            one["fp_per_image"],
            str(one["fallback"] or ""),
        )
        for name, one in raw["per_class"].items()
    }
    if not all(math.isfinite(one.threshold) for one in per_class.values()):
        raise ValueError("a threshold is not a finite number")
    return OperatingPoint(
        float(raw["fp_per_image"]), raw["fp_per_image_measured"], raw["sensitivity"], per_class
    )

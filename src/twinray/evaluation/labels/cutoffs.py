"""Decision thresholds of a classifier, one a class, chosen on validation images.

Conventions

- A class is called present if ``score >= threshold``; each class on its own, also where classes exclude each other.
- ``f1`` is the threshold of the highest F1. ``youden`` is that of the highest sensitivity +
  specificity - 1 (Youden, Index for rating diagnostic tests, Cancer 1950). ``specificity@90`` and
  ``specificity@95`` are the lowest with at least that specificity. The candidates are the scores of
  validation images; of equal ones the highest is taken.
- With fewer than ``MIN_EACH`` validation images of either kind a class gets no threshold, and the reason is kept.

The figures beside the thresholds were measured on the images that chose them: they are a little too good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.records import ABSENT, PRESENT, FloatArray

RULES = ("f1", "youden", "specificity@90", "specificity@95")
MIN_EACH = 5
"""Validation images with a class, and without it, that a threshold needs."""


@dataclass(frozen=True, slots=True)
class ClassCutoffs:
    """One class's thresholds.

    Attributes:
        thresholds: thresholds by rule; a rule that no score meets has the number just above the
            highest one.
        reached: value that each rule maximised, on validation: F1, Youden's index, sensitivity.
        n_positive, n_negative: validation images.
        missing: why there is none; empty where there are thresholds.
    """

    thresholds: Mapping[str, float]
    reached: Mapping[str, float]
    n_positive: int
    n_negative: int
    missing: str = ""

    def as_json(self) -> dict[str, object]:
        """Plain values; ``missing`` is null where there are thresholds."""
        return {
            "thresholds": dict(self.thresholds),
            "reached_on_val": dict(self.reached),
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "missing": self.missing or None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class LabelThresholds:
    """Thresholds of all classes.

    Attributes:
        per_class: results by class name, in the order of the classes.
        n_images: validation images.
        chosen_on: images on which they were chosen, ``val`` or in words.
    """

    per_class: Mapping[str, ClassCutoffs]
    n_images: int
    chosen_on: str = "val"

    def of(self, rule: str) -> npt.NDArray[np.float64]:
        """(k,) thresholds by class id; NaN where a class has none.

        Raises:
            InputError: no such rule.
        """
        if rule not in RULES:
            raise InputError(f"expected a rule for thresholds ({', '.join(RULES)}), got {rule!r}")
        return np.array(
            [one.thresholds.get(rule, np.nan) for one in self.per_class.values()], dtype=np.float64
        )

    def as_json(self) -> dict[str, object]:
        """``{"chosen_on", "n_images", "rules", "per_class": {name: {...}}}``."""
        return {
            "chosen_on": self.chosen_on,
            "n_images": self.n_images,
            "rules": list(RULES),
            "per_class": {name: one.as_json() for name, one in self.per_class.items()},
        }


def choose_label_thresholds(
    truth: FloatArray, scores: FloatArray, label_classes: Sequence[str], *, chosen_on: str = "val"
) -> LabelThresholds:
    """Choose every rule's threshold of every class.

    Args:
        truth: (n, k) labels of validation images: 1, 0, -1 uncertain, NaN not stated; the last two are left out.
        scores: (n, k) probabilities.
        label_classes: k names.
        chosen_on: text about these images.

    Raises:
        InputError: shapes that disagree, scores that are not finite.
    """
    truth, scores = np.asarray(truth, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if truth.shape != scores.shape or truth.ndim != 2 or truth.shape[1] != len(label_classes):
        raise InputError(
            f"thresholds: expected labels and scores of (images, {len(label_classes)} classes), "
            f"got {truth.shape} and {scores.shape}; align them"
        )
    if not np.isfinite(scores).all():
        raise InputError(
            "thresholds: expected finite scores on validation; check the model's output"
        )
    per_class: dict[str, ClassCutoffs] = {}
    for i, name in enumerate(label_classes):
        known = (truth[:, i] == PRESENT) | (truth[:, i] == ABSENT)
        per_class[name] = _choose(scores[known, i], truth[known, i] == PRESENT)
    return LabelThresholds(per_class, len(truth), chosen_on)


def _choose(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> ClassCutoffs:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    few = [
        f"{n} validation images {word} it"
        for n, word in ((n_positive, "with"), (n_negative, "without"))
        if n < MIN_EACH
    ]
    if few:
        return ClassCutoffs(
            {}, {}, n_positive, n_negative, f"{' and '.join(few)}, fewer than {MIN_EACH}"
        )
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # all of one score pass together
    found, seen = np.cumsum(positive[order])[last], last + 1
    false = seen - found
    candidates = ordered[last]
    f1 = 2 * found / (n_positive + seen)
    youden = found / n_positive - false / n_negative
    chosen: dict[str, float] = {}
    reached: dict[str, float] = {}
    for rule, values in (("f1", f1), ("youden", youden)):
        best = int(np.argmax(values))
        chosen[rule], reached[rule] = float(candidates[best]), float(values[best])
    for rule, least in (("specificity@90", 0.9), ("specificity@95", 0.95)):
        within = int(np.count_nonzero(false <= (1 - least) * n_negative * (1 + 1e-12)))
        chosen[rule] = (
            float(candidates[within - 1]) if within else float(np.nextafter(ordered[0], np.inf))
        )
        reached[rule] = float(found[within - 1] / n_positive) if within else 0.0
    return ClassCutoffs(chosen, reached, n_positive, n_negative)


def label_thresholds_from_json(
    raw: Any, label_classes: Sequence[str], where: str
) -> LabelThresholds:
    """What ``LabelThresholds.as_json`` wrote.

    Args:
        raw: value as read from JSON.
        label_classes: names of the model's classes.
        where: the file, for messages.

    Raises:
        InputError: it is something else, or of other classes.
    """
    try:
        per_class = {
            str(name): ClassCutoffs(
                {rule: _finite(one["thresholds"][rule]) for rule in RULES}
                if not one["missing"]
                else {},
                {rule: _finite(one["reached_on_val"][rule]) for rule in RULES}
                if not one["missing"]
                else {},
                int(one["n_positive"]),
                int(one["n_negative"]),
                str(one["missing"] or ""),
            )
            for name, one in raw["per_class"].items()
        }
        read = LabelThresholds(per_class, int(raw["n_images"]), str(raw["chosen_on"]))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{where}: the thresholds cannot be read ({type(error).__name__}: {error}); restore the file"
        ) from error
    if tuple(read.per_class) != tuple(label_classes):
        raise InputError(
            f"{where}: the thresholds are for {list(read.per_class)}, the model's classes are {list(label_classes)}; "
            "restore the file"
        )
    return read


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a threshold is not a finite number")
    return number

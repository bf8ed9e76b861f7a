"""From a classifier's scores to the labels that are called present. No torch: a server tells the rule without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.labels.cutoffs import label_thresholds_from_json
from twinray.inference.methods import OperatingPoint
from twinray.records import FloatArray
from twinray.runs.description import MODEL, ModelDescription

FALLBACK = 0.5
"""Least score of a class without a threshold of its own."""


@dataclass(frozen=True, eq=False)
class LabelRule:
    """When a class is called present.

    Attributes:
        classes: names.
        thresholds: (k,) least score of each class.
        highest: the class of the highest score is called, and no threshold asked: classes that exclude each other, three or more.
        exclusive: of two classes that exclude each other the second is called where it reaches its threshold, else the first.
        words: the rule, for people.
        record: for ``summary.json``.
    """

    classes: tuple[str, ...]
    thresholds: FloatArray
    highest: bool
    exclusive: bool
    words: str
    record: dict[str, Any]

    def calls(self, scores: FloatArray) -> npt.NDArray[np.bool_]:
        """(n, k) scores -> (n, k) flags, true where a class is called present."""
        found: npt.NDArray[np.bool_] = scores >= self.thresholds
        if self.highest:
            found = scores.argmax(axis=1)[:, None] == np.arange(len(self.classes))
        elif self.exclusive:
            found = np.stack([~found[:, 1], found[:, 1]], axis=1)
        return found

    def called(self, scores: FloatArray) -> list[str]:
        """(n, k) scores -> the called classes of each image, with ``|`` between them; empty for none."""
        return [
            "|".join(name for name, one in zip(self.classes, row, strict=True) if one)
            for row in self.calls(scores).tolist()
        ]


def label_rule(
    description: ModelDescription, run: Path, point: OperatingPoint | None, score: float | None
) -> LabelRule:
    """The rule of a classifier: an option's score, else the model's own thresholds, else one half.

    Args:
        description: description of a classifier.
        run: its folder, for messages.
        point: which of its thresholds; None for Youden's.
        score: the same least score for all classes; None for the model's thresholds.

    Raises:
        InputError: thresholds were asked for that the model does not hold, or that are damaged.
    """
    classes, exclusive = description.classes, description.task == "multiclass"
    if exclusive and len(classes) > 2:
        if point is not None or score is not None:
            raise InputError(
                f"expected neither --operating-point nor --score-threshold: the classes of {run} exclude each other, "
                "the one of the highest score is called"
            )
        words = "the class of the highest score"
        return LabelRule(classes, np.zeros(len(classes)), True, True, words, {"from": words})
    raw = description.thresholds
    record: dict[str, Any]
    if score is not None:
        record = {"from": "--score-threshold", "per_class": dict.fromkeys(classes, score)}
        return _rule(
            classes,
            np.full(len(classes), score),
            exclusive,
            f"score >= {score:g} (--score-threshold)",
            record,
        )
    if raw is None:
        if point is not None:
            raise InputError(
                f"{run} holds no thresholds (trained without images to choose them on, or by an older version); "
                "give --score-threshold in place of --operating-point"
            )
        record = {
            "from": "fixed: the model holds no thresholds",
            "per_class": dict.fromkeys(classes, FALLBACK),
        }
        words = f"score >= {FALLBACK:g} (fixed: the model holds no thresholds)"
        return _rule(classes, np.full(len(classes), FALLBACK), exclusive, words, record)
    kept = label_thresholds_from_json(raw, classes, str(run / MODEL))
    rule = point or get_args(OperatingPoint)[0]
    own = kept.of(rule)
    lacking = [name for name, value in zip(classes, own, strict=True) if np.isnan(value)]
    values = np.where(np.isnan(own), FALLBACK, own)
    words = f"by class, {_WORDS[rule]}, chosen on {kept.chosen_on} ({kept.n_images:,} images)"
    if lacking:
        words += f"; {FALLBACK:g} for {', '.join(lacking)}, of which too few are known"
    record = {
        "from": "model",
        "rule": rule,
        "chosen_on": kept.chosen_on,
        "n_images": kept.n_images,
        "per_class": dict(zip(classes, values.tolist(), strict=True)),
        "fallback": lacking,
    }
    return _rule(classes, values, exclusive, words, record)


_WORDS = {
    "youden": "where sensitivity + specificity is highest (Youden)",
    "f1": "where F1 is highest",
    "specificity@90": "at a specificity of at least 90 %",
    "specificity@95": "at a specificity of at least 95 %",
}


def _rule(
    classes: Sequence[str], values: FloatArray, exclusive: bool, words: str, record: dict[str, Any]
) -> LabelRule:
    return LabelRule(tuple(classes), values, False, exclusive, words, record)

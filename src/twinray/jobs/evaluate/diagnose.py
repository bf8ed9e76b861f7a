"""What stands beside the figures of a tested model: curves, calibration, confusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinray.evaluation.boxes import FROC_RULE, FrocRule
from twinray.evaluation.diagnostics import (
    Calibration,
    FrocCurve,
    PrecisionRecall,
    calibration,
    confusion_with_background,
    froc_curve,
    precision_recall,
)
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.calibration import Reliability
from twinray.evaluation.labels.curves import LabelCurve, label_curves
from twinray.evaluation.labels.report import confusion_matrix, reliability_curves
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.thresholds import FALLBACK_SCORE, thresholds_from_json
from twinray.jobs.evaluate.tested import BoxData, LabelData
from twinray.records import PRESENT, FloatArray, IntArray, Task


@dataclass(frozen=True, eq=False)
class Detected:
    """One run's boxes against the truth, IoU 0.5.

    Attributes:
        classes: (k,) names.
        curves: class name, or "" for all pooled -> its two curves.
        calibration: of all scores.
        shown_error: expected calibration error of the boxes at or above ``thresholds`` alone; NaN where there are none.
        confusion: (k + 1, k + 1) counts at ``thresholds``; rows true, columns predicted, the last of each background.
        thresholds: (k,) least scores of the boxes that the confusion counts.
        rule: where these are from.
    """

    classes: tuple[str, ...]
    curves: Mapping[str, tuple[PrecisionRecall, FrocCurve]]
    calibration: Calibration
    shown_error: float
    confusion: IntArray
    thresholds: FloatArray
    rule: str

    def as_json(self) -> dict[str, Any]:
        """Calibration and confusion; the curves are in ``curves.csv``."""
        found = self.calibration
        return {
            "calibration": {
                "edges": found.edges.tolist(),
                "count": found.count.tolist(),
                "mean_score": _known(found.mean_score),
                "precision": _known(found.precision),
                "expected_error": _known(np.array([found.expected_error]))[0],
                "expected_error_of_shown": _known(np.array([self.shown_error]))[0],
            },
            "confusion": {
                "classes": [*self.classes, "background"],
                "rows": "true",
                "counts": self.confusion.tolist(),
                "score_thresholds": dict(zip(self.classes, self.thresholds.tolist(), strict=True)),
                "score_thresholds_from": self.rule,
            },
        }


def diagnose(
    data: BoxData,
    classes: tuple[str, ...],
    thresholds: object,
    name: str,
    froc: FrocRule = FROC_RULE,
) -> Detected:
    """Work out the curves and tables of one detector.

    Args:
        data: true and predicted boxes.
        classes: names that labels index.
        thresholds: those of the model's description, or None: one fixed score.
        name: of the run, for errors.
        froc: how FROC counts.

    Raises:
        InputError: thresholds of another form or of other classes.
    """
    flat = flatten(data.truth, data.found, classes)
    matches = match(flat, (0.5,))
    hit: float | str = froc.hit
    for_froc = (
        matches
        if hit == 0.5
        else match(flat, froc.hit if isinstance(froc.hit, str) else (froc.hit,))
    )
    ignore = froc.repeats == "ignore"
    least, rule = (
        np.full(len(classes), FALLBACK_SCORE),
        f"fixed at {FALLBACK_SCORE}: the model holds no thresholds",
    )
    if thresholds is not None:
        point = thresholds_from_json(thresholds, classes, f"{name}, model.json").at(None)
        least = point.thresholds()
        rule = f"the model's, for {point.fp_per_image:g} false positives per validation image"
    labels: list[tuple[str, int | None]] = [("", None), *((c, i) for i, c in enumerate(classes))]
    return Detected(
        classes,
        {
            c: (
                precision_recall(matches, 0.5, label),
                froc_curve(for_froc, hit, label, ignore_repeats=ignore),
            )
            for c, label in labels
        },
        calibration(matches),
        calibration(matches, least=least).expected_error,
        confusion_with_background(flat, least),
        least,
        rule,
    )


@dataclass(frozen=True, eq=False)
class Ranked:
    """One classifier's scores against the labels.

    Attributes:
        classes: (k,) names.
        curves: class name -> its ROC and precision-recall curve; classes with one kind of label only have none.
        confusion: (k, k) counts, rows the true class, columns the one of the highest score; None for multi-label data.
        reliability: class name -> how often its scores are right; of three or more exclusive
            classes that of the top label alone, under ``""``.
    """

    classes: tuple[str, ...]
    curves: Mapping[str, LabelCurve]
    confusion: IntArray | None
    reliability: Mapping[str, Reliability]

    def as_json(self) -> dict[str, Any]:
        """Reliability and confusion; the curves are in ``curves.csv``."""
        found: dict[str, Any] = {
            "reliability": {name: one.as_json() for name, one in self.reliability.items()}
        }
        if self.confusion is not None:
            found["confusion"] = {
                "classes": list(self.classes),
                "rows": "true",
                "counts": self.confusion.tolist(),
            }
        return found


def diagnose_labels(
    data: LabelData, classes: tuple[str, ...], task: Task, resampling: Resampling
) -> Ranked:
    """Work out the curves and the confusion of one classifier."""
    labelled = (data.truth == PRESENT).sum(axis=1) == 1
    table = (
        confusion_matrix(data.truth[labelled] == PRESENT, data.scores[labelled])
        if task == "multiclass"
        else None
    )
    found = reliability_curves(
        data.truth, data.scores, classes, task, data.patients, resampling=resampling
    )
    if "" in found:
        shown = {"": found[""]}
    elif task == "multiclass":
        shown = {
            classes[1]: found[classes[1]]
        }  # of two exclusive classes the first mirrors the second
    else:
        shown = {name: one for name, one in found.items() if name}
    return Ranked(classes, label_curves(data.truth, data.scores, classes), table, shown)


def _known(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]

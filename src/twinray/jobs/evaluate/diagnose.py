"""What stands beside the figures of evaluated detectors: curves, calibration, confusion; as JSON, CSV and charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinray.evaluation.diagnostics import (
    Calibration,
    FrocCurve,
    PrecisionRecall,
    calibration,
    confusion_with_background,
    froc_curve,
    precision_recall,
)
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.thresholds import FALLBACK_SCORE, thresholds_from_json
from twinray.records import Boxes, FloatArray, IntArray


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
    truth: Mapping[str | int, Boxes],
    found: Mapping[str | int, Boxes],
    classes: tuple[str, ...],
    thresholds: object,
    name: str,
) -> Detected:
    """Work out the curves and tables of one run.

    Args:
        truth, found: image id -> boxes.
        classes: names that labels index.
        thresholds: those of the model's description, or None: one fixed score.
        name: of the run, for errors.

    Raises:
        InputError: thresholds of another form or of other classes.
    """
    flat = flatten(truth, found, classes)
    matches = match(flat, (0.5,))
    least, rule = np.full(len(classes), FALLBACK_SCORE), f"fixed at {FALLBACK_SCORE}: the model holds no thresholds"
    if thresholds is not None:
        point = thresholds_from_json(thresholds, classes, f"{name}, model.json").at(None)
        least = point.thresholds()
        rule = f"the model's, for {point.fp_per_image:g} false positives per validation image"
    labels: list[tuple[str, int | None]] = [("", None), *((c, i) for i, c in enumerate(classes))]
    return Detected(
        classes,
        {c: (precision_recall(matches, 0.5, label), froc_curve(matches, 0.5, label)) for c, label in labels},
        calibration(matches),
        calibration(matches, least=least).expected_error,
        confusion_with_background(flat, least),
        least,
        rule,
    )


def _known(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]

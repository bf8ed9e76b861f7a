"""What stands beside the figures of evaluated detectors: curves, calibration, confusion; as JSON, CSV and charts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
from twinray.files import write_bytes, write_text
from twinray.records import Boxes, FloatArray, IntArray
from twinray.report.charts.curves import class_bars, froc_curves, interval_plot
from twinray.report.charts.diagnostics import (
    calibration_plot,
    confusion_plot,
    precision_recall_curves,
)
from twinray.report.pictures.panels import cut_in_middle
from twinray.runs.names import file_names

_MOST_POINTS = 500
"""Points of a curve in the CSV; thinned evenly where there are more."""


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


def write_figures(
    out: Path, detected: Mapping[str, Detected], figures: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    """``curves.csv`` and, under ``figures/``, one SVG a chart.

    Args:
        out: of the evaluation.
        detected: run -> its curves and tables.
        figures: run -> measures with their intervals.
        results: run -> what the evaluation returns, for the paired difference of two runs.

    Raises:
        TwinrayError: a file cannot be written.
    """
    write_text(out / "curves.csv", curves_csv(detected), "curves")
    charts = {
        "precision-recall": precision_recall_curves({name: one.curves[""][0] for name, one in detected.items()}),
        "froc": froc_curves(figures),
        "calibration": calibration_plot({name: (one.calibration, one.shown_error) for name, one in detected.items()}),
        "classes": class_bars(figures),
    }
    files = file_names(list(detected))
    for name, one in detected.items():
        charts[f"confusion {files[name]}"] = confusion_plot(one.confusion, one.classes, cut_in_middle(name, 40))
    if len(detected) == 2:
        difference = results[list(detected)[1]]["difference_to_first"]["map50"]
        charts["map50"] = interval_plot({name: f["map50"] for name, f in figures.items()}, difference)
    (out / "figures").mkdir(exist_ok=True)
    for title, svg in charts.items():
        write_bytes(out / "figures" / f"{title}.svg", svg, "figure")


def curves_csv(detected: Mapping[str, Detected]) -> str:
    """run, class (empty: all pooled), score, precision, recall, false positives per image; by falling score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("run", "class", "score", "precision", "recall", "false_positives_per_image"))
    for name, one in detected.items():
        for class_name, (pr, froc) in one.curves.items():
            n = len(pr.score)
            for i in np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(np.int64)).tolist():
                recall = "" if np.isnan(pr.recall[i]) else pr.recall[i]
                row = (pr.score[i], pr.precision[i], recall, froc.false_positives_per_image[i])
                writer.writerow((name, class_name, *row))
    return out.getvalue()


def _known(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]

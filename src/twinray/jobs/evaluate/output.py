"""Figures of evaluated runs or arms on the terminal: overall, over images with boxes, by class, and paired differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from twinray.files import write_bytes, write_text
from twinray.jobs.evaluate.diagnose import Detected
from twinray.report.charts.curves import class_bars, froc_curves, interval_plot
from twinray.report.charts.diagnostics import (
    calibration_plot,
    confusion_plot,
    precision_recall_curves,
)
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count
from twinray.report.tables import TITLES, arms_table, class_tables, difference_table
from twinray.runs.names import file_names

MEASURES = {
    "detector": ("map50", "map40", "map", "froc"),
    "classifier": ("auc", "average_precision", "accuracy", "balanced_accuracy"),
}
"""Those shown on the terminal; the files hold all."""
_BY_CLASS = {"detector": ("ap50", "n_boxes", "true boxes"), "classifier": ("auc", "n_positive", "images with it")}

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""(name of a run or an arm, figures of one split as ``metrics.json`` holds them)."""


def show_figures(console: Console, rows: Rows, kind: str) -> None:
    """Measures over all images, those of each class, and those over images with boxes where not all images have any."""
    console.print(arms_table(rows, MEASURES[kind]))
    measure, counted, title = _BY_CLASS[kind]
    for table in class_tables(rows, measure, counted, console.width, title):
        console.print(table)
    some = [(name, f["with_boxes"]) for name, f in rows if f.get("with_boxes")]
    if some and len(some) == len(rows) and some[0][1]["n_images"] != rows[0][1]["n_images"]:
        n = count(some[0][1]["n_images"], "image")
        console.print(arms_table(some, MEASURES[kind], f"Only the {n} with boxes: value (95 % interval)"))


def show_over_seeds(console: Console, rows: Rows, kind: str) -> None:
    """The same measures with their intervals over seeds."""
    seeds = [(name, {m: f[m]["over_seeds"] for m in MEASURES[kind]}) for name, f in rows]
    console.print(arms_table(seeds, MEASURES[kind]))


def show_difference(console: Console, found: Mapping[str, Any], kind: str, told: str, over: str = "patients") -> None:
    """Paired differences in the measures shown.

    Args:
        console: to print on.
        found: differences as ``metrics.json`` holds them.
        kind: ``detector`` or ``classifier``.
        told: what is subtracted from what.
        over: what the intervals are over, ``patients`` or ``seeds``.
    """
    seeds = over == "seeds"
    named = {TITLES.get(m, m): found[m]["over_seeds"] if seeds else found[m] for m in MEASURES[kind]}
    share_of = "seeds" if seeds else "resamples"
    console.print(difference_table(named, f"{told}; interval over {over}.", share_of=share_of))


def say(console: Console, text: str) -> None:
    """A line as it is: not broken, no markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


_MOST_POINTS = 500
"""Points of a curve in the CSV; thinned evenly where there are more."""


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

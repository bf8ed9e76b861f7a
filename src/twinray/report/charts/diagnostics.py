"""Charts of detectors: precision and recall, calibration of scores, confusion; and of runs over folds and seeds.

Each returns SVG bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.patches import Rectangle

from twinray.evaluation.diagnostics import Calibration, PrecisionRecall
from twinray.evaluation.measures import title
from twinray.evaluation.result import Evaluation
from twinray.records import IntArray
from twinray.report.charts.sheet import (
    WIDTH,
    as_svg,
    legend,
    look,
    note_if_empty,
    over_matrix,
    style,
)
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.numbers import number
from twinray.report.palette import ARMS, GRID, INK, MUTED, look_of

_MOST_NAMED = 30  # classes whose names and counts still fit beside a confusion matrix


def precision_recall_curves(arms: Mapping[str, PrecisionRecall]) -> bytes:
    """Precision against recall of all classes pooled, at every score threshold, one line an arm."""
    sheet = Sheet(figsize=(WIDTH, 4.2), layout="constrained")
    axes = sheet.subplots()
    drawn: list[float] = []
    for i, (name, curve) in enumerate(arms.items()):
        if curve.n_boxes and len(curve.score):
            axes.plot(curve.recall, curve.precision, label=name, **look(i, len(arms)))
            drawn += [float(curve.recall[-1])]
    axes.set_ylim(0, 1.02)
    heading = "Precision: share of the shown boxes that are right"
    return _finished(sheet, axes, heading, "recall: share of the true boxes that are found", drawn)


def calibration_plot(arms: Mapping[str, tuple[Calibration, float]]) -> bytes:
    """Share of predictions that are right by score, against the diagonal of scores that mean what they say.

    Args:
        arms: name -> calibration of all boxes, and the expected error of the boxes that the model
            shows. Most boxes have a very low score, and an error over all of them would describe
            those alone.
    """
    sheet = Sheet(figsize=(WIDTH, 4.2), layout="constrained")
    axes = sheet.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
    drawn: list[float] = []
    for i, (name, (found, shown_error)) in enumerate(arms.items()):
        filled = found.count > 0
        label = f"{name}, expected error of shown boxes {number(shown_error, 2)}"
        axes.plot(
            found.mean_score[filled],
            found.precision[filled],
            marker=look_of(i, len(arms)).marker,
            markersize=5,
            label=label,
            **look(i, len(arms)),
        )
        drawn += found.precision[filled].tolist()
    axes.set_ylim(0, 1)
    heading = "Share of the boxes of a score that are right (dotted: as the score says)"
    return _finished(sheet, axes, heading, "score", drawn)


def _finished(
    sheet: Sheet, axes: Axes, heading: str, x_label: str, drawn: Sequence[float]
) -> bytes:
    """A chart over shares from 0 to 1, of which ``drawn`` are values."""
    axes.set_xlim(0, 1)
    style(axes, literal(heading), x_label)
    note_if_empty(axes, drawn)
    legend(axes)
    return as_svg(sheet)


def confusion_plot(table: IntArray, classes: Sequence[str], heading: str) -> bytes:
    """Counts of a confusion, shaded by the share of their row.

    Args:
        table: rows the true class, columns the predicted one: (k, k), or (k + 1, k + 1) with background in the last of each.
        classes: (k,) names.
        heading: above the table.
    """
    n = len(table)
    side = min(0.55 * n + 2.6, 16.0)
    sheet = Sheet(figsize=(max(side + 0.8, 5.5), side), layout="constrained")
    axes = sheet.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    for row in range(n):
        for column in range(n):
            if table[row, column]:
                axes.add_patch(_cell(row, column, float(shares[row, column]), right=row == column))
                if n <= _MOST_NAMED:
                    axes.text(
                        column,
                        row,
                        f"{table[row, column]}",
                        ha="center",
                        va="center",
                        color=INK,
                        fontsize=9,
                    )
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    names = [literal(cut_in_middle(c, 22)) for c in classes]
    _name_cells(axes, names + ["nothing there"] * (n - len(names)))
    style(axes, literal(over_matrix(heading)), "predicted")
    axes.grid(visible=False)
    axes.set_ylabel("true", fontsize=10, color=MUTED)
    return as_svg(sheet)


def _cell(row: int, column: int, share: float, *, right: bool) -> Rectangle:
    colour = ARMS[2] if right else ARMS[0]
    return Rectangle(
        (column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.08 + 0.62 * share, linewidth=0
    )


def _name_cells(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for at in np.arange(len(names) + 1) - 0.5:
        axes.axhline(at, color=GRID, linewidth=0.8)
        axes.axvline(at, color=GRID, linewidth=0.8)


def run_dots(result: Evaluation, measure: str) -> bytes:
    """Every run as a dot, by fold, with the mean over seeds as a bar: the luck in a difference."""
    sheet = Sheet(figsize=(WIDTH, 3.8), layout="constrained")
    axes = sheet.subplots()
    n, folds = len(result.arms), result.folds
    width = 0.5 / max(n, 1)
    drawn: list[float] = []
    for i, name in enumerate(result.arms):
        own, figure = look_of(i, n), result.figure(name, measure)
        values = np.array(
            [[np.nan if v is None else v for v in row] for row in (figure.runs if figure else ())]
        )
        if not values.size and figure is not None and figure.value is not None and folds == 1:
            values = np.array([[figure.value]])  # an arm of one run
        values = values.reshape(folds, -1)
        at = np.arange(folds) + (i - (n - 1) / 2) * width
        x = np.repeat(at[:, None], values.shape[1], axis=1)
        axes.plot(
            x.ravel(),
            values.ravel(),
            own.marker,
            color=own.colour,
            markersize=6,
            alpha=0.75,
            label=name,
        )
        if values.size:
            axes.plot(
                [at - width / 3, at + width / 3],
                [values.mean(axis=1)] * 2,
                color=own.colour,
                linewidth=2.4,
            )
        drawn += values[~np.isnan(values)].tolist()
    axes.set_xticks(
        range(folds),
        [f"fold {fold}" for fold in range(folds)] if folds > 1 else ["all test images"],
    )
    axes.set_xlim(-0.6, folds - 0.4)
    low = min(drawn, default=0.0)
    axes.set_ylim(0 if low < 0.5 else max(0.0, low - 0.1), min(1.02, 1.2 * max([*drawn, 0.05])))
    style(axes, f"{title(measure)} of every run; bars: mean over runs", "")
    note_if_empty(axes, drawn)
    legend(axes)
    return as_svg(sheet)

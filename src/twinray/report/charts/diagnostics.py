"""Charts of finished detectors: precision and recall, calibration of scores, confusion, runs over folds and seeds.

Each returns SVG bytes, drawn as those of ``figures`` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.patches import Rectangle

from twinray.evaluation.diagnostics import Calibration, PrecisionRecall
from twinray.records import FloatArray, IntArray
from twinray.report.charts.curves import WIDTH, as_svg, legend, look, note_if_empty, style
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.numbers import number
from twinray.report.palette import ARMS, GRID, INK, MARKERS, MUTED

_MOST_NAMED = 30  # classes whose names and counts still fit beside a confusion matrix


def precision_recall_curves(arms: Mapping[str, PrecisionRecall]) -> bytes:
    """Precision against recall of all classes pooled, at every score threshold, one line an arm."""
    sheet = Sheet(figsize=(WIDTH, 4.2), layout="constrained")
    axes = sheet.subplots()
    drawn: list[float] = []
    for i, (name, curve) in enumerate(arms.items()):
        if curve.n_boxes and len(curve.score):
            axes.plot(curve.recall, curve.precision, label=name, **look(i))
            drawn += [float(curve.recall[-1])]
    axes.set_ylim(0, 1.02)
    title = "Precision: share of the shown boxes that are right"
    return _finished(sheet, axes, title, "recall: share of the true boxes that are found", drawn)


def calibration_plot(arms: Mapping[str, tuple[Calibration, float]]) -> bytes:
    """Share of predictions that are right by score, against the diagonal of scores that mean what they say.

    Args:
        arms: name -> calibration of all boxes, and the expected error of the boxes that the model shows: most boxes have
            a very low score, and an error over all of them would tell of those alone.
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
            marker=MARKERS[i % 4],
            markersize=5,
            label=label,
            **look(i),
        )
        drawn += found.precision[filled].tolist()
    axes.set_ylim(0, 1)
    title = "Share of the boxes of a score that are right (dotted: as the score says)"
    return _finished(sheet, axes, title, "score", drawn)


def _finished(sheet: Sheet, axes: Axes, title: str, x_label: str, drawn: Sequence[float]) -> bytes:
    """A chart over shares from 0 to 1, of which ``drawn`` are values."""
    axes.set_xlim(0, 1)
    style(axes, title, x_label)
    note_if_empty(axes, drawn)
    legend(axes)
    return as_svg(sheet)


def confusion_plot(table: IntArray, classes: Sequence[str], title: str) -> bytes:
    """Counts of a confusion with background, shaded by the share of their row.

    Args:
        table: (k + 1, k + 1), rows the true class, columns the predicted one; last row and column: background.
        classes: (k,) names.
        title: above the table.
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
                    axes.text(column, row, f"{table[row, column]}", ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    _name_cells(axes, [literal(cut_in_middle(c, 22)) for c in classes])
    style(axes, literal(title), "predicted")
    axes.grid(visible=False)
    axes.set_ylabel("true", fontsize=10, color=MUTED)
    return as_svg(sheet)


def _cell(row: int, column: int, share: float, *, right: bool) -> Rectangle:
    colour = ARMS[2] if right else ARMS[0]
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.08 + 0.62 * share, linewidth=0)


def _name_cells(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names) + 1), [*names, "nothing there"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names) + 1), [*names, "nothing there"])
    for at in np.arange(len(names) + 2) - 0.5:
        axes.axhline(at, color=GRID, linewidth=0.8)
        axes.axvline(at, color=GRID, linewidth=0.8)


def run_dots(arms: Mapping[str, FloatArray], folds: Sequence[str], measure: str) -> bytes:
    """Every run as a dot, by fold, with the mean over seeds as a bar: how much of a difference is the luck of the draw.

    Args:
        arms: name -> (folds, seeds) values.
        folds: names.
        measure: as the title says it.
    """
    sheet = Sheet(figsize=(WIDTH, 3.8), layout="constrained")
    axes = sheet.subplots()
    width = 0.5 / max(len(arms), 1)
    drawn: list[float] = []
    for i, (name, values) in enumerate(arms.items()):
        offset = (i - (len(arms) - 1) / 2) * width
        x = np.repeat(np.arange(len(folds))[:, None] + offset, values.shape[1], axis=1)
        axes.plot(x.ravel(), values.ravel(), MARKERS[i % 4], color=ARMS[i % 4], markersize=6, alpha=0.75, label=name)
        axes.plot(
            [np.arange(len(folds)) + offset - width / 3, np.arange(len(folds)) + offset + width / 3],
            [values.mean(axis=1)] * 2,
            color=ARMS[i % 4],
            linewidth=2.4,
        )
        drawn += values[~np.isnan(values)].tolist()
    axes.set_xticks(range(len(folds)), [f"fold {fold}" for fold in folds])
    axes.set_xlim(-0.6, len(folds) - 0.4)
    axes.set_ylim(0, min(1.0, 1.2 * max([*drawn, 0.05])))
    style(axes, f"{measure} of every run; bars: mean over seeds", "")
    note_if_empty(axes, drawn)
    legend(axes)
    return as_svg(sheet)

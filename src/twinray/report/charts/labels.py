"""Charts of classifiers: ROC, precision and recall, reliability, confusion, subgroups. Each returns SVG bytes.

They are drawn as those of ``curves`` are: runs differ in colour and line, colours follow a light or dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.patches import Rectangle

from twinray.evaluation.labels.calibration import Reliability
from twinray.evaluation.labels.curves import LabelCurve
from twinray.evaluation.record import Figure
from twinray.records import FloatArray, IntArray
from twinray.report.charts.sheet import (
    MOST_INSIDE,
    WIDTH,
    as_svg,
    below,
    legend,
    look,
    note_if_empty,
    over_matrix,
    style,
)
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.numbers import NOT_DEFINED, count, number
from twinray.report.palette import ARMS, GRID, INK, MUTED, look_of

MOST_PANELS = 16
"""Classes that one sheet shows; of more, the most frequent ones."""
_MOST_NAMED = 30

Curves = Mapping[str, Mapping[str, LabelCurve]]
"""Run -> class -> curve."""


def roc_curves(
    runs: Curves, areas: Mapping[str, Mapping[str, Figure | None]] | None = None
) -> bytes:
    """Sensitivity against false positive rate, one panel a class, one line a run; dotted: chance.

    Args:
        runs: run -> class -> curve.
        areas: run -> class -> AUC, named in the panels' legends.
    """

    def draw(axes: Axes, curve: LabelCurve, label: str, run: int) -> None:
        axes.plot(curve.false_positive_rate, curve.recall, label=label, **look(run, len(runs)))

    def ground(axes: Axes, _: LabelCurve) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)

    return _panels(runs, areas, draw, ground, "1 - specificity", "sensitivity", "lower right")


def precision_recall_of_labels(
    runs: Curves, figures: Mapping[str, Mapping[str, Figure | None]] | None = None
) -> bytes:
    """Precision against recall, one panel a class, one line a run; dotted: the share of images with the class.

    Args:
        runs: run -> class -> curve.
        figures: run -> class -> average precision, named in the panels' legends.
    """

    def draw(axes: Axes, curve: LabelCurve, label: str, run: int) -> None:
        axes.plot(
            curve.recall,
            curve.precision,
            label=label,
            drawstyle="steps-pre",
            **look(run, len(runs)),
        )

    def ground(axes: Axes, curve: LabelCurve) -> None:
        share = curve.n_positive / (curve.n_positive + curve.n_negative)
        axes.axhline(share, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)

    return _panels(runs, figures, draw, ground, "recall", "precision", "best")


def _panels(
    runs: Curves,
    figures: Mapping[str, Mapping[str, Figure | None]] | None,
    draw: Callable[[Axes, LabelCurve, str, int], None],
    ground: Callable[[Axes, LabelCurve], None],
    x_label: str,
    y_label: str,
    place: Any,
) -> bytes:
    if len(runs) > MOST_INSIDE:  # a panel has no room for so many areas; they stand in the tables
        figures = None
    of_class: dict[str, LabelCurve] = {}
    for own in runs.values():
        of_class = {**own, **of_class}
    classes = sorted(of_class, key=lambda name: -of_class[name].n_positive)[:MOST_PANELS]
    classes = [name for name in of_class if name in set(classes)]
    sheet, panels = _grid(len(classes))
    if not classes:
        style(panels[0], "", x_label)
        note_if_empty(panels[0], [])
    for axes, name in zip(panels, classes, strict=False):
        ground(axes, of_class[name])
        for i, (run, own) in enumerate(runs.items()):
            if name in own:
                draw(
                    axes,
                    own[name],
                    _named(run, None if figures is None else figures[run].get(name)),
                    i,
                )
        one = of_class[name]
        title = (
            f"{literal(cut_in_middle(name, 24))}: {one.n_positive} with, {one.n_negative} without"
        )
        _square(axes, title, (x_label, y_label), len(classes))
        if figures is not None:  # each class has its own
            axes.legend(loc=place, frameon=False, fontsize=8.5, labelcolor=INK).set_zorder(5)
    if figures is None:
        _below(sheet, panels)
    return as_svg(sheet)


def _named(run: str, figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return run
    shown = literal(cut_in_middle(run, 26))
    ends = (
        ""
        if figure.ci95 is None
        else f" ({number(figure.ci95[0], 2)} to {number(figure.ci95[1], 2)})"
    )
    return f"{shown} {number(figure.value, 2)}{ends}"


def reliability_plot(runs: Mapping[str, Reliability], title: str = "") -> bytes:
    """How often a probability was right, bin by bin with 95 % intervals, and below how many images each bin holds.

    Args:
        runs: run -> curve of one class, or of the top label.
        title: above the chart; empty for a sentence.
    """
    sheet = Sheet(figsize=(WIDTH, 5.2), layout="constrained")
    axes, below = sheet.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
    drawn: list[float] = []
    width = 0.8 / max(len(runs), 1) / 15
    for i, (name, found) in enumerate(runs.items()):
        filled = found.count > 0
        label = f"{name}, expected error {number(found.expected_error, 3)}"
        axes.plot(
            found.mean_score[filled],
            found.frequency[filled],
            marker=look_of(i, len(runs)).marker,
            label=label,
            **look(i, len(runs)),
        )
        sure = filled & ~np.isnan(found.low)
        axes.vlines(
            found.mean_score[sure],
            found.low[sure],
            found.high[sure],
            color=look_of(i, len(runs)).colour,
            linewidth=1.2,
        )
        middle = (found.edges[:-1] + found.edges[1:]) / 2 + (i - (len(runs) - 1) / 2) * width
        below.bar(middle, found.count, width, color=look_of(i, len(runs)).colour)
        drawn += found.frequency[filled].tolist()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    style(
        axes,
        literal(title) or "Share of images for which a probability was right (dotted: as it says)",
        "",
    )
    style(below, "", "probability")
    below.set_ylabel("images", fontsize=10, color=MUTED)
    note_if_empty(axes, drawn)
    legend(axes, letters=64)
    return as_svg(sheet)


def reliability_of_labels(runs: Mapping[str, Mapping[str, Reliability]]) -> bytes:
    """The chart of one curve a run, or a panel a class where runs have several; at most ``MOST_PANELS``.

    Args:
        runs: run -> class, or ``""`` for the top label -> curve.
    """
    classes = list(dict.fromkeys(name for own in runs.values() for name in own))
    if len(classes) <= 1:
        only = classes[0] if classes else ""
        told = f"of {only} " if only else "of the class called "
        return reliability_plot(
            {run: own[only] for run, own in runs.items() if only in own},
            f"How often a probability {told}was right (dotted: as it says)",
        )
    images = {
        name: max(_images_above(own[name]) for own in runs.values() if name in own)
        for name in classes
    }
    chosen = set(sorted(classes, key=lambda name: -images[name])[:MOST_PANELS])
    sheet, panels = _grid(len(chosen))
    for axes, name in zip(panels, (c for c in classes if c in chosen), strict=False):
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
        for i, (run, own) in enumerate(runs.items()):
            if name not in own:
                continue
            found, filled = own[name], own[name].count > 0
            mark = look_of(i, len(runs))
            axes.plot(
                found.mean_score[filled],
                found.frequency[filled],
                marker=mark.marker,
                markersize=4,
                label=run,
                **look(i, len(runs)),
            )
            sure = filled & ~np.isnan(found.low)
            axes.vlines(
                found.mean_score[sure],
                found.low[sure],
                found.high[sure],
                color=mark.colour,
                linewidth=1,
            )
        _square(
            axes, literal(cut_in_middle(name, 24)), ("probability", "share with it"), len(chosen)
        )
    _below(sheet, panels)
    return as_svg(sheet)


def _images_above(curve: Reliability) -> int:
    """Images above the lowest bin: where a class is called at all."""
    return int(curve.count[1:].sum())


def _grid(n: int) -> tuple[Sheet, Sequence[Axes]]:
    """Square panels, at least one; those that are not needed are left blank."""
    across = min(n, 2 if n <= 4 else 4) or 1
    down = math.ceil(n / across) or 1
    side = WIDTH / (across if across > 1 else 1.8)
    sheet = Sheet(figsize=(side * across, (side + 0.3) * down), layout="constrained")
    panels: list[Axes] = list(np.atleast_1d(sheet.subplots(down, across)).ravel())
    for axes in panels[n:]:
        axes.set_visible(n == 0)
    return sheet, panels


def _square(axes: Axes, title: str, labels: tuple[str, str], panels: int) -> None:
    """Finish a panel over shares from 0 to 1."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    style(axes, title, labels[0])
    axes.set_ylabel(labels[1], fontsize=10, color=MUTED)
    axes.title.set_fontsize(9.5 if panels > 4 else 11)


def _below(sheet: Sheet, panels: Sequence[Axes]) -> None:
    """The names of the runs once, below all panels: inside they would cover what is drawn."""
    handles, names = max(
        (axes.get_legend_handles_labels() for axes in panels), key=lambda own: len(own[0])
    )
    if handles:
        below(sheet, handles, [cut_in_middle(name, 44) for name in names])


def confusion_of_labels(table: IntArray, classes: Sequence[str], title: str) -> bytes:
    """A confusion matrix: shares of each true class, and the counts below them.

    Args:
        table: (k, k) counts, rows the true class, columns the predicted one.
        classes: (k,) names.
        title: above the table.
    """
    n = len(table)
    side = min(0.75 * n + 2.6, 16.0)
    sheet = Sheet(figsize=(max(side + 0.8, 5.5), side), layout="constrained")
    axes = sheet.subplots()
    totals = table.sum(axis=1, keepdims=True)
    shares: FloatArray = table / np.maximum(totals, 1)
    for row in range(n):
        for column in range(n):
            if not table[row, column]:
                continue
            colour = ARMS[2] if row == column else ARMS[0]
            share = float(shares[row, column])
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=colour,
                    alpha=0.08 + 0.62 * share,
                    linewidth=0,
                )
            )
            if n <= _MOST_NAMED:
                text = f"{100 * share:.0f} %\n{table[row, column]}"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    color=INK,
                    fontsize=9 if n <= 12 else 6.5,
                )
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    names = [literal(cut_in_middle(c, 22)) for c in classes]
    rows = [f"{name} ({total})" for name, total in zip(names, totals[:, 0].tolist(), strict=True)]
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), rows)
    for at in np.arange(n + 1) - 0.5:
        axes.axhline(at, color=GRID, linewidth=0.8)
        axes.axvline(at, color=GRID, linewidth=0.8)
    style(axes, literal(over_matrix(title)), "predicted (share of the row, images)")
    axes.grid(visible=False)
    axes.set_ylabel("true (images)", fontsize=10, color=MUTED)
    return as_svg(sheet)


def subgroup_plot(runs: Mapping[str, Mapping[str, tuple[Figure | None, int]]], title: str) -> bytes:
    """One measure by group: a dot and its 95 % interval for every run.

    Args:
        runs: run -> group -> the figure and the number of images.
        title: measure and attribute.
    """
    groups = list(dict.fromkeys(group for own in runs.values() for group in own))
    sheet = Sheet(
        figsize=(WIDTH, 1.2 + max(1, len(groups)) * (0.3 + 0.2 * len(runs))), layout="constrained"
    )
    axes = sheet.subplots()
    drawn: list[float] = []
    images: dict[str, int] = {}
    for i, (run, own) in enumerate(runs.items()):
        colour = look_of(i, len(runs)).colour
        axes.plot([], [], look_of(i, len(runs)).marker, color=colour, label=run)
        for row, group in enumerate(groups):
            figure, n = own.get(group, (None, 0))
            images.setdefault(group, n)
            y = row + (i - (len(runs) - 1) / 2) * 0.7 / max(1, len(runs))
            if figure is None or figure.value is None:
                axes.annotate(
                    NOT_DEFINED,
                    (0.01, y),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    color=MUTED,
                    fontsize=9,
                )
                continue
            if figure.ci95 is not None:
                axes.plot(figure.ci95, [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            filled = (
                "full" if figure.ci95 is not None else "none"
            )  # hollow: too few for an interval
            axes.plot(
                [figure.value],
                [y],
                look_of(i, len(runs)).marker,
                color=colour,
                markersize=7,
                fillstyle=filled,
            )
            drawn += [figure.value, *(figure.ci95 or ())]
    names = [
        f"{literal(cut_in_middle(group, 26))}\n{count(images[group], 'image')}" for group in groups
    ]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    if drawn:
        room = 0.06 * max(max(drawn) - min(drawn), 0.05)
        axes.set_xlim(min(drawn) - room, max(drawn) + room)
    style(axes, literal(title), "", across=True)
    note_if_empty(axes, drawn)
    legend(axes, outside=True)
    return as_svg(sheet)

"""Charts of training and of an evaluation: training curves, intervals, classes, FROC, shares of labels. Each returns SVG bytes.

What does not exist (null, NaN) is left out of a curve and named in a chart of figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from twinray.evaluation.measures import COUNT_OF_CLASS, count_title, title
from twinray.evaluation.record import Figure
from twinray.evaluation.result import Evaluation
from twinray.report.charts.sheet import WIDTH, as_svg, legend, look, note_if_empty, style
from twinray.report.fonts import cut_in_middle, literal
from twinray.report.numbers import NOT_DEFINED, count, finite, interval_of, value_of
from twinray.report.palette import ARMS, CARD, INK, MUTED, look_of
from twinray.report.tables import FROC_RATES, class_count

_PRETRAINING = (
    ("loss", "Loss", None),
    ("mean_c_ii", "Agreement of the two views, mean C_ii", 1.0),
    ("rms_c_ij", "Redundancy, RMS C_ij", 0.0),
    ("effective_rank", "Effective rank of the embedding", None),
)
_LINE = 30
"""Letters of a name in one line beside a row."""
Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ArmCurve:
    """One arm's training: the lines of its ``metrics.jsonl`` and the epoch that was kept (None: not known)."""

    name: str
    lines: Lines
    best_epoch: int | None = None


def pretraining_curves(lines: Lines) -> bytes:
    """Loss, mean C_ii (aim 1), RMS C_ij (aim 0) and effective rank by training step, in four panels.

    Args:
        lines: lines of the pre-training's ``metrics.jsonl``.
    """
    sheet = Sheet(figsize=(WIDTH, 5.2), layout="constrained")
    for axes, (key, heading, aim) in zip(sheet.subplots(2, 2).flat, _PRETRAINING, strict=True):
        steps, values = _series(lines, "step", key)
        axes.plot(steps, values, color=ARMS[1], linewidth=2, marker=_dot(steps))
        if aim is not None:
            axes.axhline(aim, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
            axes.annotate(
                f"aim: {aim:.0f}", (1, aim), xycoords=("axes fraction", "data"), xytext=(-4, 4 if aim == 0 else -12),
                textcoords="offset points", ha="right", color=MUTED, fontsize=9,
            )  # fmt: skip
        style(axes, heading, "training step")
        note_if_empty(axes, values)
    return as_svg(sheet)


def detector_curves(arms: Sequence[ArmCurve]) -> bytes:
    """mAP50 on the validation images by epoch, the kept epoch ringed, and the training loss, for every arm."""
    return _epoch_curves(arms, "val_map50", "mAP50 on the validation images")


def classifier_curves(draws: Sequence[ArmCurve]) -> bytes:
    """Mean AUC on the images that the epoch is chosen on, the kept epoch ringed, and the training loss, for every draw."""
    return _epoch_curves(draws, "val_auc", "Mean AUC on the images that choose the epoch")


def _epoch_curves(arms: Sequence[ArmCurve], key: str, title: str) -> bytes:
    sheet = Sheet(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = sheet.subplots(1, 2)
    for i, arm in enumerate(arms):
        drawn = look(i, len(arms))
        epochs, scores = _series(arm.lines, "epoch", key)
        epochs = [epoch + 1 for epoch in epochs]
        left.plot(
            epochs,
            scores,
            marker=look_of(i, len(arms)).marker,
            markersize=5,
            label=arm.name,
            **drawn,
        )
        if arm.best_epoch is not None and arm.best_epoch + 1 in epochs:
            at = epochs.index(arm.best_epoch + 1)
            left.plot(
                epochs[at],
                scores[at],
                marker="o",
                markersize=13,
                color=drawn["color"],
                fillstyle="none",
                markeredgewidth=1.8,
            )
        steps, losses = _series(arm.lines, "step", "loss")
        right.plot(steps, losses, label=arm.name, marker=_dot(steps), **drawn)
    style(left, title, "epoch")
    style(right, "Training loss", "training step")
    last = max(
        (line.get_xdata()[-1] for line in left.get_lines() if len(line.get_xdata())), default=1
    )
    left.set_xlim(0.5, last + 0.5)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        note_if_empty(axes, [1.0 for line in axes.get_lines() if len(line.get_xdata())])
    legend(left)
    return as_svg(sheet)


def interval_plot(result: Evaluation, measure: str) -> bytes:
    """Each arm's value with its 95 % interval on one axis, and the paired differences on a second axis with its zero.

    A hollow mark: the interval of the difference includes 0. Small ticks: the single runs.
    """
    names = list(result.arms)
    n = len(names)
    sheet = Sheet(figsize=(WIDTH, 1.35 + 0.46 * n), layout="constrained")
    compared = any(arm.difference is not None for arm in result.arms.values())
    left, right = (
        sheet.subplots(1, 2, width_ratios=(3, 2)) if compared else (sheet.subplots(), None)
    )
    figures = [result.figure(name, measure) for name in names]
    for i, figure in enumerate(figures):
        _interval_row(left, n - 1 - i, figure, (i, n))
    left.set_yticks(range(n), [_in_lines(name) for name in names][::-1])
    left.set_ylim(-0.6, n - 0.4)
    low, high = _span(figures)
    left.set_xlim(low, high)
    note = "" if low == 0 else " (axis does not start at 0)"
    style(left, f"{title(measure)} of each arm{note}", "", across=True)
    if right is not None:
        differences = [
            arm.difference.get(measure) if arm.difference else None for arm in result.arms.values()
        ]
        ends = [abs(e) for d in differences for e in (interval_of(d) or (value_of(d) or 0.0,))]
        for i, difference in enumerate(differences):
            if names[i] in {arm.minus for arm in result.arms.values()} and difference is None:
                right.plot(
                    [0],
                    [n - 1 - i],
                    marker=look_of(i, n).marker,
                    color=look_of(i, n).colour,
                    markersize=8,
                )
            else:
                _interval_row(
                    right,
                    n - 1 - i,
                    difference,
                    (i, n),
                    hollow=not (difference and difference.excludes_zero),
                )
        reach = 1.25 * max([*ends, 0.02])
        right.axvline(0, color=INK, linewidth=1.1, zorder=1)
        right.set_xlim(-reach, reach)
        right.set_ylim(-0.6, n - 0.4)
        right.set_yticks([])
        style(right, f"Paired difference: {_found(differences)}", "", across=True)
    return as_svg(sheet)


def _in_lines(name: str) -> str:
    """A name of an arm beside its row, whole if it fits."""
    lines = wrap(cut_in_middle(name, 2 * _LINE - 6), _LINE, break_on_hyphens=True)
    return literal("\n".join(lines))


def _found(differences: Sequence[Figure | None]) -> str:
    """What the differences show, for a title."""
    known = [d.excludes_zero for d in differences if d is not None and d.ci95 is not None]
    if not known:
        return "no interval"
    if len(known) == 1:
        return "shown" if known[0] else "not shown"
    return f"{sum(map(bool, known))} of {len(known)} shown"


def class_bars(result: Evaluation, measure: str) -> bytes:
    """A measure of each class with its 95 % interval, one mark an arm; classes by how often they occur."""
    names = list(result.arms)
    rows = [(name, arm.figures) for name, arm in result.arms.items()]
    counted = COUNT_OF_CLASS[result.kind]
    classes = sorted(
        dict.fromkeys(c for _, split in rows for c in split.per_class),
        key=lambda c: -(class_count(rows, c, counted) or 0),
    )
    step = 0.2 if len(names) > 1 else 0.3
    sheet = Sheet(
        figsize=(WIDTH, 1.2 + max(1, len(classes)) * (0.2 + step * len(names))),
        layout="constrained",
    )
    axes = sheet.subplots()
    height = 0.72 / max(1, len(names))
    found: list[float] = []
    for i, name in enumerate(names):
        own = look_of(i, len(names))
        for row, class_name in enumerate(classes):
            figure = result.figure(name, measure, class_name)
            y = row + (i - (len(names) - 1) / 2) * height
            value, ends = value_of(figure), interval_of(figure)
            if value is None:
                axes.text(0, y, f" {NOT_DEFINED}", va="center", color=MUTED, fontsize=9)
                continue
            if ends is not None:
                axes.plot(ends, [y, y], color=own.colour, linewidth=2, solid_capstyle="butt")
            axes.plot([value], [y], marker=own.marker, color=own.colour, markersize=6)
            found.append(value if ends is None else max(value, ends[1]))
        axes.plot(
            [], [], marker=own.marker, color=own.colour, markersize=6, linewidth=2, label=name
        )
    labels = [
        _class_label(c, class_count(rows, c, counted), count_title(counted, plural=True))
        for c in classes
    ]
    axes.set_yticks(range(len(classes)), labels)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, min(1.05, max([*found, 0.05]) * 1.08))
    style(axes, f"{title(measure)} of each class, with 95 % intervals", "", across=True)
    if classes and len(names) > 1:
        legend(axes, outside=True)
    note_if_empty(axes, [1.0] * len(classes))
    return as_svg(sheet)


def froc_curves(result: Evaluation) -> bytes:
    """Sensitivity against false positives per image (FROC), with the 95 % intervals of the first and the last arm as bands."""
    sheet, axes = froc_sheet(result)
    legend(axes)
    return as_svg(sheet)


def froc_sheet(result: Evaluation) -> tuple[Sheet, Axes]:
    """The same before its legend is drawn, for whoever adds points."""
    names = list(result.arms)
    sheet = Sheet(figsize=(WIDTH, 4.2), layout="constrained")
    axes = sheet.subplots()
    rates = [float(rate) for rate in FROC_RATES]
    drawn: list[float] = []
    for i, name in enumerate(names):
        own = look_of(i, len(names))
        figures = [result.figure(name, f"froc@{rate}") for rate in FROC_RATES]
        points = [
            (rate, value)
            for rate, f in zip(rates, figures, strict=True)
            if (value := value_of(f)) is not None
        ]
        bands = [
            (rate, *ends)
            for rate, f in zip(rates, figures, strict=True)
            if (ends := interval_of(f)) is not None
        ]
        axes.plot(
            *_columns(points, 2), marker=own.marker, markersize=6, label=name, **look(i, len(names))
        )
        if own.role != "other":
            rate_column, low, high = _columns(bands, 3)
            axes.fill_between(rate_column, low, high, color=own.colour, alpha=0.14, linewidth=0)
        drawn += [value for _, value in points]
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, [f"1/{round(1 / r)}" if r < 1 else f"{r:.0f}" for r in rates])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    style(
        axes,
        "Sensitivity: share of the true boxes that are found",
        "false positives per image, logarithmic",
    )
    note_if_empty(axes, drawn)
    return sheet, axes


def fraction_curves(result: Evaluation, measure: str) -> bytes:
    """A measure against the share of the training images, one line a family of arms, with 95 % intervals."""
    sheet = Sheet(figsize=(WIDTH, 4.2), layout="constrained")
    axes = sheet.subplots()
    families = result.families
    drawn: list[float] = []
    for i, (family, points) in enumerate(families.items()):
        own = look_of(i, len(families))
        figures = [(share, result.figure(name, measure)) for share, name in points.items()]
        known = [(share, value) for share, f in figures if (value := value_of(f)) is not None]
        axes.plot(
            *_columns(known, 2),
            marker=own.marker,
            markersize=6,
            label=family,
            **look(i, len(families)),
        )
        for share, figure in figures:
            if ends := interval_of(figure):
                nudge = 1.02 ** (i - (len(families) - 1) / 2)
                axes.plot([share * nudge] * 2, ends, color=own.colour, linewidth=1.4, alpha=0.8)
        drawn += [value for _, value in known]
    shares = result.fractions
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
    axes.minorticks_off()
    style(
        axes,
        f"{title(measure)} by share of the labelled training images",
        "share of labels, logarithmic",
    )
    note_if_empty(axes, drawn)
    legend(axes, outside=len(families) > 2)  # lines of several arms leave no corner free
    return as_svg(sheet)


def _interval_row(
    axes: Axes, y: int, figure: Figure | None, arm: tuple[int, int], *, hollow: bool = False
) -> None:
    value, ends, own = value_of(figure), interval_of(figure), look_of(*arm)
    if value is None:
        axes.annotate(
            NOT_DEFINED,
            (0.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            color=MUTED,
            fontsize=10,
        )
        return
    if ends is not None:
        axes.plot(ends, [y, y], color=own.colour, linewidth=2.75, solid_capstyle="butt")
    face = CARD if hollow else own.colour
    axes.plot(
        [value],
        [y],
        marker=own.marker,
        color=own.colour,
        markerfacecolor=face,
        markersize=8.5,
        markeredgewidth=2,
    )
    runs = [v for row in (figure.runs if figure else ()) for v in row if v is not None]
    if len(runs) > 1:
        axes.plot(runs, [y - 0.3] * len(runs), "|", color=INK, markersize=6, alpha=0.75)


def _span(figures: Sequence[Figure | None]) -> tuple[float, float]:
    """From 0, or from near the least value where that is far from 0."""
    known = [v for f in figures for v in (value_of(f), *(interval_of(f) or ())) if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.05)
    room = max(0.15 * (high - low), 0.01)
    return (0.0 if low < 2 * (high - low) else max(0.0, low - room)), max(high + room, 0.05)


def _class_label(name: str, n: int | None, noun: str) -> str:
    shown = cut_in_middle(name, 24)
    return literal(shown if n is None else f"{shown}\n{count(n)} {noun}")


def _columns(rows: Sequence[tuple[float, ...]], width: int) -> list[list[float]]:
    return [[row[i] for row in rows] for i in range(width)]


def _series(lines: Lines, x: str, y: str) -> tuple[list[float], list[float]]:
    points = [(finite(line.get(x)), finite(line.get(y))) for line in lines]
    kept = [(a, b) for a, b in points if a is not None and b is not None]
    return [a for a, _ in kept], [b for _, b in kept]


def _dot(values: Sequence[float]) -> str:
    """A single point makes no line: show it as a dot."""
    return "o" if len(values) == 1 else ""

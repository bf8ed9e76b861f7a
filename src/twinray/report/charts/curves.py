"""Charts of the report: training curves, intervals, average precision by class, FROC. Each returns SVG bytes.

Matplotlib's objects are used without its global state, so several threads may draw at once. What does not
exist (null, NaN) is left out of a curve and named in a bar chart.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from twinray.report.fonts import all_letters, cut_in_middle, literal
from twinray.report.numbers import NOT_DEFINED, Figure, count, finite, interval_of, number, value_of
from twinray.report.palette import ARMS, DASHES, FOR_DARK, GRID, INK, MARKERS, MUTED
from twinray.report.tables import FROC_RATES

WIDTH = 9.2  # inches; 72 points each, so that 10-point text is easy to read on a page 880 pixels wide
_PRETRAINING = (
    ("loss", "Loss", None),
    ("mean_c_ii", "Agreement of the two views, mean C_ii", 1.0),
    ("rms_c_ij", "Redundancy, RMS C_ij", 0.0),
    ("effective_rank", "Effective rank of the embedding", None),
)
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
        lines: of the pre-training's ``metrics.jsonl``.
    """
    sheet = Sheet(figsize=(WIDTH, 5.2), layout="constrained")
    for axes, (key, title, aim) in zip(sheet.subplots(2, 2).flat, _PRETRAINING, strict=True):
        steps, values = _series(lines, "step", key)
        axes.plot(steps, values, color=ARMS[1], linewidth=2, marker=_dot(steps))
        if aim is not None:
            axes.axhline(aim, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2)
            axes.annotate(
                f"aim: {aim:.0f}", (1, aim), xycoords=("axes fraction", "data"), xytext=(-4, 4 if aim == 0 else -12),
                textcoords="offset points", ha="right", color=MUTED, fontsize=9,
            )  # fmt: skip
        style(axes, title, "training step")
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
        drawn = look(i)
        epochs, scores = _series(arm.lines, "epoch", key)
        epochs = [epoch + 1 for epoch in epochs]
        left.plot(epochs, scores, marker=MARKERS[i % 4], markersize=5, label=arm.name, **drawn)
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
    last = max((line.get_xdata()[-1] for line in left.get_lines() if len(line.get_xdata())), default=1)
    left.set_xlim(0.5, last + 0.5)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        note_if_empty(axes, [1.0 for line in axes.get_lines() if len(line.get_xdata())])
    legend(left)
    return as_svg(sheet)


def interval_plot(arms: Mapping[str, Figure | None], difference: Figure | None, measure: str = "mAP50") -> bytes:
    """Each arm's value with its 95 % interval on one axis, and the paired difference on a second axis with its zero."""
    sheet = Sheet(figsize=(WIDTH, 1.5 + 0.42 * len(arms)), layout="constrained")
    left, right = sheet.subplots(1, 2, width_ratios=(3, 2))
    for i, (_, figure) in enumerate(arms.items()):
        _interval_row(left, len(arms) - 1 - i, figure, ARMS[i % 4], MARKERS[i % 4])
    left.set_yticks(range(len(arms)), [literal(cut_in_middle(name, 26)) for name in arms][::-1])
    left.set_ylim(-0.6, len(arms) - 0.4)
    left.set_xlim(0, _upper(list(arms.values())))
    style(left, f"{measure} on the test images", "", across=True)
    _interval_row(right, 0, difference, INK, "D")
    ends = [abs(e) for e in (interval_of(difference) or (value_of(difference) or 0.0,))]
    reach = 1.25 * max([*ends, 0.02])
    right.axvline(0, color=MUTED, linewidth=1.4, linestyle=(0, (2, 2)))
    right.set_xlim(-reach, reach)
    right.set_ylim(-0.9, 0.9)
    right.set_yticks([])
    style(right, "Paired difference (0: none)", "", across=True)
    return as_svg(sheet)


def class_bars(arms: Mapping[str, Mapping[str, Any]], measure: str = "ap50") -> bytes:
    """Average precision of each class with its 95 % interval, one bar an arm.

    Args:
        arms: arm name -> figures of one split as ``metrics.json`` holds them.
        measure: ``ap50``, ``ap40`` or ``ap``.
    """
    classes = list(dict.fromkeys(c for split in arms.values() for c in split.get("per_class") or {}))
    sheet = Sheet(figsize=(WIDTH, 1.1 + max(1, len(classes)) * (0.3 + 0.24 * len(arms))), layout="constrained")
    axes = sheet.subplots()
    height = 0.76 / max(1, len(arms))
    found: list[float] = []
    for i, (arm, split) in enumerate(arms.items()):
        for row, name in enumerate(classes):
            figure = (split.get("per_class") or {}).get(name, {}).get(measure)
            y = row + (i - (len(arms) - 1) / 2) * height
            found += _bar(axes, y, height, figure, i)
        axes.barh([0], [0], color=ARMS[i % 4], label=arm)
    axes.set_yticks(range(len(classes)), [_class_label(name, arms) for name in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, min(1.15, max([*found, 0.05]) * 1.12))
    style(
        axes,
        f"Average precision at IoU 0.5 ({measure.upper()})" if measure == "ap50" else measure.upper(),
        "",
        across=True,
    )
    if classes:
        legend(axes, outside=True)
    note_if_empty(axes, [1.0] * len(classes))
    return as_svg(sheet)


def froc_curves(arms: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Sensitivity against false positives per image (FROC), with 95 % intervals as bands.

    Args:
        arms: arm name -> figures of one split as ``metrics.json`` holds them.
    """
    sheet = Sheet(figsize=(WIDTH, 3.9), layout="constrained")
    axes = sheet.subplots()
    rates = [float(rate) for rate in FROC_RATES]
    drawn: list[float] = []
    for i, (arm, split) in enumerate(arms.items()):
        figures = [split.get(f"froc@{rate}") for rate in FROC_RATES]
        points = [(rate, value) for rate, f in zip(rates, figures, strict=True) if (value := value_of(f)) is not None]
        bands = [(rate, *ends) for rate, f in zip(rates, figures, strict=True) if (ends := interval_of(f)) is not None]
        axes.plot(*_columns(points, 2), marker=MARKERS[i % 4], markersize=6, label=arm, **look(i))
        rate_column, low, high = _columns(bands, 3)
        axes.fill_between(rate_column, low, high, color=ARMS[i % 4], alpha=0.14, linewidth=0)
        drawn += [value for _, value in points]
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, [f"1/{round(1 / r)}" if r < 1 else f"{r:.0f}" for r in rates])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    style(axes, "Sensitivity: share of the true boxes that are found", "false positives per image")
    note_if_empty(axes, drawn)
    legend(axes)
    return as_svg(sheet)


def _interval_row(axes: Axes, y: int, figure: Figure | None, colour: str, marker: str) -> None:
    value, ends = value_of(figure), interval_of(figure)
    if value is None:
        axes.annotate(NOT_DEFINED, (0.02, y), xycoords=("axes fraction", "data"), va="center", color=MUTED, fontsize=10)
        return
    if ends is not None:
        axes.plot(ends, [y, y], color=colour, linewidth=3, solid_capstyle="butt")
        for end in ends:
            axes.plot([end, end], [y - 0.13, y + 0.13], color=colour, linewidth=2)
    axes.plot([value], [y], marker=marker, color=colour, markersize=9)


def _bar(axes: Axes, y: float, height: float, figure: Figure | None, arm: int) -> list[float]:
    """One bar with its interval and its value; returns the x that must be on the chart."""
    value, ends = value_of(figure), interval_of(figure)
    if value is None:
        axes.text(0, y, f" {NOT_DEFINED}", va="center", color=MUTED, fontsize=9)
        return []
    axes.barh(y, value, height * 0.9, color=ARMS[arm % 4])
    reach = value if ends is None else max(value, ends[1])
    if ends is not None:
        axes.plot(ends, [y, y], color=INK, linewidth=1.3)
        for end in ends:
            axes.plot([end, end], [y - height * 0.22, y + height * 0.22], color=INK, linewidth=1.3)
    axes.annotate(
        number(value, 2), (reach, y), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=9.5
    )
    return [reach]


def _class_label(name: str, arms: Mapping[str, Mapping[str, Any]]) -> str:
    shown = cut_in_middle(name, 24)
    boxes = [(split.get("per_class") or {}).get(name, {}).get("n_boxes") for split in arms.values()]
    known = next((n for n in boxes if n is not None), None)
    return literal(shown if known is None else f"{shown}\n{count(known, 'box', 'boxes')}")


def _columns(rows: Sequence[tuple[float, ...]], width: int) -> list[list[float]]:
    return [[row[i] for row in rows] for i in range(width)]


def _upper(figures: Sequence[Figure | None]) -> float:
    known = [v for f in figures for v in (value_of(f), *(interval_of(f) or ())) if v is not None]
    return float(min(1.0, 1.15 * max([*known, 0.05])))


def _series(lines: Lines, x: str, y: str) -> tuple[list[float], list[float]]:
    points = [(finite(line.get(x)), finite(line.get(y))) for line in lines]
    kept = [(a, b) for a, b in points if a is not None and b is not None]
    return [a for a, _ in kept], [b for _, b in kept]


def _dot(values: Sequence[float]) -> str:
    """A single point makes no line: show it as a dot."""
    return "o" if len(values) == 1 else ""


def look(arm: int) -> dict[str, Any]:
    """Colour and line of an arm, by its place in the table."""
    return {"color": ARMS[arm % 4], "linestyle": DASHES[arm % 4], "linewidth": 2}


def style(axes: Axes, title: str, x_label: str, *, across: bool = False) -> None:
    """A chart's title, its lower label, its grid and its spines; ``across`` for charts that run from left to right."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=8)
    axes.set_xlabel(x_label, fontsize=10, color=MUTED)
    if x_label.endswith(("step", "epoch")):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_facecolor("none")
    axes.grid(axis="x" if across else "y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK if across else MUTED, colors=MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side == ("left" if across else "bottom"))
        spine.set_color(MUTED)


def legend(axes: Axes, *, outside: bool = False) -> None:
    """The names of the arms, inside where there is room, or above the chart."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    place: dict[str, Any] = {"loc": "best"}
    if outside:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": len(handles), "borderaxespad": 0.2}
    drawn = axes.legend(
        handles,
        [literal(name) for name in names],
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=2.6,
        **place,
    )
    drawn.set_zorder(5)


def note_if_empty(axes: Axes, values: Sequence[float]) -> None:
    """Say so where there is nothing to draw."""
    if not values:
        axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=11)


def as_svg(sheet: Sheet) -> bytes:
    """The same chart gives the same bytes; colours follow the reader's light or dark page."""
    sheet.patch.set_alpha(0)
    out = io.BytesIO()
    canvas = FigureCanvasSVG(sheet)
    with all_letters(sheet):
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
    return adapt_svg(out.getvalue().decode("utf-8"))


def adapt_svg(text: str) -> bytes:
    """Number the ids (Matplotlib draws them at random) and add the colours for dark pages."""
    numbers = itertools.count()
    names: dict[str, str] = {}
    for found in re.findall(r'id="([mphc][0-9a-f]{10})"', text):
        names.setdefault(found, f"t{next(numbers)}")
    for old, new in names.items():
        text = text.replace(old, new)
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in FOR_DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda m: m.group(1) + style, text, count=1).encode("utf-8")

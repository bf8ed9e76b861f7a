"""Charts of what a study is worth: two label curves with their distance, and FROC with readers as points. Each returns SVG bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure as Sheet

from twinray.evaluation.measures import measure as measure_of
from twinray.evaluation.measures import title
from twinray.evaluation.readers.ceiling import ALL_READERS, ReaderFigures
from twinray.evaluation.result import Evaluation
from twinray.evaluation.worth.gain import Gain, LabelCurve
from twinray.report.charts.curves import froc_sheet
from twinray.report.charts.sheet import (
    WIDTH,
    Chart,
    as_svg,
    legend,
    look,
    note_if_empty,
    style,
)
from twinray.report.numbers import finite, interval_of, value_of
from twinray.report.palette import ARMS, CARD, INK, MUTED, look_of


def label_curves(baseline: LabelCurve, candidate: LabelCurve, found: Gain, measure: str) -> Chart:
    """A figure against labelled patients for two arms, and the distance between them at the level of the gain.

    Points are means over seeds, small marks single runs, lines the monotone curves. The band on the level is the interval of
    the patients that the other arm needs; an arrow that ends at a bound says that the curve never met the level.

    Args:
        baseline, candidate: arms.
        found: their gain.
        measure: name of the figure.
    """
    sheet = Sheet(figsize=(WIDTH, 4.4), layout="constrained")
    axes = sheet.subplots()
    better = measure_of(measure).better
    for i, arm in enumerate((baseline, candidate)):
        own = look_of(i, 2)
        for n, runs in zip(arm.patients, arm.values, strict=True):
            axes.plot([n] * len(runs), runs, "|", color=own.colour, markersize=5, alpha=0.6)
        axes.plot(arm.patients, arm.means, own.marker, color=own.colour, markersize=6)
        axes.plot(arm.patients, arm.fitted(better), label=arm.name, **look(i, 2))
    least, most = found.needed.least, found.needed.most
    end = _within(found.needed.value, least, most)
    if not math.isnan(found.needed.low):
        low, high = (_within(x, least, most) for x in (found.needed.low, found.needed.high))
        axes.plot(
            [low, high],
            [found.level] * 2,
            color=MUTED,
            linewidth=7,
            alpha=0.28,
            solid_capstyle="butt",
        )
    axes.annotate(
        "",
        (end, found.level),
        (found.at, found.level),
        arrowprops={
            "arrowstyle": "->" if math.isinf(found.needed.value) else "<->",
            "color": INK,
            "lw": 1.6,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    middle = math.sqrt(max(end, 1e-9) * found.at)
    right = middle > math.sqrt(baseline.patients[0] * baseline.patients[-1])
    axes.annotate(
        found.patients.told() + " patients",
        (max(end, found.at) if right else min(end, found.at), found.level),
        xytext=(0, -9),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=10,
        color=INK,
        bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.5},
        zorder=5,
    )
    axes.set_xscale("log")
    ticks = sorted({*baseline.patients, *candidate.patients})
    axes.set_xticks(ticks, [f"{n:,.0f}" for n in ticks])
    axes.minorticks_off()
    axes.margins(y=0.12)
    style(axes, f"{title(measure)} by labelled patients", "labelled training patients, logarithmic")
    legend(axes)
    return as_svg(sheet)


def _within(n: float, least: float, most: float) -> float:
    """A number of patients on the axis; bounds end where measuring does."""
    return least if n == -math.inf else most if n == math.inf else n


def froc_with_readers(result: Evaluation, readers: Sequence[ReaderFigures]) -> Chart:
    """FROC curves of arms, and each reader as a point with the intervals of both its coordinates.

    Readers are measured against the other readers' fused boxes; curves belong beside them where they were
    measured against the same boxes.

    Args:
        result: arms with FROC figures.
        readers: readers, and all together, whose point has its name.
    """
    sheet, axes = froc_sheet(result)
    drawn: list[float] = []
    named = False
    for one in readers:
        x, y = value_of(one.false_positives), value_of(one.sensitivity)
        if x is None or y is None or finite(x) is None or x <= 0:
            continue  # no false positive at all has no place on a logarithmic axis
        whole = one.name == ALL_READERS
        colour = ARMS[2] if whole else ARMS[3]
        across, up = interval_of(one.false_positives), interval_of(one.sensitivity)
        if across is not None and across[0] > 0:
            axes.plot(across, [y, y], color=colour, linewidth=1.2, alpha=0.7)
        if up is not None:
            axes.plot([x, x], up, color=colour, linewidth=1.2, alpha=0.7)
        label = ALL_READERS if whole else "" if named else "a reader against the others"
        named = named or not whole
        axes.plot(
            [x],
            [y],
            "D" if whole else "P",
            color=colour,
            markersize=9 if whole else 7,
            label=label or None,
            linestyle="none",
            zorder=4,
        )
        drawn.append(y)
    note_if_empty(axes, [*drawn, *(1.0 for _ in result.arms)])
    legend(axes)
    return as_svg(sheet)

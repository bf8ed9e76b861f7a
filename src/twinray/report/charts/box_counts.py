"""Bar charts of how many boxes each class has, before and after fusion, and of how many images each label has.

The first is figure 2 and the second figure 1 of the chest X-ray paper, drawn side by side in one panel for comparison.
Matplotlib's objects are used without its global state. The same counts give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from twinray.report.fonts import all_letters
from twinray.report.palette import ARMS, GRID, INK, MUTED

ImageKind = Literal["png", "svg", "pdf"]
KINDS: tuple[ImageKind, ...] = ("png", "svg", "pdf")

_WIDTH = 9.2
_ROW = 0.23  # inches a bar, with its gap
_MARGIN = 1.15


@dataclass(frozen=True)
class Panel:
    """One bar chart: a bar a class, or two where there is an after.

    Attributes:
        title: name of what is counted.
        before: class -> count.
        after: class -> count after fusion, of the same classes; None: there was no fusion.
        names: names of the two.
    """

    title: str
    before: Mapping[str, int]
    after: Mapping[str, int] | None = None
    names: tuple[str, str] = ("before fusion", "after fusion")


def box_counts_chart(panels: tuple[Panel, ...], kind: ImageKind) -> bytes:
    """Draw the panels one below the other; classes by count, the most frequent on top.

    Args:
        panels: panels, at least one.
        kind: file format of the answer.
    """
    rows = [
        max(1, len(panel.before)) * (2 if panel.after is not None else 1.2) * _ROW + _MARGIN
        for panel in panels
    ]
    sheet = Sheet(figsize=(_WIDTH, sum(rows)), layout="constrained")
    FigureCanvasAgg(sheet)
    sheet.get_layout_engine().set(h_pad=0.16)  # type: ignore[union-attr, call-arg]
    grid = sheet.subplots(len(panels), 1, height_ratios=rows, squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw(axes, panel)
    out = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.hashsalt": "twinray", "svg.fonttype": "path"}),
        all_letters(sheet),
    ):
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        sheet.savefig(out, format=kind, dpi=160, metadata=metadata)
    return _numbered(out.getvalue()) if kind == "svg" else out.getvalue()


def _numbered(svg: bytes) -> bytes:
    """The same chart with its clip paths numbered: Matplotlib names them by where they are in memory."""
    for number, name in enumerate(dict.fromkeys(re.findall(rb'id="(p[0-9a-f]{10})"', svg))):
        svg = svg.replace(name, b"clip%d" % number)
    return svg


def _draw(axes: Axes, panel: Panel) -> None:
    classes = sorted(panel.before, key=lambda name: (panel.before[name], name))
    places = range(len(classes))
    series: list[tuple[str, Mapping[str, int], str, str | None]] = [
        (panel.names[0], panel.before, ARMS[1], None)
    ]
    if panel.after is not None:
        series = [
            (panel.names[0], panel.before, ARMS[0], None),
            (panel.names[1], panel.after, ARMS[1], "//"),
        ]
    thick = 0.8 / len(series)
    for i, (name, counts, colour, hatch) in enumerate(series):
        at = [place + (len(series) - 1) * thick / 2 - i * thick for place in places]
        values = [counts.get(c, 0) for c in classes]
        label = f"{name}: {sum(values):,}" if panel.after is not None else None
        bars = axes.barh(
            at,
            values,
            height=thick * 0.92,
            color=colour,
            label=label,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
        )
        axes.bar_label(
            bars, labels=[f"{value:,}" for value in values], padding=4, fontsize=8.5, color=INK
        )
    axes.set_yticks(list(places), classes, fontsize=10, color=INK)
    axes.set_ylim(-0.6, max(1, len(classes)) - 0.4)
    most = max([*panel.before.values(), *(panel.after or {}).values(), 1])
    axes.set_xlim(0, most * 1.12)
    axes.set_title(panel.title, loc="left", fontsize=12, color=INK, pad=10)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="x", colors=MUTED, labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    if panel.after is not None:
        axes.legend(loc="lower right", frameon=False, fontsize=10, labelcolor=INK)

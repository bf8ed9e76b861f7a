"""What all charts of curves and figures share: how an arm looks, a chart's title and grid, its legend, its bytes.

Matplotlib's objects are used without its global state, so several threads may draw at once. Charts have a ground of their own and
real text, and follow the reader's light or dark screen.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from twinray.report.fonts import all_letters, cut_in_middle, literal
from twinray.report.palette import CARD, FOR_DARK, GRID, INK, MUTED, look_of

WIDTH = (
    9.2  # inches; 72 points each, so that 10-point text is easy to read on a page 880 pixels wide
)
_ROW = 0.22
"""Height of a legend's row, inches."""
MOST_INSIDE = 8
"""Names that a chart has room for among its lines."""
_FONTS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "twinray",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Segoe UI", "Helvetica Neue", "Arial"],
}


_BESIDE_NAME, _LETTER = 0.8, 0.088
"""Width of a legend's line and gaps, and of a letter, inches."""
_NAMES: Any = {"frameon": False, "fontsize": 10, "labelcolor": INK, "handlelength": 2.6}
"""How names in a legend look."""
_OVER_MATRIX = 30
"""Letters of a line above a confusion matrix."""


def look(arm: int, arms: int) -> dict[str, Any]:
    """Colour and line of an arm, by its place in the order given."""
    own = look_of(arm, arms)
    width = 1.6 if own.role == "other" else 2.2
    return {
        "color": own.colour,
        "linestyle": own.dash,
        "linewidth": width,
        "zorder": 2 if own.role == "other" else 3,
    }


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


def over_matrix(title: str) -> str:
    """A title in lines that fit above a confusion matrix, which is narrower than its sheet."""
    return fill(title, _OVER_MATRIX)


def legend(axes: Axes, *, outside: bool = False, letters: int = 40) -> None:
    """The names of the arms, inside where there is room, or below the chart."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    shown = [cut_in_middle(name, letters) for name in names]
    if outside or len(handles) > MOST_INSIDE:
        below(axes.get_figure(), handles, shown)
        return
    drawn = axes.legend(handles, list(map(literal, shown)), loc="best", **_NAMES)
    drawn.set_zorder(5)


def below(sheet: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Names once, below all charts of a sheet, in as many columns as its width holds.

    The sheet grows by their rows: of dozens of runs they would leave the charts no height, and beside each other no width.
    """
    column = _BESIDE_NAME + _LETTER * max(map(len, names))
    columns = max(1, min(len(names), int(sheet.get_figwidth() / column)))
    sheet.set_figheight(sheet.get_figheight() + _ROW * math.ceil(len(names) / columns))
    sheet.legend(handles, list(map(literal, names)), loc="outside lower left", ncols=columns, **_NAMES)  # fmt: skip


def note_if_empty(axes: Axes, values: Sequence[float]) -> None:
    """Say so where there is nothing to draw."""
    if not values:
        axes.text(
            0.5,
            0.5,
            "no figures",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=MUTED,
            fontsize=11,
        )


class Chart(bytes):
    """An SVG file, and the sheet that it was drawn from, for whoever wants it in another format."""

    sheet: Sheet

    def as_png(self, dpi: int = 200) -> bytes:
        """The same in light colours, on a white ground."""
        out = io.BytesIO()
        with matplotlib.rc_context(_FONTS), all_letters(self.sheet):
            FigureCanvasAgg(self.sheet).print_figure(out, format="png", dpi=dpi, facecolor=CARD)
        return out.getvalue()


def as_svg(sheet: Sheet) -> Chart:
    """The same chart gives the same bytes; colours follow the reader's light or dark page.

    It has a ground of its own, its texts are text, and its title is what readers who do not see it are told.
    """
    sheet.patch.set_facecolor(CARD)
    out = io.BytesIO()
    canvas = FigureCanvasSVG(sheet)
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(_FONTS), all_letters(sheet):
        canvas.print_svg(out, metadata={**nothing, "Title": _title(sheet)})  # type: ignore[no-untyped-call]
    chart = Chart(adapt_svg(out.getvalue().decode("utf-8")))
    chart.sheet = sheet
    return chart


def _title(sheet: Sheet) -> str:
    """The titles of a sheet's charts, in one line."""
    titles = (axes.get_title(loc="left") for axes in sheet.axes if axes.get_visible())
    return "; ".join(
        dict.fromkeys(" ".join(text.replace("\\$", "$").split()) for text in titles if text)
    )


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

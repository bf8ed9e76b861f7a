"""Faithfulness of heat maps for people: a table, a CSV, and bars with intervals.

Figures come as ``{map: {measure: {"value", "ci95", "n"}, "n_boxes", "per_class", "over_floor"}}``.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet

from twinray.about import DISCLAIMER
from twinray.evaluation.record import Figure, read_figure
from twinray.report.fonts import literal
from twinray.report.numbers import NOT_DEFINED, count, interval, interval_of, number, value_of
from twinray.report.palette import ARMS, GRID, INK, MUTED
from twinray.report.tables import Table

HEADINGS = {
    "pointing": ("Pointing game", "peak inside the true box", True),
    "energy": ("Energy", "share inside the true box", True),
    "empty": ("Empty", "share of maps with nothing in them", False),
    "deletion": ("Deletion", "score left, area under the curve", False),
    "insertion": ("Insertion", "score regained, area under the curve", True),
    "localised@0.1": (
        "Localised, IoU 0.1",
        "share of findings hit by a box round the map's half",
        True,
    ),
    "localised@0.3": (
        "Localised, IoU 0.3",
        "share of findings hit by a box round the map's half",
        True,
    ),
    "localised@0.5": (
        "Localised, IoU 0.5",
        "share of findings hit by a box round the map's half",
        True,
    ),
    "iou": ("IoU", "of the map above half of its peak", True),
}
"""Of each measure: title, what it is, whether more is better."""
FLOOR_NAMES = {
    "box": "floor: box, filled",
    "gaussian": "floor: Gaussian in box",
    "proposal": "floor: proposal, filled",
    "whole": "floor: whole image",
    "middle": "floor: middle",
    "elsewhere": "floor: class prior",
}
_FLOOR_COLOUR = "#9aa4b0"
Figures = Mapping[str, Mapping[str, Any]]


def faithfulness_table(
    figures: Figures,
    measures: Sequence[str],
    found: tuple[str, str] = ("correctly found box", "correctly found boxes"),
) -> Table:
    """A row a map, a column a measure, each value with its 95 % interval.

    Args:
        figures: figures of one set of boxes or findings.
        measures: columns, from left to right.
        found: name of what was measured, one and several.
    """
    rows = tuple(
        (FLOOR_NAMES.get(name, name), *(_cell(read_figure(own[m], name)) for m in measures))
        for name, own in figures.items()
    )
    boxes = next(iter(figures.values()))["n_boxes"]
    caption = f"Faithfulness of heat maps on {count(boxes, *found)} (95 % interval)"
    note = (
        "Empty and deletion: lower is better; all others: higher. An empty map points nowhere. A map that does not beat the "
        "floors says no more than they do."
    )
    return Table(caption, ("map", *(_head(m) for m in measures)), rows, note)


def faithfulness_csv(figures: Figures, measures: Sequence[str]) -> str:
    """All digits, one row a figure: class (empty: all), map, measure, value, low, high, patients, boxes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("class", "map", "measure", "value", "low", "high", "patients", "boxes"))
    for name, own in figures.items():
        for class_name, part in {"": own, **own.get("per_class", {})}.items():
            for measure in measures:
                figure = read_figure(part[measure], name)
                value, ends = value_of(figure), interval_of(figure) or ("", "")
                writer.writerow(
                    (
                        class_name,
                        name,
                        measure,
                        "" if value is None else value,
                        *ends,
                        figure.n,
                        part["n_boxes"],
                    )
                )
    return out.getvalue()


def faithfulness_chart(figures: Figures, measures: Sequence[str], title: str) -> Sheet:
    """Bars with 95 % intervals: a panel a measure, a row a map, floors in grey below.

    Args:
        figures: figures of one set of boxes.
        measures: panels, from left to right.
        title: name of what was explained.
    """
    names = [n for n in figures if n not in FLOOR_NAMES] + [n for n in figures if n in FLOOR_NAMES]
    sheet = Sheet(
        figsize=(2.1 + 2.6 * len(measures), 1.75 + 0.34 * len(names)),
        layout="constrained",
        facecolor="white",
    )
    sheet.get_layout_engine().set(w_pad=0.09)  # type: ignore[union-attr, call-arg]
    grid = sheet.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(grid, measures, strict=True):
        _bars(
            axes,
            [read_figure(figures[name][measure], name) for name in names],
            [name in FLOOR_NAMES for name in names],
            measure,
        )
    grid[0].set_yticks(range(len(names)), [literal(FLOOR_NAMES.get(name, name)) for name in names])
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    width = round(13.5 * sheet.get_figwidth())
    sheet.suptitle(
        literal("\n".join(textwrap.wrap(title, round(width * 0.8)))),
        x=0.01,
        ha="left",
        fontsize=11.5,
        color=INK,
        fontweight="bold",
    )
    note = f"Lines: 95 % interval over patients. A map that does not beat the floors says no more than they do. {DISCLAIMER}."
    sheet.supxlabel(
        "\n".join(textwrap.wrap(note, width)), x=0.01, ha="left", fontsize=9, color=MUTED
    )
    return sheet


def _head(measure: str) -> str:
    title, _, more = HEADINGS[measure]
    return f"{title.lower()} {'↑' if more else '↓'}"


def _cell(figure: Figure) -> str:
    value = number(value_of(figure), 2)
    return f"{value}\n{interval(figure, 2)}" if interval_of(figure) else value


def _bars(axes: Axes, figures: Sequence[Figure], floors: Sequence[bool], measure: str) -> None:
    title, what, more = HEADINGS[measure]
    reach = 0.0
    for row, (figure, is_floor) in enumerate(zip(figures, floors, strict=True)):
        value, ends = value_of(figure), interval_of(figure)
        if value is None:
            axes.annotate(
                NOT_DEFINED,
                (0, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=9,
            )
            continue
        axes.barh(row, value, 0.66, color=_FLOOR_COLOUR if is_floor else ARMS[1], alpha=0.75)
        end = value if ends is None else max(value, ends[1])
        if ends is not None:
            axes.plot(ends, [row, row], color=INK, linewidth=1.4)
            for at in ends:
                axes.plot([at, at], [row - 0.15, row + 0.15], color=INK, linewidth=1.4)
        axes.annotate(
            number(value, 2),
            (end, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=9,
        )
        reach = max(reach, end)
    axes.set_xlim(0, max(reach, 0.02) * 1.28)
    axes.set_title(
        f"{title}: {'more' if more else 'less'} is better",
        loc="left",
        fontsize=10,
        color=INK,
        fontweight="bold",
    )
    axes.set_xlabel(what, fontsize=9, color=MUTED, loc="left")
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8.5, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(MUTED)

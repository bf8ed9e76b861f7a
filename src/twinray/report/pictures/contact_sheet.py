"""Contact sheets: models side by side on the same images, a row an image, with heat maps and true boxes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure as Sheet
from matplotlib.layout_engine import ConstrainedLayoutEngine

from twinray.report.fonts import cut_in_middle, literal
from twinray.report.palette import PICTURE_GROUND, PICTURE_INK
from twinray.report.pictures.panels import Panel, add_legend, draw_panel

ROWS = 8
"""Most rows that one sheet stays readable with."""
_TALLEST, _FLATTEST = 1.5, 0.5
_TITLE, _LINE, _HEADING, _LEGEND = 0.26, 0.17, 0.3, 0.34  # inches


def contact_sheet(
    rows: Sequence[Sequence[Panel]],
    headings: Sequence[str],
    classes: Sequence[Sequence[str]],
    *,
    inches: float = 3.2,
    note: str = "",
) -> Sheet:
    """Rows of panels under the headings of their columns.

    Args:
        rows: as many panels in each as there are headings, the last row perhaps fewer. A title may have several lines.
        headings: headings of the columns; long ones are cut in their middle.
        classes: names, of each column, that labels of its boxes index.
        inches: width of a panel.
        note: small text below.

    Raises:
        ValueError: no row, or rows of unequal length.
    """
    full = all(len(row) == len(headings) for row in rows[:-1])
    if (
        not rows
        or not full
        or not 0 < len(rows[-1]) <= len(headings)
        or len(classes) != len(headings)
    ):
        raise ValueError(
            f"expected rows of {len(headings)} panels, got {[len(row) for row in rows]}"
        )
    tall = [
        min(_TALLEST, max(_FLATTEST, row[0].image.shape[0] / row[0].image.shape[1])) for row in rows
    ]
    lines = textwrap.wrap(note, round(12.5 * inches * len(headings)))
    titles = max(len(panel.title.splitlines()) for row in rows for panel in row)
    title = _TITLE + _LINE * max(0, titles - 1)
    height = inches * sum(tall) + title * len(rows) + _HEADING + _LEGEND + 0.19 * len(lines)
    sheet = Sheet(
        figsize=(inches * len(headings), height),
        layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, rect=(0.006, 0.006, 0.988, 0.988)),
        facecolor=PICTURE_GROUND,
    )
    grid = sheet.subplots(
        len(rows), len(headings), squeeze=False, gridspec_kw={"height_ratios": tall}
    )
    letters = round(inches * 10)
    for number, (row, places) in enumerate(zip(rows, grid, strict=True)):
        for axes in places[len(row) :]:
            axes.set_axis_off()
        for panel, axes, heading, names in zip(row, places, headings, classes, strict=False):
            short = Panel(
                "\n".join(cut_in_middle(line, letters) for line in panel.title.splitlines()), panel.image, panel.truth, panel.predictions, panel.heat_map,
                panel.name_truth,
            )  # fmt: skip
            draw_panel(axes, short, names, inches)
            if number == 0:
                axes.annotate(
                    literal(cut_in_middle(heading, letters - 3)), (0.5, 1.0), xytext=(0, 23 + 12 * max(0, titles - 1)), xycoords="axes fraction",
                    textcoords="offset points", ha="center", color=PICTURE_INK, fontsize=12, fontweight="bold",
                    annotation_clip=False,
                )  # fmt: skip
    if lines:
        sheet.supxlabel(literal("\n".join(lines)), color=PICTURE_INK, fontsize=8.5)
    add_legend(sheet, [panel for row in rows for panel in row])
    return sheet

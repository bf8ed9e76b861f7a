"""A sheet of images beside the views that pre-training makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Sheet

from twinray.report.fonts import cut_in_middle, literal
from twinray.report.palette import PICTURE_GROUND, PICTURE_INK

_INCHES = 1.9
_TITLE = 0.22


def view_sheet(
    rows: Sequence[Sequence[npt.NDArray[np.float32]]],
    headings: Sequence[str],
    names: Sequence[str],
    note: str,
) -> Sheet:
    """One row an image: the image, then its views.

    Args:
        rows: (h, w) grey or (h, w, 3) pixels in 0..1; as many in each row as there are headings.
        headings: headings of the columns.
        names: names of the images.
        note: small text below.
    """
    width, height = _INCHES * len(headings), (_INCHES + _TITLE) * len(rows) + 0.9
    sheet = Sheet(figsize=(width, height), facecolor=PICTURE_GROUND)
    grid = sheet.subplots(
        len(rows),
        len(headings),
        squeeze=False,
        gridspec_kw={
            "left": 0.01, "right": 0.99, "top": 1 - 0.42 / height, "bottom": 0.4 / height,
            "wspace": 0.03, "hspace": _TITLE / _INCHES,
        },
    )  # fmt: skip
    for number, (row, places, name) in enumerate(zip(rows, grid, names, strict=True)):
        for pixels, axes, heading in zip(row, places, headings, strict=True):
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            if number == 0:
                axes.annotate(
                    literal(heading), (0.5, 1.0), xytext=(0, 7), xycoords="axes fraction",
                    textcoords="offset points", ha="center", color=PICTURE_INK, fontsize=10,
                    fontweight="bold", annotation_clip=False,
                )  # fmt: skip
        places[0].annotate(
            literal(cut_in_middle(name, 30)), (0.0, 0.0), xytext=(1, -9), xycoords="axes fraction",
            textcoords="offset points", color=PICTURE_INK, fontsize=7.5, annotation_clip=False,
        )  # fmt: skip
    sheet.text(
        0.01, 0.12 / height, literal(note), color=PICTURE_INK, fontsize=8, ha="left", va="bottom"
    )
    return sheet

"""Pictures for ``predict`` and ``explain``: one image with its boxes; one box with its heat map."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Sheet

from twinray.about import DISCLAIMER
from twinray.records import Boxes, FloatArray
from twinray.report.pictures.panels import EMPTY_MAP, Panel, as_png, panel_row, scaled

__all__ = ["DISCLAIMER", "as_png", "box_picture", "overlay", "picture_name"]

_LONGEST = 60  # bytes of one part of a name; file systems end at 255 for the whole


def overlay(
    image: npt.NDArray[np.uint8],
    classes: Sequence[str],
    predictions: Boxes,
    truth: Boxes | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Sheet:
    """One image with its predicted boxes and, where known, its true ones.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        classes: names that labels of boxes index.
        predictions: boxes with scores, original pixels.
        truth: true boxes, original pixels.
        scale: factors of x and y from original pixels to those of ``image``.
    """
    shown = None if truth is None else scaled(truth, scale)
    panel = Panel("", image, shown, scaled(predictions, scale))
    return panel_row([panel], classes, inches=6.4, note=f"{DISCLAIMER}.")


def box_picture(
    image: npt.NDArray[np.uint8],
    heat_map: FloatArray,
    classes: Sequence[str],
    box: Boxes,
    truth: Boxes | None,
    scale: tuple[float, float],
    definition: str,
) -> Sheet:
    """A predicted box, the true boxes where known, and beside them the heat map of that box.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        heat_map: (h, w) in 0..1.
        classes: names that labels of boxes index.
        box: the one predicted box with its score, original pixels.
        truth: true boxes, original pixels; None where unknown.
        scale: factors of x and y from original pixels to those of ``image``.
        definition: definition of the heat map, in words; printed below.

    Raises:
        ValueError: the heat map has another shape than the image.
    """
    found = scaled(box, scale)
    shown = None if truth is None else scaled(truth, scale)
    panels = [
        Panel("image and boxes", image, shown, found),
        Panel(
            "heat map of the predicted box" if heat_map.any() else EMPTY_MAP,
            image,
            None,
            found,
            heat_map,
        ),
    ]
    note = f"Heat map: {definition}. {DISCLAIMER}." if definition else f"{DISCLAIMER}."
    return panel_row(panels, classes, inches=4.4, note=note)


def picture_name(number: int, *parts: str) -> str:
    """``000007-part-part.png``: a name that every file system takes and that no other number has.

    Letters and digits of every script stay, as do dots and hyphens; runs of anything else become one underscore,
    and long parts are cut.

    Args:
        number: running number of the image, which keeps names apart whose parts are alike.
        parts: parts that the picture shows.
    """
    safe = [re.sub(r"[^\w.-]+", "_", part).strip("._-") for part in parts]
    short = [part.encode("utf-8", "ignore")[:_LONGEST].decode("utf-8", "ignore") for part in safe]
    return "-".join([f"{number:06d}", *(part for part in short if part)]) + ".png"

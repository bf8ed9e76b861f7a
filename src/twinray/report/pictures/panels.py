"""Images with true and predicted boxes and heat maps, side by side.

Boxes here are (n, 4) float xyxy in pixels of the image as shown; whoever calls scales them.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from twinray.records import Boxes, FloatArray
from twinray.report.fonts import all_letters, columns, cut_in_middle, literal
from twinray.report.palette import HEAT, PICTURE_GROUND, PICTURE_INK, PREDICTED_BOX, TRUE_BOX

_DPI = 128


EMPTY_MAP = "empty heat map: nothing speaks for this box"
"""In place of a title, where by its definition the map has nothing in it: a blank picture looks like a fault."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a row.

    Attributes:
        title: above the image.
        image: (h, w) or (h, w, 3) uint8.
        truth: true boxes in pixels of ``image``; None draws none.
        predictions: predicted boxes with scores, in pixels of ``image``; None draws none.
        heat_map: (h, w) in 0..1 laid over the image; None for the image alone.
        name_truth: True to write the class beside each true box.
    """

    title: str
    image: npt.NDArray[np.uint8]
    truth: Boxes | None = None
    predictions: Boxes | None = None
    heat_map: FloatArray | None = None
    name_truth: bool = False


def panel_row(
    panels: Sequence[Panel],
    classes: Sequence[str],
    *,
    inches: float = 3.1,
    note: str = "",
    key: bool = True,
) -> Sheet:
    """Panels side by side: true boxes solid blue, predicted ones dashed yellow with class and score.

    Args:
        panels: panels, at least one.
        classes: names that labels of boxes index.
        inches: width of one panel.
        note: small text below.
        key: legend of the kinds of boxes, above the panels.

    Raises:
        ValueError: no panel, or a heat map of another shape than its image.
    """
    if not panels:
        raise ValueError("expected at least one panel")
    height, width = panels[0].image.shape[:2]
    tall = inches * min(1.6, max(0.5, height / width))
    lines = textwrap.wrap(note, round(24 * inches * len(panels) / 2.2))
    size = (inches * len(panels), tall + (0.62 if key else 0.4) + 0.17 * len(lines))
    sheet = Sheet(
        figsize=size,
        layout=ConstrainedLayoutEngine(w_pad=0.06, rect=(0.008, 0.01, 0.984, 0.955)),
        facecolor=PICTURE_GROUND,
    )
    for axes, panel in zip(np.atleast_1d(sheet.subplots(1, len(panels))), panels, strict=True):
        draw_panel(axes, panel, classes, inches)
    if lines:
        sheet.supxlabel(literal("\n".join(lines)), color=PICTURE_INK, fontsize=8.5)
    if key:
        add_legend(sheet, panels)
    return sheet


def add_legend(sheet: Sheet, panels: Sequence[Panel]) -> None:
    """Above all panels, what the kinds of boxes that they show look like."""
    handles = []
    if any(panel.truth is not None for panel in panels):
        handles.append(Line2D([], [], color=TRUE_BOX, linewidth=2.2, label="true box"))
    if any(panel.predictions is not None for panel in panels):
        dashed = Line2D(
            [],
            [],
            color=PREDICTED_BOX,
            linewidth=2.2,
            linestyle=(0, (4, 2)),
            label="predicted box, class and score",
        )
        handles.append(dashed)
    if handles:
        sheet.legend(
            handles=handles,
            loc="outside upper center",
            ncols=2,
            frameon=False,
            labelcolor=PICTURE_INK,
            fontsize=9.5,
        )


def scaled(boxes: Boxes, scale: tuple[float, float]) -> Boxes:
    """Boxes moved from original pixels to those of a shown image; ``scale`` has the factors of x and y."""
    return Boxes(boxes.xyxy * np.array([*scale, *scale]), boxes.labels, boxes.scores)


def best(boxes: Boxes, most: int, least_score: float) -> Boxes:
    """At most ``most`` predicted boxes of at least ``least_score``, best first; equal scores keep their order."""
    if boxes.scores is None:
        raise ValueError("expected predicted boxes, with scores")
    order = np.argsort(-boxes.scores, kind="stable")[:most]
    order = order[boxes.scores[order] >= least_score]
    return Boxes(boxes.xyxy[order], boxes.labels[order], boxes.scores[order])


def draw_panel(axes: Axes, panel: Panel, classes: Sequence[str], inches: float) -> None:
    """One image with its boxes, their names, and its heat map.

    Args:
        axes: axes to draw on; their scale is set to pixels of the image.
        panel: panel to draw.
        classes: names that labels of boxes index.
        inches: width of the axes, by which the space that names take is reckoned.

    Raises:
        ValueError: a heat map of another shape than its image.
    """
    height, width = panel.image.shape[:2]
    area = (0, width, height, 0)  # pixel edges, as boxes count them
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255, extent=area, interpolation="bicubic")
    if panel.heat_map is not None:
        if panel.heat_map.shape != (height, width):
            raise ValueError(
                f"expected a heat map of shape {(height, width)}, got {panel.heat_map.shape}"
            )
        heat = np.clip(panel.heat_map, 0, 1)
        axes.imshow(
            heat,
            cmap=HEAT,
            vmin=0,
            vmax=1,
            alpha=0.15 + 0.6 * heat,
            extent=area,
            interpolation="bilinear",
        )
    labels = _Labels(axes, height, width, max(height, width) / 72 / inches)
    if panel.truth is not None:
        for i, box in enumerate(panel.truth.xyxy):
            _rectangle(axes, box, TRUE_BOX, "solid")
            if panel.name_truth:
                labels.put(
                    box, _name(Boxes(panel.truth.xyxy, panel.truth.labels), i, classes), TRUE_BOX
                )
    if panel.predictions is not None:
        for i, box in enumerate(panel.predictions.xyxy):
            _rectangle(axes, box, PREDICTED_BOX, (0, (4, 2)))
            labels.put(box, _name(panel.predictions, i, classes), PREDICTED_BOX)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    axes.set_title(literal(panel.title), color=PICTURE_INK, fontsize=10.5)


def _rectangle(
    axes: Axes, box: FloatArray, colour: str, line: str | tuple[int, tuple[int, int]]
) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    for width, edge in (
        (3.6, "#000000aa"),
        (1.9, colour),
    ):  # a dark rim keeps the line visible on bright bone
        style = "solid" if width > 3 else line
        axes.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=edge,
                linewidth=width,
                linestyle=style,
            )
        )


class _Labels:
    """Names of the boxes of one panel: above each box where there is room, never over one another, kept on the image."""

    def __init__(self, axes: Axes, height: int, width: int, point: float) -> None:
        self._axes, self._height, self._width = axes, height, width
        self._line, self._letter = (
            13.0 * point,
            5.3 * point,
        )  # of 8.5-point text, in pixels of the image
        self._taken: list[tuple[float, float, float]] = []  # left, right, top

    def put(self, box: FloatArray, text: str, colour: str) -> None:
        """Write ``text`` above the box (xyxy), or as near as earlier labels leave room."""
        wide = self._letter * columns(text)
        left = min(max(float(box[0]), 0.0), max(self._width - wide, 0.0))
        top = self._free(left, left + wide, float(box[1]) - self._line)
        self._taken.append((left, left + wide, top))
        self._axes.text(
            left + 0.2 * self._line, top + 0.5 * self._line, literal(text), ha="left", va="center", fontsize=8.5, color="#14181d",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.3, "alpha": 0.92}, clip_on=True,
        )  # fmt: skip

    def _free(self, left: float, right: float, wanted: float) -> float:
        """The free row nearest to ``wanted``; ``wanted`` itself where the panel is full."""
        last = self._height - self._line
        rows = np.arange(max(wanted, 0.0) % self._line, max(last, 0.0) + 1e-9, self._line).tolist()
        for top in sorted(rows, key=lambda row: abs(row - wanted)):
            if all(
                right <= a or left >= b or abs(top - t) >= self._line - 1e-6
                for a, b, t in self._taken
            ):
                return float(top)
        return max(wanted, 0.0)


def _name(boxes: Boxes, i: int, classes: Sequence[str]) -> str:
    name = classes[int(boxes.labels[i])]
    short = cut_in_middle(name, 22)
    return short if boxes.scores is None else f"{short} {boxes.scores[i]:.2f}"


def as_png(sheet: Sheet) -> bytes:
    """Draw a sheet: PNG bytes, the same for the same sheet."""
    canvas = FigureCanvasAgg(sheet)
    sheet.set_dpi(_DPI)
    with all_letters(sheet):
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png", optimize=True)
    return out.getvalue()

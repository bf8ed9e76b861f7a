"""Boxes and a stamp drawn into an image's own pixels, for viewers that show nothing else.

A frame lies around its box, not on it: what the detector marked stays as it was. The stamp stands in a
band below the image, so it hides nothing and pixel coordinates keep their origin, the top left corner.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from twinray.records import Boxes
from twinray.report.fonts import columns, font_file
from twinray.report.palette import PREDICTED_BOX

LEAST_WIDTH = 512
"""Pixels; narrower images are enlarged by a whole factor, so that the stamp can be read."""

_INK, _DARK = (255, 255, 255), (0, 0, 0)
_RGB = npt.NDArray[np.uint8]
_Place = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def burn_in(
    image: npt.NDArray[np.uint8], boxes: Boxes, classes: Sequence[str], stamp: Sequence[str]
) -> tuple[_RGB, int]:
    """Draw boxes with class and score into an image, and text in a band below it.

    Args:
        image: (h, w) or (h, w, 3) uint8.
        boxes: predicted, with scores, in pixels of ``image``; a box whose score is NaN is drawn without one.
        classes: names that labels of boxes index.
        stamp: paragraphs, wrapped to the image's width.

    Returns:
        (f * h + band, f * w, 3) uint8, and the whole factor f >= 1 by which the image was enlarged.
    """
    factor = max(1, -(-LEAST_WIDTH // image.shape[1]))
    pixels = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    pixels = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels
    height, width = pixels.shape[:2]
    line, size = max(2, round(max(height, width) / 400)), max(12, round(width / 55))
    for box in boxes.xyxy:
        _frame(pixels, np.rint(box * factor).astype(int), line)
    canvas = Image.fromarray(np.concatenate([pixels, _band(width, size, stamp)]))
    draw = ImageDraw.Draw(canvas)
    frames: list[_Place] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in (boxes.xyxy * factor).tolist()]
    names: list[_Place] = []
    for i in range(len(boxes)):
        name = classes[int(boxes.labels[i])]
        scored = boxes.scores is not None and not np.isnan(boxes.scores[i])
        text = f"{name} {boxes.scores[i]:.2f}" if boxes.scores is not None and scored else name
        others = frames[:i] + frames[i + 1 :]
        names.append(
            _label(draw, frames[i], text, _font(size, text), (width, height), line, (names, others))
        )
    return np.asarray(canvas), factor


def _frame(pixels: _RGB, box: npt.NDArray[np.integer], line: int) -> None:
    """A bright line with a dark rim around the box; at the image's border it moves inwards so as to be seen."""
    height, width = pixels.shape[:2]
    rim = max(1, line // 2)
    thick = line + 2 * rim
    left, top = max(int(box[0]), thick), max(int(box[1]), thick)
    right, bottom = min(int(box[2]), width - thick), min(int(box[3]), height - thick)
    inside = pixels[top:bottom, left:right].copy()
    for grow, colour in (
        (thick, _DARK),
        (thick - rim, ImageColor.getrgb(PREDICTED_BOX)[:3]),
        (rim, _DARK),
    ):
        pixels[
            max(top - grow, 0) : max(bottom + grow, 0), max(left - grow, 0) : max(right + grow, 0)
        ] = colour
    pixels[top:bottom, left:right] = inside


def _label(
    draw: ImageDraw.ImageDraw,
    box: _Place,
    text: str,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    line: int,
    taken: tuple[Sequence[_Place], Sequence[_Place]],
) -> _Place:
    """The text above the box, below it or inside its top: the first place clear of other names and, better, of other boxes."""
    ink = draw.textbbox((0, 0), text, font=font)
    wide, tall = ink[2] + 6, ink[3] + 4
    left = min(max(box[0] - 2 * line, 0), max(size[0] - wide, 0))
    wanted = (box[1] - 2 * line - tall, box[3] + 2 * line, box[1] + line)
    places = [(left, top, left + wide, top + tall) for top in wanted if 0 <= top <= size[1] - tall]
    off_names = [place for place in places if _clear(place, taken[0])]
    off_boxes = [place for place in off_names if _clear(place, taken[1])]
    place: _Place = (off_boxes or off_names or places or [(left, 0.0, left + wide, float(tall))])[0]
    draw.rectangle(place, fill=PREDICTED_BOX)
    draw.text((place[0] + 3, place[1] + 1), text, font=font, fill=_DARK)
    return place


def _clear(place: _Place, others: Sequence[_Place]) -> bool:
    return all(
        place[2] <= o[0] or place[0] >= o[2] or place[3] <= o[1] or place[1] >= o[3] for o in others
    )


def _band(width: int, size: int, stamp: Sequence[str]) -> _RGB:
    text = "".join(stamp)
    font = _font(size, text)
    typical = font.getlength("n") * columns(text) / max(len(text), 1)
    letters = max(8, int((width - 2 * size) / typical)) if typical else 8
    lines = [line for paragraph in stamp for line in textwrap.wrap(paragraph, letters)]
    step = round(1.4 * size)
    band = Image.new("RGB", (width, step * len(lines) + size), _DARK)
    draw = ImageDraw.Draw(band)
    for i, line in enumerate(lines):
        draw.text((size, size // 2 + i * step), line, font=font, fill=_INK)
    return np.asarray(band)


def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    return _opened(font_file(text), size)


@cache
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)

"""From an image of any size to the square of a pack, and from its boxes to the pack's frame and back.

Two ways to fit: ``squash`` stretches both sides to the square; ``letterbox`` keeps the proportions and
pads with black, the picture in the middle. Both are one linear map a side, so boxes go there and back
exactly: ``x_pack = x * scale_x + offset_x``.

Pixels are resampled by Pillow's bicubic filter, antialiased when it shrinks, after a box average over
the largest whole factor that still leaves twice the target size (``reducing_gap=2``): as sharp to the
eye as the filter alone, at half its cost on large images. Where both sides shrink by a whole number of at
least 4, plain averages take the filter's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.records import FloatArray

Fit = Literal["squash", "letterbox"]

EDGE_TOLERANCE_PX = 1.0
"""How far a box may reach over its image's edge and still be clipped: annotation tools round outwards."""

_REDUCING_GAP = 2.0
_AVERAGE_FROM = 4


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where an image lies in the square.

    Attributes:
        inner: (width, height) in pixels that the picture takes in the square.
        scale_x, scale_y: pack pixels per original pixel.
        offset_x, offset_y: pack pixels left of and above the picture.
    """

    inner: tuple[int, int]
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


def geometry(width: int, height: int, size: int, fit: Fit) -> Geometry:
    """Where a ``width`` x ``height`` image lies in a ``size`` x ``size`` square.

    The scales are those of the resampling that is done (a letterboxed side is a whole number of
    pixels), so the map to original pixels and back has no rounding of its own.
    """
    inner = (size, size)
    if fit == "letterbox":
        longest = max(width, height)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
    return Geometry(
        inner=inner,
        scale_x=inner[0] / width,
        scale_y=inner[1] / height,
        offset_x=float((size - inner[0]) // 2),
        offset_y=float((size - inner[1]) // 2),
    )


def fit_pixels(pixels: npt.NDArray[np.uint8], size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Resample (h, w) grey or (h, w, 3) RGB uint8 pixels to (size, size) or (size, size, 3)."""
    height, width = pixels.shape[:2]
    place = geometry(width, height, size, fit)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != place.inner:
        image = _resample(image, place.inner)
    fitted = np.asarray(image)
    if place.inner == (size, size):
        return fitted
    square = np.zeros((size, size, *pixels.shape[2:]), dtype=np.uint8)
    left, top = int(place.offset_x), int(place.offset_y)
    square[top : top + place.inner[1], left : left + place.inner[0]] = fitted
    return square


def _resample(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Antialiased bicubic; a whole multiple of at least 4 in both directions by plain averages.

    Averages are exact there (every pixel counts once), differ from bicubic by as much as a reducing gap
    of 2 does, and cost a quarter: NIH's 1,024 pixels to 256 is such a case.
    """
    factors = [old // new if new * (old // new) == old else 0 for old, new in zip(image.size, size, strict=True)]
    if min(factors) >= _AVERAGE_FROM:
        return image.reduce((factors[0], factors[1]))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)


def is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether an image carries no colour: (h, w), or (h, w, 3) with three equal channels."""
    if pixels.ndim == 2:
        return True
    red = pixels[..., 0]
    # a few rows tell colour apart at once; only images that look grey pay for the whole comparison
    few = pixels[:: max(1, len(pixels) // 8)]
    if not np.array_equal(few[..., 0], few[..., 1]):
        return False
    return bool(np.array_equal(red, pixels[..., 1]) and np.array_equal(red, pixels[..., 2]))


def to_grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w) luma of RGB pixels (ITU-R BT.601 weights, as Pillow has them); grey pixels as they are."""
    if pixels.ndim == 2:
        return pixels
    if is_grey(pixels):
        return np.ascontiguousarray(pixels[..., 0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def to_rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(..., h, w, 3): grey pixels three times; ``pixels`` is grey, (..., h, w)."""
    return np.repeat(pixels[..., None], 3, axis=-1)


def place_boxes(xyxy: FloatArray, width: float, height: float) -> tuple[FloatArray, list[str | None]]:
    """Judge (n, 4) boxes against their image and clip the good ones to it.

    A box that reaches over the edge by up to :data:`EDGE_TOLERANCE_PX` is clipped. One that reaches further
    was most likely drawn on another size of the image, and clipping would hide that: it is refused.

    Args:
        xyxy: (n, 4) boxes in pixels of a frame of ``width`` x ``height`` pixels.
        width, height: of that frame.

    Returns:
        The (n, 4) clipped boxes, and for each None, or in a few words why it is refused.
    """
    limit = np.array([width, height, width, height], dtype=np.float64)
    clipped = np.clip(np.asarray(xyxy, dtype=np.float64), 0.0, limit)
    return clipped, [_fault(box, clip, limit) for box, clip in zip(xyxy, clipped, strict=True)]


def _fault(box: FloatArray, clipped: FloatArray, limit: FloatArray) -> str | None:
    if not np.isfinite(box).all():
        return "a coordinate is not a finite number"
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"expected a box of positive size, got {_xywh(box)}"
    beyond = np.maximum(-box, box - limit).max()
    if beyond > EDGE_TOLERANCE_PX:
        where = "lies outside" if (clipped[2:] <= clipped[:2]).any() else f"reaches {beyond:g} pixels beyond"
        return f"the box {_xywh(box)} {where} its image of {limit[0]:g} x {limit[1]:g} pixels"
    if (clipped[2:] <= clipped[:2]).any():
        return f"the box {_xywh(box)} lies outside its image of {limit[0]:g} x {limit[1]:g} pixels"
    return None


def _xywh(box: FloatArray) -> str:
    return f"{box[0]:g},{box[1]:g} {box[2] - box[0]:g} x {box[3] - box[1]:g} (left,top width x height)"

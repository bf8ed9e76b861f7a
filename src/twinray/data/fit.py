"""From an image of any size to the square of a pack, and from its boxes to the pack's frame and back.

Two ways to fit: ``squash`` stretches both sides to the square; ``letterbox`` keeps the proportions and
pads with black, the picture in the middle. Both are one linear map a side, so boxes go there and back
exactly: ``x_pack = x * scale_x + offset_x``.

Pixels are resampled by Pillow's bicubic filter, antialiased when it shrinks. A box average comes
first, over the largest whole factor that still leaves twice the target size (``reducing_gap=2``).
The result is as sharp to the eye as the filter alone, at half its cost on large images. Where both
sides shrink by a whole number of at least 4, plain averages take the filter's place.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.geometry import Fit, geometry

_P = TypeVar("_P", np.uint8, np.uint16)
_REDUCING_GAP = 2.0
_AVERAGE_FROM = 4


def fit_pixels(pixels: npt.NDArray[_P], size: int, fit: Fit) -> npt.NDArray[_P]:
    """Resample (h, w) grey or (h, w, 3) RGB pixels, uint8 or uint16, to (size, size) or (size, size, 3) of their type.

    uint16 is resampled in float32, which holds it exactly, and rounded once at the end.
    """
    height, width = pixels.shape[:2]
    place = geometry(width, height, size, fit)
    if (width, height) == place.inner:
        fitted = np.asarray(pixels)
    elif pixels.dtype == np.uint8:
        fitted = np.asarray(_resample(Image.fromarray(np.ascontiguousarray(pixels)), place.inner))
    else:
        planes = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(pixels.shape[2])]
        resampled = [
            np.asarray(_resample(Image.fromarray(plane.astype(np.float32)), place.inner))
            for plane in planes
        ]
        whole = resampled[0] if pixels.ndim == 2 else np.stack(resampled, axis=-1)
        top = np.iinfo(np.uint16).max
        fitted = np.rint(whole).clip(0, top).astype(pixels.dtype)  # cubic weights overshoot
    if place.inner == (size, size):
        return fitted
    square = np.zeros((size, size, *pixels.shape[2:]), dtype=pixels.dtype)
    square[place.picture] = fitted
    return square


def to_square(
    pixels: npt.NDArray[_P], size: int, fit: Fit, channels: Literal[1, 3, "auto"]
) -> npt.NDArray[_P]:
    """Pixels of any size as a pack holds them: (size, size) or (size, size, 3), contiguous.

    Args:
        pixels: (h, w) grey or (h, w, 3) RGB, uint8 or uint16.
        size: side, pixels.
        fit: way into the square.
        channels: 1, 3, or ``auto``: grey if the image carries no colour.
    """
    if pixels.ndim == 3 and (channels == 1 or (channels == "auto" and is_grey(pixels))):
        pixels = to_grey(pixels)
    fitted = fit_pixels(pixels, size, fit)
    if channels == 3 and fitted.ndim == 2:
        fitted = to_rgb(fitted)
    return np.ascontiguousarray(fitted)


def _resample(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Antialiased bicubic; a whole multiple of at least 4 in both directions by plain averages.

    Averages are exact there (every pixel counts once), differ from bicubic by as much as a reducing gap
    of 2 does, and cost a quarter: NIH's 1,024 pixels to 256 is such a case.
    """
    factors = [
        old // new if new * (old // new) == old else 0
        for old, new in zip(image.size, size, strict=True)
    ]
    if min(factors) >= _AVERAGE_FROM:
        return image.reduce((factors[0], factors[1]))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)


def is_grey(pixels: npt.NDArray[_P]) -> bool:
    """Whether an image carries no colour: (h, w), or (h, w, 3) with three equal channels."""
    if pixels.ndim == 2:
        return True
    red = pixels[..., 0]
    # a few rows tell colour apart at once; only images that look grey pay for the whole comparison
    few = pixels[:: max(1, len(pixels) // 8)]
    if not np.array_equal(few[..., 0], few[..., 1]):
        return False
    return bool(np.array_equal(red, pixels[..., 1]) and np.array_equal(red, pixels[..., 2]))


def to_grey(pixels: npt.NDArray[_P]) -> npt.NDArray[_P]:
    """(h, w) luma of RGB pixels (ITU-R BT.601 weights, as Pillow has them); grey pixels as they are."""
    if pixels.ndim == 2:
        return pixels
    if is_grey(pixels):
        return np.ascontiguousarray(pixels[..., 0])
    if pixels.dtype == np.uint16:  # Pillow's own whole numbers, of 16 bits in place of 8
        luma = pixels.astype(np.uint64) @ np.array([19_595, 38_470, 7_471], dtype=np.uint64)
        return ((luma + np.uint64(0x8000)) >> np.uint64(16)).astype(pixels.dtype)
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def to_rgb(pixels: npt.NDArray[_P]) -> npt.NDArray[_P]:
    """(..., h, w, 3): grey pixels three times; ``pixels`` is grey, (..., h, w)."""
    return np.repeat(pixels[..., None], 3, axis=-1)

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

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.geometry import Fit, geometry

_REDUCING_GAP = 2.0
_AVERAGE_FROM = 4


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
    square[place.picture] = fitted
    return square


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

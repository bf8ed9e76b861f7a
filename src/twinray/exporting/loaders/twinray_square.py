"""An image as the run's pack held it, and its boxes back: ``fit(image, pack)``. Needs NumPy and Pillow, nothing else.

``pack`` is that of ``model.json``: ``size`` is the square's side, ``fit`` the way into it (``squash`` stretches, ``letterbox`` keeps
the proportions and pads with black, the picture in the middle), ``channels`` 1 for grey. Pillow's bicubic filter resamples. Filters of
other libraries give other pixels, and a network then other boxes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]


class Place(NamedTuple):
    """Where an image lies in its square.

    Attributes:
        shape: height and width of the image, pixels.
        side: of the square, pixels.
        scale: pixels of the square in one of the image, across and down.
        corner: left and top of the picture in the square, pixels.
    """

    shape: tuple[int, int]
    side: int
    scale: tuple[float, float]
    corner: tuple[int, int]

    def to_image(self, boxes: Array, size: int) -> Array:
        """(n, 4) xyxy in pixels of a network's input of side ``size`` -> pixels of the image, cut at its edges."""
        moved = boxes.astype(np.float64) * (self.side / size) - [*self.corner, *self.corner]
        height, width = self.shape
        inside: Array = (moved / [*self.scale, *self.scale]).clip(0, [width, height, width, height])
        return inside


def fit(image: Array, pack: dict[str, Any]) -> tuple[Array, Place]:
    """The square (side, side) or (side, side, 3) of an image (h, w) or (h, w, 3), red first, and where the image lies in it.

    uint8 and uint16 stay what they are. Floating point numbers are levels, 0 black and 1 white, and come as float32.

    Raises:
        ValueError: an image of another shape.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"expected an image as (h, w) or (h, w, 3), got {image.shape}")
    if image.dtype.kind == "f":
        image = image.astype(np.float32)
    side, (height, width) = pack["size"], image.shape[:2]
    inner = (side, side)
    if pack["fit"] == "letterbox":
        longest = max(width, height)
        inner = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    if pack["channels"] == 1 and image.ndim == 3:
        image = _grey(image)
    fitted = image if (width, height) == inner else _resampled(image, inner)
    left, top = (side - inner[0]) // 2, (side - inner[1]) // 2
    square = np.zeros((side, side, *fitted.shape[2:]), image.dtype)
    square[top : top + inner[1], left : left + inner[0]] = fitted
    scale = (inner[0] / width, inner[1] / height)
    return square, Place((height, width), side, scale, (left, top))


def _grey(image: Array) -> Array:
    if (image[..., :1] == image).all():
        return np.ascontiguousarray(image[..., 0])
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))
    weights = np.array([19_595, 38_470, 7_471])  # Pillow's whole numbers
    if image.dtype == np.uint16:
        luma = image.astype(np.uint64) @ weights.astype(np.uint64)
        grey: Array = ((luma + np.uint64(0x8000)) >> np.uint64(16)).astype(np.uint16)
        return grey
    return (image @ (weights / 65_536)).astype(np.float32)


def _resampled(image: Array, size: tuple[int, int]) -> Array:
    if image.dtype == np.uint8:
        return np.asarray(_shrunk(Image.fromarray(np.ascontiguousarray(image)), size))
    planes = [image] if image.ndim == 2 else [image[..., c] for c in range(3)]
    made = [np.asarray(_shrunk(Image.fromarray(one.astype(np.float32)), size)) for one in planes]
    whole: Array = made[0] if image.ndim == 2 else np.stack(made, axis=-1)
    if image.dtype == np.float32:
        return whole.clip(0, 1)  # cubic weights overshoot
    return np.rint(whole).clip(0, 65_535).astype(np.uint16)


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    factors = [
        old // new if new * (old // new) == old else 0
        for old, new in zip(image.size, size, strict=True)
    ]
    if min(factors) >= 4:
        return image.reduce((factors[0], factors[1]))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)

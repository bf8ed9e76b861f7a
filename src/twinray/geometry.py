"""Boxes and squares: where an image lies in the square that a network sees, and how far boxes overlap. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from twinray.records import FloatArray

Fit = Literal["squash", "letterbox"]


EDGE_TOLERANCE_PX = 1.0
"""How far a box may reach over its image's edge and still be clipped: annotation tools round outwards."""

_FEW_PX = 2.0
"""Images of that many pixels can have boxes smaller than one."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where an image lies in the square of a pack, and the maps between its pixels, the square's and a network's input.

    A network's input is the whole square at another side. All maps are linear, one a side, without rounding of their own.

    Attributes:
        original: (width, height) of the image in its own pixels.
        side: side of the square, in pixels.
        scale_x, scale_y: pixels of the square per original pixel.
        offset_x, offset_y: pixels of the square left of and above the picture.
    """

    original: tuple[int, int]
    side: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    @property
    def inner(self) -> tuple[int, int]:
        """(width, height) in pixels that the picture takes in the square."""
        width, height = self.original
        return round(self.scale_x * width), round(self.scale_y * height)

    @property
    def picture(self) -> tuple[slice, slice]:
        """Rows and columns of the square that the picture takes."""
        (width, height), left, top = self.inner, int(self.offset_x), int(self.offset_y)
        return slice(top, top + height), slice(left, left + width)

    def picture_at(self, side: int) -> tuple[float, float, float, float]:
        """Where the picture lies in a network's input of the given side: left, top, right, bottom."""
        factor = side / self.side
        left, top, (width, height) = self.offset_x * factor, self.offset_y * factor, self.inner
        return left, top, left + width * factor, top + height * factor

    def to_square(self, xyxy: FloatArray, side: int | None = None) -> FloatArray:
        """(n, 4) boxes from original pixels to those of the square, or of a network's input of the given side."""
        placed: FloatArray = xyxy * self._scale + self._offset
        return placed if side is None else placed * (side / self.side)

    def to_original(self, xyxy: FloatArray, side: int | None = None) -> FloatArray:
        """(n, 4) boxes from pixels of the square, or of a network's input of the given side, to original pixels."""
        placed = xyxy if side is None else xyxy * (self.side / side)
        original: FloatArray = (placed - self._offset) / self._scale
        return original

    def clip(self, xyxy: FloatArray) -> FloatArray:
        """(n, 4) boxes in original pixels, cut at the image's edges."""
        clipped: FloatArray = np.clip(xyxy, 0, [*self.original, *self.original])
        return clipped

    @property
    def _scale(self) -> FloatArray:
        return np.array([self.scale_x, self.scale_y] * 2)

    @property
    def _offset(self) -> FloatArray:
        return np.array([self.offset_x, self.offset_y] * 2)


def geometry(width: int, height: int, size: int, fit: Fit) -> Geometry:
    """Where a ``width`` x ``height`` image lies in a ``size`` x ``size`` square.

    The scales are those of the resampling that is done (a letterboxed side is a whole number of
    pixels). The map to original pixels and back therefore has no rounding of its own.
    """
    inner = (size, size)
    if fit == "letterbox":
        longest = max(width, height)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
    return Geometry(
        original=(width, height),
        side=size,
        scale_x=inner[0] / width,
        scale_y=inner[1] / height,
        offset_x=float((size - inner[0]) // 2),
        offset_y=float((size - inner[1]) // 2),
    )


def to_frame(xyxy: FloatArray, frame: tuple[int, int], size: tuple[int, int]) -> FloatArray:
    """(n, 4) boxes from pixels of one copy of an image to another's; both sizes are (width, height)."""
    moved: FloatArray = xyxy * np.tile([size[0] / frame[0], size[1] / frame[1]], 2)
    return moved


def place_boxes(
    xyxy: FloatArray, width: float, height: float
) -> tuple[FloatArray, list[str | None]]:
    """Judge (n, 4) boxes against their image and clip the good ones to it.

    A box that reaches over the edge by up to :data:`EDGE_TOLERANCE_PX` is clipped. One that reaches further
    was most likely drawn on another size of the image, and clipping would hide that: it is refused. So is one
    that is smaller than a pixel both ways, which is most likely in 0..1.

    Args:
        xyxy: (n, 4) boxes in pixels of a frame of ``width`` x ``height`` pixels.
        width, height: sides of that frame.

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
        return f"expected a box of positive size, got {xywh_text(box)}"
    beyond = np.maximum(-box, box - limit).max()
    if beyond > EDGE_TOLERANCE_PX:
        where = (
            "lies outside"
            if (clipped[2:] <= clipped[:2]).any()
            else f"reaches {beyond:g} pixels beyond"
        )
        return f"the box {xywh_text(box)} {where} its image of {limit[0]:g} x {limit[1]:g} pixels"
    if (clipped[2:] <= clipped[:2]).any():
        return (
            f"the box {xywh_text(box)} lies outside its image of {limit[0]:g} x {limit[1]:g} pixels"
        )
    if (box[2:] - box[:2] < 1).all() and limit.max() > _FEW_PX:
        return f"the box {xywh_text(box)} is smaller than a pixel; boxes are in pixels, not in 0..1"
    return None


def xywh_text(box: FloatArray) -> str:
    """A box (4,) xyxy in words: left, top, width, height."""
    return (
        f"{box[0]:g},{box[1]:g} {box[2] - box[0]:g} x {box[3] - box[1]:g} (left,top width x height)"
    )


def to_xywh(xyxy: FloatArray) -> npt.NDArray[np.float64]:
    """(n, 4) left, top, right, bottom -> left, top, width, height."""
    corners = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def box_iou(first: FloatArray, second: FloatArray) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair: (m, 4) and (n, 4) xywh -> (m, n) in 0..1; 0 where both are empty.

    Right and bottom edges are sums of floats here, as in pycocotools, whose figures are compared to the last digit.
    """
    a, b = first[:, None, :], second[None, :, :]
    shared = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(
        a[..., :2], b[..., :2]
    )
    return _iou(shared, a[..., 2:], b[..., 2:])


def corner_iou(first: FloatArray, second: FloatArray) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), xyxy, broadcast; 0 where both are empty."""
    shared = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(
        first[..., :2], second[..., :2]
    )
    return _iou(shared, first[..., 2:] - first[..., :2], second[..., 2:] - second[..., :2])


def _iou(shared: FloatArray, first: FloatArray, second: FloatArray) -> npt.NDArray[np.float64]:
    """From (..., 2) widths and heights: of what two boxes share (negative: nothing), and of each."""
    both = np.where((shared > 0).all(axis=-1), shared[..., 0] * shared[..., 1], 0.0)
    union = first[..., 0] * first[..., 1] + second[..., 0] * second[..., 1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)

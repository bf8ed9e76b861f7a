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
        return f"expected a box of positive size, got {xywh_text(box)}"
    beyond = np.maximum(-box, box - limit).max()
    if beyond > EDGE_TOLERANCE_PX:
        where = "lies outside" if (clipped[2:] <= clipped[:2]).any() else f"reaches {beyond:g} pixels beyond"
        return f"the box {xywh_text(box)} {where} its image of {limit[0]:g} x {limit[1]:g} pixels"
    if (clipped[2:] <= clipped[:2]).any():
        return f"the box {xywh_text(box)} lies outside its image of {limit[0]:g} x {limit[1]:g} pixels"
    return None


def xywh_text(box: FloatArray) -> str:
    """A box (4,) xyxy in words: left, top, width, height."""
    return f"{box[0]:g},{box[1]:g} {box[2] - box[0]:g} x {box[3] - box[1]:g} (left,top width x height)"


def to_xywh(xyxy: FloatArray) -> npt.NDArray[np.float64]:
    """(n, 4) left, top, right, bottom -> left, top, width, height."""
    corners = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def box_iou(first: FloatArray, second: FloatArray) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair: (m, 4) and (n, 4) xywh -> (m, n) in 0..1; 0 where both are empty."""
    a, b = first[:, None, :], second[None, :, :]
    width = np.minimum(a[..., 0] + a[..., 2], b[..., 0] + b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 1] + a[..., 3], b[..., 1] + b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

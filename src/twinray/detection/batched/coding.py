"""Boxes as the numbers that a network regresses (Girshick et al. 2014, R-CNN, appendix C), for any leading shape.

Values are those of torchvision's ``BoxCoder``; nothing is sent to the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
ONES: Weights = (1.0, 1.0, 1.0, 1.0)
LARGEST_LOG = math.log(1000.0 / 16)
"""Largest logarithm of a growth that is decoded, as everywhere since Detectron."""


def encode(boxes: Tensor, anchors: Tensor, weights: Weights = ONES) -> Tensor:
    """(..., 4) boxes as seen from (..., 4) anchors: shifts of the centre and logarithms of the growth of the sides."""
    x, y, w, h = _centred(boxes)
    ax, ay, aw, ah = _centred(anchors)
    wx, wy, ww, wh = weights
    codes = (
        wx * (x - ax) / aw,
        wy * (y - ay) / ah,
        ww * torch.log(w / aw),
        wh * torch.log(h / ah),
    )
    return torch.stack(codes, dim=-1)


def decode(codes: Tensor, anchors: Tensor, weights: Weights = ONES) -> Tensor:
    """The (..., 4) boxes that codes (..., 4) mean on anchors; leading shapes broadcast."""
    ax, ay, aw, ah = _centred(anchors)
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    x, y = dx * aw + ax, dy * ah + ay
    half_w = 0.5 * (torch.exp(dw.clamp(max=LARGEST_LOG)) * aw)
    half_h = 0.5 * (torch.exp(dh.clamp(max=LARGEST_LOG)) * ah)
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) boxes cut at the edges of images of ``size`` (height, width)."""
    height, width = size
    if height == width:
        return boxes.clamp(0, width)
    x1, y1, x2, y2 = boxes.unbind(-1)
    cut = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
    return torch.stack(cut, dim=-1)


def large(boxes: Tensor, least: float) -> Tensor:
    """(...,) whether both sides of (..., 4) boxes are at least so many pixels."""
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(dim=-1)


def rows(values: Tensor, place: Tensor) -> Tensor:
    """Of (b, n, d) values the rows ``place`` (b, r) of each image: (b, r, d)."""
    return values.gather(1, place.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h

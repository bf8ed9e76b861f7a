"""Which true box a candidate belongs to, and which candidates a loss sees, for all images of a batch at once.

The rules are those of Faster R-CNN (Ren et al. 2015) as torchvision has them (``Matcher``, ``BalancedPositiveNegativeSampler``).
Every shape is known beforehand: no device is asked how many there are.

Shapes: b batch, m rows of true boxes, n candidates an image, s sampled an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinray.detection.targets import BoxTargets

BELOW, BETWEEN = -1, -2
"""Candidates of no true box: background, and those too near to a true box to be that."""
_MOST_PAIRS = 1 << 26
"""Pairs of a true box and a candidate that are looked at together; more images follow in turn."""


def pairwise_iou(truth: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of (b, m, 4) and (b, n, 4) boxes: (b, m, n); as torchvision's ``box_iou``."""
    a, b = truth.unsqueeze(2), boxes.unsqueeze(1)
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
        min=0
    )
    shared = sides[..., 0] * sides[..., 1]
    return shared / (_area(a) + _area(b) - shared)


def match(
    boxes: Tensor, truth: BoxTargets, *, low: float, high: float, low_quality: bool
) -> Tensor:
    """The row of the true box that each candidate belongs to, BELOW or BETWEEN: (b, n) int64.

    Args:
        boxes: (b, n, 4) candidates, or (n, 4) that all images share.
        truth: true boxes.
        low, high: a candidate whose best overlap is at least ``high`` belongs to that box; one below ``low`` is
            background.
        low_quality: whether the best candidates of a true box, ties included, belong to the box that they overlap
            most, however little that is.
    """
    each = max(1, _MOST_PAIRS // (truth.boxes.shape[1] * boxes.shape[-2]))
    if truth.n_images <= each:
        return _match(boxes, truth.boxes, truth.present, low, high, low_quality)
    parts = zip(
        torch.split(boxes, each) if boxes.ndim == 3 else [boxes] * truth.n_images,
        torch.split(truth.boxes, each),
        torch.split(truth.present, each),
        strict=False,
    )
    return torch.cat([_match(*part, low, high, low_quality) for part in parts])


def _match(
    boxes: Tensor, truth: Tensor, present: Tensor, low: float, high: float, low_quality: bool
) -> Tensor:
    boxes = boxes if boxes.ndim == 3 else boxes.unsqueeze(0)
    here = present.unsqueeze(2)
    quality = torch.where(here, pairwise_iou(truth, boxes), -1.0)
    best, nearest = quality.max(dim=1)
    matched = torch.where(best < high, BETWEEN, nearest)
    matched = torch.where(best < low, BELOW, matched)
    if low_quality:
        is_best = ((quality == quality.amax(dim=2, keepdim=True)) & here).any(dim=1)
        matched = torch.where(is_best, nearest, matched)
    return matched


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Candidates that a loss sees: as many rows for every image, of which some may be empty.

    Attributes:
        place: (b, s) int64 places among the candidates.
        taken: (b, s) whether the row counts.
        positive: (b, s) whether it counts and belongs to a true box.
    """

    place: Tensor
    taken: Tensor
    positive: Tensor


def sample(labels: Tensor, keys: Tensor, size: int, positives: float) -> Sample:
    """At most ``size`` candidates an image, at most that share of them positive, the rest background.

    Args:
        labels: (b, n): 1 and more positive, 0 background, below that never taken.
        keys: (b, n) uniform in 0..1: the largest of a kind are taken, which is a draw without repetition.
        size: candidates an image.
        positives: largest share of positives.
    """
    n = labels.shape[1]
    is_positive = labels >= 1
    most = min(int(size * positives), n)
    first = torch.where(is_positive, keys, -1.0).topk(most, dim=1)
    chosen = torch.zeros_like(is_positive).scatter(1, first.indices, first.values >= 0)
    # positives that were drawn stand before every background
    rank = torch.where(chosen, keys + 1, torch.where(labels == 0, keys, -1.0))
    value, place = rank.topk(min(size, n), dim=1)
    taken = value >= 0
    return Sample(place, taken, taken & chosen.gather(1, place))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])

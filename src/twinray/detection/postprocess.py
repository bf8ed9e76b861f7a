"""From the box head's output to final boxes, each with the proposal that its score belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from twinray.detection.roi_align import pyramid_levels

_SMALLEST = 1e-2  # pixels; torchvision's limit below which a decoded box is no box


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """The boxes found on one image, best first.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the network's input.
        labels: (n,) int64 class ids from 0.
        scores: (n,) class probability in 0..1 of the source proposal (FCOS: its geometric mean with the centredness).
        proposals: (n, 4) the proposal that each box was regressed from and scored on; of a one-stage detector the
            anchor, or a point's cell.
        levels: (n,) int64 pyramid level that the proposal pools from (the anchor lies on), 0 the finest.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    proposals: Tensor
    levels: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Limits:
    """What survives: score above ``score``, per-class NMS at IoU ``nms``, the best ``per_image`` boxes."""

    score: float
    nms: float
    per_image: int


def select_detections(
    probabilities: Tensor,
    boxes: Tensor,
    proposals: Sequence[Tensor],
    image_size: tuple[int, int],
    limits: Limits,
    n_levels: int,
) -> list[Detection]:
    """Per-class non-maximum suppression of every image's boxes (Girshick 2015, Fast R-CNN).

    Args:
        probabilities: (n, k) of the k classes without the background, all images' proposals in turn.
        boxes: (n, k, 4) xyxy regressed for each class.
        proposals: per image (n_i, 4); the sum of n_i is n.
        image_size: (height, width) that boxes are clipped to.
        limits: what survives.
        n_levels: pyramid levels that proposals pool from.
    """
    counts = [len(p) for p in proposals]
    return [
        _one_image(p, b, source, image_size, limits, n_levels)
        for p, b, source in zip(
            torch.split(probabilities, counts), torch.split(boxes, counts), proposals, strict=True
        )
    ]


def _one_image(
    probabilities: Tensor,
    boxes: Tensor,
    proposals: Tensor,
    image_size: tuple[int, int],
    limits: Limits,
    n_levels: int,
) -> Detection:
    source, labels = torch.where(probabilities > limits.score)
    scores, chosen = (
        probabilities[source, labels],
        clip_boxes_to_image(boxes[source, labels], image_size),
    )
    large = remove_small_boxes(chosen, min_size=_SMALLEST)
    source, labels, scores, chosen = source[large], labels[large], scores[large], chosen[large]
    best = batched_nms(chosen, scores, labels, limits.nms)[: limits.per_image]
    origin = proposals[source[best]]
    return Detection(
        chosen[best], labels[best], scores[best], origin, pyramid_levels(origin, n_levels)
    )

"""From the box head's output to final boxes, each with the proposal that its score belongs to.

Shapes: b batch, n proposals an image, k classes, d final boxes an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinray.detection.batched.coding import clip, large, rows
from twinray.detection.batched.roi_align import pyramid_levels
from twinray.detection.batched.suppression import suppress

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


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes found on a batch, as many rows for every image, best first.

    Attributes:
        boxes: (b, d, 4), as of :class:`Detection`, and so the others.
        labels: (b, d).
        scores: (b, d).
        proposals: (b, d, 4).
        levels: (b, d).
        found: (b, d) whether the row is a box; those that are come first.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    proposals: Tensor
    levels: Tensor
    found: Tensor

    def per_image(self) -> list[Detection]:
        """The boxes of each image; waits for the device, once."""
        counts = self.found.sum(dim=1).tolist()
        return [
            Detection(
                self.boxes[i, :n],
                self.labels[i, :n],
                self.scores[i, :n],
                self.proposals[i, :n],
                self.levels[i, :n],
            )
            for i, n in enumerate(counts)
        ]

    def on_cpu(self) -> Detections:
        """All of them in the processor's memory, by one copy of the numbers that an image needs."""
        if self.boxes.device.type == "cpu":
            return self
        small = torch.stack([self.labels, self.levels, self.found], dim=2).to(self.boxes.dtype)
        packed = torch.cat(
            [self.boxes, self.proposals, self.scores.unsqueeze(2), small], dim=2
        ).cpu()
        boxes, proposals, scores, labels, levels, found = torch.split(
            packed, [4, 4, 1, 1, 1, 1], dim=2
        )
        return Detections(
            boxes,
            labels.squeeze(2).long(),
            scores.squeeze(2),
            proposals,
            levels.squeeze(2).long(),
            found.squeeze(2).bool(),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What survives: score above ``score``, per-class NMS at IoU ``nms``, the best ``per_image`` boxes."""

    score: float
    nms: float
    per_image: int


def select_detections(
    probabilities: Tensor,
    boxes: Tensor,
    proposals: Tensor,
    valid: Tensor,
    image_size: tuple[int, int],
    limits: Limits,
    n_levels: int,
) -> Detections:
    """Per-class non-maximum suppression of every image's boxes (Girshick 2015, Fast R-CNN).

    Args:
        probabilities: (b, n, k) of the k classes without the background.
        boxes: (b, n, k, 4) xyxy regressed for each class.
        proposals: (b, n, 4).
        valid: (b, n) whether the row is a proposal.
        image_size: (height, width) that boxes are clipped to.
        limits: what survives.
        n_levels: pyramid levels that proposals pool from.
    """
    b, n, k = probabilities.shape
    boxes = clip(boxes, image_size).transpose(1, 2)  # (b, k, n, 4)
    scores = probabilities.transpose(1, 2)
    usable = valid.unsqueeze(1) & (scores > limits.score) & large(boxes, _SMALLEST)
    scores, order = torch.where(usable, scores, -1.0).sort(dim=2, descending=True, stable=True)
    ranked = rows(boxes.flatten(0, 1), order.flatten(0, 1))
    keep = suppress(ranked, (scores >= 0).flatten(0, 1), limits.nms).reshape(b, k * n)
    best, place = torch.where(keep, scores.flatten(1), -1.0).topk(
        min(limits.per_image, k * n), dim=1
    )
    origin = rows(proposals, order.flatten(1).gather(1, place))
    levels = pyramid_levels(origin.flatten(0, 1), n_levels).view(place.shape)
    return Detections(
        rows(ranked.reshape(b, k * n, 4), place), place // n, best, origin, levels, best >= 0
    )

"""The parts between backbone and heads: feature pyramid, anchors, proposal head.

Lin et al. 2017 (Feature Pyramid Networks) and Ren et al. 2015 (Faster R-CNN), from torchvision's parts;
what differs is said where it does. Module names follow torchvision's ``FasterRCNN``, so a detector's
state dict is also that of torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from twinray.backbones.build import Backbone

STRIDES = (4, 8, 16, 32, 64)
LEVELS = ("p2", "p3", "p4", "p5", "p6")
POOLED_LEVELS = LEVELS[:4]
"""Boxes pool from p2..p5; p6 only proposes."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Feature maps of a batch.

    Attributes:
        stages: c2..c5 of the backbone, (b, c, h, w) each.
        pyramid: p2..p6, (b, 256, h, w) each.
    """

    stages: dict[str, Tensor]
    pyramid: dict[str, Tensor]


class Pyramid(nn.Module):
    """Backbone and feature pyramid: images to p2..p6 (strides 4..64; p6 is p5 at every second pixel)."""

    def __init__(self, body: Backbone, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.stage_channels), channels, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> Features:
        """All feature maps of (b, 3, s, s) normalised images."""
        stages = self.body.stages(images)
        return Features(stages, self.pyramid(stages))

    def pyramid(self, stages: dict[str, Tensor]) -> dict[str, Tensor]:
        """p2..p6 of the stages c2..c5: linear, without norm or activation."""
        return dict(zip(LEVELS, self.fpn(dict(stages)).values(), strict=True))


class Anchors(nn.Module):
    """Anchors of one scale per level, centred on the pixels that the level's stride says.

    torchvision's generator divides the image's side by the grid's to find the stride. That is wrong
    where the last level's grid was rounded up (224 pixels: 4 cells of stride 64, not 56), and under
    bfloat16 it gives the anchors the features' 8 bits; here strides are fixed, anchors float32.

    Args:
        scale: side of the square anchor in strides.
        ratios: height / width of the anchors at each place; their area is the same.
    """

    def __init__(self, scale: float, ratios: Sequence[float]) -> None:
        super().__init__()
        self.scale, self.ratios = scale, tuple(ratios)

    def num_anchors_per_location(self) -> list[int]:
        """Anchors at a place, per level."""
        return [len(self.ratios)] * len(STRIDES)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """(anchors, 4) xyxy float32 for each image: level, row, column, ratio."""
        device = features[0].device
        root = torch.tensor(self.ratios, device=device).sqrt()
        levels = []
        for stride, feature in zip(STRIDES, features, strict=True):
            half = self.scale * stride / 2
            cell = torch.stack([-half / root, -half * root, half / root, half * root], dim=1)
            y = torch.arange(feature.shape[-2], device=device) * float(stride)
            x = torch.arange(feature.shape[-1], device=device) * float(stride)
            y, x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            levels.append((centre + cell).view(-1, 4))
        anchors = torch.cat(levels)
        return [anchors for _ in images.image_sizes]


class Float32RPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's proposal head; its outputs leave autocast, so that box arithmetic is in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits and box deltas of each level."""
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class Float32Predictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's class and box layers, computed in float32 under any autocast."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (n, k + 1) and box deltas (n, 4 (k + 1)) of (n, width)."""
        with torch.autocast(x.device.type, enabled=False):
            scores, deltas = super().forward(x.float())
        return scores, deltas

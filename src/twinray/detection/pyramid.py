"""The parts between backbone and heads: feature pyramid, anchors, proposal head.

Lin et al. 2017 (Feature Pyramid Networks), Li et al. 2022 (the simple pyramid of plain transformers) and
Ren et al. 2015 (Faster R-CNN), from torchvision's parts; what differs is said where it does. Module names
follow torchvision's ``FasterRCNN``, so a detector's state dict is also that of torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from twinray.backbones.build import Backbone
from twinray.backbones.contract import LAST_MAP, PATCH_STRIDES
from twinray.detection.batched.roi_align import at_least_float32

STRIDES = (4, 8, 16, 32, 64)
LEVELS = ("p2", "p3", "p4", "p5", "p6")
POOLED_LEVELS = LEVELS[:4]
"""Boxes pool from p2..p5; p6 only proposes."""
ONE_STAGE_STRIDES = (8, 16, 32, 64, 128)
ONE_STAGE_LEVELS = ("p3", "p4", "p5", "p6", "p7")
"""RetinaNet and FCOS leave p2 out and add two coarse levels."""
_LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Feature maps of a batch.

    Attributes:
        stages: c2..c5 of the backbone, (b, c, h, w) each; ``last`` of a plain transformer.
        pyramid: p2..p6 (one-stage detectors: p3..p7), (b, 256, h, w) each.
    """

    stages: dict[str, Tensor]
    pyramid: dict[str, Tensor]


class Pyramid(nn.Module):
    """Backbone and feature pyramid.

    Two-stage: images to p2..p6 (strides 4..64; p6 is p5 at every second pixel). One-stage: p3..p7 (strides 8..128;
    p6 and p7 are convolutions of stride 2, Lin et al. 2017, Focal Loss). A plain transformer has the simple pyramid.

    Attributes:
        levels: names of the levels, finest first.
        strides: pixels of the image from one of a level's pixels to the next. Those of patches of 14 pixels are 14/16 of
            the others: 3.5, 7, 14, 28, 56.
    """

    def __init__(self, body: Backbone, channels: int, one_stage: bool = False) -> None:
        super().__init__()
        self.body = body
        self.levels = ONE_STAGE_LEVELS if one_stage else LEVELS
        strides, first = (ONE_STAGE_STRIDES if one_stage else STRIDES), (1 if one_stage else 0)
        extra = CoarseLevels(channels, channels) if one_stage else LastLevelMaxPool()
        self.fpn: FeaturePyramidNetwork | SimplePyramid
        if body.patch:
            nominal = PATCH_STRIDES[body.patch]
            (width,) = body.stage_channels
            taken = dict(zip(POOLED_LEVELS[first:], STRIDES[first:], strict=False))
            self.fpn = SimplePyramid(width, channels, nominal, taken, extra)
            self.strides = tuple(stride * body.patch / nominal for stride in strides)
        else:
            self.fpn = FeaturePyramidNetwork(
                list(body.stage_channels)[first:], channels, extra_blocks=extra
            )
            self.strides = tuple(float(stride) for stride in strides)
        self._first = first

    def forward(self, images: Tensor) -> Features:
        """All feature maps of (b, 3, s, s) normalised images."""
        stages = self.body.stages(images)
        return Features(stages, self.pyramid(stages))

    def pyramid(self, stages: dict[str, Tensor]) -> dict[str, Tensor]:
        """The levels from the stages; up to p5 linear, without norm or activation, where there are c2..c5."""
        if isinstance(self.fpn, SimplePyramid):
            found = self.fpn(stages[LAST_MAP])
        else:
            found = self.fpn(dict(list(stages.items())[self._first :]))
        return dict(zip(self.levels, found.values(), strict=True))


class SimplePyramid(nn.Module):
    """The simple feature pyramid of a plain transformer (Li et al. 2022, ViTDet, section 3).

    Every level is made from the last map alone: enlarged by transposed convolutions of stride 2 or shrunk by max pooling,
    then a 1 x 1 and a 3 x 3 convolution, with layer norms over channels after each. Layers are those of Detectron2's
    ``SimpleFeaturePyramid``.

    Args:
        width: channels of the last map.
        channels: channels of every level.
        stride: stride of the last map, a power of two.
        levels: name of each level -> its stride.
        extra: torchvision's block that adds coarse levels.
    """

    def __init__(
        self, width: int, channels: int, stride: int, levels: Mapping[str, int], extra: nn.Module
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleDict(
            {name: _from_last(width, channels, stride, own) for name, own in levels.items()}
        )
        self.extra_blocks = extra

    def forward(self, last: Tensor) -> dict[str, Tensor]:
        """All levels of the last map (b, width, h, w), by name."""
        maps = [make(last) for make in self.levels.values()]
        maps, names = self.extra_blocks(maps, [last], list(self.levels))
        return dict(zip(names, maps, strict=True))


def _from_last(width: int, channels: int, stride: int, wanted: int) -> nn.Sequential:
    """What makes the level of stride ``wanted`` of the last map."""
    layers: list[nn.Module] = []
    while stride > wanted:
        if layers:
            layers += [LayerNorm2d(width, eps=_LAYER_NORM_EPS), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        width, stride = width // 2, stride // 2
    if stride < wanted:
        layers.append(nn.MaxPool2d(wanted // stride))
    for side, before in ((1, width), (3, channels)):
        layers.append(nn.Conv2d(before, channels, side, padding=side // 2, bias=False))
        layers.append(LayerNorm2d(channels, eps=_LAYER_NORM_EPS))
    return nn.Sequential(*layers)


class CoarseLevels(LastLevelP6P7):  # type: ignore[misc]
    """torchvision's p6 and p7, in float32 under any autocast.

    They cost next to nothing. Where p6 is a single pixel the processor's bf16 kernel for the
    gradient of p7's weight leaves memory unset. This was seen with torch 2.15: not-a-number in the
    taps that lie outside.
    """

    def forward(
        self, p: list[Tensor], c: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """The levels with two more, and their names."""
        with torch.autocast(p[-1].device.type, enabled=False):
            (_, *coarse), all_names = super().forward([at_least_float32(p[-1])], c, names)
        return [*p, *coarse], all_names


class Anchors(nn.Module):
    """Anchors of every level, centred on the pixels that the level's stride says.

    torchvision's generator divides the image's side by the grid's to find the stride. That is wrong
    where the last level's grid was rounded up (224 pixels: 4 cells of stride 64, not 56). Under
    bfloat16 it gives the anchors the features' 8 bits. Here strides are fixed, anchors float32.
    They are made once for a size and device.

    Args:
        scale: side of the smallest square anchor in strides.
        ratios: height / width of the anchors at each place; their area is the same.
        strides: strides of the levels, in input pixels.
        steps: anchors of one shape at a place, evenly over one octave of sizes from ``scale`` up.
        measures: strides that sizes are counted in; None for ``strides``. With patches of 14 pixels places lie 14/16 as
            far apart, and anchors are as large as any other network's.

    Attributes:
        rounded: sizes, and the distances of edges from the centre, are whole pixels, as torchvision's
            are: its published heads were trained on such anchors.
    """

    rounded = False

    def __init__(
        self,
        scale: float,
        ratios: Sequence[float],
        strides: Sequence[float] = STRIDES,
        steps: int = 1,
        measures: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.ratios, self.strides = tuple(ratios), tuple(strides)
        self.measures = self.strides if measures is None else tuple(measures)
        self.scales = tuple(scale * 2 ** (i / steps) for i in range(steps))
        self._made: dict[tuple[object, ...], Tensor] = {}

    def num_anchors_per_location(self) -> list[int]:
        """Anchors at a place, per level."""
        return [len(self.ratios) * len(self.scales)] * len(self.strides)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """(anchors, 4) xyxy float32 for each image: level, row, column, ratio, size."""
        return [self.on(features)] * len(images.image_sizes)

    def on(self, features: Sequence[Tensor]) -> Tensor:
        """The same for every image: (anchors, 4), of the maps (b, c, h, w) of all levels."""
        key = (features[0].device, *(tuple(feature.shape[-2:]) for feature in features))
        if key not in self._made:
            self._made = {key: self._make(features)}
        return self._made[key]

    def _make(self, features: Sequence[Tensor]) -> Tensor:
        device = features[0].device
        root = torch.tensor(self.ratios, device=device).sqrt()
        levels = []
        for stride, measure, feature in zip(self.strides, self.measures, features, strict=True):
            sizes = torch.tensor(self.scales, device=device) * measure
            half = (sizes.floor() if self.rounded else sizes) / 2
            wide, high = (half / root[:, None]).flatten(), (half * root[:, None]).flatten()
            if self.rounded:
                wide, high = wide.round(), high.round()
            cell = torch.stack([-wide, -high, wide, high], dim=1)
            y = torch.arange(feature.shape[-2], device=device) * float(stride)
            x = torch.arange(feature.shape[-1], device=device) * float(stride)
            y, x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            levels.append((centre + cell).view(-1, 4))
        return torch.cat(levels)


class Float32RPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's proposal head; its outputs leave autocast, so that box arithmetic is in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits and box deltas of each level."""
        logits, deltas = super().forward(x)
        return [at_least_float32(t) for t in logits], [at_least_float32(t) for t in deltas]


class Float32Predictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's class and box layers, computed in float32 under any autocast."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (n, k + 1) and box deltas (n, 4 (k + 1)) of (n, width)."""
        with torch.autocast(x.device.type, enabled=False):
            scores, deltas = super().forward(at_least_float32(x))
        return scores, deltas

"""Ablation-CAM for a detected box, exact and fast.

Desai & Ramaswamy 2020 (Ablation-CAM) weigh each channel by the relative drop of the score when the
channel is taken away. Nothing needs to be run again for one fixed box of a detector. RoIAlign
treats channels alone and fc6 is linear, so without channel c the output of fc6 is h - W_c x_c. All
channels at once cost about one pass of that layer; what follows is one small batch. The pyramid is
linear too, which carries the same to the channels of the backbone's last stage.

Common libraries compute something else (``library_ablation`` does that). They set a channel to a
very negative value, run proposals and heads again, and score whichever box then overlaps best. The
tests really zero each channel and really run what follows, and compare.

A channel's map covers the whole image while the box pools a part of it. What a channel holds
elsewhere cannot have moved the score. Each cell is therefore drawn with its share in the pooled box
(``footprint``). The usual drawing, over the whole image, lights up places that the box never looked
at.

Shapes: n boxes, c channels of the pyramid, j channels of the last stage, h w a grid, s pooled side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from twinray.explanation.scoring import (
    BoxScorer,
    FixedBox,
    HeatMap,
    drop_weights,
    footprint,
    pool_boxes,
    render,
)

PYRAMID_DEFINITION = "Ablation-CAM, fixed box, zeroed channels of the pyramid level it pools from, drawn where it pools"
LAST_STAGE_DEFINITION = (
    "Ablation-CAM, fixed box, zeroed channels of the backbone's last stage, drawn where it pools"
)
_BOXES_AT_ONCE = 16


@torch.no_grad()
def ablation_cam_fpn(
    pyramid: Sequence[Tensor],
    boxes: Sequence[FixedBox],
    scorer: BoxScorer,
    image_size: tuple[int, int],
) -> list[HeatMap]:
    """Heat maps from the channels of the pyramid level that each box pools from.

    Args:
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: boxes on that image.
        scorer: the detector's box head.
        image_size: (height, width) of the network's input.

    Returns:
        One heat map a box.
    """
    scores, ablated = pyramid_channel_scores(pyramid, boxes, scorer)
    maps = []
    for box, score, without in zip(boxes, scores, ablated, strict=True):
        weights = drop_weights(score, without)
        feature = pyramid[box.level]
        seen = footprint(box, (feature.shape[2], feature.shape[3]), image_size)
        drawn = render(feature[0].float(), weights, image_size, seen)
        maps.append(
            HeatMap(drawn, weights.cpu().numpy(), float(score), box.level, PYRAMID_DEFINITION)
        )
    return maps


@torch.no_grad()
def ablation_cam_last_stage(
    stages: Mapping[str, Tensor],
    fpn: FeaturePyramidNetwork,
    boxes: Sequence[FixedBox],
    scorer: BoxScorer,
    image_size: tuple[int, int],
) -> list[HeatMap]:
    """Heat maps from the channels of the backbone's last stage.

    Args:
        stages: the backbone's maps of one image, (1, c_i, h_i, w_i) each, finest first.
        fpn: the pyramid on them; linear (no norm, no activation).
        boxes: boxes on that image.
        scorer: the detector's box head.
        image_size: (height, width) of the network's input.

    Returns:
        One heat map a box.

    Raises:
        ValueError: the pyramid has a norm or activation, so the exact short cut does not hold.
    """
    last = list(stages.values())[-1].float()
    pyramid = list(fpn(dict(stages)).values())
    spread = {
        level: spread_of_channels(fpn, level) for level in sorted({box.level for box in boxes})
    }
    maps = []
    for box in boxes:
        feature = pyramid[box.level].float()
        score, ablated = last_stage_channel_scores(
            stages, fpn, feature, box, scorer, spread[box.level]
        )
        weights = drop_weights(score, ablated)
        reach = (
            image_size[0] // feature.shape[2]
        )  # one cell of the box's level: that of the 3 x 3 convolution
        seen = footprint(box, (last.shape[2], last.shape[3]), image_size, reach)
        drawn = render(last[0], weights, image_size, seen)
        maps.append(
            HeatMap(drawn, weights.cpu().numpy(), float(score), box.level, LAST_STAGE_DEFINITION)
        )
    return maps


def pyramid_channel_scores(
    pyramid: Sequence[Tensor], boxes: Sequence[FixedBox], scorer: BoxScorer
) -> tuple[Tensor, Tensor]:
    """Each box's score, (n,), and its scores without each channel of the level it pools from, (n, c).

    Args:
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: boxes on that image.
        scorer: the detector's box head.
    """
    channels = pyramid[0].shape[1]
    scores, ablated = (
        [pyramid[0].new_zeros(0, dtype=torch.float32)],
        [pyramid[0].new_zeros(0, channels, dtype=torch.float32)],
    )
    for start in range(
        0, len(boxes), _BOXES_AT_ONCE
    ):  # together, as reading fc6's weights is most of the work
        chunk = boxes[start : start + _BOXES_AT_ONCE]
        pooled = pool_boxes(pyramid, chunk, scorer).flatten(2)
        weight = scorer.fc6.weight.view(-1, *pooled.shape[1:])  # (width, c, s * s)
        share = torch.einsum("ocs,ncs->nco", weight, pooled)
        hidden = scorer.fc6(pooled.flatten(1))[:, None]
        for box, versions in zip(chunk, torch.cat([hidden, hidden - share], dim=1), strict=True):
            values = scorer.from_fc6(versions, box.label)
            scores.append(values[:1])
            ablated.append(values[None, 1:])
    return torch.cat(scores), torch.cat(ablated)


def last_stage_channel_scores(
    stages: Mapping[str, Tensor],
    fpn: FeaturePyramidNetwork,
    feature: Tensor,
    box: FixedBox,
    scorer: BoxScorer,
    spread: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The box's score, (), and its scores without each channel, (j,), of the last stage.

    A channel reaches the box's level as one map, repeated to that level's grid. Two linear layers
    (1 x 1 lateral, 3 x 3 output) spread it over the pyramid's channels. So the 3 x 3 convolution's
    nine shifts of that one map are pooled instead of 256 maps, and the layers' product does the
    spreading.

    Args:
        stages: the backbone's maps, (1, c_i, h_i, w_i) each, finest first.
        fpn: the pyramid on them.
        feature: (1, c, h, w), the pyramid's map of the box's level.
        box: the box.
        scorer: the detector's box head.
        spread: ``spread_of_channels`` of the box's level, where it is at hand: boxes of one level share it.
    """
    spread = spread_of_channels(fpn, box.level) if spread is None else spread
    taps = _pooled_shifts(stages, fpn, feature, box, scorer)  # (9, s * s, h * w)
    last = list(stages.values())[-1][0].float()  # (j, h, w)
    seen = torch.einsum("tsp,jp->jts", taps, last.flatten(1))
    share = torch.bmm(spread, seen).flatten(
        1
    )  # (j, c * s * s): what each channel adds to the pooled box
    hidden = scorer.fc6(scorer.pool(feature, box.roi().to(feature), box.level).flatten(1))
    without = hidden - F.linear(share, scorer.fc6.weight)
    scores = scorer.from_fc6(torch.cat([hidden, without]), box.label)
    return scores[0], scores[1:]


def spread_of_channels(fpn: FeaturePyramidNetwork, level: int) -> Tensor:
    """(j, c, 9): what the last stage's channel j adds to channel c of a level, by tap of its 3 x 3 convolution.

    Raises:
        ValueError: the pyramid has a norm or activation.
    """
    lateral, output = _linear_path(fpn, level)
    spread: Tensor = torch.einsum(
        "omt,mj->jot", output.weight.flatten(2), lateral.weight[:, :, 0, 0]
    )
    return spread


def _linear_path(fpn: FeaturePyramidNetwork, level: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The last stage's lateral convolution and the output convolution of ``level``."""
    blocks = [fpn.inner_blocks[-1], fpn.layer_blocks[level]]
    for block in blocks:
        if len(block) != 1 or not isinstance(block[0], nn.Conv2d):
            raise ValueError(
                "exact ablation of the last stage needs a pyramid without norm or activation layers"
            )
    return blocks[0][0], blocks[1][0]


def _pooled_shifts(
    stages: Mapping[str, Tensor],
    fpn: FeaturePyramidNetwork,
    feature: Tensor,
    box: FixedBox,
    scorer: BoxScorer,
) -> Tensor:
    """How every pixel of the last stage's grid enters every bin, for each tap of the output convolution.

    Pools the unit maps: 1 at one pixel of the last stage, repeated level by level to the box's own grid
    exactly as the pyramid repeats it, zero-padded and shifted as the convolution does.

    Args: as ``last_stage_channel_scores``.

    Returns:
        (kernel * kernel, s * s, pixels of the last grid).
    """
    kernel = _linear_path(fpn, box.level)[1].kernel_size[0]
    shapes = [(stage.shape[2], stage.shape[3]) for stage in stages.values()]
    height, width = shapes[-1]
    unit = torch.eye(height * width, device=feature.device).view(1, -1, height, width)
    for shape in reversed(shapes[box.level : -1]):
        unit = F.interpolate(unit, size=shape, mode="nearest")
    rows, columns = unit.shape[2:]
    padded = F.pad(unit, [kernel // 2] * 4)
    roi = box.roi().to(feature)
    taps = [
        scorer.pool(padded[:, :, dy : dy + rows, dx : dx + columns], roi, box.level)[0].flatten(1).T
        for dy in range(kernel)
        for dx in range(kernel)
    ]
    return torch.stack(taps)

"""Ablation-CAM as the widely used ``grad-cam`` package computes it for torchvision's detectors; slow.

For comparison with published heat maps only; ``ablation_cam`` says what a box's score owes to a channel, exactly.
What differs there, and is followed here:

- A channel is not zeroed but set to a very negative value (-1000), on one level of the pyramid, for all levels in turn.
- Proposals and heads run again on the changed pyramid. The box's new score is that of whichever new box overlaps it
  most: its IoU plus its class probability, or 0 if that IoU is not above 0.5 or the class is another.
- The map is built from absolute activations of all levels, shrunk to the grid of the coarsest. It
  is stretched from its least to its greatest value.

Every channel of every level is one run of proposals and heads; the boxes of one image share these runs.

Shapes: l levels, c channels of each, h w a level's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from twinray.explanation.scoring import HeatMap

LIBRARY_DEFINITION = (
    "Ablation-CAM as the grad-cam package computes it: each channel set to -1000, proposals and heads run again, the "
    "new box that overlaps most is scored by IoU plus probability"
)
ABLATED_VALUE = -1000.0
_LEAST_OVERLAP = 0.5


class Redetected(Protocol):
    """The boxes found on one version of an image, best first: what ``detection`` calls a ``Detection``."""

    @property
    def boxes(self) -> Tensor:
        """(n, 4) xyxy in input pixels."""

    @property
    def labels(self) -> Tensor:
        """(n,) class ids from 0."""

    @property
    def scores(self) -> Tensor:
        """(n,) class probabilities, 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class FinalBox:
    """A predicted box as it was shown.

    Attributes:
        xyxy: (4,) in input pixels, after regression.
        label: class id from 0.
        score: class probability, 0..1.
        level: pyramid level that it pools from, 0 the finest.
    """

    xyxy: Tensor
    label: int
    score: float
    level: int


@torch.no_grad()
def ablation_cam_library(
    pyramid: Sequence[Tensor],
    boxes: Sequence[FinalBox],
    redetect: Callable[[Sequence[Tensor]], Sequence[Redetected]],
    image_size: tuple[int, int],
    *,
    value: float = ABLATED_VALUE,
    batch_size: int = 4,
) -> list[HeatMap]:
    """Heat maps of one image's boxes.

    Args:
        pyramid: every level's map of one image, (1, c, h, w) each, finest first; the level that only proposes is one.
        boxes: predicted boxes on that image.
        redetect: (b, c, h, w) maps of every level -> the boxes of each of the b versions.
        image_size: (height, width) of the network's input.
        value: what an ablated channel is set to.
        batch_size: versions run at a time.

    Returns:
        One heat map a box; its ``weights`` are (l * c,), level by level.
    """
    if not boxes:
        return []
    before = _match_scores(redetect(list(pyramid))[0], boxes)
    after = torch.cat(
        [
            _rerun_level(pyramid, level, boxes, redetect, value, batch_size)
            for level in range(len(pyramid))
        ]
    )  # (l * c, boxes)
    coarsest = (pyramid[-1].shape[2], pyramid[-1].shape[3])
    activation = torch.cat(
        [
            F.interpolate(level.float().abs(), coarsest, mode="bilinear", align_corners=False)[0]
            for level in pyramid
        ]
    )
    maps = []
    for number, box in enumerate(boxes):
        score = before[number]
        weights = (
            (score - after[:, number]) / score if score > 0 else torch.zeros_like(after[:, number])
        )
        raw = torch.einsum("c,chw->hw", weights, activation).clamp(min=0)
        drawn = _stretched(raw, image_size)
        maps.append(
            HeatMap(drawn, weights.float().cpu().numpy(), box.score, box.level, LIBRARY_DEFINITION)
        )
    return maps


def _rerun_level(
    pyramid: Sequence[Tensor],
    level: int,
    boxes: Sequence[FinalBox],
    redetect: Callable[[Sequence[Tensor]], Sequence[Redetected]],
    value: float,
    batch_size: int,
) -> Tensor:
    """(c, boxes) scores with each channel of one level set to ``value``."""
    scores = []
    for channels in torch.split(
        torch.arange(pyramid[level].shape[1], device=pyramid[level].device), batch_size
    ):
        versions = [feature.expand(len(channels), -1, -1, -1) for feature in pyramid]
        versions[level] = pyramid[level].repeat(len(channels), 1, 1, 1)
        versions[level][torch.arange(len(channels), device=channels.device), channels] = value
        scores += [_match_scores(found, boxes) for found in redetect(versions)]
    return torch.stack(scores)


def _match_scores(found: Redetected, boxes: Sequence[FinalBox]) -> Tensor:
    """(boxes,) IoU plus probability of the new box that overlaps each most; 0 without enough overlap or of another class."""
    wanted = torch.stack([box.xyxy for box in boxes])
    if len(found.boxes) == 0:
        return wanted.new_zeros(len(boxes))
    overlap, nearest = box_iou(wanted, found.boxes).max(dim=1)
    labels = torch.tensor([box.label for box in boxes], device=wanted.device)
    agrees = (overlap > _LEAST_OVERLAP) & (found.labels[nearest] == labels)
    return torch.where(agrees, overlap + found.scores[nearest], 0)


def _stretched(raw: Tensor, image_size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map enlarged to the image, its least value 0 and its greatest 1; all zero if it is flat."""
    large = F.interpolate(
        _zero_to_one(raw)[None, None], size=image_size, mode="bilinear", align_corners=False
    )[0, 0]
    drawn: npt.NDArray[np.float32] = _zero_to_one(large).cpu().numpy()
    return drawn


def _zero_to_one(values: Tensor) -> Tensor:
    shifted = values - values.min()
    return shifted / shifted.max() if shifted.max() > 0 else shifted

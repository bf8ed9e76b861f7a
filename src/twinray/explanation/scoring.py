"""What an explanation needs to know of a detector: how one fixed box gets its score, and its map.

Plain tensors and callables, so that any detector of this kind (a feature pyramid, RoIAlign, two fully
connected layers, a linear classifier) can be explained.

Shapes: n boxes, c channels of the pyramid, h w a level's grid, k classes, s side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class FixedBox:
    """One detected box, held fixed while its evidence is taken away.

    Attributes:
        proposal: (4,) xyxy in input pixels: the proposal that was scored, not the regressed box.
        label: class id from 0.
        level: pyramid level that the proposal pools from, 0 the finest.
    """

    proposal: Tensor
    label: int
    level: int

    def roi(self) -> Tensor:
        """(1, 5): the proposal on image 0 of a batch."""
        return torch.cat([self.proposal.new_zeros(1), self.proposal])[None]


@dataclass(frozen=True, slots=True, eq=False)
class BoxScorer:
    """The box head of a detector.

    Attributes:
        pool: function (maps (b, c, h, w), rois (n, 5: image and xyxy), level) -> (n, c, s, s). It
            is linear and the same for every channel, as RoIAlign is.
        fc6: first fully connected layer, on the flattened (c, s, s); a ReLU follows.
        fc7: second one; a ReLU follows.
        probabilities: (n, width) -> (n, k) class probabilities, the background's left out.
    """

    pool: Callable[[Tensor, Tensor, int], Tensor]
    fc6: nn.Linear
    fc7: nn.Linear
    probabilities: Callable[[Tensor], Tensor]

    def from_fc6(self, hidden: Tensor, label: int) -> Tensor:
        """(n,) probabilities of ``label`` from fc6's outputs (n, width), before their ReLU."""
        return self.probabilities(F.relu(self.fc7(F.relu(hidden))))[:, label]

    def score(self, maps: Tensor, box: FixedBox) -> Tensor:
        """(b,) probability of the box's class, on each of b versions of its level's map (b, c, h, w)."""
        images = torch.arange(len(maps), dtype=maps.dtype, device=maps.device)[:, None]
        rois = torch.cat([images, box.proposal.to(maps).expand(len(maps), 4)], dim=1)
        return self.from_fc6(self.fc6(self.pool(maps, rois, box.level).flatten(1)), box.label)


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Where in the image the evidence for one box lies.

    Attributes:
        map: (height, width) float32 in 0..1 at the network's input resolution; 1 at its strongest
            place; all zero if nothing speaks for the box.
        weights: (channels,) float32, what each channel counted.
        score: probability of the box's class, 0..1.
        level: pyramid level that the box pools from, 0 the finest.
        definition: in words, what was computed.
    """

    map: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    score: float
    level: int
    definition: str


def pool_boxes(pyramid: Sequence[Tensor], boxes: Sequence[FixedBox], scorer: BoxScorer) -> Tensor:
    """What each box pools, (n, c, s, s).

    Each level is pooled once for all its boxes, as pooling may first lay out the whole level again.

    Args:
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: the boxes, at least one.
        scorer: the detector's box head.
    """
    parts, order = [], []
    for level in sorted({box.level for box in boxes}):
        own = [i for i, box in enumerate(boxes) if box.level == level]
        feature = pyramid[level].float()
        rois = torch.cat([boxes[i].roi() for i in own]).to(feature)
        parts.append(scorer.pool(feature, rois, level))
        order += own
    return torch.cat(parts)[torch.argsort(torch.tensor(order, device=parts[0].device))]


def drop_weights(score: Tensor, ablated: Tensor) -> Tensor:
    """(score - ablated score) / score, of everything that was taken away: score (), ablated (c,)."""
    return (score - ablated) / score.clamp(min=_TINY)


def footprint(
    box: FixedBox, grid: tuple[int, int], image_size: tuple[int, int], margin: int = 0
) -> Tensor:
    """(h, w): the share of each cell of a grid over the image that the box pools, its largest value 1.

    RoIAlign reads single points, a few in each bin; drawn as it reads, a large box's map is a lattice of stripes.
    This is what it would read with ever more points: the part of each cell's area that lies in the box.

    Args:
        box: its proposal is in pixels of the image.
        grid: h, w.
        image_size: (height, width).
        margin: pixels that layers between the grid and the pooling reach beyond the box.
    """
    x0, y0, x1, y1 = box.proposal.tolist()
    sides = []
    for low, high, cells, length in (
        (y0, y1, grid[0], image_size[0]),
        (x0, x1, grid[1], image_size[1]),
    ):
        edges = torch.arange(cells + 1, dtype=torch.float32, device=box.proposal.device) * (
            length / cells
        )
        inside = edges[1:].clamp(max=high + margin) - edges[:-1].clamp(min=low - margin)
        sides.append(inside.clamp(min=0))
    share = sides[0][:, None] * sides[1][None, :]
    return share / share.max().clamp(min=1e-12)


def render(
    activation: Tensor, weights: Tensor, image_size: tuple[int, int], seen: Tensor | None = None
) -> npt.NDArray[np.float32]:
    """ReLU of the weighted sum of channels, enlarged to the image and scaled so that its peak is 1.

    Args:
        activation: (c, h, w).
        weights: (c,).
        image_size: (height, width) of the network's input.
        seen: (h, w) what each cell counts, see ``footprint``; None: the same everywhere.
    """
    weighted = torch.einsum("c,chw->hw", weights, activation)
    return peak_to_one(weighted if seen is None else weighted * seen, image_size)


def peak_to_one(raw: Tensor, image_size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Positive part of a raw map (h, w), bilinearly enlarged to ``image_size``, its peak scaled to 1."""
    positive = raw.detach().float().clamp(min=0)[None, None]
    large = F.interpolate(positive, size=image_size, mode="bilinear", align_corners=False)[0, 0]
    peak = large.max()
    scaled: npt.NDArray[np.float32] = (large / peak if peak > 0 else large).cpu().numpy()
    return scaled

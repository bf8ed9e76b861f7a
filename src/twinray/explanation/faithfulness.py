"""Does a heat map show what the detector looked at, and is that the finding?

Measures of one map of one box; ``faithfulness_figures`` sums them up over a data set.

- Pointing game (Zhang et al. 2016, Top-down neural attention by excitation backprop): is the map's greatest value
  inside the true box?
- Energy (Wang et al. 2020, Score-CAM): which share of the map's sum lies inside the true box?
- Deletion and insertion (Petsiuk et al. 2018, RISE): the area under each curve of the fixed box's
  score. Deletion takes the most salient pixels out of the image; insertion puts them into a blurred
  one. Low deletion and high insertion are better. Deleted pixels take the grey that normalisation
  maps to 0; the blur is wide enough to hide a lesion.

- Empty maps: a map with nothing above zero points nowhere and has no energy, so its share stands beside the others.

Floors show what these measures are worth without any look into the detector. They are the predicted
box itself, filled, a Gaussian in the middle of it, and the proposal, filled. The proposal is where
the box's score was pooled and where maps that are drawn by footprint end. A map that does not beat
them shows nothing that the box did not say.

Maps are (h, w), 0 or more, over the network's input; boxes are xyxy in its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.explanation.scoring import BoxScorer, FixedBox
from twinray.records import FloatArray

_Map = npt.NDArray[np.float32]
_Box = TypeVar("_Box")
GAUSSIAN_SIGMAS = 4.0
"""Standard deviations of the Gaussian floor along each side of the box: its edges lie at two."""
_BLUR_SIGMAS = 16
"""Sides of the image that the blur's standard deviation goes into."""
_TIE_CELLS = 16


def pointing_hit(heat: FloatArray, box: FloatArray) -> float:
    """1 if the greatest value lies inside the box, 0 if not; where it is reached at several pixels, the share inside.

    A pixel is inside if its centre is. An all-zero map points nowhere: 0.
    """
    peak = heat.max()
    if peak <= 0:
        return 0.0
    rows, columns = np.nonzero(heat == peak)
    x, y = columns + 0.5, rows + 0.5
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    return float(inside.mean())


def is_empty(heat: FloatArray) -> float:
    """1 for a map with nothing above zero: by its definition nothing that it weighs speaks for the box; else 0."""
    return float(heat.max() <= 0)


def energy_inside(heat: FloatArray, box: FloatArray) -> float:
    """Share of the map's sum inside the box, 0..1; pixels that the box cuts count in part. An all-zero map has 0."""
    total = float(heat.sum(dtype=np.float64))
    if total <= 0:
        return 0.0
    rows = _coverage(heat.shape[0], float(box[1]), float(box[3]))
    columns = _coverage(heat.shape[1], float(box[0]), float(box[2]))
    return min(1.0, float(rows @ heat.astype(np.float64) @ columns) / total)


def box_floor(box: FloatArray, image_size: tuple[int, int]) -> _Map:
    """1 inside the box, 0 outside, pixels that it cuts in part: (h, w)."""
    rows = _coverage(image_size[0], float(box[1]), float(box[3]))
    columns = _coverage(image_size[1], float(box[0]), float(box[2]))
    return np.outer(rows, columns).astype(np.float32)


def gaussian_floor(box: FloatArray, image_size: tuple[int, int]) -> _Map:
    """A Gaussian in the middle of the box, a quarter of its sides as standard deviations, its peak 1: (h, w)."""
    x1, y1, x2, y2 = (float(v) for v in box)
    rows = _bell(image_size[0], (y1 + y2) / 2, (y2 - y1) / GAUSSIAN_SIGMAS)
    columns = _bell(image_size[1], (x1 + x2) / 2, (x2 - x1) / GAUSSIAN_SIGMAS)
    bell = np.outer(rows, columns)
    return np.asarray(bell / bell.max(), dtype=np.float32)


def removal_ranks(heat: FloatArray, seed: int) -> npt.NDArray[np.int64]:
    """(h, w): 0 for the pixel that goes first, the most salient.

    Equal values, as all places that a map leaves at zero, go block by block in an order drawn from
    the seed. In rows from the top they would favour one side of the image. One by one they would
    sprinkle it with dots that no map's order has.
    """
    height, width = heat.shape
    cells = (
        np.random.default_rng(seed)
        .permutation(_TIE_CELLS * _TIE_CELLS)
        .reshape(_TIE_CELLS, _TIE_CELLS)
    )
    tie = cells[
        np.arange(height)[:, None] * _TIE_CELLS // height,
        np.arange(width)[None, :] * _TIE_CELLS // width,
    ]
    order = np.lexsort((tie.ravel(), -heat.ravel()))
    ranks = np.empty(heat.size, dtype=np.int64)
    ranks[order] = np.arange(heat.size)
    return ranks.reshape(heat.shape)


def removal_shares(points: int) -> npt.NDArray[np.float64]:
    """(points,) shares of the image that are gone, from 0 to 1, close together at first: a lesion is a small part."""
    return np.linspace(0.0, 1.0, points) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class RemovalCurves:
    """Scores of fixed boxes while pixels go and come; m maps, p points.

    Attributes:
        shares: (p,) share of the pixels that are deleted or inserted, 0..1.
        deletion, insertion: (m, p) the box's score.
    """

    shares: FloatArray
    deletion: FloatArray
    insertion: FloatArray

    def areas(self) -> FloatArray:
        """(m, 2): area under the deletion and the insertion curve, 0..1, by trapezoids."""
        return np.stack(
            [np.trapezoid(curve, self.shares, axis=1) for curve in (self.deletion, self.insertion)],
            axis=1,
        )


@torch.no_grad()
def removal_curves(
    image: Tensor,
    heats: Sequence[FloatArray],
    boxes: Sequence[_Box],
    score: Callable[[Tensor, Sequence[_Box]], Tensor],
    *,
    points: int = 16,
    seed: int = 0,
    batch_size: int = 16,
) -> RemovalCurves:
    """Deletion and insertion of one image's maps, many versions of the image at a time.

    Args:
        image: (3, h, w) normalised; 0 is the grey of deleted pixels.
        heats: m maps (h, w).
        boxes: the box that each map explains.
        score: (b, 3, h, w) versions and the box to score on each -> (b,) scores; ``versions_scorer`` makes it.
        points: p, points of a curve; 2 or more.
        seed: seed of the order of equal values.
        batch_size: versions at a time.

    Raises:
        ValueError: fewer than 2 points, or not a box for each map.
    """
    if points < 2 or len(heats) != len(boxes):
        raise ValueError(
            f"expected 2 points or more and a box for each map, got {points}, {len(heats)}, {len(boxes)}"
        )
    shares = removal_shares(points)
    counts = np.round(shares * image.shape[1] * image.shape[2]).astype(np.int64)
    blurred = _blurred(image)
    jobs = [
        (m, p, kind) for m in range(len(heats)) for kind in (0, 1) for p in range(1, points - 1)
    ]
    ranks: dict[
        int, Tensor
    ] = {}  # of the maps in hand only: a large image's ranks take as much room as its pixels
    curves = np.zeros((2, len(heats), points))
    curves[:, :, [0, -1]] = _ends(image, blurred, boxes, score, batch_size)
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        ranks = {
            m: ranks[m] if m in ranks else _ranks(heats[m], seed, image)
            for m in {m for m, *_ in part}
        }
        chosen = torch.stack([ranks[m] < int(counts[p]) for m, p, _ in part])[:, None]
        deleted = torch.tensor([kind == 0 for *_, kind in part], device=image.device).view(
            -1, 1, 1, 1
        )
        versions = torch.where(
            chosen, torch.where(deleted, 0.0, image), torch.where(deleted, image, blurred)
        )
        values = score(versions, [boxes[m] for m, *_ in part]).double().cpu().numpy()
        for (m, p, kind), value in zip(part, values, strict=True):
            curves[kind, m, p] = value
    return RemovalCurves(shares, curves[0], curves[1])


def _ends(
    image: Tensor,
    blurred: Tensor,
    boxes: Sequence[_Box],
    score: Callable[[Tensor, Sequence[_Box]], Tensor],
    batch_size: int,
) -> FloatArray:
    """(2, m, 2) scores at the first and the last point of both curves: alike for all maps of a box, so worked out once."""
    own = {id(box): box for box in boxes}
    jobs = [
        (box, version)
        for box in own.values()
        for version in (image, torch.zeros_like(image), blurred)
    ]
    values: list[float] = []
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        values += (
            score(torch.stack([version for _, version in part]), [box for box, _ in part])
            .double()
            .cpu()
            .tolist()
        )
    of_box = {key: values[3 * i : 3 * i + 3] for i, key in enumerate(own)}
    whole, grey, blur = np.array([of_box[id(box)] for box in boxes]).reshape(-1, 3).T
    return np.array([[whole, grey], [blur, whole]]).transpose(0, 2, 1)


def versions_scorer(
    pyramid: Callable[[Tensor], Sequence[Tensor]], scorer: BoxScorer
) -> Callable[[Tensor, Sequence[FixedBox]], Tensor]:
    """Scores (b,) of a fixed box on each of b versions of an image: the whole network but for its proposals.

    Args:
        pyramid: (b, 3, h, w) -> the pooled levels' maps (b, c, h_l, w_l), finest first.
        scorer: the detector's box head.
    """

    def score(versions: Tensor, boxes: Sequence[FixedBox]) -> Tensor:
        """(n,) score of box i on version i of the image, ``versions`` (n, 3, s, s)."""
        maps = pyramid(versions)
        levels = np.array([box.level for box in boxes])
        pooled = maps[0].new_zeros(len(boxes), scorer.fc6.in_features, dtype=torch.float32)
        for level in sorted(set(levels.tolist())):
            own: list[int] = np.flatnonzero(levels == level).tolist()
            rois = torch.stack(
                [
                    torch.cat([boxes[i].proposal.new_tensor([float(i)]), boxes[i].proposal])
                    for i in own
                ]
            )
            pooled[own] = scorer.pool(maps[level].float(), rois.float(), level).flatten(1)
        hidden = F.relu(scorer.fc7(F.relu(scorer.fc6(pooled))))
        labels = torch.tensor([box.label for box in boxes], device=hidden.device)
        return scorer.probabilities(hidden).gather(1, labels[:, None])[:, 0]

    return score


def _ranks(heat: FloatArray, seed: int, like: Tensor) -> Tensor:
    return torch.from_numpy(removal_ranks(heat, seed)).to(like.device)


def _coverage(length: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """(length,) how much of each pixel lies between two edges, 0..1."""
    edges = np.arange(length, dtype=np.float64)
    covered: npt.NDArray[np.float64] = np.clip(
        np.minimum(edges + 1, high) - np.maximum(edges, low), 0.0, 1.0
    )
    return covered


def _bell(length: int, centre: float, sigma: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * ((np.arange(length) + 0.5 - centre) / max(sigma, 0.5)) ** 2))


def _blurred(image: Tensor) -> Tensor:
    """(3, h, w) blurred so far that no lesion is left; edge pixels go on beyond the edge."""
    sigma = max(image.shape[1:]) / _BLUR_SIGMAS
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]

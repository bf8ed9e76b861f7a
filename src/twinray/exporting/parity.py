"""Does another tool give what the run gives? Figures on real images, without which nothing leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from twinray.errors import TwinrayError
from twinray.records import Boxes, FloatArray

_FAR = 0.01
"""Boxes that lie further apart (share of the side) or differ more in score are not one box."""
_ALONE = 0.002
"""Share of boxes that one of the two alone may have: where an overlap is the limit of suppression but for rounding, either of two
boxes may fall. The card says how many."""
_TAIL = 1e-4
"""At the end of a full list, or at the threshold, a box may be in one list alone where its score is so near the limit."""


@dataclass(frozen=True)
class Parity:
    """How far two tools agree.

    Attributes:
        loader: tool that loaded the files, with its version.
        n_images: images that both saw.
        what: what was compared: ``boxes``, ``logits`` or ``features``.
        n_values: boxes, or numbers, of the run.
        unmatched: boxes that one of the two alone has.
        largest: largest difference: of a box's edge in pixels of the network's input, of a logit or feature.
        largest_share: the same as a share of the input's side, or of the largest value.
        largest_score: largest difference in score; 0 where there are none.
        limit: what ``largest_share`` and ``largest_score`` may be.
    """

    loader: str
    n_images: int
    what: str
    n_values: int
    unmatched: int
    largest: float
    largest_share: float
    largest_score: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the two agree as far as they must."""
        return (
            self.unmatched <= _ALONE * self.n_values
            and self.largest_share <= self.limit
            and self.largest_score <= self.limit
        )

    @property
    def exact(self) -> bool:
        """Whether not a bit differs."""
        return not self.unmatched and self.largest == self.largest_score == 0

    def told(self) -> str:
        """One sentence for the card and the screen."""
        head = f"{self.loader}, {self.n_images} real images, {self.n_values:,} {self.what}: "
        if self.exact:
            return f"{head}the same to the last bit"
        if self.what == "boxes":
            return (
                f"{head}edges differ by at most {self.largest:.2g} pixels ({self.largest_share:.2g} of the side), scores by "
                f"{self.largest_score:.2g}; in one of the two alone: {self.unmatched}"
            )
        return (
            f"{head}differ by at most {self.largest:.2g} ({self.largest_share:.2g} of the largest)"
        )

    def check(self) -> None:
        """Refuse files whose outputs are others.

        Raises:
            TwinrayError: the two do not agree.
        """
        if not self.holds:
            raise TwinrayError(
                f"the exported weights do not give what the run gives: {self.told()}; allowed is {self.limit:g}, and "
                f"{_ALONE:.1%} of the boxes in one alone. Nothing was kept; the versions of the two tools may not belong together, or "
                "scores are so alike that rounding decides which box suppresses which"
            )

    def as_json(self) -> dict[str, Any]:
        """For ``parity.json``."""
        return {**asdict(self), "exact": self.exact}


def of_numbers(
    ours: FloatArray, theirs: FloatArray, *, loader: str, what: str, limit: float
) -> Parity:
    """Compare (n, d) logits or features of n images."""
    if ours.shape != theirs.shape:
        raise TwinrayError(f"{loader} gives {what} of shape {theirs.shape}, the run {ours.shape}")
    largest = float(np.abs(ours - theirs).max(initial=0.0))
    most = float(np.abs(ours).max(initial=0.0))
    share = largest / most if most else largest
    return Parity(loader, len(ours), what, ours.size, 0, largest, share, 0.0, limit)


def of_boxes(
    ours: Sequence[Boxes],
    theirs: Sequence[Boxes],
    *,
    side: int,
    most: int,
    threshold: float,
    loader: str,
    limit: float,
) -> Parity:
    """Compare the boxes of each image, matched one to one within a class.

    Args:
        ours, theirs: of each image, in pixels of the network's input.
        side: side of that input, pixels.
        most: largest number of boxes an image.
        threshold: score below which boxes are dropped.
        loader: tool that gave ``theirs``.
        limit: what differences may be, as a share of the side and in score.
    """
    unmatched, edge, score = 0, 0.0, 0.0
    for own, other in zip(ours, theirs, strict=True):
        alone, edges, scores = _matched(own, other, side, most, threshold)
        unmatched += alone
        edge, score = max(edge, edges), max(score, scores)
    n = sum(len(own) for own in ours)
    return Parity(loader, len(ours), "boxes", n, unmatched, edge, edge / side, score, limit)


def _matched(
    own: Boxes, other: Boxes, side: int, most: int, threshold: float
) -> tuple[int, float, float]:
    """Boxes in one list alone, and the largest differences of edges and of scores of the others."""
    assert own.scores is not None and other.scores is not None
    edges = np.abs(own.xyxy[:, None] - other.xyxy[None]).max(axis=2, initial=0.0)
    scores = np.abs(own.scores[:, None] - other.scores[None])
    cost = np.maximum(edges / side, scores)
    cost = np.where(own.labels[:, None] == other.labels[None], cost, 1e3)
    rows, columns = linear_sum_assignment(cost)
    near = cost[rows, columns] <= _FAR
    rows, columns = rows[near], columns[near]
    alone = 0
    for boxes, matched in ((own, rows), (other, columns)):
        assert boxes.scores is not None
        left = np.delete(boxes.scores, matched)
        full = len(boxes) >= most
        end = max(threshold, float(boxes.scores.min())) if full and len(boxes) else threshold
        alone += int((left > end + _TAIL).sum())
    found = edges[rows, columns], scores[rows, columns]
    return alone, float(found[0].max(initial=0.0)), float(found[1].max(initial=0.0))

"""Does another tool give what the run gives? Figures on real images, without which nothing leaves.

Within the limit the two agree. Beyond it both are laid beside the same network in float64: a tool that computes in float32 cannot
be asked to be nearer to the run than the run is to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from twinray.errors import InputError, TwinrayError
from twinray.records import Boxes, FloatArray

_FAR = 0.01
"""Boxes that lie further apart (share of the side) or differ more in score are not one box."""
_ALONE = 0.002
"""Share of boxes that one of the two alone may have: where an overlap is the limit of suppression but for rounding, either of two
boxes may fall. The card says how many."""
_TAIL = 1e-4
"""At the end of a full list, or at the threshold, a box may be in one list alone where its score is so near the limit."""
TIMES = 3.0
"""How many times as far from float64 as the run's float32 another tool's largest difference may be, and how many times as many boxes,
and one, it may have in one list alone. So much do these vary between two equally good orders of summing."""
TYPICAL_TIMES = 1.5
"""The same of root mean squares, which vary little: a systematic fault shows here first."""
_MOST_ALONE = 0.01
"""Share of boxes that float32 and float64 may not have in common where that is to excuse another tool."""
COARSEST = 1e-3
"""How far the run's float32 may be from float64 where that is to excuse another tool."""


@dataclass(frozen=True)
class Apart:
    """How far two sides are from each other.

    Attributes:
        share: largest difference, of boxes as a share of the input's side, of numbers of the largest number.
        score: largest difference in score; 0 where there are none.
        share_rms: root mean square of all differences that ``share`` is the largest of.
        score_rms: the same of scores.
        unmatched: boxes that one of the two alone has.
    """

    share: float
    score: float
    share_rms: float
    score_rms: float
    unmatched: int


@dataclass(frozen=True)
class Rounding:
    """How far the run and another tool are from the same network in float64.

    Attributes:
        run: the run, in float32.
        other: the other tool.
    """

    run: Apart
    other: Apart

    def excuses(self, n: int, limit: float) -> bool:
        """Whether the other tool is as near to float64 as float32 comes, for ``n`` boxes or numbers."""
        run, other = self.run, self.other
        return (
            max(run.share, run.score) <= COARSEST
            and run.unmatched <= _MOST_ALONE * n
            and other.unmatched <= max(_ALONE * n, TIMES * (run.unmatched + 1))
            and _as_near(other.share, other.share_rms, run.share, run.share_rms, limit)
            and _as_near(other.score, other.score_rms, run.score, run.score_rms, limit)
        )

    def told(self) -> str:
        """Part of a sentence."""
        return (
            f"from the same network in float64 they lie {self.other.share:.2g} and {self.other.score:.2g} away (root mean square "
            f"{self.other.share_rms:.2g} and {self.other.score_rms:.2g}), the run itself {self.run.share:.2g} and {self.run.score:.2g} "
            f"({self.run.share_rms:.2g} and {self.run.score_rms:.2g}); in one alone: {self.other.unmatched} and {self.run.unmatched}"
        )


def _as_near(most: float, rms: float, own_most: float, own_rms: float, limit: float) -> bool:
    return most <= limit or (most <= TIMES * own_most and rms <= TYPICAL_TIMES * own_rms)


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
        rounding: both beside float64; None where the two agree within the limit, or nothing excuses them.
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
    rounding: Rounding | None = None

    @property
    def holds(self) -> bool:
        """Whether the two agree as far as they must, or as far as float32 lets them."""
        if self.rounding is not None:
            return self.rounding.excuses(self.n_values, self.limit)
        return (
            # where not a bit may differ no box may either
            self.unmatched <= (_ALONE * self.n_values if self.limit else 0)
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
        said = (
            f"edges differ by at most {self.largest:.2g} pixels ({self.largest_share:.2g} of the side), scores by "
            f"{self.largest_score:.2g}; in one of the two alone: {self.unmatched}"
            if self.what == "boxes"
            else f"differ by at most {self.largest:.2g} ({self.largest_share:.2g} of the largest)"
        )
        return f"{head}{said}" + (f"; {self.rounding.told()}" if self.rounding else "")

    def check(self) -> None:
        """Refuse files whose outputs are others.

        Raises:
            InputError: neither found a box: that they agree says nothing.
            TwinrayError: the two do not agree.
        """
        if not self.n_values and not self.unmatched:
            raise InputError(
                f"the run finds no box on the {self.n_images} images of the check, so there was nothing to compare; give images on "
                "which it finds some with --images"
            )
        if not self.holds:
            raise TwinrayError(
                f"the exported weights do not give what the run gives: {self.told()}; allowed is {self.limit:g}, and "
                f"{_ALONE:.1%} of the boxes in one alone{self._excuse()}. Nothing was kept; the versions of the two tools may not "
                "belong together, or scores are so alike that rounding decides which box suppresses which"
            )

    def _excuse(self) -> str:
        if self.rounding is None:
            return ""
        return (
            f", or {TIMES:g} times the run's own distance from float64 ({TYPICAL_TIMES:g} times in root mean square) where that is "
            f"{COARSEST:g} at most"
        )

    def as_json(self) -> dict[str, Any]:
        """For ``parity.json``."""
        return {**asdict(self), "exact": self.exact}


def of_numbers(
    ours: FloatArray,
    theirs: FloatArray,
    *,
    loader: str,
    what: str,
    limit: float,
    exact: Callable[[], FloatArray] | None = None,
) -> Parity:
    """Compare (n, d) logits or features of n images.

    Args:
        ours, theirs: the run's and the other tool's.
        loader: tool that gave ``theirs``.
        what: ``logits`` or ``features``.
        limit: what differences may be, as a share of the largest value.
        exact: makes those of float64, where the limit is passed; None: nothing excuses that.
    """
    if ours.shape != theirs.shape:
        raise TwinrayError(f"{loader} gives {what} of shape {theirs.shape}, the run {ours.shape}")
    found = _numbers_apart(ours, theirs)
    largest = float(np.abs(ours - theirs).max(initial=0.0))
    parity = Parity(loader, len(ours), what, ours.size, 0, largest, found.share, 0.0, limit)
    if exact is None or parity.holds:
        return parity
    true = exact()
    return replace(
        parity, rounding=Rounding(_numbers_apart(true, ours), _numbers_apart(true, theirs))
    )


def _numbers_apart(first: FloatArray, second: FloatArray) -> Apart:
    between = np.abs(first - second)
    most = float(np.abs(first).max(initial=0.0)) or 1.0
    largest = float(between.max(initial=0.0)) / most
    return Apart(largest, 0.0, _rms(between) / most, 0.0, 0)


@dataclass(frozen=True)
class Limits:
    """What a detector's lists of boxes end at.

    Attributes:
        side: side of the network's input, pixels.
        most: largest number of boxes an image.
        threshold: score below which boxes are dropped.
    """

    side: int
    most: int
    threshold: float


def of_boxes(
    ours: Sequence[Boxes],
    theirs: Sequence[Boxes],
    *,
    limits: Limits,
    loader: str,
    limit: float,
    exact: Callable[[], Sequence[Boxes]] | None = None,
) -> Parity:
    """Compare the boxes of each image, matched one to one within a class.

    Args:
        ours, theirs: of each image, in pixels of the network's input.
        limits: where lists end.
        loader: tool that gave ``theirs``.
        limit: what differences may be, as a share of the side and in score.
        exact: makes the boxes of float64, where the limit is passed; None: nothing excuses that.
    """
    found = _boxes_apart(ours, theirs, limits)
    n = sum(len(own) for own in ours)
    largest = found.share * limits.side
    parity = Parity(
        loader, len(ours), "boxes", n, found.unmatched, largest, found.share, found.score, limit
    )
    if exact is None or parity.holds:
        return parity
    true = exact()
    return replace(
        parity,
        rounding=Rounding(_boxes_apart(true, ours, limits), _boxes_apart(true, theirs, limits)),
    )


def _boxes_apart(first: Sequence[Boxes], second: Sequence[Boxes], limits: Limits) -> Apart:
    alone = 0
    edges: list[FloatArray] = [np.zeros(0)]
    scores: list[FloatArray] = [np.zeros(0)]
    for own, other in zip(first, second, strict=True):
        unmatched, edge, score = _matched(own, other, limits)
        alone += unmatched
        edges.append(edge / limits.side)
        scores.append(score)
    edge, score = np.concatenate(edges), np.concatenate(scores)
    return Apart(
        float(edge.max(initial=0.0)),
        float(score.max(initial=0.0)),
        _rms(edge),
        _rms(score),
        alone,
    )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _matched(own: Boxes, other: Boxes, limits: Limits) -> tuple[int, FloatArray, FloatArray]:
    """Boxes in one list alone; of the others the largest difference of an edge, pixels, and that of scores."""
    assert own.scores is not None and other.scores is not None
    edges = np.abs(own.xyxy[:, None] - other.xyxy[None]).max(axis=2, initial=0.0)
    scores = np.abs(own.scores[:, None] - other.scores[None])
    cost = np.maximum(edges / limits.side, scores)
    same = (own.labels[:, None] == other.labels[None]) & np.isfinite(
        cost
    )  # or numbers that are none
    cost = np.where(same, cost, 1e3)
    rows, columns = linear_sum_assignment(cost)
    near = cost[rows, columns] <= _FAR
    rows, columns = rows[near], columns[near]
    alone = 0
    for boxes, matched in ((own, rows), (other, columns)):
        assert boxes.scores is not None
        left = np.delete(boxes.scores, matched)
        full = len(boxes) >= limits.most
        end = limits.threshold
        if full and len(boxes):
            end = max(end, float(boxes.scores.min()))
        alone += int((left > end + _TAIL).sum())
    return alone, edges[rows, columns], scores[rows, columns]

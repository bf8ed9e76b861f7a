"""Which way round is an image? Learnt from the archive itself, on the one assumption that most of its images are right.

For each way in which an image can be wrong (a negative, turned, upside down, mirrored) the archive's images and their wrong
copies are told apart by one linear score, fitted by squared hinge loss and asked of images that it was not fitted on. The
score is antisymmetric: a wrong copy of an image has the score of the image with the other sign. So the number of images
on either side of any margin tells how many are wrong and how many would be taken for wrong by mistake, although nobody says
which are right (:func:`margin_for`). No model is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from twinray.data.look.measure import Measures, mirrored_gradients
from twinray.records import FloatArray

FEWEST: Final = 40
"""Images of an archive below which nothing is learnt from it."""
MOST: Final = 10_000
"""Pairs of an image and a wrong copy that a score is fitted on, at most."""

KNOWN: Final = 0.75
"""Share of an archive's images that the shipped network must find the right way round before it is asked at all.

Of chests it takes one in twenty for mirrored, and an archive may hold many that are; of other parts it would find a half.
"""

_TRUST: Final = 0.1
"""What one unit of the network's log odds counts, where the fitted score should be at least 1 (chosen on the tuning half)."""
_MOST_IMAGES: Final = 2000
_FOLDS: Final = 5
_PENALTY: Final = 1e-3
_ROUNDS: Final = 15

Ranks = Callable[[FloatArray], FloatArray]

TURNS: Mapping[str, Ranks] = {
    "turned by 90 degrees": lambda ranks: np.rot90(ranks, -1, (1, 2)),
    "turned by 180 degrees": lambda ranks: np.rot90(ranks, 2, (1, 2)),
    "turned by 270 degrees": lambda ranks: np.rot90(ranks, 1, (1, 2)),
    "upside down": lambda ranks: ranks[:, ::-1],
}
"""What was done to an image (turns are clockwise) -> the same done to (n, 24, 24) ranks."""

_UNDONE = {
    "turned by 90 degrees": "turned by 270 degrees",
    "turned by 270 degrees": "turned by 90 degrees",
}
"""Ways that another one undoes; the others undo themselves."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which an image can be wrong.

    Attributes:
        negative: flag, true where black and white are the other way round.
        turn: how it was turned, a name of :data:`TURNS`; empty where it was not.
    """

    negative: bool
    turn: str


WAYS: tuple[Way, ...] = tuple(
    Way(negative, turn) for negative in (False, True) for turn in ("", *TURNS) if negative or turn
)
"""All ways but that of a right image."""


def right_scores(images: Sequence[Measures], seed: int = 0) -> FloatArray:
    """(n, 9) scores, one a way of :data:`WAYS`, below 0 for images that look more right once that is undone.

    One score says how right an image looks. It is fitted to be higher for images as they are than for all their wrong copies.
    """
    ranks = np.stack([image.ranks for image in images]).astype(np.float32)
    spoilt = np.stack([ranks - _done(ranks, way.negative, way.turn) for way in WAYS], axis=1)
    mended = [_done(ranks, way.negative, _UNDONE.get(way.turn, way.turn)) for way in WAYS]
    asked = np.stack([ranks - one for one in mended], axis=1)
    return _scores(asked, seed, spoilt)


def _done(ranks: FloatArray, negative: bool, turn: str) -> FloatArray:
    turned = TURNS[turn](ranks) if turn else ranks
    return -turned if negative else turned


def mirror_scores(images: Sequence[Measures], seed: int = 0) -> FloatArray:
    """(n,) scores, below 0 for images that look mirrored.

    Each image counts alike: its differences from its mirror image have length 1, so that a few lopsided chests do not rule the fit.
    What the shipped network says is added where the archive is one that it knows; the rest is learnt on top of that.
    """
    gradients = np.stack([image.gradients for image in images]).astype(np.float32)
    ranks = np.stack([image.about_axis for image in images]).astype(np.float32)
    apart = (gradients - mirrored_gradients(gradients), ranks - ranks[:, :, ::-1])
    asked = np.concatenate([_of_length_one(one) for one in apart], axis=1)
    known = np.array([image.right_way for image in images])
    knows = float((known > 0).mean()) >= KNOWN
    told = _TRUST * known if knows else np.zeros(len(images))
    return _scores(asked[:, None], seed, told=told[:, None])[:, 0]


def _of_length_one(rows: FloatArray) -> FloatArray:
    flat = rows.reshape(len(rows), -1)
    unit: FloatArray = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9)
    return unit


def margin_for(scores: FloatArray, false_alarms: float) -> tuple[float, float]:
    """The margin beyond which an image is called wrong, and the share of right images that would be, as estimated.

    Let a share p of the images be wrong. Of right images e(m) score below -m and g(m) above m; of wrong ones it is the other way
    round. What is seen is f(m) = (1 - p) e + p g below -m, and u(m) = (1 - p) g + p e above m. At large m, e is next to 0 and
    f / (f + u) is p. With p, the two equations give e(m).

    Args:
        scores: (n,) antisymmetric scores.
        false_alarms: largest share of right images that may be called wrong.

    Returns:
        (margin, estimated e); the margin is infinite where none is good enough.
    """
    sizes = np.sort(np.abs(scores))
    below, above = np.sort(-scores[scores < 0]), np.sort(scores[scores > 0])

    def seen(margin: float) -> tuple[float, float]:
        n = max(1, len(scores))
        return (
            (len(below) - int(np.searchsorted(below, margin))) / n,
            (len(above) - int(np.searchsorted(above, margin))) / n,
        )

    f, u = seen(float(sizes[len(sizes) // 2])) if len(sizes) else (0.0, 0.0)
    wrong = min(0.4, f / (f + u)) if f + u else 0.0
    estimate = 1.0
    for margin in (0.0, *np.quantile(sizes, np.linspace(0.005, 0.9, 180)).tolist()):
        f, u = seen(margin)
        estimate = max(0.0, ((1 - wrong) * f - wrong * u) / ((1 - wrong) ** 2 - wrong**2))
        if estimate <= false_alarms:
            return float(margin), estimate
    return float("inf"), estimate


def _scores(
    asked: FloatArray,
    seed: int,
    fitted: FloatArray | None = None,
    told: FloatArray | None = None,
) -> FloatArray:
    """(n, k) scores of each image's differences from k other forms of it, by weights that were fitted without it.

    Args:
        asked: (n, k, ...) features of images less those of their other forms, to be scored.
        seed: seed of the folds.
        fitted: (n, k, ...) differences that should be above 0 of most images; None: the same.
        told: (n, k) part of the scores that is known without this archive; None: nothing is.
    """
    n, k = asked.shape[:2]
    rows = asked.reshape(n, k, -1).astype(np.float32)
    wanted = rows if fitted is None else fitted.reshape(n, k, -1).astype(np.float32)
    known = np.zeros((n, k), np.float32) if told is None else told.astype(np.float32)
    chosen = np.random.default_rng(seed).permutation(n)[: min(_MOST_IMAGES, MOST // k)]
    fold = np.full(n, -1)
    fold[chosen] = np.arange(len(chosen)) % _FOLDS
    scores = np.zeros((n, k))
    for number in range(_FOLDS):
        own = chosen[fold[chosen] != number]
        training = wanted[own]
        weights = _fit(training.reshape(-1, training.shape[-1]), known[own].ravel())
        scores[fold == number] = rows[fold == number] @ weights
        scores[fold < 0] += rows[fold < 0] @ weights / _FOLDS
    return scores + known


def _fit(rows: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights whose product with every row, and what is known of it, should be at least 1: squared hinge loss, by ridge on the rows that fall short."""
    penalty = _PENALTY * len(rows) * float(np.square(rows).sum(axis=1).mean()) + 1e-9
    wanted = 1 - known
    short = wanted > 0
    weights: npt.NDArray[np.float32] = np.zeros(rows.shape[1], dtype=np.float32)
    if not short.any():
        return weights
    for _ in range(_ROUNDS):
        own = rows[short]
        n, width = own.shape
        if n < width:  # the same weights from the smaller of the two systems
            weights = own.T @ _solved(own @ own.T, wanted[short], penalty)
        else:
            weights = _solved(own.T @ own, own.T @ wanted[short], penalty)
        now = rows @ weights < wanted
        if (now == short).all() or not now.any():
            break
        short = now
    return weights


def _solved(
    gram: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], penalty: float
) -> npt.NDArray[np.float32]:
    ridge = gram + penalty * np.eye(len(gram), dtype=np.float32)
    return np.linalg.solve(ridge, wanted).astype(np.float32)

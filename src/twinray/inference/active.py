"""In which order images should be labelled so that labels teach a detector most: uncertain ones first, far from each other.

Rule
    An image's uncertainty is the sum of the binary entropies of its boxes' scores (Brust, Kaeding and Denzler, "Active
    Learning for Deep Object Detection", VISAPP 2019: a sum over boxes, so images with several doubtful boxes come first).
    Boxes below :data:`FLOOR` are left out: a detector gives hundreds of them, and their sum would count boxes.
    Images are then taken one by one. The next is the one with the largest product of uncertainty and distance to the
    nearest image that is taken or labelled already. The distance part is the greedy k-centre of Sener and Savarese
    ("Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018). That uncertainty weighs
    diversity, after a first choice of the most uncertain, follows Zhdanov ("Diverse mini-batch Active Learning", 2019),
    who clusters with weights; the product in a greedy k-centre is a choice of ours.
    Two steps of that choice: only the :data:`SHORTLIST` times as many most uncertain images are candidates, and images
    beyond the number asked for follow by uncertainty.

Features
    :func:`compact` makes a backbone's pooled features small enough to be kept with every image: :data:`KEPT` random sums
    with signs. Such sums keep distances up to some per cent (Johnson and Lindenstrauss, 1984; signs in place of normal
    numbers: Achlioptas, "Database-friendly random projections", 2003). The signs follow from the number of features alone,
    so what two processes, or two years, kept can be compared.

Conventions
    Features are scaled to length 1, so distances are in 0..2. Ties go to the image that stands first. Nothing is random:
    the same images give the same order. Whether it helps is a question to be measured
    (``benchmarks/active_order.py``); it does not always (``docs/feedback.md``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from twinray.errors import InputError
from twinray.records import FloatArray, IntArray

FLOOR: Final = 0.05
"""Least score of a box that counts."""
SHORTLIST: Final = 10
"""Candidates for each image that is asked for; Zhdanov's beta."""
KEPT: Final = 128
"""Numbers that are kept of an image."""
_LEAST: Final = 1e-3
"""Uncertainty of an image without any doubt, as a share of the largest: distance still orders these."""


def uncertainty(scores: Sequence[float] | FloatArray, floor: float = FLOOR) -> float:
    """Sum of the binary entropies of an image's box scores, in bits.

    Args:
        scores: scores of its boxes, in 0..1.
        floor: least score that counts.

    Raises:
        InputError: a score outside 0..1.

    >>> uncertainty([0.5, 0.5, 0.01])
    2.0
    """
    values = np.asarray(scores, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
        raise InputError(f"uncertainty: expected scores in 0..1, got {values.tolist()[:5]}")
    values = values[values >= floor]
    inside = values[(values > 0) & (values < 1)]
    return float(-(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside)).sum())


def label_uncertainty(scores: Sequence[float] | FloatArray, *, exclusive: bool) -> float:
    """Entropy of a classifier's answer, in bits: of all labels together, or of the one class.

    Args:
        scores: probabilities of the classes, in 0..1.
        exclusive: flag, true where an image has exactly one of the classes; their scores sum to 1.

    Raises:
        InputError: a score outside 0..1.

    >>> label_uncertainty([0.5, 0.5], exclusive=False), label_uncertainty([0.5, 0.5], exclusive=True)
    (2.0, 1.0)
    """
    if not exclusive:
        return uncertainty(scores, floor=0.0)
    values = np.asarray(scores, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
        raise InputError(f"uncertainty: expected scores in 0..1, got {values.tolist()[:5]}")
    inside = values[values > 0]
    return float(-(inside * np.log2(inside)).sum())


def compact(features: FloatArray) -> FloatArray:
    """(n, at most :data:`KEPT`) features of length 1: as they are where they are few, else random sums of them.

    Args:
        features: (n, d) pooled features of a backbone.

    Raises:
        InputError: another shape, or a number that is not finite.

    >>> compact(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    table = _unit(features, "features")
    if table.shape[1] <= KEPT:
        return table
    return _unit(table @ _signs(table.shape[1]), "features")


@lru_cache(maxsize=8)
def _signs(n: int) -> FloatArray:
    """(n, KEPT) signs from a hash: NumPy does not promise that its generators stay what they are."""
    drawn = hashlib.shake_256(f"twinray features {n}".encode()).digest(n * KEPT // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(n, KEPT)
    return np.asarray(bits * 2.0 - 1.0)


def active_order(
    features: FloatArray,
    uncertainties: FloatArray,
    labelled: FloatArray | None = None,
    first: int = 200,
) -> IntArray:
    """The order in which to label images.

    Args:
        features: (n, d) features of the images that wait for labels.
        uncertainties: (n,) 0 or more.
        labelled: (m, d) features of images that have labels.
        first: number of images that are chosen one by one; the rest follows by uncertainty.

    Returns:
        (n,) positions, the image to label first in front.

    Raises:
        InputError: shapes that disagree, a number that is not finite, or an uncertainty below 0.

    >>> active_order(np.array([[1.0, 0], [1, 0.01], [0, 1]]), np.array([1.0, 0.9, 0.5])).tolist()
    [0, 2, 1]
    """
    doubt = np.asarray(uncertainties, dtype=np.float64)
    places = _unit(features, "features")
    if doubt.shape != (len(places),):
        raise InputError(
            f"active order: expected an uncertainty for each of {len(places)} images, got {doubt.shape}"
        )
    if not np.isfinite(doubt).all() or (doubt < 0).any():
        raise InputError("active order: expected finite uncertainties of 0 or more")
    by_doubt = np.argsort(-doubt, kind="stable")
    if not len(places) or first <= 0:
        return by_doubt
    candidates = np.sort(by_doubt[: first * SHORTLIST])
    own = places[candidates]
    weight = np.maximum(doubt[candidates], _LEAST * (doubt.max() or 1.0))
    gap = np.full(len(own), np.inf)
    if labelled is not None and len(labelled):
        known = _unit(labelled, "labelled features")
        if known.shape[1] != own.shape[1]:
            raise InputError(
                f"active order: expected labelled features of {own.shape[1]} values, got {known.shape[1]}"
            )
        gap = _nearest(own, known)
    chosen: list[int] = []
    left = np.ones(len(own), dtype=bool)
    for _ in range(min(first, len(own))):
        # nothing known yet: the most uncertain image begins
        worth = weight if np.isinf(gap).all() else weight * gap
        best = int(np.argmax(np.where(left, worth, -1.0)))
        chosen.append(best)
        left[best] = False
        gap = np.minimum(gap, _distance(own @ own[best]))
    taken = candidates[chosen]
    rest = np.ones(len(places), dtype=bool)
    rest[taken] = False
    return np.concatenate([taken, by_doubt[rest[by_doubt]]])


def _unit(features: FloatArray, what: str) -> FloatArray:
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise InputError(
            f"active order: expected (images, values) finite {what}, got {table.shape}"
        )
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(np.divide(table, length, out=np.zeros_like(table), where=length > 0))


def _distance(cosine: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.maximum(2 - 2 * cosine, 0)))


def _nearest(own: FloatArray, known: FloatArray) -> FloatArray:
    """(n,) distance to the nearest of ``known``, some thousand of these at a time."""
    nearest = np.full(len(own), np.inf)
    for start in range(0, len(known), 1024):
        nearest = np.minimum(nearest, _distance((own @ known[start : start + 1024].T).max(axis=1)))
    return nearest

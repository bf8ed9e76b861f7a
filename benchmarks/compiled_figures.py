"""Average precision and FROC of simulated detectors, compiled by numba: for ``interval_coverage.py``, which needs millions of them.

A second way to the figures of ``twinray.evaluation.accumulate``: one walk down the predictions a
resample. It is ten to thirty times faster where data are small. It knows one IoU, patients of one image each, and no equal scores,
no regions and no sizes. The suite holds both ways equal. numba comes with the package's ``dev`` extra.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from twinray.evaluation.accumulate import FROC_RATES, RECALLS
from twinray.evaluation.matching import BoxMatches
from twinray.records import FloatArray

_Ints = npt.NDArray[Any]


def compiled_figures(
    matches: BoxMatches, weights: _Ints, shown: tuple[int, ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """AP (k, r), FROC of all classes at ``FROC_RATES`` (7, r), and that at 1 of the classes in ``shown`` (s, r).

    Args:
        matches: one run, matched at one IoU.
        weights: (images, r) whole-number multiplicities.
        shown: class ids.
    """
    own = np.ascontiguousarray(weights.T, dtype=np.int32)
    n_true = matches.truth_counts.T.astype(np.float64) @ weights  # k, r
    hit = matches.hit[0]
    order = np.argsort(-matches.score, kind="stable")
    images = own.sum(axis=1)
    rates = np.array(FROC_RATES)
    pooled = _froc(matches.image[order], hit[order], own, n_true.sum(axis=0), _most(rates, images))
    at_one = _most(np.array([1.0]), images)
    classes = [
        slice(int(matches.starts[c]), int(matches.starts[c + 1])) for c in range(len(n_true))
    ]
    table = np.stack(
        [
            _average_precision(matches.image[at], hit[at], own, n_true[c], RECALLS)
            for c, at in enumerate(classes)
        ]
    )
    single = [
        _froc(matches.image[classes[c]], hit[classes[c]], own, n_true[c], at_one)[0] for c in shown
    ]
    return table, pooled, np.stack(single)


def _most(rates: FloatArray, images: _Ints) -> _Ints:
    """(rates, r) false positives that are allowed."""
    return np.floor(rates[:, None] * images * (1 + 1e-12)).astype(np.int64)


@numba.njit(cache=False)  # type: ignore[untyped-decorator]
def _average_precision(
    image: _Ints, hit: _Ints, weights: _Ints, n_true: FloatArray, recalls: FloatArray
) -> FloatArray:
    """(r,) of one class, predictions by falling score; weights (r, images)."""
    found_all = np.zeros(len(weights))
    precision, reached = np.zeros(len(image)), np.zeros(len(image), dtype=np.int64)
    for r in range(len(weights)):
        if n_true[r] == 0:
            found_all[r] = np.nan
            continue
        own, seen, found, rows, level = weights[r], 0, 0, 0, 0
        for j in range(len(image)):
            seen += own[image[j]]
            if hit[j]:
                found += own[image[j]]
                recall = found / n_true[r]
                while level < len(recalls) and recalls[level] <= recall and found > 0:
                    level += 1
                precision[rows] = found / max(seen, 1)
                reached[rows] = level
                rows += 1
        envelope = total = 0.0
        for row in range(rows - 1, -1, -1):
            envelope = max(envelope, precision[row])
            total += envelope * (reached[row] - (reached[row - 1] if row else 0))
        found_all[r] = total / len(recalls)
    return found_all


@numba.njit(cache=False)  # type: ignore[untyped-decorator]
def _froc(image: _Ints, hit: _Ints, weights: _Ints, n_true: FloatArray, most: _Ints) -> FloatArray:
    """(rates, r) sensitivities, predictions by falling score; weights (r, images); ``most`` (rates, r) rises."""
    sensitivity = np.zeros(most.shape)
    for r in range(len(weights)):
        own, false, found, rate = weights[r], 0, 0, 0
        for j in range(len(image)):
            if hit[j]:
                found += own[image[j]]
                continue
            false += own[image[j]]
            while rate < len(most) and false > most[rate, r]:
                sensitivity[rate, r] = found
                rate += 1
            if rate == len(most):
                break
        sensitivity[rate:, r] = found
        sensitivity[:, r] /= n_true[r] if n_true[r] else np.nan
    return sensitivity

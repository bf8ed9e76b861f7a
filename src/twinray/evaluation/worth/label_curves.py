"""Label curves: a figure as a monotone function of the number of labelled patients, and its inverse.

Conventions

- A figure that is better with more labels is assumed never to fall as labels are added. Where measured means fall, pool
  adjacent violators gives the nearest non-decreasing sequence (isotonic regression; Ayer et al., Annals of Mathematical
  Statistics 1955). Measured curves can fall for other reasons than chance (Viering and Loog, TPAMI 2023); look at them.
- Between measured numbers of patients the curve is a straight line over log n. No law is fitted and nothing is
  extrapolated: outside the measured range there is a bound only.
- The number of patients that reaches a level is the smallest: behind a plateau below the level, and at the left end of one at it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.records import FloatArray

_Array = npt.NDArray[np.float64]


def isotonic(values: FloatArray, weights: FloatArray | None = None) -> _Array:
    """The nearest non-decreasing sequences, by weighted least squares.

    Args:
        values: (..., f) figures by rising number of patients.
        weights: (f,) above 0; alike if None.

    Returns:
        (..., f).

    >>> isotonic(np.array([0.60, 0.66, 0.65, 0.72])).round(6).tolist()
    [0.6, 0.655, 0.655, 0.72]
    """
    y = np.asarray(values, dtype=np.float64)
    n = y.shape[-1]
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    total = np.concatenate([np.zeros((*y.shape[:-1], 1)), np.cumsum(y * w, axis=-1)], axis=-1)
    mass = np.concatenate([[0.0], np.cumsum(w)])
    # min-max formula: the largest over starts of the smallest over ends of the means between
    fitted = np.empty_like(y)
    for i in range(n):
        best = np.full(y.shape[:-1], -np.inf)
        for start in range(i + 1):
            means = (total[..., i + 1 :] - total[..., start, None]) / (mass[i + 1 :] - mass[start])
            best = np.maximum(best, means.min(axis=-1))
        fitted[..., i] = best
    return fitted


def patients_for(level: FloatArray, patients: FloatArray, fitted: FloatArray) -> _Array:
    """The smallest number of patients whose figure reaches a level.

    Args:
        level: (...) levels.
        patients: (f,) rising numbers of patients, above 0.
        fitted: (..., f) non-decreasing figures at these.

    Returns:
        (...) numbers of patients; minus infinity where the smallest number reaches the level already
        (how few would is not known), infinity where the largest does not.
    """
    y, wanted = np.asarray(fitted, dtype=np.float64), np.asarray(level, dtype=np.float64)
    log_n = np.log(np.asarray(patients, dtype=np.float64))
    reached = y >= wanted[..., None]
    first = np.where(reached.any(axis=-1), reached.argmax(axis=-1), len(log_n))
    right = np.clip(first, 1, len(log_n) - 1)
    y1 = np.take_along_axis(y, right[..., None], axis=-1)[..., 0]
    y0 = np.take_along_axis(y, right[..., None] - 1, axis=-1)[..., 0]
    share = np.divide(wanted - y0, y1 - y0, out=np.ones_like(wanted), where=y1 > y0)
    found = np.exp(log_n[right - 1] + np.clip(share, 0, 1) * (log_n[right] - log_n[right - 1]))
    found = np.where(first == 0, -np.inf, found)
    return np.asarray(np.where(first == len(log_n), np.inf, found))


def figure_at(n: float, patients: FloatArray, fitted: FloatArray) -> _Array:
    """The figure at a number of patients within the measured range: (...) of (..., f).

    Raises:
        InputError: a number outside the measured range.
    """
    known = np.asarray(patients, dtype=np.float64)
    if not known[0] <= n <= known[-1]:
        raise InputError(
            f"label curve: expected {known[0]:g} to {known[-1]:g} patients, got {n:g}; nothing is extrapolated"
        )
    log_n = np.log(known)
    right = int(np.clip(np.searchsorted(known, n), 1, len(known) - 1))
    share = (np.log(n) - log_n[right - 1]) / (log_n[right] - log_n[right - 1])
    y = np.asarray(fitted, dtype=np.float64)
    return np.asarray(y[..., right - 1] * (1 - share) + y[..., right] * share)

"""Whether scores are probabilities: reliability curve and expected calibration error.

Conventions

- The bins are fifteen of equal width over 0..1, closed on the left, the last on both sides. They
  are torchmetrics' bins, but that 1.0 belongs to the last one. Within a bin the mean score is
  compared with how often it was right.
- The expected calibration error (ECE) is the mean over images of the bins' absolute differences,
  the l1 norm of torchmetrics. The source is Guo et al., On calibration of modern neural networks,
  ICML 2017.
- ``top-label``, for several exclusive classes: the score is the highest probability, right is that its class is the true one.
- ``per class``, for two classes and for multi-label data: the score is the class's probability, right is that the class is present.
- ECE is 0 or above and chance alone makes it positive, the more so the fewer the images; ``bounded.excess_interval`` allows for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from twinray.records import FloatArray, IntArray

N_BINS = 15
_Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often scores were right, bin by bin; NaN in an empty bin.

    Attributes:
        edges: (b + 1,) of the bins, 0..1.
        count: (b,) images.
        mean_score, frequency: (b,) 0..1.
        low, high: (b,) 95 % interval of the frequency; NaN where there is none.
        definition: ``top-label`` or ``per class``.
    """

    edges: _Array
    count: IntArray
    mean_score: _Array
    frequency: _Array
    low: _Array
    high: _Array
    definition: str

    @property
    def expected_error(self) -> float:
        """ECE; NaN without images."""
        total = self.count.sum()
        gap = np.where(self.count > 0, np.abs(self.frequency - self.mean_score), 0.0)
        return float((self.count * gap).sum() / total) if total else float("nan")

    def as_json(self) -> dict[str, object]:
        """Plain lists; null where not defined."""
        known = {
            name: [None if np.isnan(v) else float(v) for v in getattr(self, name)]
            for name in ("mean_score", "frequency", "low", "high")
        }
        return {
            "definition": self.definition,
            "edges": self.edges.tolist(),
            "count": self.count.tolist(),
            "expected_error": None if np.isnan(self.expected_error) else self.expected_error,
            **known,
        }


@dataclass(frozen=True, slots=True, eq=False)
class BinTally:
    """Sums within bins by group, for resampling.

    Attributes:
        count, right, score: (bins, groups) sparse: images, those that were right, their scores.
        excess: (bins, groups) sparse: right minus score.
        total: (groups,) images.
    """

    count: Any
    right: Any
    score: Any
    excess: Any
    total: _Array


def bin_of(scores: FloatArray, n_bins: int = N_BINS) -> IntArray:
    """Number of the bin of each score in 0..1."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return np.asarray(
        np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, n_bins - 1), dtype=np.int64
    )


def tally(
    scores: FloatArray, right: npt.NDArray[np.bool_], groups: IntArray, n_groups: int
) -> BinTally:
    """Add up once.

    Args:
        scores: (n,) in 0..1.
        right: (n,) whether what was scored was so.
        groups: (n,) group numbers from 0.
        n_groups: number of groups there are.
    """
    place, shape = (bin_of(scores), groups), (N_BINS, n_groups)
    hits, values = right.astype(np.float64), np.asarray(scores, dtype=np.float64)
    return BinTally(
        csr_array((np.ones(len(values)), place), shape=shape),
        csr_array((hits, place), shape=shape),
        csr_array((values, place), shape=shape),
        csr_array((hits - values, place), shape=shape),
        np.bincount(groups, minlength=n_groups).astype(np.float64),
    )


def expected_calibration_error(of: BinTally, weights: FloatArray) -> _Array:
    """(r,) ECE for (groups, r) multiplicities; NaN without images."""
    total = of.total @ weights
    gap = np.abs(of.excess @ weights).sum(axis=0)
    return np.asarray(np.divide(gap, total, out=np.full(total.shape, np.nan), where=total > 0))


def frequencies(of: BinTally, weights: FloatArray) -> _Array:
    """(bins, r) how often scores of a bin were right, for (groups, r) multiplicities; NaN where a bin is empty."""
    count, right = of.count @ weights, of.right @ weights
    return np.asarray(np.divide(right, count, out=np.full(count.shape, np.nan), where=count > 0))


def reliability(of: BinTally, samples: FloatArray, definition: str) -> Reliability:
    """The curve of the plain data.

    Args:
        of: sums by group.
        samples: (bins, resamples) of ``frequencies``; of no column where no interval is wanted.
        definition: ``top-label`` or ``per class``.
    """
    once = np.ones((len(of.total), 1))
    count = (of.count @ once)[:, 0]
    mean = np.divide((of.score @ once)[:, 0], count, out=np.full(N_BINS, np.nan), where=count > 0)
    low, high = np.full(N_BINS, np.nan), np.full(N_BINS, np.nan)
    for i in np.flatnonzero(count):
        known = samples[i][~np.isnan(samples[i])]
        if (
            len(known) and known.min() < known.max()
        ):  # all alike is no knowledge: 3 of 3 are not 100 %
            low[i], high[i] = np.percentile(known, (2.5, 97.5))
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    return Reliability(
        edges, count.astype(np.int64), mean, frequencies(of, once)[:, 0], low, high, definition
    )

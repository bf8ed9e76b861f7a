"""From cached matches to average precision and FROC under any weights, many resamples at a time.

Conventions

- Average precision is COCO's: precision made non-increasing from the right, read at 101 recalls and
  averaged. The recalls are 0, 0.01, ..., 1; a recall that is not reached has precision 0. The
  definition is that of pycocotools, with weights: a group (patient) of multiplicity w counts as w
  copies of its images.
- FROC is the free-response ROC (Bunch et al., SPIE 1977; Setio et al., Medical Image Analysis
  2017). A threshold on the score gives a sensitivity and a mean number of false positives per
  image. The sensitivity at r false positives per image is the highest of any threshold with at most
  r; no interpolation. All predictions of one score pass a threshold together.
- Predictions that the matching ignores (crowd regions, other sizes) count nowhere.
- Where there is no true box, both are NaN; a mean over classes leaves these classes out.

Both need the running counts only where a hit stands, and these are few. The false positives between
are added up per group by one sparse product. So 1,000 resamples cost about as much as a few
products of (predictions) x (resamples).

Multiplicities may be floats or integers; figures are the same. Integers of 32 bits are faster:
a running sum of floats waits for each addition to end before the next begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from twinray.evaluation.matching import MAX_DETECTIONS, BoxMatches
from twinray.records import FloatArray, IntArray

Weights: TypeAlias = npt.NDArray[Any]
"""(groups, r) whole-number multiplicities, as floats or integers."""

RECALLS = np.linspace(0.0, 1.0, 101)
RECALL_DETECTIONS = (1, 10, MAX_DETECTIONS)
"""Predictions an image and class that COCO's average recall looks at."""

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which sensitivity is read."""

_Array: TypeAlias = FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class HitRows:
    """One class's predictions by falling score, cut behind every prediction that hits at some threshold.

    Attributes:
        seen: (rows, groups) sparse: predictions in each row, its last one being the hit.
        group: (rows,) group of that hit.
        hit: (t, rows) whether it is a hit at threshold t.
        truth: (1, groups) sparse: true boxes of each group.
        ignored: predictions that do not count, by threshold, (rows, groups) sparse, in each row;
            None where none is.
        within: hits by threshold and most detections an image, (groups,); see ``average_recall``.
    """

    seen: Any
    group: IntArray
    hit: npt.NDArray[np.bool_]
    truth: Any
    ignored: tuple[Any, ...] | None
    within: Mapping[int, _Array]


def hit_rows(matches: BoxMatches, label: int, groups: IntArray) -> HitRows:
    """Boil one class down to its hits.

    Args:
        matches: cached matches.
        label: class id.
        groups: (images,) group numbers from 0.
    """
    own = slice(int(matches.starts[label]), int(matches.starts[label + 1]))
    hit, group = matches.hit[:, own], groups[matches.image[own]]
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    rows = np.flatnonzero(hit.any(axis=0))
    truth = _row(groups, matches.truth_counts[:, label], n_groups)
    ignored = None
    if matches.ignored is not None:
        ignored = tuple(
            _tally(rows, group, n_groups, own_row) for own_row in matches.ignored[:, own]
        )
    within: dict[int, _Array] = {}
    if matches.rank is not None:
        for most in RECALL_DETECTIONS:
            first = hit & (matches.rank[own] < most)
            within[most] = np.stack(
                [np.bincount(group[one], minlength=n_groups) for one in first]
            ).astype(np.float64)
    return HitRows(_tally(rows, group, n_groups), group[rows], hit[:, rows], truth, ignored, within)


def _tally(
    ends: IntArray, group: IntArray, n_groups: int, chosen: npt.NDArray[np.bool_] | None = None
) -> Any:
    """(rows, groups) sparse counts: row i counts the (chosen) predictions after ``ends[i - 1]`` up to ``ends[i]``."""
    last = int(ends[-1]) + 1 if len(ends) else 0
    if chosen is None:
        return _sparse(group[:last], ends + 1, n_groups)
    at = np.flatnonzero(chosen[:last])
    return _sparse(group[at], np.searchsorted(at, ends, side="right"), n_groups)


def _sparse(group: IntArray, stops: IntArray, n_groups: int) -> Any:
    """(rows, groups) counts of the groups from where the row before stops up to where the row does."""
    ones = np.ones(len(group), dtype=np.int32)
    return csr_array((ones, group, np.concatenate([[0], stops])), shape=(len(stops), n_groups))


def _row(groups: IntArray, counts: IntArray, n_groups: int) -> Any:
    """(1, groups) sparse sums of the images' counts."""
    sums = np.bincount(groups, weights=counts, minlength=n_groups).astype(np.int32)
    return csr_array(sums[None])


def average_precision(rows: HitRows, weights: Weights) -> _Array:
    """COCO average precision of one class at every threshold, for many weightings at once.

    Args:
        rows: rows of the class.
        weights: (groups, r) multiplicities.

    Returns:
        (t, r) in 0..1; NaN where no true box has weight.
    """
    n_true = _total(rows.truth, weights)
    result = np.zeros((len(rows.hit), weights.shape[1]))
    if len(rows.group):
        seen = _running(rows.seen @ weights)
        own = weights[rows.group]
        for t, hit in enumerate(rows.hit):
            at = np.flatnonzero(hit)
            if len(at):
                before = seen[at]
                if rows.ignored is not None:
                    before = before - _running(rows.ignored[t] @ weights)[at]
                result[t] = _interpolated(_running(own[at]), before, n_true)
    return np.where(n_true > 0, result, np.nan)


def _total(row: Any, weights: Weights) -> npt.NDArray[Any]:
    """(r,) product with a sparse row."""
    product: npt.NDArray[Any] = np.asarray(row @ weights)[0]
    return product


def _running(values: Weights) -> npt.NDArray[Any]:
    """Running sums down the rows, in the values' own kind of number."""
    running: npt.NDArray[Any] = np.cumsum(values, axis=0, dtype=values.dtype)
    return running


def average_recall(rows: HitRows, weights: FloatArray, most: int) -> _Array:
    """COCO's recall of one class at every threshold: share of true boxes that the first ``most`` predictions an image find.

    Args:
        rows: rows of the class, from matches that hold the predictions' ranks.
        weights: (groups, r) multiplicities.
        most: predictions an image, one of ``RECALL_DETECTIONS``.

    Returns:
        (t, r) in 0..1; NaN where no true box has weight.
    """
    n_true = _total(rows.truth, weights)
    return np.where(n_true > 0, (rows.within[most] @ weights) / np.maximum(n_true, 1.0), np.nan)


def _interpolated(found: Weights, seen: Weights, n_true: Weights) -> _Array:
    """101-point mean of the precision envelope: hits so far (h, r), predictions so far (h, r), truth (r,)."""
    # Multiplicities are whole: below 1 means that nothing was seen.
    precision = found / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = found / np.maximum(n_true, 1)
    # How many of RECALLS are reached, as searchsorted counts them. The product may round to the next
    # whole number or lie a rounding below it, so it is pushed up, and taken back where it went too far.
    reached = (recall * (len(RECALLS) - 1) + 1e-9).astype(np.int32)
    reached -= RECALLS.take(reached) > recall
    steps = np.diff(reached, axis=0, prepend=-1)
    return np.asarray(np.einsum("hr,hr->r", steps, envelope) / len(RECALLS))


@dataclass(frozen=True, slots=True, eq=False)
class FrocRows:
    """Predictions of one class or of all, by falling score, cut behind every score at which a hit stands.

    Attributes:
        scores: (rows,) the score of each cut.
        seen: (rows, groups) sparse: predictions in each row.
        found: (rows, groups) sparse: hits among them.
        truth: (1, groups) sparse: true boxes.
        images: (1, groups) sparse: images.
    """

    scores: _Array
    seen: Any
    found: Any
    truth: Any
    images: Any


def froc_rows(
    matches: BoxMatches,
    threshold: float | str,
    groups: IntArray,
    label: int | None = None,
    *,
    ignore_repeats: bool = False,
) -> FrocRows:
    """Boil one class (or, with None, all classes pooled under one score threshold) down to its hits.

    Args:
        matches: cached matches.
        threshold: the IoU, or ``"centre"``, that was matched.
        groups: (images,) group numbers from 0.
        label: class id, or None for all.
        ignore_repeats: further predictions on a found box are neither hits nor false positives.
    """
    own = (
        slice(None)
        if label is None
        else slice(int(matches.starts[label]), int(matches.starts[label + 1]))
    )
    row = matches.row(threshold)
    hit, group, score = matches.hit[row, own], groups[matches.image[own]], matches.score[own]
    if ignore_repeats or matches.ignored is not None:
        counted = matches.counted(row, ignore_repeats=ignore_repeats)[own]
        hit, group, score = hit[counted], group[counted], score[counted]
    if label is None:
        order = np.argsort(-score, kind="stable")
        hit, group, score = hit[order], group[order], score[order]
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    # The last prediction of each score that holds a hit.
    ends = np.unique(np.searchsorted(-score, -score[hit], side="right") - 1)
    counts = matches.truth_counts.sum(axis=1) if label is None else matches.truth_counts[:, label]
    return FrocRows(
        score[ends],
        _tally(ends, group, n_groups),
        _tally(ends, group, n_groups, hit),
        _row(groups, counts, n_groups),
        _row(groups, np.ones_like(groups), n_groups),
    )


def froc(
    rows: FrocRows, weights: Weights, rates: Sequence[float | FloatArray] = FROC_RATES
) -> _Array:
    """Sensitivity at given mean numbers of false positives per image, for many weightings at once.

    Args:
        rows: rows of a class or of all.
        weights: (groups, r) multiplicities.
        rates: false positives per image; each a number, or (r,) one for each weighting.

    Returns:
        (rates, r) in 0..1; NaN where no true box has weight.
    """
    n_true, n_images = _total(rows.truth, weights), _total(rows.images, weights)
    result = np.zeros((len(rates), weights.shape[1]))
    if len(rows.scores):
        found = _running(rows.found @ weights)
        false = _running(rows.seen @ weights)
        false -= found
        columns = np.arange(weights.shape[1])
        for i, rate in enumerate(rates):
            most = rate * n_images * (1 + 1e-12)
            if false.dtype.kind == "i":  # integers are compared several times faster
                most = np.minimum(most, np.iinfo(false.dtype).max).astype(false.dtype)
            within = np.count_nonzero(false <= most, axis=0)  # false never falls
            result[i] = np.where(within > 0, found[within - 1, columns], 0) / np.maximum(n_true, 1)
    return np.where(n_true > 0, result, np.nan)


def mean_over_classes(values: FloatArray) -> _Array:
    """Mean over the first axis, NaN left out: (k, r) -> (r,); NaN where nothing is left."""
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    total = np.where(present, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

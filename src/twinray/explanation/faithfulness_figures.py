"""Measures of many maps -> means by class with 95 % intervals, and what each map has over the floors.

The mean is over boxes; what is resampled is the patient, as everywhere (see ``evaluation.intervals``). Intervals are those of
detectors' figures (``evaluation.levels``): the spread of the resamples times m / (m - 1) of m patients, Wilson's score interval for a
level, a symmetric one for a difference, and none or a note where patients are few. All maps are measured on the same boxes, so
differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinray.evaluation.intervals import bootstrap_groups
from twinray.evaluation.levels import BoxSupport, difference, level, variance
from twinray.records import FloatArray, IntArray

MEASURES = ("pointing", "energy", "empty", "deletion", "insertion")
FLOORS = ("box", "gaussian", "proposal")


@dataclass(frozen=True, eq=False)
class MeasuredMaps:
    """Every measure of every map of some boxes.

    Attributes:
        maps: names of the m maps, floors among them.
        measures: names of the k measures.
        values: (boxes, m, k).
        labels: (boxes,) class ids.
        groups: (boxes,) number of the patient (see ``evaluation.intervals.group_index``), gaps allowed.
        floors: which of the maps are floors.
    """

    maps: tuple[str, ...]
    measures: tuple[str, ...]
    values: FloatArray
    labels: IntArray
    groups: IntArray
    floors: tuple[str, ...] = FLOORS


def faithfulness_figures(
    measured: MeasuredMaps, classes: Sequence[str], *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Figures of every map as JSON.

    Args:
        measured: the boxes; at least one.
        classes: names that labels index.
        bootstrap: resamples of patients.
        seed: seed of the resamples.

    Returns:
        ``{map: {measure: {"value", "ci95", "n"}, "n_boxes", "per_class": {class: {measure: ..., "n_boxes"}},
        "over_floor": {floor: {measure: {"value", "ci95", "n", "share_above_zero"}}}}}``.

        ``over_floor`` is map minus floor, of maps that are not floors themselves.
    """
    whole = _resampled(measured, np.ones(len(measured.labels), dtype=bool), bootstrap, seed)
    figures = {name: _means(measured, whole, i) for i, name in enumerate(measured.maps)}
    per_class: dict[str, Mapping[str, dict[str, Any]]] = {}
    for label, name in enumerate(classes):
        own = measured.labels == label
        if own.any():
            part = _resampled(measured, own, bootstrap, seed)
            per_class[name] = {m: _means(measured, part, i) for i, m in enumerate(measured.maps)}
    for i, name in enumerate(measured.maps):
        figures[name]["per_class"] = {
            class_name: maps[name] for class_name, maps in per_class.items()
        }
        if name not in measured.floors:
            figures[name]["over_floor"] = {
                floor: _difference(measured, whole, measured.maps.index(floor), i)
                for floor in measured.floors
                if floor in measured.maps
            }
    return figures


@dataclass(frozen=True, eq=False)
class _Resampled:
    """Means (m, k) and their resamples (resamples, m, k) over ``n_boxes`` boxes of ``n_groups`` patients."""

    means: FloatArray
    samples: FloatArray
    n_boxes: int
    n_groups: int

    @property
    def support(self) -> BoxSupport:
        """What the means rest on: all boxes as one class."""
        return BoxSupport(
            self.n_groups, np.array([self.n_groups]), np.array([self.n_boxes]), self.n_groups
        )

    def lacking(self, spread: float) -> float:
        """What the variance of the resamples lacks of the truth's, as a bootstrap of m patients does."""
        return spread / (self.n_groups - 1) if self.n_groups > 1 else 0.0


def _resampled(measured: MeasuredMaps, own: Any, bootstrap: int, seed: int) -> _Resampled:
    values = measured.values[own]
    _, groups = np.unique(measured.groups[own], return_inverse=True)
    n_groups = int(groups.max()) + 1
    shape = values.shape[1:]
    sums = np.zeros((n_groups, *shape))
    np.add.at(sums, groups, values)
    counts = np.bincount(groups, minlength=n_groups).astype(np.float64)
    chunks = [
        np.einsum("gr,gmk->rmk", drawn, sums) / (counts @ drawn)[:, None, None]
        for drawn in bootstrap_groups(groups, bootstrap, seed)
    ]
    samples = np.concatenate(chunks) if chunks else np.zeros((0, *shape))
    return _Resampled(values.mean(axis=0), samples, len(values), n_groups)


def _means(measured: MeasuredMaps, part: _Resampled, i: int) -> dict[str, Any]:
    support = part.support
    figures: dict[str, Any] = {}
    for k, measure in enumerate(measured.measures):
        spread = variance(part.samples[:, i, k])
        # a share of boxes has no more cases than boxes; a mean of other values may spread less than a share
        key = (0 if _is_share(measure) else None, measure)
        figures[measure] = level(
            key, float(part.means[i, k]), spread + part.lacking(spread), support
        ).as_json()
    return {**figures, "n_boxes": part.n_boxes}


def _is_share(measure: str) -> bool:
    return measure in ("pointing", "empty") or measure.startswith("localised@")


def _difference(measured: MeasuredMaps, part: _Resampled, floor: int, i: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for k, measure in enumerate(measured.measures):
        apart = part.samples[:, i, k] - part.samples[:, floor, k]
        value = float(part.means[i, k] - part.means[floor, k])
        lacks = part.lacking(variance(apart))
        found[measure] = difference((None, measure), value, apart, lacks, part.support).as_json()
    return found

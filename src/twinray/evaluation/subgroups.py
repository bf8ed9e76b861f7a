"""Measures within groups of images (sex, age, view), and whether groups differ by more than chance.

Conventions

- A group's figures are worked out on its images alone, on the same resamples of patients as those of every other group:
  a patient with images in two groups moves both at once.
- A gap is the largest difference of one measure between two groups. It is the largest of many, so its interval holds for all pairs
  at once: the 95th percentile of the largest |resample - mean| / standard error of any pair stands where a single
  comparison would have 1.96 (Westfall and Young, Resampling-based multiple testing, 1993). ``p`` is the share of
  resamples in which chance alone makes a gap as large, if all groups were equal.
- Groups with too few patients for an interval are shown with their n, and left out of gaps.
- Images whose attribute is not stated are a group of their own, ``unknown``.

Groups differ in how frequent and how severe findings are; a gap is a question, not a cause.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.boxes import FROC_RULE, BoxCache, FrocRule, box_supports, plain_figures, size_of
from twinray.evaluation.cutoffs import LabelThresholds
from twinray.evaluation.intervals import bootstrap_groups, group_index
from twinray.evaluation.label_measures import Support, figures, interval, measures_of
from twinray.evaluation.labelled import Drawn, Groups, Labelled
from twinray.evaluation.levels import level, variance
from twinray.evaluation.matching import BoxesByImage, flatten
from twinray.evaluation.record import ClassFigures, Figure, SplitFigures, by_class, figure_of
from twinray.records import FloatArray, IntArray, Interval, Task

UNKNOWN = "unknown"
MOST_GROUPS = 30
_Key: TypeAlias = tuple[int | None, str]


@dataclass(frozen=True)
class By:
    """What images are grouped by.

    Attributes:
        attribute: name in the pack.
        edges: lower ends of numeric groups, rising; empty for one group a value.
    """

    attribute: str
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference of a measure between two groups.

    Attributes:
        class_name: whose measure; None for that over all classes.
        measure: name.
        figure: high group minus low group, with its interval over all pairs and ``p`` under ``tests``.
        high, low: the two groups.
        groups: how many were compared; pairs: how many pairs that makes.
    """

    class_name: str | None
    measure: str
    figure: Figure
    high: str
    low: str
    groups: int

    @property
    def pairs(self) -> int:
        """Comparisons that the interval and p allow for."""
        return self.groups * (self.groups - 1) // 2

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "class": self.class_name,
            "measure": self.measure,
            "gap": self.figure.value,
            "gap_ci95": None if self.figure.ci95 is None else list(self.figure.ci95),
            "p": self.figure.tests.get("p"),
            "n": self.figure.n,
            "high": self.high,
            "low": self.low,
            "groups": self.groups,
            "comparisons": self.pairs,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Subgroups:
    """Figures by attribute and group, and the largest gaps by attribute."""

    groups: Mapping[str, Mapping[str, SplitFigures]]
    gaps: Mapping[str, tuple[Gap, ...]]

    def beside(self, whole: SplitFigures) -> SplitFigures:
        """The figures over all images with those of the groups."""
        gaps = {attribute: [gap.as_json() for gap in found] for attribute, found in self.gaps.items()}
        return replace(whole, subgroups=self.groups, details={**whole.details, "gaps": gaps})


def parse_by(texts: Sequence[str]) -> tuple[By, ...]:
    """``sex``, ``age:0,40,60,80`` -> what to group by.

    Raises:
        InputError: edges that are no rising numbers, an attribute given twice.

    >>> parse_by(["sex", "age:0,40"])
    (By(attribute='sex', edges=()), By(attribute='age', edges=(0.0, 40.0)))
    """
    found = []
    for text in texts:
        attribute, colon, numbers = text.partition(":")
        attribute = attribute.strip()
        try:
            edges = tuple(float(edge) for edge in numbers.split(",")) if colon else ()
        except ValueError:
            edges = (math.nan,)
        if not attribute or not all(map(math.isfinite, edges)) or list(edges) != sorted(set(edges)):
            raise InputError(
                f"expected --by as an attribute (sex) or an attribute and rising numbers (age:0,40,60,80), got {text!r}"
            )
        found.append(By(attribute, edges))
    names = [by.attribute for by in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"expected each attribute once in --by, got {twice} {names.count(twice)} times")
    return tuple(found)


def group_names(by: By, values: Sequence[object]) -> tuple[list[str], tuple[str, ...]]:
    """The group of each image, and the groups in order; an image whose value is not stated or no number is ``unknown``.

    Args:
        by: what to group by.
        values: (n,) of the attribute; None, NaN or empty where not stated.

    Raises:
        InputError: no value is stated, or there are more groups than ``MOST_GROUPS``.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    if not any(texts):
        raise InputError(f"expected images with the attribute {by.attribute!r}, none of them states it; see --by")
    if by.edges:
        names = [_numeric_group(by.edges, _number(text)) for text in texts]
        order = [_range(by.edges, i) for i in range(-1, len(by.edges))]
        if all(name == UNKNOWN for name in names):
            example = next(filter(None, texts))
            raise InputError(
                f"expected numbers in the attribute {by.attribute!r}, got {example!r}; give --by {by.attribute}"
            )
    else:
        names = [text or UNKNOWN for text in texts]
        order = sorted(set(names) - {UNKNOWN}, key=_natural)
    present = set(names)
    groups = tuple(name for name in (*order, UNKNOWN) if name in present)
    if len(groups) > MOST_GROUPS:
        raise InputError(
            f"expected at most {MOST_GROUPS} groups, the attribute {by.attribute!r} has {len(groups)} values; "
            f"for numbers give edges: --by {by.attribute}:0,40,60"
        )
    return names, groups


_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWDymwd])")
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def _number(text: str) -> float:
    """A number, or an age as DICOM and NIH write it (058Y, 006M) in years; NaN for anything else."""
    if age := _AGE.fullmatch(text):
        return float(age[1]) * _YEARS[age[2].upper()]
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _numeric_group(edges: tuple[float, ...], value: float) -> str:
    if math.isnan(value):
        return UNKNOWN
    return _range(edges, int(np.searchsorted(edges, value, side="right")) - 1)


def _range(edges: tuple[float, ...], i: int) -> str:
    """``under 0``, ``0 to <40``, ``80 and more``."""
    if i < 0:
        return f"under {edges[0]:g}"
    return f"{edges[i]:g} and more" if i == len(edges) - 1 else f"{edges[i]:g} to <{edges[i + 1]:g}"


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Numbers inside names by value."""
    return tuple(
        (0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in re.split(r"(\d+)", text) if part
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """One group's images, ready to be weighed.

    Attributes:
        patients: (m,) numbers of its patients among all.
        values: measures of the plain data.
        weigh: (m, r) multiplicities -> measures, each (r,).
        interval: key, value, resamples -> interval.
        record: figures -> what is kept, with counts.
    """

    patients: IntArray
    values: Mapping[_Key, float]
    weigh: Callable[[FloatArray], Mapping[_Key, FloatArray]]
    interval: Callable[[_Key, float, FloatArray], Interval]
    record: Callable[[Mapping[_Key, Figure]], SplitFigures]


def subgroups_of_labels(
    truth: FloatArray,
    scores: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    patients: Groups | None,
    by: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    *,
    thresholds: LabelThresholds | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Subgroups:
    """Every measure of image labels within groups.

    Args:
        truth, scores, label_classes, task: as in ``labels.evaluate_labels``.
        patients: (n,) of each image, or None.
        by: attribute -> (n,) group of each image, and the groups in order (``group_names``).
        thresholds: as in ``labels.evaluate_labels``.
        bootstrap: number of resamples.
        seed: of the resamples.

    Raises:
        InputError: as ``labels.evaluate_labels``.
    """
    whole = Labelled.of(truth, scores, label_classes, task, patients, thresholds)
    used = whole.used

    def part(rows: npt.NDArray[np.bool_]) -> _Part:
        data, own = whole.part(rows[used])
        support, rules = Support.of(data), {measure.name: measure for measure in measures_of(data)}
        positive, negative = data.counts()

        def record(found: Mapping[_Key, Figure]) -> SplitFigures:
            overall, per_class = by_class(found, data.names)
            counts = [
                {"n_positive": p, "n_negative": q, "n_patients_positive": int(a), "n_patients_negative": int(b)}
                for p, q, a, b in zip(positive, negative, support.positive, support.negative, strict=True)
            ]
            return SplitFigures(
                overall,
                {name: ClassFigures(per_class[name], count) for name, count in zip(data.names, counts, strict=True)},
                {"n_images": len(data.truth), "n_patients": support.n},
            )

        return _Part(
            own,
            {key: float(value[0]) for key, value in figures(Drawn(data, np.ones((data.n_groups, 1)))).items()},
            lambda weights: figures(Drawn(data, weights)),
            lambda key, value, samples: interval(key, rules[key[1]], value, samples, data, support),
            record,
        )

    return _within(part, by, used, whole.groups, whole.names, bootstrap, seed)


def subgroups_of_boxes(
    truth: BoxesByImage,
    predictions: BoxesByImage,
    box_classes: Sequence[str],
    patients: Mapping[Hashable, object] | None,
    by: Mapping[str, tuple[Mapping[Hashable, str], Sequence[str]]],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    froc_rule: FrocRule = FROC_RULE,
) -> Subgroups:
    """Every measure of boxes within groups; a figure of fewer than ``FEW`` patients with a true box has no interval.

    Args:
        truth, predictions, box_classes: as in ``boxes.evaluate_boxes``.
        patients: by image id, or None.
        by: attribute -> group by image id, and the groups in order.
        bootstrap: number of resamples.
        seed: of the resamples.

    Raises:
        InputError: as ``boxes.evaluate_boxes``.
    """
    flat = flatten(truth, predictions, box_classes)
    index = group_index(patients, list(flat.ids))

    def part(rows: npt.NDArray[np.bool_]) -> _Part:
        own, inside = np.unique(index[rows], return_inverse=True)
        some = flat.subset(rows)
        cache, counts = BoxCache(some, inside, froc_rule), some.truth_counts()
        supports = box_supports(some, inside)

        def made(key: _Key, value: float, samples: FloatArray) -> Interval:
            return level(key, value, variance(samples), supports[size_of(key[1])])

        def record(found: Mapping[_Key, Figure]) -> SplitFigures:
            overall, per_class = by_class(found, some.box_classes)
            boxes = counts.sum(axis=0).tolist()
            return SplitFigures(
                overall,
                {name: ClassFigures(per_class[name], {"n_boxes": n}) for name, n in zip(some.box_classes, boxes, strict=True)},
                {"n_images": len(some.ids), "n_patients": len(own), "n_boxes": sum(boxes)},
            )  # fmt: skip

        values = {key: float(value[0]) for key, value in plain_figures(some, cache).items()}
        return _Part(own, values, cache.figures, made, record)

    positions = {attribute: ([names[i] for i in flat.ids], order) for attribute, (names, order) in by.items()}
    return _within(part, positions, np.ones(len(flat.ids), dtype=bool), index, flat.box_classes, bootstrap, seed)


def _within(
    part: Callable[[npt.NDArray[np.bool_]], _Part],
    by: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    used: npt.NDArray[np.bool_],
    patients: IntArray,
    classes: Sequence[str],
    bootstrap: int,
    seed: int,
) -> Subgroups:
    """All groups of all attributes on the same resamples of all patients."""
    parts: dict[tuple[str, str], _Part] = {}
    for attribute, (names, order) in by.items():
        of = np.array(names, dtype=object)
        for group in order:
            rows = of == group
            if (rows & used).any():
                parts[attribute, group] = part(rows)
    drawn: dict[tuple[str, str], list[Mapping[_Key, FloatArray]]] = {place: [] for place in parts}
    for weights in bootstrap_groups(patients, bootstrap, seed):
        for place, own in parts.items():
            drawn[place].append(own.weigh(np.ascontiguousarray(weights[own.patients])))
    samples = {
        place: {
            key: np.concatenate([np.zeros(0), *(piece[key] for piece in drawn[place])]) for key in parts[place].values
        }
        for place in parts
    }
    made = {
        place: {key: own.interval(key, value, samples[place][key]) for key, value in own.values.items()}
        for place, own in parts.items()
    }
    groups: dict[str, dict[str, SplitFigures]] = {}
    for (attribute, group), own in parts.items():
        figures_of = {key: figure_of(one) for key, one in made[attribute, group].items()}
        groups.setdefault(attribute, {})[group] = own.record(figures_of)
    gaps: dict[str, tuple[Gap, ...]] = {}
    for attribute, (_, order) in by.items():
        own_groups = [group for group in order if (attribute, group) in parts]
        keys = dict.fromkeys(key for group in own_groups for key in parts[attribute, group].values)
        found = []
        for key in keys:
            sure = [g for g in own_groups if (one := made[attribute, g].get(key)) is not None and one.low is not None]
            gap = _gap(
                key,
                None if key[0] is None else classes[key[0]],
                {g: made[attribute, g][key].value for g in sure},
                {g: samples[attribute, g][key] for g in sure},
                len(np.unique(patients)),
            )
            found += [gap] if gap is not None else []
        gaps[attribute] = tuple(found)
    return Subgroups(groups, gaps)


def _gap(
    key: _Key, class_name: str | None, values: Mapping[str, float], samples: Mapping[str, FloatArray], n: int
) -> Gap | None:
    """The largest difference; None with fewer than two groups to compare."""
    if len(values) < 2:
        return None
    names = list(values)
    table = np.stack([samples[name] for name in names])
    table = table[:, ~np.isnan(table).any(axis=0)]
    if table.shape[1] < 2:
        return None
    pairs = list(itertools.combinations(range(len(names)), 2))
    distances = np.array([abs(values[names[i]] - values[names[j]]) for i, j in pairs])
    drawn = np.stack([table[i] - table[j] for i, j in pairs])
    drawn -= drawn.mean(axis=1, keepdims=True)
    errors = drawn.std(axis=1, ddof=1)
    largest = int(np.argmax(distances))
    i, j = pairs[largest]
    high, low = (names[i], names[j]) if values[names[i]] >= values[names[j]] else (names[j], names[i])
    spread = errors > 0
    if not spread[largest]:
        return Gap(class_name, key[1], Figure(float(distances[largest]), None, n), high, low, len(names))
    chance = (np.abs(drawn[spread]) / errors[spread, None]).max(axis=0)
    half = float(np.percentile(chance, 95)) * float(errors[largest])
    seen = float((distances[spread] / errors[spread]).max())
    p = (1 + int((chance >= seen).sum())) / (1 + len(chance))
    value = float(distances[largest])
    return Gap(
        class_name, key[1], Figure(value, (value - half, value + half), n, tests={"p": p}), high, low, len(names)
    )  # fmt: skip

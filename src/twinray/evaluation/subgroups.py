"""Measures within groups of images (sex, age, view), and whether groups differ by more than chance.

Conventions

- A group's figures are computed on its images alone, on the same resamples of patients as those of
  every other group. A patient with images in two groups moves both at once.
- A gap is the largest difference of one measure between two groups. It is the largest of many, so
  its interval holds for all pairs at once (Westfall and Young, Resampling-based multiple testing,
  1993). The 95th percentile of the largest |resample - mean| / standard error of any pair replaces
  the 1.96 of a single comparison. Variances have m / (m - 1) of m patients, as those of levels do. ``p`` is the share of resamples in which chance alone makes a gap
  as large, if all groups were equal.
- Groups with too few patients for an interval are shown with their n, and left out of gaps.
- Images whose attribute is not stated are a group of their own, ``unknown``.

Groups differ in how frequent and how severe findings are; a gap is a question, not a cause.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.boxes import (
    FROC_RULE,
    BoxCache,
    FrocRule,
    box_supports,
    lacking_by_size,
    plain_figures,
    size_of,
)
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Difference,
    Resampling,
    bootstrap_groups,
    group_index,
)
from twinray.evaluation.labels.cutoffs import LabelThresholds
from twinray.evaluation.labels.data import Drawn, Groups, Labelled
from twinray.evaluation.labels.measures import (
    Support,
    figures,
    interval,
    label_difference,
    measures_of,
)
from twinray.evaluation.levels import difference as box_difference
from twinray.evaluation.levels import level, variance
from twinray.evaluation.matching import BoxesByImage, ImageId, flatten
from twinray.evaluation.record import ClassFigures, Figure, SplitFigures, by_class, figure_of
from twinray.records import FloatArray, IntArray, Interval, Task

UNKNOWN = "unknown"
MOST_GROUPS = 30
_Key: TypeAlias = tuple[int | None, str]
_Place: TypeAlias = tuple[str, str]  # attribute, group
_Values: TypeAlias = Mapping[_Key, float]
_Samples: TypeAlias = Mapping[_Key, FloatArray]


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
        groups: number of groups compared; pairs: number of their pairs.
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
        gaps = {
            attribute: [gap.as_json() for gap in found] for attribute, found in self.gaps.items()
        }
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
        raise InputError(
            f"expected each attribute once in --by, got {twice} {names.count(twice)} times"
        )
    return tuple(found)


def group_names(by: By, values: Sequence[object]) -> tuple[list[str], tuple[str, ...]]:
    """The group of each image, and the groups in order; an image whose value is not stated or no number is ``unknown``.

    Args:
        by: attributes to group by.
        values: (n,) of the attribute; None, NaN or empty where not stated.

    Raises:
        InputError: no value is stated, or there are more groups than ``MOST_GROUPS``.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    if not any(texts):
        raise InputError(
            f"expected images with the attribute {by.attribute!r}, none of them states it; see --by"
        )
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
        (0, float(part), "") if part.isdigit() else (1, 0.0, part)
        for part in re.split(r"(\d+)", text)
        if part
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """One group's images, ready to be weighed.

    Attributes:
        patients: (m,) numbers of its patients among all.
        values: measures of the plain data.
        weigh: (m, r) multiplicities -> measures, each (r,).
        intervals: values, resamples -> intervals.
        differences: same figures of paired differences.
        record: figures -> what is kept, with counts.
        lacking: figure, resamples of all -> what their variance lacks of the truth's, as m patients' do.
    """

    patients: IntArray
    values: _Values
    weigh: Callable[[FloatArray], _Samples]
    intervals: Callable[[_Values, _Samples], Mapping[_Key, Interval]]
    differences: Callable[[_Values, _Samples], Mapping[_Key, Difference]]
    record: Callable[[Mapping[_Key, Figure]], SplitFigures]
    lacking: Callable[[_Key, _Samples], float]


@dataclass(frozen=True, eq=False)
class Grouped:
    """Groups of one model, or of several whose figures are averaged, on the same resamples of all patients.

    Attributes:
        parts, samples: parts and samples by attribute and group; groups without an image have none.
        order: attribute -> its groups in order.
        classes: names.
        n: patients.
    """

    parts: Mapping[_Place, _Part]
    samples: Mapping[_Place, _Samples]
    order: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    n: int

    def subgroups(self) -> Subgroups:
        """Figures of every group with their intervals, and the largest gaps."""
        made = {
            place: part.intervals(part.values, self.samples[place])
            for place, part in self.parts.items()
        }
        groups: dict[str, dict[str, SplitFigures]] = {}
        for (attribute, group), part in self.parts.items():
            figures_of = {key: figure_of(one) for key, one in made[attribute, group].items()}
            groups.setdefault(attribute, {})[group] = part.record(figures_of)
        gaps: dict[str, tuple[Gap, ...]] = {}
        for attribute, order in self.order.items():
            own = [group for group in order if (attribute, group) in self.parts]
            keys = dict.fromkeys(
                key for group in own for key in self.parts[attribute, group].values
            )
            found = []
            for key in keys:
                sure = [
                    g
                    for g in own
                    if (one := made[attribute, g].get(key)) is not None and _is_sure(one)
                ]
                gap = _gap(
                    key,
                    None if key[0] is None else self.classes[key[0]],
                    {g: made[attribute, g][key].value for g in sure},
                    {g: self.samples[attribute, g][key] for g in sure},
                    {
                        g: self.parts[attribute, g].lacking(key, self.samples[attribute, g])
                        for g in sure
                    },
                    self.n,
                )
                found += [gap] if gap is not None else []
            gaps[attribute] = tuple(found)
        return Subgroups(groups, gaps)

    def minus(self, baseline: Grouped) -> dict[str, dict[str, SplitFigures]]:
        """Paired differences to another model on the same images and resamples, group by group."""
        found: dict[str, dict[str, SplitFigures]] = {}
        for (attribute, group), part in self.parts.items():
            other, place = baseline.parts[attribute, group], (attribute, group)
            keys = [key for key in part.values if key in other.values]
            values = {key: part.values[key] - other.values[key] for key in keys}
            apart = {key: self.samples[place][key] - baseline.samples[place][key] for key in keys}
            differences = part.differences(values, apart)
            kept = part.record({key: one.figure() for key, one in differences.items()})
            found.setdefault(attribute, {})[group] = kept
        return found


def _is_sure(one: Interval) -> bool:
    """Whether there is an interval, and not one of too few patients."""
    return one.low is not None and not one.method.startswith("too few")


def subgroups_of_labels(
    truth: FloatArray,
    scores: Sequence[FloatArray],
    label_classes: Sequence[str],
    task: Task,
    patients: Groups | None,
    by: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    *,
    thresholds: Sequence[LabelThresholds | None] = (),
    resampling: Resampling = PLAIN_RESAMPLING,
) -> Grouped:
    """Every measure of image labels within groups.

    Args:
        truth, label_classes, task: arguments as in ``labels.report.evaluate_labels``.
        scores: (n, k) of each model; figures are means over models.
        patients: (n,) of each image, or None.
        by: attribute -> (n,) group of each image, and the groups in order (``group_names``).
        thresholds: thresholds of each model, as in ``labels.report.evaluate_labels``; measures that
            need them are given where all models have some.
        resampling: number of resamples of patients and their seed.

    Raises:
        InputError: as ``labels.report.evaluate_labels``.
    """
    known = (
        thresholds
        if thresholds and all(one is not None for one in thresholds)
        else [None] * len(scores)
    )
    models = [
        Labelled.of(truth, table, label_classes, task, patients, cuts)
        for table, cuts in zip(scores, known, strict=True)
    ]
    whole = models[0]

    def part(rows: npt.NDArray[np.bool_]) -> _Part:
        """The models on some of the images, with what their figures rest on."""
        parts = [model.part(rows[whole.used]) for model in models]
        data, own = parts[0]
        support = Support.of(*(one for one, _ in parts))
        rules = {measure.name: measure for measure in measures_of(data)}
        positive, negative = data.counts()

        def record(found: Mapping[_Key, Figure]) -> SplitFigures:
            """Figures of the part, and of each class its positives, negatives and their patients."""
            overall, per_class = by_class(found, data.names)
            counts = [
                {
                    "n_positive": p,
                    "n_negative": q,
                    "n_patients_positive": int(a),
                    "n_patients_negative": int(b),
                }
                for p, q, a, b in zip(
                    positive, negative, support.positive, support.negative, strict=True
                )
            ]
            return SplitFigures(
                overall,
                {
                    name: ClassFigures(per_class[name], count)
                    for name, count in zip(data.names, counts, strict=True)
                },
                {"n_images": len(data.truth), "n_patients": support.n},
            )

        def intervals(values: _Values, samples: _Samples) -> dict[_Key, Interval]:
            return {
                key: interval(key, rules[key[1]], v, samples, support) for key, v in values.items()
            }

        def differences(values: _Values, samples: _Samples) -> dict[_Key, Difference]:
            return {
                key: label_difference(key, rules[key[1]], v, samples, support)
                for key, v in values.items()
            }

        def weigh(weights: FloatArray) -> dict[_Key, FloatArray]:
            return _mean([figures(Drawn(one, weights)) for one, _ in parts])

        def lacking(key: _Key, samples: _Samples) -> float:
            label = key[0]
            m = support.n if label is None else support.least(label, rules[key[1]])
            return variance(samples[key]) / (m - 1) if m > 1 else 0.0

        once = weigh(np.ones((data.n_groups, 1)))
        return _Part(own, _plain(once), weigh, intervals, differences, record, lacking)

    return _within(part, by, whole.used, whole.groups, whole.names, resampling)


def subgroups_of_boxes(
    truth: BoxesByImage,
    predictions: Sequence[BoxesByImage],
    box_classes: Sequence[str],
    patients: Mapping[ImageId, Any] | None,
    by: Mapping[str, tuple[Mapping[ImageId, str], Sequence[str]]],
    *,
    resampling: Resampling = PLAIN_RESAMPLING,
    froc_rule: FrocRule = FROC_RULE,
) -> Grouped:
    """Every measure of boxes within groups.

    Args:
        truth, box_classes: arguments as in ``boxes.evaluate_boxes``.
        predictions: predictions of each model; figures are means over models.
        patients: patients by image id, or None.
        by: attribute -> group by image id, and the groups in order.
        resampling: number of resamples of patients and their seed.
        froc_rule: rule by which FROC counts.

    Raises:
        InputError: as ``boxes.evaluate_boxes``.
    """
    models = [flatten(truth, found, box_classes) for found in predictions]
    ids = list(models[0].ids)
    index = group_index(None if patients is None else [patients[i] for i in ids], ids)

    def part(rows: npt.NDArray[np.bool_]) -> _Part:
        """The detectors on some of the images, with what their figures rest on."""
        own, inside = np.unique(index[rows], return_inverse=True)
        some = [flat.subset(rows) for flat in models]
        caches, counts = (
            [BoxCache(flat, inside, froc_rule) for flat in some],
            some[0].truth_counts(),
        )
        supports = box_supports(some[0], inside)

        def intervals(values: _Values, samples: _Samples) -> dict[_Key, Interval]:
            lacks = lacking_by_size([samples], [supports])
            return {
                key: level(key, v, variance(samples[key]) + lacks[key], supports[size_of(key[1])])
                for key, v in values.items()
            }

        def differences(values: _Values, samples: _Samples) -> dict[_Key, Difference]:
            lacks = lacking_by_size([samples], [supports])
            return {
                key: box_difference(key, v, samples[key], lacks[key], supports[size_of(key[1])])
                for key, v in values.items()
            }

        def record(found: Mapping[_Key, Figure]) -> SplitFigures:
            """Figures of the part, and of each class its boxes."""
            overall, per_class = by_class(found, some[0].box_classes)
            boxes = dict(zip(some[0].box_classes, counts.sum(axis=0).tolist(), strict=True))
            return SplitFigures(
                overall,
                {name: ClassFigures(per_class[name], {"n_boxes": n}) for name, n in boxes.items()},
                {
                    "n_images": len(some[0].ids),
                    "n_patients": len(own),
                    "n_boxes": sum(boxes.values()),
                },
            )

        def weigh(weights: FloatArray) -> dict[_Key, FloatArray]:
            return _mean([cache.figures(weights) for cache in caches])

        values = _mean(
            [plain_figures(flat, cache) for flat, cache in zip(some, caches, strict=True)]
        )

        def lacking(key: _Key, samples: _Samples) -> float:
            return lacking_by_size([samples], [supports])[key]

        return _Part(own, _plain(values), weigh, intervals, differences, record, lacking)

    positions = {
        attribute: ([names[i] for i in ids], order) for attribute, (names, order) in by.items()
    }
    return _within(
        part,
        positions,
        np.ones(len(ids), dtype=bool),
        index,
        models[0].box_classes,
        resampling,
    )


def _mean(tables: Sequence[Mapping[_Key, FloatArray]]) -> dict[_Key, FloatArray]:
    """Over models, figure by figure."""
    return {key: np.mean([table[key] for table in tables], axis=0) for key in tables[0]}


def _plain(once: Mapping[_Key, FloatArray]) -> dict[_Key, float]:
    return {key: float(value[0]) for key, value in once.items()}


def _within(
    part: Callable[[npt.NDArray[np.bool_]], _Part],
    by: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    used: npt.NDArray[np.bool_],
    patients: IntArray,
    classes: Sequence[str],
    resampling: Resampling,
) -> Grouped:
    """All groups of all attributes on the same resamples of all patients."""
    parts: dict[_Place, _Part] = {}
    for attribute, (names, order) in by.items():
        of = np.array(names, dtype=object)
        for group in order:
            rows = of == group
            if (rows & used).any():
                parts[attribute, group] = part(rows)
    drawn: dict[_Place, list[_Samples]] = {place: [] for place in parts}
    for weights in bootstrap_groups(patients, resampling.n, resampling.seed):
        for place, own in parts.items():
            drawn[place].append(own.weigh(np.ascontiguousarray(weights[own.patients])))
    samples = {
        place: {
            key: np.concatenate([np.zeros(0), *(piece[key] for piece in drawn[place])])
            for key in own.values
        }
        for place, own in parts.items()
    }
    order_of = {attribute: tuple(order) for attribute, (_, order) in by.items()}
    return Grouped(parts, samples, order_of, tuple(classes), len(np.unique(patients)))


def _gap(
    key: _Key,
    class_name: str | None,
    values: Mapping[str, float],
    samples: Mapping[str, FloatArray],
    lacks: Mapping[str, float],
    n: int,
) -> Gap | None:
    """The largest difference; None with fewer than two groups to compare.

    Args:
        key: figure. class_name: name of its class.
        values, samples: values on the plain data and their resamples, by group.
        lacks: what the variance of each group's resamples lacks.
        n: patients in all groups.
    """
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
    spreads = drawn.var(axis=1, ddof=1)
    missing = np.array([lacks[names[i]] + lacks[names[j]] for i, j in pairs])
    errors = np.where(spreads > 0, np.sqrt(spreads + missing), 0.0)
    drawn *= np.sqrt(np.where(spreads > 0, 1 + missing / np.where(spreads > 0, spreads, 1), 1))[
        :, None
    ]
    largest = int(np.argmax(distances))
    i, j = pairs[largest]
    high, low = (
        (names[i], names[j]) if values[names[i]] >= values[names[j]] else (names[j], names[i])
    )
    spread = errors > 0
    if not spread[largest]:
        return Gap(
            class_name, key[1], Figure(float(distances[largest]), None, n), high, low, len(names)
        )
    chance = (np.abs(drawn[spread]) / errors[spread, None]).max(axis=0)
    half = float(np.percentile(chance, 95)) * float(errors[largest])
    seen = float((distances[spread] / errors[spread]).max())
    p = (1 + int((chance >= seen).sum())) / (1 + len(chance))
    value = float(distances[largest])
    return Gap(
        class_name, key[1], Figure(value, (value - half, value + half), n, tests={"p": p}), high, low, len(names)
    )  # fmt: skip

"""Figures between whoever measures and whoever reads: typed records, and the one place where they become JSON and back.

``metrics.json`` holds them so, for a split::

    {measure: {"value", "ci95": [low, high], "n", "over"}, "per_class": {class: {measure: ..., "n_boxes"}}, "n_images",
     "with_boxes": the same over images with boxes, "subgroups": {attribute: {group: the same}}, ...}

A value that does not exist is null. What a reader does not know (``confusion``, ``per_seed``) is carried as it is, under
``details``. Files of the first format have no ``over``: their ``n`` counts seeds where ``per_seed`` is there, else patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinray.errors import InputError
from twinray.records import Interval

FORMAT = 2
"""Of ``metrics.json``; files without ``format`` are of the first."""

SEEN = "seen_in_pretraining"
"""Key of how many of a split's images training had seen."""

PATIENTS, SEEDS = "patients", "seeds"
Ends = tuple[float, float]
_OWN = {"per_class", "with_boxes", "subgroups", SEEN}


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval.

    Attributes:
        value: the measure or a paired difference; None where it does not exist.
        ci95: low and high end; None where no interval can be given.
        n: number of ``over`` that the interval rests on.
        over: things resampled or repeated: ``patients``, ``seeds``.
        over_seeds: same value with its interval over runs that differ in chance only; None where
            there is one run.
        runs: (folds, seeds) values of the single runs; empty where there is one run.
        by: intervals of runs with several kinds of luck: kind (``label draws``) -> the interval
            over it alone.
        share_above_zero: share, of a difference, of the resamples (or seeds) above 0; None for
            values.
        tests: further results by name, such as ``delong_p`` or ``holm_p``.
        note: reason that limits the figure (``too few to say``); empty where nothing does.
    """

    value: float | None
    ci95: Ends | None = None
    n: int = 0
    over: str = PATIENTS
    over_seeds: Figure | None = None
    runs: tuple[tuple[float | None, ...], ...] = ()
    by: Mapping[str, Figure] = field(default_factory=dict)
    share_above_zero: float | None = None
    tests: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""

    @property
    def excludes_zero(self) -> bool | None:
        """Of a difference: whether its interval leaves 0 out; None without interval."""
        return None if self.ci95 is None else not self.ci95[0] <= 0 <= self.ci95[1]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class.

    Attributes:
        figures: measure -> figure.
        counts: ``n_boxes``, or ``n_positive`` and ``n_negative``.
        details: other facts that belong to the class, as JSON holds it.
    """

    figures: Mapping[str, Figure]
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SplitFigures:
    """Figures of one model or arm on one set of images, or one arm's differences to another.

    Attributes:
        figures: measure -> figure over all classes.
        per_class: class name -> its figures.
        counts: ``n_images``, ``n_boxes``.
        with_boxes: same figures over images with at least one true box; None where there is none or
            no box at all.
        subgroups: attribute -> group -> the same over the group's images.
        seen: number of the images that training had seen, of how many; None where none.
        details: other facts that belong to the figures, as JSON holds it (``left_out``,
            ``confusion``, ``per_seed``).
    """

    figures: Mapping[str, Figure]
    per_class: Mapping[str, ClassFigures] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    with_boxes: SplitFigures | None = None
    subgroups: Mapping[str, Mapping[str, SplitFigures]] = field(default_factory=dict)
    seen: tuple[int, int] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def get(self, measure: str, class_name: str | None = None) -> Figure | None:
        """A figure; None where there is none of that name."""
        if class_name is None:
            return self.figures.get(measure)
        own = self.per_class.get(class_name)
        return None if own is None else own.figures.get(measure)

    def sets(self, images: str = "all") -> Iterator[tuple[str, SplitFigures]]:
        """These figures, then those over images with boxes, then each group's, each with its label."""
        yield images, self
        if self.with_boxes is not None:
            yield "with_boxes", self.with_boxes
        for attribute, groups in self.subgroups.items():
            for group, figures in groups.items():
                yield f"{attribute}={group}", figures


def figure_of(interval: Interval, over: str = PATIENTS) -> Figure:
    """A measure as ``intervals`` made it."""
    ends = (
        None
        if interval.low is None or interval.high is None
        else (float(interval.low), float(interval.high))
    )
    return Figure(_known(interval.value), ends, int(interval.n), over, note=interval.method)


def figure_as_json(figure: Figure) -> dict[str, Any]:
    """``{"value", "ci95", "n", "over"}``, and what else the figure has."""
    more: dict[str, Any] = {}
    if figure.share_above_zero is not None:
        more["share_above_zero"] = figure.share_above_zero
    if figure.over_seeds is not None:
        more["over_seeds"] = figure_as_json(figure.over_seeds)
    if figure.runs:
        more["runs"] = [list(row) for row in figure.runs]
    if figure.by:
        more["by"] = {kind: figure_as_json(one) for kind, one in figure.by.items()}
    if figure.tests:
        more["tests"] = dict(figure.tests)
    if figure.note:
        more["note"] = figure.note
    ends = None if figure.ci95 is None else list(figure.ci95)
    return {"value": figure.value, "ci95": ends, "n": figure.n, "over": figure.over, **more}


def split_as_json(split: SplitFigures) -> dict[str, Any]:
    """A split's figures as ``metrics.json`` holds them."""
    result: dict[str, Any] = {
        name: figure_as_json(figure) for name, figure in split.figures.items()
    }
    result["per_class"] = {
        name: {
            **{m: figure_as_json(f) for m, f in own.figures.items()},
            **own.counts,
            **own.details,
        }
        for name, own in split.per_class.items()
    }
    result |= {**split.details, **split.counts}
    if split.with_boxes is not None or "n_boxes" in split.counts:
        result["with_boxes"] = None if split.with_boxes is None else split_as_json(split.with_boxes)
    if split.subgroups:
        result["subgroups"] = {
            attribute: {group: split_as_json(figures) for group, figures in groups.items()}
            for attribute, groups in split.subgroups.items()
        }
    if split.seen is not None:
        result[SEEN] = {"value": split.seen[0], "ci95": None, "n": split.seen[1]}
    return result


def read_figure(raw: Mapping[str, Any], where: str, over: str = PATIENTS) -> Figure:
    """A figure as JSON holds it.

    Args:
        raw: record with ``value``.
        where: file and key, for messages.
        over: things that ``n`` counts where the figure does not say.

    Raises:
        InputError: the interval or the count is of another form.
    """
    ends = raw.get("ci95")
    if ends is not None and not (
        isinstance(ends, list | tuple) and len(ends) == 2 and all(map(_number, ends))
    ):
        raise InputError(
            f"{where}: expected two numbers or null as ci95, found {ends!r:.60}; was it edited?"
        )
    if raw["value"] is not None and not _number(raw["value"]):
        raise InputError(
            f"{where}: expected a number or null as value, found {raw['value']!r:.60}; was it edited?"
        )
    n = raw.get("n", 0)
    if not isinstance(n, int) or isinstance(n, bool):
        raise InputError(f"{where}: expected a whole number as n, found {n!r:.60}; was it edited?")
    seeds, share, tests = raw.get("over_seeds"), raw.get("share_above_zero"), raw.get("tests")
    return Figure(
        _known(raw["value"]),
        None if ends is None else (float(ends[0]), float(ends[1])),
        n,
        str(raw.get("over", over)),
        read_figure(seeds, where, SEEDS)
        if isinstance(seeds, Mapping) and "value" in seeds
        else None,
        tuple(tuple(map(_known, row)) for row in raw.get("runs") or ()),
        {str(k): read_figure(v, where, str(k)) for k, v in (raw.get("by") or {}).items()},
        _known(share),
        {str(k): _known(v) for k, v in tests.items()} if isinstance(tests, Mapping) else {},
        str(raw.get("note", "")),
    )


def read_split(raw: object, where: str) -> SplitFigures:
    """A split's figures as ``metrics.json`` holds them, of this format or of the first.

    Args:
        raw: record as JSON holds it.
        where: file and split, for messages.

    Raises:
        InputError: something else than figures.
    """
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected figures, found {type(raw).__name__}; was it edited?")
    over = SEEDS if raw.get("per_seed") else PATIENTS
    figures, counts, details = _sorted(raw, where, over)
    per_class = raw.get("per_class") or {}
    if not isinstance(per_class, Mapping) or not all(
        isinstance(own, Mapping) for own in per_class.values()
    ):
        raise InputError(f"{where}: expected figures by class under per_class; was it edited?")
    some, groups = raw.get("with_boxes"), raw.get("subgroups") or {}
    if not isinstance(groups, Mapping) or not all(
        isinstance(of, Mapping) for of in groups.values()
    ):
        raise InputError(
            f"{where}: expected figures by attribute and group under subgroups; was it edited?"
        )
    seen = raw.get(SEEN)
    return SplitFigures(
        figures,
        {
            str(name): ClassFigures(*_sorted(own, f"{where}, class {name}", over))
            for name, own in per_class.items()
        },
        counts,
        None if some is None else read_split(some, f"{where}, with_boxes"),
        {
            attribute: {
                group: read_split(own, f"{where}, {attribute} {group}") for group, own in of.items()
            }
            for attribute, of in groups.items()
        },
        (int(seen.get("value", 0)), int(seen.get("n", 0))) if isinstance(seen, Mapping) else None,
        details,
    )


def _sorted(
    raw: Mapping[str, Any], where: str, over: str
) -> tuple[dict[str, Figure], dict[str, int], dict[str, Any]]:
    """Figures, counts and what else there is, apart."""
    figures, counts, details = {}, {}, {}
    for key, value in raw.items():
        if key in _OWN:
            continue
        if _is_figure(value):
            figures[key] = read_figure(value, f"{where}, {key}", over)
        elif key.startswith("n_") and isinstance(value, int) and not isinstance(value, bool):
            counts[key] = value
        else:
            details[key] = value
    return figures, counts, details


def _is_figure(value: object) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(value: Any) -> float | None:
    """A finite number; None for anything else."""
    return float(value) if _number(value) and math.isfinite(value) else None


def by_class(
    figures: Mapping[tuple[int | None, str], Figure], names: Sequence[str]
) -> tuple[dict[str, Figure], dict[str, dict[str, Figure]]]:
    """Figures by (class id or None, measure) -> those over all classes, and those of each class by name."""
    return (
        {measure: figure for (label, measure), figure in figures.items() if label is None},
        {
            name: {measure: figure for (label, measure), figure in figures.items() if label == i}
            for i, name in enumerate(names)
        },
    )

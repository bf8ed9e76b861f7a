"""What readers marked with and without a model's boxes -> figures by reader and arm, differences, RJafroc's table.

Conventions
    A reading is one reader on one case in one arm; its marks are boxes with a class and a rating above 0 and up to the
    scale's end (100 unless told otherwise), higher for surer. A mark hits a lesion of its own class by the rule of FROC (IoU 0.5 unless told otherwise), each
    lesion once, the highest rating first. A further mark on a found lesion is a false positive unless the rule ignores it.
    Sensitivity is the share of lesions that were hit, false positives are given per case, and the area is that under the
    weighted AFROC curve (:mod:`twinray.evaluation.readers.afroc`). All three count every mark, however low its rating.
    Intervals by reader and arm resample patients. A reader's difference is paired: the same patients in both arms, over
    the cases that this reader read in both.
    Means over readers and their differences are those of Obuchowski and Rockette (:mod:`twinray.evaluation.readers.mrmc`)
    with patients left out in turn; with two readers or more they hold for readers and cases like these, with one reader
    for this reader alone. Only readers who read every case in both arms are in them and in RJafroc's table, since both
    need complete readings; who is left out is named.
    Reading times are medians; the ratio of times is that of geometric means over cases read in both arms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.boxes import FROC_RULE, FrocRule
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Resampling,
    bootstrap_groups,
    group_index,
    paired_difference,
    percentile_interval,
)
from twinray.evaluation.matching import BoxMatches, FlatBoxes, flatten, match
from twinray.evaluation.readers.afroc import (
    Merit,
    Ratings,
    figure_of_merit,
    leave_one_out,
    ratings_of,
    usual_merit,
)
from twinray.evaluation.readers.jafroc import Mark, ReaderStudy, marks_of
from twinray.evaluation.readers.mrmc import Analysis, Effects, analyse
from twinray.evaluation.record import Figure, figure_of
from twinray.records import Boxes, FloatArray, IntArray

MEASURES = ("sensitivity", "false_positives", "area")
"""Measures of a reading, in the order of the tables."""
HIGHEST_RATING = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One reader on one case in one arm.

    Attributes:
        reader, arm, case: names.
        marks: boxes in original pixels; scores are ratings over the highest one, above 0 and up to 1.
        seconds: time that the case was looked at; NaN where it is not known.
    """

    reader: str
    arm: str
    case: str
    marks: Boxes
    seconds: float = float("nan")


@dataclass(frozen=True, slots=True)
class ReaderInArm:
    """One reader in one arm.

    Attributes:
        reader, arm: names.
        n_cases, n_lesions, n_marks: cases that were read, their lesions, marks.
        figures: measure -> figure over these cases.
        seconds: median time of a case.
    """

    reader: str
    arm: str
    n_cases: int
    n_lesions: int
    n_marks: int
    figures: Mapping[str, Figure]
    seconds: Figure


@dataclass(frozen=True, slots=True)
class ReaderDifference:
    """One reader's second arm minus the first, over the cases that were read in both.

    Attributes:
        reader: name.
        n_cases: cases that were read in both arms.
        figures: measure -> difference.
        time_ratio: time in the second arm over time in the first.
    """

    reader: str
    n_cases: int
    figures: Mapping[str, Figure]
    time_ratio: Figure


@dataclass(frozen=True, slots=True, eq=False)
class StudyFigures:
    """A reader study's figures.

    Attributes:
        arms: names of the two arms; differences are the second minus the first.
        merit: area that was taken (``wafroc``, or ``wafroc1`` with hardly any case without lesions).
        by_reader: every reader in every arm.
        differences: by reader.
        crossed: measure -> analysis over the complete readers; a measure that cannot be analysed is missing.
        effects: what the analyses hold for.
        complete: readers who read every case in both arms.
        table: their marks as RJafroc reads them; None where there is no such reader.
        notes: facts that must be read with the figures.
    """

    arms: tuple[str, str]
    merit: Merit
    by_reader: tuple[ReaderInArm, ...]
    differences: tuple[ReaderDifference, ...]
    crossed: Mapping[str, Analysis]
    effects: Effects
    complete: tuple[str, ...]
    table: ReaderStudy | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """One reader in one arm, matched.

    Attributes:
        flat, matches: the marks beside the lesions.
        counts: (4, cases) hits, lesions, false positives, 1.
        ratings: marks as ratings.
        groups: (cases,) patient of each case, numbered from 0.
        seconds: (cases,) times.
    """

    flat: FlatBoxes
    matches: BoxMatches
    counts: FloatArray
    ratings: Ratings
    groups: IntArray
    seconds: FloatArray

    def only(self, cases: Iterable[str]) -> _Read:
        """The same of some cases."""
        wanted = set(cases)
        rows = np.array(
            [i for i, case in enumerate(self.flat.ids) if case in wanted], dtype=np.int64
        )
        keep = np.zeros(len(self.flat.ids), dtype=bool)
        keep[rows] = True
        return replace(
            self,
            flat=self.flat.subset(keep),
            counts=self.counts[:, rows],
            ratings=self.ratings.only(rows),
            groups=np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64),
            seconds=self.seconds[rows],
        )


def study_figures(
    readings: Sequence[Reading],
    truth: Mapping[str, Boxes],
    box_classes: Sequence[str],
    arms: tuple[str, str],
    patients: Mapping[str, str | None] | None = None,
    *,
    rule: FrocRule = FROC_RULE,
    resampling: Resampling = PLAIN_RESAMPLING,
    highest: float = HIGHEST_RATING,
) -> StudyFigures:
    """Figures of a reader study.

    Args:
        readings: what was read, in any order.
        truth: case -> its lesions; empty for a case without any.
        box_classes: names that labels index.
        arms: names of the two arms, the one to compare with first.
        patients: case -> patient, None where unknown; None where every case is a patient of its own.
        rule: what a hit is.
        resampling: resamples of patients.
        highest: highest rating of the scale, by which RJafroc's table has ratings as they were given.

    Raises:
        InputError: no reading, a reading twice, one of an unknown case or arm, or a rating outside of the scale.
    """
    by_place = _sorted(readings, truth, arms, highest)
    read = {
        place: _matched(own, truth, box_classes, patients, rule) for place, own in by_place.items()
    }
    readers = tuple(dict.fromkeys(reader for _, reader in by_place))
    merit = usual_merit([one.ratings for one in read.values()])
    by_reader = tuple(
        _in_arm(reader, arm, read[arm, reader], merit, resampling)
        for reader in readers
        for arm in arms
        if (arm, reader) in read
    )
    differences = []
    for reader in readers:
        pair = [read.get((arm, reader)) for arm in arms]
        if pair[0] is not None and pair[1] is not None:
            both = set(pair[0].flat.ids) & set(pair[1].flat.ids)
            if both:
                first, second = (one.only(map(str, both)) for one in pair if one is not None)
                differences.append(_difference(reader, first, second, merit, resampling))
    complete = tuple(
        reader
        for reader in readers
        if all(
            (arm, reader) in read and len(read[arm, reader].flat.ids) == len(truth) for arm in arms
        )
    )
    effects: Effects = "random-readers" if len(complete) > 1 else "fixed-readers"
    crossed, notes = _crossed(read, complete, arms, merit, effects)
    notes += _who_is_missing(readers, complete, read, arms, len(truth))
    if merit != "wafroc":
        notes.append(
            f"the area is {merit}: with fewer than 10 cases without lesions non-lesion marks of all cases count"
        )
    return StudyFigures(
        arms, merit, by_reader, tuple(differences), crossed, effects, complete,
        _table(read, complete, arms, truth, rule, highest) if complete else None, tuple(notes),
    )  # fmt: skip


def _sorted(
    readings: Sequence[Reading], truth: Mapping[str, Boxes], arms: tuple[str, str], highest: float
) -> dict[tuple[str, str], dict[str, Reading]]:
    """(arm, reader) -> case -> reading, readers in the order of their names."""
    if not readings:
        raise InputError("reader study: expected one reading or more, found none")
    found: dict[tuple[str, str], dict[str, Reading]] = {}
    for one in sorted(
        readings, key=lambda r: (r.reader, arms.index(r.arm) if r.arm in arms else 2)
    ):
        where = f"reader study: {one.reader!r} on case {one.case!r}"
        if one.arm not in arms:
            raise InputError(f"{where}: expected the arm {arms[0]} or {arms[1]}, got {one.arm!r}")
        if one.case not in truth:
            raise InputError(f"{where}: the truth does not name this case")
        own = found.setdefault((one.arm, one.reader), {})
        if one.case in own:
            raise InputError(f"{where}: read twice in the arm {one.arm}; keep one")
        scores = one.marks.scores
        if scores is None or not ((scores > 0) & (scores <= 1)).all():
            raise InputError(
                f"{where}: expected a rating above 0 and up to {highest:g} for every mark"
            )
        own[one.case] = one
    return found


def _matched(
    own: Mapping[str, Reading],
    truth: Mapping[str, Boxes],
    box_classes: Sequence[str],
    patients: Mapping[str, str | None] | None,
    rule: FrocRule,
) -> _Read:
    flat = flatten(
        {case: truth[case] for case in own}, {case: r.marks for case, r in own.items()}, box_classes
    )
    m = match(flat, "centre" if rule.hit == "centre" else [rule.hit])
    n, ignore = len(flat.ids), rule.repeats == "ignore"
    wrong = m.counted(0, ignore_repeats=ignore) & ~m.hit[0]
    counts = np.stack(
        [
            np.bincount(m.image[m.hit[0]], minlength=n),
            m.truth_counts.sum(axis=1),
            np.bincount(m.image[wrong], minlength=n),
            np.ones(n),
        ]
    ).astype(np.float64)
    cases = [str(case) for case in flat.ids]
    return _Read(
        flat,
        m,
        counts,
        ratings_of(flat, m, ignore_repeats=ignore),
        group_index(None if patients is None else [patients.get(c) for c in cases], cases),
        np.array([own[case].seconds for case in cases], dtype=np.float64),
    )


def _values(read: _Read, merit: Merit, weights: FloatArray) -> FloatArray:
    """(3, r) measures where case i counts ``weights[i, r]`` times."""
    hits, lesions, wrong, n = read.counts @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([hits / lesions, wrong / n, figure_of_merit(read.ratings, merit, weights)])


def _plain(read: _Read, merit: Merit) -> FloatArray:
    return _values(read, merit, np.ones((len(read.flat.ids), 1)))[:, 0]


def _drawn(
    read: _Read, resampling: Resampling, of: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """(rows, resamples) of what ``of`` makes of each weighting of the cases."""
    parts = [
        of(weights[read.groups])
        for weights in bootstrap_groups(read.groups, resampling.n, resampling.seed)
    ]
    rows = len(of(np.ones((len(read.flat.ids), 1))))
    return np.concatenate([np.zeros((rows, 0)), *parts], axis=1)


def _samples(read: _Read, merit: Merit, resampling: Resampling) -> FloatArray:
    """(3, resamples) measures."""
    return _drawn(read, resampling, lambda weights: _values(read, merit, weights))


def _n_groups(read: _Read) -> int:
    return int(read.groups.max()) + 1


def _in_arm(
    reader: str, arm: str, read: _Read, merit: Merit, resampling: Resampling
) -> ReaderInArm:
    samples = _samples(read, merit, resampling)
    n = _n_groups(read)
    figures = {
        name: figure_of(percentile_interval(float(value), own, n))
        for name, value, own in zip(MEASURES, _plain(read, merit), samples, strict=True)
    }
    known = ~np.isnan(read.seconds)
    median = _weighted_median(read.seconds, known.astype(float)[:, None])
    times = _drawn(read, resampling, lambda w: _weighted_median(read.seconds, w * known[:, None])[None])  # fmt: skip
    return ReaderInArm(
        reader, arm, len(read.flat.ids), int(read.counts[1].sum()), len(read.flat.image), figures,
        figure_of(percentile_interval(float(median[0]), times[0], n)),
    )  # fmt: skip


def _difference(
    reader: str, first: _Read, second: _Read, merit: Merit, resampling: Resampling
) -> ReaderDifference:
    drawn = [_samples(one, merit, resampling) for one in (first, second)]
    plain = [_plain(one, merit) for one in (first, second)]
    n = _n_groups(first)
    figures = {
        name: paired_difference(
            float(plain[0][i]), float(plain[1][i]), drawn[0][i], drawn[1][i], n
        ).figure()
        for i, name in enumerate(MEASURES)
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(second.seconds) - np.log(first.seconds)
    usable = np.isfinite(logs)
    logs = np.where(usable, logs, 0.0)

    def ratio(weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.exp((logs @ weights) / (usable.astype(float) @ weights)))[None]

    samples = _drawn(first, resampling, ratio)[0]
    value = float(ratio(np.ones((len(logs), 1)))[0, 0])
    return ReaderDifference(
        reader, len(first.flat.ids), figures, figure_of(percentile_interval(value, samples, n))
    )


def _weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(r,) lower median where value i counts ``weights[i, r]`` times; NaN where nothing counts."""
    order = np.argsort(values, kind="stable")  # NaN last, and of weight 0
    ranked, running = values[order], np.cumsum(weights[order], axis=0)
    total = running[-1]
    first = (running >= total / 2).argmax(axis=0)
    return np.asarray(np.where(total > 0, ranked[first], np.nan))


def _crossed(
    read: Mapping[tuple[str, str], _Read],
    complete: Sequence[str],
    arms: tuple[str, str],
    merit: Merit,
    effects: Effects,
) -> tuple[dict[str, Analysis], list[str]]:
    if not complete:
        return {}, []
    ones = [[read[arm, reader] for reader in complete] for arm in arms]
    theta = np.array([[_plain(one, merit) for one in row] for row in ones])
    left = np.array([[_left_out(one, merit) for one in row] for row in ones])
    found: dict[str, Analysis] = {}
    notes = []
    for i, name in enumerate(MEASURES):
        try:
            found[name] = analyse(theta[:, :, i], left[:, :, i], effects)
        except InputError as error:
            notes.append(f"no mean over readers of {name}: {error}")
    return found, notes


def _left_out(read: _Read, merit: Merit) -> FloatArray:
    """(3, patients) measures without each patient."""
    n = _n_groups(read)
    sums = np.stack([np.bincount(read.groups, row, n) for row in read.counts])
    hits, lesions, wrong, cases = sums.sum(axis=1, keepdims=True) - sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [hits / lesions, wrong / cases, leave_one_out(read.ratings, merit, read.groups)]
        )


def _who_is_missing(
    readers: Sequence[str],
    complete: Sequence[str],
    read: Mapping[tuple[str, str], _Read],
    arms: tuple[str, str],
    n_cases: int,
) -> list[str]:
    notes = []
    for reader in readers:
        if reader in complete:
            continue
        done = ", ".join(
            f"{len(read[arm, reader].flat.ids) if (arm, reader) in read else 0} {arm}"
            for arm in arms
        )
        notes.append(
            f"WARNING: {reader} read {done} of {n_cases} cases and is in no mean over readers, nor in RJafroc's table"
        )
    return notes


def _table(
    read: Mapping[tuple[str, str], _Read],
    complete: Sequence[str],
    arms: tuple[str, str],
    truth: Mapping[str, Boxes],
    rule: FrocRule,
    highest: float,
) -> ReaderStudy:
    """Complete readings as RJafroc reads them; ratings are those that readers gave."""
    lesions = {}
    for case, boxes in truth.items():
        n = len(boxes) if boxes.crowd is None else int((~boxes.crowd).sum())
        lesions[case] = [1 / n for _ in range(n)]
    marks = {
        (arm, reader): [
            Mark(one.image, round(one.rating * highest, 6), one.lesion)
            for one in marks_of(
                read[arm, reader].flat,
                read[arm, reader].matches,
                ignore_repeats=rule.repeats == "ignore",
            )
        ]
        for arm in arms
        for reader in complete
    }
    return ReaderStudy(lesions, marks)

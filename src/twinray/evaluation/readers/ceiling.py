"""The human ceiling: how far readers agree with each other, measured as a detector is measured.

A detector is tested against boxes that people drew, and people do not agree. What one reader scores against the
boxes of the others is what can be asked of a detector by the same ruler.

Conventions

- A *reading* is one reader on one image. Its truth is the boxes of the image's other readers, fused
  (weighted box fusion, as packs fuse). The reader's own boxes never are part of it. Readings of an image that one
  reader alone read have no truth and are left out.
- Hits are counted by the rule of FROC: a box of the right class, IoU 0.5 or more, each true box once.
  Sensitivity is hits over true boxes; false positives are given per reading. All classes count together.
- Over all readers, readings count alike: hits and boxes are summed before they are divided.
- Readers gave no rating, so their weighted AFROC area has one threshold: marked or not. A detector's area has all its
  thresholds and is larger at the same skill. Compare areas among readers, and a detector with a reader at the
  reader's own false positives per image (``detector_at_readers``).
- The truth is weaker than that of a test set with all readers' boxes fused. Figures of this
  module belong beside each other, not beside figures against other truths.
- Who read an image and drew nothing often is not recorded. Unless ``readings`` says so, a reader
  has read an image where a box of theirs stands; their empty readings are unknown. False positives
  per image are then too high, and no area is given.
- Intervals: patients are resampled, all their readings with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.accumulate import froc, froc_rows
from twinray.evaluation.boxes import FROC_RULE, FrocRule
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Resampling,
    bootstrap_groups,
    group_index,
    percentile_interval,
)
from twinray.evaluation.matching import BoxMatches, FlatBoxes, flatten, match
from twinray.evaluation.readers.afroc import (
    Merit,
    Ratings,
    figure_of_merit,
    ratings_of,
    usual_merit,
)
from twinray.evaluation.record import Figure, figure_of
from twinray.records import Boxes, FloatArray, IntArray

Fuse: TypeAlias = Callable[[Mapping[str, Boxes]], Mapping[str, Boxes]]
"""Readers' boxes by image -> one set of boxes by image (``data.fusion.fuse_by_image``)."""

ALL_READERS = "all readers"


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Every reading beside its truth.

    Attributes:
        keys: (r,) name of each reading, in evaluation order.
        image: reading -> its image.
        reader: reading -> its reader.
        truth: reading -> the fused boxes of the image's other readers.
        drawn: reading -> the reader's own boxes, each with score 1.
        whole: whether it is known who read an image and drew nothing.
    """

    keys: tuple[str, ...]
    image: Mapping[str, str]
    reader: Mapping[str, str]
    truth: Mapping[str, Boxes]
    drawn: Mapping[str, Boxes]
    whole: bool

    @property
    def readers(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(sorted(set(self.reader.values())))


@dataclass(frozen=True, slots=True)
class ReaderFigures:
    """One reader, or all, against the other readers of the same images.

    Attributes:
        name: reader, or ``all readers``.
        n_readings, n_boxes, n_drawn: readings, boxes of their truth, boxes drawn.
        sensitivity: share of the others' boxes that were hit.
        false_positives: boxes that hit none, per reading.
        area: area under the (weighted) AFROC curve; None where empty readings are unknown.
        merit: which area.
    """

    name: str
    n_readings: int
    n_boxes: int
    n_drawn: int
    sensitivity: Figure
    false_positives: Figure
    area: Figure | None
    merit: Merit = "wafroc"


@dataclass(frozen=True, slots=True)
class AgainstReader:
    """A detector and a reader on the same readings, by the same truth.

    Attributes:
        name: reader, or ``all readers``.
        rate: false positives per image, the reader's.
        reader, detector: sensitivities there.
        difference: detector minus reader, paired over patients.
    """

    name: str
    rate: float
    reader: Figure
    detector: Figure
    difference: Figure


def readings_of(
    boxes: Mapping[str, Boxes],
    fuse: Fuse,
    readings: Mapping[str, Iterable[str]] | None = None,
) -> Readings:
    """Set each reader against the fused boxes of the others.

    Args:
        boxes: image id -> the boxes of all its readers, with names.
        fuse: fusion of several readers' boxes.
        readings: image id -> everybody who read it, with or without a box; None where it is not known.

    Raises:
        InputError: boxes without names, a box of somebody who did not read the image, or no image that
            two readers read.
    """
    image: dict[str, str] = {}
    reader: dict[str, str] = {}
    drawn: dict[str, Boxes] = {}
    others: dict[str, Boxes] = {}
    for number, (name, own) in enumerate(boxes.items()):
        if len(own) and own.readers is None:
            raise InputError(
                f"readers: the boxes of image {name!r} do not say who drew them; keep the readers' boxes apart "
                "(pack --fusion-iou 0)"
            )
        who = np.array(own.readers or (), dtype=np.str_)
        present = sorted(set(who.tolist()) if readings is None else set(readings.get(name, ())))
        stranger = sorted(set(who.tolist()) - set(present))
        if stranger:
            raise InputError(
                f"readers: image {name!r} has a box of {stranger[0]!r}, who is not among those that read it "
                f"({', '.join(present) or 'nobody'}); correct the list"
            )
        if len(present) < 2:
            continue
        for place, one in enumerate(present):
            # numbers keep the order of the images, whatever their names are
            key = f"{number:09d} {place:03d}"
            image[key], reader[key] = name, one
            drawn[key] = _as_predictions(_rows(own, who == one))
            others[key] = _rows(own, who != one)
    if not image:
        raise InputError(
            "readers: expected an image that two readers read, found none; readers' boxes that were fused cannot be "
            "told apart (pack --fusion-iou 0)"
        )
    fused = fuse(others)
    truth = {key: _plain(fused[key]) for key in image}
    return Readings(tuple(image), image, reader, truth, drawn, readings is not None)


def reader_figures(
    readings: Readings,
    box_classes: Sequence[str],
    patients: Mapping[str, str | None] | None = None,
    *,
    rule: FrocRule = FROC_RULE,
    resampling: Resampling = PLAIN_RESAMPLING,
) -> tuple[ReaderFigures, ...]:
    """Sensitivity, false positives per image and weighted AFROC area of every reader, and of all together first.

    Args:
        readings: readings beside their truth.
        box_classes: names that labels index.
        patients: image id -> patient, None where unknown; None where no patient is known.
        rule: what a hit is.
        resampling: resamples of patients.
    """
    found = _Matched.of(readings, readings.drawn, box_classes, rule)
    table, groups = found.by_reading(), _groups(readings, patients)
    ratings = ratings_of(found.flat, found.matches, ignore_repeats=rule.repeats == "ignore")
    drawn = np.bincount(found.flat.image, minlength=len(readings.keys))
    return tuple(
        _figures(
            name,
            table[:, rows],
            ratings.only(rows) if readings.whole else None,
            _renumbered(groups[rows]),
            resampling,
            int(drawn[rows].sum()),
        )
        for name, rows in _by_reader(readings)
    )


def detector_at_readers(
    readings: Readings,
    predictions: Mapping[str, Boxes],
    box_classes: Sequence[str],
    patients: Mapping[str, str | None] | None = None,
    *,
    rule: FrocRule = FROC_RULE,
    resampling: Resampling = PLAIN_RESAMPLING,
) -> tuple[AgainstReader, ...]:
    """A detector's sensitivity at each reader's false positives per image, on the reader's readings and truth.

    Args:
        readings: readings beside their truth.
        predictions: image id -> the detector's boxes with scores; an image without an entry has none.
        box_classes, patients, rule, resampling: arguments as in ``reader_figures``.
    """
    none = replace(Boxes.empty(), scores=np.zeros(0))
    theirs = {key: predictions.get(readings.image[key], none) for key in readings.keys}
    table = _Matched.of(readings, readings.drawn, box_classes, rule).by_reading()
    model = _Matched.of(readings, theirs, box_classes, rule)
    groups = _groups(readings, patients)
    result = []
    for name, rows in _by_reader(readings):
        index = _renumbered(groups[rows])
        detector = model if name == ALL_READERS else model.only(rows)
        curve = froc_rows(
            detector.matches, rule.hit, index, ignore_repeats=rule.repeats == "ignore"
        )
        sums = _by_group(table[:, rows], index)
        n_groups = sums.shape[1]
        hits, boxes, wrong, n = sums.sum(axis=1).tolist()
        rate = wrong / n
        drawn: list[FloatArray] = []
        for weights in bootstrap_groups(index, resampling.n, resampling.seed):
            drawn_hits, drawn_boxes, drawn_wrong, drawn_n = sums @ weights
            with np.errstate(invalid="ignore", divide="ignore"):
                sensitivity = drawn_hits / drawn_boxes
            # the reader's rate is drawn anew with the patients
            at = froc(curve, weights, (drawn_wrong / drawn_n,))[0]
            drawn.append(np.stack([sensitivity, at]))
        samples = np.concatenate([np.zeros((2, 0)), *drawn], axis=1)
        plain = np.array(
            [hits / boxes if boxes else np.nan, froc(curve, np.ones((n_groups, 1)), (rate,))[0, 0]]
        )
        figures = [
            figure_of(percentile_interval(float(v), s, n_groups))
            for v, s in (
                (plain[0], samples[0]),
                (plain[1], samples[1]),
                (plain[1] - plain[0], samples[1] - samples[0]),
            )
        ]
        result.append(AgainstReader(name, rate, *figures))
    return tuple(result)


def detector_froc(
    readings: Readings,
    predictions: Mapping[str, Boxes],
    box_classes: Sequence[str],
    patients: Mapping[str, str | None] | None = None,
    *,
    rates: Sequence[float],
    rule: FrocRule = FROC_RULE,
    resampling: Resampling = PLAIN_RESAMPLING,
) -> dict[float, Figure]:
    """A detector's FROC curve against the readers' truth, the only one beside which readers may stand as points.

    Args:
        readings, predictions, box_classes, patients, rule, resampling: arguments as in ``detector_at_readers``.
        rates: false positives per image.

    Returns:
        Rate -> sensitivity over all readings.
    """
    none = replace(Boxes.empty(), scores=np.zeros(0))
    theirs = {key: predictions.get(readings.image[key], none) for key in readings.keys}
    found = _Matched.of(readings, theirs, box_classes, rule)
    index = _groups(readings, patients)
    n_groups = int(index.max()) + 1
    curve = froc_rows(found.matches, rule.hit, index, ignore_repeats=rule.repeats == "ignore")
    drawn = [
        froc(curve, weights, rates)
        for weights in bootstrap_groups(index, resampling.n, resampling.seed)
    ]
    samples = np.concatenate([np.zeros((len(rates), 0)), *drawn], axis=1)
    plain = froc(curve, np.ones((n_groups, 1)), rates)[:, 0]
    return {
        rate: figure_of(percentile_interval(float(value), own, n_groups))
        for rate, value, own in zip(rates, plain, samples, strict=True)
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    flat: FlatBoxes
    matches: BoxMatches
    rule: FrocRule

    @staticmethod
    def of(
        readings: Readings,
        predictions: Mapping[str, Boxes],
        box_classes: Sequence[str],
        rule: FrocRule,
    ) -> _Matched:
        """Predictions matched with the readers' boxes, flat over images."""
        truth: dict[str | int, Boxes] = {key: readings.truth[key] for key in readings.keys}
        theirs: dict[str | int, Boxes] = {key: predictions[key] for key in readings.keys}
        flat = flatten(truth, theirs, box_classes)
        return _Matched._of(flat, rule)

    @staticmethod
    def _of(flat: FlatBoxes, rule: FrocRule) -> _Matched:
        return _Matched(flat, match(flat, "centre" if rule.hit == "centre" else [rule.hit]), rule)

    def only(self, rows: IntArray) -> _Matched:
        """The same of some readings."""
        keep = np.zeros(len(self.flat.ids), dtype=bool)
        keep[rows] = True
        return _Matched._of(self.flat.subset(keep), self.rule)

    def by_reading(self) -> FloatArray:
        """(4, readings): hits, true boxes, false positives, 1."""
        n, m = len(self.flat.ids), self.matches
        ignore = self.rule.repeats == "ignore"
        wrong = m.counted(0, ignore_repeats=ignore) & ~m.hit[0]
        return np.stack(
            [
                np.bincount(m.image[m.hit[0]], minlength=n),
                m.truth_counts.sum(axis=1),
                np.bincount(m.image[wrong], minlength=n),
                np.ones(n),
            ]
        ).astype(np.float64)


def _figures(
    name: str,
    table: FloatArray,
    ratings: Ratings | None,
    groups: IntArray,
    resampling: Resampling,
    n_drawn: int,
) -> ReaderFigures:
    """Of one reader: (4, readings) counts, ratings where areas can be told, and the patients of the readings."""
    n_groups = int(groups.max()) + 1
    sums = _by_group(table, groups)
    merit = "wafroc" if ratings is None else usual_merit([ratings])
    drawn: list[FloatArray] = []
    for weights in bootstrap_groups(groups, resampling.n, resampling.seed):
        hits, boxes, wrong, n = sums @ weights
        area = np.zeros(weights.shape[1])
        if ratings is not None:
            area = figure_of_merit(ratings, merit, weights[groups])
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(np.stack([hits / boxes, wrong / n, area]))
    samples = np.concatenate([np.zeros((3, 0)), *drawn], axis=1)
    hits, boxes, wrong, n = sums.sum(axis=1).tolist()
    values = (
        hits / boxes if boxes else float("nan"),
        wrong / n,
        float("nan") if ratings is None else float(figure_of_merit(ratings, merit)[0]),
    )
    figures = [
        figure_of(percentile_interval(value, own_samples, n_groups))
        for value, own_samples in zip(values, samples, strict=True)
    ]
    area_figure = None if ratings is None else figures[2]
    return ReaderFigures(
        name, int(n), int(boxes), n_drawn, figures[0], figures[1], area_figure, merit
    )


def _by_group(table: FloatArray, groups: IntArray) -> FloatArray:
    """(4, patients) sums of (4, readings)."""
    n = int(groups.max()) + 1
    return np.stack([np.bincount(groups, row, n) for row in table])


def _by_reader(readings: Readings) -> list[tuple[str, IntArray]]:
    """All readings, then those of each reader."""
    of = np.array([readings.reader[key] for key in readings.keys])
    parts: list[tuple[str, IntArray]] = [(ALL_READERS, np.arange(len(of)))]
    return parts + [(name, np.flatnonzero(of == name)) for name in readings.readers]


def _groups(readings: Readings, patients: Mapping[str, str | None] | None) -> IntArray:
    """(readings,) numbers of patients; readings of one image are of one patient."""
    images = [readings.image[key] for key in readings.keys]
    of_image = dict.fromkeys(images)
    names = list(of_image)
    numbers = group_index(None if patients is None else [patients.get(i) for i in names], names)
    place = dict(zip(names, numbers.tolist(), strict=True))
    return np.array([place[image] for image in images], dtype=np.int64)


def _renumbered(groups: IntArray) -> IntArray:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _rows(boxes: Boxes, keep: FloatArray | IntArray) -> Boxes:
    rows = np.flatnonzero(keep)
    readers = boxes.readers
    return Boxes(
        boxes.xyxy[rows],
        boxes.labels[rows],
        readers=None if readers is None else tuple(readers[i] for i in rows.tolist()),
    )


def _as_predictions(boxes: Boxes) -> Boxes:
    return Boxes(boxes.xyxy, boxes.labels, scores=np.ones(len(boxes)))


def _plain(boxes: Boxes) -> Boxes:
    return Boxes(boxes.xyxy, boxes.labels)

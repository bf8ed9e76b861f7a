"""How well scores agree with image labels: every measure with its interval, by class and over classes, and two runs compared.

Conventions

- ``multiclass``: each image has exactly one class. Scores are one probability a class; the prediction is the highest,
  of equal ones the first. Figures of a class are one-vs-rest, averaged over classes (macro); with two
  classes both are those of the second, the positive one. Accuracy is the share of right predictions; balanced
  accuracy the mean recall over classes that occur. Images without a label are left out.
- ``multilabel``: each class is present or absent on its own; figures are averaged over classes.
  Accuracy and balanced accuracy (mean of sensitivity and specificity) are taken per class at score >= 0.5 and averaged.
  Labels that are uncertain (-1) or not stated (NaN) are left out, class by class.
- A class with one kind of label only has no AUC, no average precision and no balanced accuracy. It
  is left out of these means and named in ``left_out``. So is a class that no training image showed
  (``unlearned``): its scores are what chance left in them, and would enter as about 0.5. Measures of
  decisions between exclusive classes (accuracy, balanced accuracy, F1 of the highest) hold every class.
- ``sensitivity@90`` is read off the ROC curve of these images at 90 % specificity. ``f1``,
  ``youden``, ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` are at thresholds chosen on
  validation images (``cutoffs``) and missing without them. No threshold is chosen on the images
  that it is tested on.
- ``brier`` is the mean squared error of the probability (Brier, Monthly Weather Review 1950). Its
  range is 0..1 of a class, and 0..2 of several exclusive classes, summed over them. ``ece`` is
  defined in ``calibration``.
- Intervals are bootstrapped over patients; in a resample where a class has no figure, the mean is that of the others.
  ``bounded`` says how that of AUC is made and what is given
  where patients are few; such classes are named in ``few``.

AUC, average precision, F1 and Brier score equal scikit-learn's, calibration torchmetrics's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.evaluation.bounded import FEW
from twinray.evaluation.intervals import (
    PLAIN_RESAMPLING,
    Difference,
    Resampling,
    bootstrap_groups,
    differences_record,
)
from twinray.evaluation.labels.calibration import (
    N_BINS,
    BinTally,
    Reliability,
    frequencies,
    reliability,
)
from twinray.evaluation.labels.cutoffs import LabelThresholds
from twinray.evaluation.labels.data import DECISION_THRESHOLD, Drawn, Groups, Labelled
from twinray.evaluation.labels.delong import DeLong, delong_test
from twinray.evaluation.labels.measures import (
    Key,
    Support,
    figures,
    interval,
    label_difference,
    measures_of,
    share_interval,
)
from twinray.evaluation.multiplicity import comparisons, holm, over_classes, tests_record
from twinray.evaluation.record import (
    ClassFigures,
    SplitFigures,
    figure_as_json,
    figure_of,
    split_as_json,
)
from twinray.records import FloatArray, IntArray, Interval, Task

_Array: TypeAlias = FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LabelReport:
    """All measures of image labels.

    Attributes:
        n_images: images with at least one usable label.
        n_positive, n_negative: images by class name.
        patients: numbers by class name: patients with a positive image and with a negative one.
        metrics: measures over all classes, by name (``labels.measures.MEASURES``).
        per_class: same figures by class name.
        left_out: classes which no mean contains: with one kind of label only, or unlearned.
        few: classes with fewer than ``bounded.FEW`` patients of a kind: their intervals are made otherwise, and the spread
            that they add to means is underestimated.
        confusion: (k, k) counts, rows the true class, columns the predicted one; None for multi-label data.
        confusion_share: (k, k) shares of each true class with their intervals; None for multi-label data.
        decisions: counts of right and wrong decisions by class name, and by which threshold.
        reliability: reliability by class name; under ``""`` that of the top label where several
            classes exclude each other.
    """

    n_images: int
    n_positive: Mapping[str, int]
    n_negative: Mapping[str, int]
    patients: Mapping[str, tuple[int, int]]
    metrics: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]
    left_out: tuple[str, ...]
    few: tuple[str, ...]
    confusion: IntArray | None
    confusion_share: tuple[tuple[Interval, ...], ...] | None
    decisions: Mapping[str, Mapping[str, object]]
    reliability: Mapping[str, Reliability]

    def record(self) -> SplitFigures:
        """What is kept and shown."""
        return SplitFigures(
            {name: figure_of(found) for name, found in self.metrics.items()},
            {
                name: ClassFigures(
                    {metric: figure_of(found) for metric, found in own.items()},
                    {
                        "n_positive": self.n_positive[name],
                        "n_negative": self.n_negative[name],
                        "n_patients_positive": self.patients[name][0],
                        "n_patients_negative": self.patients[name][1],
                    },
                    {"decisions": dict(self.decisions[name])},
                )
                for name, own in self.per_class.items()
            },
            {"n_images": self.n_images},
            details={
                "left_out": list(self.left_out),
                "few": {"classes": list(self.few), "fewer_patients_than": FEW},
                "confusion": None if self.confusion is None else self.confusion.tolist(),
                "confusion_share": None
                if self.confusion_share is None
                else [
                    [figure_as_json(figure_of(cell)) for cell in row]
                    for row in self.confusion_share
                ],
                "reliability": {name: curve.as_json() for name, curve in self.reliability.items()},
            },
        )

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


@dataclass(frozen=True, slots=True, eq=False)
class LabelComparison:
    """Candidate minus baseline on the same images: overall measures, and by class name.

    Attributes:
        n_images: compared.
        metrics, per_class: differences with intervals and two-sided p of the paired bootstrap. The
            p of classes is also corrected by Holm's method over the classes of one measure.
        delong: test of the two AUCs by class name, and its p corrected by Holm's method over
            the classes that have one.
    """

    n_images: int
    metrics: Mapping[str, Difference]
    per_class: Mapping[str, Mapping[str, Difference]]
    delong: Mapping[str, tuple[DeLong, float]]

    @property
    def n_comparisons(self) -> int:
        """Tests in the largest family: classes whose differences of one measure have a p."""
        return comparisons(self.per_class)

    def record(self) -> SplitFigures:
        """What is kept and shown; DeLong's test stands beside the difference of each class's AUC."""
        plain = differences_record(self.metrics, self.per_class, self.n_images)
        per_class = dict(plain.per_class)
        for name, (test, corrected) in self.delong.items():
            own = per_class[name]
            known = {"delong_p": test.p, "delong_holm_p": corrected}
            tests = {key: None if np.isnan(value) else value for key, value in known.items()}
            auc = replace(own.figures["auc"], tests={**own.figures["auc"].tests, **tests})
            per_class[name] = replace(
                own, figures={**own.figures, "auc": auc}, details={"delong": test.as_json()}
            )
        return replace(plain, per_class=per_class, details=tests_record(self.n_comparisons))

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


def confusion_matrix(truth: FloatArray, scores: FloatArray) -> npt.NDArray[np.int64]:
    """Counts of multi-class predictions: (n, k) one-hot truth, (n, k) scores -> (k, k), rows the true class."""
    k = truth.shape[1]
    cell = truth.argmax(axis=1) * k + scores.argmax(axis=1)
    return np.asarray(np.bincount(cell, minlength=k * k).reshape(k, k), dtype=np.int64)


def row_normalised(confusion: FloatArray | IntArray) -> _Array:
    """Shares of each true class, rows summing to 1; NaN in the row of a class that does not occur."""
    total = confusion.sum(axis=1, keepdims=True)
    return np.asarray(
        np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    )


def evaluate_labels(
    truth: FloatArray,
    scores: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    groups: Groups | None = None,
    *,
    thresholds: LabelThresholds | None = None,
    resampling: Resampling = PLAIN_RESAMPLING,
    unlearned: Collection[str] = (),
) -> LabelReport:
    """Every measure with its 95 % interval.

    Args:
        truth: (n, k) 1 present, 0 absent, -1 uncertain, NaN not stated.
        scores: (n, k) probabilities in 0..1.
        label_classes: k names.
        task: ``multiclass`` or ``multilabel``.
        groups: (n,) patient of each image; None, or None for an image, where it is unknown.
        thresholds: thresholds chosen on other images (``cutoffs``); without them no measure that
            needs one is given.
        resampling: number of resamples of patients and their seed.
        unlearned: classes that no training image showed.

    Raises:
        InputError: shapes that disagree, scores that are NaN or outside 0..1, labels of another
            value, no usable label at all. Also a multi-class image with several classes or none.
    """
    data = Labelled.of(truth, scores, label_classes, task, groups, thresholds, unlearned)
    once = Drawn(data, np.ones((data.n_groups, 1)))
    values = figures(once)
    drawn, confusions, curves = _resampled(data, resampling)
    support = Support.of(data)
    by_name = {measure.name: measure for measure in measures_of(data)}
    intervals = {
        key: interval(key, by_name[key[1]], float(value[0]), drawn, support)
        for key, value in values.items()
    }
    positive, negative = data.counts()
    names = data.names
    return LabelReport(
        n_images=len(data.truth),
        n_positive=dict(zip(names, positive, strict=True)),
        n_negative=dict(zip(names, negative, strict=True)),
        patients={
            n: (int(support.positive[i]), int(support.negative[i])) for i, n in enumerate(names)
        },
        metrics={name: found for (label, name), found in intervals.items() if label is None},
        per_class={
            class_name: {name: found for (label, name), found in intervals.items() if label == i}
            for i, class_name in enumerate(names)
        },
        left_out=tuple(
            n
            for n, p, q in zip(names, positive, negative, strict=True)
            if p == 0 or q == 0 or n in unlearned
        ),
        few=tuple(
            n
            for i, n in enumerate(names)
            if 0 < min(support.positive[i], support.negative[i]) < FEW
        ),
        confusion=confusion_matrix(data.truth, data.scores) if task == "multiclass" else None,
        confusion_share=_confusion_share(data, once, confusions, support)
        if task == "multiclass"
        else None,
        decisions=_decisions(data),
        reliability=_reliability(data, curves),
    )


def compare_labels(
    truth: FloatArray,
    baseline: FloatArray,
    candidate: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    groups: Groups | None = None,
    *,
    thresholds: tuple[LabelThresholds | None, LabelThresholds | None] = (None, None),
    resampling: Resampling = PLAIN_RESAMPLING,
) -> LabelComparison:
    """Candidate minus baseline with paired 95 % intervals: both are measured on the same resamples.

    Args:
        truth: (n, k), as in ``evaluate_labels``.
        baseline: (n, k) scores of the first run.
        candidate: (n, k) scores of the second run, on the same images.
        label_classes: k names.
        task: ``multiclass`` or ``multilabel``.
        groups: argument as in ``evaluate_labels``.
        thresholds: thresholds of the first run and of the second.
        resampling: number of resamples of patients and their seed.

    Raises:
        InputError: as ``evaluate_labels``.
    """
    first, second = (
        Labelled.of(truth, scores, label_classes, task, groups, chosen)
        for scores, chosen in zip((baseline, candidate), thresholds, strict=True)
    )
    return compare_labelled(first, second, resampling)


def compare_labelled(
    first: Labelled, second: Labelled, resampling: Resampling = PLAIN_RESAMPLING
) -> LabelComparison:
    """The same of checked labels and scores: ``second`` minus ``first``, which hold the same images and labels."""
    runs = (first, second)
    by_name = {measure.name: measure for measure in measures_of(first)}
    support = Support.of(first)
    once = np.ones((first.n_groups, 1))
    values = [figures(Drawn(run, once)) for run in runs]
    pieces: list[list[dict[Key, _Array]]] = [[], []]
    for weights in bootstrap_groups(first.groups, resampling.n, resampling.seed):
        for piece, run in zip(pieces, runs, strict=True):
            piece.append(figures(Drawn(run, weights)))
    # a run without thresholds lacks some
    both = [key for key in values[0] if key in values[1]]
    drawn = {
        key: np.concatenate([np.zeros(0), *(b[key] - a[key] for a, b in zip(*pieces, strict=True))])
        for key in both
    }
    differences = {
        key: label_difference(
            key, by_name[key[1]], float(values[1][key][0] - values[0][key][0]), drawn, support
        )
        for key in both
    }
    per_class = {
        name: {measure: found for (label, measure), found in differences.items() if label == i}
        for i, name in enumerate(first.names)
    }
    return LabelComparison(
        len(first.truth),
        {name: value for (label, name), value in differences.items() if label is None},
        over_classes(per_class, first.in_mean.tolist()),
        _delong(first, second),
    )


def _resampled(
    data: Labelled, resampling: Resampling
) -> tuple[dict[Key, _Array], _Array | None, dict[str, _Array]]:
    """Of every resample: the measures (r,), the shares of the confusion matrix (k, k, r), reliability curves (bins, r)."""
    pieces: list[dict[Key, _Array]] = []
    confusions: list[_Array] = []
    curves: list[dict[str, _Array]] = []
    bins = _curves_of(data)
    for weights in bootstrap_groups(data.groups, resampling.n, resampling.seed):
        drawn = Drawn(data, weights)
        pieces.append(figures(drawn))
        if data.task == "multiclass":
            confusions.append(row_normalised(drawn.confusion()))
        curves.append({name: frequencies(tally, weights) for name, tally in bins.items()})
    keys = figures(Drawn(data, np.ones((data.n_groups, 1))))
    return (
        {key: np.concatenate([np.zeros(0), *(p[key] for p in pieces)]) for key in keys},
        np.concatenate(confusions, axis=2) if confusions else None,
        {name: np.concatenate([c[name] for c in curves], axis=1) for name in bins}
        if curves
        else {},
    )


def _curves_of(data: Labelled) -> dict[str, BinTally]:
    """Calibration of each class, and under "" of the top label."""
    top = {"": data.top_bins} if data.by_top_label else {}
    return top | dict(zip(data.names, data.bins, strict=True))


def _reliability(data: Labelled, samples: Mapping[str, _Array]) -> dict[str, Reliability]:
    none = np.zeros((N_BINS, 0))
    return {
        name: reliability(bins, samples.get(name, none), "per class" if name else "top-label")
        for name, bins in _curves_of(data).items()
    }


def reliability_curves(
    truth: FloatArray,
    scores: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    groups: Groups | None = None,
    *,
    resampling: Resampling = PLAIN_RESAMPLING,
) -> dict[str, Reliability]:
    """How often scores are right, by class, and under ``""`` of the top label where several classes exclude each other.

    Args:
        truth, scores, label_classes, task, groups, resampling: arguments as in ``evaluate_labels``.

    Raises:
        InputError: as ``evaluate_labels``.
    """
    data = Labelled.of(truth, scores, label_classes, task, groups)
    bins = _curves_of(data)
    drawn: dict[str, list[_Array]] = {name: [] for name in bins}
    for weights in bootstrap_groups(data.groups, resampling.n, resampling.seed):
        for name, one in bins.items():
            drawn[name].append(frequencies(one, weights))
    samples = {name: np.concatenate(own, axis=1) for name, own in drawn.items() if own}
    return _reliability(data, samples)


def _confusion_share(
    data: Labelled, once: Drawn, samples: _Array | None, support: Support
) -> tuple[tuple[Interval, ...], ...]:
    """Shares of each true class with intervals; exact ones where patients of the class are few or all decided alike."""
    k = len(data.names)
    shares = row_normalised(once.confusion())[:, :, 0]
    drawn = samples if samples is not None else np.zeros((k, k, 0))
    return tuple(
        tuple(
            share_interval(float(shares[i, j]), drawn[i, j], int(support.positive[i]), support.n)
            for j in range(k)
        )
        for i in range(k)
    )


def _decisions(data: Labelled) -> dict[str, dict[str, object]]:
    """Counts by class at the thresholds of Youden's index, or at the plain decision where there are none."""
    chosen = data.thresholds
    least = chosen.of("youden") if chosen is not None else np.full(len(data.names), np.nan)
    found: dict[str, dict[str, object]] = {}
    for i, name in enumerate(data.names):
        rule = (
            "youden"
            if not np.isnan(least[i])
            else "highest"
            if data.task == "multiclass"
            else "fixed"
        )
        hit, called = (
            ("hit youden", "called youden") if rule == "youden" else ("right_positive", "called")
        )
        sums = {
            table: int(data.tallies[table][:, i].sum())
            for table in (hit, called, "positive", "negative")
        }
        false = sums[called] - sums[hit]
        found[name] = {
            "rule": rule,
            "threshold": float(least[i])
            if rule == "youden"
            else DECISION_THRESHOLD
            if rule == "fixed"
            else None,
            "true_positive": sums[hit],
            "false_positive": false,
            "false_negative": sums["positive"] - sums[hit],
            "true_negative": sums["negative"] - false,
        }
    return found


def _delong(first: Labelled, second: Labelled) -> dict[str, tuple[DeLong, float]]:
    """Of each class the test, where patients suffice, and its p corrected over the classes."""
    tests = []
    fewer = np.minimum(first.patients("positive"), first.patients("negative"))
    for i, patients in enumerate(fewer.tolist()):
        known = first.known[:, i]
        tests.append(
            delong_test(
                first.scores[known, i],
                second.scores[known, i],
                first.present[known, i],
                first.groups[known],
            ).known(patients)
        )
    corrected = np.full(len(tests), np.nan)
    corrected[first.in_mean] = holm(np.array([test.p for test in tests])[first.in_mean])
    return {
        name: (test, float(p)) for name, test, p in zip(first.names, tests, corrected, strict=True)
    }


class MeasuredLabels:
    """A classifier's scores on one set of images, ready to be measured again on any resample of its patients.

    Attributes:
        data: data of its images that have a label.
        groups: (n,) patient numbers of these.

    Raises:
        InputError: as ``evaluate_labels``.
    """

    def __init__(
        self,
        truth: FloatArray,
        scores: FloatArray,
        label_classes: Sequence[str],
        task: Task,
        groups: Groups | None = None,
        thresholds: LabelThresholds | None = None,
        unlearned: Collection[str] = (),
    ) -> None:
        self.data = Labelled.of(truth, scores, label_classes, task, groups, thresholds, unlearned)
        self.groups: IntArray = self.data.groups

    def counts(self) -> tuple[list[int], list[int]]:
        """Present and absent labels by class."""
        return self.data.counts()

    def patients(self) -> tuple[IntArray, IntArray]:
        """Patients with a positive image and with a negative one, by class."""
        return self.data.patients("positive"), self.data.patients("negative")

    def plain(self) -> dict[Key, _Array]:
        """Every measure of the plain data: (class id or None, measure) -> (1,)."""
        return figures(Drawn(self.data, np.ones((self.data.n_groups, 1))))

    def figures(self, weights: FloatArray) -> dict[Key, _Array]:
        """Every measure for (groups, r) multiplicities: each (r,)."""
        return figures(Drawn(self.data, weights))

"""How measures of image labels are worked out, one row each: the function, what its cases are, how its interval is made.

A measure is a function of resamples (``labels.data.Drawn``: truth, scores, weights) that gives (k,
r) figures by class. A new measure is a new row of ``MEASURES``; reports, comparisons and subgroups
take it from there. Its name and the places where it is shown are in ``evaluation.measures``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.evaluation.accumulate import mean_over_classes
from twinray.evaluation.bounded import (
    ALL_ALIKE,
    EXACT,
    FEW,
    NEWCOMBE,
    TOO_FEW,
    exact_share,
    excess_interval,
    logit_interval,
    newcombe_auc,
    score_interval,
)
from twinray.evaluation.intervals import (
    Difference,
    expanded_p,
    expanded_tails,
    percentile_interval,
)
from twinray.evaluation.labels.calibration import expected_calibration_error
from twinray.evaluation.labels.data import SPECIFICITIES, Drawn, Labelled, at, share
from twinray.evaluation.labels.two_shares import Pair, TwoShares, mean_over_folds, two_shares
from twinray.evaluation.measures import ends
from twinray.records import FloatArray, Interval, Task

_Array: TypeAlias = FloatArray
Key: TypeAlias = tuple[int | None, str]
"""Class id, or None for the mean over classes; name of the measure."""
Kind: TypeAlias = Literal["auc", "share", "level", "error"]


@dataclass(frozen=True)
class LabelMeasure:
    """One measure of image labels.

    Attributes:
        name: name in ``metrics.json``.
        by_class: resamples -> (k, r); None for a measure of all classes together.
        overall: resamples -> (r,); None for the mean over classes.
        averaged: True where there is a figure over all classes.
        cases: table of ``Labelled.tallies`` that counts the cases which the figure speaks of; ``both`` for positives and negatives.
        kind: ``auc``, a ``share`` of the cases, another ``level`` between two ends, or an ``error`` that chance makes larger.
        sum_of: counts of the two shares whose sum it is, stretched from 0..2 to its own ends; None for others.
        task: the only task that has it; None for both.
        rule: rule of the validation thresholds that it needs; empty for none.
    """

    name: str
    by_class: Callable[[Drawn], _Array] | None
    overall: Callable[[Drawn], _Array] | None = None
    averaged: bool = True
    cases: str = "both"
    kind: Kind = "level"
    sum_of: Callable[[Labelled], Pair] | None = None
    task: Task | None = None
    rule: str = ""

    def applies_to(self, data: Labelled) -> bool:
        """Whether the data has it."""
        return self.task in (None, data.task) and (not self.rule or data.thresholds is not None)


def _ranked(name: str) -> Callable[[Drawn], _Array]:
    return lambda drawn: drawn.ranked[name]


def _recall(drawn: Drawn) -> _Array:
    return drawn.share("right_positive", "positive")


def _accuracy_of_class(drawn: Drawn) -> _Array:
    return share(
        drawn.total("right_positive") + drawn.total("right_negative"), drawn.total("known")
    )


def _accuracy_of_highest(drawn: Drawn) -> _Array:
    return share(drawn.total("right_positive").sum(axis=0), drawn.total("positive").sum(axis=0))


def _balanced(drawn: Drawn) -> _Array:
    return (_recall(drawn) + drawn.share("right_negative", "negative")) / 2


def _mean_recall(drawn: Drawn) -> _Array:
    return mean_over_classes(_recall(drawn))


def _f1(hit: str, called: str) -> Callable[[Drawn], _Array]:
    """F1; NaN in a class that never occurs, where scikit-learn has 0."""

    def measured(drawn: Drawn) -> _Array:
        positive = drawn.total("positive")
        return np.where(
            positive > 0, share(2 * drawn.total(hit), positive + drawn.total(called)), np.nan
        )

    return measured


def _macro_f1(drawn: Drawn) -> _Array:
    return mean_over_classes(_f1("right_positive", "called")(drawn))


def _brier(drawn: Drawn) -> _Array:
    return drawn.share("squared", "known")


def _brier_overall(drawn: Drawn) -> _Array:
    """Several exclusive classes: the sum over them (Brier 1950), 0..2; else the mean of the classes' own."""
    by_class = _brier(drawn)
    return (
        by_class.sum(axis=0)
        if drawn.data.by_top_label
        else mean_over_classes(by_class[drawn.data.in_mean])
    )


def _ece(drawn: Drawn) -> _Array:
    return drawn.calibration_error()


def _ece_overall(drawn: Drawn) -> _Array:
    if drawn.data.by_top_label:
        return expected_calibration_error(drawn.data.top_bins, drawn.weights)
    return mean_over_classes(drawn.calibration_error()[drawn.data.in_mean])


def _decided(measured: Callable[[Drawn, FloatArray], _Array]) -> Callable[[Drawn], _Array]:
    """A figure at the thresholds of Youden's index; NaN in a class without one."""

    def at_thresholds(drawn: Drawn) -> _Array:
        assert drawn.data.thresholds is not None
        values = measured(drawn, drawn.total("hit youden"))
        values[np.isnan(drawn.data.thresholds.of("youden"))] = np.nan
        return values

    return at_thresholds


def _f1_at_threshold(drawn: Drawn) -> _Array:
    assert drawn.data.thresholds is not None
    values = _f1("hit f1", "called f1")(drawn)
    values[np.isnan(drawn.data.thresholds.of("f1"))] = np.nan
    return values


def _sensitivity(drawn: Drawn, hit: FloatArray) -> _Array:
    return share(hit, drawn.total("positive"))


def _specificity(drawn: Drawn, hit: FloatArray) -> _Array:
    return 1 - share(drawn.total("called youden") - hit, drawn.total("negative"))


def _shares_at_half(data: Labelled) -> Pair:
    """Sensitivity and specificity of the plain decision."""
    t = data.tallies
    return (t["right_positive"], t["positive"]), (t["right_negative"], t["negative"])


def _shares_at_youden(data: Labelled) -> Pair:
    """Sensitivity and specificity at the threshold of Youden's index."""
    t = data.tallies
    called = t["called youden"] - t["hit youden"]
    return (t["hit youden"], t["positive"]), (t["negative"] - called, t["negative"])


MEASURES: tuple[LabelMeasure, ...] = (
    LabelMeasure("auc", _ranked("auc"), kind="auc"),
    LabelMeasure("average_precision", _ranked("average_precision")),
    LabelMeasure("accuracy", None, _accuracy_of_highest, cases="known", kind="share", task="multiclass"),
    LabelMeasure("recall", _recall, cases="positive", kind="share", task="multiclass", averaged=False),
    LabelMeasure("balanced_accuracy", None, _mean_recall, task="multiclass"),
    LabelMeasure("macro_f1", _f1("right_positive", "called"), _macro_f1, task="multiclass"),
    LabelMeasure("accuracy", _accuracy_of_class, cases="known", kind="share", task="multilabel"),
    LabelMeasure("balanced_accuracy", _balanced, sum_of=_shares_at_half, task="multilabel"),
    *(
        LabelMeasure(at(s), _ranked(at(s)), cases="positive", kind="share")
        for s in SPECIFICITIES
    ),
    LabelMeasure("f1", _f1_at_threshold, rule="f1"),
    LabelMeasure("youden", _decided(lambda d, h: _sensitivity(d, h) + _specificity(d, h) - 1), sum_of=_shares_at_youden, rule="youden"),
    LabelMeasure("sensitivity", _decided(_sensitivity), cases="positive", kind="share", rule="youden"),
    LabelMeasure("specificity", _decided(_specificity), cases="negative", kind="share", rule="youden"),
    LabelMeasure("ppv", _decided(lambda d, h: share(h, d.total("called youden"))), cases="called youden", kind="share", rule="youden"),
    LabelMeasure("npv", _decided(lambda d, h: 1 - share(d.total("positive") - h, d.total("rejected youden"))), cases="rejected youden", kind="share", rule="youden"),
    LabelMeasure("brier", _brier, _brier_overall, cases="known"),
    LabelMeasure("ece", _ece, _ece_overall, cases="known", kind="error"),
)  # fmt: skip


ERRORS = frozenset(measure.name for measure in MEASURES if measure.kind == "error")
"""Measures that chance makes larger, so that resamples lie above the value (``excess_interval``)."""


def measures_of(data: Labelled) -> list[LabelMeasure]:
    """Those that the data has, in their order."""
    return [measure for measure in MEASURES if measure.applies_to(data)]


def figures(drawn: Drawn) -> dict[Key, _Array]:
    """Every measure on some resamples: each (r,); NaN of a class without a negative."""
    data, found = drawn.data, dict[Key, _Array]()
    for measure in measures_of(data):
        by_class = None if measure.by_class is None else measure.by_class(drawn)
        if by_class is not None and data.lone.any():
            by_class = np.where(data.lone[:, None], np.nan, by_class)
        if measure.overall is not None:
            overall = measure.overall(drawn)
            found[None, measure.name] = (
                np.full_like(overall, np.nan) if data.lone.all() else overall
            )
        elif measure.averaged and by_class is not None:
            found[None, measure.name] = mean_over_classes(by_class[data.in_mean])
        if by_class is not None:
            found.update({(i, measure.name): by_class[i] for i in range(len(data.names))})
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """What figures rest on, of one model or of several whose figures are averaged.

    Attributes:
        positive, negative: (k,) patients with an image of that label.
        cases: patients by table, (k,).
        n: patients that were resampled.
        only: the class that a mean over classes comes down to; None where there are several.
        by_top_label: whether calibration and Brier's score over classes are of several exclusive ones.
        freedom: (k,) degrees of freedom of the AUC's standard error; empty stands for the patients of the rarer kind less one.
        sums: both shares of each measure that is a sum of two.
        folds: sets of images without a patient in common, whose figures are averaged.
    """

    positive: npt.NDArray[np.integer]
    negative: npt.NDArray[np.integer]
    cases: Mapping[str, npt.NDArray[np.integer]]
    n: int
    only: int | None = None
    by_top_label: bool = False
    freedom: tuple[float, ...] = ()
    sums: Mapping[Key, TwoShares] = field(default_factory=dict)
    folds: int = 1

    @staticmethod
    def of(data: Labelled, *others: Labelled) -> Support:
        """Count once.

        Args:
            data: one model.
            others: further models on the same images, whose figures are averaged with its own.
        """
        models = (data, *others)
        tables = {measure.cases for measure in measures_of(data)} - {"both"} | {"known"}
        counted = {t: np.mean([one.patients(t) for one in models], axis=0) for t in tables}
        freedom = [[one.auc_freedom(i) for i in range(len(data.names))] for one in models]
        sums = {
            (label, measure.name): one
            for measure in measures_of(data)
            if measure.sum_of is not None
            for label, one in two_shares(models, measure.sum_of).items()
        }
        return Support(
            data.patients("positive"),
            data.patients("negative"),
            {table: np.floor(n).astype(np.int64) for table, n in counted.items()},
            len(np.unique(data.groups)),
            int(np.flatnonzero(data.in_mean)[0]) if data.in_mean.sum() == 1 else None,
            data.by_top_label,
            tuple(np.mean(freedom, axis=0).tolist()),
            sums,
        )

    @staticmethod
    def over_folds(parts: Sequence[Support]) -> Support:
        """Of means over folds, which have no patient in common."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        only = {part.only for part in parts}
        keys = [key for key in first.sums if all(key in part.sums for part in parts)]
        return Support(
            np.sum([part.positive for part in parts], axis=0),
            np.sum([part.negative for part in parts], axis=0),
            {t: np.sum([part.cases[t] for part in parts], axis=0) for t in first.cases},
            sum(part.n for part in parts),
            first.only if len(only) == 1 else None,
            first.by_top_label,
            tuple(np.sum([part.freedom for part in parts], axis=0).tolist()),
            {key: mean_over_folds([part.sums[key] for part in parts]) for key in keys},
            len(parts),
        )

    def few(self, label: int, measure: LabelMeasure) -> bool:
        """Whether a class's figure rests on too few patients for resampling."""
        return self.least(label, measure) < FEW

    def least(self, label: int, measure: LabelMeasure) -> int:
        """Patients of the rarest kind that the figure needs."""
        both = int(self.positive[label]), int(self.negative[label])
        return min(both) if measure.cases == "both" else int(self.cases[measure.cases][label])

    def behind(self, label: int | None, measure: LabelMeasure) -> int:
        """Patients whose chance makes the spread of a figure; all of them for a mean over several classes."""
        label = self.only if label is None and measure.by_class is not None else label
        if label is not None and measure.kind == "auc" and self.freedom:
            return self.folds + round(self.freedom[label])
        return self.n if label is None else self.least(label, measure)


def interval(
    key: Key, measure: LabelMeasure, value: float, samples: FloatArray, support: Support
) -> Interval:
    """The 95 % interval of one figure, made as its kind and the number of its cases ask for."""
    label, n = key[0], support.n
    if np.isnan(value) or not len(samples):
        return Interval(value, None, None, n)
    if label is None and measure.by_class is not None and measure.name != "macro_f1":
        label = support.only  # the mean over one class is that class's figure
    known = samples[~np.isnan(samples)]
    alike = not len(known) or float(known.max() - known.min()) <= 1e-12
    few = support.few(label, measure) if label is not None else n < FEW
    if measure.kind == "auc" and label is not None and (few or alike or value >= 1 or value <= 0):
        both = int(support.positive[label]), int(support.negative[label])
        return Interval(value, *newcombe_auc(value, *both), n, NEWCOMBE)
    whole = label is not None or measure.by_class is None  # a mean of shares is no share
    if measure.kind == "share" and whole:
        cases = n if label is None else int(support.cases[measure.cases][label])
        return share_interval(value, samples, cases, n, support.folds)
    if few or alike:
        return Interval(value, None, None, n, TOO_FEW if few else ALL_ALIKE)
    if measure.kind == "auc":
        freedom = n - support.folds if label is None else support.freedom[label]
        ends_or_none = logit_interval(value, known, freedom)
        if ends_or_none is not None:
            return Interval(value, *ends_or_none, n)
    cases = support.behind(label, measure)
    low, high = ends(measure.name)
    if measure.name == "brier":  # summed over several exclusive classes: 0..2
        high = 2.0 if label is None and support.by_top_label else 1.0
    if (label, measure.name) in support.sums:
        first, last = (end / 2 for end in support.sums[label, measure.name].interval())
        return Interval(value, low + (high - low) * first, low + (high - low) * last, n)
    if measure.kind in ("level", "share") and low < value < high:
        width = high - low
        first, last = _score(
            (value - low) / width, (known - low) / width, cases, support.folds, student=True
        )
        return Interval(value, low + width * first, low + width * last, n)
    tails = expanded_tails(cases, support.folds)
    if measure.kind == "error":
        return Interval(value, *excess_interval(value, samples, tails), n)
    return percentile_interval(value, samples, n, tails=tails)


def _score(
    value: float, known: FloatArray, cases: int, folds: int, *, student: bool = False
) -> tuple[float, float]:
    """Wilson's score interval with the effective sample size, as ``levels`` has it for detectors.

    ``student``: whether the variance is known no better than ``cases`` patients tell it.
    """
    # a bootstrap of m patients spreads by (m - 1) / m of the truth, fold by fold
    freedom = max(cases - folds, 1)
    size = value * (1 - value) * freedom / (cases * float(known.var(ddof=1)))
    return score_interval(value, size, freedom if student else np.inf)


def share_interval(
    value: float, samples: FloatArray, cases: int, n: int, folds: int = 1
) -> Interval:
    """Of a share of the images of ``cases`` patients: Wilson's score, or exact where these are few or no resample differs.

    Args:
        value: the share, 0..1 or NaN.
        samples: (resamples,) of it.
        cases: patients whose images it is a share of.
        n: patients that were resampled.
        folds: folds without a patient in common that it is a mean over.
    """
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(samples):
        return Interval(value, None, None, n)
    if cases < FEW or not len(known) or float(known.max() - known.min()) <= 1e-12:
        return Interval(value, *exact_share(value, cases), n, EXACT)
    if not 0 < value < 1:
        return Interval(value, *exact_share(value, cases), n, EXACT)
    return Interval(value, *_score(value, known, cases, folds), n)


def label_difference(
    key: Key, measure: LabelMeasure, value: float, samples: FloatArray, support: Support
) -> Difference:
    """A paired difference with expanded percentiles and the two-sided p that goes with them; no interval of too few patients.

    Args:
        key: figure. measure: of it.
        value: candidate minus baseline on the plain data.
        samples: (resamples,) of it.
        support: support of the images.
    """
    label, known = key[0], samples[~np.isnan(samples)]
    if label is not None and support.few(label, measure) and len(known):
        return Difference(Interval(value, None, None, support.n, TOO_FEW), None)
    if not len(known) or support.n < 2:
        return Difference(percentile_interval(value, samples, support.n), None)
    cases = support.behind(label, measure)
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p = expanded_p(min(1.0, 2 * (1 + beyond) / (1 + len(known))), cases, support.folds)
    return Difference(
        percentile_interval(value, samples, support.n, tails=expanded_tails(cases, support.folds)),
        float(np.mean(known > 0)),
        {"p": p},
    )

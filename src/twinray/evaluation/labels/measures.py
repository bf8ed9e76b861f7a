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
    detectable,
    expanded_p,
    expanded_tails,
    percentile_interval,
)
from twinray.evaluation.labels.calibration import expected_calibration_error
from twinray.evaluation.labels.data import SPECIFICITIES, Drawn, Labelled, at, share
from twinray.evaluation.labels.joined_shares import Counts, JoinedShares
from twinray.evaluation.measures import ends
from twinray.records import FloatArray, Interval, Task

_Array: TypeAlias = FloatArray
Key: TypeAlias = tuple[int | None, str]
"""Class id, or None for the mean over classes; name of the measure."""
Samples: TypeAlias = Mapping[Key, FloatArray]
"""Figure -> (resamples,)."""
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
        mean_of: counts of the shares whose mean it is, stretched from 0..1 to its own ends; None for others.
        task: the only task that has it; None for both.
        rule: rule of the validation thresholds that it needs; empty for none.
    """

    name: str
    by_class: Callable[[Drawn], _Array] | None
    overall: Callable[[Drawn], _Array] | None = None
    averaged: bool = True
    cases: str = "both"
    kind: Kind = "level"
    mean_of: Callable[[Labelled], Counts] | None = None
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


def _recalls(data: Labelled) -> Counts:
    """Recall of the highest class."""
    return [(data.tallies["right_positive"], data.tallies["positive"])]


def _shares_at_half(data: Labelled) -> Counts:
    """Sensitivity and specificity of the plain decision."""
    t = data.tallies
    return [(t["right_positive"], t["positive"]), (t["right_negative"], t["negative"])]


def _shares_at_youden(data: Labelled) -> Counts:
    """Sensitivity and specificity at the threshold of Youden's index."""
    assert data.thresholds is not None
    t = data.tallies
    decided = ~np.isnan(data.thresholds.of("youden"))  # a class without one has no share
    positive, negative = t["positive"] * decided, t["negative"] * decided
    called = t["called youden"] - t["hit youden"]
    return [(t["hit youden"], positive), (negative - called, negative)]


MEASURES: tuple[LabelMeasure, ...] = (
    LabelMeasure("auc", _ranked("auc"), kind="auc"),
    LabelMeasure("average_precision", _ranked("average_precision")),
    LabelMeasure("accuracy", None, _accuracy_of_highest, cases="known", kind="share", task="multiclass"),
    LabelMeasure("recall", _recall, cases="positive", kind="share", task="multiclass", averaged=False),
    LabelMeasure("balanced_accuracy", None, _mean_recall, mean_of=_recalls, task="multiclass"),
    LabelMeasure("macro_f1", _f1("right_positive", "called"), _macro_f1, task="multiclass"),
    LabelMeasure("accuracy", _accuracy_of_class, cases="known", kind="share", task="multilabel"),
    LabelMeasure("balanced_accuracy", _balanced, mean_of=_shares_at_half, task="multilabel"),
    *(
        LabelMeasure(at(s), _ranked(at(s)), cases="positive", kind="share")
        for s in SPECIFICITIES
    ),
    LabelMeasure("f1", _f1_at_threshold, rule="f1"),
    LabelMeasure("youden", _decided(lambda d, h: _sensitivity(d, h) + _specificity(d, h) - 1), mean_of=_shares_at_youden, rule="youden"),
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
        joined: shares of each measure that is a mean of some.
        averaged: (k,) classes that means are over.
        folds: sets of images without a patient in common, whose figures are averaged.
    """

    positive: npt.NDArray[np.integer]
    negative: npt.NDArray[np.integer]
    cases: Mapping[str, npt.NDArray[np.integer]]
    n: int
    only: int | None = None
    by_top_label: bool = False
    freedom: tuple[float, ...] = ()
    joined: Mapping[str, JoinedShares] = field(default_factory=dict)
    averaged: tuple[bool, ...] = ()
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
        joined = {
            measure.name: JoinedShares.of(models, measure.mean_of)
            for measure in measures_of(data)
            if measure.mean_of is not None
        }
        return Support(
            data.patients("positive"),
            data.patients("negative"),
            {table: np.floor(n).astype(np.int64) for table, n in counted.items()},
            len(np.unique(data.groups)),
            int(np.flatnonzero(data.in_mean)[0]) if data.in_mean.sum() == 1 else None,
            data.by_top_label,
            tuple(np.mean(freedom, axis=0).tolist()),
            joined,
            tuple(data.in_mean.tolist()),
        )

    @staticmethod
    def over_folds(parts: Sequence[Support]) -> Support:
        """Of means over folds, which have no patient in common."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        only = {part.only for part in parts}
        both = [name for name in first.joined if all(name in part.joined for part in parts)]
        return Support(
            np.sum([part.positive for part in parts], axis=0),
            np.sum([part.negative for part in parts], axis=0),
            {t: np.sum([part.cases[t] for part in parts], axis=0) for t in first.cases},
            sum(part.n for part in parts),
            first.only if len(only) == 1 else None,
            first.by_top_label,
            tuple(np.sum([part.freedom for part in parts], axis=0).tolist()),
            {name: JoinedShares.over_folds([part.joined[name] for part in parts]) for name in both},
            tuple(np.any([part.averaged for part in parts], axis=0).tolist()),
            len(parts),
        )

    def few(self, label: int, measure: LabelMeasure) -> bool:
        """Whether a class's figure rests on too few patients for resampling."""
        return self.least(label, measure) < FEW

    def least(self, label: int, measure: LabelMeasure) -> int:
        """Patients of the rarest kind that the figure needs."""
        both = int(self.positive[label]), int(self.negative[label])
        return min(both) if measure.cases == "both" else int(self.cases[measure.cases][label])

    def behind(self, key: Key, measure: LabelMeasure, samples: Samples) -> Behind:
        """Patients whose chance makes the spread of a figure."""
        label = self.only if key[0] is None and measure.by_class is not None else key[0]
        if label is not None:
            m = self.least(label, measure)
            auc = measure.kind == "auc" and bool(self.freedom)
            return Behind.of(self.folds + self.freedom[label] if auc else m, self.folds)
        spreads = []
        for i, counts in enumerate(self.averaged):
            own = samples.get((i, measure.name), np.zeros(0))
            known, few = own[~np.isnan(own)], self.behind((i, measure.name), measure, samples)
            if counts and len(known) > 1 and known.var() > 0:
                spreads.append((float(known.var(ddof=1)), few))
        return Behind.mean(spreads) if spreads else Behind.of(self.n, self.folds)


@dataclass(frozen=True, slots=True)
class Behind:
    """How well the spread of resamples tells a figure's.

    Attributes:
        cases: patients whose chance makes it.
        lacking: number that the degrees of freedom lack of them, one a fold of one class.
    """

    cases: float
    lacking: float

    @property
    def freedom(self) -> float:
        """Degrees of freedom, 1 at least."""
        return max(self.cases - self.lacking, 1.0)

    @property
    def grown(self) -> float:
        """What the variance of the resamples is to be multiplied with: a bootstrap of m patients spreads by (m - 1) / m of the truth."""
        # of no patient nothing is known; 0 would say that the figure cannot vary
        return max(self.cases / self.freedom, 1.0)

    @staticmethod
    def of(cases: float, folds: int) -> Behind:
        """Of one class's figure."""
        return Behind(float(cases), float(folds))

    @staticmethod
    def mean(classes: Sequence[tuple[float, Behind]]) -> Behind:
        """Of a mean over classes, from the variance of each: a rare class may make most of it.

        Degrees of freedom are Satterthwaite's (Biometrics 1946), as if the classes were independent.
        """
        total = sum(variance * one.grown for variance, one in classes)
        doubt = sum((variance * one.grown) ** 2 / one.freedom for variance, one in classes)
        freedom = max(total**2 / doubt, 1.0)  # as each class's; less by rounding alone
        cases = freedom * total / sum(variance for variance, _ in classes)
        return Behind(cases, cases - freedom)


def interval(
    key: Key, measure: LabelMeasure, value: float, drawn: Samples, support: Support
) -> Interval:
    """The 95 % interval of one figure, made as its kind and the number of its cases ask for.

    Args:
        key: figure. measure: of it.
        value: value on the plain data.
        drawn: figure -> (resamples,); a mean over classes needs theirs.
        support: support of the images.
    """
    label, n, samples = key[0], support.n, drawn[key]
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
    behind = support.behind(key, measure, drawn)
    if measure.kind == "auc":
        if label is None:
            # of one class the degrees of freedom alone have held it
            known = value + (known - value) * np.sqrt(behind.grown)
        ends_or_none = logit_interval(value, known, behind.freedom)
        if ends_or_none is not None:
            return Interval(value, *ends_or_none, n)
    low, high = ends(measure.name)
    if measure.name == "brier":  # summed over several exclusive classes: 0..2
        high = 2.0 if label is None and support.by_top_label else 1.0
    if measure.name in support.joined:
        below, above = ((high - low) * reach for reach in support.joined[measure.name].reach(label))
        if not np.isnan(below + above):
            return Interval(value, max(low, value - below), min(high, value + above), n)
    if measure.kind in ("level", "share") and low < value < high:
        width = high - low
        first, last = _score((value - low) / width, (known - low) / width, behind, student=True)
        return Interval(value, low + width * first, low + width * last, n)
    tails = expanded_tails(behind.cases, behind.lacking)
    if measure.kind == "error":
        return Interval(value, *excess_interval(value, samples, tails), n)
    return percentile_interval(value, samples, n, tails=tails)


def _score(
    value: float, known: FloatArray, behind: Behind, *, student: bool = False
) -> tuple[float, float]:
    """Wilson's score interval with the effective sample size, as ``levels`` has it for detectors.

    ``student``: whether the variance is known no better than the patients behind it tell.
    """
    size = value * (1 - value) / (behind.grown * float(known.var(ddof=1)))
    return score_interval(value, size, behind.freedom if student else np.inf)


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
    return Interval(value, *_score(value, known, Behind.of(cases, folds)), n)


def label_difference(
    key: Key, measure: LabelMeasure, value: float, drawn: Samples, support: Support
) -> Difference:
    """A paired difference with expanded percentiles, the two-sided p that goes with them, and what would have been shown.

    No interval of too few patients.

    Args:
        key: figure. measure: of it.
        value: candidate minus baseline on the plain data.
        drawn: figure -> (resamples,) of the differences; a mean over classes needs theirs.
        support: support of the images.
    """
    label, samples = key[0], drawn[key]
    known = samples[~np.isnan(samples)]
    if label is not None and support.few(label, measure) and len(known):
        return Difference(Interval(value, None, None, support.n, TOO_FEW), None)
    if not len(known) or support.n < 2:
        return Difference(percentile_interval(value, samples, support.n), None)
    if abs(value) > 1e-12 and float(known.max() - known.min()) <= 1e-12:
        # Models that agree everywhere differ by 0 and nothing else. Of other models no resample that differs says little of other patients: an interval without width would claim the most
        return Difference(Interval(value, None, None, support.n, ALL_ALIKE), None)
    behind = support.behind(key, measure, drawn)
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p = expanded_p(min(1.0, 2 * (1 + beyond) / (1 + len(known))), behind.cases, behind.lacking)
    tests: dict[str, float | None] = {"p": p}
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    if spread > 1e-12:
        tests["detectable"] = detectable(spread * behind.grown**0.5, behind.freedom)
    tails = expanded_tails(behind.cases, behind.lacking)
    return Difference(
        percentile_interval(value, samples, support.n, tails=tails),
        float(np.mean(known > 0)),
        tests,
    )

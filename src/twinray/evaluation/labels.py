"""How well scores agree with image labels: AUC, average precision, accuracy, their intervals, runs compared.

Conventions

- ``multiclass``: each image has exactly one class. Scores are one probability a class; the prediction is the highest,
  of equal ones the first. AUC and average precision are one-vs-rest, averaged over classes (macro); with two
  classes both are those of the second, the positive one. Accuracy is the share of right predictions; balanced
  accuracy the mean recall over classes that occur. Images without a label are left out.
- ``multilabel``: each class is present or absent on its own; AUC and average precision are averaged over classes.
  Accuracy and balanced accuracy (mean of sensitivity and specificity) are taken per class at score >= 0.5 and averaged.
  Labels that are uncertain (-1) or not stated (NaN) are left out, class by class.
- A class with one kind of label only has no AUC, no average precision and no balanced accuracy; it is left out of these
  means and named in ``left_out``.
- Intervals are bootstrapped over patients; in a resample where a class has no AUC, the mean is that of the others.

AUC and average precision equal scikit-learn's (see ``ranking``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.accumulate import mean_over_classes
from twinray.evaluation.intervals import (
    Difference,
    bootstrap_groups,
    differences_record,
    group_index,
    paired_difference,
    percentile_interval,
)
from twinray.evaluation.ranking import auc_and_average_precision, rank
from twinray.evaluation.record import ClassFigures, SplitFigures, figure_of, split_as_json
from twinray.records import PRESENT, FloatArray, IntArray, Interval, Task

DECISION_THRESHOLD = 0.5
_Array: TypeAlias = FloatArray
_Bools: TypeAlias = npt.NDArray[np.bool_]
_Key: TypeAlias = tuple[int | None, str]
_Groups: TypeAlias = Sequence[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class LabelReport:
    """All measures of image labels.

    Attributes:
        n_images: images with at least one usable label.
        n_positive, n_negative: by class name.
        metrics: ``auc``, ``average_precision``, ``accuracy``, ``balanced_accuracy``.
        per_class: by class name ``auc``, ``average_precision``, and ``recall`` (multi-class) or ``accuracy`` and
            ``balanced_accuracy`` (multi-label).
        left_out: classes with one kind of label only, which no mean contains.
        confusion: (k, k) counts, rows the true class, columns the predicted one; None for multi-label data.
    """

    n_images: int
    n_positive: Mapping[str, int]
    n_negative: Mapping[str, int]
    metrics: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]
    left_out: tuple[str, ...]
    confusion: IntArray | None

    def record(self) -> SplitFigures:
        """What is kept and shown."""
        return SplitFigures(
            {name: figure_of(interval) for name, interval in self.metrics.items()},
            {
                name: ClassFigures(
                    {metric: figure_of(interval) for metric, interval in figures.items()},
                    {"n_positive": self.n_positive[name], "n_negative": self.n_negative[name]},
                )
                for name, figures in self.per_class.items()
            },
            {"n_images": self.n_images},
            details={
                "left_out": list(self.left_out),
                "confusion": None if self.confusion is None else self.confusion.tolist(),
            },
        )

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


@dataclass(frozen=True, slots=True, eq=False)
class LabelComparison:
    """Candidate minus baseline on the same images: overall measures, and by class name."""

    n_images: int
    metrics: Mapping[str, Difference]
    per_class: Mapping[str, Mapping[str, Difference]]

    def record(self) -> SplitFigures:
        """What is kept and shown."""
        return differences_record(self.metrics, self.per_class, self.n_images)

    def as_json(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it."""
        return split_as_json(self.record())


def confusion_matrix(truth: FloatArray, scores: FloatArray) -> npt.NDArray[np.int64]:
    """Counts of multi-class predictions: (n, k) one-hot truth, (n, k) scores -> (k, k), rows the true class."""
    k = truth.shape[1]
    cell = truth.argmax(axis=1) * k + scores.argmax(axis=1)
    return np.asarray(np.bincount(cell, minlength=k * k).reshape(k, k), dtype=np.int64)


def row_normalised(confusion: IntArray) -> _Array:
    """Shares of each true class, rows summing to 1; NaN in the row of a class that does not occur."""
    total = confusion.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0))


def evaluate_labels(
    truth: FloatArray,
    scores: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    groups: _Groups | None = None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> LabelReport:
    """Every measure with its 95 % interval.

    Args:
        truth: (n, k) 1 present, 0 absent, -1 uncertain, NaN not stated.
        scores: (n, k) probabilities in 0..1.
        label_classes: k names.
        task: ``multiclass`` or ``multilabel``.
        groups: (n,) patient of each image; None, or None for an image, where it is unknown.
        bootstrap: number of resamples; 0 for no intervals.
        seed: of the resamples.

    Raises:
        InputError: shapes that disagree, scores that are NaN or outside 0..1, labels of another value, a multi-class
            image with several classes or none, no usable label at all.
    """
    data = _Labelled(truth, scores, label_classes, task, groups)
    values = data.figures(np.ones((data.n_groups, 1)))
    samples = _resampled([data], bootstrap, seed)[0]
    intervals = {key: percentile_interval(float(values[key][0]), samples[key], data.n_groups) for key in values}
    positive, negative = data.counts()
    return LabelReport(
        n_images=len(data.truth),
        n_positive=dict(zip(data.names, positive, strict=True)),
        n_negative=dict(zip(data.names, negative, strict=True)),
        metrics={name: interval for (label, name), interval in intervals.items() if label is None},
        per_class={
            class_name: {name: interval for (label, name), interval in intervals.items() if label == i}
            for i, class_name in enumerate(data.names)
        },
        left_out=tuple(n for n, p, q in zip(data.names, positive, negative, strict=True) if p == 0 or q == 0),
        confusion=confusion_matrix(data.truth, data.scores) if task == "multiclass" else None,
    )


def compare_labels(
    truth: FloatArray,
    baseline: FloatArray,
    candidate: FloatArray,
    label_classes: Sequence[str],
    task: Task,
    groups: _Groups | None = None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> LabelComparison:
    """Candidate minus baseline with paired 95 % intervals: both are measured on the same resamples.

    Args:
        truth: (n, k), as in ``evaluate_labels``.
        baseline: (n, k) scores of the first run.
        candidate: (n, k) scores of the second run, on the same images.
        label_classes: k names.
        task: ``multiclass`` or ``multilabel``.
        groups: as in ``evaluate_labels``.
        bootstrap: number of resamples.
        seed: of the resamples.

    Raises:
        InputError: as ``evaluate_labels``.
    """
    first = _Labelled(truth, baseline, label_classes, task, groups)
    second = _Labelled(truth, candidate, label_classes, task, groups)
    once = np.ones((first.n_groups, 1))
    values = first.figures(once), second.figures(once)
    samples = _resampled([first, second], bootstrap, seed)
    differences = {
        key: paired_difference(
            float(values[0][key][0]), float(values[1][key][0]), samples[0][key], samples[1][key], first.n_groups
        )
        for key in values[0]
    }
    return LabelComparison(
        len(first.truth),
        {name: value for (label, name), value in differences.items() if label is None},
        {
            class_name: {name: value for (label, name), value in differences.items() if label == i}
            for i, class_name in enumerate(first.names)
        },
    )


def _resampled(runs: Sequence[_Labelled], bootstrap: int, seed: int) -> list[dict[_Key, _Array]]:
    """Every measure of every run on the same resamples: each (bootstrap,)."""
    keys = runs[0].figures(np.ones((runs[0].n_groups, 1)))
    pieces: list[list[dict[_Key, _Array]]] = [[] for _ in runs]
    for weights in bootstrap_groups(runs[0].groups, bootstrap, seed):
        for piece, run in zip(pieces, runs, strict=True):
            piece.append(run.figures(weights))
    return [{key: np.concatenate([np.zeros(0), *(p[key] for p in piece)]) for key in keys} for piece in pieces]


class _Labelled:
    """Checked labels and scores of one run, sorted and counted once for resampling."""

    def __init__(
        self, truth: FloatArray, scores: FloatArray, names: Sequence[str], task: Task, groups: _Groups | None
    ) -> None:
        truth, scores = np.asarray(truth, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        _check(truth, scores, names, task)
        index = group_index(groups, range(len(truth)))
        known = (truth == 0) | (truth == PRESENT)
        usable = _single_class(truth, known) if task == "multiclass" else known.any(axis=1)
        if not usable.any():
            raise InputError(
                "evaluation of labels: expected at least one image with a label, found none; check the split"
            )
        self.names = tuple(names)
        self.task = task
        self.truth, self.scores, self.known = truth[usable], scores[usable], known[usable]
        self.groups = np.asarray(np.unique(index[usable], return_inverse=True)[1], dtype=np.int64)
        self.n_groups = int(self.groups.max()) + 1
        self.present = self.truth == PRESENT
        self.rankings = [
            rank(self.scores[k, i], self.present[k, i], self.groups[k])
            for i, k in ((i, self.known[:, i]) for i in range(len(self.names)))
        ]
        self.tally = self._tallies()

    def counts(self) -> tuple[list[int], list[int]]:
        """Present and absent labels by class."""
        return (self.present & self.known).sum(axis=0).tolist(), (~self.present & self.known).sum(axis=0).tolist()

    def _tallies(self) -> dict[str, _Array]:
        """(groups, k) counts of right and all decisions, for positives and negatives apart."""
        if self.task == "multiclass":
            decided = np.zeros_like(self.present)
            decided[np.arange(len(decided)), self.scores.argmax(axis=1)] = True
        else:
            decided = self.scores >= DECISION_THRESHOLD
        positive, negative = self.present & self.known, ~self.present & self.known
        return {
            "positive": self._by_group(positive),
            "negative": self._by_group(negative),
            "right_positive": self._by_group(positive & decided),
            "right_negative": self._by_group(negative & ~decided),
        }

    def _by_group(self, flags: _Bools) -> _Array:
        table = np.zeros((self.n_groups, flags.shape[1]))
        np.add.at(table, self.groups, flags)
        return table

    def figures(self, weights: FloatArray) -> dict[_Key, _Array]:
        """Every measure for (groups, r) multiplicities: each (r,)."""
        both = [auc_and_average_precision(ranking, weights) for ranking in self.rankings]
        auc, average = np.stack([b[0] for b in both]), np.stack([b[1] for b in both])
        average = np.where(np.isnan(auc), np.nan, average)
        counted = {name: table.T @ weights for name, table in self.tally.items()}  # each (k, r)
        recall = _share(counted["right_positive"], counted["positive"])
        # Of two exclusive classes the second is the positive one; the first only mirrors it.
        chosen = slice(1, 2) if self.task == "multiclass" and len(self.names) == 2 else slice(None)
        figures: dict[_Key, _Array] = {
            (None, "auc"): mean_over_classes(auc[chosen]),
            (None, "average_precision"): mean_over_classes(average[chosen]),
        }
        by_class: dict[str, _Array] = {"auc": auc, "average_precision": average}
        if self.task == "multiclass":
            figures[None, "accuracy"] = _share(counted["right_positive"].sum(axis=0), counted["positive"].sum(axis=0))
            figures[None, "balanced_accuracy"] = mean_over_classes(recall)
            by_class["recall"] = recall
        else:
            right = counted["right_positive"] + counted["right_negative"]
            by_class["accuracy"] = _share(right, counted["positive"] + counted["negative"])
            specificity = _share(counted["right_negative"], counted["negative"])
            by_class["balanced_accuracy"] = (recall + specificity) / 2
            figures[None, "accuracy"] = mean_over_classes(by_class["accuracy"])
            figures[None, "balanced_accuracy"] = mean_over_classes(by_class["balanced_accuracy"])
        figures.update({(i, name): table[i] for i in range(len(self.names)) for name, table in by_class.items()})
        return figures


def _share(part: _Array, whole: _Array) -> _Array:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))


def _check(truth: _Array, scores: _Array, names: Sequence[str], task: Task) -> None:
    """Refuse what no measure can be taken of."""
    if task not in ("multiclass", "multilabel"):
        raise InputError(
            f"evaluation of labels: expected the task multiclass or multilabel, got {task!r}; this data has no labels"
        )
    for what, table in (("labels", truth), ("scores", scores)):
        if table.ndim != 2 or table.shape[1] != len(names):
            raise InputError(
                f"evaluation of labels: expected (images, {len(names)} classes) {what}, "
                f"got shape {table.shape}; compare the class lists"
            )
    if len(truth) != len(scores):
        raise InputError(f"evaluation of labels: expected scores of {len(truth)} images, got {len(scores)}; align them")
    bad = ~((scores >= 0) & (scores <= 1))
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"evaluation of labels: expected scores in 0..1, image {row} class {names[column]!r} has "
            f"{scores[row, column]}; check the model's output"
        )
    odd = ~(np.isnan(truth) | np.isin(truth, (-1.0, 0.0, 1.0)))
    if odd.any():
        row, column = (int(i) for i in np.argwhere(odd)[0])
        raise InputError(
            f"evaluation of labels: expected labels 1, 0, -1 or NaN, image {row} class {names[column]!r} has "
            f"{truth[row, column]}; correct the annotation"
        )


def _single_class(truth: _Array, known: _Bools) -> _Bools:
    """(n,) whether a multi-class image is labelled; each labelled one must have exactly one class."""
    labelled = known.any(axis=1)
    wrong = labelled & (((truth == PRESENT).sum(axis=1) != 1) | ~known.all(axis=1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"evaluation of labels: expected exactly one class for image {row}, its labels are {truth[row].tolist()}; "
            "correct the annotation or use the task multilabel"
        )
    return np.asarray(labelled)

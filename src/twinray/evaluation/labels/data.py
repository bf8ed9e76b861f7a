"""Checked image labels and scores of one run, sorted and counted once, so that resamples only weigh them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from twinray.errors import InputError
from twinray.evaluation.intervals import group_index
from twinray.evaluation.labels.calibration import BinTally, expected_calibration_error, tally
from twinray.evaluation.labels.cutoffs import LabelThresholds
from twinray.evaluation.labels.delong import auc_freedom
from twinray.evaluation.labels.ranking import (
    Ranking,
    auc,
    average_precision,
    curve,
    rank,
    sensitivity_at,
)
from twinray.records import PRESENT, FloatArray, IntArray, Task

DECISION_THRESHOLD = 0.5
SPECIFICITIES = (0.9, 0.95)
_Array: TypeAlias = FloatArray
_Bools: TypeAlias = npt.NDArray[np.bool_]
Groups: TypeAlias = Sequence[object] | npt.NDArray[np.generic]
"""Patient of each image; None where unknown."""


class Labelled:
    """Labels and scores of some images, and the patients that they belong to.

    Attributes:
        names: (k,) classes.
        task: ``multiclass`` or ``multilabel``.
        truth, scores: (n, k); known: (n, k) whether the label is present or absent.
        groups: (n,) patient numbers; n_groups: how many there are, those without an image here included.
        thresholds: thresholds of decisions, or None.
        used: selection of the given images that are among these.
        in_mean: (k,) classes that means are over: of two exclusive classes the second, which the
            first mirrors; of others all that were learned.
        lone: (k,) classes of several labels that have positives and no negative: whatever says 1 of every image is perfect on
            them, so they have no figure.
    """

    def __init__(
        self,
        truth: FloatArray,
        scores: FloatArray,
        names: Sequence[str],
        task: Task,
        groups: IntArray,
        n_groups: int,
        thresholds: LabelThresholds | None = None,
    ) -> None:
        self.names, self.task, self.thresholds = tuple(names), task, thresholds
        self.truth, self.scores = truth, scores
        self.known: _Bools = (truth == 0) | (truth == PRESENT)
        self.present: _Bools = truth == PRESENT
        self.groups, self.n_groups = groups, n_groups
        self.used: _Bools = np.ones(len(truth), dtype=bool)
        self.in_mean = np.ones(len(self.names), dtype=bool)
        if task == "multiclass" and len(self.names) == 2:
            self.in_mean[0] = False
        negative = (self.known & ~self.present).any(axis=0)
        self.lone: _Bools = self.present.any(axis=0) & ~negative & (task == "multilabel")
        if (self.in_mean & ~self.lone).any():
            self.in_mean &= ~self.lone

    @staticmethod
    def of(
        truth: FloatArray,
        scores: FloatArray,
        names: Sequence[str],
        task: Task,
        groups: Groups | None = None,
        thresholds: LabelThresholds | None = None,
        unlearned: Collection[str] = (),
    ) -> Labelled:
        """Check, leave out images without a usable label, and number the patients of the others.

        Raises:
            InputError: shapes that disagree, scores that are NaN or outside 0..1, labels of another
                value, no usable label at all. Also a multi-class image with several classes or
                none, or thresholds of other classes.
        """
        truth, scores = np.asarray(truth, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        _check(truth, scores, names, task)
        if thresholds is not None and tuple(thresholds.per_class) != tuple(names):
            raise InputError(
                f"evaluation of labels: expected thresholds of {list(names)}, got {list(thresholds.per_class)}"
            )
        index = group_index(groups, range(len(truth)))
        known = (truth == 0) | (truth == PRESENT)
        usable = _single_class(truth, known) if task == "multiclass" else known.any(axis=1)
        if not usable.any():
            raise InputError(
                "evaluation of labels: expected at least one image with a label, found none; check the split"
            )
        own = np.asarray(np.unique(index[usable], return_inverse=True)[1], dtype=np.int64)
        data = Labelled(
            truth[usable], scores[usable], names, task, own, int(own.max()) + 1, thresholds
        )
        data.used = usable
        learned = np.array([name not in unlearned for name in names])
        if (
            data.in_mean & learned
        ).any():  # a mean over no class says less than one that is told apart
            data.in_mean &= learned
        return data

    def part(self, rows: _Bools) -> tuple[Labelled, IntArray]:
        """Some of the images, and the numbers that their patients have here: rows of a resample's weights."""
        own, groups = np.unique(self.groups[rows], return_inverse=True)
        truth, scores = self.truth[rows], self.scores[rows]
        some = Labelled(truth, scores, self.names, self.task, groups, len(own), self.thresholds)
        here = self.in_mean & ~some.lone
        some.in_mean = here if here.any() else self.in_mean
        return some, own

    def counts(self) -> tuple[list[int], list[int]]:
        """Present and absent labels by class."""
        return (self.present & self.known).sum(axis=0).tolist(), (~self.present & self.known).sum(
            axis=0
        ).tolist()

    @cached_property
    def rankings(self) -> list[Ranking]:
        """By class, its usable images."""
        return [
            rank(self.scores[k, i], self.present[k, i], self.groups[k], self.n_groups)
            for i, k in ((i, self.known[:, i]) for i in range(len(self.names)))
        ]

    @cached_property
    def tallies(self) -> dict[str, _Array]:
        """(groups, k) counts by patient, and sums of squared errors.

        ``positive``, ``negative``, ``known`` images; by the plain decision ``right_positive``, ``right_negative``, ``called``;
        by validation thresholds of a rule ``hit RULE``, ``called RULE``, ``rejected RULE``; ``squared`` errors.
        """
        positive, negative = self.present & self.known, ~self.present & self.known
        if self.task == "multiclass":
            decided = np.zeros_like(self.present)
            decided[np.arange(len(decided)), self.scores.argmax(axis=1)] = True
        else:
            decided = self.scores >= DECISION_THRESHOLD
        tables: dict[str, _Bools | _Array] = {
            "positive": positive,
            "negative": negative,
            "known": self.known,
            "right_positive": positive & decided,
            "right_negative": negative & ~decided,
            "called": decided & self.known,
            "squared": np.where(self.known, (self.scores - self.present) ** 2, 0.0),
        }
        if self.thresholds is not None:
            for rule in ("f1", "youden"):
                least = self.thresholds.of(rule)
                called = (self.scores >= least) & self.known  # never, where the threshold is NaN
                tables |= {f"hit {rule}": positive & called, f"called {rule}": called}
                tables[f"rejected {rule}"] = self.known & ~called & ~np.isnan(least)
        return {name: self._by_group(table) for name, table in tables.items()}

    def patients(self, table: str) -> IntArray:
        """(k,) patients with at least one image that the table counts."""
        return np.asarray((self.tallies[table] > 0).sum(axis=0), dtype=np.int64)

    @cached_property
    def bins(self) -> list[BinTally]:
        """By class, its probability against how often it is present."""
        return [
            tally(self.scores[k, i], self.present[k, i], self.groups[k], self.n_groups)
            for i, k in ((i, self.known[:, i]) for i in range(len(self.names)))
        ]

    def auc_freedom(self, label: int) -> float:
        """Degrees of freedom of the spread of a class's AUC."""
        usable = self.known[:, label]
        return auc_freedom(
            self.scores[usable, label], self.present[usable, label], self.groups[usable]
        )

    @property
    def by_top_label(self) -> bool:
        """Whether calibration is that of the highest class: several exclusive ones."""
        return self.task == "multiclass" and len(self.names) > 2

    @cached_property
    def top_bins(self) -> BinTally:
        """The highest probability of an image against how often its class is the true one."""
        top = self.scores.argmax(axis=1)
        rows = np.arange(len(top))
        return tally(self.scores[rows, top], self.present[rows, top], self.groups, self.n_groups)

    @cached_property
    def confusion_by_group(self) -> Any:
        """(k * k, groups) sparse counts of multi-class decisions, cell by cell, rows the true class."""
        k = len(self.names)
        cell = self.truth.argmax(axis=1) * k + self.scores.argmax(axis=1)
        return csr_array((np.ones(len(cell)), (cell, self.groups)), shape=(k * k, self.n_groups))

    def _by_group(self, values: _Bools | _Array) -> _Array:
        table = np.zeros((self.n_groups, values.shape[1]))
        np.add.at(table, self.groups, values)
        return table


class Drawn:
    """Some resamples of labelled images; what several measures need is made once.

    Args:
        data: data of one run.
        weights: (groups, r) multiplicities.
    """

    def __init__(self, data: Labelled, weights: FloatArray) -> None:
        self.data = data
        self.weights = weights

    def total(self, table: str) -> _Array:
        """(k, r) sums of a table."""
        if table not in self._totals:
            self._totals[table] = self.data.tallies[table].T @ self.weights
        return self._totals[table]

    @cached_property
    def _totals(self) -> dict[str, _Array]:
        return {}

    def share(self, part: str, whole: str) -> _Array:
        """(k, r) one table's sums as a share of another's; NaN where these are 0."""
        return share(self.total(part), self.total(whole))

    @cached_property
    def ranked(self) -> dict[str, _Array]:
        """``auc``, ``average_precision`` and sensitivities, each (k, r); NaN where a class has one kind of label only."""
        rows: dict[str, list[_Array]] = {
            name: [] for name in ("auc", "average_precision", *map(at, SPECIFICITIES))
        }
        for ranking in self.data.rankings:
            of = curve(ranking, self.weights)
            rows["auc"].append(auc(of))
            rows["average_precision"].append(
                np.where(of.negatives > 0, average_precision(of), np.nan)
            )
            for specificity in SPECIFICITIES:
                rows[at(specificity)].append(sensitivity_at(of, specificity))
        return {name: np.stack(values) for name, values in rows.items()}

    def calibration_error(self) -> _Array:
        """(k, r) ECE of each class."""
        return np.stack([expected_calibration_error(bins, self.weights) for bins in self.data.bins])

    def confusion(self) -> _Array:
        """(k, k, r) counts of multi-class decisions, rows the true class."""
        k = len(self.data.names)
        return np.asarray((self.data.confusion_by_group @ self.weights).reshape(k, k, -1))


def at(specificity: float) -> str:
    """Name of the sensitivity at a specificity."""
    return f"sensitivity@{100 * specificity:g}"


def share(part: FloatArray, whole: FloatArray) -> _Array:
    """Element by element; NaN where the whole is 0."""
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
        raise InputError(
            f"evaluation of labels: expected scores of {len(truth)} images, got {len(scores)}; align them"
        )
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

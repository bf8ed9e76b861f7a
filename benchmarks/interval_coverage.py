"""Do 95 % intervals hold the truth in 95 of 100 studies? Simulated models, whose truth is known.

    python benchmarks/interval_coverage.py [--of detectors | labels] [--studies 1000] [--bootstrap 400] [--results coverage.jsonl]

**Labels.** Each study draws patients with one or more images (one plus Poisson's law of mean 1.5). Illness is shared by the images
of a patient, and so is half of the score's variance, so images of one patient are not independent. The score of a positive
is normal with mean d, that of a negative with mean 0, variance 1 both: the true AUC is Phi(d / sqrt 2). The truth of
every other measure, and of the difference to a second model, is its value on 400,000 patients. Decision thresholds are chosen once, on a
study of its own. Given are the shares of studies whose interval holds the truth: of plain percentiles, and of what is reported.
Of several classes, at the frequencies of ChestX-ray14, and over folds the figures are means, as the product has them.

**Detectors.** Two detectors, the second a little better, on classes at the frequencies of real data sets, by two models of scores
(``simulated_detectors``); one split or folds. Given are the shares of studies whose interval holds the expected figure of a test set of
this size, by the rule that is reported and by others, apart for figures that are printed with a warning; and, by other
rules, the figure of an endless test set. The expected figure is the mean of 1,000 further test sets, whose own chance widens no
study's error by more than 0.05 %. Rows are written as they are done; a second start goes on behind them. ``--only 3000 five``
does the rows whose names hold these texts, in this order.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr

from simulated_detectors import Classes, detectors, figures, support
from twinray.evaluation.accumulate import mean_over_classes
from twinray.evaluation.bounded import EXACT
from twinray.evaluation.boxes import MEANS
from twinray.evaluation.intervals import bootstrap_groups, percentile_interval
from twinray.evaluation.labels.cutoffs import LabelThresholds, choose_label_thresholds
from twinray.evaluation.labels.data import Drawn, Labelled
from twinray.evaluation.labels.delong import auc_covariance, delong_test
from twinray.evaluation.labels.measures import Support, interval, label_difference, measures_of
from twinray.evaluation.labels.measures import figures as label_figures
from twinray.evaluation.labels.ranking import auc as area
from twinray.evaluation.labels.ranking import curve
from twinray.evaluation.levels import (
    BoxSupport,
    Key,
    difference,
    lacking_over_folds,
    level,
    variance,
)
from twinray.records import FloatArray, Interval

GAIN = 0.25

NIH = (0.103, 0.025, 0.119, 0.177, 0.052, 0.056, 0.013, 0.047)
"""Share of ChestX-ray14's 112,120 images with each of the eight findings that have boxes (Wang et al., CVPR 2017)."""


@dataclass(frozen=True, slots=True)
class LabelDesign:
    """Patients of a fold, share of positive images of each class, distance d of the two normal laws, folds."""

    patients: int
    prevalences: tuple[float, ...]
    d: float
    folds: int = 1

    def __str__(self) -> str:
        share = (
            f"{100 * self.prevalences[0]:g} %"
            if len(self.prevalences) == 1
            else f"{len(self.prevalences)} classes of {100 * min(self.prevalences):g} to {100 * max(self.prevalences):g} %"
        )
        folds = f"{self.folds} x " if self.folds > 1 else ""
        return f"{folds}{self.patients}, {share}, {ndtr(self.d / np.sqrt(2)):.3f}"


DESIGNS = (
    LabelDesign(60, (0.25,), 1.2),
    LabelDesign(150, (0.1,), 1.2),
    LabelDesign(150, (0.1,), 2.3),
    LabelDesign(400, (0.05,), 2.8),
    LabelDesign(400, (0.15,), 1.2),
    LabelDesign(1000, (0.05,), 1.2),
    LabelDesign(1000, (0.15,), 1.2),
    LabelDesign(80, (0.15,), 1.2, folds=5),
    LabelDesign(400, NIH, 1.2),
    LabelDesign(150, NIH, 1.2, folds=5),
)

FEW_STUDIES = 100
"""A share of fewer printed studies says nothing: it stands in the full list alone."""

_Drawn = tuple[FloatArray, FloatArray, FloatArray]


def patients(n: int, prevalences: Sequence[float], d: float, draw: np.random.Generator) -> _Drawn:
    """Patients of the images (m,), their labels (m, k), both models' probabilities (m, k, 2); the models are overconfident.

    Of several classes 0.3 of a patient's illness and of the score's habit is common to all.
    """
    of = np.repeat(np.arange(n), 1 + draw.poisson(1.5, n))
    common = draw.normal(size=(2, n)) if len(prevalences) > 1 else np.zeros((2, n))
    own_part = np.sqrt(0.7) if len(prevalences) > 1 else 1.0
    truth, scores = [], []
    for prevalence in prevalences:
        illness, habit = own_part * draw.normal(size=(2, n)) + np.sqrt(0.3) * common
        ill = 0.7 * illness[of] + np.sqrt(1 - 0.49) * draw.normal(size=len(of))
        positive = ndtr(ill) > 1 - prevalence
        found = []
        for gain in (0.0, GAIN):
            own = (
                (d + gain) * positive
                + np.sqrt(0.5) * habit[of]
                + np.sqrt(0.5) * draw.normal(size=len(of))
            )
            found.append(expit(1.5 * ((d + gain) * own - (d + gain) ** 2 / 2 + logit(prevalence))))
        truth.append(positive.astype(np.float64))
        scores.append(np.stack(found, axis=1))
    return of, np.stack(truth, axis=1), np.stack(scores, axis=1)


def label_studies(
    design: LabelDesign,
    *,
    studies: int,
    bootstrap: int,
    seed: int = 0,
    population: int = 400_000,
) -> dict[str, dict[str, float]]:
    """Measure -> ``truth``, ``printed`` studies without a warning, how many of these hold it, and of all by ``percentiles``.

    ``auc delong`` has the clustered DeLong interval on the logit scale (one class, one fold), which is not printed, ``auc difference
    delong`` that of DeLong's test, ``auc difference`` the paired difference, ``average_precision expected`` the same interval against the mean of the studies' own values: the expected figure of a
    test set of this size.
    """
    draw = np.random.default_rng(seed)
    names = tuple(f"finding {i}" for i in range(len(design.prevalences)))
    _, truth, scores = patients(2_000, design.prevalences, design.d, draw)
    thresholds = choose_label_thresholds(truth, scores[..., 0], names)
    everybody = _labelled(patients(population, design.prevalences, design.d, draw), 0, thresholds)
    shown = 0 if len(names) == 1 else None
    once = label_figures(Drawn(everybody, np.ones((everybody.n_groups, 1))))
    true = {name: float(v[0]) for (label, name), v in once.items() if label == shown}
    true["auc"] = float(ndtr(design.d / np.sqrt(2)))
    true["auc difference"] = float(ndtr((design.d + GAIN) / np.sqrt(2))) - true["auc"]
    true["auc delong"], true["auc difference delong"] = true["auc"], true["auc difference"]
    found: dict[str, list[_Made]] = {}
    for _ in range(studies):
        folds = [
            patients(design.patients, design.prevalences, design.d, draw)
            for _ in range(design.folds)
        ]
        for one in _intervals(folds, thresholds, bootstrap, int(draw.integers(1 << 30))):
            found.setdefault(one.name, []).append(one)
    expected = float(np.mean([one.value for one in found["average_precision"]]))
    told = {name: _share_held(own, true[name]) for name, own in found.items()}
    return told | {"average_precision expected": _share_held(found["average_precision"], expected)}


@dataclass(frozen=True, slots=True)
class _Made:
    """A study's figure, its interval by plain percentiles and the reported one; None where none is printed."""

    name: str
    value: float
    plain: tuple[float, float] | None
    reported: tuple[float, float] | None


def _share_held(found: Sequence[_Made], truth: float) -> dict[str, float]:
    printed = [one.reported for one in found if one.reported is not None]
    return {
        "truth": truth,
        "studies": len(found),
        "printed": len(printed),
        "held": sum(_holds(ends, truth) for ends in printed),
        "above": sum(ends[0] > truth for ends in printed),
        "percentiles": sum(_holds(one.plain, truth) for one in found),
    }


def _labelled(drawn: _Drawn, run: int, thresholds: LabelThresholds) -> Labelled:
    of, truth, scores = drawn
    names = tuple(thresholds.per_class)
    return Labelled(
        truth, scores[..., run], names, "multilabel", of, int(of.max()) + 1, thresholds
    )  # fmt: skip


def _aucs(drawn: Drawn) -> dict[Key, FloatArray]:
    """AUC alone, as ``labels.measures.figures`` has it."""
    by_class = np.stack([area(curve(one, drawn.weights)) for one in drawn.data.rankings])
    own: dict[Key, FloatArray] = {(i, "auc"): row for i, row in enumerate(by_class)}
    return own | {(None, "auc"): mean_over_classes(by_class[drawn.data.in_mean])}


def _intervals(
    folds: Sequence[_Drawn], thresholds: LabelThresholds, bootstrap: int, seed: int
) -> Iterator[_Made]:
    """Of the class, or over the classes of several, over folds: as ``folds.crossed_labels`` makes them."""
    runs = [[_labelled(drawn, run, thresholds) for drawn in folds] for run in (0, 1)]
    support = Support.over_folds([Support.of(one) for one in runs[0]])
    samples: list[dict[Key, FloatArray]] = []
    values: list[dict[Key, float]] = []
    # of the second model the AUC alone is compared
    for of_run, measured in zip(runs, (label_figures, _aucs), strict=True):
        plain, drawn = [], []
        for number, data in enumerate(of_run):
            plain.append(measured(Drawn(data, np.ones((data.n_groups, 1)))))
            pieces = [
                measured(Drawn(data, weights))
                for weights in bootstrap_groups(data.groups, bootstrap, seed + 1009 * number)
            ]
            drawn.append({key: np.concatenate([p[key] for p in pieces]) for key in plain[0]})
        over = {key: mean_over_classes(np.stack([one[key] for one in drawn])) for key in plain[0]}
        samples.append(over)
        values.append(
            {k: float(mean_over_classes(np.stack([one[k] for one in plain]))[0]) for k in plain[0]}
        )
    rules = {measure.name: measure for measure in measures_of(runs[0][0])}
    shown = 0 if len(thresholds.per_class) == 1 else None
    for key, value in values[0].items():
        if key[0] != shown or np.isnan(value):
            continue
        plain_one = percentile_interval(value, samples[0][key], support.n)
        made = interval(key, rules[key[1]], value, samples[0], support)
        yield _Made(key[1], value, _ends(plain_one), _ends(made))
    auc = (shown, "auc")
    value = values[1][auc] - values[0][auc]
    differences = {key: samples[1][key] - samples[0][key] for key in samples[1]}
    made = label_difference(auc, rules["auc"], value, differences, support).interval
    plain_one = percentile_interval(value, differences[auc], support.n)
    yield _Made("auc difference", value, _ends(plain_one), _ends(made))
    data, value = runs[0][0], values[0][auc]
    if shown is None or len(folds) > 1:
        return
    yield _delong_difference(*(run[0] for run in runs))
    if not 0 < value < 1:
        return
    spread = auc_covariance(data.scores[:, 0], data.present[:, 0], data.groups).covariance[0, 0]
    if spread > 0:
        half = 1.96 * np.sqrt(float(spread)) / (value * (1 - value))
        ends = float(expit(logit(value) - half)), float(expit(logit(value) + half))
        yield _Made("auc delong", value, ends, ends)


def _delong_difference(first: Labelled, second: Labelled) -> _Made:
    """The interval of DeLong's test as it is printed; as plain one that before too few patients withhold it."""
    patients = min(int(first.patients(kind)[0]) for kind in ("positive", "negative"))
    scores = (first.scores[:, 0], second.scores[:, 0])
    test = delong_test(*scores, first.present[:, 0], first.groups)
    plain, printed = (
        None if np.isnan(one.low) else (one.low, one.high) for one in (test, test.known(patients))
    )
    return _Made("auc difference delong", test.difference, plain, printed)


def _ends(found: object) -> tuple[float, float] | None:
    low, high = found.low, found.high  # type: ignore[attr-defined]
    return None if low is None or high is None else (low, high)


def _holds(ends: tuple[float, float] | None, truth: float) -> bool:
    return ends is not None and ends[0] <= truth <= ends[1]


COLUMNS = (
    "auc", "average_precision expected", "average_precision", "accuracy", "balanced_accuracy", "sensitivity@90", "sensitivity@95", "sensitivity",
    "specificity", "ppv", "npv", "youden", "f1", "brier", "ece", "auc difference", "auc difference delong", "auc delong",
)  # fmt: skip
"""Figures of classifiers in the order in which the table shows them."""


def labels_table(
    studies: int,
    bootstrap: int,
    results: Path,
    seed: int,
    *,
    only: Sequence[str],
    only_show: bool,
) -> None:
    """Work out the designs that ``results`` does not hold yet, one after another, then print all as Markdown."""
    done = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    have = {(one["design"], one["seed"], one["studies"]) for one in done}
    for number, design in enumerate(() if only_show else DESIGNS):
        asked = any(text in str(design) for text in only)
        if not asked or (str(design), seed + number, studies) in have:
            continue
        begun = time.perf_counter()
        found = label_studies(design, studies=studies, bootstrap=bootstrap, seed=seed + number)
        done.append(
            {"design": str(design), "seed": seed + number, "studies": studies, "figures": found}
        )
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(f"{design}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print(labels_markdown(done))


def labels_markdown(done: Sequence[dict[str, Any]]) -> str:
    """A line a design: percent of the printed intervals that hold the truth, in brackets percentiles where they differ.

    What hardly a study prints is ``withheld``, in brackets how often it would have held.
    """
    lines = [
        "| patients, positive images, true AUC; seed | " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * (1 + len(COLUMNS)),
    ]
    for one in done:
        cells = [f"{one['design']}; {one['seed']}"]
        for name in COLUMNS:
            n = one["figures"].get(name)
            if n is None:
                cells.append("")
                continue
            if n["printed"] < FEW_STUDIES:
                cells.append(f"withheld ({100 * n['percentiles'] / n['studies']:.1f})")
                continue
            few = f" of {n['printed']}" if n["printed"] < 0.99 * n["studies"] else ""
            held, plain = 100 * n["held"] / n["printed"], 100 * n["percentiles"] / n["studies"]
            other = f" ({plain:.1f})" if f"{plain:.1f}" != f"{held:.1f}" else ""
            cells.append(f"{held:.1f}{few}{other}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---- Detectors ---------------------------------------------------------------------------------------------------------

RESAMPLES, TRUTH_SETS, POPULATIONS = 100, 1000, 8
"""Resamples a study; test sets whose mean figure is the expected one; populations of 30,000 images for the endless one's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One design: a data set's classes, a number of folds of so many images, and a model of scores."""

    classes: str
    folds: int
    images: int
    model: str

    def __str__(self) -> str:
        return f"{self.classes}, {self.folds} x {self.images}, {self.model}"


ROWS = tuple(
    Row(classes, folds, images, model)
    for classes, folds, images in (
        ("vindr", 1, 150), ("one", 1, 60), ("nih", 1, 176), ("vindr", 5, 150), ("one", 5, 47), ("vindr", 1, 660),
        ("nih", 5, 176), ("vindr", 1, 60), ("one", 1, 230), ("rare", 1, 660), ("five", 5, 150), ("nih", 1, 880),
        ("vindr", 1, 3000), ("vindr", 5, 800),
    )
    for model in ("normal", "gamma")
)  # fmt: skip


def shown_classes(boxes: FloatArray) -> tuple[int, ...]:
    """The rarest class, the middle one and the most frequent one."""
    order = np.argsort(boxes, kind="stable").tolist()
    return tuple(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))


def detector_studies(
    row: Row, *, studies: int, seed: int = 0, truth_sets: int = TRUTH_SETS
) -> dict[str, dict[str, float]]:
    """Figure -> how often its interval holds the truth.

    Each has ``expected``, the mean figure of ``truth_sets`` test sets of this size, and ``endless``, that of a population; ``printed``,
    studies that print an interval without a warning; ``held``, how many of them hold the expected figure; ``warned`` and
    ``warned_held``, the same of intervals that are printed with a warning; and how many of all studies hold it by other rules:
    ``percentiles``, ``basic`` (2 v - q); and the endless figure: ``endless_percentiles``, ``endless_centred`` (2 v - mean
    of the resamples, their spread). The names of differences begin with ``difference``.
    """
    draw = np.random.default_rng(seed)
    classes = Classes.of(row.classes)
    shown = shown_classes(classes.boxes)
    found: dict[str, list[Study]] = {}
    for _ in range(studies):
        for name, one in _study(row, classes, shown, draw).items():
            found.setdefault(name, []).append(one)
    expected = _means(row.model, row.images, truth_sets, classes, shown, draw)
    endless = _endless(row.model, row.classes)
    return {name: _score(own, expected[name], endless[name]) for name, own in found.items()}


def _name(key: Key, shown: tuple[int, ...]) -> str:
    if key[0] is None:
        return key[1]
    return f"{key[1]} {('rarest', 'middle', 'commonest')[shown.index(key[0])] if len(shown) == 3 else 'class'}"


def _study(
    row: Row, classes: Classes, shown: tuple[int, ...], draw: np.random.Generator
) -> dict[str, Study]:
    """Each figure's intervals by all rules."""
    parts: list[list[dict[Key, FloatArray]]] = [[], []]
    supports = []
    for _ in range(row.folds):
        runs = detectors(row.model, row.images, classes, draw)
        drawn = next(
            bootstrap_groups(
                np.arange(row.images), RESAMPLES, int(draw.integers(1 << 30)), chunk=RESAMPLES
            )
        )
        weights = np.concatenate([np.ones((row.images, 1)), drawn], axis=1)
        for part, run in zip(parts, runs, strict=True):
            part.append(figures(run, weights, shown))
        supports.append(support(runs[0]))
    whole = BoxSupport.sum(supports)
    apart = [{key: b[key] - a[key] for key in a} for a, b in zip(*parts, strict=True)]
    found: dict[str, Study] = {}
    for prefix, folds in (("", parts[0]), ("difference ", apart)):
        lacks = lacking_over_folds(
            [{k: v[1:] for k, v in one.items()} for one in folds], supports, MEANS
        )
        for key in folds[0]:
            if key[0] is not None and key[0] not in shown:
                continue
            own = mean_over_classes(np.stack([one[key] for one in folds]))
            value, samples = float(own[0]), own[1:]
            if np.isnan(value):
                continue
            if prefix:
                made = difference(key, value, samples, lacks[key], whole).interval
            else:
                made = level(key, value, variance(samples) + lacks[key], whole)
            found[prefix + _name(key, shown)] = Study.of(value, samples, made)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A study's figure, its resamples' percentiles, mean and spread, and the interval that is printed."""

    value: float
    low: float
    high: float
    mean: float
    spread: float
    made: Interval

    @staticmethod
    def of(value: float, samples: FloatArray, made: Interval) -> Study:
        """Boil the resamples down."""
        known = samples[~np.isnan(samples)]
        low, high = np.percentile(known, (2.5, 97.5))
        return Study(
            value, float(low), float(high), float(known.mean()), float(known.std(ddof=1)), made
        )


def _score(found: Sequence[Study], expected: float, endless: float) -> dict[str, float]:
    counts = dict.fromkeys(
        ("printed", "held", "above", "warned", "warned_held", "silent", "percentiles", "basic"), 0
    ) | dict.fromkeys(("endless_percentiles", "endless_centred"), 0)
    for one in found:
        ends = _ends(one.made)
        kind = (
            "silent" if ends is None else "printed" if one.made.method in ("", EXACT) else "warned"
        )
        counts[kind] += 1
        if ends is not None:
            held = _holds(ends, expected)
            counts["held" if kind == "printed" else "warned_held"] += held
            counts["above"] += kind == "printed" and ends[0] > expected
        counts["percentiles"] += one.low <= expected <= one.high
        counts["basic"] += 2 * one.value - one.high <= expected <= 2 * one.value - one.low
        counts["endless_percentiles"] += one.low <= endless <= one.high
        counts["endless_centred"] += abs(2 * one.value - one.mean - endless) <= 1.96 * one.spread
    return {"studies": len(found), "expected": expected, "endless": endless, **counts}


@cache
def _endless(model: str, name: str) -> dict[str, float]:
    """Each figure of an endless test set, as far as 8 populations tell; worked out once for all rows of the classes."""
    classes = Classes.of(name)
    draw = np.random.default_rng(1)
    return _means(model, 30_000, POPULATIONS, classes, shown_classes(classes.boxes), draw)


def _means(
    model: str,
    images: int,
    sets: int,
    classes: Classes,
    shown: tuple[int, ...],
    draw: np.random.Generator,
) -> dict[str, float]:
    """Each figure's mean over new test sets, those where it does not exist left out."""
    once, sums, counts = np.ones((images, 1)), {}, {}  # type: ignore[var-annotated]
    for _ in range(sets):
        a, b = (figures(run, once, shown) for run in detectors(model, images, classes, draw))
        for key in a:
            if key[0] is not None and key[0] not in shown:
                continue
            for name, value in (
                (_name(key, shown), a[key][0]),
                (f"difference {_name(key, shown)}", b[key][0] - a[key][0]),
            ):
                if not np.isnan(value):
                    sums[name], counts[name] = (
                        sums.get(name, 0.0) + float(value),
                        counts.get(name, 0) + 1,
                    )
    return {name: total / counts[name] for name, total in sums.items()}


def detectors_table(
    studies: int, results: Path, seed: int, *, only: Sequence[str] = ("",), only_show: bool = False
) -> None:
    """Work out the rows that ``results`` does not hold yet, one after another, then print all as Markdown."""
    done = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    have = {(one["row"], one["seed"], one["studies"]) for one in done}
    asked = [row for text in only for row in ROWS if text in str(row)]
    for row in () if only_show else dict.fromkeys(asked):
        own_seed = seed + ROWS.index(row)
        if (str(row), own_seed, studies) in have:
            continue
        begun = time.perf_counter()
        found = detector_studies(row, studies=studies, seed=own_seed)
        done.append({"row": str(row), "seed": own_seed, "studies": studies, "figures": found})
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(f"{row}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print(detectors_markdown(done))
    print()
    print(detectors_list(done))


def detectors_markdown(done: Sequence[dict[str, Any]]) -> str:
    """A line a design: percent of the printed intervals that hold the expected figure, and mAP50 by other rules."""
    lines = [
        "| classes, folds x images, scores; seed | mAP50 expected (endless) | mAP50 | FROC | FROC@1 | AP50 of classes | "
        "FROC@1 of classes | difference: mAP50 | FROC | FROC@1 | AP50 of classes | FROC@1 of classes | "
        "mAP50 by percentiles, basic | endless mAP50 by percentiles, centred |",
        "|" + " --- |" * 14,
    ]
    for one in done:
        of = one["figures"]
        n = of["map50"]
        cells = [f"{one['row']}; {one['seed']}", f"{n['expected']:.3f} ({n['endless']:.3f})"]
        for prefix in ("", "difference "):
            cells += [_told(of, [prefix + name]) for name in ("map50", "froc", "froc@1")]
            cells += [
                _told(of, [name for name in of if name.startswith(f"{prefix}{measure} ")])
                for measure in ("ap50", "froc@1")
            ]
        cells += [
            ", ".join(f"{100 * n[rule] / n['studies']:.1f}" for rule in rules)
            for rules in (("percentiles", "basic"), ("endless_percentiles", "endless_centred"))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(figures: dict[str, dict[str, float]], names: Sequence[str]) -> str:
    """Shares that hold, of figures that enough studies print; how many figures too few do."""
    shares, few = [], 0
    for name in names:
        n = figures[name]
        if n["printed"] < FEW_STUDIES:
            few += 1
        else:
            part = f" ({n['printed']:.0f})" if n["printed"] < 0.99 * n["studies"] else ""
            shares.append(f"{100 * n['held'] / n['printed']:.1f}{part}")
    return ", ".join([*shares, *(["warned"] * few)])


def detectors_list(done: Sequence[dict[str, Any]]) -> str:
    """A line a figure of each design, with all that was counted."""
    lines = []
    for one in done:
        lines.append(f"{one['row']}; seed {one['seed']}, {one['studies']} studies")
        for name, n in one["figures"].items():
            held = 100 * n["held"] / n["printed"] if n["printed"] else float("nan")
            warned = 100 * n["warned_held"] / n["warned"] if n["warned"] else float("nan")
            other = " ".join(
                f"{rule} {100 * n[rule] / n['studies']:.1f}"
                for rule in ("percentiles", "basic", "endless_percentiles", "endless_centred")
            )
            lines.append(
                f"  {name:28} expected {n['expected']:.4f} endless {n['endless']:.4f} printed {n['printed']:.0f} held {held:.1f} "
                f"(above it {n['above']:.0f}) warned {n['warned']:.0f} held {warned:.1f} none {n['silent']:.0f} | {other}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", choices=("detectors", "labels"), default="labels")
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--bootstrap", type=int, default=400, help="of labels; detectors take 200")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("coverage.jsonl"),
        help="rows that are done; a file for detectors, another for labels",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=100,
        help="of the first row; each further row adds 1",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        help="rows whose names hold one of these texts; detectors in the order of the texts",
    )
    parser.add_argument("--show", action="store_true", help="only show the rows of --results")
    options = parser.parse_args()
    if options.of == "detectors":
        detectors_table(
            options.studies,
            options.results,
            options.seed,
            only=options.only,
            only_show=options.show,
        )
    else:
        labels_table(
            options.studies,
            options.bootstrap,
            options.results,
            options.seed,
            only=options.only,
            only_show=options.show,
        )


if __name__ == "__main__":
    main()

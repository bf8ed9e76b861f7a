"""Do 95 % intervals hold the truth in 95 of 100 studies? Simulated models, whose truth is known.

    python benchmarks/interval_coverage.py [--of detectors | labels] [--studies 500] [--bootstrap 400]

**Labels.** Each study draws patients with one or more images (one plus Poisson's law of mean 1.5). Illness is shared by the images
of a patient, and so is half of the score's variance, so images of one patient are not independent. The score of a positive
is normal with mean d, that of a negative with mean 0, variance 1 both: the true AUC is Phi(d / sqrt 2). The truth of
every other measure, and of the difference to a second model, is its value on 400,000 patients. Decision thresholds are chosen once, on a
study of its own. Given are the shares of studies whose interval holds the truth: of plain percentiles, and of what is reported.

**Detectors.** Each study draws images from one population: true boxes by Poisson's law, two detectors' scores by normal laws, the second
detector a little better and correlated with the first. The truth is the average precision on 40,000 images; of a
mean over folds it is the same (the simulated detector is not trained, so all folds' detectors are alike), which is what a
reader takes a cross-validated figure for. Told are the shares of studies whose interval holds it: of the
plain percentiles and of the bias-corrected ones, for the first detector's figure and for the paired difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit, ndtr

from twinray.evaluation.accumulate import HitRows, average_precision, hit_rows
from twinray.evaluation.cutoffs import LabelThresholds, choose_label_thresholds
from twinray.evaluation.delong import auc_covariance
from twinray.evaluation.intervals import bootstrap_groups, percentile_interval
from twinray.evaluation.label_measures import Support, figures, interval, measures_of
from twinray.evaluation.labelled import Drawn, Labelled
from twinray.evaluation.matching import BoxMatches
from twinray.records import FloatArray

BOXES_AN_IMAGE, CANDIDATES, GAIN = 0.6, 8, 0.25
POPULATION = 40_000


def detectors(n: int, draw: np.random.Generator) -> tuple[HitRows, HitRows]:
    """Matches of both detectors on ``n`` new images."""
    truth = draw.poisson(BOXES_AN_IMAGE, n).clip(max=CANDIDATES)
    hit = (np.arange(CANDIDATES) < truth[:, None]) & (draw.random((n, CANDIDATES)) < 0.6)
    shared = draw.normal(size=(n, CANDIDATES))
    found = []
    for gain in (0.0, GAIN):
        logit = -2 + 1.2 * (0.8 * shared + 0.6 * draw.normal(size=(n, CANDIDATES))) + (1.4 + gain) * hit
        image = np.repeat(np.arange(n), CANDIDATES)
        score, hits = (1 / (1 + np.exp(-logit))).ravel(), hit.ravel()
        order = np.lexsort((image, -score))
        matches = BoxMatches(
            n, (0.5,), image[order], np.zeros(n * CANDIDATES, dtype=np.int64), score[order], hits[order][None],
            np.array([0, n * CANDIDATES]), truth[:, None],
        )  # fmt: skip
        found.append(hit_rows(matches, 0, np.arange(n)))
    return found[0], found[1]


def study(folds: int, n: int, bootstrap: int, draw: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(2,) values of both detectors and (2, bootstrap) resamples: means over folds of ``n`` images."""
    values, samples = [], []
    for _ in range(folds):
        rows = detectors(n, draw)
        weights = list(bootstrap_groups(np.arange(n), bootstrap, int(draw.integers(1 << 30))))
        values.append([average_precision(one, np.ones((n, 1)))[0, 0] for one in rows])
        samples.append([np.concatenate([average_precision(one, w)[0] for w in weights]) for one in rows])
    return np.nanmean(values, axis=0), np.nanmean(samples, axis=0)


DESIGNS = ((60, 0.25, 1.2), (150, 0.1, 1.2), (150, 0.1, 2.3), (400, 0.15, 1.2), (1000, 0.05, 1.2), (1000, 0.15, 1.2))
"""Patients of a study, share of positive images, distance d of the two normal laws."""


def patients(
    n: int, prevalence: float, d: float, draw: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Patients of the images (m,), their labels (m,), both models' probabilities (m, 2); the models are overconfident."""
    of = np.repeat(np.arange(n), 1 + draw.poisson(1.5, n))
    illness, habit = draw.normal(size=(2, n))
    ill = 0.7 * illness[of] + np.sqrt(1 - 0.49) * draw.normal(size=len(of))
    positive = ndtr(ill) > 1 - prevalence
    found = []
    for gain in (0.0, GAIN):
        own = (d + gain) * positive + np.sqrt(0.5) * habit[of] + np.sqrt(0.5) * draw.normal(size=len(of))
        found.append(expit(1.5 * ((d + gain) * own - (d + gain) ** 2 / 2 + logit(prevalence))))
    return of, positive.astype(np.float64), np.stack(found, axis=1)


def label_studies(
    n: int, prevalence: float, d: float, *, studies: int, bootstrap: int, seed: int = 0, population: int = 400_000
) -> dict[str, dict[str, float]]:
    """Measure -> ``truth``, and the shares of studies whose interval holds it: ``percentiles``, ``reported``.

    ``auc delong`` has the clustered DeLong interval on the logit scale, ``auc difference`` the paired difference.
    """
    draw = np.random.default_rng(seed)
    _, truth, scores = patients(2_000, prevalence, d, draw)
    thresholds = choose_label_thresholds(truth[:, None], scores[:, :1], ("finding",))
    everybody = patients(population, prevalence, d, draw)
    whole = [_labelled(everybody, run, thresholds) for run in (0, 1)]
    once = [figures(Drawn(run, np.ones((run.n_groups, 1)))) for run in whole]
    true = {name: float(v[0]) for (label, name), v in once[0].items() if label == 0}
    true["auc"] = float(ndtr(d / np.sqrt(2)))
    true["auc difference"] = float(ndtr((d + GAIN) / np.sqrt(2))) - true["auc"]
    true["auc delong"] = true["auc"]
    held = {name: {"truth": value, "percentiles": 0.0, "reported": 0.0} for name, value in true.items()}
    counted = dict.fromkeys(held, 0)
    for _ in range(studies):
        drawn = patients(n, prevalence, d, draw)
        for name, plain, reported in _intervals(drawn, thresholds, bootstrap, int(draw.integers(1 << 30))):
            counted[name] += 1
            held[name]["percentiles"] += _holds(plain, true[name])
            held[name]["reported"] += _holds(reported, true[name])
    for name, one in held.items():
        one["percentiles"] /= max(counted[name], 1)
        one["reported"] /= max(counted[name], 1)
    return held


def _labelled(drawn: tuple[FloatArray, FloatArray, FloatArray], run: int, thresholds: LabelThresholds) -> Labelled:
    of, truth, scores = drawn
    return Labelled(
        truth[:, None], scores[:, [run]], ("finding",), "multilabel", of, int(of.max()) + 1, thresholds
    )  # fmt: skip


def _intervals(
    drawn: tuple[FloatArray, FloatArray, FloatArray], thresholds: LabelThresholds, bootstrap: int, seed: int
) -> Iterator[tuple[str, tuple[float, float] | None, tuple[float, float] | None]]:
    """Measure, plain percentiles, what is reported."""
    runs = [_labelled(drawn, run, thresholds) for run in (0, 1)]
    data, support = runs[0], Support.of(runs[0])
    pieces: list[list[dict[object, FloatArray]]] = [[], []]
    for weights in bootstrap_groups(data.groups, bootstrap, seed):
        for piece, run in zip(pieces, runs, strict=True):
            piece.append(figures(Drawn(run, weights)))  # type: ignore[arg-type]
    once = np.ones((data.n_groups, 1))
    value, second = figures(Drawn(data, once)), float(figures(Drawn(runs[1], once))[0, "auc"][0])
    samples = {key: np.concatenate([p[key] for p in pieces[0]]) for key in value}
    for measure in measures_of(data):
        key = (0, measure.name)
        if np.isnan(value[key][0]):
            continue
        plain = percentile_interval(float(value[key][0]), samples[key], support.n)
        made = interval(key, measure, float(value[key][0]), samples[key], data, support)
        yield measure.name, _ends(plain), _ends(made)
    auc = float(value[0, "auc"][0])
    differences = np.concatenate([p[0, "auc"] for p in pieces[1]]) - samples[0, "auc"]
    ends = _ends(percentile_interval(second - auc, differences, support.n))
    yield "auc difference", ends, ends
    variance = float(auc_covariance(data.scores[:, 0], data.present[:, 0], data.groups).covariance[0, 0])
    if 0 < auc < 1 and variance > 0:
        half = 1.96 * np.sqrt(variance) / (auc * (1 - auc))
        ends = float(expit(logit(auc) - half)), float(expit(logit(auc) + half))
        yield "auc delong", ends, ends


def _ends(found: object) -> tuple[float, float] | None:
    low, high = found.low, found.high  # type: ignore[attr-defined]
    return None if low is None or high is None else (low, high)


def _holds(ends: tuple[float, float] | None, truth: float) -> bool:
    return ends is not None and ends[0] <= truth <= ends[1]


def labels_table(studies: int, bootstrap: int) -> None:
    print(f"{studies} studies a design; truth, then how often plain percentiles | the reported interval hold it")
    for n, prevalence, d in DESIGNS:
        print(f"{n} patients, {100 * prevalence:g} % positive images, AUC {ndtr(d / np.sqrt(2)):.3f}", flush=True)
        found = label_studies(n, prevalence, d, studies=studies, bootstrap=bootstrap)
        for name, one in found.items():
            a, b = 100 * one["percentiles"], 100 * one["reported"]
            print(f"  {name:20} {one['truth']:7.3f}   {a:5.1f} % | {b:5.1f} %", flush=True)


def detectors_table(studies: int, bootstrap: int) -> None:
    draw = np.random.default_rng(0)
    truth = np.array([average_precision(one, np.ones((POPULATION, 1)))[0, 0] for one in detectors(POPULATION, draw)])
    print(f"truth: {truth[0]:.3f}, difference {truth[1] - truth[0]:+.3f}; {studies} studies a row")
    print(
        f"{'folds x images':>15} {'mean value':>11} | {'figure: plain':>14} {'corrected':>10} | {'difference: plain':>18} {'corrected':>10}"
    )
    for folds, n in ((1, 47), (1, 230), (1, 1000), (5, 47), (5, 200)):
        held = np.zeros(4)
        values = []
        for _ in range(studies):
            value, samples = study(folds, n, bootstrap, draw)
            values.append(value[0])
            gain = (value[1] - value[0], samples[1] - samples[0], truth[1] - truth[0])
            asked = [
                (value[0], samples[0], truth[0], False),
                (value[0], samples[0], truth[0], True),
                (*gain, False),
                (*gain, True),
            ]
            intervals = [(percentile_interval(v, s, n, bias_corrected=fixed), true) for v, s, true, fixed in asked]
            held += [one.low is not None and one.low <= true <= one.high for one, true in intervals]
        a, b, c, d = 100 * held / studies
        print(
            f"{f'{folds} x {n}':>15} {np.mean(values):11.3f} | {a:12.1f} % {b:8.1f} % | {c:16.1f} % {d:8.1f} %",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("detectors", "labels"), default="labels")
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--bootstrap", type=int, default=400)
    options = parser.parse_args()
    (detectors_table if options.of == "detectors" else labels_table)(options.studies, options.bootstrap)


if __name__ == "__main__":
    main()

"""Do 95 % intervals of average precision hold the truth in 95 of 100 studies? Simulated detectors, whose truth is known.

    python benchmarks/coverage.py [--studies 400] [--bootstrap 400]

Each study draws images from one population: true boxes by Poisson's law, two detectors' scores by normal laws, the second
detector a little better and correlated with the first. The truth is the average precision on 40,000 images; of a
mean over folds it is the same (the simulated detector is not trained, so all folds' detectors are alike), which is what a
reader takes a cross-validated figure for. Told are the shares of studies whose interval holds it: of the
plain percentiles and of the bias-corrected ones, for the first detector's figure and for the paired difference.
"""

from __future__ import annotations

import argparse

import numpy as np

from twinray.evaluation.accumulate import HitRows, average_precision, hit_rows
from twinray.evaluation.intervals import bootstrap_groups, percentile_interval
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--bootstrap", type=int, default=400)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    truth = np.array([average_precision(one, np.ones((POPULATION, 1)))[0, 0] for one in detectors(POPULATION, draw)])
    print(f"truth: {truth[0]:.3f}, difference {truth[1] - truth[0]:+.3f}; {options.studies} studies a row")
    print(
        f"{'folds x images':>15} {'mean value':>11} | {'figure: plain':>14} {'corrected':>10} | {'difference: plain':>18} {'corrected':>10}"
    )
    for folds, n in ((1, 47), (1, 230), (1, 1000), (5, 47), (5, 200)):
        held = np.zeros(4)
        values = []
        for _ in range(options.studies):
            value, samples = study(folds, n, options.bootstrap, draw)
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
        a, b, c, d = 100 * held / options.studies
        print(
            f"{f'{folds} x {n}':>15} {np.mean(values):11.3f} | {a:12.1f} % {b:8.1f} % | {c:16.1f} % {d:8.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()

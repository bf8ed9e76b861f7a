"""Is predicted power the power that is realised? Simulated studies of two arms, whose difference is known.

    python benchmarks/power_check.py [--studies 500] [--resamples 300] [--results power.jsonl]

A run's figure is the mean over test patients of contributions that share what is hard for all runs, for the runs of one arm
and for one run, plus what its seed adds. Each study predicts from its own variance what power it had for the true
difference, and what power twice its patients would have; the realised power is the share of studies, and of studies with
twice the patients, whose test is significant. Last, a fresh study is made whose true difference is what the study before it
called detectable in 80 of 100: that share is given, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from twinray.evaluation.worth.power import Spread, detectable, power, shown, spread_of

DESIGNS = (
    (200, 1, 0.0, 0.05),
    (200, 3, 0.0, 0.04),
    (200, 3, 0.02, 0.06),
    (600, 5, 0.02, 0.04),
    (600, 3, 0.03, 0.07),
    (60, 5, 0.01, 0.08),
)
"""Test patients, seeds, sd of one run's difference from its seed, true difference."""


def study(
    patients: int,
    seeds: int,
    luck: float,
    difference: float,
    resamples: int,
    draw: np.random.Generator,
) -> Spread:
    """The spread that one simulated study finds."""
    shared = 0.35 * draw.normal(size=patients)
    of_arm = 0.15 * draw.normal(size=(2, 1, patients))
    of_run = 0.25 * draw.normal(size=(2, seeds, patients))
    of_seed = luck / np.sqrt(2) * draw.normal(size=(2, seeds, 1))
    single = 0.6 + shared + of_arm + of_run + of_seed
    single[1] += difference
    weights = draw.multinomial(patients, np.full(patients, 1 / patients), size=resamples) / patients
    values, samples = single.mean(axis=2), single @ weights.T
    return spread_of(values[0], values[1], samples[0], samples[1], patients)


def check(
    patients: int,
    seeds: int,
    luck: float,
    difference: float,
    studies: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, float]:
    """Predicted and realised power, in per cent."""
    draw = np.random.default_rng(seed)
    made = [study(patients, seeds, luck, difference, resamples, draw) for _ in range(studies)]
    twice = [study(2 * patients, seeds, luck, difference, resamples, draw) for _ in range(studies)]
    found = [detectable(one) for one in made]
    again = [study(patients, seeds, luck, d, resamples, draw) for d in found]
    return {
        "patients": patients, "seeds": seeds, "seed_sd": luck, "difference": difference, "studies": studies,
        "predicted": 100 * float(np.mean([power(one, difference) for one in made])),
        "realised": 100 * float(np.mean([shown(one) for one in made])),
        "predicted_twice": 100 * float(np.mean([power(one, difference, patients=2 * patients) for one in made])),
        "realised_twice": 100 * float(np.mean([shown(one) for one in twice])),
        "detectable": float(np.mean(found)), "realised_detectable": 100 * float(np.mean([shown(one) for one in again])),
    }  # fmt: skip


def main() -> int:
    """Print a row a design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    for design in DESIGNS:
        row = check(*design, options.studies, options.resamples)
        print(json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

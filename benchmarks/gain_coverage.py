"""Does the interval of the gain in patients hold a known gain in 95 of 100 studies? Simulated label curves.

    python benchmarks/gain_coverage.py [--studies 500] [--resamples 400] [--results gain.jsonl]

Each study has two arms at six numbers of labelled patients, 50 to 1,600, and test patients whose contributions to a run's
figure share what is easy or hard for all runs (sd 0.35), for the runs of one arm (0.125) and for one run (0.25). A
figure is their mean plus what the run's seed adds; seeds vary more with few labels. The candidate's curve is the baseline's
moved by a known factor. Given are the shares of studies whose interval holds the truth, whose interval lies above and
below it, whose interval has an unbounded end, and the median width of the others in doublings of labels.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from twinray.evaluation.worth.gain import LabelCurve, gain
from twinray.records import FloatArray

PATIENTS = (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
DESIGNS = tuple(
    (times, seeds, tested, spread)
    for times in (1.0, 2.0, 4.0)
    for seeds, tested, spread in (
        (1, 300, 0.0),
        (2, 300, 0.02),
        (3, 300, 0.01),
        (3, 300, 0.03),
        (5, 1000, 0.02),
    )
)
"""Factor of labels, seeds, test patients, sd of a seed with the fewest labels."""


def truth(n: FloatArray) -> FloatArray:
    """The baseline's figure with so many labelled patients."""
    curve: FloatArray = 0.9 - 0.5 * (n / 30 + 1) ** -0.45
    return curve


def arms(
    times: float, seeds: int, tested: int, spread: float, resamples: int, draw: np.random.Generator
) -> tuple[LabelCurve, LabelCurve]:
    """One simulated study."""
    n = np.array(PATIENTS)
    means = np.stack([truth(n), truth(n * times)])
    patients = 0.35 * draw.normal(size=tested)
    of_arm = 0.125 * draw.normal(size=(2, 1, 1, tested))
    of_run = 0.25 * draw.normal(size=(2, len(n), seeds, tested))
    luck = spread * (n / n[0]) ** -0.25 * draw.normal(size=(seeds, 2, len(n))).transpose(1, 0, 2)
    single = (
        means[:, :, None, None] + patients + of_arm + of_run + luck.transpose(0, 2, 1)[..., None]
    )
    weights = draw.multinomial(tested, np.full(tested, 1 / tested), size=resamples) / tested
    values, samples = single.mean(axis=-1), single @ weights.T
    first, other = (
        LabelCurve(name, PATIENTS, values[i], samples[i])
        for i, name in enumerate(("baseline", "candidate"))
    )
    return first, other


def coverage(
    times: float,
    seeds: int,
    tested: int,
    spread: float,
    studies: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of studies, in per cent."""
    draw = np.random.default_rng(seed)
    needed = PATIENTS[-1] / times
    held = above = below = unbounded = 0
    widths = []
    for _ in range(studies):
        found = gain(*arms(times, seeds, tested, spread, resamples, draw)).needed
        held += found.low <= needed <= found.high
        above += needed < found.low
        below += needed > found.high
        if np.isfinite([found.low, found.high]).all():
            widths.append(np.log2(found.high / found.low))
        else:
            unbounded += 1
    share = 100 / studies
    return {
        "times": times, "seeds": seeds, "test_patients": tested, "seed_sd": spread, "studies": studies,
        "held": held * share, "interval_above": above * share, "interval_below": below * share,
        "unbounded": unbounded * share, "doublings": float(np.median(widths)) if widths else float("nan"),
    }  # fmt: skip


def main() -> int:
    """Print a row a design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    for design in DESIGNS:
        row = coverage(*design, options.studies, options.resamples)
        print(json.dumps({k: round(v, 2) for k, v in row.items()}), flush=True)
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

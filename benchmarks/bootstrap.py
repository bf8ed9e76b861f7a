"""Time of the bootstrap intervals of a detector's figures, on one core.

    python benchmarks/bootstrap.py [--images 660] [--classes 14] [--boxes 100] [--resamples 1000]

Random boxes; every measure over all classes and by class (mAP at three settings, FROC at seven rates), over all images and over
those with boxes, on each resample of the patients. Matches are made once and kept; a resample only weighs them anew.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.records import Boxes


def random_boxes(rng: np.random.Generator, n: int, classes: int, *, scored: bool) -> Boxes:
    start, size = rng.uniform(0, 800, (n, 2)), rng.uniform(20, 300, (n, 2))
    scores = rng.uniform(0, 1, n) if scored else None
    return Boxes(np.concatenate([start, start + size], axis=1), rng.integers(0, classes, n), scores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=660)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--boxes", type=int, default=100, help="predicted boxes an image")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    truth, predictions = {}, {}
    for image in range(options.images):
        truth[image] = random_boxes(rng, int(rng.integers(0, 8)), options.classes, scored=False)
        predictions[image] = random_boxes(rng, options.boxes, options.classes, scored=True)
        near = truth[image].xyxy + rng.normal(0, 15, truth[image].xyxy.shape)  # some of them hit
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        found = predictions[image]
        found.xyxy[: len(near)], found.labels[: len(near)] = near, truth[image].labels
        found.scores[: len(near)] = rng.uniform(0.7, 1, len(near))
    classes = [f"class {i}" for i in range(options.classes)]
    seconds = []
    for resamples in (0, options.resamples):
        start = time.perf_counter()
        report = evaluate_boxes(truth, predictions, classes, resampling=Resampling(resamples))
        seconds.append(time.perf_counter() - start)
    figure = report.all_images.metrics["map50"]
    print(
        f"{options.images} images, {options.classes} classes, {options.boxes} predicted boxes an image, one core"
    )
    print(f"mAP50 {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})")
    print(f"figures without intervals     {seconds[0]:6.2f} s")
    print(f"with {options.resamples:,} resamples           {seconds[1]:6.2f} s")


if __name__ == "__main__":
    main()

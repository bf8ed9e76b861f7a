"""What ``embed`` costs on random features, step by step: seconds, seconds of processor time, and the memory's highest mark.

    python benchmarks/embed.py [--images 112120] [--features 512] [--threads 2] [--without-tsne] [--json FILE]

Random features are the hardest case for t-SNE's search for neighbours (none is nearer than the others), and the same for
all other steps. Labels are 14 findings of 1 to 20 % on patients of 3 or 4 images each, beside view and sex, as in NIH's data.
Where other work runs on the machine, wall seconds grow and processor seconds hardly do.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from twinray.explanation.embedding import (
    linear_auc,
    nearest,
    neighbour_votes,
    principal_components,
    silhouette,
    two_dimensions,
)
from twinray.report.charts.embedding import embedding_map
from twinray.report.pictures.panels import as_png


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=112_120)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bootstrap", type=int, default=400)
    parser.add_argument("--without-tsne", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n = options.images
    features = rng.standard_normal((n, options.features), dtype=np.float32)
    patients = rng.integers(0, max(n * 30_805 // 112_120, 12), n)
    labels = (rng.random((n, 14)) < np.linspace(0.01, 0.2, 14)).astype(np.float64)
    groups = rng.integers(0, 2, n)
    attributes = np.stack([groups, 1 - groups, rng.integers(0, 2, n)], axis=1).astype(np.float64)
    figures: list[dict[str, Any]] = []

    def step(name: str, work: Callable[[], Any]) -> Any:
        print(f"{name} ...", end=" ", flush=True)
        wall, own = time.perf_counter(), time.process_time()
        found = work()
        one = {
            "step": name,
            "seconds": time.perf_counter() - wall,
            "processor_seconds": time.process_time() - own,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
        figures.append(one)
        print(
            f"{one['seconds']:.1f} s, {one['processor_seconds']:.1f} s of processor time, peak {one['peak_gib']:.2f} GiB",
            flush=True,
        )
        return found

    print(f"{n:,} images x {options.features} features, {options.threads} threads")
    components = step("principal components", lambda: principal_components(features))
    step("k-NN votes", lambda: neighbour_votes(features, labels, patients))
    step("silhouette", lambda: silhouette(features, groups))
    step("nearest images", lambda: nearest(features, features[0], 8))
    both = np.concatenate([labels, attributes], axis=1)
    step(
        "linear AUC of 17 targets",
        lambda: linear_auc(features, both, patients, bootstrap=options.bootstrap),
    )
    names = [f"group {g}" for g in groups]
    points = two_dimensions("pca", components)
    step(
        "map as PNG",
        lambda: as_png(
            embedding_map(points, names, ("group 0", "group 1"), "map", ("", ""), "random features")
        ),
    )
    if not options.without_tsne:
        step("t-SNE", lambda: two_dimensions("tsne", components, jobs=options.threads))
    rest = [one for one in figures if one["step"] != "t-SNE"]
    total = [sum(one[key] for one in rest) for key in ("seconds", "processor_seconds")]
    print(f"all but t-SNE: {total[0]:.1f} s, {total[1]:.1f} s of processor time")
    if options.json:
        record = {
            "images": n,
            "features": options.features,
            "threads": options.threads,
            "steps": figures,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

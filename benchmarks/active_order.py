"""Does the worklist's order "teaches most" teach more than a random one? Phantom readers label in either order, detectors learn from it.

A detector learns from the first labelled images of a phantom data set. It looks at a pool of unlabelled ones, as a process of
`twinray serve` does, and the pool is put in order three ways: by doubt and distance (`active`, the worklist's order), by doubt alone
(`doubt`), and by chance (`random`). Readers who know the truth, but miss a finding now and then (--slips) and are a pixel or two off,
label the first --more images of each order. A new detector learns from the first images and these, with the same options and seed,
and is tested on the same test patients, whom no order ever saw. Every image is of another patient.

    python benchmarks/active_order.py --out /tmp/active

Five seeds (other images, other weights, other draws) take about an hour of one core. `DIR/results.jsonl` has a line a detector; the same
command goes on after a stop. `DIR/table.md` holds every seed, and the mean difference to the random order with a t interval over
seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from twinray.about import DISCLAIMER
from twinray.cli import main as cli
from twinray.data.decoding.images import load_image
from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.inference.active import active_order, compact, uncertainty
from twinray.inference.model import load_model
from twinray.records import Collection, FloatArray

ORDERS = ("random", "doubt", "active")
MEASURES = ("map50", "map40")
_AT_ONCE = 32


def draw(options: argparse.Namespace, seed: int, folder: Path) -> Collection:
    """The phantom data set of a seed, with its images as files."""
    n = options.first + options.pool + options.val + options.test
    size = max(128, options.size)
    collection = phantom_collection(PhantomConfig(n, size=size, seed=1000 + seed, images_per_patient=1.0))  # fmt: skip
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i, sample in enumerate(collection.samples):
        file = folder / "images" / f"{i}.png"
        if not file.exists():
            Image.fromarray(collection.load(sample).array).save(file)
    return collection


def labelled(
    options: argparse.Namespace, collection: Collection, rows: Sequence[int], out: Path, seed: int
) -> None:
    """A pack of the images that learn, choose the epoch (val) and test: what readers drew on the first, the truth on the others."""
    start = options.first + options.pool
    rng = np.random.default_rng(seed)  # the same slips on the same image, whatever the order
    slips = [rng.spawn(1)[0] for _ in range(start)]
    sides = [
        *((i, "train") for i in rows),
        *((i, "val") for i in range(start, start + options.val)),
        *((i, "test") for i in range(start + options.val, len(collection.samples))),
    ]
    images, annotations = [], []
    for i, side in sides:
        sample = collection.samples[i]
        size = max(128, options.size)
        images.append({"id": i, "file_name": f"{i}.png", "split": side, "patient_id": f"p{i}"})
        for box, label in zip(
            sample.boxes.xyxy.tolist(), sample.boxes.labels.tolist(), strict=True
        ):
            drawn = np.array(box)
            if side == "train":
                if slips[i].random() < options.slips:
                    continue
                drawn = np.clip(drawn + slips[i].normal(0, 1.5, 4), 0, size)
                if (drawn[2:] - drawn[:2] < 1).any():
                    continue
            x0, y0, x1, y1 = drawn.tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            )  # fmt: skip
    names = [{"id": i, "name": name} for i, name in enumerate(collection.box_classes, start=1)]
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    run("pack", file, "--format", "coco", "--images", out.parent / "images", "--size", options.size, "--out", out, "--resume")  # fmt: skip


def learn(options: argparse.Namespace, pack: Path, out: Path, seed: int) -> dict[str, Any]:
    """A detector; its test figures."""
    run("detect", "--data", pack, "--out", out, "--arch", options.arch, "--init", "random", "--size", options.size,
        "--epochs", options.epochs, "--batch-size", 8, "--lr", options.lr, "--fpn-channels", 64, "--box-head-width", 256,
        "--bootstrap", 0, "--seed", seed, "--resume")  # fmt: skip
    test = json.loads((out / "metrics.json").read_text())["test"]
    return {name: _value(test[name]) for name in MEASURES}


def _value(figure: Any) -> float:
    return float(figure["value"] if isinstance(figure, dict) else figure)


def orders(
    options: argparse.Namespace, run_folder: Path, images: Path, seed: int
) -> dict[str, list[int]]:
    """Positions in the pool, the image to label first in front, by order; boxes and features as the server makes them."""
    model = load_model(run_folder, "cpu")
    n = options.first + options.pool
    doubts, features = [], []
    for start in range(0, n, _AT_ONCE):
        rows = range(start, min(n, start + _AT_ONCE))
        prepared = [model.prepare(load_image(images / f"{i}.png"), str(i)) for i in rows]
        boxes, found = model.boxes_and_features(prepared)
        doubts += [uncertainty(one.scores) for one in boxes]  # type: ignore[arg-type]
        features.append(compact(found))
    table: FloatArray = np.concatenate(features)
    doubt = np.array(doubts)[options.first :]
    known, pool = table[: options.first], table[options.first :]
    return {
        "random": np.random.default_rng(seed).permutation(options.pool).tolist(),
        "doubt": np.argsort(-doubt, kind="stable").tolist(),
        "active": active_order(pool, doubt, known, first=options.more).tolist(),
    }


def one_seed(options: argparse.Namespace, seed: int, results: Path) -> None:
    """All detectors of a seed that are not in the results yet."""
    done = {(one["seed"], one["order"]) for one in read(results)}
    wanted = [name for name in ("first", *ORDERS) if (seed, name) not in done]
    if not wanted:
        return
    folder = options.out / f"seed-{seed}"
    collection = draw(options, seed, folder)
    first, begin = folder / "run-first", time.process_time()
    rows = {"first": list(range(options.first))}
    labelled(options, collection, rows["first"], folder / "pack-first", seed)
    figures = {"first": learn(options, folder / "pack-first", first, seed)}
    for name, order in orders(options, first, folder / "images", seed).items():
        rows[name] = [*rows["first"], *(options.first + place for place in order[: options.more])]
    for name in wanted:
        if name != "first":
            labelled(options, collection, rows[name], folder / f"pack-{name}", seed)
            figures[name] = learn(options, folder / f"pack-{name}", folder / f"run-{name}", seed)
        boxes = sum(len(collection.samples[i].boxes) for i in rows[name])
        seconds, begin = time.process_time() - begin, time.process_time()
        line = {"seed": seed, "order": name, "images": len(rows[name]), "boxes": boxes, **figures[name], "cpu_seconds": round(seconds, 1)}  # fmt: skip
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    shutil.rmtree(folder)


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Every seed, and differences to the random order over the seeds that have all orders."""
    found = {(one["seed"], one["order"]): one for one in lines}
    seeds = sorted({seed for seed, _ in found if all((seed, name) in found for name in ORDERS)})
    names = ("first", *ORDERS)
    rows = [f"| seed | {' | '.join(f'{name} (findings)' for name in names)} |", "| --- " * (len(names) + 1) + "|"]  # fmt: skip
    for seed in seeds:
        cells = [f"{found[seed, name]['map50']:.3f} ({found[seed, name]['boxes']})" for name in names]  # fmt: skip
        rows.append(f"| {seed} | {' | '.join(cells)} |")
    for measure in MEASURES:
        for name in ORDERS[1:]:
            gaps = [found[s, name][measure] - found[s, "random"][measure] for s in seeds]
            if len(gaps) < 2:
                continue
            mean, error = float(np.mean(gaps)), float(stats.sem(gaps))
            reach = float(stats.t.ppf(0.975, len(gaps) - 1)) * error
            told = ", ".join(f"{gap:+.3f}" for gap in gaps)
            rows.append(f"\n{measure}, {name} - random: {mean:+.3f} ({mean - reach:+.3f} to {mean + reach:+.3f}), n = {len(gaps)} seeds: {told}")  # fmt: skip
    return "\n".join([*rows, "", f"{DISCLAIMER}.", ""])


def run(*arguments: object) -> None:
    cli([str(one) for one in arguments])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--first", type=int, default=60, help="labelled images to begin with")
    parser.add_argument("--pool", type=int, default=400, help="images to choose from")
    parser.add_argument("--more", type=int, default=60, help="images that are labelled")
    parser.add_argument("--val", type=int, default=40)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.0005)
    parser.add_argument("--slips", type=float, default=0.05)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    for seed in options.seeds:
        one_seed(options, seed, results)
        (options.out / "table.md").write_text(table(read(results)))
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

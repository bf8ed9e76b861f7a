"""Classification on real chest X-rays: which initial weights help, under which policy, with how many labels.

    python benchmarks/classification_kermany.py --images KERMANY/train --out DIR

Kermany's paediatric chest X-rays (folders NORMAL and PNEUMONIA; Kermany et al. 2018, CC BY 4.0) at 64 pixels, patients by
file name, a fifth of the patients held out for the test and a tenth for choosing epochs. ResNet-18 from {random, Barlow
Twins of the training split} x {probe, head, surgical auto, full} x {1, 10, 100 %} x 5 draws of the labels, each by the
command line with its defaults. On 2 cores the whole takes some hours; a run that is there already is not made again.

``--jobs`` runs at a time, the short ones first; after ``--seconds`` none is started and those that run are stopped: the
same command goes on with them. ``table.csv`` and ``table.md`` hold what is finished; then ``twinray evaluate`` compares all
runs and draws the curves against the share of labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

POLICIES = ("probe", "head", "surgical", "full")
FRACTIONS = (0.01, 0.1, 1.0)
PATIENTS = r"(person\d+)_|(IM-\d+)-"
ARMS = ("random", "barlow-twins")


def twinray(*arguments: object, log: Path | None = None, until: float = float("inf")) -> int:
    """Run a verb; its exit status, -1 where the time was over."""
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    output = log.open("wb") if log is not None else None
    try:
        limit = None if until == float("inf") else max(until - time.monotonic(), 1)
        return subprocess.run(
            command, stdout=output, stderr=output, timeout=limit, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, float, list[int]]]:
    """(arm, policy, fraction, seeds), those that end soon first, or last."""
    for fraction in reversed(FRACTIONS) if options.long_first else FRACTIONS:
        seeds = options.seeds if fraction < 1 else options.seeds[: options.seeds_at_all]
        for policy in options.policies:
            for arm in ARMS:
                yield arm, policy, fraction, seeds


def folder_of(out: Path, arm: str, policy: str, fraction: float) -> Path:
    return out / "runs" / f"{arm}-{policy}-{fraction:g}"


def classify(
    options: argparse.Namespace, until: float, task: tuple[str, str, float, list[int]]
) -> str:
    """One run, from wherever it stood."""
    arm, policy, fraction, seeds = task
    run = folder_of(options.out, arm, policy, fraction)
    if (run / "metrics.json").is_file():
        return f"{run.name}: there already"
    if time.monotonic() > until:
        return f"{run.name}: not begun, the time is over"
    start = time.monotonic()
    init = "random" if arm == "random" else options.out / "pretrained"
    more = ["--epochs", options.epochs] if options.epochs and policy != "probe" else []
    arguments = (
        "--data",
        options.pack,
        "--init",
        init,
        "--arch",
        "resnet18",
        "--size",
        64,
        "--policy",
        policy,
    )
    drawn = ("--fraction", fraction, "--seeds", *seeds)
    (options.out / "logs").mkdir(exist_ok=True)
    log = options.out / "logs" / f"{run.name}.log"
    status = twinray(
        "classify", *arguments, *drawn, *more, "--device", options.device, "--out", run, "--resume",
        log=log, until=until,
    )  # fmt: skip
    told = (
        "done"
        if status == 0
        else "stopped, the time is over"
        if status == -1
        else f"ended with {status}, see {log}"
    )
    return f"{run.name}: {told}, {time.monotonic() - start:.0f} s"


def prepare(options: argparse.Namespace) -> None:
    """The pack and the pre-trained weights."""
    if not options.pack.exists():
        shares = ("--val", 0.1, "--test", 0.2, "--seed", options.split_seed)
        if twinray(
            "pack",
            options.images,
            "--patient-regex",
            PATIENTS,
            "--size",
            64,
            *shares,
            "--out",
            options.pack,
        ):
            raise SystemExit("packing failed")
    more = (
        "--arch",
        "resnet18",
        "--size",
        64,
        "--batch-size",
        options.batch_size,
        "--epochs",
        options.pretrain_epochs,
    )
    pretrained = options.out / "pretrained"
    if twinray(
        "pretrain",
        "--data",
        options.pack,
        *more,
        "--device",
        options.device,
        "--out",
        pretrained,
        "--resume",
    ):
        raise SystemExit("pre-training failed")


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a finished run: mean test figures over the label draws, with Student's t interval over them."""
    found = []
    for arm, policy, fraction, _ in wanted(options):
        path = folder_of(options.out, arm, policy, fraction) / "metrics.json"
        if not path.is_file():
            continue
        metrics = json.loads(path.read_text())
        row: dict[str, Any] = {
            "fraction": fraction,
            "policy": policy,
            "weights": arm,
            "draws": len(metrics["seeds"]),
        }
        row["training_images"] = round(
            sum(metrics["training_images"]) / len(metrics["training_images"])
        )
        for name in ("auc", "average_precision", "balanced_accuracy", "brier"):
            figure = metrics["test"].get(name)
            if figure is not None:
                low, high = figure["ci95"] or (None, None)
                row |= {name: figure["value"], f"{name}_low": low, f"{name}_high": high}
        row["test_images"] = metrics["test"]["n_images"]
        found.append(row)
    return found


def write_tables(options: argparse.Namespace) -> None:
    found = rows(options)
    names = list(dict.fromkeys(name for row in found for name in row))
    with (options.out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    by_arm = {(row["fraction"], row["policy"], row["weights"]): row for row in found}
    lines = [
        "| labels | images | policy | random | Barlow Twins |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fraction in FRACTIONS:
        for policy in options.policies:
            both = [by_arm.get((fraction, policy, arm)) for arm in ARMS]
            if any(both):
                images = next(row["training_images"] for row in both if row)
                lines.append(
                    f"| {fraction:.0%} | {images:,} | {policy} | {' | '.join(map(_cell, both))} |"
                )
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run"
    ends = "" if row["auc_low"] is None else f" ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
    return f"{row['auc']:.3f}{ends}, {row['draws']} draws"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="folder with NORMAL and PNEUMONIA; not needed where --pack is there",
    )
    parser.add_argument("--pack", type=Path, help="pack to use or make (default: OUT/pack)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="draws of the labels"
    )
    parser.add_argument(
        "--seeds-at-all", type=int, default=5, help="how many of these at 100 %% of the labels"
    )
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    parser.add_argument(
        "--epochs", type=int, default=0, help="of the trained policies (0: the verb's default)"
    )
    parser.add_argument(
        "--split-seed",
        type=int,
        default=3,
        help="of the patients' split; 0 to 2 chose defaults or were used",
    )
    parser.add_argument("--pretrain-epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256, help="of pre-training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--long-first",
        action="store_true",
        help="begin with all labels: sooner done where many run at a time",
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop")
    parser.add_argument(
        "--no-comparison", action="store_true", help="leave out twinray evaluate at the end"
    )
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    options.pack = options.pack or options.out / "pack"
    if options.images is None and not options.pack.exists():
        parser.error("--images or an existing --pack is needed")
    tasks = list(wanted(options))
    print(f"{len(tasks)} runs, {options.jobs} at a time; results in {options.out}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // options.jobs, 1)))
    prepare(options)
    with ThreadPoolExecutor(options.jobs) as pool:
        for told in pool.map(lambda task: classify(options, until, task), tasks):
            print(told, flush=True)
    write_tables(options)
    done = [folder_of(options.out, *task[:3]) for task in tasks]
    done = [run for run in done if (run / "metrics.json").is_file()]
    comparison = options.out / "comparison"
    if len(done) > 1 and not options.no_comparison and not comparison.exists():
        twinray("evaluate", *done, "--out", comparison)


if __name__ == "__main__":
    main()

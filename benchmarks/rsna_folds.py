"""Does pre-training help a detector of lung opacities? Cross-validated, on a small public set, on a processor in hours.

    python benchmarks/rsna_folds.py --kermany DIR --nih DIR --rsna annotations.json --out DIR [--jobs 2]

Arms: random weights, and Barlow Twins on ``--kermany`` (folders NORMAL and PNEUMONIA; Kermany et al. 2018) and ``--nih`` (NIH
ChestX-ray14's layout), without any image or patient of ``--rsna`` (a COCO file of the RSNA pneumonia boxes with
``patient_id`` in its images). 5 patient-disjoint folds x 3 seeds x 2 arms, ResNet-18 at 224 pixels, the epoch chosen on
validation images, each test fold used once. Then mAP50 and FROC of the arms with paired differences, and the
faithfulness of heat maps of the first seed's detectors, pooled over the folds.

Every step is the command line; a folder that is finished already is not made again, so the script can be run again after a stop.
``--jobs`` detectors train side by side, each on its share of the cores, which on a processor is faster than one after another.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from twinray.evaluation.intervals import group_index
from twinray.explanation.faithfulness_figures import MEASURES, MeasuredMaps, faithfulness_figures
from twinray.report.charts.faithfulness import faithfulness_chart
from twinray.report.pictures.panels import as_png

ARMS = ("random", "barlow-twins")
SMALL = ("--fpn-channels", 128, "--rois-per-image", 128)


def twinray(*arguments: object, threads: int | None = None, log: Path | None = None) -> None:
    told = " ".join(["twinray", *map(str, arguments)])
    print(f"\n$ {told}" if log is None else f"$ {told} > {log}", flush=True)
    share = (
        {}
        if threads is None
        else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    )
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    if log is None:
        subprocess.run(command, check=True, env=os.environ | share)
        return
    with log.open("w") as file:
        subprocess.run(
            command, check=True, env=os.environ | share, stdout=file, stderr=subprocess.STDOUT
        )


def packs(options: argparse.Namespace) -> list[Path]:
    out: Path = options.out
    one_side = ("--val", 0, "--test", 0, "--channels", "grey", "--resume")
    if not (out / "kermany" / "pack.json").exists():
        regex = r"(person\d+)_|(IM-\d+)-"
        twinray(
            "pack",
            options.kermany,
            "--format",
            "folder",
            "--patient-regex",
            regex,
            *one_side,
            "--out",
            out / "kermany",
        )
    if not (out / "nih" / "pack.json").exists():
        twinray("pack", options.nih, "--format", "nih", *one_side, "--out", out / "nih")
    folds = [out / f"fold{k}" for k in range(options.folds)]
    for k, fold in enumerate(folds):
        if not (fold / "pack.json").exists():
            cut = ("--folds", options.folds, "--fold", k, "--val", 0.15, "--resume")
            twinray("pack", options.rsna, "--format", "coco", *cut, "--out", fold)
    return folds


def pretrain(options: argparse.Namespace, tested: Path) -> Path:
    """Learns from every split of both packs: nothing of them is tested on, and whoever is has been left out."""
    run: Path = options.out / "pretrained"
    more = (
        "--splits",
        "train",
        "val",
        "test",
        "--leave-out",
        tested,
        "--arch",
        "resnet18",
        "--size",
        options.pretrain_size,
    )
    recipe = (
        "--batch-size",
        options.pretrain_batch,
        "--epochs",
        options.pretrain_epochs,
        "--knn-every",
        0,
    )
    twinray(
        "pretrain",
        "--data",
        options.out / "kermany",
        options.out / "nih",
        "--out",
        run,
        *more,
        *recipe,
        "--resume",
    )
    return run


def detectors(
    options: argparse.Namespace, folds: list[Path], pretrained: Path
) -> dict[str, list[Path]]:
    runs: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    (options.out / "logs").mkdir(exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = []
        for seed in options.seeds:
            for k, fold in enumerate(folds):
                for arm, init in zip(ARMS, ("random", pretrained), strict=True):
                    run = options.out / f"{arm}-fold{k}-seed{seed}"
                    recipe = (
                        "--arch",
                        "resnet18",
                        "--size",
                        224,
                        "--epochs",
                        options.detect_epochs,
                        *SMALL,
                    )
                    arguments = (
                        "detect",
                        "--data",
                        fold,
                        "--init",
                        init,
                        "--out",
                        run,
                        "--seed",
                        seed,
                        *recipe,
                        "--resume",
                    )
                    runs[arm].append(run)
                    log = options.out / "logs" / f"{run.name}.txt"
                    waiting.append(pool.submit(twinray, *arguments, threads=threads, log=log))
        for one in waiting:
            one.result()
    return runs


def faithfulness(options: argparse.Namespace, folds: list[Path]) -> None:
    """Pooled over folds: means over the correctly found boxes of the first seed's detectors, resampled by patient."""
    seed = options.seeds[0]
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)

    def measure(arm: str, k: int) -> None:
        run, out = (
            options.out / f"{arm}-fold{k}-seed{seed}",
            options.out / f"faithfulness-{arm}-fold{k}",
        )
        if (out / "faithfulness.json").exists():
            return
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("faithfulness", run, "--data", folds[k], "--out", out)
        try:
            twinray(*arguments, threads=threads, log=options.out / "logs" / f"{out.name}.txt")
        except subprocess.CalledProcessError as error:
            if error.returncode != 2:
                raise
            print(f"{run.name}: left out of the heat maps, see logs/{out.name}.txt")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(
            pool.map(
                lambda place: measure(*place), [(arm, k) for k in range(len(folds)) for arm in ARMS]
            )
        )
    for arm in ARMS:
        tables = [
            options.out / f"faithfulness-{arm}-fold{k}" / "true_positives.csv"
            for k in range(len(folds))
        ]
        rows = [
            row
            for table in tables
            if table.exists()
            for row in csv.DictReader(table.open(newline=""))
        ]
        if rows:
            told = f"heat maps of {arm}, seed {seed}, test images of {len(folds)} folds"
            show_faithfulness(rows, told, options.out / f"faithfulness-{arm}.png")


def show_faithfulness(rows: list[dict[str, str]], title: str, chart: Path) -> None:
    maps = list(dict.fromkeys(row["map"] for row in rows))
    measures = [name for name in MEASURES if name in rows[0]]
    boxes = [rows[at] for at in range(0, len(rows), len(maps))]
    values = np.array([[float(row[m]) for m in measures] for row in rows]).reshape(
        len(boxes), len(maps), -1
    )
    groups = group_index([box["patient"] for box in boxes], [box["image"] for box in boxes])
    measured = MeasuredMaps(
        tuple(maps), tuple(measures), values, np.zeros(len(boxes), dtype=np.int64), groups
    )
    figures = faithfulness_figures(measured, [boxes[0]["class"]])
    print(f"\n{title}: {len(boxes)} correctly found boxes of {int(groups.max()) + 1} patients")
    print(f"{'map':20} {'':16} " + " ".join(f"{measure:>24}" for measure in measures))
    for name, own in figures.items():
        print(f"{name:20} {'':16} " + " ".join(f"{cell(own[measure]):>24}" for measure in measures))
        for floor, over in own.get("over_floor", {}).items():
            print(
                f"{'':20} {'minus ' + floor:16} "
                + " ".join(f"{cell(over[measure]):>24}" for measure in measures)
            )
    chart.write_bytes(as_png(faithfulness_chart(figures, measures, title)))


def cell(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"] or (float("nan"), float("nan"))
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kermany", type=Path, required=True)
    parser.add_argument("--nih", type=Path, required=True)
    parser.add_argument("--rsna", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain-size", type=int, default=128)
    parser.add_argument("--pretrain-batch", type=int, default=128)
    parser.add_argument("--pretrain-epochs", type=int, default=8)
    parser.add_argument("--detect-epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2, help="detectors trained side by side")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folds = packs(options)
    pretrained = pretrain(options, folds[0])
    runs = detectors(options, folds, pretrained)
    shutil.rmtree(options.out / "comparison", ignore_errors=True)
    twinray(
        "evaluate", *(run for arm in ARMS for run in runs[arm]), "--out", options.out / "comparison"
    )
    faithfulness(options, folds)


if __name__ == "__main__":
    main()

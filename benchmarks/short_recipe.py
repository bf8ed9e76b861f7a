"""A recipe for short pre-training: what was tried, on which data, and what came out.

    python benchmarks/short_recipe.py --search --kermany KERMANY/train --out DIR
    python benchmarks/short_recipe.py --final --kermany KERMANY/train --out DIR
    python benchmarks/short_recipe.py --show --out DIR

The protocol stands in docs/training.md. ``--search`` learns from and tests on data that choose: split 1 of Kermany's chest X-rays
and phantom seed 101. ``--final`` uses split 10 and phantom seeds 201 to 210, and only the short recipe, with second
views of the same image and of the same patient. Each run is one line in ``DIR/results.jsonl``; a run that stands there is not made again, so the same command goes
on after a stop. ResNet-18, 64 pixels. A run on the phantom takes about 85 s of one core (7 in the search, 20 in the end), one on
Kermany some minutes (7 in the search; 3 for each seed in the end); packing comes on top.

Figure: mean AUC of a linear probe, in the search with one fixed penalty, in the end with a penalty by cross-validation. On Kermany 1 % of the
training images' labels, ten draws in the search and five in the end, patients of the test apart; on the phantom all labels of
half of 800 images, mean over four classes.

A run of the search is judged in four ways, at no more training: the weights as they are (``last``); their average over the run
(``average``: exponential, over about a tenth of the steps); and with the statistics of batch norms measured anew on whole training images
(``settled``), since views are smaller, darker and blurred.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score

from twinray.backbones.build import Backbone, build_backbone
from twinray.classification.features.on_pack import extract_features
from twinray.classification.probe import LinearProbe, fit_linear, fit_probe
from twinray.data.pack import Pack, open_pack
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins, kept_backbone
from twinray.pretraining.norms import settle_norms, whole_images
from twinray.pretraining.options import resolve
from twinray.pretraining.pairs import partners
from twinray.pretraining.run import chosen_rows, make_loop, open_packs, open_source, patient_numbers
from twinray.runs.folder import RunFolder
from twinray.training.device import choose_machine
from twinray.training.engine import train

PENALTY = 0.1  # in the search: choosing it by cross-validation for every draw costs as much as the pre-training
PATIENTS = r"(person\d+)_|(IM-\d+)-"
SEARCH = {"kermany": (1,), "phantom": (101,)}
FINAL = {"kermany": (10,), "phantom": tuple(range(201, 211))}
GENTLE: dict[str, Any] = {"jitter": 0.8, "brightness": 0.2, "contrast": 0.2, "solarise": (0.0, 0.0), "blur": (0.5, 0.1)}  # fmt: skip
WHOLE: dict[str, Any] = {"crop_min": 0.9, "brightness": 0.2, "contrast": 0.2, "solarise": (0.0, 0.0), "blur": (0.2, 0.1)}  # fmt: skip
TRIALS: dict[str, dict[str, Any]] = {
    "before": {},
    "batch 64": {"batch_size": 64, "lr": 1e-3},
    "batch 64, narrow": {"batch_size": 64, "lr": 1e-3, "projector": (512, 512, 512)},
    "batch 64, rate x 2": {"batch_size": 64, "lr": 2e-3},
    "batch 64, crops from 25 %": {"batch_size": 64, "lr": 1e-3, "crop_min": 0.25},
    "batch 64, gentle": {
        "batch_size": 64,
        "lr": 1e-3,
        **GENTLE,
    },
    # four and twelve times as long, since 175 steps on the phantom left the embedding at 8 of 512 dimensions
    "4 x as long": {"longer": 4},
    "12 x as long": {"longer": 12},
    "batch 64, 4 x as long": {"batch_size": 64, "lr": 1e-3, "longer": 4},
    "batch 64, gentle, 4 x as long": {
        "batch_size": 64,
        "lr": 1e-3,
        **GENTLE,
        "longer": 4,
    },
    # a crop's magnification hides the heart's size, so crops of nearly the whole image
    "whole images, gentle, 4 x as long": {
        "batch_size": 64,
        "lr": 1e-3,
        **WHOLE,
        "longer": 4,
    },
    "lambda 0.02, 4 x as long": {"batch_size": 64, "lr": 1e-3, "lam": 0.02, "longer": 4},
    "lambda 0.0051, 4 x as long": {"batch_size": 64, "lr": 1e-3, "lam": 0.0051, "longer": 4},
    # added when each of the two had come out above random weights on the phantom
    "whole images, gentle, lambda 0.0051, 4 x as long": {
        "batch_size": 64,
        "lr": 1e-3,
        "lam": 0.0051,
        **WHOLE,
        "longer": 4,
    },
    "lambda 0.0051, 12 x as long": {"batch_size": 64, "lr": 1e-3, "lam": 0.0051, "longer": 12},
    # what counts is lambda times the width of the embedding: 0.0051 is 2.6 / 512 on the phantom, where it helped, and 10 / 2048 on
    # Kermany, where nothing was learnt under it
    "lambda 2.5 / width, 4 x as long": {
        "batch_size": 64,
        "lr": 1e-3,
        "lam_width": 2.5,
        "longer": 4,
    },
    "lambda 2.5 / width": {"batch_size": 64, "lr": 1e-3, "lam_width": 2.5},
    "wide, 4 x as long": {
        "batch_size": 64,
        "lr": 1e-3,
        "projector": (2048, 2048, 2048),
        "longer": 4,
    },
    "low rate, 4 x as long": {"batch_size": 64, "lr": 2e-4, "longer": 4},
}
"""What differs from the defaults: on Kermany of 5 epochs of 256 images a batch, on the phantom of the demo's run."""
FINAL_TRIALS: dict[str, dict[str, Any]] = {
    "short": {},
    "short, patient pairs": {"pairs": "patient"},
}


def data_of(kind: str, number: int, options: argparse.Namespace) -> tuple[tuple[Path, ...], Path]:
    """Packs to learn from, and the pack with labels, made where they are not there."""
    if kind == "kermany":
        pack = options.out / f"kermany-{number}"
        if not (pack / "pack.json").exists():
            source = PackConfig(
                source=(options.kermany,), patient_regex=PATIENTS, size=64, val=0.1, test=0.2,
                seed=number, out=pack, resume=True,
            )  # fmt: skip
            pack_images(source, Console(quiet=True))
        return (pack,), pack
    unlabelled, labelled = (options.out / f"phantom-{number}-{part}" for part in ("u", "l"))
    parts = (
        (
            unlabelled,
            {"seed": 1000 + number, "phantom_images": 1500, "phantom_labelled": 0.0, "test": 0.0},
        ),
        (labelled, {"seed": number, "phantom_images": 800, "test": 0.5}),
    )
    for pack, more in parts:
        if not (pack / "pack.json").exists():
            asked: dict[str, Any] = {
                "format": ("phantom",),
                "out": pack,
                "size": 128,
                "val": 0.0,
                "resume": True,
            }
            pack_images(PackConfig(**(asked | more)), Console(quiet=True))
    return (unlabelled,), labelled


def pretrained(
    config: PretrainConfig, folder: Path
) -> tuple[dict[str, Backbone], dict[str, float], float]:
    """Backbones as they are judged, the last figures of the log, and seconds of the training."""
    config = resolve(dataclasses.replace(config, out=folder))
    packs = open_packs(config)
    rows = chosen_rows(packs, config)
    source = open_source(packs, rows, config)
    machine = choose_machine(config.device, config.precision)
    torch.manual_seed(config.seed)
    backbone = build_backbone(config.arch, config.seed, config.size)
    model = BarlowTwins(backbone, config.projector, averaged=True)
    model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    paired = partners(packs, rows, config.pairs, config.pair_share, config.seed)
    loop = make_loop(config, model, source, machine, paired=paired)
    (folder / "checkpoints").mkdir(parents=True)
    run = RunFolder(folder)
    start = time.process_time()
    train(dataclasses.replace(loop, checkpoint_minutes=1e6), run)
    seconds = time.process_time() - start
    last: dict[str, Any] = {}
    for line in run.history():
        last |= line
    shutil.rmtree(folder)
    named = {"last": backbone, "average": kept_backbone(model)}
    for name in list(named):
        other = copy.deepcopy(named[name])
        settle_norms(other, whole_images(source, config.size, config.seed, other, machine.exact))
        named[f"{name}, settled"] = other
    names = ("loss", "mean_c_ii", "rms_c_ij", "effective_rank")
    return named, {name: round(float(last[name]), 4) for name in names}, seconds


def auc_of(
    backbone: Backbone, pack: Pack, size: int, draws: int, penalty: float | None
) -> dict[str, float]:
    """Test AUC of the probe, by class on the phantom and by draw on Kermany, and their mean."""
    machine = choose_machine(
        "cpu", "auto"
    ).exact  # one arithmetic for all, wherever they were trained
    backbone = copy.deepcopy(backbone).cpu()
    splits = pack.splits.astype(str)
    train_rows, test_rows = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
    labels = np.asarray(pack.labels)
    multilabel = pack.info.task == "multilabel"

    def features(rows: Any) -> Any:
        return extract_features(
            backbone, pack.images, rows, size=size, batch_size=128, machine=machine
        )

    def fitted(rows: Any, task: Any) -> LinearProbe:
        if penalty is not None:
            return fit_linear(features(rows), labels[rows], task, penalty)
        return fit_probe(features(rows), labels[rows], people[rows], task)

    people = patient_numbers([pack], [np.arange(len(pack))])
    test = features(test_rows)
    found: dict[str, float] = {}
    if multilabel:
        probe = fitted(train_rows, "multilabel")
        scores = probe.scores(test)
        for k, name in enumerate(pack.info.label_classes):
            found[name] = float(roc_auc_score(labels[test_rows][:, k], scores[:, k]))
    else:
        for draw in range(draws):
            rows = drawn(labels, train_rows, draw)
            probe = fitted(rows, "multiclass")
            scores = probe.scores(test)[:, 1]
            found[f"draw {draw}"] = float(roc_auc_score(labels[test_rows][:, 1], scores))
    return found | {"mean": float(np.mean(list(found.values())))}


def drawn(labels: Any, rows: Any, seed: int, share: float = 0.01) -> Any:
    """A stratified share of the training images, the same for every arm."""
    rng = np.random.default_rng([seed, 7])
    chosen = []
    for k in range(labels.shape[1]):
        own = rows[labels[rows][:, k] == 1]
        chosen.append(rng.permutation(own)[: max(round(share * len(own)), 5)])
    return np.sort(np.concatenate(chosen))


def config_of(
    kind: str, data: tuple[Path, ...], seed: int, options: argparse.Namespace, more: dict[str, Any]
) -> PretrainConfig:
    plain: dict[str, Any] = {
        "data": data,
        "arch": "resnet18",
        "size": options.size,
        "seed": seed,
        "knn_every": 0,
        "log_every": 10,
        "average": 0.1,  # kept beside the last weights, which do not feel it
    }
    if kind == "kermany":
        plain |= {"epochs": 5, "batch_size": 256}
    else:  # the demo's options
        plain |= {"epochs": 7, "batch_size": 64, "lr": 5e-4, "projector": (512, 512, 512)}
    if options.epochs:
        plain["epochs"] = options.epochs
    more = dict(more)
    plain["epochs"] *= more.pop("longer", 1)
    if "lam_width" in more:
        width = (more.get("projector") or plain.get("projector") or (2048,))[-1]
        more["lam"] = more.pop("lam_width") / width
    return PretrainConfig(**(plain | {"device": options.device} | more))


def done(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def one(
    kind: str, number: int, trial: str, seed: int, options: argparse.Namespace, draws: int
) -> None:
    """One run and its line."""
    path = options.out / "results.jsonl"
    key = {"data": kind, "number": number, "size": options.size, "trial": trial, "seed": seed}
    key |= {"epochs": options.epochs}
    if any(all(line[k] == v for k, v in key.items()) for line in done(path)):
        return
    data, labelled = data_of(kind, number, options)
    pack = open_pack(labelled)
    if trial == "random":
        start = time.process_time()
        backbones = {"last": build_backbone("resnet18", seed, options.size)}
        figures, seconds = {}, time.process_time() - start
        config: dict[str, Any] = {}
    else:
        folder = (
            options.out / f"run-{kind}-{number}-{seed}-{trial.replace(' ', '_').replace('%', '')}"
        )
        shutil.rmtree(folder, ignore_errors=True)
        asked = config_of(kind, data, seed, options, (TRIALS | FINAL_TRIALS)[trial])
        backbones, figures, seconds = pretrained(asked, folder)
        if options.final:  # what the recipe keeps, and no other
            backbones = {"last": backbones["last"]}
        config = {k: v for k, v in dataclasses.asdict(resolve(asked)).items() if k in SHOWN}
    aucs = {
        name: auc_of(backbone, pack, options.size, draws, PENALTY if options.search else None)
        for name, backbone in backbones.items()
    }
    line = key | {"auc": aucs, "figures": figures, "cpu_seconds": round(seconds), "options": config}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    told = ", ".join(f"{name} {value['mean']:.3f}" for name, value in aucs.items())
    print(f"{kind} {number} seed {seed} {trial}: {told}; {figures}, {seconds:.0f} s", flush=True)


SHOWN = (
    "batch_size", "epochs", "projector", "lam", "optimizer", "lr", "weight_decay", "warmup_epochs",
    "crop_min", "jitter", "brightness", "contrast", "blur", "solarise", "pairs", "pair_share",
)  # fmt: skip


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, int, str, int, int]]:
    kinds: Iterable[str] = options.data
    numbers = SEARCH if options.search else FINAL
    own = TRIALS if options.search else FINAL_TRIALS
    for kind in kinds:
        for number in numbers[kind]:
            for seed in options.seeds:
                for trial in options.trials or ["random", *own]:
                    yield kind, number, trial, seed, 10 if options.search else 5


def show(path: Path) -> None:
    print(
        "| data | trial | seed | last | average | last, settled | average, settled | C_ii | C_ij | rank |"
    )
    print("| --- " * 10 + "|")
    for line in done(path):
        auc, f = line["auc"], line["figures"]
        cells = [
            f"{auc[name]['mean']:.3f}" if name in auc else ""
            for name in ("last", "average", "last, settled", "average, settled")
        ]
        more = [str(f.get(name, "")) for name in ("mean_c_ii", "rms_c_ij", "effective_rank")]
        where = f"{line['data']} {line['number']}"
        print(f"| {' | '.join([where, line['trial'], str(line['seed']), *cells, *more])} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--show", action="store_true", help="the table of what is there; no run")
    parser.add_argument("--kermany", type=Path, help="folder with NORMAL and PNEUMONIA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["kermany", "phantom"])
    parser.add_argument("--trials", nargs="+", help="some of them by name")
    parser.add_argument("--size", type=int, default=64, help="side of views and images, pixels")
    parser.add_argument("--epochs", type=int, default=0, help="0: 5 on Kermany, 7 on the phantom")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; probes run on the cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.show:
        if options.search == options.final:
            parser.error("one of --search, --final and --show is needed")
        for kind in options.data:  # packs first: workers would make them twice
            for number in (SEARCH if options.search else FINAL)[kind]:
                data_of(kind, number, options)
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            asked = [
                pool.submit(one, kind, number, trial, seed, options, draws)
                for kind, number, trial, seed, draws in wanted(options)
            ]
            for future in asked:
                future.result()
    show(options.out / "results.jsonl")


if __name__ == "__main__":
    main()

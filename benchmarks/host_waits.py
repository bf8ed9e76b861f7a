"""How often a training step makes the host of a GPU wait, how many operations it starts, and whether its network compiles whole.

    python benchmarks/host_waits.py [--batch-size 32] [--size 224] [--small] [--json OUT.json]

No GPU is needed: tensors say that they are on one and compute on the processor (``pretended_gpu.py``). What is counted:

- a training step of ``twinray detect`` (Faster R-CNN, RetinaNet, FCOS) with its optimiser, as the training loop runs it between log
  lines: waits (at most 5) and, for Faster R-CNN, operations (7,400 at batch 32 before it went over whole batches; a third is the limit);
- a training step of ``twinray pretrain``: no wait;
- graphs of the compiled part of both, on one and on two ranks: one, no break. The graphs are caught, not compiled.

By default it takes about three minutes on two idle cores, most of it in convolutions; ``--small`` some seconds. Counts hardly depend on
the sizes. Exit status 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_map

from pretended_gpu import DEVICE, PretendedTensor, counted, pretended_gpu, put
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated
from twinray.detection.options import resolve as resolve_detect
from twinray.detection.run import make_detector
from twinray.detection.run import make_loop as detector_loop
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as write_pack
from twinray.pretraining import run as pretraining
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins
from twinray.pretraining.options import resolve as resolve_pretrain
from twinray.runs.folder import RunFolder
from twinray.training.device import Machine
from twinray.training.engine import Loop, _one_step, _Tally
from twinray.training.ranks import Ranks, joined_ranks
from twinray.training.sync_norm import synchronise_norms

OPERATIONS_BEFORE = 7400
MOST_WAITS = 5
KINDS = ("faster-rcnn", "retinanet", "fcos")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the network's input")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--small", action="store_true", help="64 pixels, ResNet-18")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--skip-graphs", action="store_true", help="count the steps alone")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--graphs", type=Path, help=argparse.SUPPRESS)  # one rank of several
    options = parser.parse_args()
    if options.small:
        options.size, options.arch = 64, "resnet18"
    if options.graphs:
        return _rank(options)
    with tempfile.TemporaryDirectory() as work:
        options.work = Path(work)
        pack = _pack(options)
        rows: list[dict[str, Any]] = []
        for kind in options.kinds:
            _tell(rows, f"detector step, {kind}", partial(_detector_step, options, pack, kind))
        _tell(rows, "pre-training step", partial(_pretraining_step, options, pack))
        for world in () if options.skip_graphs else (1, 2):
            for name, found in _graphs(options, pack, world).items():
                _tell(rows, f"graphs, {name}, {world} rank(s)", lambda found=found: found)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


def _tell(rows: list[dict[str, Any]], name: str, found: Callable[[], dict[str, Any]]) -> None:
    row = {"what": name, **found()}
    rows.append(row)
    figures = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("what", "holds", "where"))
    print(f"{'ok    ' if row['holds'] else 'BROKEN'} {name:32} {figures}", flush=True)
    for line in row.get("where", []):
        print(f"         {line}", flush=True)


def _pack(options: argparse.Namespace) -> Path:
    path: Path = options.work / "pack"
    images = max(64, 4 * options.batch_size)
    config = PackConfig(
        format="phantom", out=path, size=options.size, phantom_images=images, seed=0, workers=1
    )
    with contextlib.redirect_stderr(io.StringIO()):
        write_pack(config, Console(file=io.StringIO()))
    return path


def _detect_config(options: argparse.Namespace, pack: Path, kind: str) -> DetectConfig:
    return resolve_detect(
        DetectConfig(
            data=pack,
            out=pack.parent / "none",
            arch=options.arch,
            detector=kind,  # type: ignore[arg-type]
            size=options.size,
            batch_size=options.batch_size,
            fpn_channels=64,
            box_head_width=64,
            lr=1e-4,
            brightness=0.1,
            contrast=0.2,
        )
    )


def _pretrain_config(options: argparse.Namespace, pack: Path) -> PretrainConfig:
    return resolve_pretrain(
        PretrainConfig(
            data=(pack,),
            out=pack.parent / "none",
            arch=options.arch,
            size=64,
            batch_size=options.batch_size,
            projector=(64, 64),
            knn_every=0,
            compile="off",
            splits=("train",),
            log_every=1000,
        )
    )


def _detector_step(options: argparse.Namespace, pack: Path, kind: str) -> dict[str, Any]:
    config = _detect_config(options, pack, kind)
    opened = open_pack(pack)
    detector, _ = make_detector(config, opened)
    data = {split: annotated(opened, split) for split in ("train", "val", "test")}
    own = detector_loop(config, detector, data, Machine(torch.device("cpu"), False))
    batches = [batch for batch, _ in zip(own.batches(0, 0), range(2), strict=False)]
    with pretended_gpu():
        put(detector)
        with mock.patch("twinray.detection.data.CopyAhead", mock.MagicMock(), create=True):
            more = {"compile": "off"} if hasattr(config, "compile") else {}
            loop = detector_loop(_with(config, **more), detector, data, Machine(DEVICE, False))
        waits, operations, where = _counted_step(loop, batches, options.work)
    row = {"waits": waits, "operations": operations, "where": where}
    holds = waits <= MOST_WAITS
    if kind == "faster-rcnn":
        row["of the operations before"] = round(operations / OPERATIONS_BEFORE, 3)
        holds &= operations <= OPERATIONS_BEFORE / 3
    return row | {"holds": holds}


def _pretraining_step(options: argparse.Namespace, pack: Path) -> dict[str, Any]:
    config = _pretrain_config(options, pack)
    opened = open_pack(pack)
    source = pretraining.open_source([opened], pretraining.chosen_rows([opened], config), config)
    model = _twins(config)
    own = pretraining.make_loop(config, model, source, Machine(torch.device("cpu"), False))
    batches = [batch for batch, _ in zip(own.batches(0, 0), range(2), strict=False)]
    with pretended_gpu():
        put(model)
        with mock.patch.object(pretraining, "CopyAhead", mock.MagicMock()):
            loop = pretraining.make_loop(config, model, source, Machine(DEVICE, False))
        waits, operations, where = _counted_step(loop, batches, options.work)
    return {"waits": waits, "operations": operations, "where": where, "holds": waits == 0}


def _counted_step(loop: Loop, batches: list[Any], work: Path) -> tuple[int, int, list[str]]:
    """The second of two steps: the first makes what is kept."""
    loop.model.train()
    tally = None
    for index, batch in enumerate(batches):
        moved = _moved(batch)  # as the copying ahead leaves it
        with counted() as counts:
            if tally is None:
                tally = _Tally(_progress())
            _one_step(loop, RunFolder(work / "run"), moved, index + 1, tally)
    return sum(counts.waits.values()), sum(counts.operations.values()), counts.told()


def _progress() -> Any:
    from twinray.training.engine import Progress

    return Progress()


def _moved(batch: Any) -> Any:
    if hasattr(batch, "__dataclass_fields__"):
        values = {name: _moved(getattr(batch, name)) for name in batch.__dataclass_fields__}
        return type(batch)(**values)
    if isinstance(batch, Tensor):
        return PretendedTensor(batch)
    if isinstance(batch, tuple | list):
        return type(batch)(_moved(one) for one in batch)
    return tree_map(lambda one: one, batch)


def _twins(config: PretrainConfig) -> BarlowTwins:
    backbone = pretraining.build_backbone(config.arch, config.seed, config.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return BarlowTwins(backbone, config.projector)


def _with(config: DetectConfig, **more: Any) -> DetectConfig:
    import dataclasses

    return dataclasses.replace(config, **more)


# Graphs ---------------------------------------------------------------------------------------------------------------


def _graphs(options: argparse.Namespace, pack: Path, world: int) -> dict[str, dict[str, Any]]:
    """Of every rank's compiled parts, in processes of their own."""
    out = options.work / f"graphs-{world}.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--graphs", str(pack), "--json", str(out), "--small"]
    command += ["--batch-size", "4"]
    ranks = []
    for rank in range(world):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        ranks.append(subprocess.Popen(command, env=environment))
    ended = [one.wait() for one in ranks]
    if any(ended):
        return {"": {"holds": False, "note": "a rank ended with an error"}}
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return found


def _rank(options: argparse.Namespace) -> int:
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    caught = partial(torch.compile, backend="aot_eager")
    found: dict[str, dict[str, Any]] = {}
    with joined_ranks(torch.device("cpu")) as ranks, mock.patch.object(torch, "compile", caught):
        for name, make in (("detector", _compiled_detector), ("pre-training", _compiled_twins)):
            reset()
            counters.clear()
            loop = make(options, ranks)
            said = io.StringIO()
            loop.model.train()
            with contextlib.redirect_stderr(said):
                for index, batch in zip(range(2), loop.batches(0, 0), strict=False):
                    loop.step(batch, index)
            graphs, breaks = counters["stats"]["unique_graphs"], counters["graph_break"]
            row: dict[str, Any] = {"graphs": graphs, "breaks": sum(breaks.values())}
            if said.getvalue():
                row["said"] = " ".join(said.getvalue().split())[:300]
            row["where"] = [" ".join(why.split())[:200] for why in breaks]
            found[name] = row | {"holds": (graphs, row["breaks"]) == (1, 0) and "said" not in row}
        if ranks.main:
            options.json.write_text(json.dumps(found))
    return 0


def _compiled_detector(options: argparse.Namespace, ranks: Ranks) -> Loop:
    config = _with(_detect_config(options, options.graphs, "faster-rcnn"), compile="on")
    opened = open_pack(options.graphs)
    detector, _ = make_detector(config, opened)
    if ranks.world > 1:
        synchronise_norms(detector)
    data = {split: annotated(opened, split) for split in ("train", "val", "test")}
    return detector_loop(config, detector, data, Machine(torch.device("cpu"), False), ranks)


def _compiled_twins(options: argparse.Namespace, ranks: Ranks) -> Loop:
    import dataclasses

    config = dataclasses.replace(_pretrain_config(options, options.graphs), compile="on")
    opened = open_pack(options.graphs)
    source = pretraining.open_source([opened], pretraining.chosen_rows([opened], config), config)
    model = _twins(config)
    if ranks.world > 1:
        synchronise_norms(model)
    return pretraining.make_loop(config, model, source, Machine(torch.device("cpu"), False), ranks)


if __name__ == "__main__":
    sys.exit(main())

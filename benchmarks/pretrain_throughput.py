"""Pairs per second of pre-training, from the pack to the updated weights, against what could hold it back and against a peer.

    python benchmarks/pretrain_throughput.py --images FOLDER --sizes 64 128
    python benchmarks/pretrain_throughput.py --images FOLDER --arch resnet50 --sizes 224 --batch-size 768 --profile FILE

A pair is one image seen twice. The contestants take turns in one run, in an order that is turned round every time, so that a
noisy neighbour hits all of them; the table gives the median and the best of the turns, and ratios of neighbouring turns:

1. ``twinray, end to end``: the loop that ``twinray pretrain`` builds and runs, with its defaults: batches from the
   memory-mapped pack in the order of its epochs, views, both forward passes, loss, backward pass, optimiser, monitors, log;
2. ``the same, pixels on the device``: the same loop over uint8 batches of random pixels that lie on the device already. It lacks the
   reading, shuffling and copying of (1) and nothing else; their ratio is what the loader costs;
3. ``network alone, views ready``: forward passes, loss, backward pass and optimiser on finished float views, for information;
4. ``lightly's recipe``: the Barlow Twins example of lightly's documentation, over the image files, for the same network and batch.

What (4) is, for lightly 1.6: ``lightly.transforms.byol_transform`` (``BYOLTransform`` of ``BYOLView1Transform`` and ``BYOLView2Transform``
with the view's side as ``input_size``), ``lightly.data.dataset.LightlyDataset`` over the folder (torchvision's ``ImageFolder`` where tqdm,
which that module imports, is missing), torch's ``DataLoader`` with a worker a core, shuffling and dropping the last batch,
``lightly.models.modules.heads.BarlowTwinsProjectionHead``, ``lightly.loss.barlow_twins_loss.BarlowTwinsLoss``, torch's SGD at 0.06, all in
float32. These modules need torch, torchvision and Pillow alone, so lightly may be installed without what it asks for. Two
things differ from the example: it turns blurring off because its images are CIFAR's, while here the transform keeps its own
default, which is the paper's and ours (``--lightly-without-blur`` for the example's); and the sampler runs
on over the epoch's end, so that starting workers and filling their queue, which a small folder would have at every few steps, is not
counted against it. A round of one batch a worker warms up, and whole rounds are timed. It runs in a process of its own,
which keeps PyTorch's own settings. If the batch does not fit the GPU in float32, it is halved until it does, and the table says so.

Each turn leaves its first steps out (compilation, kernel choice, cold caches). Data wait is the share of time that the
loop's process stood waiting for a batch; on a GPU the process runs ahead of the kernels, so this is at most what the GPU missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import twinray.pretraining.run as job
from lightly_recipe import LightlyProcess, Recipe
from turns import Rate, TurnOver, Window, let_go, packed_batches
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
from twinray.errors import InputError, TwinrayError
from twinray.pretraining.config import PretrainConfig
from twinray.runs.folder import RunFolder
from twinray.training.engine import Loop, train
from twinray.training.record import environment

OURS, READY, NETWORK = (
    "twinray, end to end",
    "the same, pixels on the device",
    "network alone, views ready",
)
LIGHTLY = {"float32": "lightly's recipe, float32", "bf16": "lightly's recipe under bf16 autocast"}


# The job's own loop ---------------------------------------------------------------------------------------------------


def loop_turn(loop: Loop, folder: RunFolder, batches: Iterable[Any], window: Window) -> Rate:
    """The real loop over ``batches`` from step 0 in a run folder of its own; it ends inside, before its checkpoint."""

    def step(batch: Any, index: int) -> Any:
        window.before_step(index)
        return loop.step(batch, index)

    endless = window.timed(batches)
    bounded = dataclasses.replace(
        loop,
        step=step,
        batches=lambda epoch, first: endless,
        steps_per_epoch=window.last + 1,
        epochs=1,
        at_epoch_end=None,
        fault=None,  # every turn restarts the schedule on the same weights: no figure of it means anything
        checkpoint_every=0,
    )
    with tempfile.TemporaryDirectory(dir=folder.path) as name:
        turn = RunFolder(Path(name))
        turn.checkpoints.mkdir()
        with contextlib.suppress(TurnOver):
            train(bounded, turn)
    endless.close()
    rate = window.rate(loop.images_per_step)
    loop.optimizer.zero_grad(set_to_none=True)
    let_go(window.device)
    return rate


def ready_batches(loop: Loop, device: torch.device) -> Iterator[Any]:
    """Two batches of random pixels, shaped as the job's, that lie on the device."""
    like = next(iter(loop.batches(0, 0)))
    return itertools.cycle(
        [torch.randint(0, 256, like.shape, dtype=like.dtype, device=device) for _ in range(2)]
    )


def network_turn(loop: Loop, size: int, window: Window) -> Rate:
    """Forward passes, loss, backward pass and optimiser, on two finished views."""
    step: Any = loop.step
    network = step.forward or step.model
    loop.model.train()
    shape = (loop.images_per_step, 3, size, size)
    views = [
        torch.randn(shape, device=window.device).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    with contextlib.suppress(TurnOver):
        for index in itertools.count():
            window.before_step(index)
            for group, rate in zip(loop.optimizer.param_groups, loop.rates(index), strict=True):
                group["lr"] = rate
            loop.optimizer.zero_grad(set_to_none=True)
            with step.machine.autocast():
                z1, z2 = (network(view)[1] for view in views)
            step.objective(z1, z2).loss.backward()
            loop.optimizer.step()
    rate = window.rate(loop.images_per_step, waits=False)
    loop.optimizer.zero_grad(set_to_none=True)
    let_go(window.device)
    return rate


def profiled(loop: Loop, folder: RunFolder, window: Window) -> tuple[str, str]:
    """The profiler's table of the end-to-end steps in the window, and one line about the largest costs."""
    cuda = window.device.type == "cuda"
    kinds = [
        torch.profiler.ProfilerActivity.CPU,
        *([torch.profiler.ProfilerActivity.CUDA] if cuda else []),
    ]
    profiler = torch.profiler.profile(activities=kinds)
    window.at_start, window.at_end = profiler.start, profiler.stop
    loop_turn(loop, folder, packed_batches(loop), window)
    averages = profiler.key_averages()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    table = averages.table(sort_by=key, row_limit=60, max_name_column_width=90)
    there = [e for e in averages if str(e.device_type).endswith("CUDA" if cuda else "CPU")]
    costs = sorted(((getattr(e, key), e.key) for e in there), reverse=True)
    total = sum(cost for cost, _ in costs)
    largest = "; ".join(f"{cost / total:.1%} {name[:60]}" for cost, name in costs[:5])
    busy = (
        f"; kernels and copies take {total / 1e6 / window.seconds:.1%} of the time" if cuda else ""
    )
    return table, f"largest costs: {largest}{busy}"


# The run --------------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """All turns at one size: a list of rates for each contestant, and what else is to be said."""

    size: int
    setting: str = ""
    rates: dict[str, list[Rate]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    profile: str = ""

    def ratios(self, name: str) -> list[float]:
        """End to end over ``name``, turn by turn."""
        both = zip(self.rates[OURS], self.rates[name], strict=False)
        return [ours.pairs_per_s / theirs.pairs_per_s for ours, theirs in both]


def measure(
    options: argparse.Namespace, size: int, pack: Path, scratch: Path, lightly: LightlyProcess
) -> Figures:
    """Let the job prepare everything up to training, then take turns in its place."""
    figures = Figures(size)
    config = PretrainConfig(
        data=(pack,),
        out=scratch / f"run-{size}",
        arch=options.arch,
        size=size,
        batch_size=options.batch_size,
        epochs=1000,  # the published length: published crops, and a learning rate still warming up
        projector=tuple(options.projector),
        device=options.device,
        precision=options.precision,
        compile="auto" if options.compile is None else "on" if options.compile else "off",
        knn_every=0,
    )

    def take_turns(loop: Loop, folder: RunFolder) -> None:
        all_turns(options, loop, folder, figures, lightly)
        raise TurnOver

    with mock.patch.object(job, "train", take_turns), contextlib.suppress(TurnOver):
        job.run(config)
    return figures


def all_turns(
    options: argparse.Namespace,
    loop: Loop,
    folder: RunFolder,
    figures: Figures,
    lightly: LightlyProcess,
) -> None:
    step: Any = loop.step
    device: torch.device = step.machine.device
    projector = tuple(m.out_features for m in step.model.projector if isinstance(m, nn.Linear))
    figures.setting = (
        f"{device}, {step.machine.precision}, {'torch.compile' if step.forward else 'not compiled'}"
    )
    ready = ready_batches(loop, device)

    def window() -> Window:
        return Window(device, options.warmup, options.warmup + options.steps)

    turns: dict[str, Callable[[], Rate | str]] = {
        OURS: lambda: loop_turn(loop, folder, packed_batches(loop), window()),
        READY: lambda: loop_turn(loop, folder, ready, window()),
        NETWORK: lambda: network_turn(loop, figures.size, window()),
    }
    recipe = Recipe(
        options.images, options.arch, figures.size, options.batch_size, projector, options.steps, options.workers,
        str(device), "float32", not options.lightly_without_blur,
    )  # fmt: skip
    if not lightly.missing and (len(projector) != 3 or projector[0] != projector[1]):
        figures.notes.append(
            f"no lightly: its head has three layers, the first two alike, not {projector}"
        )
    elif not lightly.missing:
        for precision in ("float32", "bf16") if options.lightly_bf16 else ("float32",):
            asked = dataclasses.replace(recipe, precision=precision)
            turns[LIGHTLY[precision]] = lambda asked=asked: lightly.turn(asked)
    figures.rates = {name: [] for name in turns}
    for repeat in range(options.repeats):
        for name in list(turns)[:: 1 if repeat % 2 == 0 else -1]:
            if name not in figures.rates:
                continue
            result = turns[name]()
            if isinstance(result, str):
                figures.notes.append(result)
                del figures.rates[name]
                continue
            figures.rates[name].append(result)
            print(
                f"{figures.size} px, turn {repeat + 1}: {name}: {result.pairs_per_s:.1f} pairs/s",
                file=sys.stderr,
            )
    if options.profile:
        figures.profile, largest = profiled(
            loop, folder, Window(device, options.warmup, options.warmup + 3)
        )
        figures.notes.append(largest)


def table(results: list[Figures], batch_size: int) -> str:
    lines = [
        f"{'side':>4}  {'pairs per second':38} {'median':>8} {'best':>8} {'end to end / this':>24} {'best':>6}  {'wanted':7}"
        f" {'data wait':>9} {'peak MiB':>9}"
    ]
    for figures in results:
        for name, rates in figures.rates.items():
            speeds = [rate.pairs_per_s for rate in rates]
            waits = [rate.data_wait for rate in rates if rate.data_wait is not None]
            peaks = [rate.peak_bytes for rate in rates if rate.peak_bytes is not None]
            shown = (
                name
                if rates[0].batch_size == batch_size
                else f"{name}, batch {rates[0].batch_size}"
            )
            ratio, best, wanted = "", "", ""
            if name != OURS:
                ratios = figures.ratios(name)
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                best = f"{max(r.pairs_per_s for r in figures.rates[OURS]) / max(speeds):.2f}"
                on_gpu = figures.setting.startswith("cuda")
                at_least = {
                    READY: 0.95 if on_gpu else 0.9,
                    LIGHTLY["float32"]: 2.0 if on_gpu else 1.8,
                }.get(name)
                wanted = f">= {at_least}" if at_least is not None else ""
            wait = f"{statistics.median(waits):.1%}" if waits else ""
            peak = f"{max(peaks) / 2**20:.0f}" if peaks else ""
            lines.append(
                f"{figures.size:4}  {shown:38} {statistics.median(speeds):8.1f} {max(speeds):8.1f} {ratio:>24} {best:>6}  "
                f"{wanted:7} {wait:>9} {peak:>9}"
            )
    return "\n".join(lines)


def as_json(results: list[Figures], options: argparse.Namespace) -> dict[str, Any]:
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }
    sizes = [{**dataclasses.asdict(figures), "profile": None} for figures in results]
    for figures, entry in zip(results, sizes, strict=True):
        entry["end_to_end_over"] = {
            name: figures.ratios(name) for name in figures.rates if name != OURS
        }
    return {"options": given, "environment": environment(), "sizes": sizes}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of class folders with image files (Kermany's chest X-rays)",
    )
    parser.add_argument(
        "--pack",
        type=Path,
        help="pack of these images; without it one is made in a temporary folder",
    )
    parser.add_argument(
        "--pack-size", type=int, default=224, help="side of the images in the pack that is made"
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128], help="sides of the views"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--projector", type=int, nargs="*", default=[], help="widths; default: the job's for --arch"
    )
    parser.add_argument(
        "--warmup", type=int, default=3, help="steps before the timed ones in each turn"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps in a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision", default="auto", choices=["auto", "float32", "bf16"], help="of twinray"
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="of twinray; default: the job's choice",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=cores,
        help="lightly's loader processes; default: a core each",
    )
    parser.add_argument("--skip-lightly", action="store_true")
    parser.add_argument(
        "--lightly-bf16", action="store_true", help="also lightly's recipe under bf16 autocast"
    )
    parser.add_argument(
        "--lightly-without-blur", action="store_true", help="as its example does for CIFAR"
    )
    parser.add_argument(
        "--profile", type=Path, help="write torch.profiler's table of three of our steps here"
    )
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    if options.images is None and (options.pack is None or not options.skip_lightly):
        parser.error("expected --images FOLDER; --pack alone is enough with --skip-lightly only")
    if min(options.steps, options.repeats, options.workers) < 1 or options.warmup < 0:
        parser.error(
            "expected --steps, --repeats and --workers of 1 or more and --warmup of 0 or more"
        )
    return options


def main() -> int:
    options = parse()
    lightly = LightlyProcess("left out") if options.skip_lightly else LightlyProcess.start()
    results: list[Figures] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            pack = options.pack or scratch / "pack"
            if options.pack is None:
                write_pack(
                    [read_folder(options.images)],
                    pack,
                    PackOptions(size=options.pack_size, val=0, test=0),
                )
            for size in options.sizes:
                results.append(measure(options, size, pack, scratch, lightly))  # noqa: PERF401 (kept if a later one fails)
    except (InputError, TwinrayError) as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        lightly.stop()
    if not results:
        return 2
    machine = environment()
    where = (
        machine["gpu"] if results[0].setting.startswith("cuda") else f"{machine['threads']} threads"
    )
    print(
        f"{options.arch}, batch {options.batch_size}, {options.steps} steps a turn, {options.repeats} turns; "
        f"{results[0].setting}, {where}, torch {torch.__version__}; lightly: "
        f"{lightly.missing or f'{options.workers} workers'}"
    )
    print(table(results, options.batch_size))
    for figures in results:
        for note in figures.notes:
            print(f"{figures.size} px: {note}")
    if options.profile:
        options.profile.write_text(
            "\n".join(f"side {f.size}, {f.setting}\n{f.profile}" for f in results)
        )
    if options.json:
        options.json.write_text(json.dumps(as_json(results, options), indent=1) + "\n")
    return 0 if len(results) == len(options.sizes) else 1


if __name__ == "__main__":
    sys.exit(main())

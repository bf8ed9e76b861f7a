"""How fast: pre-training at the published size, detection against torchvision's loop, the probe, lightly's recipe.

Sizes and turns are those of ``pretrain_throughput.py`` and ``detect_throughput.py``, whose contestants run here; the groups are cut so
that each fits into a minute or two of an H100. The images are phantoms.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch

import twinray.pretraining.run as job
from detect_throughput import Arm, make_arms
from gpu.pictures import phantom_files
from gpu.record import Outcome, Session, Skip
from gpu.scenes import phantom_pack, under_test
from gpu.waits import as_the_job_sets, detector_loop, steps_in_a_window
from lightly_recipe import LightlyProcess, Recipe
from pretrain_throughput import loop_turn, network_turn, ready_batches
from turns import Rate, TurnOver, Window, let_go, packed_batches, synchronise
from twinray.classification.config import ClassifyConfig
from twinray.classification.probe import fit_linear, fit_probe
from twinray.classification.run import run as run_classify
from twinray.data.pack import open_pack
from twinray.detection.on_pack import detect_rows
from twinray.pretraining.config import PretrainConfig
from twinray.runs.folder import RunFolder
from twinray.training.checkpoint import Keep, save_checkpoint
from twinray.training.device import Machine
from twinray.training.engine import Loop
from twinray.training.loader import PixelSource

T = TypeVar("T")

PUBLISHED_IMAGES = 86_524
"""NIH ChestX-ray14's train_val_list."""


# The machine, and what is to be read ----------------------------------------------------------------------------------


def machine(session: Session) -> None:
    """What the card and its link can do: the ceilings that the figures below stand under."""
    session.check("card", partial(_card, session))
    session.check("bf16 matrix product", partial(_matmul, session))
    session.check("device memory copied", partial(_copied, session))
    session.check("pinned memory to the device", partial(_to_device, session))
    session.check("a batch gathered from memory", partial(_gathered, session))


def _card(session: Session) -> Outcome:
    if not session.cuda:
        return Outcome(None, {"device": "cpu", "cores": os.cpu_count()})
    of = torch.cuda.get_device_properties(0)
    figures = {
        "GiB": of.total_memory / 2**30,
        "multiprocessors": of.multi_processor_count,
        "cores": os.cpu_count(),
    }
    return Outcome(
        None,
        figures,
        note=f"{of.name}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
    )


def _timed(session: Session, call: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call."""
    taken = []
    for _ in range(repeats + 2):
        synchronise(session.device)
        start = time.perf_counter()
        call()
        synchronise(session.device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def _matmul(session: Session) -> Outcome:
    n = 256 if session.toy else 8192
    a, b = (torch.randn(n, n, device=session.device, dtype=torch.bfloat16) for _ in range(2))
    return Outcome(None, {"TFLOP/s": 2 * n**3 / _timed(session, lambda: a @ b, 10) / 1e12})


def _copied(session: Session) -> Outcome:
    n = (1 << 20) if session.toy else (4 << 30)
    a = torch.empty(n, dtype=torch.uint8, device=session.device).random_()
    b = torch.empty_like(a)
    return Outcome(
        None, {"TB/s, read and written": 2 * n / _timed(session, lambda: b.copy_(a), 5) / 1e12}
    )


def _to_device(session: Session) -> Outcome:
    n = (1 << 20) if session.toy else (256 << 20)
    a = torch.empty(n, dtype=torch.uint8, pin_memory=session.cuda)
    there = torch.empty(n, dtype=torch.uint8, device=session.device)
    return Outcome(
        None, {"GB/s": n / _timed(session, lambda: there.copy_(a, non_blocking=True), 5) / 1e9}
    )


def _gathered(session: Session) -> Outcome:
    n, side, batch = (64, 32, 16) if session.toy else (8192, 256, 768)
    images = np.random.default_rng(0).integers(0, 256, (n, side, side), dtype=np.uint8)
    source = PixelSource([images], np.stack([np.zeros(n, np.int64), np.arange(n)], axis=1))
    order = np.random.default_rng(1).permutation(n)[:batch]
    seconds = _timed(session, lambda: source.gather(order), 5)
    pinned = (
        _timed(session, lambda: source.gather(order).pin_memory(), 5) if session.cuda else math.nan
    )
    return Outcome(
        None,
        {
            "GB/s": batch * side * side / seconds / 1e9,
            "ms": seconds * 1e3,
            "ms with pinning": pinned * 1e3,
        },
    )


def _pretraining_pack(session: Session) -> Path:
    toy = session.toy
    return phantom_pack(
        session.work / "pretraining-pack", 60 if toy else 8192, 48 if toy else 256
    ).path


def _detection_files(session: Session, side: int) -> Path:
    folder = session.work / f"files-{side}"
    done = folder / "annotations.json"
    return (
        done
        if done.exists()
        else phantom_files(folder, 24 if session.toy else 256, 64 if session.toy else side)
    )


def packs(session: Session) -> None:
    """The phantom packs and files that later groups read."""

    def pack() -> Outcome:
        start = time.time()
        n = len(open_pack(_pretraining_pack(session)))
        return Outcome(None, {"images": n, "images/s, drawn and packed": n / (time.time() - start)})

    session.check("pack for pre-training", pack)
    for side in (256, 640):
        session.check(
            f"files of {side} px", lambda side=side: Outcome(bool(_detection_files(session, side)))
        )


# Pre-training ---------------------------------------------------------------------------------------------------------


def pretrain_compiled(session: Session) -> None:
    """End to end, with the pixels on the device, and the network alone; then where the time goes."""
    session.check(
        "resnet50, 224 px, batch 768, compiled", partial(_pretraining, session, True), needs=50
    )


def pretrain_eager(session: Session) -> None:
    """The same without ``torch.compile``."""
    session.check(
        "resnet50, 224 px, batch 768, not compiled", partial(_pretraining, session, False), needs=25
    )


def _pretraining(session: Session, compiled: bool) -> Outcome:
    for accumulate in (1, 2, 4):
        outcome = None
        try:
            outcome = _turns(session, _published(session, compiled, accumulate), compiled)
        except torch.OutOfMemoryError as error:
            session.say(
                f"    out of memory with --accumulate {accumulate}: {' '.join(str(error).split())[:200]}"
            )
        if outcome is None:
            let_go(session.device)  # not before: the error held the frames, and these the tensors
            continue
        note = (
            outcome.note
            if accumulate == 1
            else f"out of memory at once: --accumulate {accumulate}; {outcome.note}"
        )
        return dataclasses.replace(outcome, note=note)
    raise RuntimeError("out of memory even in 4 pieces")


def _published(
    session: Session, compiled: bool, accumulate: int, pack: Path | None = None
) -> PretrainConfig:
    toy = session.toy
    return PretrainConfig(
        data=(pack or _pretraining_pack(session),),
        out=session.folder("run") / "run",
        splits=("train", "val", "test"),
        arch="resnet18" if toy else "resnet50",
        size=32 if toy else 224,
        batch_size=16 if toy else 768,
        accumulate=accumulate,
        epochs=600,  # the published length: published crops, and a learning rate still warming up
        projector=(32, 32) if toy else (),
        device="cuda" if session.cuda else "cpu",
        precision="bf16" if session.cuda else "float32",
        compile="on" if compiled and not toy else "off",
        knn_every=0,
    )


def _turns(session: Session, config: PretrainConfig, compiled: bool) -> Outcome:
    return _in_the_job(
        session,
        config,
        lambda loop, folder: _take_turns(session, loop, folder, config, compiled),
    )


def _in_the_job(
    session: Session, config: PretrainConfig, take: Callable[[Loop, RunFolder], T]
) -> T:
    """Let the job prepare everything up to training, then ``take`` turns in its place; what that gave."""
    found: list[T] = []

    def instead(loop: Loop, folder: RunFolder) -> None:
        found.append(take(loop, folder))
        raise TurnOver

    def repeated(*arguments: Any) -> PixelSource:
        source = real(*arguments)
        times = 1 if session.toy else PUBLISHED_IMAGES // len(source)
        return PixelSource(
            source.images, np.tile(source.rows, (times, 1))
        )  # epochs as long as the published ones

    real = job.open_source
    with (
        mock.patch.object(job, "train", instead),
        mock.patch.object(job, "open_source", repeated),
        contextlib.suppress(TurnOver),
    ):
        job.run(config)
    return found[0]


@dataclasses.dataclass(frozen=True)
class _Own:
    """Our own rate in some steps, and the seconds before them: what is loaded, chosen and compiled once."""

    rate: Rate
    before: float


def _own(session: Session, config: PretrainConfig) -> _Own:
    """The job's loop from its packed images."""

    def take(loop: Loop, folder: RunFolder) -> _Own:
        first, last = (1, 3) if session.toy else (4, 24)
        counted: list[float] = []
        start = time.perf_counter()
        window = Window(
            session.device, first, last, at_start=lambda: counted.append(time.perf_counter())
        )
        rate = loop_turn(loop, folder, packed_batches(loop), window)
        return _Own(rate, counted[0] - start)

    own = _in_the_job(session, config, take)
    let_go(session.device)
    return own


def _small_pack(session: Session) -> Path:
    toy = session.toy
    return phantom_pack(
        session.work / "small-pretraining-pack", 60 if toy else 1024, 48 if toy else 256
    ).path


def compile_cost(session: Session) -> None:
    """From how many steps on a pre-training wins back the seconds that ``torch.compile`` takes."""
    for arch, size, batch in (("resnet18", 64, 64), ("resnet50", 224, 256)):
        session.check(
            f"{arch}, {size} px, batch {batch}: steps that win back the compilation",
            partial(_won_back, session, arch, size, batch),
            needs=25,
        )


def _won_back(session: Session, arch: str, size: int, batch: int) -> Outcome:
    toy = session.toy
    config = dataclasses.replace(
        _published(session, False, 1, _small_pack(session)),
        arch="resnet18" if toy else arch,
        size=32 if toy else size,
        batch_size=16 if toy else batch,
    )
    found = {
        way: _own(
            session, dataclasses.replace(config, compile=way, out=session.folder("run") / "run")
        )
        for way in (("off",) if toy else ("off", "on"))
    }
    step = {way: own.rate.batch_size / own.rate.pairs_per_s for way, own in found.items()}
    figures: dict[str, Any] = {}
    for way, own in found.items():
        name = "compiled" if way == "on" else "not compiled"
        figures[f"ms a step, {name}"] = step[way] * 1e3
        figures[f"seconds before the fifth step, {name}"] = own.before
    if len(found) == 2:
        gain = step["off"] - step["on"]
        lost = found["on"].before - found["off"].before
        figures["steps"] = lost / gain if gain > 0 else math.inf
    return Outcome(None, figures)


def _take_turns(
    session: Session, loop: Loop, folder: RunFolder, config: PretrainConfig, compiled: bool
) -> Outcome:
    step: Any = loop.step
    first, last = (1, 3) if session.toy else (4, 20)

    def window() -> Window:
        return Window(session.device, first, last)

    ready = ready_batches(loop, session.device)
    turns: dict[str, Callable[[], Rate]] = {
        "end to end": lambda: loop_turn(loop, folder, packed_batches(loop), window()),
        "pixels on the device": lambda: loop_turn(loop, folder, ready, window()),
        "network alone": lambda: network_turn(loop, config.size, window()),
    }
    order = (
        [
            "end to end",
            "pixels on the device",
            "network alone",
            "pixels on the device",
            "end to end",
        ]
        if compiled
        else list(turns)[:2]
    )
    rates: dict[str, list[Rate]] = {}
    for name in order:
        if session.left < 20 and len(rates) >= 2:
            break
        if name == "network alone" and config.accumulate > 1:
            continue
        start = time.time()
        rate = turns[name]()
        rates.setdefault(name, []).append(rate)
        session.say(
            f"    {name}: {rate.pairs_per_s:.1f} pairs/s, data wait {rate.data_wait or 0:.1%} ({time.time() - start:.0f} s)"
        )
    figures: dict[str, Any] = {
        f"pairs/s, {name}": statistics.median(r.pairs_per_s for r in found)
        for name, found in rates.items()
    }
    ends, devices = rates["end to end"], rates["pixels on the device"]
    figures["end to end / pixels on the device"] = statistics.median(
        e.pairs_per_s for e in ends
    ) / statistics.median(d.pairs_per_s for d in devices)
    figures["data wait"] = statistics.median(e.data_wait or 0.0 for e in ends)
    figures["peak GiB"] = max((e.peak_bytes or 0) for e in ends) / 2**30
    figures["parameters, million"] = sum(p.numel() for p in loop.model.parameters()) / 1e6
    if compiled:
        session.check("seconds of one checkpoint", partial(_checkpoint, loop, folder), needs=5)
        session.check(
            "where a pre-training step's time goes",
            partial(_profile, session, loop, session.folder("profile"), "pretrain"),
            needs=10,
        )
    wanted = "1,200 pairs/s end to end, 0.95 of pixels on the device"
    good = (
        figures["pairs/s, end to end"] >= 1200
        and figures["end to end / pixels on the device"] >= 0.95
    )
    return Outcome(
        (good if compiled else None) if session.cuda and not session.toy else None,
        figures,
        wanted,
        "torch.compile" if step.forward else "not compiled",
    )


def _checkpoint(loop: Loop, folder: RunFolder) -> Outcome:
    path = folder.path / "one-checkpoint"
    path.mkdir()
    start = time.perf_counter()
    state = {
        "model": loop.model.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "progress": {},
    }
    save_checkpoint(path, 1, state, Keep(), 1)
    seconds = time.perf_counter() - start
    return Outcome(
        None, {"seconds": seconds, "MiB": sum(f.stat().st_size for f in path.iterdir()) / 2**20}
    )


def _profile(session: Session, loop: Loop, folder: Path, name: str) -> Outcome:
    """The most costly kernels of three steps, how busy the device was, launches and waits a step."""
    steps = 1 if session.toy else 3
    kinds = [
        torch.profiler.ProfilerActivity.CPU,
        *([torch.profiler.ProfilerActivity.CUDA] if session.cuda else []),
    ]
    profiler = torch.profiler.profile(activities=kinds)
    window = Window(session.device, 2, 2 + steps, at_start=profiler.start, at_end=profiler.stop)
    steps_in_a_window(loop, folder, window)
    averages = profiler.key_averages()
    key = "self_device_time_total" if session.cuda else "self_cpu_time_total"
    there = [
        e
        for e in averages
        if str(e.device_type).endswith("CUDA" if session.cuda else "CPU") and not _is_range(e)
    ]
    costs = sorted(((getattr(e, key), e.key) for e in there), reverse=True)
    total = sum(cost for cost, _ in costs) or 1.0
    (session.out / f"profile-{name}.txt").write_text(
        averages.table(sort_by=key, row_limit=60, max_name_column_width=100)
    )
    calls = {e.key: e.count for e in averages}
    launches = sum(n for key_, n in calls.items() if "LaunchKernel" in key_) / steps
    figures: dict[str, Any] = {
        "ms a step": window.seconds / steps * 1e3,
        "busy": total / 1e6 / window.seconds,
        "launches a step": launches,
    }
    for call in (
        "cudaStreamSynchronize",
        "cudaDeviceSynchronize",
        "cudaEventSynchronize",
        "cudaMemcpyAsync",
    ):
        figures[f"{call} a step"] = calls.get(call, 0) / steps
    figures["operators a step"] = (
        sum(n for key_, n in calls.items() if key_.startswith("aten::")) / steps
    )
    largest = "; ".join(f"{cost / total:.1%} {name_[:70]}" for cost, name_ in costs[:5])
    return Outcome(None, figures, note=f"largest: {largest}")


def _is_range(event: Any) -> bool:
    """Whether an event is a named span over kernels, such as an optimiser's step, which would count them twice."""
    return bool(getattr(event, "is_user_annotation", False)) or event.key.startswith(
        ("Optimizer.", "ProfilerStep", "Torch-Compiled", "## Call")
    )


# Detection ------------------------------------------------------------------------------------------------------------


def detect_224(session: Session) -> None:
    """At 224 pixels from files of 256."""
    _detection(session, 224, 256)


def detect_640(session: Session) -> None:
    """At 640 pixels."""
    _detection(session, 640, 640)


def _detection(session: Session, size: int, side: int) -> None:
    session.check(
        f"resnet50, {size} px, batch 16, against torchvision's loop",
        partial(_arms, session, size, side),
        needs=25,
    )
    session.check(f"boxes of a whole split, {size} px", partial(_inference, session, size), needs=8)
    session.check(
        f"where a detector step's time goes, {size} px",
        partial(_detector_profile, session, size),
        needs=30,
    )


def _arms(session: Session, size: int, side: int) -> Outcome:
    toy = session.toy
    batch = 4 if toy else 16
    asked = argparse.Namespace(
        annotations=_detection_files(session, side), images=None, arch="resnet18" if toy else "resnet50", size=64 if toy else size,
        batch_size=batch, rois=32 if toy else 512, pack_size=64 if toy else side, rounds=1, steps=3, threads=max((os.cpu_count() or 2) - 2, 1),
        workers=1 if toy else 14, device="cuda" if session.cuda else "cpu", precision="bf16" if session.cuda else "auto", json=None,
    )  # fmt: skip
    as_the_job_sets(under_test(session))
    arms, chosen = make_arms(asked, session.folder("arms"))
    theirs = arms[-1]
    arms = [
        *arms,
        dataclasses.replace(
            theirs,
            name="torchvision, reference-style, bf16 autocast",
            step=_under_autocast(theirs, chosen),
        ),
    ]
    rounds, steps = (1, 1) if toy else (2, 10)
    for number in range(rounds + 1):
        for arm in arms:
            arm.round(
                steps if number else 2 if toy else 4, batch, chosen.device, counted=number > 0
            )
            session.say(
                f"    round {number}: {arm.name}: {arm.images / arm.seconds if arm.seconds else math.nan:.1f} images/s"
            )
    for arm in arms[:-1]:  # the last shares its loader with the one before
        arm.batches.close()  # type: ignore[attr-defined]
    figures: dict[str, Any] = {f"images/s, {arm.name}": arm.rate for arm in arms}
    figures |= {f"data wait, {arm.name}": arm.waited / arm.seconds for arm in arms}
    figures |= {f"seconds of the first steps, {arm.name}": arm.warming for arm in arms}
    figures["ours / torchvision's loop"] = arms[0].rate / theirs.rate
    figures["ours / the same under bf16"] = arms[0].rate / arms[-1].rate
    good = (
        figures["ours / torchvision's loop"] >= 3
        if size == 224 and session.cuda and not toy
        else None
    )
    return Outcome(good, figures, "3 x torchvision's loop at 224 px" if size == 224 else "")


def _under_autocast(arm: Arm, chosen: Machine) -> Callable[[Any, int], None]:
    def step(batch: Any, number: int) -> None:
        with torch.autocast(chosen.device.type, dtype=torch.bfloat16):
            arm.step(batch, number)

    return step


def _detector_pack(session: Session, size: int) -> Path:
    side = 64 if session.toy else max(256, size)
    return phantom_pack(
        session.work / f"detector-pack-{size}", 24 if session.toy else 384, side
    ).path


def _inference(session: Session, size: int) -> Outcome:
    path = _detector_pack(session, size)
    side = 64 if session.toy else size
    figures: dict[str, Any] = {}
    for bf16 in (True, False):
        loop = detector_loop(session, path, side, 4 if session.toy else 16, bf16)
        pack = open_pack(path)
        rows = np.arange(len(pack))
        detector: Any = loop.model
        chosen = under_test(session, bf16=bf16)
        batch = 8 if session.toy else 32
        detect_rows(detector, pack, rows[:batch], machine=chosen, batch_size=batch)
        start = time.perf_counter()
        detect_rows(detector, pack, rows, machine=chosen, batch_size=batch)
        synchronise(session.device)
        figures[f"images/s, {'bf16' if bf16 else 'float32'}"] = len(rows) / (
            time.perf_counter() - start
        )
    return Outcome(None, figures)


def _detector_profile(session: Session, size: int) -> Outcome:
    loop = detector_loop(
        session,
        _detector_pack(session, size),
        64 if session.toy else size,
        4 if session.toy else 16,
        session.cuda,
        compile="on" if session.cuda else "off",
    )
    return _profile(session, loop, session.folder("profile"), f"detect-{size}")


# Classifiers, the probe, and lightly -----------------------------------------------------------------------------------------------


def classify(session: Session) -> None:
    """Every layer of ResNet-50 at 224 pixels, batch 64, as the job trains it."""
    session.check(
        "classify --policy full, resnet50, 224 px, batch 64", partial(_classify, session), needs=15
    )


def _classify(session: Session) -> Outcome:
    toy = session.toy
    config = ClassifyConfig(
        data=_pretraining_pack(session), out=session.folder("run") / "run", arch="resnet18" if toy else "resnet50", policy="full", protocol="as-published",
        size=32 if toy else 224, batch_size=8 if toy else 64, epochs=2, log_every=5, bootstrap=0, device="cuda" if session.cuda else "cpu",
    )  # fmt: skip
    lines = [line for line in run_classify(config).history() if "seconds" in line]
    first = next(
        line for line in lines if line["step"] >= lines[-1]["step"] // 2
    )  # the second epoch: kernels are chosen by then
    images = (lines[-1]["step"] - first["step"]) * (config.batch_size or 0)
    return Outcome(
        None,
        {
            "images/s": images / max(lines[-1]["seconds"] - first["seconds"], 1e-9),
            "steps": lines[-1]["step"],
        },
    )


def probe(session: Session) -> None:
    """The linear probe at 20,000 x 2,048 with 14 labels."""
    session.check("probe, one penalty", partial(_probe, session, False), needs=10)
    session.check("probe, its penalty chosen", partial(_probe, session, True), needs=40)


def _probe(session: Session, whole: bool) -> Outcome:
    n, d, k = (120, 16, 3) if session.toy else (20_000, 2048, 14)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)).astype(np.float32)
    truth = rng.normal(size=(d, k)) / math.sqrt(d)
    labels = (features @ truth + rng.normal(size=(n, k)) > 1.0).astype(np.float64)
    groups = rng.integers(0, n // 2, n)
    function: Callable[..., Any] = fit_probe if whole else fit_linear
    more: dict[str, Any] = {"device": session.device}
    start = time.perf_counter()
    fitted = (
        function(features, labels, groups, "multilabel", **more)
        if whole
        else function(features, labels, "multilabel", 0.01, **more)
    )
    seconds = time.perf_counter() - start
    where = str(session.device)
    return Outcome(
        None,
        {"seconds": seconds, "penalties": fitted.penalties, "threads": torch.get_num_threads()},
        note=f"on the {where}",
    )


def lightly(session: Session) -> None:
    """The Barlow Twins recipe of lightly's documentation over the same kind of files (``pretrain_throughput.py`` says what it is)."""
    session.check("lightly's recipe, float32, batch 256", partial(_lightly, session), needs=35)


def _lightly(session: Session) -> Outcome:
    process = LightlyProcess.start()
    try:
        if process.missing:
            raise Skip(process.missing)
        toy = session.toy
        workers = 1 if toy else max((os.cpu_count() or 2) - 2, 1)
        images = _detection_files(session, 256).parent
        recipe = Recipe(
            images, "resnet18" if toy else "resnet50", 32 if toy else 224, 8 if toy else 256, (32, 32, 32) if toy else (8192, 8192, 8192), workers, workers,
            "cuda" if session.cuda else "cpu", "float32", True,
        )  # fmt: skip
        result = process.turn(recipe)
    finally:
        process.stop()
    if isinstance(result, str):
        raise RuntimeError(result)
    figures: dict[str, Any] = {
        "pairs/s, lightly's recipe": result.pairs_per_s,
        "batch": result.batch_size,
        "its data wait": result.data_wait,
        "its workers": workers,
    }
    config = dataclasses.replace(
        _published(session, False, 1, _small_pack(session)), batch_size=result.batch_size
    )
    for precision in ("float32", "bf16"):
        own = _own(
            session,
            dataclasses.replace(config, precision=precision, out=session.folder("run") / "run"),
        )
        figures[f"pairs/s, twinray, {precision}, not compiled"] = own.rate.pairs_per_s
        figures[f"its data wait, {precision}"] = own.rate.data_wait
    figures["twinray / lightly's recipe, both float32"] = (
        figures["pairs/s, twinray, float32, not compiled"] / result.pairs_per_s
    )
    return Outcome(None, figures, note="files of 256 px for lightly, a pack of 256 px for twinray")

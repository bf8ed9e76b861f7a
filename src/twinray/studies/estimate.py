"""``twinray study --estimate``: a few steps of each kind of piece on this machine, and what the whole study would take.

Work is counted in images: those that are learnt from (once an epoch), and those that are only looked at. A kind of piece is timed on
generated images of the pack's size, with the verb's own code, at several numbers of images. Lines through these times give what a
piece costs before the first image, for each image learnt from, for each image looked at, and for each epoch beside its images (its
checkpoint, the figures of its validation).

- A network's step has a cost of its own (its optimiser, the reading of its weights), so the last runs take the study's batch where
  time allows.
- An image that is only looked at counts a third of one that is learnt from (Kaplan et al. 2020 count the backward pass twice the
  forward one). The number of images looked at stays the same over the timed runs: an untrained detector draws a hundred boxes on each.
- A probe learns nothing on images. Features are a piece of their own, timed as such; of a probe both costs are measured, that of each
  image that its layer is fitted on and that of each image that it is only measured on.
- Workers share memory and caches. While one piece is timed, as many processes as there are other workers compute beside it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinray.backbones.weights import settled_arch, settled_size
from twinray.data.pack import read_info
from twinray.data.packing.worker import PackOne
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.errors import TwinrayError
from twinray.files import folders_freed
from twinray.report.numbers import duration
from twinray.studies.plan.nodes import Node, Plan, config_of
from twinray.studies.runner.local import cores, environment
from twinray.studies.runner.place import PLAN, Place
from twinray.verbs import VERBS, load
from twinray.words import counted

LIMIT_S = 30.0
"""Larger runs of a kind are timed only where they and those so far are expected to stay within this, in seconds."""
IMAGES = 16
"""Training images of the smallest timed run on a processor; on a GPU at least two batches."""
_HELD = 4
"""Validation images, and as many test images, of the stand-in that a network is trained on."""
_MOST = 256
"""Training images of the larger timed run of a probe."""
MODEL_ERROR = 0.3
"""Share of a prediction that the way of counting work may be wrong by; stated, not measured."""
SINGLE_ERROR = 0.6
"""The same where one timed run was all that fitted into the limit."""
_EPOCHS = 3
"""Epochs of the timed run that shows what an epoch costs beside its images."""
_DECODED = 8
_TRAININGS = ("pretrain", "features", "detect", "classify")
_EVAL = 1 / 3
_LENGTH = ("epochs", "warmup_epochs", "warmup_steps", "knn_every", "keep_every", "least_steps")
"""Options of a run's length, which the timed runs set themselves."""


@dataclass(frozen=True)
class Cost:
    """What a piece takes.

    Attributes:
        seconds: time of one worker.
        error: half of the interval of ``seconds``.
        bytes: disk. gpu_bytes: memory of the GPU that torch takes for it, grown in proportion where the timed batch was smaller: an
            upper bound, as weights do not grow. 0 without a GPU.
    """

    seconds: float = 0.0
    error: float = 0.0
    bytes: int = 0
    gpu_bytes: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a study would take.

    Attributes:
        left: pieces that are not done, each with its cost; None where its kind could not be timed.
        done: number of finished pieces, which cost nothing.
        why: reason by kind that could not be timed.
        workers: workers that the time is for.
        seconds, error: time of the whole and half of its interval, over the pieces whose cost is known.
    """

    left: tuple[tuple[Node, Cost | None], ...]
    done: int
    why: Mapping[str, str]
    workers: int
    seconds: float
    error: float


@dataclass(frozen=True)
class _Images:
    train: float
    val: float
    test: float


@dataclass(frozen=True)
class _Work:
    """Images that a run learns from, over all epochs, images that it only looks at, and its epochs."""

    learnt: float
    seen: float
    epochs: float = 1.0


@dataclass(frozen=True)
class _Rate:
    """Seconds = fixed (the first epoch's own with it) + each further epoch + each image learnt from + each image looked at.

    ``share`` is what this may be wrong by.
    """

    fixed: float
    learnt: float
    seen: float
    share: float
    bytes: int
    gpu_bytes: int = 0
    epoch: float = 0.0

    def cost(self, work: _Work) -> Cost:
        further = self.epoch * max(0.0, work.epochs - 1)
        seconds = self.fixed + further + self.learnt * work.learnt + self.seen * work.seen
        return Cost(seconds, self.share * seconds, self.bytes, self.gpu_bytes)


@dataclass(frozen=True)
class _Run:
    """One timed run: its seconds, its work, its bytes on disk, and the images of its batch (0 for a probe)."""

    seconds: float
    work: _Work
    bytes: int
    batch: int


def estimate(plan: Plan, out: Path | None, workers: int, threads: int) -> Estimate:
    """Time a few steps of each kind of piece, and predict the study.

    Finished pieces of ``out`` cost nothing, and a kind of which some are finished is predicted from their real times.

    Args:
        plan: the plan; what it reads is there.
        out: folder of the study, if it was begun.
        workers: workers at once.
        threads: threads of each.

    Raises:
        TwinrayError: the disk refuses.
    """
    import torch  # seconds to import

    before = torch.get_num_threads()
    work = Path(tempfile.mkdtemp(prefix="twinray-estimate-"))
    torch.set_num_threads(threads)
    try:
        with _beside(workers, threads):
            return _Estimator(plan, out, work, threads).all(workers)
    finally:
        torch.set_num_threads(before)
        shutil.rmtree(work, ignore_errors=True)


class _Estimator:
    def __init__(self, plan: Plan, out: Path | None, work: Path, threads: int) -> None:
        self.plan, self.out, self.work, self.threads = plan, out, work, threads
        self.by_id = plan.by_id()
        self.done: dict[str, float] = {}
        self.in_one_go: set[str] = (
            set()
        )  # the seconds of others are those of their last claim alone
        if out is not None and (out / PLAN).is_file():
            claims = Place(out).claims
            for one in plan:
                if (found := claims.done(one.id)) is not None:
                    self.done[one.id] = found.seconds
                    self.in_one_go |= {one.id} if found.claim == 0 else set()
        self.images: dict[str, _Images] = {}
        self.channels: dict[str, int] = {}
        self.rates: dict[str, _Rate | None] = {}
        self.why: dict[str, str] = {}

    def all(self, workers: int) -> Estimate:
        left: list[tuple[Node, Cost | None]] = []
        for one in self.plan:
            cost: Cost | None = Cost()
            try:
                if one.kind == "pack":
                    cost = self._pack(one)
                elif one.kind != "choose" and one.id not in self.done:
                    cost = self._training(one)
            except TwinrayError as error:
                cost = None
                self.why.setdefault(one.name, str(error))
            if one.id not in self.done:
                left.append((one, cost))
        seconds = _makespan(self.plan, left, workers)
        total = sum(cost.seconds for _, cost in left if cost)
        kinds = {one.kind for one, _ in left}
        # pieces of a kind share the fault of its rate, and kinds have faults of their own
        square = sum(sum(c.error for one, c in left if c and one.kind == k) ** 2 for k in kinds)  # fmt: skip
        off = seconds * square**0.5 / total if total else 0.0
        return Estimate(tuple(left), len(self.done), self.why, workers, seconds, off)

    # --- packs ---

    def _pack(self, one: Node) -> Cost | None:
        if one.id in self.done and self.out is not None:
            self._know(one.id, one.folder(self.out))
            return Cost()
        same = repr((sorted(one.reads, key=repr), {**one.options, "fold": None}))
        config = config_of(one, self.work)
        began = time.monotonic()
        options = SourceOptions(**{f.name: getattr(config, f.name) for f in fields(SourceOptions)})
        with _quiet():
            collections = read_sources(
                config.format, config.source, options,
                shared_patients=config.shared_patients, data_sets=config.data_set,
            )  # fmt: skip
        listed = time.monotonic() - began
        n = sum(len(collection.samples) for collection in collections)
        self.images[one.id] = _shares(n, config)
        if same not in self.rates:
            self.rates[same] = self._decoded(collections, config)
        rate = self.rates[same]
        self.channels[one.id] = 3 if config.channels == "rgb" else 1
        if rate is None:
            self.why.setdefault(one.name, "none of its images could be decoded")
            return None
        self.channels[one.id] = max(1, rate.bytes // config.size**2)
        # decoding is spread over processes, and workers share the cores
        seconds = listed + rate.learnt * n / self.threads
        return Cost(seconds, rate.share * seconds, rate.bytes * n)

    def _decoded(self, collections: Any, config: Any) -> _Rate | None:
        """Seconds and bytes of one packed image, from a few spread over every source."""
        one = PackOne(tuple(c.load for c in collections), config.size, config.fit, config.channels)
        seconds, size = [], 0
        for i, collection in enumerate(collections):
            samples = collection.samples
            for sample in samples[:: max(1, len(samples) // _DECODED)][:_DECODED]:
                began = time.monotonic()
                try:
                    made = one((i, sample))
                except TwinrayError:
                    continue  # pack sets such a file aside
                seconds.append(time.monotonic() - began)
                if made is not None:
                    size = made[1].nbytes
        if not seconds:
            return None
        mean = sum(seconds) / len(seconds)
        spread = sum((s - mean) ** 2 for s in seconds) ** 0.5 / len(seconds)
        share = (MODEL_ERROR**2 + (1.96 * spread / mean) ** 2) ** 0.5
        return _Rate(0.0, mean, 0.0, share, size or config.size**2)

    def _know(self, key: str, folder: Path) -> None:
        info = read_info(folder)
        got = info.counts
        self.images[key] = _Images(got.get("train", 0), got.get("val", 0), got.get("test", 0))
        self.channels[key] = info.channels

    # --- trainings ---

    def _training(self, one: Node) -> Cost | None:
        config, data = self._resolved(one)
        config = _compiling(one.kind, config, self._of(data))
        key = self._key(one, config, data)
        if key not in self.rates:
            self.rates[key] = self._from_done(key) or self._timed(one, config, data)
        rate = self.rates[key]
        return None if rate is None else rate.cost(_work(one.kind, config, self._of(data)))

    def _resolved(self, one: Node) -> tuple[Any, list[str]]:
        """Options as the verb completes them, with random weights of the same architecture; and its packs."""
        from twinray.classification.options import resolve as classify
        from twinray.detection.options import resolve as detect
        from twinray.pretraining.options import resolve as pretrain

        data = [read.node or read.path for read in one.reads if read.option == "data"]
        for pack in data:
            if pack not in self.images:
                self._know(pack, Path(pack))
        init = next((read for read in one.reads if read.option == "init"), None)
        given = {k: v for k, v in {**one.options, **one.free}.items() if k != "allow_seen"}
        if init is not None and init.node:
            source, _ = self._resolved(self.by_id[init.node])
            given["arch"] = given.get("arch") or source.arch
            if one.verb == "classify":
                given["size"] = given.get("size") or source.size
        elif init is not None and init.path != "random":
            given["arch"] = settled_arch(given.get("arch", ""), init.path)
            if one.verb == "classify":
                given["size"] = settled_size(given.get("size", 0), init.path)
        config = load(VERBS[one.verb].config)
        places: dict[str, Any] = {"data": (Path("pack"),) if one.kind == "pretrain" else Path("pack")}  # fmt: skip
        made = config(**{**given, **places, "out": Path("run"), "init": "random"})
        complete: dict[str, Any] = {"classify": classify, "detect": detect, "pretrain": pretrain}
        return complete[one.verb](made), data

    def _key(self, one: Node, config: Any, data: list[str]) -> str:
        own = replace(config, fraction=1.0) if one.kind != "pretrain" else config
        told = {f.name: getattr(own, f.name) for f in fields(own)}
        for name in ("seed", "seeds", "fraction_seed", *_LENGTH):
            told.pop(name, None)
        return repr((one.kind, sorted(told.items()), [self.channels[pack] for pack in data]))

    def _of(self, data: list[str]) -> _Images:
        own = [self.images[pack] for pack in data]
        return _Images(sum(i.train for i in own), sum(i.val for i in own), sum(i.test for i in own))

    def _from_done(self, key: str) -> _Rate | None:
        """The rate of finished pieces of a kind; None where there is none."""
        pairs, sizes, probe = [], [], False
        for one in self.plan:
            if self.out is not None and one.id in self.in_one_go and one.kind in _TRAININGS:
                config, data = self._resolved(one)
                config = _compiling(one.kind, config, self._of(data))
                if self._key(one, config, data) == key:
                    probe = _is_probe(config)
                    pairs.append((self.done[one.id], _work(one.kind, config, self._of(data))))
                    sizes.append(_size(one.folder(self.out)))
        if not pairs:
            return None
        seen = 1.0 if probe else _EVAL
        amounts = [w.learnt + seen * w.seen for _, w in pairs]
        each = sum(s for s, _ in pairs) / sum(amounts)
        spread = max(abs(s / (each * w) - 1) for (s, _), w in zip(pairs, amounts, strict=True)) if len(pairs) > 1 else 0.0  # fmt: skip
        return _Rate(0.0, each, seen * each, (MODEL_ERROR**2 + spread**2) ** 0.5, max(sizes))

    def _timed(self, one: Node, config: Any, data: list[str]) -> _Rate | None:
        import torch

        from twinray.training.device import choose_machine

        gpu = choose_machine(config.device).device.type == "cuda"

        def once(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
            return self._once(one, config, data, (train, held, batch, epochs))

        if gpu:  # the peak of this kind alone, not of those timed before it
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        grown = 1.0
        try:
            if one.kind == "features":
                rate = _of_features(once)
            elif _is_probe(config):
                rate = _of_probe(once, gpu)
            else:
                rate, batch = _of_network(once, config.batch_size, gpu)
                grown = max(1.0, config.batch_size / batch)
        except TwinrayError as error:
            self.why.setdefault(one.name, str(error))
            return None
        except (RuntimeError, MemoryError) as error:
            # torch says it in two ways: a class of its own on a GPU, a RuntimeError on the CPU
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            self.why.setdefault(one.name, "out of memory; a smaller batch_size or size needs less")
            return None
        return replace(
            rate, gpu_bytes=round(torch.cuda.max_memory_reserved() * grown) if gpu else 0
        )

    def _once(
        self, one: Node, config: Any, data: list[str], how: tuple[int, int, int, int]
    ) -> _Run:
        """One short run on generated images: so many to train, to hold out of it (twice), and in a batch; and epochs."""
        from twinray.classification.features.kept import write_features
        from twinray.jobs import train

        n, held, batch, epochs = how
        unlabelled = one.kind == "pretrain"
        folder = self._stand_in(unlabelled, n, 0 if unlabelled else held, (self.channels[data[0]], max(16, config.size)))  # fmt: skip
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        short: dict[str, Any] = {"out": out, "resume": False, "device": config.device}
        short["data"] = (folder,) if unlabelled else folder
        known = {f.name for f in fields(config)}
        probe = _is_probe(config)
        if not probe:
            short |= {"epochs": epochs, "batch_size": batch}
            short |= {k: 1 for k in ("least_steps",) if k in known}
            short |= {k: 0 for k in ("warmup_steps", "warmup_epochs", "knn_every", "keep_every") if k in known}  # fmt: skip
        short |= {k: 1.0 for k in ("fraction",) if k in known}
        short |= {k: () for k in ("leave_out",) if k in known}
        short |= {k: ("train",) for k in ("splits",) if k in known}  # all that the stand-in has
        own = replace(config, **short)
        if any(read.option == "kept_features" for read in one.reads):
            own = replace(own, kept_features=self._kept(own, folder))
        verb: Callable[[Any], Any] = write_features if one.kind == "features" else getattr(train, one.kind)  # fmt: skip
        began = time.monotonic()
        with _quiet(), folders_freed():
            verb(own)
        seconds = time.monotonic() - began
        info = read_info(folder).counts
        images = _Images(info.get("train", 0), info.get("val", 0), info.get("test", 0))
        return _Run(seconds, _work(one.kind, own, images), _size(out), 0 if probe else batch)

    def _kept(self, config: Any, folder: Path) -> Path:
        """The features of a stand-in, which no timed probe has to compute."""
        from twinray.classification.features.kept import write_features

        digest = hashlib.sha256(repr(replace(config, out=Path("run"))).encode()).hexdigest()[:16]
        out = self.work / f"features-{folder.name}-{digest}"
        with _quiet(), folders_freed():
            return write_features(replace(config, out=out))

    def _stand_in(self, unlabelled: bool, train: int, held: int, pixels: tuple[int, int]) -> Path:
        """A pack of generated images: so many to train on, ``held`` to choose an epoch by and as many to test on.

        ``pixels`` are channels and side.
        """
        from twinray.jobs.pack import PackConfig
        from twinray.jobs.pack import run as pack

        channels, size = pixels
        folder = self.work / f"pack-{unlabelled}-{train}-{held}-{channels}-{size}"
        if not folder.is_dir():
            n = train + 2 * held
            made = PackConfig(
                out=folder, format=("phantom",), size=size, channels="rgb" if channels == 3 else "grey",
                phantom_images=n, phantom_images_per_patient=1, val=held / n, test=held / n, workers=1,
            )  # fmt: skip
            with _quiet(), folders_freed():
                pack(made, Console(file=io.StringIO()))
        return folder


class Once(Protocol):
    """One timed run."""

    def __call__(self, train: int, held: int, batch: int, epochs: int = 1, /) -> _Run:
        """Of so many training images, images held out, images in a batch, and epochs."""


def _of_network(once: Once, batch: int, gpu: bool) -> tuple[_Rate, int]:
    """Cost of a training, and the batch that it was timed at: the study's own where time allows.

    Raises:
        TwinrayError: the verb's.
    """
    own = min(batch, 256 if gpu else IMAGES // 2)
    low = max(IMAGES, 2 * own)
    if gpu:
        # kernels are chosen and the network compiled, which a later run of this machine finds done
        once(low, _HELD, own)
    cold = once(low, _HELD, own)  # also what is loaded once a process
    if 5 * cold.seconds > LIMIT_S:
        amount = cold.work.learnt + _EVAL * cold.work.seen
        each = cold.seconds / amount
        return _Rate(0.0, each, _EVAL * each, SINGLE_ERROR, cold.bytes), cold.batch
    largest = 2 * low, own
    runs = [once(low, _HELD, own), once(2 * low, _HELD, own)]
    for larger in (batch, batch // 4, batch // 16):
        rate = _line(runs[0], runs[1], 0.0)
        spent = cold.seconds + sum(run.seconds for run in runs)
        expected = 2 * rate.fixed + rate.learnt * 3 * larger
        if larger > own and spent + expected <= LIMIT_S:
            largest = 2 * larger, larger
            runs = [once(larger, _HELD, larger), once(2 * larger, _HELD, larger)]
            break
    # what else the machine does makes a run longer and never shorter, so of two runs the shorter counts
    low_again, high_again = (
        once(largest[0] // 2, _HELD, largest[1]),
        once(largest[0], _HELD, largest[1]),
    )
    least = [_shorter(*pair) for pair in ((runs[0], low_again), (runs[1], high_again))]
    spread = abs(runs[1].seconds - high_again.seconds) / least[1].seconds
    rate = _line(least[0], least[1], spread)
    longer = once(largest[0] // 2, _HELD, largest[1], _EPOCHS)
    beside = longer.seconds - rate.cost(replace(longer.work, epochs=1.0)).seconds
    return replace(rate, epoch=max(0.0, beside / (_EPOCHS - 1))), runs[1].batch


def _shorter(run: _Run, again: _Run) -> _Run:
    return min(run, again, key=lambda one: one.seconds)


def _line(low: _Run, high: _Run, spread: float) -> _Rate:
    """The line through two runs that look at equally many images."""
    each = max(high.seconds - low.seconds, 0.05 * high.seconds) / (high.work.learnt - low.work.learnt)  # fmt: skip
    fixed = max(0.0, low.seconds - each * (low.work.learnt + _EVAL * low.work.seen))
    return _Rate(fixed, each, _EVAL * each, (MODEL_ERROR**2 + spread**2) ** 0.5, high.bytes)


def _of_probe(once: Once, gpu: bool) -> _Rate:
    """Cost of a probe: of each image that its layer is fitted on, and of each that is only measured.

    Raises:
        TwinrayError: the verb's.
    """
    held = IMAGES // 2
    cold = once(IMAGES, held, 0)
    if 5 * cold.seconds > LIMIT_S:
        each = cold.seconds / (cold.work.learnt + cold.work.seen)
        return _Rate(0.0, each, each, SINGLE_ERROR, cold.bytes)
    first = once(IMAGES, held, 0)
    each = first.seconds / (first.work.learnt + first.work.seen)  # an upper bound
    train = next(n for n in (_MOST, _MOST // 4, IMAGES) if n == IMAGES or 3.5 * each * 2 * n <= (4 if gpu else 2) * LIMIT_S)  # fmt: skip
    held = train // 2
    sizes = ((train, held), (2 * train, held), (train, 2 * held))
    first_runs = [once(*size, 0) for size in sizes]
    again = [once(*size, 0) for size in sizes]
    # a study's pack is many times as large, and so would be what other work on the machine adds to one of these
    runs = [_shorter(*pair) for pair in zip(first_runs, again, strict=True)]
    base = runs[0].seconds
    spread = abs(first_runs[0].seconds - again[0].seconds) / base

    def slope(run: _Run, more: float) -> float:
        return max(run.seconds - base, 0.0) / more

    learnt = slope(runs[1], runs[1].work.learnt - runs[0].work.learnt)
    seen = slope(runs[2], runs[2].work.seen - runs[0].work.seen)
    fixed = max(0.0, base - learnt * runs[0].work.learnt - seen * runs[0].work.seen)
    return _Rate(fixed, learnt, seen, (MODEL_ERROR**2 + spread**2) ** 0.5, runs[1].bytes)


def _of_features(once: Once) -> _Rate:
    """Cost of a pass over all images.

    Raises:
        TwinrayError: the verb's.
    """
    cold = once(IMAGES, IMAGES // 2, 0)
    if 5 * cold.seconds > LIMIT_S:
        each = cold.seconds / cold.work.seen
        return _Rate(0.0, each, each, SINGLE_ERROR, cold.bytes)
    first = once(IMAGES, IMAGES // 2, 0)
    each = first.seconds / first.work.seen  # an upper bound
    n = next(n for n in (_MOST, _MOST // 4, IMAGES) if n == IMAGES or 8 * each * n <= 2 * LIMIT_S)
    timed = [(once(n, n // 2, 0), once(2 * n, n, 0)) for _ in range(2)]
    low, high = (_shorter(*pair) for pair in zip(*timed, strict=True))
    spread = abs(timed[0][1].seconds - timed[1][1].seconds) / high.seconds
    each = max(high.seconds - low.seconds, 0.05 * high.seconds) / (high.work.seen - low.work.seen)
    fixed = max(0.0, low.seconds - each * low.work.seen)
    return _Rate(fixed, each, each, (MODEL_ERROR**2 + spread**2) ** 0.5, high.bytes)


def _is_probe(config: Any) -> bool:
    return getattr(config, "policy", "") == "probe"


@contextmanager
def _beside(workers: int, threads: int) -> Iterator[None]:
    """Processes that compute as other workers would, as many as this machine has cores for; they end with the block."""
    others = min(workers, cores() // max(1, threads)) - 1
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _NEIGHBOUR, str(os.getpid())],
            env=environment(threads),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(others)
    ]  # fmt: skip
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


_NEIGHBOUR = """
import os, sys, torch
parent = int(sys.argv[1])
layers = [torch.nn.Conv2d(32, 32, 3, padding=1, groups=g) for g in (1, 32)]
images = torch.rand(16, 32, 64, 64)
while os.getppid() == parent:
    for layer in layers:
        layer(images).square().mean().backward()
"""
"""A training in small: convolutions forth and back, dense and by channel, until the parent is gone."""


def _compiling(kind: str, config: Any, images: _Images) -> Any:
    """The options with ``--compile`` as the whole piece has it, which the short timed runs then have too."""
    from twinray.training.device import Amount, choose_machine, to_compile

    if not hasattr(config, "compile"):
        return config
    steps = int(_work(kind, config, images).learnt / config.batch_size)
    amount = Amount(steps, config.batch_size * config.size**2)
    wanted = to_compile(config.compile, choose_machine(config.device).device, amount)
    return replace(config, compile="on" if wanted else "off")


def _shares(n: int, config: Any) -> _Images:
    test = 1 / config.folds if config.folds else config.test
    return _Images(n * max(0.0, 1 - config.val - test), n * config.val, n * test)


def _work(kind: str, config: Any, images: _Images) -> _Work:
    if kind == "pretrain":
        own = sum(getattr(images, split) for split in config.splits)
        return _Work(float(config.epochs * own), 0.0, float(config.epochs))
    own = images.train * config.fraction
    if kind == "features":
        return _Work(0.0, float(images.train + images.val + images.test))
    if _is_probe(config):
        return _Work(float(own), float(images.val + images.test))
    least = (getattr(config, "least_steps", None) or 0) * config.batch_size
    learnt = config.epochs * max(own, least)
    seen = config.epochs * images.val + images.test
    return _Work(float(learnt), float(seen), float(config.epochs))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _makespan(plan: Plan, left: Sequence[tuple[Node, Cost | None]], workers: int) -> float:
    """End of the last piece where free workers take the first that is ready, in seconds."""
    ends: dict[str, float] = {}
    costs = {one.id: cost for one, cost in left}
    free = [0.0] * workers
    for one in plan:
        cost = costs.get(one.id)
        if cost is None:
            ends[one.id] = max((ends[need] for need in one.needs), default=0.0)
            continue
        begin = max([min(free), *(ends[need] for need in one.needs)])
        free[free.index(min(free))] = ends[one.id] = begin + cost.seconds
    return max(ends.values(), default=0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def show_estimate(found: Estimate, console: Console) -> None:
    """Print a table by kind, the total, and how the intervals are made."""
    table = Table(title=f"predicted, {counted(found.workers, 'worker')}", title_justify="left")
    for name in ("what", "left", "one worker's time", "+/-", "disk, MB", "GPU memory, MB"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for kind in dict.fromkeys(one.kind for one, _ in found.left):
        own = [cost for one, cost in found.left if one.kind == kind]
        table.add_row(f"{kind}", f"{len(own):,}", *_cells([cost for cost in own if cost]))
    known = [cost for _, cost in found.left if cost]
    table.add_row("all", f"{len(found.left):,}", *_cells(known))
    console.print(table)
    low, high = max(0.0, found.seconds - found.error), found.seconds + found.error
    told = (
        f"time until all is done: {duration(found.seconds)} ({duration(low)} to {duration(high)})"
    )
    console.print(Text(told, style="bold"), soft_wrap=True)
    if found.done:
        done = counted(found.done, "piece is", "pieces are")
        console.print(Text(f"{done} finished and not counted"), soft_wrap=True)
    for name, reason in found.why.items():
        console.print(Text(f"not counted, could not be timed: {name}: {reason}", style="bold red"))
    console.print(
        Text(
            f"+/-: {MODEL_ERROR:.0%} for the way of counting work (stated, not measured) and the spread of the timed runs, as root of "
            f"squares; {SINGLE_ERROR:.0%} where one timed run was all that fitted. Opening the test images and the report are not in it."
        ),
        soft_wrap=True,
    )


def _cells(costs: list[Cost]) -> tuple[str, str, str, str]:
    gpu = max((cost.gpu_bytes for cost in costs), default=0)
    return (
        duration(sum(cost.seconds for cost in costs)),
        duration(sum(cost.error for cost in costs)),
        f"{sum(cost.bytes for cost in costs) / 1e6:,.0f}",
        f"{gpu / 1e6:,.0f}" if gpu else "-",
    )

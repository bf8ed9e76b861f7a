"""``twinray study --estimate``: a few steps of each kind of piece on this machine, and what the whole study would take.

Work is counted in images: a training pass over one image is 1, a pass without learning a third (Kaplan et al. 2020 count
the backward pass twice the forward one). A probe learns nothing on images, so each of its images is 1. A kind of piece is
timed on generated images of the pack's size, with the verb's own code, at one amount of work and at twice that.
The line through the two gives what a piece costs before the first image and for each image.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

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
from twinray.studies.runner.place import PLAN, Place
from twinray.verbs import VERBS, load

LIMIT_S = 20.0
"""A kind of piece is timed once more only while its timed runs so far, and the next, stay within this, in seconds."""
IMAGES = 16
"""Images of the smaller timed run on a processor; on a GPU at least two batches."""
MODEL_ERROR = 0.3
"""Share of a prediction that the way of counting work may be wrong by; stated, not measured."""
SINGLE_ERROR = 0.6
"""The same where one timed run was all that fitted into the limit."""
_DECODED = 8
_TRAININGS = ("pretrain", "detect", "classify")
_EVAL = 1 / 3
_LENGTH = ("epochs", "warmup_epochs", "warmup_steps", "knn_every", "keep_every", "least_steps")
"""Options of a run's length, which the timed runs set themselves."""


@dataclass(frozen=True)
class Cost:
    """What a piece takes.

    Attributes:
        seconds: time of one worker.
        error: half of the interval of ``seconds``.
        bytes: disk. gpu_bytes: memory of the GPU; 0 without one.
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
class _Rate:
    """Seconds = fixed + each * work, with the share that this may be wrong by."""

    fixed: float
    each: float
    share: float
    bytes: int
    gpu_bytes: int = 0

    def cost(self, work: float) -> Cost:
        seconds = self.fixed + self.each * work
        return Cost(seconds, self.share * seconds, self.bytes, self.gpu_bytes)


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
        return replace(
            rate.cost(n), seconds=listed + rate.each * n / self.threads, bytes=rate.bytes * n
        )

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
        return _Rate(0.0, mean, share, size or config.size**2)

    def _know(self, key: str, folder: Path) -> None:
        info = read_info(folder)
        got = info.counts
        self.images[key] = _Images(got.get("train", 0), got.get("val", 0), got.get("test", 0))
        self.channels[key] = info.channels

    # --- trainings ---

    def _training(self, one: Node) -> Cost | None:
        config, data = self._resolved(one)
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
            if one.kind == "classify":
                given["size"] = given.get("size") or source.size
        elif init is not None and init.path != "random":
            given["arch"] = settled_arch(given.get("arch", ""), init.path)
            if one.kind == "classify":
                given["size"] = settled_size(given.get("size", 0), init.path)
        config = load(VERBS[one.kind].config)
        places: dict[str, Any] = {"data": (Path("pack"),) if one.kind == "pretrain" else Path("pack")}  # fmt: skip
        made = config(**{**given, **places, "out": Path("run"), "init": "random"})
        complete: dict[str, Any] = {"classify": classify, "detect": detect, "pretrain": pretrain}
        return complete[one.kind](made), data

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
        pairs, sizes = [], []
        for one in self.plan:
            if self.out is not None and one.id in self.in_one_go and one.kind in _TRAININGS:
                config, data = self._resolved(one)
                if self._key(one, config, data) == key:
                    pairs.append((self.done[one.id], _work(one.kind, config, self._of(data))))
                    sizes.append(_size(one.folder(self.out)))
        if not pairs:
            return None
        each = sum(s for s, _ in pairs) / sum(w for _, w in pairs)
        spread = max(abs(s / (each * w) - 1) for s, w in pairs) if len(pairs) > 1 else 0.0
        return _Rate(0.0, each, (MODEL_ERROR**2 + spread**2) ** 0.5, max(sizes))

    def _timed(self, one: Node, config: Any, data: list[str]) -> _Rate | None:
        import torch

        from twinray.training.device import choose_machine

        gpu = choose_machine(config.device).device.type == "cuda"
        batch = getattr(config, "batch_size", None) or IMAGES
        n = max(IMAGES, min(512, 4 * batch)) if gpu else IMAGES
        try:
            small = self._once(one, config, data, n)  # also what is loaded once a process
            timed = small[0]
            if 5 * timed > LIMIT_S:
                gpu_bytes = _gpu(torch, gpu, batch, small[3])
                return _Rate(0.0, timed / small[1], SINGLE_ERROR, small[2], gpu_bytes)
            small = self._once(one, config, data, n)
            large = [self._once(one, config, data, 2 * n) for _ in range(2)]
        except TwinrayError as error:
            self.why.setdefault(one.name, str(error))
            return None
        mean = (large[0][0] + large[1][0]) / 2
        each = max(mean - small[0], 0.05 * mean) / (large[0][1] - small[1])
        fixed = max(0.0, small[0] - each * small[1])
        spread = abs(large[0][0] - large[1][0]) / mean
        gpu_bytes = _gpu(torch, gpu, batch, large[0][3])
        return _Rate(fixed, each, (MODEL_ERROR**2 + spread**2) ** 0.5, large[0][2], gpu_bytes)

    def _once(
        self, one: Node, config: Any, data: list[str], n: int
    ) -> tuple[float, float, int, int]:
        """Seconds, work, bytes on disk and images in a batch of one short run on generated images."""
        from twinray.jobs import train

        folder = self._stand_in(one.kind == "pretrain", n, self.channels[data[0]], config)
        out = self.work / "run"
        shutil.rmtree(out, ignore_errors=True)
        short: dict[str, Any] = {"out": out, "resume": False, "device": config.device}
        short["data"] = (folder,) if one.kind == "pretrain" else folder
        known = {f.name for f in fields(config)}
        probe = getattr(config, "policy", "") == "probe"
        if not probe:
            short |= {"epochs": 1, "batch_size": max(2, min(config.batch_size, n // 2))}
            short |= {k: 1 for k in ("least_steps",) if k in known}
            short |= {k: 0 for k in ("warmup_steps", "warmup_epochs", "knn_every", "keep_every") if k in known}  # fmt: skip
        short |= {k: 1.0 for k in ("fraction",) if k in known}
        short |= {k: () for k in ("leave_out",) if k in known}
        own = replace(config, **short)
        verb: Callable[[Any], Any] = getattr(train, one.kind)
        began = time.monotonic()
        with _quiet(), folders_freed():
            verb(own)
        seconds = time.monotonic() - began
        info = read_info(folder).counts
        images = _Images(info.get("train", 0), info.get("val", 0), info.get("test", 0))
        batch = 0 if probe else own.batch_size
        return seconds, _work(one.kind, own, images), _size(out), batch

    def _stand_in(self, unlabelled: bool, n: int, channels: int, config: Any) -> Path:
        """A pack of generated images; of a quarter of them a detector's epoch is chosen, on a quarter it is tested."""
        from twinray.jobs.pack import PackConfig
        from twinray.jobs.pack import run as pack

        size = max(16, config.size)
        folder = self.work / f"pack-{unlabelled}-{n}-{channels}-{size}"
        if not folder.is_dir():
            share = 0.0 if unlabelled else 0.25
            made = PackConfig(
                out=folder, format=("phantom",), size=size, channels="rgb" if channels == 3 else "grey",
                phantom_images=n, phantom_images_per_patient=1, val=share, test=share, workers=1,
            )  # fmt: skip
            with _quiet(), folders_freed():
                pack(made, Console(file=io.StringIO()))
        return folder


def _gpu(torch: Any, gpu: bool, batch: int, timed: int) -> int:
    """Peak memory, grown in proportion where the timed batch was smaller: an upper bound, as weights do not grow."""
    if not gpu:
        return 0
    peak: int = torch.cuda.max_memory_allocated()
    return round(peak * max(1.0, batch / timed)) if timed else peak


def _shares(n: int, config: Any) -> _Images:
    test = 1 / config.folds if config.folds else config.test
    return _Images(n * max(0.0, 1 - config.val - test), n * config.val, n * test)


def _work(kind: str, config: Any, images: _Images) -> float:
    if kind == "pretrain":
        return float(config.epochs * images.train)
    own = images.train * config.fraction
    if getattr(config, "policy", "") == "probe":
        return float(own + images.val + images.test)
    least = (getattr(config, "least_steps", None) or 0) * config.batch_size
    each_epoch = max(own, least) + _EVAL * images.val
    return float(config.epochs * each_epoch + _EVAL * images.test)


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
    table = Table(title=f"predicted, {found.workers} workers", title_justify="left")
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
        console.print(Text(f"{found.done} pieces are finished and not counted"), soft_wrap=True)
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

"""The training loop, the only one.

A job gives it a step (forward and backward), batches, and what to do at an epoch's end. The loop
updates the weights, follows the schedule, shows progress, logs, keeps checkpoints and resumes. It
runs on one rank or on many (:mod:`twinray.training.ranks`).

Resuming is exact because nothing random survives between steps. The order of an epoch comes from
(seed, epoch). Before each step the global generators are seeded from (seed, step). A checkpoint
therefore needs the weights, the optimiser's state and the number of the step, no generator's state.

Figures stay on the device between log lines: reading one makes the host wait for the GPU. On a
processor nothing waits, so there a loss that is not finite is found before it can reach the
weights. On a GPU it is found at the next log line or checkpoint, whichever comes first, and never
after a checkpoint.

Checkpoints are written by a thread from a copy (:class:`twinray.training.checkpoint.Writer`): after some minutes or steps, with every
new best epoch, and at the end. All ranks decide alike: what one rank found is asked for by all.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from twinray.errors import InputError, Interrupted, Stopped, TwinrayError
from twinray.files import write_bytes
from twinray.progress import Meter, progress
from twinray.runs.folder import RunFolder
from twinray.training.checkpoint import (
    Keep,
    Writer,
    checkpoint_name,
    load_checkpoint,
    save_checkpoint,
)
from twinray.training.ranks import Ranks, told_by_first
from twinray.training.stopping import INTERRUPT, StopRequest, save_failed_step, stop_on_signal

T = TypeVar("T")
Watch: TypeAlias = Callable[[RunFolder, int], None]
"""Told of a run's folder and of its best epoch so far, -1 for none."""
BEST = "best.safetensors"
LOWER = "lower the learning rate and start anew"
FAULTS = 3
"""Log lines in a row with a fault that end a run: one may be an accident."""
_NEVER = 2**62


@dataclass(frozen=True, eq=False)
class Loop:
    """What a job hands to :func:`train`.

    Attributes:
        label: text shown in the progress bar.
        model: module that holds every tensor that training changes.
        optimizer: optimiser whose groups' rates are set before every step.
        step: (batch, step) -> named scalars, among them ``loss``. It runs forward and backward and
            leaves gradients in ``.grad``. A figure may be given at some steps only.
        batches: (epoch, first) -> the epoch's batches from number ``first`` on.
        steps_per_epoch, epochs: the length of the run.
        rates: step -> the learning rate of each parameter group.
        images_per_step: number of images, for the rate that progress shows.
        seed: seed of everything random in a step.
        at_epoch_end: epoch -> figures on validation data, logged; None for none.
        shared_figures: whether every rank calls ``at_epoch_end``, does its share and gets the same figures. Otherwise the first
            one alone calls it.
        select: the figure of ``at_epoch_end`` that picks the best epoch (larger is better); its
            weights are kept in ``checkpoints/best.safetensors``.
        clip_norm: largest gradient norm, or None.
        checkpoint_every: steps between checkpoints; 0: none by steps.
        checkpoint_minutes: minutes between checkpoints.
        log_every: steps between log lines.
        ranks: all processes of the job; each takes its share of every batch.
        mean_gradients: parameter gradients are averaged over ranks, not summed: for losses that are a mean over
            each rank's own images.
        keep: rule of which checkpoints stay.
        after_step: function called after every update with the number of steps done.
        watch: function called by the first process at the end of every epoch, when its lines are
            logged. It gets the best epoch so far (-1: none).
        fault: a log line -> why the training should stop there, or None; acted on when three lines in a row have one.
    """

    label: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[Any, int], Mapping[str, Tensor]]
    batches: Callable[[int, int], Iterable[Any]]
    steps_per_epoch: int
    epochs: int
    rates: Callable[[int], Sequence[float]]
    images_per_step: int
    seed: int
    at_epoch_end: Callable[[int], Mapping[str, float]] | None = None
    shared_figures: bool = False
    select: str | None = None
    clip_norm: float | None = None
    checkpoint_every: int = 0
    checkpoint_minutes: float = 10.0
    log_every: int = 10
    ranks: Ranks = field(default_factory=Ranks)
    mean_gradients: bool = False
    keep: Keep = field(default_factory=Keep)
    after_step: Callable[[int], None] | None = None
    fault: Callable[[Mapping[str, float]], str | None] | None = None
    watch: Watch | None = None


@dataclass
class Progress:
    """Where a run stands; saved in every checkpoint."""

    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    waited: float = 0.0
    faults: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class _Tally:
    """Figures since the last log line, and the first bad step; on the device, in float64."""

    def __init__(self, state: Progress) -> None:
        self.sums: dict[str, Tensor | float] = dict(state.sums)
        self.counts = dict(state.counts)
        self.bad_step: Tensor | None = None

    def add(self, values: Mapping[str, Tensor], finite: Tensor, step: int) -> None:
        for name, value in values.items():
            self.sums[name] = value.detach().double() + self.sums.get(name, 0.0)
            self.counts[name] = self.counts.get(name, 0) + 1
        now = torch.where(finite, -1, step)
        self.bad_step = (
            now if self.bad_step is None else torch.where(self.bad_step >= 0, self.bad_step, now)
        )

    def bad(self) -> int | None:
        """The first step that was not finite; waits for the device."""
        step = -1 if self.bad_step is None else int(self.bad_step)
        return step if step >= 0 else None

    def keep_in(self, state: Progress) -> None:
        state.sums = {name: float(value) for name, value in self.sums.items()}
        state.counts = dict(self.counts)

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.counts[name] for name, value in self.sums.items()}


def train(loop: Loop, run: RunFolder) -> Progress:
    """Run the loop to its end, from the run's newest checkpoint if it has one.

    Raises:
        TwinrayError: the loss is no longer finite, the embedding collapsed, a signal asked to stop, or the disk refuses
            a checkpoint. What was trained up to the last good checkpoint is kept.
    """
    ranks, writer = loop.ranks, Writer()
    state = _restore(loop, run)
    ranks.broadcast([*loop.model.parameters(), *loop.model.buffers()])
    total = loop.steps_per_epoch * loop.epochs
    shown = progress(
        loop.label, total * loop.images_per_step, "images", state.step * loop.images_per_step
    )
    with (
        closing(writer),
        stop_on_signal() as stop,
        shown if ranks.main else nullcontext(None) as meter,
    ):
        while state.step < total:
            epoch, first = divmod(state.step, loop.steps_per_epoch)
            _train_epoch(loop, run, state, epoch, first, meter, stop, writer)
            saved = _end_epoch(loop, run, state, epoch, writer)
            _stop_if_asked(loop, run, state, stop, writer, saved=saved)
        ranks.first(writer.wait)
    return state


def seed_everything(seed: int, *more: int) -> None:
    """Seed torch's and NumPy's global generators from the given numbers."""
    mixed = int(np.random.SeedSequence([seed, *more]).generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)


def _train_epoch(
    loop: Loop,
    run: RunFolder,
    state: Progress,
    epoch: int,
    first: int,
    meter: Meter | None,
    stop: StopRequest,
    writer: Writer,
) -> None:
    loop.model.train()
    tally = _Tally(state)
    last = time.perf_counter()
    for batch, waited in _timed(loop.batches(epoch, first)):
        _one_step(loop, run, batch, state.step, tally)
        state.step += 1
        end_of_epoch = state.step % loop.steps_per_epoch == 0
        logs = state.step % loop.log_every == 0 or end_of_epoch
        meets = loop.ranks.world == 1 or logs  # asking the other ranks has a price
        saves = not end_of_epoch and _is_due(loop, state, writer, meets=meets)
        if logs or saves:
            _check_finite(loop, run, tally)
        if meets:
            loop.ranks.first(writer.check)
        now = time.perf_counter()
        state.seconds += now - last
        state.waited += waited
        last = now
        if meter is not None:
            share = state.waited / max(state.seconds, 1e-9)
            loss = f"loss {tally.means()['loss']:.4g}, " if logs else ""
            meter.advance(loop.images_per_step, f"{loss}data wait {share:.1%}")
        if logs:
            _log(loop, run, state, epoch, tally)
            tally = _Tally(Progress())
        if saves:
            tally.keep_in(state)
            _save(loop, run, state, writer)
        if not end_of_epoch and meets:
            _stop_if_asked(loop, run, state, stop, writer, saved=saves, tally=tally)
    state.sums, state.counts = {}, {}


def _stop_if_asked(
    loop: Loop,
    run: RunFolder,
    state: Progress,
    stop: StopRequest,
    writer: Writer,
    *,
    saved: bool,
    tally: _Tally | None = None,
) -> None:
    """On a signal to any rank: checkpoint, then end. At the very end of the run there is nothing left to stop.

    Raises:
        TwinrayError, Interrupted: saying which step is saved where.
    """
    if (
        not loop.ranks.any(stop.name is not None)
        or state.step == loop.steps_per_epoch * loop.epochs
    ):
        return
    if not saved:
        if tally is not None:
            _check_finite(loop, run, tally)
            tally.keep_in(state)
        _save(loop, run, state, writer)
    loop.ranks.first(writer.wait)
    kept = f"after step {state.step}, which is saved in {run.path}; the same command with --resume goes on from there"
    if stop.name == INTERRUPT:
        interrupted = Interrupted(f"interrupted {kept}")
        interrupted.told = not loop.ranks.main
        raise interrupted
    stopped = Stopped(f"stopped by {stop.name or 'a signal to another rank'} {kept}")
    raise told_by_first(stopped, loop.ranks)


def _is_due(loop: Loop, state: Progress, writer: Writer, *, meets: bool) -> bool:
    """Whether the step's state is to be saved, by its number or by the first rank's clock."""
    if loop.checkpoint_every and state.step % loop.checkpoint_every == 0:
        return True
    return meets and loop.ranks.any(loop.ranks.main and writer.due(loop.checkpoint_minutes))


def _one_step(loop: Loop, run: RunFolder, batch: Any, step: int, tally: _Tally) -> None:
    """Gradient, check, update."""
    seed_everything(loop.seed, step)
    for group, rate in zip(loop.optimizer.param_groups, loop.rates(step), strict=True):
        group["lr"] = rate
    loop.optimizer.zero_grad(set_to_none=True)
    values = loop.step(batch, step)
    loop.ranks.sum_gradients(loop.model.parameters(), mean=loop.mean_gradients)
    parameters = [p for p in loop.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    finite = torch.isfinite(values["loss"].detach()) & torch.isfinite(norm)
    tally.add(values, finite, step)
    # The loss is one rank's own where gradients are averaged: what one of them found ends all.
    if finite.device.type == "cpu" and loop.ranks.any(tally.bad() is not None):
        what = f"the loss is {float(values['loss'])} and the gradient's norm {float(norm)}"
        if tally.bad() is None:
            what = "on another rank the loss is not a finite number"
        _give_up(loop, run, step, what, LOWER)
    if loop.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, loop.clip_norm, norm, foreach=True)
    loop.optimizer.step()
    if loop.after_step is not None:
        loop.after_step(step + 1)


def _check_finite(loop: Loop, run: RunFolder, tally: _Tally) -> None:
    """End every rank at the first step that was not finite on one of them; waits for the device."""
    own = tally.bad()
    first = loop.ranks.least(_NEVER if own is None else own)
    if first != _NEVER:
        _give_up(loop, run, first, "the loss or its gradient was no longer a finite number", LOWER)


def _give_up(loop: Loop, run: RunFolder, step: int, what: str, advice: str) -> None:
    """Keep the step's batch for a second look, and end the run."""
    epoch, first = divmod(step, loop.steps_per_epoch)
    batch = next(iter(loop.batches(epoch, first)))
    if loop.ranks.main:
        state = {name: t.detach().cpu() for name, t in loop.model.state_dict().items()}
        path = save_failed_step(
            run.path, step=step, seed=loop.seed, batch=_on_cpu(batch), model=state, reason=what
        )
        raise TwinrayError(
            f"{what} at step {step + 1} of {run.path}; the last good checkpoint is kept, and the step's batch is in {path.name}: "
            f"{advice}, or look at the data"
        )
    raise told_by_first(TwinrayError(f"{what} at step {step + 1} of {run.path}"), loop.ranks)


def _on_cpu(batch: Any) -> Any:
    """Tensors to the processor; other things as plain Python, so that the file opens without running code."""
    if isinstance(batch, Tensor):
        return batch.detach().cpu()
    if isinstance(batch, (list, tuple)):
        return [_on_cpu(item) for item in batch]
    if isinstance(batch, Mapping):
        return {str(name): _on_cpu(item) for name, item in batch.items()}
    if isinstance(batch, np.ndarray):
        return (
            torch.from_numpy(np.ascontiguousarray(batch))
            if batch.dtype.kind in "biuf"
            else batch.tolist()
        )
    if hasattr(batch, "__dataclass_fields__"):
        return {name: _on_cpu(getattr(batch, name)) for name in batch.__dataclass_fields__}
    return batch if isinstance(batch, (int, float, str, bool, type(None))) else repr(batch)


def _timed(batches: Iterable[T]) -> Iterator[tuple[T, float]]:
    """Each batch with the seconds that the loop waited for it."""
    iterator = iter(batches)
    while True:
        start = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield batch, time.perf_counter() - start


def _log(loop: Loop, run: RunFolder, state: Progress, epoch: int, tally: _Tally) -> None:
    means = tally.means()
    line: dict[str, Any] = {"step": state.step, "epoch": epoch, **means}
    line["lr"] = loop.optimizer.param_groups[0]["lr"]
    line["data_wait"] = round(state.waited / max(state.seconds, 1e-9), 4)
    line["images_per_s"] = round(state.step * loop.images_per_step / max(state.seconds, 1e-9), 2)
    line["seconds"] = round(state.seconds, 2)
    if loop.ranks.main:
        run.log(line)
    fault = loop.fault
    reason = loop.ranks.first(lambda: fault(means)) if fault is not None else None
    state.faults = state.faults + 1 if reason else 0
    if reason and state.faults >= FAULTS:
        _give_up(
            loop, run, state.step - 1, reason, "start anew with another learning rate or objective"
        )


def _end_epoch(loop: Loop, run: RunFolder, state: Progress, epoch: int, writer: Writer) -> bool:
    """Figures, the best epoch so far, and a checkpoint where one is due; whether there was one."""
    best = False
    if loop.at_epoch_end is not None:
        start = time.perf_counter()
        seed_everything(loop.seed, state.step, 1)
        if loop.shared_figures:
            figures = _figures(loop, epoch)
        else:
            figures = loop.ranks.first(lambda: _figures(loop, epoch))
        state.seconds += time.perf_counter() - start
        if figures and loop.ranks.main:
            shown = {
                f"val_{name}": value if math.isfinite(value) else None
                for name, value in figures.items()
            }
            run.log({"step": state.step, "epoch": epoch, **shown})
        if loop.select is not None:
            best = _is_best(state, epoch, figures[loop.select])
    milestone = bool(loop.keep.every_epochs) and (epoch + 1) % loop.keep.every_epochs == 0
    # The best weights lie beside a checkpoint that knows of them: a resumed run must not take those of another course.
    saves = (
        best or milestone or epoch + 1 == loop.epochs or _is_due(loop, state, writer, meets=True)
    )
    if saves:
        _save(loop, run, state, writer, best=best)
    if loop.watch is not None and loop.ranks.main:
        loop.watch(run, state.best_epoch)
    return saves


def _figures(loop: Loop, epoch: int) -> dict[str, float]:
    assert loop.at_epoch_end is not None
    return {name: float(value) for name, value in loop.at_epoch_end(epoch).items()}


def _is_best(state: Progress, epoch: int, value: float) -> bool:
    """Whether the epoch is the best so far; of equal ones the last is: a plateau at 0 must not keep the first."""
    value = value if math.isfinite(value) else -math.inf
    if value < state.best:
        return False
    state.best, state.best_epoch = value, epoch
    return True


def load_best(loop: Loop, run: RunFolder) -> None:
    """Give the model the weights of its best epoch.

    Raises:
        InputError: the file is damaged, or of another run.
    """
    path = run.checkpoints / BEST
    try:
        with safetensors.safe_open(path, "pt") as file:
            said = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"could not read the weights of the best epoch in {path}: {error!s:.200}; start anew in another --out"
        ) from error
    _check_identity(said.get("run", ""), loop, run, path)
    loop.model.load_state_dict(tensors)


def _identity(loop: Loop, run: RunFolder) -> str:
    """What a checkpoint says of the run that it is of; a run of several draws trains with several seeds."""
    return json.dumps({"trained": loop.label, "draw": loop.seed, "of": json.loads(run.identity())})


def _check_identity(said: str, loop: Loop, run: RunFolder, path: Path) -> None:
    """Refuse what another run wrote; versions before it was recorded said nothing.

    Raises:
        InputError: naming what differs.
    """
    if not said:
        return
    now = _flat(json.loads(_identity(loop, run)))
    try:
        then = _flat(json.loads(said))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}; remove it and resume again") from error
    # an option that one of the two versions does not know says nothing of another run
    differing = [key for key in then if key in now and then[key] != now[key]]
    if differing:
        what = "; ".join(
            f"{key} was {then[key]!r:.80}, now {now[key]!r:.80}" for key in differing[:3]
        )
        raise InputError(
            f"{path} is of another run ({what}): put back this run's own checkpoints, or start anew in another --out"
        )


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    of = said["of"]
    return {"trained": said["trained"], "draw": said["draw"], **of}


def _save(
    loop: Loop, run: RunFolder, state: Progress, writer: Writer, *, best: bool = False
) -> None:
    """Take the state as it is now; a thread writes it, with ``best`` its weights as those of the best epoch too."""

    def start() -> None:
        saved = {
            "model": loop.model.state_dict(),
            "optimizer": loop.optimizer.state_dict(),
            "progress": vars(state).copy(),
            "run": _identity(loop, run),
        }
        writer.put(saved, partial(_write, loop, run, state.step, best))

    loop.ranks.first(start)  # a full disk ends every rank, with one line


def _write(loop: Loop, run: RunFolder, step: int, best: bool, saved: Mapping[str, Any]) -> None:
    if best:
        tensors = {name: tensor.contiguous() for name, tensor in saved["model"].items()}
        epoch = str(saved["progress"]["best_epoch"])
        data = safetensors.torch.save(tensors, {"run": saved["run"], "epoch": epoch})
        write_bytes(run.checkpoints / BEST, data, "best weights")
    save_checkpoint(run.checkpoints, step, dict(saved), loop.keep, loop.steps_per_epoch)


def _restore(loop: Loop, run: RunFolder) -> Progress:
    """The newest checkpoint's state on every rank; the first rank chooses it and clears what is damaged."""
    step = loop.ranks.first(
        lambda: (load_checkpoint(run.checkpoints) or {"progress": {"step": 0}})["progress"]["step"]
    )
    saved = load_checkpoint(run.checkpoints, step) if step else None
    if saved is not None:
        loop.ranks.first(
            lambda: _check_identity(
                saved.get("run", ""), loop, run, run.checkpoints / checkpoint_name(step)
            )
        )
    if saved is None:
        state = Progress()
    else:
        loop.model.load_state_dict(saved["model"])
        loop.optimizer.load_state_dict(saved["optimizer"])
        state = Progress(**saved["progress"])
    if loop.ranks.main:
        run.forget_after(state.step)
    return state

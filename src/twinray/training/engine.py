"""The training loop, the only one.

A job gives it a step (forward and backward), batches, and what to do at an epoch's end; the loop
updates the weights, follows the schedule, shows progress, logs, keeps checkpoints and resumes.

Resuming is exact because nothing random survives between steps: the order of an epoch comes from
(seed, epoch), and before each step the global generators are seeded from (seed, step). A checkpoint
therefore needs the weights, the optimiser's state and the number of the step, no generator's state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from twinray.errors import TwinrayError
from twinray.files import write_bytes
from twinray.progress import Meter, progress
from twinray.training.checkpoint import load_checkpoint, save_checkpoint
from twinray.training.rundir import RunFolder

T = TypeVar("T")
BEST = "best.safetensors"


@dataclass(frozen=True, eq=False)
class Loop:
    """What a job hands to :func:`train`.

    Attributes:
        label: shown in the progress bar.
        model: holds every tensor that training changes.
        optimizer: its groups' rates are set before every step.
        step: (batch, step) -> named scalars, among them ``loss``; runs forward and backward and
            leaves gradients in ``.grad``; a figure may be given at some steps only.
        batches: (epoch, first) -> the epoch's batches from number ``first`` on.
        steps_per_epoch, epochs: the length of the run.
        rates: step -> the learning rate of each parameter group.
        images_per_step: for the rate that progress shows.
        seed: of everything random in a step.
        at_epoch_end: epoch -> figures on validation data, logged; None for none.
        select: the figure of ``at_epoch_end`` that picks the best epoch (larger is better); its
            weights are kept in ``checkpoints/best.safetensors``.
        clip_norm: largest gradient norm, or None.
        checkpoint_every: steps between checkpoints; 0 for one an epoch.
        log_every: steps between log lines.
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
    select: str | None = None
    clip_norm: float | None = None
    checkpoint_every: int = 0
    log_every: int = 10


@dataclass
class Progress:
    """Where a run stands; saved in every checkpoint."""

    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    waited: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def train(loop: Loop, run: RunFolder) -> Progress:
    """Run the loop to its end, from the run's newest checkpoint if it has one.

    Raises:
        TwinrayError: the loss is no longer finite, or the disk refuses a checkpoint.
    """
    state = _restore(loop, run)
    total = loop.steps_per_epoch * loop.epochs
    with progress(loop.label, total * loop.images_per_step, "images", state.step * loop.images_per_step) as meter:
        while state.step < total:
            epoch, first = divmod(state.step, loop.steps_per_epoch)
            _train_epoch(loop, run, state, epoch, first, meter)
            _end_epoch(loop, run, state, epoch)
    return state


def seed_everything(seed: int, *more: int) -> None:
    """Seed torch's and NumPy's global generators from the given numbers."""
    mixed = int(np.random.SeedSequence([seed, *more]).generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)


def _train_epoch(loop: Loop, run: RunFolder, state: Progress, epoch: int, first: int, meter: Meter) -> None:
    loop.model.train()
    last = time.perf_counter()
    for batch, waited in _timed(loop.batches(epoch, first)):
        values = _one_step(loop, run, batch, state.step)
        state.step += 1
        state.waited += waited
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)
            state.counts[name] = state.counts.get(name, 0) + 1
        now = time.perf_counter()
        state.seconds += now - last
        last = now
        share = state.waited / max(state.seconds, 1e-9)
        meter.advance(loop.images_per_step, f"loss {float(values['loss']):.4g}, data wait {share:.1%}")
        end_of_epoch = state.step % loop.steps_per_epoch == 0
        if state.step % loop.log_every == 0 or end_of_epoch:
            _log(loop, run, state, epoch, share)
        if loop.checkpoint_every and state.step % loop.checkpoint_every == 0 and not end_of_epoch:
            _save(loop, run, state)


def _one_step(loop: Loop, run: RunFolder, batch: Any, step: int) -> Mapping[str, Tensor]:
    """Gradient, check, update. What is not finite is found before it can reach the weights."""
    seed_everything(loop.seed, step)
    for group, rate in zip(loop.optimizer.param_groups, loop.rates(step), strict=True):
        group["lr"] = rate
    loop.optimizer.zero_grad(set_to_none=True)
    values = loop.step(batch, step)
    parameters = [p for p in loop.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if not bool(torch.isfinite(values["loss"]) & torch.isfinite(norm)):
        raise TwinrayError(
            f"the loss is {float(values['loss'])} and the gradient's norm {float(norm)} at step {step + 1} of {run.path}; the "
            "last good checkpoint is kept: lower the learning rate and start anew, or look at the data"
        )
    if loop.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, loop.clip_norm, norm, foreach=True)
    loop.optimizer.step()
    return values


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


def _log(loop: Loop, run: RunFolder, state: Progress, epoch: int, share: float) -> None:
    line: dict[str, Any] = {"step": state.step, "epoch": epoch}
    line |= {name: total / state.counts[name] for name, total in state.sums.items()}
    line["lr"] = loop.optimizer.param_groups[0]["lr"]
    line["data_wait"] = round(share, 4)
    line["images_per_s"] = round(state.step * loop.images_per_step / max(state.seconds, 1e-9), 2)
    line["seconds"] = round(state.seconds, 2)
    run.log(line)
    state.sums, state.counts = {}, {}


def _end_epoch(loop: Loop, run: RunFolder, state: Progress, epoch: int) -> None:
    if loop.at_epoch_end is not None:
        start = time.perf_counter()
        seed_everything(loop.seed, state.step, 1)
        figures = {name: float(value) for name, value in loop.at_epoch_end(epoch).items()}
        state.seconds += time.perf_counter() - start
        run.log(
            {
                "step": state.step,
                "epoch": epoch,
                **{f"val_{k}": v if math.isfinite(v) else None for k, v in figures.items()},
            }
        )
        if loop.select is not None:
            _keep_best(loop, run, state, epoch, figures[loop.select])
    _save(loop, run, state)


def _keep_best(loop: Loop, run: RunFolder, state: Progress, epoch: int, value: float) -> None:
    value = value if math.isfinite(value) else -math.inf
    if value >= state.best:  # of equal epochs the last: a plateau at 0 must not keep the first
        state.best, state.best_epoch = value, epoch
        tensors = {name: t.detach().cpu().contiguous() for name, t in loop.model.state_dict().items()}
        write_bytes(run.checkpoints / BEST, safetensors.torch.save(tensors), "best weights")


def load_best(loop: Loop, run: RunFolder) -> None:
    """Give the model the weights of its best epoch."""
    loop.model.load_state_dict(safetensors.torch.load_file(run.checkpoints / BEST))


def _save(loop: Loop, run: RunFolder, state: Progress) -> None:
    saved = {"model": loop.model.state_dict(), "optimizer": loop.optimizer.state_dict(), "progress": vars(state).copy()}
    save_checkpoint(run.checkpoints, state.step, saved)


def _restore(loop: Loop, run: RunFolder) -> Progress:
    saved = load_checkpoint(run.checkpoints)
    if saved is None:
        run.forget_after(0)
        return Progress()
    loop.model.load_state_dict(saved["model"])
    loop.optimizer.load_state_dict(saved["optimizer"])
    state = Progress(**saved["progress"])
    run.forget_after(state.step)
    return state

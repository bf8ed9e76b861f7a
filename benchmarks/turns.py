"""One turn of a training loop on the clock: which steps count, how long they took and how long they waited."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from twinray.training.engine import Loop, seed_everything


@dataclass(frozen=True)
class Rate:
    """What one turn gave; ``peak_bytes`` is of GPU memory."""

    pairs_per_s: float
    data_wait: float | None
    peak_bytes: int | None
    batch_size: int


class TurnOver(Exception):
    """Raised inside the loop when a turn has its steps."""


@dataclass
class Window:
    """The timed steps ``first`` up to ``last``, told by the start of each step.

    Attributes:
        at_start, at_end: called at the two moments, with the device idle; for the profiler.
        seconds: between them.
        waited: of these, seconds waiting for batches.
    """

    device: torch.device
    first: int
    last: int
    at_start: Callable[[], object] = lambda: None
    at_end: Callable[[], object] = lambda: None
    seconds: float = math.nan
    waited: float = 0.0
    _begun: float = math.nan

    def before_step(self, index: int) -> None:
        if index == self.first:
            synchronise(self.device)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            self.at_start()
            self._begun = time.perf_counter()
        elif index == self.last:
            synchronise(self.device)
            self.seconds = time.perf_counter() - self._begun
            self.at_end()
            raise TurnOver

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the waiting between the window's first and last step is added up."""
        iterator = iter(batches)
        for index in itertools.count():
            start = time.perf_counter()
            batch = next(iterator)
            if self.first < index <= self.last:
                self.waited += time.perf_counter() - start
            yield batch

    def rate(self, batch_size: int, *, waits: bool = True) -> Rate:
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        pairs = batch_size * (self.last - self.first)
        return Rate(
            pairs / self.seconds, self.waited / self.seconds if waits else None, peak, batch_size
        )


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def let_go(device: torch.device) -> None:
    """Give the GPU's memory back before another contestant's turn."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def packed_batches(loop: Loop) -> Iterator[Any]:
    """The job's batches, epoch after epoch."""
    for epoch in itertools.count():
        yield from loop.batches(epoch, 0)


def one_step(loop: Loop, batch: Any, number: int) -> None:
    """A step of the training loop, without its log and checkpoints."""
    seed_everything(loop.seed, number)
    for group, rate in zip(loop.optimizer.param_groups, loop.rates(number), strict=True):
        group["lr"] = rate
    loop.optimizer.zero_grad(set_to_none=True)
    loop.step(batch, number)
    parameters = [p for p in loop.model.parameters() if p.grad is not None]
    nn.utils.clip_grad_norm_(parameters, loop.clip_norm or float("inf"), foreach=True)
    loop.optimizer.step()

"""Several processes as one: what each rank holds, and sums over all of them.

A job starts as ``torchrun --nproc-per-node N -m twinray VERB ...``; torchrun's variables say which rank this is.
Without them there is one rank and nothing here communicates.

The convention that makes gradients exact has three parts. Every rank computes the same total loss
from the gathered rows of all ranks. It differentiates the loss with respect to its *own* rows only.
Parameter gradients are then *summed* over ranks. That is the chain rule of the whole batch, with no
factor 1/world to correct and no collective inside the loss's graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twinray.errors import InputError, TwinrayError

T = TypeVar("T")
_BUCKET_BYTES = 64 << 20
_TIMEOUT = timedelta(
    minutes=60
)  # of one collective; the first rank may evaluate or write while others wait


@dataclass(frozen=True)
class Ranks:
    """This process's place among all.

    Attributes:
        rank: 0 .. world - 1; rank 0 alone writes files and shows progress.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's rows of n, n a multiple of ``world``."""
        each = n // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, z: Tensor) -> Tensor:
        """(b / world, d) rows of each rank -> (b, d) rows of all, in the order of ranks.

        Gradients reach this rank's own rows; those of the others are constants (see the module's text).
        """
        if self.world == 1:
            return z
        parts = [torch.empty_like(z) for _ in range(self.world)]
        dist.all_gather(parts, z.detach().contiguous())
        parts[self.rank] = z
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], *, mean: bool = False) -> None:
        """Sum (or average) every ``.grad`` over ranks, in large buckets; parameters without one count as zero."""
        if self.world == 1:
            return
        for bucket in _buckets([p for p in parameters if p.requires_grad]):
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            flat = torch.cat([g.reshape(-1) for g in gradients])
            dist.all_reduce(flat)
            if mean:
                flat /= self.world
            for p, g, piece in zip(
                bucket, gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
            ):
                p.grad = g.copy_(piece.view_as(g))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on any rank; every rank must ask."""
        if self.world == 1:
            return flag
        value = torch.tensor([float(flag)], device=_device())
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item() > 0)

    def least(self, value: int) -> int:
        """The smallest of all ranks' numbers; every rank must ask."""
        if self.world == 1:
            return value
        found = torch.tensor([value], device=_device())
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found.item())

    def collect(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks; every rank must ask."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return cast(list[T], found)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first rank's values, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def first(self, call: Callable[[], T]) -> T:
        """Run ``call`` on rank 0 alone and give every rank its result; an error becomes every rank's error.

        Raises:
            InputError, TwinrayError: as ``call`` raised them on rank 0.
        """
        if self.world == 1:
            return call()
        outcome: list[tuple[T | None, tuple[bool, str] | None]] = [(None, None)]
        if self.main:
            try:
                outcome = [(call(), None)]
            except (InputError, TwinrayError) as error:
                outcome = [(None, (isinstance(error, InputError), str(error)))]
        dist.broadcast_object_list(outcome, src=0, device=_device())
        value, error_ = outcome[0]
        if error_ is not None:
            raise told_by_first((InputError if error_[0] else TwinrayError)(error_[1]), self)
        return cast(T, value)


def told_by_first(error: TwinrayError, ranks: Ranks) -> TwinrayError:
    """Mark an error that every rank raises, so that the first one alone tells it."""
    error.told = not ranks.main
    return error


def launched_rank() -> tuple[int, int, int]:
    """(rank, number of ranks, rank on this machine) as torchrun's variables say; (0, 1, 0) without them.

    Raises:
        InputError: the variables are not numbers.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1, 0
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, world, local = (int(os.environ.get(name, "0")) for name in names)
    except ValueError as error:
        told = ", ".join(f"{name}={os.environ.get(name)!r}" for name in names)
        raise InputError(
            f"expected whole numbers in torchrun's variables, got {told}; start through torchrun"
        ) from error
    return rank, world, local


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the other ranks for the block's duration: NCCL between GPUs, Gloo between processors."""
    rank, world, _ = launched_rank()
    if world == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Ranks(rank, world)
    finally:
        dist.destroy_process_group()


def _device() -> torch.device:
    """Where small messages travel: NCCL moves tensors on GPUs only."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one type, at most about 64 MiB together."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (
            p.dtype != bucket[0].dtype or size + p.numel() * p.element_size() > _BUCKET_BYTES
        ):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel() * p.element_size()
    if bucket:
        yield bucket

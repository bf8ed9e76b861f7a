"""Batches straight from memory-mapped packs: whole batches at a time, ahead of the step.

The order of epoch ``e`` is a permutation drawn from (seed, e) alone, so a resumed run finds its place
by arithmetic.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from twinray.data.packed_pixels import LevelPixels, PackedPixels
from twinray.records import IntArray

T = TypeVar("T")
_LARGE = 8 << 20
"""Bytes from which a batch is worth several threads."""


@dataclass(frozen=True, eq=False)
class PixelSource:
    """The chosen rows of several packs' images as one sequence.

    Attributes:
        images: one array a pack (``Pack.pixels``): memory-mapped (n, s, s[, 3]) uint8, or float32 levels; all of the same
            type, s and channels.
        rows: (m, 2) pairs (which array, which row in it).
    """

    images: Sequence[PackedPixels]
    rows: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    def shape(self, n: int) -> tuple[int, ...]:
        """Of n images."""
        return (n, *self.images[0].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Of the pixels: uint8, or float32 levels."""
        return torch.uint8 if self.images[0].dtype == np.uint8 else torch.float32

    def gather(self, indices: IntArray, out: Tensor | None = None) -> Tensor:
        """Pixels (b, s, s[, 3]) of the given positions, in their order; into ``out`` where it is given."""
        out = torch.empty(self.shape(len(indices)), dtype=self.dtype) if out is None else out
        chosen, pixels = self.rows[indices], out.numpy()
        # Ascending rows let the disk read forwards; every one is copied once, to its position.
        order = np.lexsort((chosen[:, 1], chosen[:, 0]))
        # rows of a memory map cost more to name than to copy
        arrays = [
            array if isinstance(array, LevelPixels) else np.asarray(array) for array in self.images
        ]

        def copy(positions: IntArray) -> None:
            for at, (which, row) in zip(
                positions.tolist(), chosen[positions].tolist(), strict=True
            ):
                pixels[at] = arrays[which][row]

        parts = _threads() if pixels.nbytes >= _LARGE else 1
        if parts == 1:
            copy(order)
        else:
            list(_readers(parts).map(copy, np.array_split(order, parts)))
        return out


def _threads() -> int:
    """Threads that one gather takes: a core in four, for the step has work for the others."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(4, cores // 4))


@lru_cache(maxsize=1)
def _readers(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="twinray-gather")


def epoch_order(
    n: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool = True
) -> list[IntArray]:
    """The epoch's batches of indices in 0..n-1, shuffled by (seed, epoch)."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    full = n // batch_size * batch_size if drop_last else n
    return [order[start : start + batch_size] for start in range(0, full, batch_size)]


def prefetch(
    make: Callable[[IntArray], T], batches: Sequence[IntArray], depth: int = 2
) -> Iterator[T]:
    """``make(batch)`` for each batch in order, computed by one thread up to ``depth`` batches ahead.

    NumPy's gather and torch's copies let go of the interpreter lock, so one thread is enough. An
    exception in ``make`` is raised here; leaving the iteration early ends the thread.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                put((make(batch), None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="twinray-prefetch", daemon=True)
    thread.start()
    try:
        for _ in batches:
            value, error = ready.get()
            if error is not None:
                raise error
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


class CopyAhead:
    """Copies batches to a GPU from the loader's thread, on a stream of its own, while the step computes.

    Pinned host memory lets the copy run beside the kernels; the consumer's stream waits for it, the host does not.
    Made once a run: batches are gathered straight into a ring of pinned memory, each place used again when its copy is over.

    Args:
        source: where the pixels are.
        device: the GPU.
        depth: places of the ring.
        beside: small tensors that go with the batch of these indices; they travel on the same stream.
    """

    def __init__(
        self,
        source: PixelSource,
        device: torch.device,
        depth: int = 2,
        beside: Callable[[IntArray], Sequence[Tensor]] | None = None,
    ) -> None:
        self._source, self._device, self._beside = source, device, beside
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ring: list[tuple[Tensor, torch.cuda.Event] | None] = [None] * depth
        self._next = 0

    def __call__(self, indices: IntArray) -> tuple[list[Tensor], torch.cuda.Event]:
        """The batch on the device, pixels first, and the event after which it is there."""
        at, self._next = self._next, (self._next + 1) % len(self._ring)
        place, shape = self._ring[at], self._source.shape(len(indices))
        if place is not None:
            place[1].synchronize()  # the loader's thread waits, never the step
        if place is not None and place[0].shape == shape:
            pinned = place[0]
        else:
            pinned = torch.empty(shape, dtype=self._source.dtype, pin_memory=True)
        pixels = self._source.gather(indices, out=pinned)
        small = self._beside(indices) if self._beside is not None else ()
        with torch.cuda.stream(self._stream):
            # pinned memory that was let go is not used again before the copy from it is over
            there = [
                one.to(self._device, non_blocking=True)
                for one in (pixels, *(each.pin_memory() for each in small))
            ]
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        self._ring[at] = pinned, event
        return there, event

    def batches(self, order: Sequence[IntArray]) -> Iterator[Tensor]:
        """The pixels of the batches of ``order`` on the device, ready for the current stream."""
        for pixels, *_ in self.with_more(order):
            yield pixels

    def with_more(self, order: Sequence[IntArray]) -> Iterator[list[Tensor]]:
        """The same, each followed by what goes with it."""
        for tensors, event in prefetch(self, order):
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            for one in tensors:
                # or its memory could be reused while the step still reads it
                one.record_stream(current)
            yield tensors

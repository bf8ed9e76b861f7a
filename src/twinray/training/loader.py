"""Batches straight from memory-mapped packs: whole batches at a time, ahead of the step.

The order of epoch ``e`` is a permutation drawn from (seed, e) alone, so a resumed run finds its place
by arithmetic.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twinray.records import IntArray

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PixelSource:
    """The chosen rows of several packs' images as one sequence.

    Attributes:
        images: one memory-mapped (n, s, s[, 3]) uint8 array a pack, all of the same s and channels.
        rows: (m, 2) pairs (which array, which row in it).
    """

    images: Sequence[npt.NDArray[np.uint8]]
    rows: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: IntArray) -> Tensor:
        """Pixels (b, s, s[, 3]) uint8 of the given positions, in their order."""
        first = self.images[0]
        out = np.empty((len(indices), *first.shape[1:]), dtype=np.uint8)
        chosen = self.rows[indices]
        for which, array in enumerate(self.images):
            here = np.flatnonzero(chosen[:, 0] == which)
            # Ascending rows let the disk read forwards; the positions put them back in order.
            here = here[np.argsort(chosen[here, 1], kind="stable")]
            out[here] = array[chosen[here, 1]]
        return torch.from_numpy(out)


def epoch_order(n: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool = True) -> list[IntArray]:
    """The epoch's batches of indices in 0..n-1, shuffled by (seed, epoch)."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    full = n // batch_size * batch_size if drop_last else n
    return [order[start : start + batch_size] for start in range(0, full, batch_size)]


def prefetch(make: Callable[[IntArray], T], batches: Sequence[IntArray], depth: int = 2) -> Iterator[T]:
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
    """

    def __init__(self, gather: Callable[[IntArray], Tensor], device: torch.device) -> None:
        self._gather, self._device = gather, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, indices: IntArray) -> tuple[Tensor, torch.cuda.Event]:
        """The batch on the device, and the event after which it is there."""
        pixels = self._gather(indices).pin_memory()
        with torch.cuda.stream(self._stream):
            there = pixels.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return there, event

    def batches(self, order: Sequence[IntArray]) -> Iterator[Tensor]:
        """The batches of ``order`` on the device, ready for the current stream."""
        for pixels, event in prefetch(self, order):
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            pixels.record_stream(current)  # or its memory could be reused while the step still reads it
            yield pixels

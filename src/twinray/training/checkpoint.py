"""Checkpoints: everything that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from twinray.errors import InputError, TwinrayError
from twinray.files import write_bytes

_NAME = re.compile(r"step-(\d{9})\.pt")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    Attributes:
        last: the newest so many; 2 by default: one before the newest in case the disk damages that.
        every_epochs: besides, the one at the end of every so many epochs, for ever; 0 for none.
    """

    last: int = 2
    every_epochs: int = 0

    def removable(self, steps: list[int], steps_per_epoch: int) -> list[int]:
        """Of the steps with a checkpoint, ascending, those to remove."""
        period = self.every_epochs * steps_per_epoch
        return [step for step in steps[: -self.last] if not period or step % period]


@final
class Writer:
    """Writes a run's states from a thread of its own, in turn, while training goes on.

    The state is copied first, for a GPU into pinned memory that is used again, so that later steps change nothing in it. A write that
    failed is raised by the next call of any method: a run never goes on for long without a checkpoint.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="twinray-checkpoint")
        self._pending: Future[None] | None = None
        self._memory: list[Tensor] = []
        self._last = time.monotonic()

    def due(self, minutes: float) -> bool:
        """Whether so many minutes went by since the last state was taken, or since the start."""
        return time.monotonic() - self._last >= minutes * 60

    def put(self, state: Mapping[str, Any], write: Callable[[Any], None]) -> None:
        """Copy a state, a tree of dicts, lists and tensors, and have ``write`` called with the copy; waits for the one before.

        Raises:
            TwinrayError: the write before failed.
        """
        self.wait()
        held = _copied(state, self._memory)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._pending = self._thread.submit(write, held)
        self._last = time.monotonic()

    def check(self) -> None:
        """Raise what a write that ended was refused; waits for none.

        Raises:
            TwinrayError: it failed.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is left to write.

        Raises:
            TwinrayError: the write failed.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except (TwinrayError, MemoryError):
            raise
        except (
            Exception
        ) as error:  # torch's and the serialiser's own: whatever it was, there is no checkpoint
            raise TwinrayError(
                f"could not write a checkpoint: {error}; the one before is kept"
            ) from error

    def close(self) -> None:
        """End the thread; what it is writing comes to its end, and no error is raised."""
        self._thread.shutdown(wait=True)


def _copied(state: Any, memory: list[Tensor]) -> Any:
    """The same tree with tensors of the processor's memory, taken from ``memory`` in turn where they fit."""
    used = 0

    def copy(value: Any) -> Any:
        nonlocal used
        if isinstance(value, Tensor):
            if used == len(memory):
                memory.append(_like(value))
            elif not _fits(memory[used], value):
                memory[used] = _like(value)
            place = memory[used].copy_(value.detach(), non_blocking=True)
            used += 1
            return place
        if isinstance(value, Mapping):
            return {key: copy(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copy(inner) for inner in value)
        return value

    return copy(state)


def _fits(place: Tensor, value: Tensor) -> bool:
    return (place.shape, place.dtype, place.stride()) == (value.shape, value.dtype, value.stride())


def _like(value: Tensor) -> Tensor:
    if value.device.type == "cuda":
        try:
            return torch.empty_like(value, device="cpu", pin_memory=True, requires_grad=False)
        except RuntimeError:  # the system pins no more: a slower copy
            pass
    return torch.empty_like(value, device="cpu", requires_grad=False)


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], keep: Keep, steps_per_epoch: int
) -> None:
    """Write the checkpoint of ``step`` atomically, then remove those that :class:`Keep` does not keep.

    The bytes are made in memory first, so that a full disk is an ordinary error here and the older
    checkpoints stay as they were.

    Raises:
        TwinrayError: the disk refuses.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / checkpoint_name(step), buffer.getbuffer(), "checkpoint")
    found = {_step(path): path for path in _checkpoints(folder)}
    for old in keep.removable(sorted(found), steps_per_epoch):
        found[old].unlink(missing_ok=True)


def load_checkpoint(folder: Path, step: int | None = None) -> dict[str, Any] | None:
    """The newest readable checkpoint's state, or that of ``step``; None if there is none yet.

    Looking for the newest also removes what a killed run left half written, and damaged checkpoints.

    Raises:
        InputError: there are checkpoints and none can be read.
    """
    if step is not None:
        chosen: dict[str, Any] = torch.load(
            folder / checkpoint_name(step), map_location="cpu", weights_only=True
        )
        return chosen
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed while writing
        leftover.unlink(missing_ok=True)
    found = _checkpoints(folder)
    for path in reversed(found):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            print(
                f"warning: checkpoint {path} is damaged ({type(error).__name__}); trying the one before",
                file=sys.stderr,
            )
            continue
        for useless in (
            p for p in found if p > path
        ):  # or it would count among the newest, for ever
            useless.unlink(missing_ok=True)
        return state
    if found:
        raise InputError(
            f"none of the {len(found)} checkpoints in {folder} can be read; start anew in another --out"
        )
    return None


def checkpoint_name(step: int) -> str:
    """Name of a step's file."""
    return f"step-{step:09d}.pt"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []

"""Checkpoints: everything that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import io
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twinray.errors import InputError
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


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: Keep, steps_per_epoch: int) -> None:
    """Write the checkpoint of ``step`` atomically, then remove those that :class:`Keep` does not keep.

    The bytes are made in memory first, so that a full disk is an ordinary error here and the older
    checkpoints stay as they were.

    Raises:
        TwinrayError: the disk refuses.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / _name(step), buffer.getbuffer(), "checkpoint")
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
        chosen: dict[str, Any] = torch.load(folder / _name(step), map_location="cpu", weights_only=True)
        return chosen
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed while writing
        leftover.unlink(missing_ok=True)
    found = _checkpoints(folder)
    for path in reversed(found):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
            print(
                f"warning: checkpoint {path} is damaged ({type(error).__name__}); trying the one before",
                file=sys.stderr,
            )
            continue
        for useless in (p for p in found if p > path):  # or it would count among the newest, for ever
            useless.unlink(missing_ok=True)
        return state
    if found:
        raise InputError(f"none of the {len(found)} checkpoints in {folder} can be read; start anew in another --out")
    return None


def _name(step: int) -> str:
    return f"step-{step:09d}.pt"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []

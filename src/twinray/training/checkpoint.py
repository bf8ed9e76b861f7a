"""Checkpoints: everything that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import io
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import torch

from twinray.errors import InputError
from twinray.files import write_bytes

_NAME = re.compile(r"step-(\d{9})\.pt")
KEEP = 2
"""The newest, and one before it in case the disk damages the newest."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``step`` atomically, then remove all but the newest :data:`KEEP`.

    The bytes are made in memory first, so that a full disk is an ordinary error here and the older
    checkpoints stay as they were.

    Raises:
        TwinrayError: the disk refuses.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / f"step-{step:09d}.pt", buffer.getbuffer(), "checkpoint")
    for old in _checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint's state, or None if there is none yet.

    Raises:
        InputError: there are checkpoints and none can be read.
    """
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


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []

"""Being asked to stop, and having to: signals of a scheduler, and batches that broke the training.

SLURM sends SIGTERM (or, with ``--signal=USR1@120``, SIGUSR1) some time before it takes the machine away. A terminal sends
SIGINT for Ctrl-C. The run then finishes its step, writes a checkpoint and ends with one line; the same command with
``--resume`` goes on at that step. A second Ctrl-C ends the run at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from twinray.files import write_bytes

FAILED_STEP = "failed-step.pt"
INTERRUPT = signal.SIGINT.name
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


_SAVING = b"\ninterrupted: the step is finished and saved first; Ctrl-C again stops at once\n"


@dataclass
class StopRequest:
    """Set by the signal handler, read by the loop between steps."""

    name: str | None = None


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGUSR1 and SIGINT into a request for the block's duration; elsewhere than in the main thread, nothing.

    Raises:
        KeyboardInterrupt: a second SIGINT, or at the block's end one that nobody acted on.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if request.name == INTERRUPT:
                raise KeyboardInterrupt
            # a step may take long, and print may not be called from a handler
            if os.environ.get("RANK", "0") == "0":
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _SAVING)
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.name == INTERRUPT:  # it came with the last step
        raise KeyboardInterrupt


def save_failed_step(
    folder: Path, *, step: int, seed: int, batch: Any, model: dict[str, Any], reason: str
) -> Path:
    """Keep what is needed to run a broken step again.

    ``torch.load(path, weights_only=True)`` gives ``step`` (counted from 0), ``seed``, ``reason``,
    ``batch`` (what the loader gave) and ``model``. The last is the state dict when it was noticed:
    on a processor before the step's update.
    """
    buffer = io.BytesIO()
    torch.save(
        {"step": step, "seed": seed, "reason": reason, "batch": batch, "model": model}, buffer
    )
    path = folder / FAILED_STEP
    write_bytes(path, buffer.getbuffer(), "the failed step")
    return path

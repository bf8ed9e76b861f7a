"""The log: one line of JSON an event, without names of patients, files and secrets.

What goes in is chosen word by word: names of events, ids that the store made, routes, counts, times. Messages of errors are
left out, since they may quote what a file or a request holds; kind and place of an error are told.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from twinray.files import clear_disk_errors

_LOCK = threading.Lock()
_target: list[int] = []


def log_to(path: Path | None) -> None:
    """Send this process's log to the end of a file; None for standard error.

    Raises:
        TwinrayError: the file cannot be written.
    """
    _target.clear()
    if path is not None:
        with clear_disk_errors(path, "log"):
            _target.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def log(event: str, **facts: Any) -> None:
    """Write one line; a log that cannot be written stops nothing."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    line = json.dumps({"at": at, "event": event, **facts}, default=str) + "\n"
    try:
        with _LOCK:
            os.write(_target[0] if _target else sys.__stderr__.fileno(), line.encode())  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return


def error_facts(error: BaseException) -> dict[str, Any]:
    """Kind and place of an error for the log, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {
        "error": type(error).__name__,
        "frames": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    }

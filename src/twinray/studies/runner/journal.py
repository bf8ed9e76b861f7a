"""The journal of a study: what was planned, done and opened, and when; lines that are only ever appended.

Every line holds the SHA-256 of the line before it, so a line that was changed, removed or put in later shows. It is no
signature: who writes the whole journal anew is not found out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.files import clear_disk_errors
from twinray.studies.runner.claims import now

FILE = "journal.jsonl"
_LOST_S = 30.0
"""Time after which a mark that keeps others out is that of a killed process, in seconds: a line takes milliseconds."""


@dataclass(frozen=True)
class Event:
    """One line.

    Attributes:
        number: number of the line, from 0.
        at: when, ISO 8601 in UTC.
        what: kind of the event.
        about: facts on it, as JSON holds them.
    """

    number: int
    at: str
    what: str
    about: Mapping[str, Any]


class Journal:
    """The journal in a study's folder."""

    def __init__(self, study: Path) -> None:
        self.path = study / FILE

    def append(self, what: str, **about: Any) -> None:
        """Add a line; several processes may do so at once.

        Raises:
            TwinrayError: the disk refuses.
        """
        with self._locked() as handle:
            found = _whole(handle)
            data = _complete(found)
            lines = data.splitlines()
            previous = _hash(lines[-1]) if lines else ""
            line = {"n": len(lines), "at": now(), "event": what, **about, "previous": previous}
            if len(data) < len(found):
                os.ftruncate(handle, len(data))  # what a kill cut short goes
            os.lseek(handle, 0, os.SEEK_END)
            _write(handle, (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))
            os.fsync(handle)

    def events(self) -> list[Event]:
        """All lines in their order; a line that a kill cut short is left out.

        Raises:
            InputError: a line that is none of ours.
        """
        return [event for event, _ in self._read()]

    def broken(self) -> int | None:
        """Number of the first line that does not follow from the one before; None where all do."""
        previous = ""
        try:
            read = self._read()
        except InputError:
            return 0
        for i, (event, line) in enumerate(read):
            if event.number != i or json.loads(line).get("previous") != previous:
                return i
            previous = _hash(line)
        return None

    def _read(self) -> list[tuple[Event, bytes]]:
        if not self.path.is_file():
            return []
        found = []
        for number, line in enumerate(_complete(self.path.read_bytes()).splitlines()):
            try:
                own = json.loads(line)
                about = {k: v for k, v in own.items() if k not in ("n", "at", "event", "previous")}
                found.append((Event(int(own["n"]), str(own["at"]), str(own["event"]), about), line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number + 1}: expected an event as this program writes it; was it edited? Restore the file"
                ) from error
        return found

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with clear_disk_errors(self.path, "journal"):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                with ExitStack() as held:
                    try:
                        fcntl.flock(handle, fcntl.LOCK_EX)
                    except OSError:  # a network file system without locks
                        held.enter_context(_only_one(self.path.with_name(f".{FILE}.lock")))
                    yield handle
            finally:
                os.close(handle)


@contextmanager
def _only_one(mark: Path) -> Iterator[None]:
    """Keep other processes out by a file that one alone can make; the mark of a killed process is removed after a while."""
    known, since = 0, time.monotonic()
    while True:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        except FileExistsError:
            time.sleep(0.01)
        with suppress(FileNotFoundError):
            if (own := mark.stat().st_mtime_ns) != known:
                known, since = own, time.monotonic()
            elif time.monotonic() - since > _LOST_S:
                mark.unlink()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _whole(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(handle, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _write(handle: int, data: bytes) -> None:
    """All of it: a disk that is nearly full takes a part and says so only when asked for the rest."""
    while data:
        data = data[os.write(handle, data) :]


def _complete(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()

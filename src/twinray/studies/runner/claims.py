"""Claims: which worker does which piece of work, by files that appear whole or not at all. There is no server and no queue.

A piece has numbered claims, and the holder is the highest. A claim is written beside its name and linked to it, which fails
where the name exists, on NFS too. A claim whose process is gone is taken over by making the next number: of two workers that
try, one succeeds. A done piece has a ``done`` file. A claim that ended without one has an ``ended`` file with the reason.

Whether a process is gone is known at once on its own machine (process id, start time, boot). Elsewhere, and after the machine was
started again, it is told by a heartbeat: a claim whose file was not touched for :data:`LEASE_S` is given up. A worker that finds a
higher claim than its own ends itself.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from twinray.errors import InputError, TwinrayError
from twinray.files import clear_disk_errors, read_json, typed, write_bytes, write_json

LEASE_S = 180.0
"""Time without a heartbeat after which another machine's claim is given up, in seconds."""
BEAT_S = 15.0
"""Time between two heartbeats, in seconds."""

State = Literal["open", "running", "failed", "done"]


@dataclass(frozen=True)
class Process:
    """A process on one machine, so that another one can tell whether it still runs.

    Attributes:
        host, boot, space: name of the machine, its boot, and the space that process ids count in (a container has its own).
        pid, started: process id, and start time in ticks since the boot; ids are given again.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str

    @staticmethod
    def own() -> Process:
        """This process."""
        return Process(platform.node(), _boot(), _space(), os.getpid(), _started(os.getpid()))

    def gone(self) -> bool | None:
        """Whether it has ended; None where that cannot be told from here."""
        # names of machines repeat ("localhost"), and so do spaces: only the boot tells that it is this one
        if not self.boot or (self.host, self.space, self.boot) != (platform.node(), _space(), _boot()):  # fmt: skip
            return None
        return _started(self.pid) != self.started


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a piece.

    Attributes:
        piece: id of the piece. number: number of the claim, from 0.
        token: random text; no two claims share it.
        process: who holds it. at: when it was made, ISO 8601 in UTC.
    """

    piece: str
    number: int
    token: str
    process: Process
    at: str


@dataclass(frozen=True)
class Ended:
    """A claim that ended without a result.

    Attributes:
        reason: one line. failed: whether the piece failed; else it was interrupted and may be claimed again.
        at: when, ISO 8601 in UTC.
    """

    reason: str
    failed: bool
    at: str


@dataclass(frozen=True)
class Done:
    """What is left of a piece that was done.

    Attributes:
        piece, name: its id and its description.
        claim: number and token of the claim under which it was done.
        host: name of the machine. began, ended: ISO 8601 in UTC.
        seconds: duration under this claim.
        files: SHA-256 of the files that stand for the result, by name.
    """

    piece: str
    name: str
    claim: int
    token: str
    host: str
    began: str
    ended: str
    seconds: float
    files: dict[str, str] = field(default_factory=dict)


class Claims:
    """The claims of a study.

    Args:
        folder: folder of the claims.
        lease_s: see :data:`LEASE_S`.
    """

    def __init__(self, folder: Path, lease_s: float = LEASE_S) -> None:
        self.folder, self._lease_s = folder, lease_s
        with clear_disk_errors(folder, "folder of claims"):
            folder.mkdir(parents=True, exist_ok=True)

    def state(self, piece: str) -> State:
        """Where a piece stands."""
        return self._state(piece, self._last(piece))

    def _state(self, piece: str, last: int) -> State:
        """Where a piece stands whose last claim has a number, -1 for none."""
        if self._path(piece, "done").is_file():
            return "done"
        if last < 0:
            return "open"
        ended = self._ended(piece, last)
        if ended is not None:
            retried = (self.folder / f"{piece}.retry.{last}").is_file()
            return "failed" if ended.failed and not retried else "open"
        return "open" if self._stale(piece, last) else "running"

    def take(self, piece: str) -> Claim | None:
        """Claim a piece that is open; None where it is not, or where another worker was faster.

        Raises:
            TwinrayError: the disk refuses.
        """
        # one look for both: a claim that another worker makes after it has the number that is linked to below
        last = self._last(piece)
        if self._state(piece, last) != "open":
            return None
        number = last + 1
        claim = Claim(piece, number, secrets.token_hex(8), Process.own(), now())
        target = self._path(piece, "claim", number)
        own = self.folder / f".{piece}.{claim.token}.tmp"
        try:
            write_json(own, asdict(claim), "claim")
            try:
                os.link(own, target)
            except FileExistsError:
                # NFS sends a request again whose answer was lost, and the second finds what the first made
                if not target.samefile(own):
                    return None
        except OSError as error:
            raise TwinrayError(
                f"could not claim a run in {self.folder}: {error.strerror}; the disk must allow links between files"
            ) from error
        finally:
            own.unlink(missing_ok=True)
        if self._path(piece, "done").is_file():  # done between the look and the claim
            self.end(claim, "done already", failed=False)
            return None
        return claim

    def cut_off(self, piece: str) -> int:
        """Number of claims whose process went without a word, or still works."""
        return sum(
            not self._path(piece, "ended", number).is_file()
            for number in range(self._last(piece) + 1)
        )

    def holds(self, claim: Claim) -> bool:
        """Whether nobody has taken the claim over."""
        return self._last(claim.piece) == claim.number

    def beat(self, claim: Claim) -> None:
        """Say that the holder still works."""
        with suppress(OSError):
            os.utime(self._path(claim.piece, "claim", claim.number))

    def finish(self, claim: Claim, name: str, seconds: float, files: Mapping[str, str]) -> Done:
        """Mark a piece as done."""
        done = Done(
            claim.piece,
            name,
            claim.number,
            claim.token,
            claim.process.host,
            claim.at,
            now(),
            round(seconds, 3),
            dict(files),
        )
        write_json(self._path(claim.piece, "done"), asdict(done), "mark of a finished run")
        return done

    def end(self, claim: Claim, reason: str, *, failed: bool) -> None:
        """End a claim without a result."""
        path = self._path(claim.piece, "ended", claim.number)
        write_json(path, asdict(Ended(reason, failed, now())), "end of a claim")

    def fail_dead(self, piece: str, reason: str) -> bool:
        """Mark a piece as failed whose last holder is gone; false where another worker has it by now."""
        last = self._last(piece)
        if last < 0 or self.state(piece) != "open" or self._ended(piece, last) is not None:
            return False
        path = self._path(piece, "ended", last)
        write_json(path, asdict(Ended(reason, True, now())), "end of a claim")
        return True

    def retry(self, piece: str) -> None:
        """Open a failed piece again."""
        if self.state(piece) == "failed":
            write_bytes(self.folder / f"{piece}.retry.{self._last(piece)}", b"", "mark of a retry")

    def done(self, piece: str) -> Done | None:
        """What is left of a piece that was done; None where it was not.

        Raises:
            InputError: the file is damaged.
        """
        path = self._path(piece, "done")
        what = "mark of a finished run"
        return typed(read_json(path, what), Done, path, what) if path.is_file() else None

    def failure(self, piece: str) -> str:
        """Why a piece failed, in one line; empty where it did not."""
        ended = self._ended(piece, self._last(piece)) if self.state(piece) == "failed" else None
        return "" if ended is None else ended.reason

    def holder(self, piece: str) -> Claim | None:
        """The last claim on a piece; None where there is none, or where its file is damaged."""
        return self._claim(piece, self._last(piece))

    def left_by(self, piece: str, pid: int, since: str) -> Claim | None:
        """The claim, made at a time or later, that a dead process of this machine left without a word; None where there is none."""
        for number in range(self._last(piece), -1, -1):
            claim = self._claim(piece, number)
            if claim is not None and claim.at >= since and claim.process.pid == pid:
                ended = self._path(piece, "ended", number).is_file()
                return claim if claim.process.gone() and not ended else None
        return None

    def _path(self, piece: str, what: str, number: int | None = None) -> Path:
        return self.folder / (f"{piece}.{what}" + ("" if number is None else f".{number}"))

    def _last(self, piece: str) -> int:
        """Number of the last claim; -1 for none. Numbers have no gap, so few names are asked for."""
        number = -1
        while self._path(piece, "claim", number + 1).exists():
            number += 1
        return number

    def _claim(self, piece: str, number: int) -> Claim | None:
        """A claim; None where there is none, or where its file is damaged, as a power cut may leave it."""
        path = self._path(piece, "claim", number)
        if number < 0 or not path.is_file():
            return None
        try:
            return typed(read_json(path, "claim"), Claim, path, "claim")
        except InputError:
            return None

    def _ended(self, piece: str, number: int) -> Ended | None:
        path = self._path(piece, "ended", number)
        if not path.is_file():
            return None
        try:
            return typed(read_json(path, "end of a claim"), Ended, path, "end of a claim")
        except InputError:  # that it ended is known, and why is not: it may be claimed again
            return Ended("", False, "")

    def _stale(self, piece: str, number: int) -> bool:
        claim = self._claim(piece, number)
        gone = None if claim is None else claim.process.gone()
        if gone is not None:
            return gone
        return self._time() - self._path(piece, "claim", number).stat().st_mtime > self._lease_s

    def _time(self) -> float:
        """Now, by the clock of the disk: the clocks of two machines may differ by minutes."""
        probe = self.folder / f".clock.{platform.node()}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            probe.unlink(missing_ok=True)


class Heartbeat:
    """A thread that touches a claim while the work goes on, and ends the process where the claim was taken over."""

    def __init__(self, claims: Claims, claim: Claim, every_s: float = BEAT_S) -> None:
        self._stop = threading.Event()
        self._claims, self._claim, self._every_s = claims, claim, every_s
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                held = self._claims.holds(self._claim)
            except (
                OSError
            ):  # a network disk that does not answer; without a beat the claim would be given up
                continue
            if not held:
                # Another worker writes into this run's folder by now, so nothing here may run to its end: no handler, no
                # checkpoint at the stop. What is on the disk is whole: files appear by renaming, and a table that grows is cut
                # back to its last whole row by whoever resumes.
                os._exit(TAKEN_OVER)
            self._claims.beat(self._claim)


TAKEN_OVER = 75
"""Exit status of a worker whose claim was taken over while it stood still."""


def now() -> str:
    """Now, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process; empty where there is none. A zombie has ended, though its id is still taken."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    rest = text[text.rindex(")") + 2 :].split()
    return "" if rest[0] in "ZX" else rest[19]


def told(claim: Claim) -> Mapping[str, Any]:
    """What the journal keeps of a claim."""
    return {
        "claim": claim.number,
        "token": claim.token,
        "host": claim.process.host,
        "pid": claim.process.pid,
    }

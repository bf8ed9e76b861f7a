"""Writing files so that a crash, a `kill -9` or a full disk never leaves half of one.

A file is written beside its final name, flushed to the disk (fsync) and renamed over it. Whoever
reads the final name sees the old bytes or the new ones, nothing between.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import platform
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

import msgspec

from twinray.errors import DiskFull, InputError, TwinrayError

_CHUNK = 1 << 22
P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def clear_disk_errors(path: Path, what: str) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into one clear line.

    Raises:
        DiskFull: the disk or quota is full.
        TwinrayError: the place is read-only, or may not be written.
    """
    try:
        yield
    except OSError as error:
        kind = _kind(error)
        if kind is DiskFull:
            advice = "the disk is full; free some space, then run the same command again, with --resume where it has that option"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "this place may not be written; choose another --out"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            advice = "a file stands where a folder is needed; choose another --out"
        else:
            advice = "check the disk"
        raise kind(f"could not write {what} {path}: {error.strerror or error}; {advice}") from error


def _kind(error: OSError) -> type[TwinrayError]:
    return DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else TwinrayError


def make_folder(folder: Path, what: str = "folder") -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        TwinrayError: the place cannot be written.
    """
    with clear_disk_errors(folder, what):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_writer(path: Path, what: str = "file") -> Iterator[BinaryIO]:
    """Open a new file that takes the name ``path`` only when the block ends without an error.

    Raises:
        TwinrayError: the place cannot be written; what ``path`` held before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with clear_disk_errors(path, what):
        _note(path)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk only once the folder that holds the name is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot sync a folder
    finally:
        os.close(handle)


def rename_file(path: Path, to: Path, what: str = "file") -> None:
    """Give a whole file another name on the same disk, in the place of what stood there.

    Raises:
        TwinrayError: the place cannot be written.
    """
    with clear_disk_errors(to, what):
        _note(to)
        path.replace(to)
        _sync_folder(to.parent)


def write_bytes(path: Path, data: bytes | memoryview, what: str = "file") -> None:
    """Write ``data`` to ``path`` atomically, in pieces so that a full disk shows as an error of ours."""
    view = memoryview(data)
    with atomic_writer(path, what) as file:
        for start in range(0, len(view), _CHUNK):
            file.write(view[start : start + _CHUNK])


def write_text(path: Path, text: str, what: str = "file") -> None:
    """Write UTF-8 text to ``path`` atomically."""
    write_bytes(path, text.encode("utf-8"), what)


def write_json(path: Path, value: Any, what: str = "file") -> None:
    """Write ``value`` as indented JSON to ``path`` atomically; NaN is refused, it is not JSON."""
    write_text(path, as_json(value), what)


def as_json(value: Any) -> str:
    """Indented JSON as our files hold it; NaN is refused, it is not JSON."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def check_regular(path: Path, what: str = "file") -> None:
    """Refuse to open what would wait for ever or never end: a named pipe, a socket, a device.

    A path that is not there, or a folder, passes: opening it says so.

    Raises:
        InputError: the path leads to one of these.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(
            f"expected a regular file as {what}, {path} is a pipe, a socket or a device; give a file"
        )


def read_json(path: Path, what: str = "file", *, foreign: bool = False) -> Any:
    """Read JSON.

    Args:
        path: path of the file.
        what: what it is, for messages.
        foreign: flag of a file that others wrote: whole numbers of any size, and text that is no Unicode, are taken.

    Raises:
        InputError: the file is missing, unreadable or not JSON (with line and column). Unless
            ``foreign`` also a whole number beyond 64 bits, or text that no file of ours can hold.
    """
    check_regular(path, what)
    try:
        text = _without_mark(path.read_bytes())
        content = json.loads(text, parse_int=int if foreign else _own_int)
        if not foreign and _HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except UnicodeEncodeError as error:
        raise InputError(
            f"expected Unicode text in {what} {path}, found half a character; was it edited? Restore the file"
        ) from error
    except OverflowError as error:
        raise InputError(f"{what} {path}: {error}; was it edited? Restore the file") from error
    except OSError as error:
        raise InputError(
            f"could not read {what} {path}: {error.strerror}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected JSON text in {what} {path}, found other bytes; check that it is the right file"
        ) from error
    except RecursionError as error:
        raise InputError(
            f"{what} {path} is nested too deeply to be one of ours; check that it is the right file"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"expected JSON in {what} {path}, line {error.lineno} column {error.colno}: {error.msg}; repair the file"
        ) from error


_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a character outside the basic plane; the other half may follow it."""


def _own_int(text: str) -> int:
    """A whole number as we write them.

    Raises:
        OverflowError: more than 64 bits.
    """
    if len(text) < 20 and -(2**63) <= (number := int(text)) < 2**63:
        return number
    raise OverflowError(f"expected whole numbers of 64 bits, found {text[:30]}")


def _without_mark(data: bytes) -> str:
    """The text, in UTF-8 or with a byte order mark in UTF-16, without the mark (RFC 8259 lets readers ignore it)."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8")


def typed(content: Any, kind: type[T], path: Path, what: str = "file", inside: str = "") -> T:
    """A dataclass from what a JSON file holds.

    Args:
        content: the JSON value.
        kind: the dataclass; types may carry rules (``Annotated[int, msgspec.Meta(ge=1)]``).
        path, what: of the file, for messages.
        inside: the key under which the value stands, if not at the top (``pack``).

    Raises:
        InputError: naming file and key, what was expected there and what came.
    """
    known = (
        [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    )
    unknown = (
        [key for key in content if key not in known] if isinstance(content, dict) and known else []
    )
    if unknown:
        key = f"{inside}.{unknown[0]}" if inside else unknown[0]
        raise InputError(
            f"{what} {path}: the key {key!r} is not one that this version knows; use the twinray that wrote it, or "
            "restore the file"
        )
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        expected, _, where = str(error).partition(" - at ")
        places = [inside, where.strip("`").removeprefix("$").removeprefix(".")]
        if lacking := re.fullmatch(r"Object missing required field `(.*)`", expected):
            places, expected = [*places, lacking[1]], f"missing required field `{lacking[1]}`"
        key = ".".join(place for place in places if place)
        raise InputError(
            f"{what} {path}: {f'{key}: ' if key else ''}{expected[:1].lower()}{expected[1:]}; was it edited? Restore the file"
        ) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def lock_folder(folder: Path, what: str) -> None:
    """Make ``folder``, or keep other processes out of the one that is there.

    Raises:
        InputError: it is a file, or another process works in it.
        TwinrayError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"expected a folder for the {what}, {folder} is a file; choose another --out"
        )
    make_folder(folder, what)
    _lock(folder, what)


def claim_folder(folder: Path, resume: bool, what: str, *, can_resume: bool = False) -> None:
    """Make ``folder`` for new results, and refuse to write among existing files.

    Args:
        folder: folder for the results.
        resume: go on with what it holds; what a killed process left half written is removed.
        what: the results, in a word or two.
        can_resume: the verb has the option --resume, so that a refusal may advise it.

    Raises:
        InputError: it holds files and ``resume`` is off, it is a file, or another process works in it.
        TwinrayError: it cannot be made.
    """
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        advice = ", or continue it with --resume" if can_resume else ""
        raise InputError(f"{folder} is not empty; choose another --out for the {what}{advice}")
    lock_folder(folder, what)
    for pattern in _LEFT_BEHIND if resume else ():
        for stale in folder.glob(pattern):  # of a process that was killed while it wrote a file
            stale.unlink(missing_ok=True)


_LISTS: list[tuple[Path, Path, set[str]]] = []
"""Folders whose files are listed as they are written: the folder, the list, and the names in it."""


def list_written(folder: Path, into: Path, known: Iterable[str] = ()) -> None:
    """From now on write the name of every file that this process writes in ``folder`` into a list, before the file itself.

    A kill then leaves no file of ours that the list lacks. It ends with :func:`folders_freed`.

    Args:
        folder: folder of the files, and of those in the folders below it.
        into: the list, a line of JSON text a name, relative to ``folder``.
        known: names that need no line.
    """
    _LISTS.append((folder.absolute(), into, set(known)))


def _note(path: Path) -> None:
    for folder, into, known in _LISTS:
        if path.absolute().is_relative_to(folder) and path != into:
            name = path.absolute().relative_to(folder).as_posix()
            if name not in known:
                known.add(name)
                with into.open("ab") as file:
                    file.write(json.dumps(name).encode() + b"\n")


_LEFT_BEHIND = (".*.tmp", "*/.*.tmp", "*/*/.*.tmp")
_LOCKS: list[tuple[tuple[int, int], int]] = []
"""Folders that this process works in: device and inode, and the open handle that holds the lock."""


def _lock(folder: Path, what: str) -> None:
    """Keep other processes out of a folder until the job ends; the system ends the lock with its process.

    Raises:
        InputError: another process works in it.
    """
    handle = os.open(folder, os.O_RDONLY)
    about = os.fstat(handle)
    key = (about.st_dev, about.st_ino)
    if any(key == held for held, _ in _LOCKS):
        os.close(handle)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder} is in use{_holder(about)}; wait for it to end, or choose another --out for the {what}"
        ) from None
    except OSError:  # a network file system without locks
        os.close(handle)
    else:
        _LOCKS.append((key, handle))


def _holder(about: os.stat_result) -> str:
    """Which process holds the lock, where the system tells."""
    where = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return " by another process"
    for row in rows:
        if where in row and "FLOCK" in row:
            return f" by process {row[row.index(where) - 1]} on {platform.node()}"
    return " by another process"


@contextmanager
def folders_freed() -> Iterator[None]:
    """Let go of the folders that are claimed inside the block when it ends."""
    before, lists = len(_LOCKS), len(_LISTS)
    try:
        yield
    finally:
        del _LISTS[lists:]
        while len(_LOCKS) > before:
            os.close(_LOCKS.pop()[1])


def frees_folders(job: Callable[P, T]) -> Callable[P, T]:
    """The job, after which other processes may work in the folders that it claimed."""

    @functools.wraps(job)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        with folders_freed():
            return job(*arguments, **options)

    return run


class GrowingTable:
    """A CSV file that grows by whole rows: a kill or a full disk leaves all that was done before.

    Attributes:
        size: number of bytes that are written.

    Raises:
        TwinrayError: the disk refuses.
    """

    def __init__(self, path: Path, columns: Sequence[str], size: int = 0) -> None:
        """Begin a table, or go on behind the first ``size`` bytes of the one that is there."""
        self._path, self.size = path, size
        with clear_disk_errors(path, "table"):
            _note(path)
            if size:
                os.truncate(path, size)
            else:
                path.unlink(missing_ok=True)
        if not size:
            self.append([columns])

    def append(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write at once: what is in the table survives a stop."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode("utf-8")
        try:
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self.size)  # no half row
            raise _kind(error)(
                f"could not write {self._path}: {error.strerror}; what was done before is kept in it: "
                "make room, then run the same command with --resume"
            ) from error
        self.size += len(data)

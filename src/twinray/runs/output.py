"""A folder of results that a reading verb writes (predict, explain, evaluate, embed, faithfulness). No torch.

``made_by.json`` is the first file in it and says which verb made it, with which options and of which inputs. While the
verb works, ``.written.jsonl`` lists every file before it is written. ``.progress.jsonl`` holds what is done, for verbs that
can go on. Both lists go when the verb ends: a job that was cut off and resumed leaves the bytes of one that was not.

``--resume`` goes on where the last line of progress ends, with the same options and inputs alone. ``--overwrite`` removes
what the lists and the record name, and refuses a folder that holds anything else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, final

from twinray.about import own_version
from twinray.checks import DATA, PLACE, counting, of_kind
from twinray.errors import InputError
from twinray.files import (
    check_regular,
    clear_disk_errors,
    list_written,
    lock_folder,
    read_json,
    sha256,
    typed,
    write_json,
)
from twinray.runs.folder import plain

RECORD, WRITTEN, PROGRESS = "made_by.json", ".written.jsonl", ".progress.jsonl"

_WHAT = "record of the results"
_FORMAT = 1
_FREE = frozenset({"resume", "overwrite", "workers", "timeout", "memory"})
"""Options that decide no byte of the results."""


@dataclass(frozen=True)
class _Kept:
    """What ``made_by.json`` holds.

    Attributes:
        format: version of the record.
        verb: name of the verb.
        options: options that decide the results, by name.
        inputs: what was read and how it was computed, by name.
        started: time of the first start, ISO 8601.
        finished: flag, true once everything is written.
        files: names of all files of a finished job, relative to the folder.
    """

    format: int
    verb: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    started: str
    finished: bool
    files: tuple[str, ...]


@final
class Output:
    """The folder of a job that is at work, as a context: leaving it without an error finishes the record.

    Attributes:
        path: the folder.
        started: time of the first start; a job that is resumed writes the same into its files.
        finished: flag, true where an earlier start of the same job left nothing to do.
        progress: what :meth:`keep` was given by earlier starts, the oldest first.
    """

    def __init__(self, path: Path, kept: _Kept, progress: Sequence[Any]) -> None:
        self.path = path
        self.started = datetime.fromisoformat(kept.started)
        self.finished = kept.finished
        self.progress: list[Any] = list(progress)
        self._kept = kept

    def keep(self, state: Any) -> None:
        """Add what is done, as JSON, when the files that it speaks of are written."""
        line = json.dumps(state, ensure_ascii=True, allow_nan=True)
        with (
            clear_disk_errors(self.path / PROGRESS, "progress"),
            (self.path / PROGRESS).open("ab") as file,
        ):
            file.write(line.encode("ascii") + b"\n")

    def go_on_after(self, n: int) -> None:
        """Take the first ``n`` lines of progress alone; what comes after them is done again."""
        self.progress = self.progress[:n]
        if (self.path / PROGRESS).exists():
            text = "".join(json.dumps(state, allow_nan=True) + "\n" for state in self.progress)
            with clear_disk_errors(self.path / PROGRESS, "progress"):
                (self.path / PROGRESS).write_bytes(text.encode("ascii"))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of a finished job, in the order of their names."""
        return tuple(self.path / name for name in self._kept.files)

    def say_finished(self) -> None:
        """Tell whoever resumes a finished job that there is nothing to do."""
        print(f"{self.path} is finished, nothing is left to do", file=sys.stderr)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Refuse progress that is not as the verb wrote it.

        Raises:
            InputError: the block came upon other keys, types or values.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
            raise InputError(
                f"{self.path / PROGRESS} is not as it was written ({type(error).__name__}); begin again with --overwrite"
            ) from error

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        elif [path.name for path in self.path.iterdir()] == [RECORD] and not self.finished:
            (self.path / RECORD).unlink(missing_ok=True)  # nothing was written: as if never begun

    def _finish(self) -> None:
        if not self.finished:
            names = tuple(sorted({n for n in _listed(self.path) if (self.path / n).is_file()}))
            content = {**plain(self._kept), "finished": True, "files": list(names)}
            write_json(self.path / RECORD, content, _WHAT)
        for name in (PROGRESS, WRITTEN):
            (self.path / name).unlink(missing_ok=True)


def open_output(
    config: Any,
    verb: str,
    out: Path,
    inputs: Mapping[str, Any],
    *,
    reads: Iterable[Path] = (),
) -> Output:
    """Make the folder of a verb's results, go on with it, or make it anew.

    Args:
        config: options of the verb, a dataclass with ``overwrite`` and, where the verb can go on, ``resume``.
        verb: name of the verb.
        out: folder.
        inputs: facts on what is read and how it is computed, which must be the same when the job is resumed.
        reads: files and folders that the job reads, which are never removed.

    Raises:
        InputError: the folder holds files and neither option is given; or other files than this verb wrote; or with
            ``resume`` results of other options or inputs.
        TwinrayError: the disk refuses.
    """
    resume = bool(getattr(config, "resume", False))
    there = out.is_dir() and any(not _is_leftover(p.name) for p in out.iterdir())
    if there and not (resume or config.overwrite):
        ways = "continue it with --resume, or " if hasattr(config, "resume") else ""
        raise InputError(
            f"{out} is not empty; choose another --out for the results of {verb}, {ways}replace what it wrote with --overwrite"
        )
    lock_folder(out, f"results of {verb}")
    free = of_kind(type(config), DATA, PLACE) | _FREE
    chosen = {k: v for k, v in counting(type(config), plain(config)).items() if k not in free}
    now = _Kept(
        _FORMAT,
        verb,
        json.loads(json.dumps(chosen)),
        json.loads(json.dumps({"twinray": own_version(), **plain(inputs)})),
        datetime.now().astimezone().isoformat(),
        False,
        (),
    )
    progress: list[Any] = []
    if there:
        kept = _read(out, verb)
        if resume:
            _check_same(out, kept, now)
            progress = _lines(out / PROGRESS)
            _remove_halves(out)
            now = kept
        else:
            _remove(out, reads)
    for name in [p.name for p in out.iterdir() if _is_leftover(p.name)]:
        (out / name).unlink(missing_ok=True)
    if not (out / RECORD).is_file():
        write_json(out / RECORD, plain(now), _WHAT)
    list_written(out, out / WRITTEN, {RECORD, PROGRESS, *_listed(out)})
    output = Output(out, now, progress)
    output.go_on_after(len(progress))  # without the half line that a kill leaves
    return output


def pack_fact(pack: Path) -> str:
    """What tells one pack from another: the hash of its description, which holds those of its files."""
    return sha256(pack / "pack.json")


def run_fact(run: Path) -> dict[str, str]:
    """What tells one run from another: the hashes of its files that figures depend on, as far as they are there."""
    names = ("model.json", "backbone.json", "metrics.json", "checksums.json")
    return {name: sha256(run / name) for name in names if (run / name).is_file()}


def files_fact(files: Sequence[Path], key: str = "") -> str:
    """One hash of the names, sizes and times of files: what tells that a list of images is the same.

    Args:
        files: files in order.
        key: secret, under which a name cannot be guessed from the hash.
    """
    digest = hmac.new(key.encode("utf-8"), digestmod=hashlib.sha256)
    for file in files:
        try:
            about = file.stat()
            facts = (str(file), about.st_size, about.st_mtime_ns)
        except OSError:
            facts = (str(file), -1, -1)
        digest.update(repr(facts).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _is_leftover(name: str) -> bool:
    """Whether a kill right at the start leaves a file of this name."""
    return name.startswith(f".{RECORD}.") and name.endswith(".tmp")


def _read(out: Path, verb: str) -> _Kept:
    """The record in a folder that holds files.

    Raises:
        InputError: there is none, or it is another verb's.
    """
    path = out / RECORD
    check_regular(path, _WHAT)
    if not path.is_file() or path.is_symlink():
        raise InputError(
            f"{out} is no folder that {verb} wrote (it has no {RECORD}); choose another --out"
        )
    kept = typed(read_json(path, _WHAT), _Kept, path, _WHAT)
    if kept.format != _FORMAT:
        raise InputError(
            f"{path} is a {_WHAT} of format {kept.format}, this version writes {_FORMAT}; choose another --out"
        )
    if kept.verb != verb:
        raise InputError(f"{out} holds results of {kept.verb}, not of {verb}; choose another --out")
    try:
        datetime.fromisoformat(kept.started)
    except ValueError as error:
        raise InputError(
            f"{path}: expected a time as started, got {kept.started!r}; was it edited? Choose another --out"
        ) from error
    return kept


def _check_same(out: Path, kept: _Kept, now: _Kept) -> None:
    again = "repeat the first command, choose another --out, or begin again with --overwrite"
    options = [
        f"{name} was {kept.options.get(name)!r}, now {now.options.get(name)!r}"
        for name in dict.fromkeys([*kept.options, *now.options])
        if kept.options.get(name) != now.options.get(name)
    ]
    if options:
        raise InputError(
            f"cannot resume {out} with other options: {'; '.join(options[:4])}; {again}"
        )
    inputs = [
        name
        for name in dict.fromkeys([*kept.inputs, *now.inputs])
        if kept.inputs.get(name) != now.inputs.get(name)
    ]
    if inputs:
        raise InputError(
            f"cannot resume {out}: {', '.join(inputs)} changed since it was started (see {RECORD}); {again}"
        )


def _lines(path: Path) -> list[Any]:
    """The whole lines of a list of ours, up to the first that a kill cut short."""
    found: list[Any] = []
    if not path.is_file() or path.is_symlink():
        return found
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return found


def _listed(out: Path) -> set[str]:
    return {name for name in _lines(out / WRITTEN) if isinstance(name, str)}


def _remove(out: Path, reads: Iterable[Path]) -> None:
    """Remove what the record and the list name, the record last.

    Raises:
        InputError: the folder holds something else, or something that the job reads.
    """
    for path in reads:
        if path.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"{path} lies in {out}, which --overwrite would empty; choose another --out"
            )
    path = out / RECORD
    kept = typed(read_json(path, _WHAT), _Kept, path, _WHAT)
    ours = {RECORD, PROGRESS, WRITTEN, *kept.files, *_listed(out)}
    folders = {str(parent) for name in ours for parent in Path(name).parents} - {"."}
    files, dirs = [], []
    for root, names, found in os.walk(out):
        inside = Path(root).relative_to(out)
        for name in names:
            if (inside / name).as_posix() not in folders or (out / inside / name).is_symlink():
                raise _foreign(out, inside / name)
            dirs.append(out / inside / name)
        for name in found:
            own = (inside / name).as_posix()
            if own not in ours and not _is_half(inside / name, ours):
                raise _foreign(out, inside / name)
            files.append(out / inside / name)
    last = [out / PROGRESS, out / WRITTEN, out / RECORD]
    with clear_disk_errors(out, "folder"):
        for file in (f for f in files if f not in last):
            file.unlink(missing_ok=True)
        for folder in reversed(dirs):
            folder.rmdir()
        for file in last:  # a kill up to here leaves a folder that is known as ours
            file.unlink(missing_ok=True)


def _remove_halves(out: Path) -> None:
    """Remove what a killed start left half written."""
    ours = {RECORD, *_listed(out)}
    for folder in {(out / name).parent for name in ours}:
        for path in folder.glob(".*.tmp"):
            if _is_half(path.relative_to(out), ours):
                path.unlink(missing_ok=True)


def _is_half(path: Path, ours: set[str]) -> bool:
    """Whether a kill left this beside a file of ours, while it was written."""
    name, _, process = path.name.removesuffix(".tmp").rpartition(".")
    whole = path.with_name(name.removeprefix(".")).as_posix() if len(name) > 1 else ""
    half = path.name.startswith(".") and path.name.endswith(".tmp") and process.isdecimal()
    return half and whole in ours


def _foreign(out: Path, what: Path) -> InputError:
    return InputError(
        f"{out / what} was not written by the verb that wrote {out}, so --overwrite leaves all as it is; move it, or choose "
        "another --out"
    )

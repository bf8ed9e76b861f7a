"""``checksums.json``: what a finished run left, so that whoever reads its files later knows that they are still those.

The record holds the SHA-256 of every file that a figure can depend on. It is written just before
``metrics.json``, which names it. A changed file is refused where it is read, or taken and marked
with ``--allow-edited``.

The record finds slips and edits that nobody spoke of. It is no signature: who recomputes the
hashes is not found out. Runs of earlier versions have none; their reader is told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twinray.data.pack import EDITED
from twinray.errors import InputError
from twinray.files import read_json, sha256, typed, write_json

FILE = "checksums.json"
UNVERIFIED = "made before runs recorded checksums: its files cannot be verified"

_WHAT = "record of a run's files"
_FORMAT = 1
_NAMES = ("*.json", "*.yaml", "*.parquet", "*.csv", "*.safetensors")
_CHANGING = frozenset({"environment.json", FILE})


@dataclass(frozen=True)
class _Kept:
    """What ``checksums.json`` holds: SHA-256 in hexadecimal by name of file."""

    format: int
    files: dict[str, str]


def write_checksums(run: Path, later: Mapping[str, str]) -> None:
    """Record the files of a run that is about to end.

    Args:
        run: its folder.
        later: SHA-256 by name of files that are written after the record.

    Raises:
        TwinrayError: the place cannot be written.
    """
    names = sorted({path.name for pattern in _NAMES for path in run.glob(pattern)} - _CHANGING)
    hashes = {name: sha256(run / name) for name in names if not name.startswith(".")}
    write_json(run / FILE, {"format": _FORMAT, "files": {**hashes, **later}}, _WHAT)


def check_files(
    run: Path, names: Iterable[str], *, named: bool = False, allow_edited: bool = False
) -> tuple[str, ...]:
    """Compare files of a run with what the run wrote.

    Args:
        run: its folder.
        names: files to be read; those that are not there are compared too, as the run may have had them.
        named: whether the run's ``metrics.json`` names a record, which must then be there.
        allow_edited: flag to take what was changed, with a note.

    Returns:
        One note on what was changed, or on a run that has no record; none where all is as it was written.

    Raises:
        InputError: a file differs, or is there or not there as it was not when the run ended, and ``allow_edited`` is off.
    """
    if not (run / FILE).is_file():
        if named:
            return _found(run, [FILE], allow_edited)
        return (UNVERIFIED,)
    kept = typed(read_json(run / FILE, _WHAT), _Kept, run / FILE, _WHAT)
    wrong = []
    for name in names:
        path = run / name
        now = sha256(path) if path.is_file() else None
        if now != kept.files.get(name):
            wrong.append(name)
    return _found(run, wrong, allow_edited)


def _found(run: Path, wrong: list[str], allow_edited: bool) -> tuple[str, ...]:
    if not wrong:
        return ()
    told = ", ".join(wrong)
    if not allow_edited:
        raise InputError(
            f"{run}: {told} not as the run wrote it (see {FILE}): changed, exchanged or removed; restore it, or go on with "
            "--allow-edited, which marks the figures"
        )
    return (f"{EDITED}: {told} of {run} is not as the run wrote it (--allow-edited)",)

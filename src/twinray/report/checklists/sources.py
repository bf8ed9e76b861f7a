"""The records that a checklist may be filled from, and pointers into them.

A pointer is a file, relative to the folder that was read, and a JSON pointer (RFC 6901) into it. Whatever a checklist says has
pointers, and each of them resolves; ``tests`` follow every one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twinray.errors import InputError
from twinray.files import read_json

KINDS = (
    "pack.json",
    "splits.json",
    "config.yaml",
    "environment.json",
    "metrics.json",
    "model.json",
    "study.json",
    "faithfulness.json",
    "localisation.json",
)
"""Names of the files that are read, whatever folder they are in."""

_DEEPEST = 5


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a statement comes from.

    Attributes:
        file: path of the record, relative to what was read.
        key: JSON pointer into it, such as ``/counts/images``.
    """

    file: str
    key: str

    def told(self) -> str:
        """``pack.json /counts/images``."""
        return f"{self.file} {self.key}"


@dataclass(frozen=True, slots=True)
class Records:
    """Parsed records by their relative path.

    Attributes:
        files: path -> what it holds.
    """

    files: Mapping[str, Any]

    def of(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Every record of a kind (its file's name), in order of path."""
        for path in sorted(self.files):
            if path.rpartition("/")[2] == kind:
                yield path, self.files[path]

    def resolve(self, pointer: Pointer) -> Any:
        """What a pointer points at.

        Raises:
            InputError: nothing is there.
        """
        if pointer.file not in self.files:
            raise InputError(
                f"checklist: {pointer.file} was not read; the pointer {pointer.key} leads nowhere"
            )
        found = self.files[pointer.file]
        for part in keys(pointer.key):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise InputError(f"checklist: {pointer.told()} leads nowhere") from None
        return found

    def get(self, file: str, *path: str) -> Any:
        """A value, or None where it is not there."""
        try:
            return self.resolve(pointer_to(file, *path))
        except InputError:
            return None


def pointer_to(file: str, *path: str) -> Pointer:
    """A pointer from the names on its way; ``/`` and ``~`` in them are escaped."""
    return Pointer(file, "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in path))


def keys(pointer: str) -> list[str]:
    """The names on the way of a JSON pointer."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def read_records(*folders: Path) -> Records:
    """All records below folders of packs, runs, evaluations or studies; seeds' own folders inside a run are left out.

    Raises:
        InputError: a folder that is not there, a damaged record, or no record at all.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"checklist: expected a folder of a pack, run or study, {folder} is none"
            )
        start = "" if len(folders) == 1 else f"{folder.name}/"
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.name not in KINDS or len(inside.parts) > _DEEPEST or "seeds" in inside.parts:
                continue
            name = start + inside.as_posix()
            if name in found:
                raise InputError(
                    f"checklist: two folders are called {folder.name}; give them one after the other"
                )
            found[name] = _parsed(path)
    if not found:
        raise InputError(
            f"checklist: expected records ({', '.join(KINDS[:5])}, ...) below {', '.join(map(str, folders))}, found none"
        )
    return Records(found)


def _parsed(path: Path) -> Any:
    if path.suffix == ".json":
        return read_json(path, "record")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"checklist: {path} cannot be read as YAML; was it edited? ({error!s:.80})"
        ) from None

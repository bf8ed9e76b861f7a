"""Hashes of what a study reads from outside: packs, sources of packs, weight files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from twinray.backbones.ledger import close_names, row_named
from twinray.errors import InputError
from twinray.files import read_json, sha256
from twinray.studies.plan.file import Source
from twinray.studies.plan.nodes import Read

_WEIGHTS = ("backbone.safetensors", "model.safetensors")
MISSING = "missing"


class Outside:
    """Things from outside the study, each hashed once; what is not there is noted and not refused yet.

    Attributes:
        missing: what is not there, in words.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._keys: dict[str, str] = {}
        self.missing: list[str] = [f"${{{name}}}: nothing sets it" for name in source.unset]

    def path(self, text: str) -> Path:
        """A path of the file: relative ones start at the file's folder."""
        return Path(os.path.normpath(self._source.path.resolve().parent / Path(text).expanduser()))

    def pack(self, option: str, text: str, place: str) -> Read:
        """A finished pack, known by its checksums.

        Raises:
            InputError: a folder that is no pack.
        """
        path = self.path(text)
        about = path / "pack.json"
        if not path.exists():
            return self._absent(option, text, path, place)
        if not about.is_file():
            raise self._source.fault(
                place, f"expected a pack, {path} has no pack.json; pack it, or give options of pack"
            )
        raw = read_json(about, "pack description")
        sums = raw.get("checksums") if isinstance(raw, dict) else None
        return Read(option, path=str(path), key=_digest(sums) if sums else sha256(about))

    def source(self, option: str, text: str, place: str) -> Read:
        """A file or folder that ``pack`` reads; a folder is known by names and sizes of its files."""
        path = self.path(text)
        if not path.exists():
            return self._absent(option, text, path, place)
        return Read(option, path=str(path), key=self._key(path))

    def weights(self, text: str, place: str) -> Read:
        """Initial weights: random, a name of the ledger, NAME=FILE, a run's folder or a file.

        Raises:
            InputError: a name that the ledger does not have, of something that is no path either.
        """
        if text == "random":
            return Read("init", path=text, key=text)
        row = row_named(text)
        if row is not None and "=" not in text:
            return Read("init", path=text, key=f"public {row.name}")
        name, equals, file = text.partition("=") if row is not None else ("", "", text)
        path = self.path(file)
        if not path.exists():
            if not equals and "/" not in text and not Path(text).suffix and "${" not in text:
                close = close_names(text)
                raise self._source.fault(
                    place,
                    f"expected random, a name that twinray weights lists, or a path, got {text!r}"
                    + (f"; did you mean {close}?" if close else ""),
                )
            absent = self._absent("init", text, path, place)
            return Read("init", path=f"{name}{equals}{path}", key=absent.key)
        if path.is_dir():
            found = next((path / n for n in _WEIGHTS if (path / n).is_file()), None)
            if found is None:
                raise self._source.fault(
                    place, f"expected a run with {' or '.join(_WEIGHTS)}, {path} has none"
                )
            return Read("init", path=str(path), key=self._key(found))
        return Read("init", path=f"{name}{equals}{path}", key=f"{name}{equals}{self._key(path)}")

    def _absent(self, option: str, text: str, path: Path, place: str) -> Read:
        if "${" not in text:
            self.missing.append(f"{place}: {path} is not there")
        return Read(option, path=str(path), key=f"{MISSING} {text}")

    def _key(self, path: Path) -> str:
        known = str(path)
        if known not in self._keys:
            try:
                self._keys[known] = _listing(path) if path.is_dir() else sha256(path)
            except OSError as error:
                raise InputError(
                    f"could not read {path}: {error.strerror}; check the path"
                ) from error
        return self._keys[known]


def _listing(folder: Path) -> str:
    """Hash of names and sizes: reading every image of an archive for a plan would take hours."""
    rows = [
        (os.path.relpath(Path(root) / name, folder), (Path(root) / name).stat().st_size)
        for root, _, names in os.walk(folder)
        for name in names
    ]
    return _digest(sorted(rows))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

"""Ids of private sources under a key: what runs keep of them, so that nobody who gets a run can try numbers through.

Runs record which images and patients training saw, and whose image is whose. A plain hash of a patient number is no secret:
an archive of eight digits is counted through in seconds. A pack of a private source therefore holds, beside each id, a
keyed hash of it (HMAC-SHA256, as :mod:`twinray.data.pseudonyms` makes them), and runs keep hashes of these alone. The key
itself is in neither. Training and evaluation need no key; packs of one key match each other on every machine.

The key is that of ``pack --pseudonymise`` or ``--key``, the file that ``TWINRAY_KEY`` names, or one that is made at first
use in the user's configuration folder. Sources whose ids are published have none: there the guard works between
institutions.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from twinray.data.pseudonyms import HiddenSample, Pseudonyms, key_mark, read_key
from twinray.errors import InputError
from twinray.records import Sample, form_of

VARIABLE = "TWINRAY_KEY"
COLUMNS = ("keyed_id", "keyed_patient", "keyed_letters", "keyed_number")
"""Columns of ``samples.parquet`` of a pack of private sources; null for images of published ones."""

_PSEUDONYM = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class PackKey:
    """What ``pack.json`` says of the key, under ``extra.key``.

    Attributes:
        mark: what tells the key from another; nothing else can be learned from it.
        pseudonymised: flag, true where the ids of the pack are pseudonyms themselves.
        names: keyed name of each name that a private source has.
    """

    mark: str
    pseudonymised: bool = False
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Own:
    """An image's own ids, as texts or under a key.

    Attributes:
        image: id, with the stem of its file where it is a bare number.
        patient: patient; None where not known.
        letters, number: form of the patient id (:func:`twinray.records.form_of`); None where it has none.
    """

    image: tuple[str, ...]
    patient: str | None
    letters: str | None = None
    number: str | None = None


class Key:
    """One secret key, and the keyed hashes that it gives."""

    def __init__(self, secret: str) -> None:
        self._pseudonyms = Pseudonyms(secret)
        self.mark = key_mark(secret)

    def __repr__(self) -> str:
        return f"Key({self.mark})"

    def text(self, value: str) -> str:
        """The keyed hash of a text: the pseudonym that the same key gives it."""
        return self._pseudonyms.of(value, "")

    def name(self, value: str) -> str:
        """The keyed name of a source; under pseudonyms its name is one already."""
        return value if _PSEUDONYM.fullmatch(value) else self.text(value)

    def own(self, plain: Own) -> Own:
        """An image's own ids under the key."""
        return Own(
            (self.text("#".join(plain.image)),),
            self.text(plain.patient) if plain.patient else None,
            None if plain.letters is None else self.text(plain.letters) if plain.letters else "",
            None if plain.number is None else self.text(plain.number),
        )


def looks_keyed(own: Own) -> bool:
    """Whether ids are pseudonyms, as packs of earlier versions do not say."""
    texts = (*own.image, *([own.patient] if own.patient else []))
    return all(_PSEUDONYM.fullmatch(text) for text in texts)


def own_ids(image: str, source: str, patient: str | None) -> Own:
    """An image's own ids in plain text.

    Args:
        image: id as its source writes it.
        source: file; bare numbers begin at 1 in every annotation file of a folder, and its name tells them apart.
        patient: patient as its source writes it.
    """
    what = (image, PurePosixPath(source).stem) if image.isdecimal() else (image,)
    form = form_of(patient) if patient else None
    return Own(what, patient, *(form or (None, None)))


def keyed_columns(sample: Sample | None, key: Key | None) -> dict[str, str | None]:
    """The values of :data:`COLUMNS` of an image; nulls where its source is published."""
    if sample is None or key is None:
        return dict.fromkeys(COLUMNS)
    plain = sample.origin if isinstance(sample, HiddenSample) else sample
    own = key.own(own_ids(plain.id, plain.source, plain.patient))
    return dict(zip(COLUMNS, (own.image[0], own.patient, own.letters, own.number), strict=True))


class SourceNames:
    """The sources of a pack: whose an id is, and the id as the source itself writes it (see ``packing.mix``)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    @cached_property
    def _of_one(self) -> dict[str, list[str]]:
        longest_first = sorted(self._names, key=len, reverse=True)
        return {name: self._spaces((name,)) for name in longest_first}

    @cached_property
    def every(self) -> list[str]:
        """All names that the sources go by."""
        return self._spaces(self._names)

    def of(self, text: str) -> tuple[list[str], str]:
        """An image's or a patient's id -> the names of its source, and the id without a name in front.

        An id without one is of the only source, or of a patient that all sources share.
        """
        if len(self._names) > 1:
            for name, spaces in self._of_one.items():
                if text.startswith(f"{name}/"):
                    return spaces, text[len(name) + 1 :]
        return self.every, text

    def source(self, image: str) -> str:
        """The name of an image's source, as a pack has it."""
        if len(self._names) == 1:
            return self._names[0]
        return next((name for name in self._of_one if image.startswith(f"{name}/")), self._names[0])

    def _spaces(self, names: Sequence[str]) -> list[str]:
        """A second source of one name is called name-2 in a pack, and its own name in a pack by itself."""
        own = (re.sub(r"-\d+$", "", name) for name in names)
        both = [
            n
            for name, first in zip(names, own, strict=True)
            for n in (name, *([first] * (first in self._names)))
        ]
        # the sizes in which MedMNIST is published have the same ids
        return list(
            dict.fromkeys(re.sub(r"(?<=mnist)_(28|64|128|224)$", "", name) for name in both)
        )


def pack_key(names: Sequence[str], key: Key, *, pseudonymised: bool) -> dict[str, Any]:
    """What ``pack.json`` says of the key.

    Args:
        names: names of the private sources.
        key: the key.
        pseudonymised: flag of ids that are pseudonyms under it.
    """
    spaces = SourceNames(names).every
    return {
        "mark": key.mark,
        "pseudonymised": pseudonymised,
        "names": {space: key.name(space) for space in spaces},
    }


def own_key(given: Path | None = None) -> Key:
    """The key to pack with: the given file, that of ``TWINRAY_KEY``, or the user's own, which is made at first use.

    Raises:
        InputError: it cannot be read, or made.
    """
    path = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if path is not None:
        return Key(read_key(path))
    path = _default()
    if not path.is_file():
        _make(path)
    return Key(read_key(path))


def known_keys() -> list[Key]:
    """Keys at hand, to compare with what was made under another one than a pack's: none is made, none is missed."""
    paths = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    found = []
    for path in (*paths, _default()):
        with suppress(InputError):
            if path.is_file():
                found.append(Key(read_key(path)))
    return found


def _default() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(folder) / "twinray" / "key"


def _make(path: Path) -> None:
    """A new key, readable by its owner alone; of two processes that make one, the first wins for both."""
    half = path.with_name(f".key.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(half, path)
            print(
                f"note: made the key {path}: ids of private sources are kept under it; keep it, packs of one key match each other",
                file=sys.stderr,
            )
    except OSError as error:
        raise InputError(
            f"could not make the key {path}: {error.strerror}; give a file with a secret as --key, or name it in {VARIABLE}"
        ) from error
    finally:
        with suppress(OSError):
            half.unlink(missing_ok=True)

"""Keyed names in place of what identifies people: ids, paths, patients, and words in messages.

A pseudonym is 16 hexadecimal digits of HMAC-SHA256 (RFC 2104) under a secret key. The same key
gives the same pseudonym in every pack, so patients stay together over packs. Without the key nobody
can test a guess, however few numbers an archive has.

Messages are written by readers and decoders that know nothing of it. A :class:`Censor` takes out of
them whatever stands in quotes, looks like a path, is a name that it was told, or is what "came"
where something else was expected; rows keep their number.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from twinray.data.decoding.options import DecodesFiles, Decoding
from twinray.data.decoding.scale import Spread
from twinray.errors import InputError
from twinray.files import check_regular, clear_disk_errors, write_bytes
from twinray.records import Boxes, Collection, Pixels, Sample, Skipped

HIDDEN = "…"
"""What stands for a word that was taken out."""

_DIGITS = 16
_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".dcm", ".dicom", ".bmp", ".webp", ".jp2"}
)
_UIDS = "_uid"
"""End of the names of attributes that are identifiers themselves."""


def read_key(path: Path) -> str:
    """The secret key in a file; on a command line, every user of the machine could read it.

    Raises:
        InputError: the file cannot be read, is not text, or is empty.
    """
    check_regular(path, "the key file")
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"could not read the key file {path}: {error.strerror}; correct --pseudonymise"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected a secret as UTF-8 text in {path}, found other bytes; write a new one"
        ) from error
    if not key:
        raise InputError(f"expected a secret in {path}, the file is empty; write one into it")
    return key


def key_mark(key: str) -> str:
    """What tells one key from another and says nothing of it: 16 hexadecimal digits."""
    return hmac.new(key.encode("utf-8"), b"twinray: mark of a key", hashlib.sha256).hexdigest()[
        :_DIGITS
    ]


class Pseudonyms:
    """Pseudonyms under one key, and the table that leads back from those that were given."""

    def __init__(self, key: str) -> None:
        """Take a key.

        Raises:
            InputError: it is empty.
        """
        if not key.strip():
            raise InputError(
                "expected a secret key to pseudonymise with, got an empty one; give a long random text"
            )
        self._key = key.encode("utf-8")
        self._given: dict[tuple[str, str], str] = {}
        self._grown = 0

    def of(self, value: str, kind: str) -> str:
        """The pseudonym of a value.

        Args:
            value: what identifies somebody or something of theirs.
            kind: what it is (patient, image, file), for the table; it does not change the pseudonym.
        """
        data = value.encode("utf-8", "backslashreplace")
        found = hmac.new(self._key, data, hashlib.sha256).hexdigest()[:_DIGITS]
        self._given[kind, value] = found
        return found

    def of_path(self, value: str) -> str:
        """The pseudonym of a file; the usual endings of image files are kept."""
        suffix = PurePosixPath(value).suffix.lower()
        return self.of(value, "file") + (suffix if suffix in _SUFFIXES else "")

    @staticmethod
    def check_table(path: Path | None, out: Path, *, exists: bool = False) -> None:
        """Refuse a place for the table that whoever gets the results would get too, or where another file lies.

        Args:
            path: the table; None for none.
            out: folder of the results.
            exists: flag to write over a table that is there.

        Raises:
            InputError: the table would lie in ``out``, or is there.
        """
        if path is None:
            return
        if path.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"expected --pseudonyms outside {out}, got {path}; who gets the results must not get the names"
            )
        if path.exists() and not (exists and _is_table(path)):
            raise InputError(
                f"expected a new file as --pseudonyms, {path} is there; choose another"
            )

    def go_on(self, path: Path) -> None:
        """Know again what a job that was cut off wrote into its table with :meth:`grow`."""
        if not path.is_file():
            return
        whole = path.read_bytes().rpartition(b"\n")[0].decode("utf-8", "surrogateescape") + "\n"
        for row in [*csv.reader(io.StringIO(whole, newline=""))][1:]:
            if len(row) == 3:
                self._given[row[0], row[2]] = row[1]

    def grow(self, path: Path) -> None:
        """Add to the table what was given since the last call; a kill then loses no name of what is done.

        Raises:
            TwinrayError: the place cannot be written.
        """
        if not self._grown:
            self.write(path)
        else:
            with clear_disk_errors(path, "table of pseudonyms"), path.open("ab") as file:
                file.write(self._rows(self._grown))
        self._grown = len(self._given)

    def _rows(self, first: int) -> bytes:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not first:
            rows.writerow(("kind", "pseudonym", "original"))
        given = islice(self._given.items(), first, None)
        rows.writerows((kind, found, value) for (kind, value), found in given)
        return text.getvalue().encode("utf-8", "backslashreplace")

    def write(self, path: Path) -> None:
        """Write the table (kind, pseudonym, original), readable by its owner alone.

        Raises:
            TwinrayError: the place cannot be written.
        """
        before = os.umask(0o077)
        try:
            write_bytes(path, self._rows(0), "table of pseudonyms")
        finally:
            os.umask(before)


def _is_table(path: Path) -> bool:
    """Whether a file is a table of pseudonyms, which the same command may write again."""
    head = b"kind,pseudonym,original\n"
    with path.open("rb") as file:
        return file.read(len(head)) in (head, b"")


_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"")
_CAME = re.compile(r"\b(got|said|found) ([^;]+)")
_PLAIN = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "both",
        "bytes",
        "content",
        "damaged",
        "floating",
        "frames",
        "grey",
        "images",
        "in",
        "is",
        "it",
        "list",
        "more",
        "neither",
        "no",
        "none",
        "nothing",
        "number",
        "object",
        "of",
        "one",
        "only",
        "or",
        "other",
        "pages",
        "pixels",
        "point",
        "row",
        "samples",
        "stored",
        "text",
        "than",
        "twice",
        "unknown",
        "with",
        "x",
    ]
)
"""Words of our own that may follow what came."""
_BEFORE, _AFTER = frozenset(" /:(['\"=,;"), frozenset(" /,;:)]'\"=")
_LONGEST = 12
"""Words of the longest name that is looked for."""


class Censor:
    """Takes identity out of messages.

    Words of fewer than four characters and plain numbers of fewer than five digits stay: they are counts far more often.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self.add(names)

    def rename(self, name: str, pseudonym: str) -> None:
        """Learn what stands for a name, in place of a gap; a short number stays, since counts look the same."""
        if not _is_count(name):
            self._names[name] = pseudonym

    def add(self, names: Iterable[str]) -> None:
        """Learn names, and the parts of those that are paths."""
        for name in names:
            path = PurePosixPath(name)
            ending = path.suffix if path.suffix.lower() not in _SUFFIXES else ""
            for part in (name, *re.split(r"[/\\#]", name), path.stem, ending):
                if len(part) >= 4 and not _is_count(part):
                    self._names.setdefault(part, HIDDEN)

    def walk(self, folder: Path) -> None:
        """Learn the names of everything in a folder, and its own."""
        self.add(
            (str(folder), str(folder.absolute()), str(folder.resolve()), folder.resolve().name)
        )
        for _, folders, files in os.walk(folder):
            self.add(folders)
            self.add(files)

    def __call__(self, text: str) -> str:
        """The text without what identifies."""
        text = _QUOTED.sub(HIDDEN, text)
        text = self._without_names(text)
        text = _CAME.sub(_without_values, text)
        return " ".join(HIDDEN if _is_path(word) else word for word in text.split(" "))

    def _without_names(self, text: str) -> str:
        starts = [i for i, c in enumerate(text) if c != " " and (i == 0 or text[i - 1] in _BEFORE)]
        ends = [
            i
            for i in range(1, len(text) + 1)
            if i == len(text) or text[i] in _AFTER or text[i : i + 2] == ". "
        ]
        found, at = [], 0
        for start in starts:
            if start < at:
                continue
            words = [end for end in ends if end > start][: 4 * _LONGEST]
            end = next((e for e in reversed(words) if text[start:e] in self._names), None)
            if end is not None:
                found.append(text[at:start] + self._names[text[start:end]])
                at = end
        return "".join(found) + text[at:]


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 5


def _without_values(found: re.Match[str]) -> str:
    """What came, without the words that are a file's and not ours."""
    kept: list[str] = []
    for word in found[2].split():
        bare = word.strip(".,:()[]")
        ours = bare in _PLAIN or bare == HIDDEN or re.fullmatch(r"[\d.,x:+-]*", bare) is not None
        if ours:
            kept.append(word)
        elif not kept or kept[-1] != HIDDEN:
            kept.append(HIDDEN)
    return f"{found[1]} {' '.join(kept)}"


def _is_path(word: str) -> bool:
    """Whether a word holds the path of a file; ``n/a`` and fractions are none."""
    bare = word.strip(".,;:()[]")
    return "/" in bare and len(bare) > 3 and not re.fullmatch(r"[\d./]+", bare)


@dataclass(frozen=True, slots=True)
class HiddenSample(Sample):
    """A sample under pseudonyms, with the one that the loader knows.

    Attributes:
        origin: the sample as its reader described it.
    """

    origin: Sample = field(default_factory=lambda: Sample("", ""))


@dataclass(frozen=True, slots=True)
class HiddenLoader:
    """Loads the sample behind a hidden one, and takes its name out of what is said of it.

    Attributes:
        load: the reader's own loader, called with the sample that it knows.
    """

    load: Any

    def __call__(self, sample: Sample) -> Pixels:
        """Decode; raises InputError where the file is refused, without its name."""
        origin = _origin(sample)
        censor = Censor(_names(origin))
        try:
            pixels: Pixels = self.load(origin)
        except InputError as error:
            raise InputError(_said(str(error), censor)) from None
        except OSError as error:
            raise InputError(f"could not read the file: {error.strerror}") from None
        remarks = tuple((kind, censor(text)) for kind, text in pixels.remarks)
        return replace(pixels, how=censor(pixels.how), remarks=remarks)


@dataclass(frozen=True, slots=True)
class HiddenFileLoader(HiddenLoader):
    """The same of a loader that decodes files as told."""

    def decoding_as(self, decoding: Decoding) -> HiddenFileLoader:
        """The same loader, decoding as told."""
        return HiddenFileLoader(self.load.decoding_as(decoding))

    def spread(self, sample: Sample) -> Spread | None:
        """What a sample has to say on the scale of its source."""
        found: Spread | None = self.load.spread(_origin(sample))
        return found


def _said(text: str, censor: Censor) -> str:
    """A refusal; the name of the file that stands in front of it says nothing more."""
    return re.sub(rf"^({HIDDEN}[\s:/]*)+", "", censor(text)) or HIDDEN


def _origin(sample: Sample) -> Sample:
    return sample.origin if isinstance(sample, HiddenSample) else sample


def _names(sample: Sample) -> list[str]:
    known = [sample.id, sample.source, sample.patient or "", *sample.attributes.values()]
    return [name for name in known if name]


_TAIL = re.compile(
    r"(?P<file>.+?)(?P<tail>(?: (?:line|row|rows|box|page) \d+| (?:images|annotations)\[\d+\]).*)?"
)


def hidden(
    collection: Collection,
    source: Path,
    pseudonyms: Pseudonyms,
    censor: Censor,
    attributes: Sequence[str] = (),
) -> Collection:
    """A collection without what identifies people.

    Args:
        collection: what a reader made of a source.
        source: the source, whose name may be somebody's.
        pseudonyms: those to give.
        censor: what takes names out of messages; it learns those of the samples.
        attributes: names of the attributes to keep, in any case; identifiers among them are replaced.

    Returns:
        The same images and labels. Ids, files, patients and readers of boxes have pseudonyms; the name of a source has one
        where it is that of its folder or file. Messages name rows by their number.
    """
    wanted = {name.lower() for name in attributes}
    samples = []
    for sample in collection.samples:
        censor.add(_names(sample))
        samples.append(_hidden(sample, pseudonyms, wanted))
        censor.rename(sample.source, samples[-1].source)
        censor.rename(sample.id, samples[-1].id)
    own = {
        source.name,
        source.stem,
        source.resolve().name,
        source.resolve().parent.name,
        source.resolve().stem,
    }
    name = pseudonyms.of(collection.name, "source") if collection.name in own else collection.name
    skipped = tuple(_aside(item, pseudonyms, censor) for item in collection.skipped)
    load = collection.load
    kept = {f.name: getattr(collection, f.name) for f in fields(collection)}
    return type(collection)(
        **{
            **kept,
            "name": name,
            "samples": tuple(samples),
            "load": HiddenFileLoader(load)
            if isinstance(load, DecodesFiles)
            else HiddenLoader(load),
            "skipped": skipped,
            "notes": tuple(censor(note) for note in collection.notes),
        }
    )


def _hidden(sample: Sample, pseudonyms: Pseudonyms, wanted: set[str]) -> HiddenSample:
    kept = {name: value for name, value in sample.attributes.items() if name.lower() in wanted}
    names = {sample.id, sample.patient}
    kept = {
        name: pseudonyms.of(value, name)
        if name.lower().endswith(_UIDS) or value in names
        else value
        for name, value in kept.items()
    }
    return HiddenSample(
        id=pseudonyms.of(sample.id, "image"),
        source=pseudonyms.of_path(sample.source),
        patient=pseudonyms.of(sample.patient, "patient") if sample.patient else None,
        split=sample.split,
        labels=sample.labels,
        boxes=_without_readers(sample.boxes, pseudonyms),
        boxes_frame=sample.boxes_frame,
        size=sample.size,
        attributes=kept,
        regions=_without_readers(sample.regions, pseudonyms),
        origin=sample,
    )


def _without_readers(boxes: Boxes | None, pseudonyms: Pseudonyms) -> Boxes | None:
    if boxes is None or boxes.readers is None:
        return boxes
    return replace(boxes, readers=tuple(pseudonyms.of(one, "reader") for one in boxes.readers))


def _aside(item: Skipped, pseudonyms: Pseudonyms, censor: Censor) -> Skipped:
    found = _TAIL.fullmatch(item.where)
    file, tail = (found["file"], found["tail"] or "") if found else (item.where, "")
    place = re.sub(r"\(id .*\)", "", censor(tail)).rstrip()
    return Skipped(pseudonyms.of_path(file) + place, _said(item.reason, censor))

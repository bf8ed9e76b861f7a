"""Files below a folder: one walk, one rule for junk, one index of images by name, one loader.

Junk is left out without a word: hidden files and folders, and what operating systems and file servers leave behind
(:data:`JUNK`). Everything else is taken, counted, or set aside with a reason.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from twinray.data.decoding.bounded_file import first_bytes, is_dicom_head
from twinray.data.decoding.images import deep_spread, is_image_name, load_image
from twinray.data.decoding.options import ALONE, Decoding
from twinray.data.decoding.scale import Spread
from twinray.errors import InputError
from twinray.records import Pixels, Sample, Skipped
from twinray.words import counted

JUNK = frozenset(
    {
        "__macosx",
        "@eadir",  # thumbnails that a Synology server keeps beside every image
        "$recycle.bin",
        "desktop.ini",
        "dicomdir",  # a list of DICOM files, with their mark but without pixels
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Names of files and folders, in lower case, that are nobody's images; so are all names that begin with a dot."""

ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
"""Endings of archives, in lower case."""

_MOST_WAYS = 16
"""Most ways to one folder that are followed: folders that link to each other have any number of them."""

Judge = Callable[[Path], bool | str]
"""A file: taken (True), another kind of file (False), or set aside for a reason."""


@dataclass(frozen=True, slots=True)
class FileLoader:
    """Loads a sample whose ``source`` is a file under ``root`` (or an absolute path)."""

    root: Path
    decoding: Decoding = ALONE

    def __call__(self, sample: Sample) -> Pixels:
        """Decode the file; raises InputError where it is refused."""
        return load_image(self.root / sample.source, decoding=self.decoding)

    def decoding_as(self, decoding: Decoding) -> FileLoader:
        """The same loader, decoding as told."""
        return replace(self, decoding=decoding)

    def spread(self, sample: Sample) -> Spread | None:
        """What the file has to say on the scale of its source; None for 8 bits."""
        return deep_spread(self.root / sample.source, self.decoding)


@dataclass(slots=True)
class Scan:
    """What lies below a folder.

    Attributes:
        names: paths of the files taken, relative to the folder, with ``/``, sorted.
        others: number of other files by suffix.
        skipped: files and folders set aside, sorted.
        outside: files taken that lie elsewhere and are reached through a link, sorted.
        archives: archives, which nobody opens, sorted.
    """

    names: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What users must know of the folder besides its images."""
        notes = []
        if self.outside:
            first = _printable(self.outside[0])
            n = len(self.outside)
            who = "1 file lies outside the folder and is" if n == 1 else f"{n:,} files lie outside the folder and are"  # fmt: skip
            notes.append(f"{who} reached through links (first: {first})")
        if self.archives:
            first = _printable(self.archives[0])
            n = len(self.archives)
            who = "1 archive was" if n == 1 else f"{n:,} archives were"
            notes.append(f"{who} not opened (first: {first}): unpack {'it' if n == 1 else 'them'} to use what is inside")  # fmt: skip
        return notes

    @property
    def n_others(self) -> int:
        """Number of other files."""
        return sum(self.others.values())

    @property
    def others_in_words(self) -> str:
        """The commonest suffixes of the other files, each with its number."""
        ranked = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{suffix} {n}" for suffix, n in ranked[:4])


def scan(root: Path, judge: Judge, leave_out: Path | None = None) -> Scan:
    """Look at every file below ``root`` that is no junk, through links to folders too.

    Args:
        root: the folder.
        judge: says what each file is.
        leave_out: a file that is none of the source's, such as its table.
    """
    found, real_root = Scan(), os.path.realpath(root)
    elsewhere: dict[Path, bool] = {}
    own = None if leave_out is None else leave_out.resolve()
    for path in _files_below(root, found.skipped):
        if own is not None and path.resolve() == own:
            continue
        name = path.relative_to(root).as_posix()
        verdict = (
            judge(path)
            if _may_be_opened(path)
            else "a pipe, a socket or a device is no image; leave it out"
        )
        if verdict is False and path.suffix.lower() in ARCHIVES:
            found.archives.append(name)
        elif verdict is True:
            if path.parent not in elsewhere:
                elsewhere[path.parent] = _leads_out(path.parent, real_root)
            if elsewhere[path.parent] or (path.is_symlink() and _leads_out(path, real_root)):
                found.outside.append(name)
        if verdict is False:
            found.others[_printable(path.suffix.lower()) or "no suffix"] += 1
        elif verdict is not True:
            found.skipped.append(Skipped(_printable(name), verdict))
        elif _printable(name) != name:
            found.skipped.append(
                Skipped(_printable(name), "expected a file name in UTF-8; rename the file")
            )
        else:
            found.names.append(name)
    found.names.sort()
    found.skipped.sort(key=lambda skipped: skipped.where)
    found.outside.sort()
    found.archives.sort()
    return found


def scan_images(root: Path, leave_out: Path | None = None) -> Scan:
    """:func:`scan` for images of every kind: by their names' endings, or by DICOM's mark at byte 128."""
    return scan(root, lambda path: is_image_name(path) or _has_dicom_mark(path), leave_out)


def _files_below(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        where = _printable(str(error.filename))
        skipped.append(
            Skipped(where, f"could not list this folder: {error.strerror}; check its rights")
        )

    top = os.fspath(root)
    above: dict[str, frozenset[tuple[int, int]]] = {top: frozenset()}
    by_links: dict[str, bool] = {top: False}
    visits: Counter[tuple[int, int]] = Counter()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        this, own = (status.st_dev, status.st_ino), above.pop(folder)
        linked = by_links.pop(folder)
        visits[this] += linked
        if (
            this in own
        ):  # a link that leads back up; a folder that is reached by two ways is read twice
            below.clear()
            continue
        if linked and visits[this] > _MOST_WAYS:
            why = f"more than {_MOST_WAYS} links lead to this folder; remove some"
            skipped.append(Skipped(_printable(os.path.relpath(folder, root)), why))
            below.clear()
            continue
        below[:] = sorted(name for name in below if not is_junk(name))
        for name in below:
            path = os.path.join(folder, name)
            above[path] = own | {this}
            by_links[path] = linked or os.path.islink(path)
        yield from (Path(folder, name) for name in files if not is_junk(name))


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left out without a word."""
    return name.startswith(".") or name.lower() in JUNK


def _may_be_opened(path: Path) -> bool:
    """Whether a path leads to a regular file; what cannot be looked up passes, so that opening it says why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _leads_out(path: Path, real_root: str) -> bool:
    """Whether a file or folder below a folder lies elsewhere."""
    real = os.path.realpath(path)
    return real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep)


def _has_dicom_mark(path: Path) -> bool:
    try:
        return is_dicom_head(first_bytes(path, 132))
    except InputError:
        return False


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class NamedFiles:
    """The files that a list names, wherever the tool that wrote it thinks they lie.

    A name is looked for as it is written, below each of some folders. Where that finds nothing, it is tried without its
    first folders (``images/a.png`` below ``images``), with percent signs decoded (``a%20b.png``), in the other Unicode
    form, and in another case. The rest of the name is never changed, so no other image can be found.

    Attributes:
        root: the folder below which most names are found as written, which the others are told relative to.
    """

    def __init__(self, roots: Sequence[Path], names: Sequence[str]) -> None:
        """Choose the folder among ``roots``, of equals the first, by looking for all ``names``."""
        self._roots = [root for root in dict.fromkeys(roots) if root.is_dir()] or list(roots[:1])
        hits = [sum((root / name).is_file() for name in names) for root in self._roots]
        self.root = self._roots[hits.index(max(hits))] if hits else Path()
        self._folders: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The file's path relative to ``root``, with ``/``; None if there is no such file."""
        if _leads_up(name):
            name = "/".join(part for part in name.split("/") if part not in ("..", "."))
        elif (self.root / name).is_file():
            return name
        for written in dict.fromkeys((name, unquote(name.rpartition("?d=")[2]))):
            parts = PurePosixPath(written).parts
            for dropped in range(len(parts)):
                for root in self._roots:
                    found = self._below(root, parts[dropped:])
                    if found is not None:
                        return Path(os.path.relpath(found, self.root)).as_posix()
        return None

    def _below(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """The file of these parts below the folder, in any case and Unicode form."""
        for part in parts:
            if part in ("/", "..", "."):
                return None
            if not (folder / part).exists():
                actual = self._listed(folder).get(_folded(part))
                if actual is None:
                    return None
                part = actual
            folder = folder / part
        return folder if folder.is_file() else None

    def _listed(self, folder: Path) -> dict[str, str]:
        if folder not in self._folders:
            try:
                inside = sorted(os.listdir(folder))
            except OSError:
                inside = []
            twice = Counter(map(_folded, inside))
            self._folders[folder] = {
                _folded(name): name for name in inside if twice[_folded(name)] == 1
            }
        return self._folders[folder]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _leads_up(name: str) -> bool:
    return not os.path.isabs(name) and os.path.normpath(name).split(os.sep)[0] == ".."


@dataclass(frozen=True)
class ImageIndex:
    """Images under ``root``.

    Attributes:
        root: the folder that paths are relative to.
        by_stem: name without ending -> path relative to ``root``, with ``/``; of several the first in path order.
        repeated: number of further files that have the stem of another.
        own_notes: facts that users must know of the folder besides its images.
    """

    root: Path
    by_stem: dict[str, str]
    repeated: int
    own_notes: tuple[str, ...] = ()

    def find(self, name: str) -> str | None:
        """The path of the image of this file name, or of this stem; None if it is not there."""
        return self.by_stem.get(name) or self.by_stem.get(PurePosixPath(name).stem)

    def notes(self, listed: int, found: Iterable[str], what: str) -> list[str]:
        """Remarks on a partial copy and on images that no row names.

        Args:
            listed: number of images that the table names.
            found: paths of those that are there.
            what: the table's name.
        """
        there = set(found)
        notes = list(self.own_notes)
        if len(there) < listed:
            notes.append(
                f"{listed - len(there):,} of the {listed:,} images in {what} are not on this disk: left out"
            )
        notes += self.unlisted(there, what)
        if self.repeated:
            notes.append(
                f"{counted(self.repeated, 'file has', 'files have')} the same name as another in a different folder: left out"
            )
        return notes

    def unlisted(self, found: Iterable[str], what: str) -> list[str]:
        """A remark on images that no row names; none where every one is named.

        Args:
            found: paths of those that a row names.
            what: the table's name.
        """
        others = sorted(set(self.by_stem.values()) - set(found))
        return (
            [
                f"{counted(len(others), 'image on disk is', 'images on disk are')} not in {what}, such as {others[0]}: left out"
            ]
            if others
            else []
        )


def index_images(root: Path, skipped: list[Skipped]) -> ImageIndex:
    """Find the images below ``root`` by their names' endings; what is set aside is added to ``skipped``.

    Raises:
        InputError: no such folder.
    """
    if not root.is_dir():
        raise InputError(f"expected the folder of the images, {root} is not there; check the path")
    found = scan(root, is_image_name)
    skipped += found.skipped
    by_stem: dict[str, str] = {}
    for path in found.names:
        by_stem.setdefault(PurePosixPath(path).stem, path)
    return ImageIndex(root, by_stem, len(found.names) - len(by_stem), tuple(found.notes))

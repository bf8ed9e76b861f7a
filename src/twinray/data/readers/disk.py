"""Image files on disk: one walk, one rule for junk, one loader."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twinray.data.decoding.images import is_image_name, load_image
from twinray.errors import InputError
from twinray.records import Pixels, Sample, Skipped

_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class FileLoader:
    """Loads a sample whose ``source`` is a file under ``root`` (or an absolute path)."""

    root: Path

    def __call__(self, sample: Sample) -> Pixels:
        """Decode the file; raises InputError where it is refused."""
        return load_image(self.root / sample.source)


def scan_folder(root: Path, table: Path | None, skipped: list[Skipped]) -> tuple[list[str], Counter[str]]:
    """Relative posix paths of the images, sorted, and how many other files there are by suffix."""
    names: list[str] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        skipped.append(
            Skipped(_printable(str(error.filename)), f"could not list this folder: {error.strerror}; check its rights")
        )

    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not _is_junk(name))
        for name in files:
            path = Path(folder, name)
            if _is_junk(name) or (table is not None and path.resolve() == table.resolve()):
                continue
            relative = path.relative_to(root).as_posix()
            if not (is_image_name(path) or _has_dicom_mark(path)):
                others[_printable(path.suffix.lower()) or "no suffix"] += 1
            elif _printable(relative) != relative:
                skipped.append(Skipped(_printable(relative), "expected a file name in UTF-8; rename the file"))
            else:
                names.append(relative)
    return sorted(names), others


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _has_dicom_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class ImageIndex:
    """Images under ``root``.

    Attributes:
        root: the folder that paths are relative to.
        by_stem: name without ending -> path relative to ``root``, with ``/``; of several the first in path order.
        repeated: how many further files have the stem of another.
    """

    root: Path
    by_stem: dict[str, str]
    repeated: int

    def find(self, name: str) -> str | None:
        """The path of the image of this file name, or of this stem; None if it is not there."""
        return self.by_stem.get(name) or self.by_stem.get(PurePosixPath(name).stem)

    def notes(self, listed: int, found: Iterable[str], what: str) -> list[str]:
        """Remarks on a partial copy and on images that no row names.

        Args:
            listed: how many images the table names.
            found: paths of those that are there.
            what: the table's name.
        """
        there = set(found)
        others = sorted(set(self.by_stem.values()) - there)
        notes = []
        if len(there) < listed:
            notes.append(f"{listed - len(there):,} of the {listed:,} images in {what} are not on this disk: left out")
        if others:
            notes.append(f"{len(others):,} images on disk are not in {what}, such as {others[0]}: left out")
        if self.repeated:
            notes.append(f"{self.repeated:,} files have the same name as another in a different folder: left out")
        return notes


def index_images(root: Path) -> ImageIndex:
    """Look for images under ``root``; hidden files and folders are passed over.

    Raises:
        InputError: no such folder.
    """
    if not root.is_dir():
        raise InputError(f"expected the folder of the images, {root} is not there; check the path")
    paths: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        relative = Path(folder).relative_to(root)
        paths += [(relative / name).as_posix() for name in files if is_image_name(Path(name))]
    by_stem: dict[str, str] = {}
    for path in sorted(paths):
        by_stem.setdefault(PurePosixPath(path).stem, path)
    return ImageIndex(root, by_stem, len(paths) - len(by_stem))

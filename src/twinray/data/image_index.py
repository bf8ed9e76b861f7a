"""Where on the disk the images are that a published table names: by file name or by stem, at any depth.

Copies of the large data sets differ in folders (``images_001/images``, ``images/``, flat) and in file type (DICOM,
converted PNG or JPEG); the name's stem is what they share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twinray.data.decoding.images import is_image_name
from twinray.errors import InputError


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

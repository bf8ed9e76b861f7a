"""The real images that a check looks at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twinray.data.decoding.images import load_image
from twinray.data.fit import to_square
from twinray.data.pack import Pack, open_pack
from twinray.data.readers.disk import scan_images
from twinray.errors import InputError
from twinray.exporting.subject import Subject
from twinray.records import IntArray, Pixels
from twinray.runs.folder import CONFIG, read_config


@dataclass(frozen=True, eq=False)
class Sample:
    """Images for a check.

    Attributes:
        pixels: (n, p, p[, 3]), as networks take them from the run's pack.
        source: where they are from, for the card: no path.
    """

    pixels: Tensor
    source: str


def sample(subject: Subject, files: tuple[Path, ...], most: int) -> Sample:
    """Images to check on: the given files, or some of the run's own packs, test images first.

    Raises:
        InputError: no image can be read, or the run's packs are not where they were.
    """
    if files:
        return _of_files(subject, files, most)
    packs = opened_packs(subject)
    if not packs:
        raise InputError(
            f"the packs that {subject.run} learned from are not where they were "
            f"({', '.join(map(str, pack_paths(subject))) or 'none is recorded'}); give real images for the check with --images"
        )
    pack = packs[0]
    rows = _some_rows(pack, most)
    # by split alone: the pack's name is the house's
    of_split = Counter(str(pack.splits[row]) for row in rows)
    told = ", ".join(f"{n} {split}" for split, n in of_split.items())
    return Sample(
        torch.from_numpy(np.stack([pack.pixels[int(row)] for row in rows])),
        f"the run's own pack ({told})",
    )


def opened_packs(subject: Subject) -> list[Pack]:
    """The packs that a run learned from, as far as they are where they were."""
    return [pack for path in pack_paths(subject) if (pack := _opened(path)) is not None]


def pack_paths(subject: Subject) -> tuple[Path, ...]:
    """Where the packs lay that a run learned from."""
    if not (subject.run / CONFIG).is_file():
        return ()
    told = read_config(subject.run).get("data", ())
    paths = told if isinstance(told, list) else [told]
    return tuple(Path(path) for path in paths if isinstance(path, str) and path)


def _opened(path: Path) -> Pack | None:
    try:
        return open_pack(path)
    except InputError:
        return None


def _some_rows(pack: Pack, most: int) -> IntArray:
    """Rows spread over the test split, then over the others."""
    found: list[int] = []
    for split in ("test", "val", "train"):
        rows = pack.where(split)
        n = min(len(rows), most - len(found))
        found += rows[np.linspace(0, len(rows) - 1, n).astype(int)].tolist() if n else []
    return np.array(found, dtype=np.int64)


def _of_files(subject: Subject, paths: tuple[Path, ...], most: int) -> Sample:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += [path / one for one in scan_images(path.absolute()).names]
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(
                f"expected an image file or a folder, {path} is not there; check --images"
            )
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)]
    pixels = [_packed(subject, file) for file in chosen]
    if not pixels:
        raise InputError(f"no image in {', '.join(map(str, paths))}; give others with --images")
    return Sample(torch.from_numpy(np.stack(pixels)), "files that were named")


def _packed(subject: Subject, file: Path) -> npt.NDArray[Any]:
    if subject.model is not None:
        return subject.model.prepare(
            load_image(file, decoding=subject.model.decoding()), file.name
        ).packed
    return fitted(subject, load_image(file, decoding=subject.decoding))


def fitted(subject: Subject, pixels: Pixels) -> npt.NDArray[Any]:
    """What a backbone's pack would hold of an image: (p, p) or (p, p, 3), uint8, or float32 levels where it learned from linear values."""
    if subject.linear:
        pixels = pixels.as_linear()
    own = subject.pack
    square = to_square(pixels.array, own.size, own.fit, own.channels)
    return np.array(square) if pixels.linear is None else pixels.linear.levels(square)

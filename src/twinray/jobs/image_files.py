"""Image files and folders named on a command line -> files, each decoded in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from twinray.data.decoding.images import file_kind, load_image
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.sandbox import map_in_workers
from twinray.data.readers.disk import scan_images
from twinray.errors import InputError
from twinray.records import Pixels, Skipped

if TYPE_CHECKING:
    from pydicom import Dataset

    from twinray.report.dicom.source import DicomSource

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What :func:`find_images` found.

    Attributes:
        files: each file once, those of a folder in the order of their names.
        skipped: files and folders set aside while looking: names that are not UTF-8, folders that cannot be listed.
        notes: what users must know of the folders: links that lead out of them, archives.
    """

    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()


def find_images(paths: Sequence[Path], leave_out: Path | None = None) -> Found:
    """The files themselves, and every image file in the folders and below; each file once.

    Args:
        paths: files and folders.
        leave_out: folder of the results, whose pictures an earlier start may have written; it is no source of images, unless
            named itself.

    Raises:
        InputError: a path that is not there, or a folder without images.
    """
    files: dict[Path, Path] = {}
    skipped: list[Skipped] = []
    notes: list[str] = []
    places: dict[Path, Path] = {}  # a folder has many files: look it up once
    results = None if leave_out is None else leave_out.resolve()
    for path in paths:
        listed = _files(path, skipped, notes)
        if results is not None and path.is_dir() and path.resolve() in results.parents:
            listed = [file for file in listed if not file.resolve().is_relative_to(results)]
        for file in listed:
            if file.parent not in places:
                places[file.parent] = file.parent.resolve()
            files.setdefault(places[file.parent] / file.name, file)
    return Found(tuple(files.values()), tuple(dict.fromkeys(skipped)), tuple(dict.fromkeys(notes)))


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A decoded image file.

    Attributes:
        pixels: as :func:`twinray.data.decoding.images.load_image` gives them.
        source: of a DICOM file, what objects derived from it refer to, or why none can; None of any other file.
        shown: how a grey DICOM image is displayed, for a presentation state of it; None where none can be made.
        digest: SHA-256 of the pixels, hexadecimal.
        uids: study, series and SOP instance UID as a DICOM file has them; empty of any other file.
        lateral: flag, true where a DICOM header says that the view is not frontal.
    """

    pixels: Pixels
    source: DicomSource | Skipped | None
    digest: str
    uids: tuple[str, str, str] = ("", "", "")
    lateral: bool = False
    shown: Dataset | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that was not asked for, and why."""

    reason: str


def decode(
    files: Sequence[Path], decoding: Decoding, *, workers: int, timeout: float, memory: int
) -> Iterator[tuple[Path, Pixels | Skipped]]:
    """Each file with its pixels, or with why it was set aside; a bomb or a crashing decoder cannot end the job.

    Args:
        files: image files.
        decoding: how they are decoded, see :meth:`twinray.inference.model.Model.decoding`.
        workers: processes; 0 decodes in this one, without limits.
        timeout: longest that one file may take, seconds.
        memory: most memory that one file may take, MiB.
    """
    return _in_workers(partial(load_image, decoding=decoding), files, workers, timeout, memory)


def decode_with_source(
    files: Sequence[Path],
    decoding: Decoding,
    *,
    frontal: bool = False,
    workers: int,
    timeout: float,
    memory: int,
) -> Iterator[tuple[Path, Opened | LeftOut | Skipped]]:
    """As :func:`decode`; with each DICOM file's patient, study and image, read in the same process.

    ``frontal``: leave out files whose header says that the view is another.
    """
    function: Callable[[Path], Opened | LeftOut] = partial(
        open_image, decoding=decoding, frontal=frontal
    )
    return _in_workers(function, files, workers, timeout, memory)


def open_image(file: Path, decoding: Decoding, frontal: bool = False) -> Opened | LeftOut:
    """Decode one file, and read what a DICOM file says of patient and study.

    Raises:
        InputError: as :func:`twinray.data.decoding.images.load_image`; a header without identity is no reason.
    """
    if file_kind(file) != "dicom":
        pixels = load_image(file, decoding=decoding)
        return Opened(pixels, None, _digest(pixels))
    from twinray.data.decoding.dicom.header import dicom_attributes

    header = dicom_attributes(file)
    if frontal and header.lateral:
        view = header.view_position or "in its view code"
        return LeftOut(f"lateral or oblique view ({view}), left out by --views frontal")
    pixels = load_image(file, decoding=decoding)
    uids = (header.study_uid, header.series_uid, header.sop_uid)
    # pydicom loads for half a second: not for PNG files
    from twinray.report.dicom.source import read_display, read_source

    source: DicomSource | Skipped
    shown = None
    try:
        source = read_source(file)
        with contextlib.suppress(InputError):  # the other objects are made all the same
            shown = read_display(file)
        if pixels.array.ndim == 3:
            shown = (
                None  # the standard knows presentation states of this kind for grey images alone
            )
    except InputError as error:
        source = _set_aside(file, str(error))
    return Opened(pixels, source, _digest(pixels), uids, header.lateral, shown)


def _digest(pixels: Pixels) -> str:
    """The same of images that look the same, whatever their files."""
    array = np.ascontiguousarray(pixels.array)
    shown = "" if pixels.linear is None else repr(pixels.linear)
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes() + shown.encode()).hexdigest()


def _in_workers(
    function: Callable[[Path], T], files: Sequence[Path], workers: int, timeout: float, memory: int
) -> Iterator[tuple[Path, T | Skipped]]:
    outcomes = map_in_workers(
        function, files, workers=workers, timeout_s=timeout, memory_bytes=memory << 20
    )
    with closing(cast(Any, outcomes)):
        for file, outcome in zip(files, outcomes, strict=True):
            if outcome.error is None and outcome.value is not None:
                yield file, outcome.value
            else:
                yield file, _set_aside(file, str(outcome.error))


def _set_aside(file: Path, fault: str) -> Skipped:
    """A file and what is wrong with it; the file is named once."""
    return Skipped(str(file), fault.removeprefix(f"{file}: "))


def _files(path: Path, skipped: list[Skipped], notes: list[str]) -> list[Path]:
    shown = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        path.stat()
    except FileNotFoundError as error:
        raise InputError(
            f"expected an image file or a folder, {shown} is not there; check the path"
        ) from error
    except OSError as error:
        raise InputError(
            f"could not open {shown}: {error.strerror}; check the path and its rights"
        ) from error
    top = path.absolute()
    if shown != str(path) or not _is_text(top):
        skipped.append(Skipped(shown, "expected a path in UTF-8; rename the file or folder"))
        return []
    if not path.is_dir():
        return [path]
    found = scan_images(top)
    notes += [f"{path}: {note}" for note in found.notes]
    own = [
        Skipped(str(path / (top / item.where).relative_to(top)), item.reason)
        for item in found.skipped
    ]
    if not found.names:
        why = f" ({len(own)} set aside; the first: {own[0].where}: {own[0].reason})" if own else ""
        raise InputError(f"no image file (PNG, JPEG, TIFF, DICOM) in {path}{why}; check the path")
    skipped += own
    return [path / name for name in found.names]


def _is_text(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

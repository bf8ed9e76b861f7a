"""One data set of MedIMeta (once MIMeta) -> Collection.

Data sheet
    Images: 19 public data sets of 10 medical domains with 54 tasks, all 224 x 224, grey or RGB.
        Each lies in a folder of its own and is read one at a time. Several go into one pack for
        cross-domain pre-training. The comparative study on Barlow Twins used the liver CT organ
        slices (11 organs) and the colorectal tissue tiles (107,180 images, 9 classes).
    Labels: a data set has one or several tasks: binary, multi-class, multi-label or ordinal (read as classes).
    Splits: ``splits/``, made for MedIMeta so that every data set has train, val and test; where the source had its own
        they are in ``original_splits/``. A split without images has no file.
    Label noise: that of each source; ``info.yaml`` names it with its paper.
    Citation: Woerner, Jaques, Baumgartner, A comprehensive and easy-to-use multi-domain multi-task medical imaging
        meta-dataset (MedIMeta), arXiv 2404.16000.
    Licence: each data set's own, in its ``info.yaml``.
    Layout: Images are ``<id>/images/000000.tiff`` and so on, or ``<id>/images.hdf5``, or both. The
        HDF5 file has a data set ``images`` (n, h, w, c) of uint8. ``splits/{train,val,test}.txt``
        has a path a line whose stem is the image's index. ``original_splits/*.txt`` has the
        source's own splits. ``task_labels/<task>.npy`` has (n,) class numbers or (n, k) zeros and
        ones. ``annotations.csv`` has a row an image, first column ``filepath``. ``info.yaml`` has
        ``id`` and ``tasks`` (each ``task_name``, ``task_target``, ``labels``, number -> name).

TIFFs are preferred: they need no further package. HDF5 needs h5py (the ``[hdf5]`` extra) and is read one image at a
time, in the worker that decodes it.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from twinray.data.decoding.bounded_file import one_line, parser_faults_as_input_errors
from twinray.data.decoding.images import MAX_PIXELS
from twinray.data.identity import DATA_SETS
from twinray.data.patients import NO_PATIENTS
from twinray.data.readers import columns
from twinray.data.readers.disk import FileLoader
from twinray.data.readers.tabular import read_rows
from twinray.errors import InputError
from twinray.files import check_regular
from twinray.records import (
    ABSENT,
    PRESENT,
    SPLITS,
    UNKNOWN,
    Collection,
    FloatArray,
    Pixels,
    Sample,
    Skipped,
    Split,
    Task,
)
from twinray.words import counted

_HDF5 = "images.hdf5"
_MOST_INFO_BYTES = 1 << 20
_MOST_CLASSES = 1000
_ADVICE = "copy it again from its source"


@dataclass(frozen=True, slots=True)
class _Labels:
    """Classes of the chosen task and each image's vector (None: not stated)."""

    classes: tuple[str, ...] = ()
    task: Task = "none"
    values: npt.NDArray[Any] | None = None
    column_of: Mapping[int, int] = field(default_factory=dict)

    def vector(self, index: int) -> FloatArray | str | None:
        """(k,) float32, None where nothing is stated, or why the label is refused."""
        if self.values is None:
            return None
        if index >= len(self.values):
            return f"expected a label, task_labels has only {len(self.values)} rows"
        own = np.atleast_1d(self.values[index]).astype(np.float64)
        if np.isnan(own).all():
            return None
        if self.task == "multilabel":
            if not np.isin(own[~np.isnan(own)], (0, 1)).all():
                return f"expected labels 0 or 1, got {one_line(str(own.tolist()), 60)}"
            return np.where(np.isnan(own), UNKNOWN, own).astype(np.float32)
        column = (
            self.column_of.get(int(own[0]))
            if math.isfinite(own[0]) and own[0] == int(own[0])
            else None
        )
        if column is None:
            return f"expected a class number that info.yaml names, got {own[0]:g}"
        vector = np.full(len(self.classes), ABSENT, dtype=np.float32)
        vector[column] = PRESENT
        return vector


@dataclass(frozen=True, slots=True)
class _Row:
    """What annotations.csv states of one image."""

    patient: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Hdf5Loader:
    """Loads a sample whose ``source`` is ``images.hdf5#index`` under ``root``."""

    root: Path

    def __call__(self, sample: Sample) -> Pixels:
        """Read one image; raises InputError for a damaged file or another layout."""
        name, _, index = sample.source.rpartition("#")
        path = self.root / name
        with parser_faults_as_input_errors(path, "reading HDF5", _ADVICE):
            return _hdf5_image(path, int(index))


def read_medimeta(
    root: Path, *, task: str | None = None, patient_column: str | None = None
) -> Collection:
    """Describe one MedIMeta data set.

    Args:
        root: the data set's folder, which holds ``info.yaml``.
        task: name of the task whose labels to read (in any case). By default the only one; with several tasks none
            is taken, which is enough for pre-training, and a note names them.
        patient_column: column of ``annotations.csv`` that holds patients, where its name is none of the known ones.

    Returns:
        A collection named by the data set's id; an image's id is its index of at least six digits.
        Images that are listed but not there are left out and counted in one note. An image whose
        label cannot be used stays, without a label. It is named among what was set aside.

    Raises:
        InputError: no such folder, ``info.yaml`` or splits; an unknown task or one that does not
            have classes. Also a broken table or label file; only HDF5 without h5py; no image left.
    """
    info = _info(root)
    skipped: list[Skipped] = []
    notes: list[str] = []
    labels = _labels(root, info, task, notes)
    splits = _splits(root, notes, skipped)
    rows = _annotations(root, patient_column, skipped, notes)
    sources, load = _sources(root, splits, notes)
    samples = []
    for index, split in splits.items():
        if index not in sources:
            continue
        vector = labels.vector(index)
        if isinstance(vector, str):
            skipped.append(
                Skipped(
                    f"{root / 'task_labels'} image {index}", f"{vector}; the image is kept without"
                )
            )
            vector = None
        row = rows.get(index)
        samples.append(
            Sample(
                id=f"{index:06d}",
                source=sources[index],
                patient=None if row is None else row.patient,
                split=split,
                labels=vector,
                attributes={} if row is None else row.attributes,
            )
        )
    if not samples:
        raise InputError(
            f"none of the {len(splits)} images that the splits in {root} list is there; {_ADVICE}"
        )
    bare = [sample.id for sample in samples if rows and int(sample.id) not in rows]
    if bare:
        notes.append(
            f"{counted(len(bare), 'image has no row', 'images have no row')} in annotations.csv (first: {bare[0]}): their patients and attributes are unknown"
        )
    unlabelled = sum(sample.labels is None for sample in samples)
    if labels.values is not None and unlabelled:
        notes.append(
            f"{counted(unlabelled, 'image has no label in task_labels: it is', 'images have no label in task_labels: they are')} kept without"
        )
    if all(sample.patient is None for sample in samples):
        notes.append(NO_PATIENTS)
    name = one_line(str(info.get("id") or root.resolve().name or "medimeta"), 80)
    key = f"medimeta-{name.lower().replace('_', '-')}"
    return Collection(
        name=name,
        label_classes=labels.classes,
        box_classes=(),
        task=labels.task,
        samples=tuple(samples),
        load=load,
        skipped=tuple(skipped),
        notes=tuple(notes),
        data_set=key if key in DATA_SETS else "",
    )


def _info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        came = "is a file; give its folder" if root.exists() else "is not there; check the path"
        raise InputError(f"expected the folder of a MedIMeta data set, {root} {came}")
    path = root / "info.yaml"
    if not path.is_file():
        below = sorted(info.parent.name for info in root.glob("*/info.yaml"))
        cure = (
            f"give one of the folders in it: {', '.join(below[:8])}" if below else "check the path"
        )
        raise InputError(f"expected info.yaml in {root}, found none; {cure}")
    with parser_faults_as_input_errors(path, "reading YAML", _ADVICE):
        with path.open("rb") as file:
            content = file.read(_MOST_INFO_BYTES + 1)
        if len(content) > _MOST_INFO_BYTES:
            raise InputError(
                f"{path}: expected a short description, got more than 1 MiB; {_ADVICE}"
            )
        info = yaml.safe_load(content)
    if not isinstance(info, dict) or not isinstance(info.get("tasks") or [], list):
        raise InputError(f"expected an object with a list of tasks in {path}; {_ADVICE}")
    return info


def _labels(root: Path, info: Mapping[str, Any], wanted: str | None, notes: list[str]) -> _Labels:
    path = root / "info.yaml"
    tasks: dict[str, dict[str, Any]] = {}
    for i, described in enumerate(info.get("tasks") or []):
        name = described.get("task_name") if isinstance(described, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"expected a 'task_name' in {path} tasks[{i}]; {_ADVICE}")
        tasks[name] = described
    told = one_line(", ".join(tasks), 600) or "none"
    if wanted is None:
        if len(tasks) > 1:
            notes.append(
                f"labels are left out: {len(tasks)} tasks, choose one with --task ({told})"
            )
        if len(tasks) != 1:
            return _Labels()
        chosen = next(iter(tasks))
    else:
        same = [name for name in tasks if name == wanted] or [
            n for n in tasks if n.lower() == wanted.strip().lower()
        ]
        if not same:
            raise InputError(
                f"expected a task of {root.name} ({told}), got {wanted!r}; correct --task"
            )
        chosen = same[0]
    named = _classes(tasks[chosen], chosen, path)
    values = _values(root, chosen)
    several = values.ndim == 2 and values.shape[1] > 1
    if several and values.shape[1] != len(named):
        raise InputError(
            f"expected {len(named)} columns of labels for task {chosen!r}, as info.yaml names, "
            f"got {values.shape[1]}; {_ADVICE}"
        )
    classes = tuple(named[key] for key in sorted(named))
    column_of = {key: column for column, key in enumerate(sorted(named))}
    return _Labels(classes, "multilabel" if several else "multiclass", values, column_of)


def _classes(described: Mapping[str, Any], task: str, path: Path) -> dict[int, str]:
    """Class number -> name."""
    labels = described.get("labels")
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    whole = isinstance(labels, dict) and all(
        isinstance(k, int) and not isinstance(k, bool) for k in labels
    )
    if not isinstance(labels, dict) or not whole or not 2 <= len(labels) <= _MOST_CLASSES:
        kind = one_line(str(described.get("task_target", "unknown")), 60)
        raise InputError(
            f"expected 'labels' of 2 or more numbered classes for task {task!r} ({kind}) in {path}"
        )
    named = {key: one_line(str(name), 200) for key, name in labels.items()}
    if len(set(named.values())) < len(named):
        raise InputError(
            f"expected every class of task {task!r} in {path} to have a name of its own; rename one"
        )
    return named


def _values(root: Path, task: str) -> npt.NDArray[Any]:
    """(n,) or (n, k) numbers of one task's label file."""
    if PurePosixPath(task).name != task:
        raise InputError(
            f"expected a task name that can be a file's name, got {task!r}; correct info.yaml"
        )
    path = root / "task_labels" / f"{task}.npy"
    if not path.is_file():
        raise InputError(
            f"expected the labels of task {task!r} in {path}, there is no such file; {_ADVICE}"
        )
    with (
        parser_faults_as_input_errors(path, "reading an array of labels", _ADVICE),
        path.open("rb") as file,
    ):
        if np.lib.format.read_magic(file) != (1, 0):
            raise InputError(f"{path}: expected NumPy's file format 1.0; {_ADVICE}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "biuf" or len(shape) not in (1, 2):
            raise InputError(
                f"{path}: expected one or two dimensions of numbers, got {shape} of {dtype}; {_ADVICE}"
            )
        if math.prod(shape) * dtype.itemsize != os.fstat(file.fileno()).st_size - file.tell():
            raise InputError(
                f"{path}: expected {shape} of {dtype}, the file is not that long; {_ADVICE}"
            )
        file.seek(0)
        values: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return values


def _splits(root: Path, notes: list[str], skipped: list[Skipped]) -> dict[int, Split]:
    """Split by image index, in order of the index."""
    for folder in ("splits", "original_splits"):
        found: dict[int, Split] = {}
        for split in SPLITS:
            path = root / folder / f"{split}.txt"
            if path.is_file():
                _read_split(path, split, found, skipped)
        if found:
            if folder == "original_splits":
                notes.append(
                    "no splits/ of MedIMeta's own: those of the source (original_splits/) are used"
                )
            return dict(sorted(found.items()))
    first = f"; first: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
    raise InputError(
        f"expected image paths in {root / 'splits'} (train.txt, val.txt, test.txt), found none{first}"
    )


def _read_split(path: Path, split: Split, found: dict[int, Split], skipped: list[Skipped]) -> None:
    check_regular(path, "the list of images")
    with parser_faults_as_input_errors(path, "reading a list of images", _ADVICE):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        index = _index(line)
        if index is None:
            reason = f"expected a path such as images/000000.tiff, got {one_line(line, 60)!r}; correct the line"
            skipped.append(Skipped(f"{path} line {i}", reason))
        elif index in found:
            skipped.append(
                Skipped(
                    f"{path} line {i}",
                    f"image {index} is already in {found[index]}; keep one of them",
                )
            )
        else:
            found[index] = split


def _index(path: str) -> int | None:
    stem = PurePosixPath(path.strip().replace("\\", "/")).stem
    return int(stem) if re.fullmatch(r"[0-9]{1,9}", stem) else None


def _annotations(
    root: Path, patient_column: str | None, skipped: list[Skipped], notes: list[str]
) -> dict[int, _Row]:
    """Rows of annotations.csv by image index; nothing if there is no such file."""
    path = root / "annotations.csv"
    rows: dict[int, _Row] = {}
    if not path.is_file():
        return rows
    patient: str | None = None
    for row in read_rows(path, ("filepath",), any_case=True, advice=_ADVICE, notes=notes):
        if not rows:
            names = [name for name in row.header if name.strip()]
            patient = columns.patient_column(names, patient_column, str(path))
            unread = columns.unread_patients(names, patient)
            notes += [] if unread is None else [unread]
        index = _index(row["filepath"])
        if index is not None and index in rows:
            skipped.append(
                Skipped(row.where, f"image {index} already has a row further up; keep one of them")
            )
        elif index is None:
            told = one_line(row["filepath"], 60)
            skipped.append(
                Skipped(
                    row.where,
                    f"expected a path such as images/000000.tiff, got {told!r}; correct the row",
                )
            )
        else:
            key = "" if patient is None else columns.plain(patient)
            others = row.others(("filepath", key))
            attributes = {
                name: cell for name, cell in others.items() if not name.startswith("tasks/")
            }
            rows[index] = _Row((row[key] if key else "") or None, attributes)
    return rows


def _sources(
    root: Path, splits: Mapping[int, Split], notes: list[str]
) -> tuple[dict[int, str], FileLoader | Hdf5Loader]:
    """Where each image's pixels are, and what loads them: TIFFs if all are there, else HDF5, else the TIFFs there are."""
    tiffs: dict[int, str] = {}
    if (root / "images").is_dir():
        for entry in sorted(os.listdir(root / "images")):
            if entry.lower().endswith((".tiff", ".tif")) and (index := _index(entry)) is not None:
                tiffs[index] = f"images/{entry}"
    missing = [index for index in splits if index not in tiffs]
    if missing and (root / _HDF5).is_file():
        try:
            importlib.import_module("h5py")
        except ImportError:
            raise InputError(
                f"reading {root / _HDF5} needs the package h5py: pip install 'twinray[hdf5]' (or unpack images/*.tiff)"
            ) from None
        return {index: f"{_HDF5}#{index}" for index in splits}, Hdf5Loader(root)
    if not tiffs:
        raise InputError(
            f"expected images/000000.tiff or {_HDF5} in {root}, found neither; {_ADVICE}"
        )
    if missing:
        notes.append(
            f"{counted(len(missing), 'image that the splits list is', 'images that the splits list are')} not there (first: {missing[0]:06d}); left out"
        )
    unlisted = len(tiffs) - (len(splits) - len(missing))
    if unlisted:
        notes.append(
            f"{counted(unlisted, 'image is in no split and was', 'images are in no split and were')} left out"
        )
    return tiffs, FileLoader(root)


def _hdf5_image(path: Path, index: int) -> Pixels:
    status = os.stat(path)
    images = _hdf5_dataset(str(path), status.st_mtime_ns, status.st_size, os.getpid())
    shape = images.shape
    if index >= shape[0]:
        raise InputError(f"{path}: expected an image {index}, it holds {shape[0]}; {_ADVICE}")
    array = np.asarray(images[index])
    grey = array.ndim == 3 and array.shape[2] == 1
    return Pixels(
        array[..., 0] if grey else array,
        "hdf5 8-bit grey" if grey or array.ndim == 2 else "hdf5 rgb",
    )


@functools.lru_cache(maxsize=2)
def _hdf5_dataset(path: str, changed_ns: int, size: int, process: int) -> Any:
    """The data set ``images``, opened once per process and version of the file; no pixel is read."""
    images = importlib.import_module("h5py").File(path, "r").get("images")
    shape = tuple(getattr(images, "shape", None) or ())
    planes = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not planes or images.dtype != np.uint8 or min(shape[1:]) < 1:
        raise InputError(
            f"{path}: expected 'images' (n, height, width, 1 or 3) of uint8, got {shape}; {_ADVICE}"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise InputError(
            f"{path}: claims images of {shape[2]} x {shape[1]} pixels, over {MAX_PIXELS}; leave it out"
        )
    if images.external is not None or images.is_virtual:
        raise InputError(
            f"{path}: expected the pixels in this file, they are said to be in others; {_ADVICE}"
        )
    return images

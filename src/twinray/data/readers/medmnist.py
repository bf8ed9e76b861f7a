"""A 2D data set of MedMNIST or MedMNIST+ -> Collection.

Data sheet
    Images: all 8-bit, 28 x 28, and 64, 128 or 224 in MedMNIST+. Counts are train / val / test.
        PathMNIST 89,996 / 10,004 / 7,180 RGB. ChestMNIST 78,468 / 11,219 / 22,433 grey,
        multi-label. DermaMNIST 7,007 / 1,003 / 2,005 RGB. OCTMNIST 97,477 / 10,832 / 1,000 grey.
        PneumoniaMNIST 4,708 / 524 / 624 grey. RetinaMNIST 1,080 / 120 / 400 RGB, ordinal.
        BreastMNIST 546 / 78 / 156 grey. BloodMNIST 11,959 / 1,712 / 3,421 RGB. TissueMNIST 165,466
        / 23,640 / 47,280 grey. OrganAMNIST 34,561 / 6,491 / 17,778 grey. OrganCMNIST 12,975 / 2,392
        / 8,216 grey. OrganSMNIST 13,932 / 2,452 / 8,827 grey. The last three are version 3; version
        2 had a few blank images more.
    Labels: one class an image; ChestMNIST 14 findings, each 0 or 1. RetinaMNIST's five grades of diabetic retinopathy
        are read as classes: their order is not used.
    Splits: MedMNIST's own. No patients are stated, so nobody can check that splits are patient-disjoint.
    Label noise: that of the sources. ChestMNIST's labels were mined from reports (NIH
        ChestX-ray14). Do not test on it a network that was pre-trained on those images.
        PneumoniaMNIST is Kermany's paediatric set. In DermaMNIST (HAM10000) several images of one
        lesion lie on both sides of the splits (Abhishek et al., Scientific Data 2025).
    Citation: Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
        classification, Scientific Data 10:41, 2023.
    Licence: CC BY 4.0; DermaMNIST CC BY-NC 4.0. Not for clinical use.
    Layout: ``<name>.npz`` or ``<name>_64|_128|_224.npz``. Images are ``{train,val,test}_images``,
        (n, h, w) or (n, h, w, 3) uint8. Labels are ``{train,val,test}_labels``, (n, 1) class
        numbers or (n, k) zeros and ones. The file states no class names; they are known here by the
        file's name, else classes are called "0", "1", ... 3D sets are refused.

Memory: never more than two arrays of 128 MiB a process, whatever the archive's size. An array that
is stored without compression is read where an image lies. A compressed one of up to 128 MiB is
unpacked once. A larger one is unpacked as a stream. The stream is as fast when images are asked for
in order, as packing does, and starts again when asked to go back.
"""

from __future__ import annotations

import functools
import operator
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.bounded_file import parser_faults_as_input_errors
from twinray.data.decoding.images import MAX_PIXELS
from twinray.errors import InputError
from twinray.files import check_regular
from twinray.records import (
    ABSENT,
    PRESENT,
    SPLITS,
    Collection,
    FloatArray,
    Pixels,
    Sample,
    Split,
    Task,
)

_ORGANS = "bladder|femur-left|femur-right|heart|kidney-left|kidney-right|liver|lung-left|lung-right|pancreas|spleen"
_NAMES = {
    "pathmnist": "adipose|background|debris|lymphocytes|mucus|smooth muscle|normal colon mucosa|"
    "cancer-associated stroma|colorectal adenocarcinoma epithelium",
    "chestmnist": "atelectasis|cardiomegaly|effusion|infiltration|mass|nodule|pneumonia|pneumothorax|consolidation|"
    "edema|emphysema|fibrosis|pleural|hernia",
    "dermamnist": "actinic keratoses and intraepithelial carcinoma|basal cell carcinoma|benign keratosis-like lesions|"
    "dermatofibroma|melanoma|melanocytic nevi|vascular lesions",
    "octmnist": "choroidal neovascularization|diabetic macular edema|drusen|normal",
    "pneumoniamnist": "normal|pneumonia",
    "retinamnist": "0|1|2|3|4",
    "breastmnist": "malignant|normal, benign",
    "bloodmnist": "basophil|eosinophil|erythroblast|immature granulocytes (myelocytes, metamyelocytes and "
    "promyelocytes)|lymphocyte|monocyte|neutrophil|platelet",
    "tissuemnist": "collecting duct, connecting tubule|distal convoluted tubule|glomerular endothelial cells|"
    "interstitial endothelial cells|leukocytes|podocytes|proximal tubule segments|thick ascending limb",
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}
CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    name: tuple(classes.split("|")) for name, classes in _NAMES.items()
}
"""Names of the classes of the twelve 2D sets, in the order of their numbers."""

HELD_BYTES = 128 << 20
"""Compressed arrays up to this size are held unpacked, two at most in a process."""

_MOST_IMAGES = 20_000_000
_MOST_CLASSES = 1000
_CHUNK = 1 << 20
_READING = "reading it as a MedMNIST archive (.npz)"
_ADVICE = "download it again from its source"


@dataclass(frozen=True, slots=True)
class _Array:
    """One array of an archive; ``start`` is where its values begin in the unpacked member, in bytes."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def row_bytes(self) -> int:
        return _product(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class NpzLoader:
    """Loads a sample whose ``source`` is ``<name>.npz#<split>/<index>``, from the archive ``path``."""

    path: Path

    def __call__(self, sample: Sample) -> Pixels:
        """Read one image: (h, w) or (h, w, 3). Raises InputError for a damaged archive or one that has changed."""
        split, _, index = sample.source.rpartition("#")[2].partition("/")
        with parser_faults_as_input_errors(self.path, _READING, _ADVICE):
            status = os.stat(self.path)
            shape, row = _rows(
                str(self.path), f"{split}_images", status.st_mtime_ns, status.st_size, os.getpid()
            )
            if int(index) >= shape[0]:
                raise InputError(
                    f"{self.path}: expected an image {index} in {split}, it holds {shape[0]}; {_ADVICE}"
                )
            array = np.frombuffer(row(int(index)), dtype=np.uint8).reshape(shape[1:]).copy()
        return Pixels(array, "npz 8-bit grey" if array.ndim == 2 else "npz rgb")


def read_medmnist(path: Path) -> Collection:
    """Describe the images of one archive; no pixel is read.

    Args:
        path: the ``.npz`` file.

    Returns:
        A collection named as the file without its suffix; ids are ``train/0``, ``train/1``, ..., ``test/0``, ...

    Raises:
        InputError: no such file, not an archive of this layout, or volumes. Also labels that are
            not class numbers or that the set of this name does not have.
    """
    _check_path(path)
    with parser_faults_as_input_errors(path, _READING, _ADVICE), zipfile.ZipFile(path) as archive:
        images = {split: _image_array(path, archive, f"{split}_images") for split in SPLITS}
        labels = {
            split: _label_values(path, archive, split, images[split].shape[0]) for split in SPLITS
        }
    if len({array.shape[1:] for array in images.values()}) > 1:
        told = ", ".join(f"{split} {array.shape[1:]}" for split, array in images.items())
        raise InputError(
            f"{path}: expected images of one size in all splits, got {told}; {_ADVICE}"
        )
    classes, task = _classes(path, labels)
    samples = tuple(
        sample
        for split in SPLITS
        for sample in _samples(path, split, labels[split], len(classes), task)
    )
    if not samples:
        raise InputError(f"{path}: expected images, it holds none; {_ADVICE}")
    return Collection(
        name=path.stem,
        label_classes=classes,
        box_classes=(),
        task=task,
        samples=samples,
        load=NpzLoader(path),
        notes=_notes(path, images),
    )


def _check_path(path: Path) -> None:
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("*.npz"))[:8])
        raise InputError(
            f"expected a MedMNIST .npz file, {path} is a folder; give a file in it ({inside or 'no .npz'})"
        )
    check_regular(path, "the MedMNIST archive")
    if not path.is_file():
        raise InputError(f"expected a MedMNIST .npz file, {path} is not there; check the path")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: expected a MedMNIST archive (.npz), it is no zip file or is cut off; {_ADVICE}"
        )


def _product(shape: tuple[int, ...]) -> int:
    return functools.reduce(operator.mul, shape, 1)  # of Python's whole numbers: cannot overflow


def _described(path: Path, archive: zipfile.ZipFile, name: str) -> _Array:
    """An array's header, checked against the length of its member; nothing of its values is read."""
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        keys = (
            ", ".join(sorted(entry.removesuffix(".npy") for entry in archive.namelist())[:12])
            or "nothing"
        )
        raise InputError(
            f"{path}: expected the array {name}, found {keys}; is it a MedMNIST file?"
        ) from None
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise InputError(
                f"{path}: expected {name} in NumPy's file format 1.0, got {version}; {_ADVICE}"
            )
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    if (
        dtype.kind not in "bui"
        or min(shape, default=0) < 0
        or (fortran and len(shape) > 1 and _product(shape))
    ):
        raise InputError(
            f"{path}: expected {name} of whole numbers, row by row, got {dtype} {shape}; {_ADVICE}"
        )
    if start + _product(shape) * dtype.itemsize != member.file_size:
        raise InputError(
            f"{path}: {name} says {shape} of {dtype}, which is not its length; {_ADVICE}"
        )
    return _Array(member, shape, dtype, start)


def _image_array(path: Path, archive: zipfile.ZipFile, name: str) -> _Array:
    array = _described(path, archive, name)
    shape = array.shape
    if (
        len(shape) == 5
        or (len(shape) == 4 and shape[3] != 3)
        or path.stem.lower().split("_")[0].endswith("3d")
    ):
        size = " x ".join(str(n) for n in shape[1:])
        raise InputError(
            f"{path}: expected images, {name} holds volumes ({size}); 3D sets cannot be used, give a 2D set"
        )
    if array.dtype != np.uint8 or len(shape) not in (3, 4):
        raise InputError(
            f"{path}: expected {name} (n, h, w) or (n, h, w, 3) of uint8, got {shape} of {array.dtype}"
        )
    if not (shape[0] <= _MOST_IMAGES and 1 <= shape[1] * shape[2] <= MAX_PIXELS):
        raise InputError(
            f"{path}: {name} claims {shape[0]} images of {shape[2]} x {shape[1]} pixels; {_ADVICE}"
        )
    return array


def _label_values(path: Path, archive: zipfile.ZipFile, split: Split, n: int) -> npt.NDArray[Any]:
    """(n, k) whole numbers."""
    name = f"{split}_labels"
    array = _described(path, archive, name)
    k = _product(array.shape[1:])
    if len(array.shape) not in (1, 2) or array.shape[0] != n or not 1 <= k <= _MOST_CLASSES:
        raise InputError(
            f"{path}: expected a label for each of {n} images in {name}, got {array.shape}; {_ADVICE}"
        )
    with archive.open(array.member) as file:
        values: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return values.reshape(n, k)


def _classes(path: Path, labels: Mapping[Split, npt.NDArray[Any]]) -> tuple[tuple[str, ...], Task]:
    """Names of the classes, known or numbered, and the task."""
    known = CLASS_NAMES.get(re.sub(r"_(64|128|224)$", "", path.stem.lower()))
    widths = {values.shape[1] for values in labels.values()}
    if len(widths) > 1:
        raise InputError(
            f"{path}: expected as many labels an image in every split, got {sorted(widths)}; {_ADVICE}"
        )
    k = widths.pop()
    limit = 2 if k > 1 else len(known) if known else _MOST_CLASSES
    for split, values in labels.items():
        bad = np.argwhere((values < 0) | (values >= limit))
        if len(bad):
            row, column = bad[0]
            raise InputError(
                f"{path}: expected labels from 0 to {limit - 1}, got {values[row, column]} in {split}_labels row {row}; "
                + ("if it is another data set, rename the file" if known else _ADVICE)
            )
    if known and k > 1 and k != len(known):
        raise InputError(
            f"{path}: expected {len(known)} labels an image, got {k}; if another data set, rename the file"
        )
    highest = max((int(values.max()) for values in labels.values() if len(values)), default=0)
    count = k if k > 1 else max(2, highest + 1)
    return known or tuple(str(i) for i in range(count)), "multilabel" if k > 1 else "multiclass"


def _samples(
    path: Path, split: Split, values: npt.NDArray[Any], n_classes: int, task: Task
) -> list[Sample]:
    vectors: dict[bytes, FloatArray] = {}
    samples = []
    for index, own in enumerate(values):
        key = own.tobytes()
        if key not in vectors:
            vector = np.full(n_classes, ABSENT, dtype=np.float32)
            vector[own.astype(bool) if task == "multilabel" else int(own[0])] = PRESENT
            vector.flags.writeable = False
            vectors[key] = vector
        name = f"{split}/{index}"
        samples.append(Sample(name, f"{path.name}#{name}", split=split, labels=vectors[key]))
    return samples


def _notes(path: Path, images: Mapping[Split, _Array]) -> tuple[str, ...]:
    notes = [
        "no patient ids: MedMNIST states none, so nobody can check that its splits are patient-disjoint"
    ]
    if path.stem.lower().startswith("dermamnist"):
        notes.append(
            "images of one lesion lie on both sides of DermaMNIST's splits: its figures are too good"
        )
    streamed = max(_held_bytes(array) for array in images.values())
    if streamed > 2 << 30:
        notes.append(
            f"one array unpacks to {streamed >> 30} GiB, every worker from its start: after a restart with --resume "
            "the first image may take longer than --timeout; raise it then"
        )
    return tuple(notes)


def _held_bytes(array: _Array) -> int:
    return 0 if array.member.compress_type == zipfile.ZIP_STORED else array.member.file_size


@functools.lru_cache(maxsize=2)
def _rows(
    path: str, name: str, changed_ns: int, size: int, process: int
) -> tuple[tuple[int, ...], Callable[[int], bytes]]:
    """An array's shape and a function that reads one row; made once per process and version of the file."""
    archive = zipfile.ZipFile(path)
    array = _image_array(Path(path), archive, name)
    if array.member.compress_type == zipfile.ZIP_STORED:
        archive.close()
        return array.shape, functools.partial(
            _stored_row, path, _offset(path, array), array.row_bytes
        )
    if array.member.file_size <= HELD_BYTES:
        with archive:
            return array.shape, _held_rows(path, archive, array)
    return array.shape, _StreamedRows(path, archive, array)


def _offset(path: str, array: _Array) -> int:
    """Where a stored array's values begin in the archive: behind the member's own header of 30 bytes and two names."""
    with open(path, "rb") as file:
        file.seek(array.member.header_offset)
        header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    return array.member.header_offset + 30 + int(name) + int(extra) + array.start


def _stored_row(path: str, offset: int, row_bytes: int, index: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset + index * row_bytes)
        return file.read(row_bytes)


def _held_rows(path: str, archive: zipfile.ZipFile, array: _Array) -> Callable[[int], bytes]:
    fault, content = "", b""
    try:
        with parser_faults_as_input_errors(Path(path), "unpacking its images", _ADVICE):
            content = archive.read(array.member)
    except InputError as error:
        fault = str(error)  # kept, so that the next image does not unpack it all again

    def row(index: int) -> bytes:
        if fault:
            raise InputError(fault)
        start = array.start + index * array.row_bytes
        return content[start : start + array.row_bytes]

    return row


class _StreamedRows:
    """Reads rows of a large compressed array in a few MiB of memory; going back starts again from the beginning."""

    def __init__(self, path: str, archive: zipfile.ZipFile, array: _Array) -> None:
        self._path, self._archive, self._array = path, archive, array
        self._member: Any = None
        self._next = 0
        self._fault: tuple[int, str] | None = None

    def __call__(self, index: int) -> bytes:
        if self._fault is not None and index >= self._fault[0]:
            raise InputError(self._fault[1])  # nothing behind damage can be unpacked
        if self._member is None or index < self._next:
            self._member, self._next = self._archive.open(self._array.member), 0
            self._member.read(self._array.start)
        try:
            with parser_faults_as_input_errors(Path(self._path), "unpacking its images", _ADVICE):
                self._skip((index - self._next) * self._array.row_bytes)
                row: bytes = self._member.read(self._array.row_bytes)
        except InputError as error:
            self._member, self._fault = None, (index, str(error))
            raise
        self._next = index + 1
        return row

    def _skip(self, count: int) -> None:
        while count > 0 and (got := len(self._member.read(min(count, _CHUNK)))):
            count -= got

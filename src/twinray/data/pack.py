"""The pack: images decoded once, kept so that training can read them as fast as memory.

A pack is a folder of three files that NumPy and pandas open on any machine:

- ``images.npy``: uint8, (n, s, s) grey or (n, s, s, 3) RGB, display-ready. With ``--pixels uint16`` they are linear values
  as stored, and the table has each image's window (columns: :data:`LINEAR`).
- ``samples.parquet``: one row an image, in the same order (columns: :data:`SCHEMA`).
- ``pack.json``: format version, class names, size, fit, channel mean and standard deviation, counts,
  checksums, notes, and what was set aside and why.

Boxes are kept in pixels of the original image. ``scale_x, scale_y, offset_x, offset_y`` map a point
into the packed image (x_pack = x * scale_x + offset_x) and back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twinray.data.decoding.options import Decoded, PixelType
from twinray.data.keyed import COLUMNS, Own, PackKey, SourceNames, own_ids
from twinray.data.packed_pixels import LevelPixels, PackedPixels, shown
from twinray.errors import InputError
from twinray.files import read_json, sha256, typed
from twinray.geometry import Fit, Geometry
from twinray.records import SPLITS, Boxes, FloatArray, IntArray, Task, patient_code

FORMAT_VERSION = 1

IMAGES, SAMPLES, PACK = "images.npy", "samples.parquet", "pack.json"
EDITED = "EDITED"
"""First word of every note on a file that is not what was written."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("patient", pa.string()),  # null: not known
        ("split", pa.string()),  # train, val or test
        ("width", pa.int32()),  # of the original, pixels
        ("height", pa.int32()),
        ("scale_x", pa.float64()),
        ("scale_y", pa.float64()),
        ("offset_x", pa.float64()),
        ("offset_y", pa.float64()),
        (
            "labels",
            pa.list_(pa.float32()),
        ),  # over pack.json label_classes; null: image without labels
        (
            "boxes",
            pa.list_(pa.list_(pa.float64(), 4)),
        ),  # xyxy, original pixels; null: never annotated
        ("box_classes", pa.list_(pa.int32())),  # ids into pack.json box_classes
        ("box_readers", pa.list_(pa.string())),  # null: not known
        ("box_n_readers", pa.list_(pa.int32())),  # null: not fused
        ("source", pa.string()),  # path relative to the source
        ("how", pa.string()),  # how the pixels were made
        ("sha256", pa.string()),  # of the packed pixels
        ("attributes", pa.string()),  # JSON object of further columns of the source
    ]
)


REGIONS = pa.schema(
    [
        ("regions", pa.list_(pa.list_(pa.float64(), 4))),  # xyxy, original pixels; null: none
        ("region_classes", pa.list_(pa.int32())),
    ]
)
"""Further columns of a pack with regions that evaluation leaves out; others lack them."""

KEYED = pa.schema([(name, pa.string()) for name in COLUMNS])
"""Further columns of a pack of private sources: ids under the pack's key (:mod:`twinray.data.keyed`); others lack them."""

LINEAR = pa.schema(
    [
        ("window_low", pa.float64()),  # pixel value that becomes black
        ("window_high", pa.float64()),  # white
        ("slope", pa.float64()),  # value of the source = slope x pixel + intercept
        ("intercept", pa.float64()),
    ]
)
"""Further columns of a pack of linear uint16 pixels; others lack them."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Names = tuple[Annotated[str, msgspec.Meta(min_length=1)], ...]


@dataclass(frozen=True)
class PackInfo:
    """What ``pack.json`` says; read with every value checked against its type.

    A key that a later version of format 1 adds needs a default here: packs that were written before it lack the key.

    Attributes:
        names: names of the sources.
        label_classes, box_classes: names that labels and boxes index.
        task: task of the labels.
        size: side of the packed images, in pixels.
        channels: 1 grey, 3 RGB.
        fit: way in which images were brought into the square.
        mean, std: mean and standard deviation of the training images' pixels (of all images if no
            split is ``train``), one value a channel, 0..1.
        counts: numbers of images, images by split, patients, annotated images and boxes.
        skipped: number of things set aside.
        skipped_reasons: number of things set aside by kind of reason, each kind shown by its first.
        notes: facts that users must know.
        split_method: way in which splits came about.
        checksums: SHA-256 by name of file.
        format_version: version of the pack's format.
        created_by: versions of what wrote it.
        decoded: way in which files became pixels, the same for new files that a model of this pack
            is asked about.
        pixels: type of the pixels: uint8, display-ready, or uint16, linear; mean and std are of what windows show.
        extra: further findings.
        sha256: of the rest of the description, in hexadecimal; empty in packs of earlier versions.
    """

    names: Names
    label_classes: Names
    box_classes: Names
    task: Task
    size: Annotated[int, msgspec.Meta(ge=1)]
    channels: Literal[1, 3]
    fit: Fit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: dict[str, Count]
    skipped: Count
    skipped_reasons: dict[str, Count]
    notes: tuple[str, ...]
    split_method: str
    checksums: dict[str, str]
    format_version: int = FORMAT_VERSION
    created_by: str = ""
    decoded: Decoded = field(default_factory=Decoded)
    pixels: PixelType = "uint8"
    extra: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """The JSON object that ``pack.json`` holds, with its hash.

        ``decoded`` is left out where nothing was chosen or found, ``pixels`` where they are of 8 bits.
        """
        plain = {"decoded": self.decoded == Decoded(), "pixels": self.pixels == "uint8"}
        content = {
            key: value
            for key, value in asdict(self).items()
            if key != "sha256" and not plain.get(key, False)
        }
        return content | {"sha256": _description_hash(content)}

    def made(self) -> dict[str, Any]:
        """How images became those of the pack, as ``model.json`` says it of the pack that a model learned from."""
        return {
            "size": self.size,
            "fit": self.fit,
            "channels": self.channels,
            "decoded": asdict(self.decoded),
            **({} if self.pixels == "uint8" else {"pixels": self.pixels}),
        }


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack; ``images`` is memory-mapped, so opening one costs next to nothing.

    Attributes:
        images: (n, s, s) or (n, s, s, 3) uint8, or linear uint16, as the file has them; networks take :attr:`pixels`,
            people :meth:`shown`.
        ids, splits: (n,) text. patients: (n,) text or None each.
        sizes: (n, 2) int64, original width and height in pixels.
        geometry: (n, 4) float64: scale_x, scale_y, offset_x, offset_y.
        labels: (n, k) float32 over ``info.label_classes``; NaN where not stated.
        edited: notes on files that are not what was packed, taken with ``allow_edited``.
        allow_edited: flag to take changed pixels too.
    """

    path: Path
    info: PackInfo
    images: npt.NDArray[Any]
    table: pa.Table
    ids: npt.NDArray[np.object_]
    patients: npt.NDArray[np.object_]
    splits: npt.NDArray[np.object_]
    sizes: IntArray
    geometry: FloatArray
    labels: FloatArray
    edited: tuple[str, ...] = ()
    allow_edited: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def check_pixels(self, rows: IntArray) -> tuple[str, ...]:
        """Compare packed pixels with their hashes in the table, before figures are made of them.

        Opening a pack reads no pixel, so that it costs nothing; hashing goes about as fast as reading.

        Returns:
            Notes on everything in the pack that is not what was packed, for whoever reads the figures.

        Raises:
            InputError: pixels differ and the pack was not opened with ``allow_edited``.
        """
        rows = np.unique(np.asarray(rows, dtype=np.int64))
        stated = self.table.column("sha256").take(pa.array(rows)).to_pylist()

        def same(at: int) -> bool:
            data = np.ascontiguousarray(self.images[rows[at]]).data
            return stated[at] is None or hashlib.sha256(data).hexdigest() == stated[at]

        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            wrong = [at for at, good in enumerate(threads.map(same, range(len(rows)))) if not good]
        if not wrong:
            return self.edited
        told = f"pixels of {len(wrong):,} images in {self.path / IMAGES} (first: row {int(rows[wrong[0]])})"
        return (*self.edited, *_not_as_written(told, self.allow_edited))

    @cached_property
    def pixels(self) -> PackedPixels:
        """The images as networks take them: uint8, or float32 levels, 0 and 1 being the ends of an image's own window."""
        if self.info.pixels == "uint8":
            return self.images
        windows = _numbers(self.table, ("window_low", "window_high"))
        return LevelPixels(np.asarray(self.images), windows)

    def shown(self, row: int) -> npt.NDArray[np.uint8]:
        """Image ``row`` for people, (s, s) or (s, s, 3) uint8: linear pixels as the image's own window shows them."""
        return shown(self.pixels[row])

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {len(self.where(split))}" for split in SPLITS)
        classes = "".join(
            f", {kind}: {' '.join(names)}"
            for kind, names in (
                ("labels", self.info.label_classes),
                ("boxes", self.info.box_classes),
            )
            if names
        )
        return f"Pack({str(self.path)!r}, {len(self)} images of {self.info.size} pixels, {splits}{classes})"

    def where(self, split: str) -> IntArray:
        """Indices of the images of one split, ascending."""
        return np.flatnonzero(self.splits == split)

    def boxes(self, index: int) -> Boxes | None:
        """True boxes of image ``index`` in original pixels; None if it was never annotated."""
        row = range(len(self))[index]  # as a list counts: from the end where negative
        boxes, classes, readers, n_readers = self._box_columns
        if not boxes.valid[row]:
            return None
        return Boxes(
            boxes.values[boxes.part(row)].copy(),
            classes.values[classes.part(row)].copy(),
            readers=tuple(readers.values[readers.part(row)].to_pylist())
            if readers.valid[row]
            else None,
            n_readers=n_readers.values[n_readers.part(row)].copy()
            if n_readers.valid[row]
            else None,
        )

    def regions(self, index: int) -> Boxes | None:
        """Regions of image ``index`` that evaluation leaves out, in original pixels, marked as crowds; None where none is."""
        row = range(len(self))[index]
        if self._region_columns is None or not self._region_columns[0].valid[row]:
            return None
        places, classes = (
            column.values[column.part(row)].copy() for column in self._region_columns
        )
        return Boxes(places, classes, crowd=np.ones(len(classes), dtype=bool))

    @cached_property
    def _region_columns(self) -> tuple[_ListColumn, ...] | None:
        if not set(REGIONS.names) <= set(self.table.column_names):
            return None
        places, classes = (_ListColumn.of(self.table, name) for name in REGIONS.names)
        known = not len(classes.values) or (
            classes.values.min() >= 0 and classes.values.max() < len(self.info.box_classes)
        )
        if not (known and np.array_equal(places.lengths, classes.lengths)):
            raise InputError(
                f"expected a known class for every region in {self.path / SAMPLES}; it is damaged, pack again"
            )
        return places, classes

    @cached_property
    def attributes(self) -> dict[str, list[str | None]]:
        """Further columns of the source by name, each with (n,) values as it wrote them; None where an image has none.

        ``source`` is the data set that an image came from, and is there where the pack was made of several.
        """
        rows = [
            self._attributes_of(text) if text else {}
            for text in self.table.column("attributes").to_pylist()
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        found: dict[str, list[str | None]] = {
            name: [row.get(name) for row in rows] for name in names
        }
        if len(self.info.names) > 1:
            # Ids of a pack of several sources begin with the source's name.
            longest_first = sorted(self.info.names, key=len, reverse=True)
            found["source"] = [
                next((name for name in longest_first if str(image).startswith(f"{name}/")), None)
                for image in self.ids
            ]
        return found

    def _attributes_of(self, text: str) -> dict[str, str]:
        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except (msgspec.DecodeError, ValueError) as error:
            raise InputError(
                f"expected an object of texts as attributes in {self.path / SAMPLES}, found {text[:60]!r}; the file is "
                "damaged, pack again"
            ) from error

    def attribute(self, name: str) -> list[str | None]:
        """One of ``attributes``; capital letters make no difference where the name is clear without them.

        Raises:
            InputError: no image has it; the message lists those that there are.
        """
        close = [own for own in self.attributes if own.lower() == name.lower()]
        if name not in self.attributes and len(close) != 1:
            known = ", ".join(self.attributes) or "none"
            raise InputError(f"{self.path} has no attribute {name!r}; it has: {known}")
        return self.attributes[name if name in self.attributes else close[0]]

    @cached_property
    def _box_columns(self) -> tuple[_ListColumn, ...]:
        columns = tuple(_ListColumn.of(self.table, name) for name in _BOX_COLUMNS)
        boxes, classes, *_ = columns
        alike = [np.array_equal(boxes.lengths[c.valid], c.lengths[c.valid]) for c in columns]
        known = len(classes.values) == 0 or (
            classes.values.min() >= 0 and classes.values.max() < len(self.info.box_classes)
        )
        if not (all(alike) and known and np.array_equal(boxes.valid, classes.valid)):
            raise InputError(
                f"expected a known class for every box in {self.path / SAMPLES}; it is damaged, pack again"
            )
        return columns

    def place(self, index: int) -> Geometry:
        """Where image ``index`` lies in its packed square, with the maps between their pixels."""
        width, height = self.sizes[index].tolist()
        return Geometry((width, height), self.info.size, *self.geometry[index].tolist())

    @cached_property
    def key(self) -> PackKey | None:
        """What is known of the key of its private sources; None where none has one.

        Raises:
            InputError: the description is damaged.
        """
        told = self.info.extra.get("key")
        if told is None:
            return None
        return typed(told, PackKey, self.path / PACK, "the description of the pack", "extra.key")

    @cached_property
    def source_names(self) -> SourceNames:
        """Whose an id is."""
        return SourceNames(self.info.names)

    def keyed(self, rows: IntArray) -> list[Own | None]:
        """Ids of images under the pack's key; None for images of published sources, and in a pack without a key."""
        if self.key is None or not set(COLUMNS) <= set(self.table.column_names):
            return [None] * len(rows)
        part = self.table.select(list(COLUMNS)).take(pa.array(rows)).to_pydict()
        return [
            None if image is None else Own((image,), *rest)
            for image, *rest in zip(*(part[name] for name in COLUMNS), strict=True)
        ]

    def plain(self, rows: IntArray) -> list[Own]:
        """Ids of images as their sources write them; pseudonyms where the pack was pseudonymised."""
        sources = self.table.column("source").take(pa.array(rows)).to_pylist()
        names = self.source_names
        patients = [self.patients[row] for row in rows.tolist()]
        return [
            own_ids(names.of(str(self.ids[row]))[1], source or "", names.of(p)[1] if p else None)
            for row, source, p in zip(rows.tolist(), sources, patients, strict=True)
        ]

    @cached_property
    def patient_codes(self) -> npt.NDArray[np.object_]:
        """(n,) what stands for the patients in results: whose image is whose, without their numbers; None if unknown.

        Under a key a code cannot be guessed from a number. Without one it hides numbers from a reader alone.
        """
        codes = np.empty(len(self), dtype=object)
        for row, (patient, own) in enumerate(
            zip(self.patients, self.keyed(np.arange(len(self))), strict=True)
        ):
            text = patient
            if patient and own is not None and own.patient:
                space = patient[: len(patient) - len(self.source_names.of(patient)[1])]
                text = f"{space}{own.patient}"
            codes[row] = patient_code(text)
        return codes

    @property
    def groups(self) -> npt.NDArray[np.object_]:
        """(n,) what a bootstrap resamples: the patient, or the image where the patient is unknown."""
        return np.array(
            [
                f"image {i}" if p is None else f"patient {p}"
                for i, p in zip(self.ids, self.patients, strict=True)
            ],
            dtype=object,
        )


_ALWAYS = ("id", "split", "width", "height", "scale_x", "scale_y", "offset_x", "offset_y")
_BOX_COLUMNS = ("boxes", "box_classes", "box_readers", "box_n_readers")


@dataclass(frozen=True, eq=False)
class _ListColumn:
    """A column of lists as Arrow keeps it, so that reading a row makes no Python object an element.

    Attributes:
        valid: (n,) bool, whether the row has a list.
        offsets: (n + 1,) where each row's list begins in ``values``.
        values: the elements of all lists; numbers as an array (boxes: (m, 4)), text as Arrow has it.
    """

    valid: npt.NDArray[np.bool_]
    offsets: IntArray
    values: Any

    @staticmethod
    def of(table: pa.Table, name: str) -> _ListColumn:
        column = table.column(name).combine_chunks()
        values = column.values
        if pa.types.is_nested(values.type):
            values = np.asarray(values.flatten(), dtype=np.float64).reshape(-1, 4)
        elif pa.types.is_integer(values.type):
            values = np.asarray(values, dtype=np.int64)
        return _ListColumn(np.asarray(column.is_valid()), np.asarray(column.offsets), values)

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    def part(self, row: int) -> slice:
        return slice(self.offsets[row], self.offsets[row + 1])


def open_pack(path: Path | str, *, allow_edited: bool = False) -> Pack:
    """Open a pack for reading, and compare its table and description with what was packed.

    Pixels are compared where they are used (:meth:`Pack.check_pixels`).

    Args:
        path: folder of the pack.
        allow_edited: flag to take changed files, with a note in ``edited`` and on standard error.

    Raises:
        InputError: not a pack, a pack of a newer format, one whose files disagree, or one that was edited.
    """
    path = Path(path)
    info, edited = _described(path, allow_edited)
    images, table = _open_images(path), _open_table(path, linear=info.pixels == "uint16")
    expected = (len(table), info.size, info.size) + ((3,) if info.channels == 3 else ())
    kind = np.dtype("<u2" if info.pixels == "uint16" else "u1")
    if images.shape != expected or images.dtype != kind or not images.flags.c_contiguous:
        raise InputError(
            f"expected {IMAGES} of shape {expected} and type {info.pixels}, row by row, in {path}, found {images.shape} "
            f"{images.dtype}; pack the source again"
        )
    sizes = _numbers(table, ("width", "height"))
    places = _numbers(table, ("scale_x", "scale_y", "offset_x", "offset_y"))
    if not (np.isfinite(places).all() and (places[:, :2] > 0).all() and (sizes >= 1).all()):
        raise InputError(
            f"expected sizes and scales above 0 in {path / SAMPLES}, found others; the file is damaged, pack again"
        )
    if info.pixels == "uint16":
        windows = _numbers(table, tuple(LINEAR.names))
        if not (np.isfinite(windows).all() and (windows[:, 1] > windows[:, 0]).all()):
            raise InputError(
                f"expected a window of some width for every image in {path / SAMPLES}, found others; the file is damaged, pack "
                "again"
            )
    now = sha256(path / SAMPLES)
    if info.checksums.get(SAMPLES, now) != now:
        edited += _not_as_written(str(path / SAMPLES), allow_edited)
        # runs of this pack are runs of the edited table: they must say so too
        info = replace(info, checksums={**info.checksums, SAMPLES: now})
    if SAMPLES not in info.checksums:
        edited += (f"{path} was packed before packs had checksums: it cannot be verified",)
    return Pack(
        path=path,
        info=info,
        images=images,
        table=table,
        ids=_objects(table, "id"),
        patients=_objects(table, "patient"),
        splits=_objects(table, "split"),
        sizes=sizes.astype(np.int64),
        geometry=places,
        labels=_label_matrix(table, len(info.label_classes)),
        edited=edited,
        allow_edited=allow_edited,
    )


def _not_as_written(what: str, allow_edited: bool) -> tuple[str, ...]:
    """A note on an edited file, also told at once; or its refusal."""
    if not allow_edited:
        raise InputError(
            f"{what}: not as it was packed (its checksum differs): it was edited, exchanged or damaged; restore it, pack "
            "again, or go on with --allow-edited, which marks the results"
        )
    note = f"{EDITED}: {what} is not as it was packed (--allow-edited)"
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {note}", file=sys.stderr)
    return (note,)


def _description_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of what ``pack.json`` says, whatever its spacing and the versions that wrote it."""
    kept = {key: value for key, value in content.items() if key not in ("sha256", "created_by")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _open_images(path: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path / IMAGES, mode="r")
    except Exception as error:  # NumPy's parser of headers raises nearly anything on damage
        raise InputError(
            f"could not open {path / IMAGES} as an array of images: {_first_line(error)}; pack the source again"
        ) from error


def _open_table(path: Path, *, linear: bool) -> pa.Table:
    try:
        table = pq.read_table(path / SAMPLES)
        table.validate(full=True)
        names = table.column_names  # decoded here: they may be no UTF-8
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"could not open {path / SAMPLES} as a table: {_first_line(error)}; pack the source again"
        ) from error
    always = [*SCHEMA, *(LINEAR if linear else ())]
    missing = [field.name for field in always if field.name not in names]
    if missing:
        raise InputError(f"expected columns {missing} in {path / SAMPLES}; pack the source again")
    optional = [field for field in KEYED if field.name in names]
    for wanted in (*always, *optional):
        column = table.column(wanted.name)
        if column.type != wanted.type:
            raise InputError(
                f"expected the column {wanted.name} of type {wanted.type} in {path / SAMPLES}, found {column.type}; was it "
                "written anew by another program? Restore it, or pack the source again"
            )
        if column.null_count and (wanted.name in _ALWAYS or wanted.name in LINEAR.names):
            raise InputError(
                f"expected a {wanted.name} in every row of {path / SAMPLES}; pack the source again"
            )
    return table


def verify_pack(path: Path) -> Pack:
    """Open a pack and compare its files with the checksums in ``pack.json``.

    Raises:
        InputError: a file is not the one that was written.
    """
    pack = open_pack(path)
    for name, expected in pack.info.checksums.items():
        if sha256(path / name) != expected:
            raise InputError(
                f"{path / name} does not match the checksum in {PACK}: it was changed or damaged; pack again"
            )
    wrong = [split for split in pack.splits.tolist() if split not in SPLITS]
    if wrong:
        raise InputError(
            f"expected splits {SPLITS} in {path / SAMPLES}, found {wrong[0]!r}; pack again"
        )
    return pack


def read_info(path: Path) -> PackInfo:
    """Read ``pack.json`` alone.

    Raises:
        InputError: not a pack, an unfinished one, one of another format version, or an edited one.
    """
    return _described(path, False)[0]


def _described(path: Path, allow_edited: bool) -> tuple[PackInfo, tuple[str, ...]]:
    """What ``pack.json`` says, and notes where it was edited."""
    if not path.is_dir():
        raise InputError(
            f"expected a pack (a folder), {path} is not there; make one with: twinray pack SOURCE --out {path}"
        )
    if not (path / PACK).is_file():
        raise InputError(
            f"{path} has no {PACK}: not a pack, or one whose making was cut off; run twinray pack again"
        )
    raw = read_json(path / PACK, "pack description")
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(
            f"expected pack format {FORMAT_VERSION} in {path / PACK}, found {version}; use the twinray that wrote it, "
            "or pack the source again"
        )
    info = typed(raw, PackInfo, path / PACK, "the description of the pack")
    if not len(info.mean) == len(info.std) == info.channels:
        raise InputError(
            f"expected {info.channels} values of mean and std in {path / PACK}; was it edited?"
        )
    if info.sha256 and info.sha256 != _description_hash(raw):
        return info, _not_as_written(str(path / PACK), allow_edited)
    return info, ()


def _objects(table: pa.Table, name: str) -> npt.NDArray[np.object_]:
    out = np.empty(len(table), dtype=object)
    out[:] = table.column(name).to_pylist()
    return out


def enlarged(pack: Pack, size: int) -> list[str]:
    """A note, where a network's input of ``size`` pixels is larger than the pack's images; else none."""
    if size <= pack.info.size:
        return []
    return [
        f"--size {size} is larger than the images of the pack {pack.path} ({pack.info.size} pixels): its pixels are "
        f"enlarged, which adds no detail; pack with --size {size}"
    ]


def _numbers(table: pa.Table, names: tuple[str, ...]) -> FloatArray:
    return np.stack(
        [np.asarray(table.column(name).to_numpy(), dtype=np.float64) for name in names], axis=1
    )


def _label_matrix(table: pa.Table, k: int) -> FloatArray:
    """(n, k) float32; rows without labels are NaN. No Python object a row: packs can have a million."""
    column = table.column("labels").combine_chunks()
    labels = np.full((len(table), k), np.nan, dtype=np.float32)
    stated = np.asarray(column.is_valid())
    values = np.asarray(column.flatten(), dtype=np.float32)
    if k:
        if len(values) != k * stated.sum():
            raise InputError(
                f"expected {k} labels in every row of {SAMPLES}, found other numbers; pack the source again"
            )
        labels[stated] = values.reshape(-1, k)
    return labels


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

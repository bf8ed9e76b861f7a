"""Frozen value types that travel between the parts of the product. NumPy only, no torch.

Boxes are float ``xyxy`` (left, top, right, bottom) in pixels of the original image. The origin is
at the image's top left corner. Right and bottom are exclusive, so width = x2 - x1. Class ids index
a tuple of class names from 0; there is no background class.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
Task = Literal["none", "multiclass", "multilabel"]
Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")

FEEDBACK = "feedback"
"""Name of a source that is the store of a viewer: its regions are boxes that readers left unjudged."""

PRESENT, ABSENT, UNCERTAIN, UNKNOWN = 1.0, 0.0, -1.0, float("nan")
"""Values of an image label: stated present, stated absent, stated uncertain, not stated."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The boxes of one image.

    Attributes:
        xyxy: (n, 4) float64, pixels of the original image.
        labels: (n,) int64, class ids from 0.
        scores: (n,) float64 in 0..1 for predictions; None for true boxes.
        readers: (n,) names of who drew each box; None where the source does not say.
        n_readers: (n,) int64, how many distinct readers agreed on a fused box; None if never fused.
        crowd: (n,) flags of true boxes that are regions that evaluation leaves out (COCO's
            ``iscrowd``). Predictions that lie in one are neither hits nor false positives. None
            where none is.
        area: (n,) float64, square pixels of the outline where that is not the box's own (COCO's ``area``), for figures by
            size; None where it is.

    Raises:
        ValueError: the shapes disagree. (Bad *input* is refused by the reader that meets it.)
    """

    xyxy: FloatArray
    labels: IntArray
    scores: FloatArray | None = None
    readers: tuple[str, ...] | None = None
    n_readers: IntArray | None = None
    crowd: npt.NDArray[np.bool_] | None = None
    area: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4):
            raise ValueError(f"boxes: expected an (n, 4) array, got {self.xyxy.shape}")
        for name in ("labels", "scores", "readers", "n_readers", "crowd", "area"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"boxes: {n} boxes but {len(value)} {name}")

    def __len__(self) -> int:
        return len(self.xyxy)

    @staticmethod
    def empty() -> Boxes:
        """An image that was looked at and has no box."""
        return Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))


READERS = "readers"
"""Attribute of a sample: names of everybody who read the image, with or without a box, joined by semicolons."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image as a reader describes it, before its pixels are decoded.

    Attributes:
        id: id, unique within its collection.
        source: place where the pixels are, relative to the collection's root (``images/a.png``,
            ``x.npz#train/12``).
        patient: patient id, or None where the source does not tell.
        split: the source's own split, or None.
        labels: (k,) float32 over the collection's ``label_classes``: 1 present, 0 absent, -1 uncertain,
            NaN not stated; None for an image without any label.
        boxes: None if the image was never annotated with boxes; empty if it was and has none.
        regions: regions of a class that evaluation leaves out (COCO's ``iscrowd`` and ``ignore``); None where there is none.
        boxes_frame: (width, height) in pixels of the frame that ``boxes`` are in where that is not
            the stored file's own. NIH's boxes are in 1024 x 1024 whatever the file's size.
        size: (width, height) that the annotations declare for the stored file; checked when it is decoded.
        attributes: further columns of the source as it wrote them (age, sex, view).
    """

    id: str
    source: str
    patient: str | None = None
    split: Split | None = None
    labels: FloatArray | None = None
    boxes: Boxes | None = None
    boxes_frame: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    regions: Boxes | None = None


RemarkKind = Literal[
    "orientation",  # the file asks for its pixels to be turned: the tag's value
    "damaged",  # kept although it is not whole: why
    "preview",  # the file holds further pictures: which was taken
    "clipped",  # values outside the scale: smallest and largest
    "high bits",  # bits above Bits Stored are in use: what became of them
    "unread",  # something in the header could not be read: what
    "channels",  # channels of no stated meaning were left out: how many
    "one value",  # all pixels are equal: to what
    "curve",  # shown by a curve, of which a pack of linear values keeps the range: which
]
Remark = tuple[RemarkKind, str]


@dataclass(frozen=True, slots=True)
class Linear:
    """What linear uint16 pixels mean, and how they are shown.

    Attributes:
        low, high: pixel values that become black and white: the image's own window; low < high.
        slope, intercept: value in the source's own unit = slope x pixel value + intercept. DICOM's unit is that after the
            modality transform (Hounsfield units in CT).
    """

    low: float
    high: float
    slope: float = 1.0
    intercept: float = 0.0

    def levels(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """uint16 pixels of any shape -> float32; 0 and 1 are the window's ends, nothing is cut off."""
        levels = pixels.astype(np.float32)
        levels -= np.float32(self.low)
        levels /= np.float32(self.high - self.low)
        return levels

    def shown(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """uint16 pixels of any shape -> uint8, as the window shows them."""
        return shown_levels(self.levels(pixels))


def shown_levels(levels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Levels of any shape, 0 black and 1 white -> uint8 for people; what lies outside is cut off."""
    shown: npt.NDArray[np.uint8] = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A decoded image, display-ready or linear.

    Attributes:
        array: (height, width) grey or (height, width, 3) RGB; uint8, display-ready, or where ``linear`` is there uint16.
        how: the way the stored values became these pixels, in a few words (``png 8-bit grey``,
            ``dicom window 1 LINEAR inverted``).
        remarks: facts that users must know of the file, to be counted over a source.
        linear: what uint16 pixels mean; None for uint8.
    """

    array: npt.NDArray[Any]
    how: str
    remarks: tuple[Remark, ...] = ()
    linear: Linear | None = None

    @property
    def shown(self) -> npt.NDArray[np.uint8]:
        """uint8 of the same shape, for people."""
        shown: npt.NDArray[np.uint8] = self.array
        return shown if self.linear is None else self.linear.shown(self.array)

    def as_linear(self) -> Pixels:
        """The same as linear pixels: 8 bits are multiplied by 257, so that 255 becomes 65535, exactly."""
        if self.linear is not None:
            return self
        array = self.array.astype(np.uint16) * np.uint16(257)
        return Pixels(array, f"{self.how} x 257", self.remarks, Linear(0.0, 65_535.0, 1 / 257))


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something set aside: ``where`` (file, row) and ``reason`` (expected, came, what to do)."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """What a reader makes of a source: descriptions of images and a function that loads their pixels.

    Attributes:
        name: short name of the source.
        label_classes: names that ``Sample.labels`` index.
        box_classes: names that ``Boxes.labels`` index.
        task: ``multiclass`` (exactly one label is 1), ``multilabel``, or ``none``.
        samples: the images, in a stable order.
        load: picklable function; decodes one sample's pixels; raises InputError for a file it
            refuses.
        skipped: rows or files already set aside while reading annotations.
        notes: one-line remarks that users must see (``no patient ids: ...``).
        data_set: key of the published data set that it is a copy of (:mod:`twinray.data.identity`), where the reader or the
            user states it; empty where names have to tell.
        by_place: flag, true where the split of all its images is told by where the source lies (``train/``): the other
            splits are then those of the other sources of this kind.
        public: flag, true where its ids are published, so that a plain hash of one gives nothing away.
        settled: flag, true where its splits stand for good: a split that it lacks is not cut out of the others.
    """

    name: str
    label_classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    task: Task
    samples: Sequence[Sample]
    load: Callable[[Sample], Pixels]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    data_set: str = ""
    by_place: bool = False
    public: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; ``n`` is what was resampled (patients, images or seeds).

    ``low`` and ``high`` are None where no interval can be given (one seed, one patient). ``method`` names how the interval
    was made where it is not the usual one of its kind, or why there is none; empty otherwise.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str = ""

    def as_json(self) -> dict[str, object]:
        """The form used in ``metrics.json``; a value that does not exist (NaN) becomes null."""
        value = None if np.isnan(self.value) else float(self.value)
        ci95 = (
            None if self.low is None or self.high is None else [float(self.low), float(self.high)]
        )
        method = {"method": self.method} if self.method else {}
        return {"value": value, "ci95": ci95, "n": int(self.n), **method}


def patient_code(patient: str | None) -> str | None:
    """What stands for a patient in results: whose image is whose, without the patient's number; None if unknown.

    It hides the number from a reader, not from one who counts numbers through.
    """
    return (
        hashlib.sha256(patient.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if patient
        else None
    )


def form_of(patient: str) -> tuple[str, str] | None:
    """The letters in front of a patient id and its number without zeros; None where it is not of that form.

    ``P12``, ``012`` and ``12`` may be one person, written by two hands: the numbers agree, and so do the letters where both
    have some. ``person12`` and ``IM-0012`` are not.
    """
    found = re.fullmatch(r"([^\W\d]{0,8})[\W_]{0,2}0*(\d+)", patient.strip())
    return (found[1].lower(), found[2]) if found else None


@dataclass(frozen=True, slots=True, eq=False)
class Part(Collection):
    """One of several collections of the same patients: equal patient ids are the same patient."""


def share_patients(collections: Sequence[Collection]) -> list[Collection]:
    """Say that the collections are parts of one data set: a patient id means the same patient in all of them."""
    return [
        Part(**{field.name: getattr(c, field.name) for field in fields(Collection)})
        for c in collections
    ]


_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validate", "validating", "validation", "dev", "devel", "development"),
        "val",
    ),
    **dict.fromkeys(("tune", "tuning"), "val"),  # for choosing, as validation is
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_SPLIT_LIKE = frozenset(
    {"eval", "evaluate", "evaluation", "holdout", "heldout", "internal", "external", "inference"}
)
"""Words that name a part of a data set, but not which of the three it is."""


def split_of(word: str) -> Split | None:
    """The split that a word names, in any case; None if it names none.

    ``valid``, ``validate``, ``dev`` and ``tuning`` are val, ``testing`` is test. A year or
    number behind the word (``train2017``) and the words set, split, data, images around it do not matter.
    """
    return _SPLITS.get(_split_word(word))


def is_split_like(word: str) -> bool:
    """Whether a word names a part of a data set without saying whether it is train, val or test (``evaluation``)."""
    return _split_word(word) in _SPLIT_LIKE


def split_in_name(name: str) -> Split | None:
    """The split that a file's name tells (``instances_train2017``); None where it tells none or several."""
    found = {split_of(part) for part in re.split(r"[^A-Za-z0-9]+", name)} - {None}
    return found.pop() if len(found) == 1 else None


def _split_word(word: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "", word.casefold())
    plain = re.sub(r"(?<=[a-z])\d+$", "", plain)
    return re.sub(r"^(?:the|data|official)|(?:set|split|data|images|subset)$", "", plain) or plain

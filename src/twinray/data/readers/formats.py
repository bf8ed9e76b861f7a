"""The one table of data sets that can be packed: each is one file, its reader, and one row here.

``pack --format``'s choices and help, the options that go with a format and the messages about them all come from
:data:`FORMATS`. To add a data set, write ``readers/NAME.py`` and a row; nothing else knows the formats by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal

from twinray.data.classes import checked_classes
from twinray.data.fusion import fuse_collection
from twinray.data.identity import NO_DATA_SET, known_as
from twinray.data.patients import PATIENT_DATA, checked_patients
from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.data.pseudonyms import Censor, Pseudonyms, hidden
from twinray.data.readers.chexpert import read_chexpert
from twinray.data.readers.coco import read_coco
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.data.readers.drawn.chestx_det import read_chestx_det
from twinray.data.readers.drawn.cvat import read_cvat
from twinray.data.readers.drawn.label_studio import (
    fuse_label_studio,
    read_label_studio,
    read_raw_label_studio,
)
from twinray.data.readers.drawn.object_cxr import read_object_cxr
from twinray.data.readers.drawn.siim import read_siim
from twinray.data.readers.drawn.voc import read_voc
from twinray.data.readers.drawn.yolo import read_yolo
from twinray.data.readers.exclusion import read_exclusion, without
from twinray.data.readers.feedback.reader import Sides, read_feedback
from twinray.data.readers.folder import Layout, read_folder
from twinray.data.readers.header_patients import with_header_patients
from twinray.data.readers.label_readings import Blank, LabelReading, NoFinding, Uncertain
from twinray.data.readers.medimeta import read_medimeta
from twinray.data.readers.medmnist import read_medmnist
from twinray.data.readers.mined.brax import read_brax
from twinray.data.readers.mined.mimic import read_mimic
from twinray.data.readers.mined.padchest import read_padchest
from twinray.data.readers.nih import read_nih
from twinray.data.readers.rsna import read_rsna
from twinray.data.readers.vindr.reader import fuse_vindr, read_raw_vindr, read_vindr
from twinray.errors import InputError
from twinray.records import Collection, share_patients, split_of

Views = Literal["auto", "frontal", "all"]

FUSION_IOU: Final = 0.5
"""What several readers' boxes are fused at unless told otherwise."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of ``pack`` that readers take; each has the same name and default there.

    Attributes:
        strict: flag to refuse a source at the first row that would be set aside.
        size: side of the packed images, in pixels.
        seed: seed of what is drawn.
        val, test: shares of images for validation and test.
        images: folder of the images where that is not the source.
        patient_regex, patient_column, table, layout: see :func:`twinray.data.readers.folder.read_folder`.
        fusion_iou, min_readers: see :func:`twinray.data.readers.vindr.reader.read_vindr`; None is the usual threshold.
        database: see :func:`twinray.data.readers.feedback.reader.read_feedback`.
        task: see :func:`twinray.data.readers.medimeta.read_medimeta`.
        views: ``frontal`` leaves lateral views out, ``all`` keeps them, ``auto`` is the reader's choice.
        uncertain, blank, no_finding: see :class:`twinray.data.readers.label_readings.LabelReading`.
        phantom_images, phantom_images_per_patient, phantom_labelled: see :class:`twinray.data.phantom.images.PhantomConfig`.
    """

    strict: bool = False
    size: int = 256
    seed: int = 0
    val: float = 0.1
    test: float = 0.2
    images: Path | None = None
    patient_regex: str | None = None
    patient_column: str | None = None
    table: Path | None = None
    layout: Layout = "auto"
    fusion_iou: float | None = None
    min_readers: int = 1
    database: str | None = None
    task: str | None = None
    views: Views = "auto"
    uncertain: Uncertain = "ignore"
    blank: Blank = "unknown"
    no_finding: NoFinding = "implies"
    phantom_images: int = 1000
    phantom_images_per_patient: float = 2.0
    phantom_labelled: float = 1.0


_FOR_ALL: Final = frozenset({"strict", "size", "seed", "val", "test"})
_ONE_SOURCE: Final = ("images", "table", "database")
"""Options that name one folder or file, which can belong to one source only."""

Read = Callable[[Path, SourceOptions], Collection]
Fuse = Callable[[Collection, float, int], Collection]


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the table.

    Attributes:
        what: the source in words, for messages and help (``the folder of NIH ChestX-ray14``).
        usage: text that stands for the source in an example (``FOLDER``); empty where the format
            draws its own images.
        read: source and options -> collection; the source is an empty path where the format draws its own.
        takes: names of :class:`SourceOptions` that ``read`` uses, besides those that every format has.
        annotations: reads the boxes that readers drew, as published, without looking for images; None: no boxes.
        fuse: fuses the boxes of several readers (collection, threshold, least readers); None: one reader an image.
        private: flag, true where no message may hold a patient id, since ids are those of a hospital.
        public: flag, true where the ids are published.
    """

    what: str
    usage: str
    read: Read
    takes: frozenset[str] = frozenset()
    annotations: Read | None = None
    fuse: Fuse | None = None
    private: bool = False
    public: bool = False


FORMATS: Mapping[str, Format] = {
    "folder": Format(
        "the folder of images",
        "FOLDER",
        lambda source, o: read_folder(
            source,
            patient_regex=o.patient_regex,
            table=o.table,
            layout=o.layout,
            patient_column=o.patient_column,
        ),
        takes=frozenset({"patient_regex", "patient_column", "table", "layout"}),
    ),
    "coco": Format(
        "the COCO annotation file",
        "FILE.json",
        lambda source, o: read_coco(
            source,
            o.images,
            strict=o.strict,
            need_images=True,
            layout=o.layout,
            patient_column=o.patient_column,
        ),
        takes=frozenset({"images", "layout", "patient_column"}),
        annotations=lambda source, o: read_coco(source, o.images),
    ),
    "nih": Format(
        "the folder of NIH ChestX-ray14",
        "FOLDER",
        lambda source, o: read_nih(source, images_root=o.images),
        takes=frozenset({"images"}),
        annotations=lambda source, o: read_nih(source, images_root=o.images, need_images=False),
        public=True,
    ),
    "vindr": Format(
        "the folder of VinDr-CXR",
        "FOLDER",
        lambda source, o: read_vindr(
            source,
            images_root=o.images,
            fusion_iou=FUSION_IOU if o.fusion_iou is None else o.fusion_iou,
            min_readers=o.min_readers,
        ),
        takes=frozenset({"images", "fusion_iou", "min_readers"}),
        annotations=lambda source, o: read_raw_vindr(
            source, images_root=o.images, need_images=False
        ),
        fuse=fuse_vindr,
        public=True,
    ),
    "rsna": Format(
        "the folder of the RSNA challenge",
        "FOLDER",
        lambda source, o: read_rsna(source, images_root=o.images),
        takes=frozenset({"images"}),
        annotations=lambda source, o: read_rsna(source, images_root=o.images, need_images=False),
        public=True,
    ),
    "chexpert": Format(
        "the folder of CheXpert",
        "FOLDER",
        lambda source, o: read_chexpert(
            source,
            frontal_only=o.views != "all",
            reading=LabelReading(o.uncertain, o.blank, o.no_finding),
        ),
        takes=frozenset({"views", "uncertain", "blank", "no_finding"}),
        public=True,
    ),
    "medmnist": Format(
        "the MedMNIST archive", "FILE.npz", lambda source, _: read_medmnist(source), public=True
    ),
    "medimeta": Format(
        "the folder of one MedIMeta data set",
        "FOLDER",
        lambda source, o: read_medimeta(source, task=o.task, patient_column=o.patient_column),
        takes=frozenset({"task", "patient_column"}),
        public=True,
    ),
    "dicom": Format(
        "the folder of DICOM files",
        "FOLDER",
        lambda source, o: read_dicom_folder(
            source,
            table=o.table,
            frontal_only=o.views == "frontal",
            patient_column=o.patient_column,
        ),
        takes=frozenset({"table", "views", "patient_column"}),
        private=True,
    ),
    "mimic-cxr": Format(
        "the folder of MIMIC-CXR-JPG",
        "FOLDER",
        lambda source, o: read_mimic(
            source,
            frontal_only=o.views != "all",
            reading=LabelReading(o.uncertain, o.blank, o.no_finding),
        ),
        takes=frozenset({"views", "uncertain", "blank", "no_finding"}),
        public=True,
    ),
    "brax": Format(
        "the folder of BRAX",
        "FOLDER",
        lambda source, o: read_brax(
            source,
            frontal_only=o.views != "all",
            reading=LabelReading(o.uncertain, o.blank, o.no_finding),
        ),
        takes=frozenset({"views", "uncertain", "blank", "no_finding"}),
        public=True,
    ),
    "padchest": Format(
        "the folder of PadChest",
        "FOLDER",
        lambda source, o: read_padchest(
            source, images_root=o.images, frontal_only=o.views != "all"
        ),
        takes=frozenset({"images", "views"}),
        public=True,
    ),
    "siim-acr": Format(
        "the folder of the SIIM-ACR pneumothorax challenge",
        "FOLDER",
        lambda source, o: read_siim(source, images_root=o.images),
        takes=frozenset({"images"}),
        annotations=lambda source, o: read_siim(source, images_root=o.images, need_images=False),
        public=True,
    ),
    "object-cxr": Format(
        "the folder of Object-CXR",
        "FOLDER",
        lambda source, o: read_object_cxr(source, images_root=o.images),
        takes=frozenset({"images"}),
        annotations=lambda source, o: read_object_cxr(
            source, images_root=o.images, need_images=False
        ),
        public=True,
    ),
    "chestx-det": Format(
        "the folder of ChestX-Det or ChestX-Det10",
        "FOLDER",
        lambda source, o: read_chestx_det(source, images_root=o.images),
        takes=frozenset({"images"}),
        annotations=lambda source, o: read_chestx_det(
            source, images_root=o.images, need_images=False
        ),
        public=True,
    ),
    "yolo": Format(
        "the YAML file or folder in YOLO's layout",
        "data.yaml",
        lambda source, o: read_yolo(source, patient_regex=o.patient_regex),
        takes=frozenset({"patient_regex"}),
        annotations=lambda source, _: read_yolo(source),
    ),
    "voc": Format(
        "the folder in Pascal VOC's layout",
        "FOLDER",
        lambda source, o: read_voc(source, o.images, patient_regex=o.patient_regex),
        takes=frozenset({"images", "patient_regex"}),
        annotations=lambda source, o: read_voc(source, o.images),
    ),
    "cvat": Format(
        "the annotations.xml of CVAT for images",
        "annotations.xml",
        lambda source, o: read_cvat(source, o.images, patient_regex=o.patient_regex),
        takes=frozenset({"images", "patient_regex"}),
        annotations=lambda source, o: read_cvat(source, o.images),
    ),
    "label-studio": Format(
        "the JSON export of Label Studio",
        "FILE.json",
        lambda source, o: read_label_studio(
            source,
            o.images,
            patient_regex=o.patient_regex,
            patient_column=o.patient_column,
            fusion_iou=FUSION_IOU if o.fusion_iou is None else o.fusion_iou,
            min_readers=o.min_readers,
        ),
        takes=frozenset({"images", "patient_regex", "patient_column", "fusion_iou", "min_readers"}),
        annotations=lambda source, o: read_raw_label_studio(source, o.images),
        fuse=fuse_label_studio,
    ),
    "feedback": Format(
        "the store of twinray serve",
        "STORE",
        lambda source, o: read_feedback(
            source,
            database=o.database,
            fusion_iou=FUSION_IOU if o.fusion_iou is None else o.fusion_iou,
            min_readers=o.min_readers,
            sides=Sides(o.seed, o.val, o.test),
        ),
        takes=frozenset({"database", "fusion_iou", "min_readers"}),
        annotations=lambda source, o: read_feedback(source, database=o.database, fusion_iou=0),
        fuse=fuse_collection,
        private=True,
    ),
    "phantom": Format(
        "synthetic chest images, drawn on the spot",
        "",
        lambda _, o: phantom_collection(
            PhantomConfig(
                images=o.phantom_images,
                size=max(256, o.size),
                seed=o.seed,
                images_per_patient=o.phantom_images_per_patient,
                labelled=o.phantom_labelled,
            )
        ),
        takes=frozenset({"phantom_images", "phantom_images_per_patient", "phantom_labelled"}),
        public=True,
    ),
}
"""Every format by the name that ``--format`` takes."""


def formats_in_words(formats: Mapping[str, Format]) -> str:
    """What each format's source is, for the help of ``--format``."""
    return "; ".join(f"{name}: {row.what.removeprefix('the ')}" for name, row in formats.items())


def takers_in_words(option: str) -> str:
    """``Formats nih and rsna``: which formats take an option, for its help."""
    names = _takers(option)
    *most, last = names
    return f"Formats {', '.join(most)} and {last}" if most else f"Format {last}"


def check_format(name: str, options: SourceOptions) -> None:
    """Refuse an unknown format and options that the format has no use for.

    Raises:
        InputError: naming the option and the formats that it goes with.
    """
    check_formats((name,), options)


def check_formats(names: Sequence[str], options: SourceOptions) -> None:
    """Refuse an unknown format and options that none of the formats has a use for.

    Raises:
        InputError: naming the option and the formats that it goes with.
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(f"expected --format {', '.join(FORMATS)}, got {name!r}")
    for option in fields(SourceOptions):
        told = option.name not in _FOR_ALL and getattr(options, option.name) != option.default
        if told and not any(option.name in FORMATS[name].takes for name in names):
            goes_with = ", ".join(_takers(option.name))
            others = " and ".join(dict.fromkeys(names))
            raise InputError(
                f"{_flag(option.name)} goes with --format {goes_with}, not with {others}; leave one of them out"
            )


def read_sources(
    formats: str | Sequence[str],
    sources: Sequence[Path],
    options: SourceOptions,
    *,
    shared_patients: bool = False,
    data_sets: Sequence[str] = (),
    pseudonyms: Pseudonyms | None = None,
    attributes: Sequence[str] = (),
    exclude: Path | None = None,
) -> list[Collection]:
    """Read sources: one collection a source; a format that draws its own images takes none.

    Args:
        formats: name of the format of all sources, or one for each.
        sources: folders or files.
        options: options that the readers take; each reader gets those that its format takes.
        shared_patients: the sources are parts of one data set, so equal patient ids are the same patient.
        data_sets: key of the published data set that each source is a copy of, ``none`` for none of them, or one for all;
            empty where names tell.
        pseudonyms: replaces what identifies people, in messages too; None keeps it.
        attributes: names of the attributes to keep; none given, all of them, under ``pseudonyms`` none.
        exclude: list of files to leave out, by name.

    Raises:
        InputError: an attribute that no image has, no source, an option that goes with one source or another format, or what the reader refuses.
    """
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    check_formats(names, options)
    drawn = next((name for name in names if not FORMATS[name].usage), None)
    if drawn is not None:
        if sources or len(names) > 1:
            what = f"the source {sources[0]}" if sources else f"--format {' and '.join(names)}"
            raise InputError(f"--format {drawn} draws its own images, got {what}; leave it out")
        if shared_patients:
            raise InputError(
                f"--shared-patients goes with several sources, the {drawn} has none; leave it out"
            )
        if exclude is not None:
            raise InputError(f"--exclude names files, the {drawn} has none; leave it out")
        return [_judged(FORMATS[drawn], FORMATS[drawn].read(Path(), options))]
    if not sources:
        row = FORMATS[names[0]]
        chosen = (
            "" if names[0] == next(iter(FORMATS)) else f" --format {names[0]}"
        )  # the first is what --format is by default
        raise InputError(f"expected {row.what}, as in: twinray pack {row.usage}{chosen} --out PACK")
    names = _one_each("--format", names, len(sources))
    _check_number(names, sources, options, shared_patients)
    stated = _one_each("--data-set", tuple(data_sets) or ("",), len(sources))
    censor = None if pseudonyms is None else _censor(sources, options)
    try:
        read = [
            _read(name, path, options, tell_ids=pseudonyms is None)
            for name, path in zip(names, sources, strict=True)
        ]
        if exclude is not None:
            read = without(read, read_exclusion(exclude), exclude)
    except InputError as error:
        raise error if censor is None else InputError(censor(str(error))) from None
    if pseudonyms is not None:  # afterwards no name and no file tells
        stated = tuple(key or _published(one) for one, key in zip(read, stated, strict=True))
    read = [
        replace(collection, data_set=key) if key else collection
        for collection, key in zip(read, stated, strict=True)
    ]
    read = [replace(c, public=pseudonyms is None and _is_public(c)) for c in read]
    _check_attributes(attributes, read)
    collections = [
        _chosen(one, attributes)
        if pseudonyms is None or censor is None
        else hidden(
            replace(
                one, notes=tuple(note for note in one.notes if not note.endswith(PATIENT_DATA))
            ),
            path,
            pseudonyms,
            censor,
            attributes,
        )
        for path, one in zip(sources, read, strict=True)
    ]
    collections = _splits_by_place(names, sources, collections, options.layout)
    if shared_patients:
        return share_patients(collections)
    parts = [c for c in collections if c.by_place]
    shared = iter(share_patients(parts) if len(parts) > 1 else parts)
    return [next(shared) if c.by_place else c for c in collections]


def _splits_by_place(
    names: Sequence[str],
    sources: Sequence[Path],
    collections: Sequence[Collection],
    layout: Layout,
) -> list[Collection]:
    """Sources that are folders called ``train``, ``valid``, ``test`` hold these splits, unless they state their own."""
    splits = [split_of(path.resolve().name) if path.is_dir() else None for path in sources]
    if len(set(splits) - {None}) < 2 or layout == "flat":
        return list(collections)
    told = []
    for name, split, collection in zip(names, splits, collections, strict=True):
        if split is None or any(sample.split for sample in collection.samples):
            told.append(collection)
            continue
        ignore = " (--layout flat ignores it)" if "layout" in FORMATS[name].takes else ""
        n = len(collection.samples)
        note = f"all {n:,} images are {split}: so says the name of the folder{ignore}"
        samples = tuple(replace(sample, split=split) for sample in collection.samples)
        notes = (*collection.notes, note)
        told.append(replace(collection, samples=samples, notes=notes, by_place=True))
    return told


def _published(collection: Collection) -> str:
    known = known_as(collection.name, [s.id for s in collection.samples], collection.data_set)
    return "" if known is None else known.key


def _is_public(collection: Collection) -> bool:
    """Whether ids are published: so is the format, or the source is known as a copy of a published data set."""
    return collection.data_set != NO_DATA_SET and (
        collection.public or bool(_published(collection))
    )


def _read(name: str, path: Path, options: SourceOptions, *, tell_ids: bool) -> Collection:
    row = FORMATS[name]
    found = with_header_patients(row.read(path, _taken(name, options)))
    return _judged(row, found, tell_ids=tell_ids)


def read_annotations(name: str, source: Path, options: SourceOptions) -> Collection:
    """Read the boxes that a source's readers drew, as published; its images need not be there.

    Raises:
        InputError: a format without boxes, or what the reader refuses.
    """
    row = FORMATS[name]
    if row.annotations is None:
        raise InputError(f"--format {name} has no boxes; choose another")
    return _judged(row, row.annotations(source, options))


def _judged(row: Format, collection: Collection, *, tell_ids: bool = True) -> Collection:
    """What every reader's collection goes through."""
    checked = checked_patients(collection, tell_ids=tell_ids and not row.private)
    return replace(checked_classes(checked), public=row.public)


def _one_each(option: str, values: tuple[str, ...], n: int) -> tuple[str, ...]:
    if len(values) not in (1, n):
        raise InputError(
            f"expected one {option}, or one for each of the {n} sources in their order, got {len(values)}"
        )
    return values * n if len(values) == 1 else values


def _taken(name: str, options: SourceOptions) -> SourceOptions:
    """The options without those that the format has no use for."""
    own = {
        option.name: getattr(options, option.name)
        for option in fields(SourceOptions)
        if option.name in _FOR_ALL | FORMATS[name].takes
    }
    return SourceOptions(**own)


def _censor(sources: Sequence[Path], options: SourceOptions) -> Censor:
    """What knows the names of everything that a message could name."""
    censor = Censor()
    for path in (*sources, options.images, options.table):
        if path is None:
            continue
        if path.is_dir():
            censor.walk(path)
        else:
            censor.add((str(path), str(path.absolute()), path.name, path.absolute().parent.name))
    return censor


def _check_attributes(wanted: Sequence[str], collections: Sequence[Collection]) -> None:
    if not wanted:
        return
    known = dict.fromkeys(n for c in collections for s in c.samples for n in s.attributes)
    lower = {name.lower() for name in known}
    if missing := [name for name in wanted if name.lower() not in lower]:
        raise InputError(
            f"expected --attributes of the source, it has no {missing[0]!r}; it has: {', '.join(known) or 'none'}"
        )


def _chosen(collection: Collection, attributes: Sequence[str]) -> Collection:
    """With the chosen attributes alone; with all where none is chosen."""
    if not attributes:
        return collection
    wanted = {name.lower() for name in attributes}
    samples = tuple(
        replace(s, attributes={k: v for k, v in s.attributes.items() if k.lower() in wanted})
        for s in collection.samples
    )
    return replace(collection, samples=samples)


def _check_number(
    names: Sequence[str], sources: Sequence[Path], options: SourceOptions, shared_patients: bool
) -> None:
    resolved = [path.resolve() for path in sources]
    for path, real in zip(sources, resolved, strict=True):
        if resolved.count(real) > 1:
            raise InputError(f"the source {path} is given twice; leave one out")
    for option in _ONE_SOURCE:
        takers = sum(option in FORMATS[name].takes for name in names)
        if takers > 1 and getattr(options, option) is not None:
            raise InputError(
                f"{_flag(option)} goes with one source, got {takers}; pack them one by one"
            )
    if shared_patients and len(sources) == 1:
        raise InputError("--shared-patients goes with several sources, got 1; leave it out")


def _takers(option: str) -> list[str]:
    return [name for name, row in FORMATS.items() if option in row.takes]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")

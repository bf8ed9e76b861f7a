"""Which reader reads which format, with the options that go to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.data.readers.chexpert import read_chexpert
from twinray.data.readers.coco import read_coco
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.data.readers.folder import read_folder
from twinray.data.readers.medimeta import read_medimeta
from twinray.data.readers.medmnist import read_medmnist
from twinray.data.readers.nih import read_nih
from twinray.data.readers.rsna import read_rsna
from twinray.data.readers.vindr.reader import read_vindr
from twinray.errors import InputError
from twinray.records import Collection, share_patients

if TYPE_CHECKING:
    from twinray.jobs.pack import PackConfig

Format = Literal["folder", "coco", "nih", "vindr", "rsna", "chexpert", "medmnist", "medimeta", "dicom", "phantom"]

DEFAULT_FUSION_IOU = 0.5

_WHAT = {
    "folder": "the folder of images, as in: twinray pack FOLDER --out PACK",
    "coco": "the COCO annotation file, as in: twinray pack FILE.json --format coco --out PACK",
    "nih": "the folder of NIH ChestX-ray14, as in: twinray pack FOLDER --format nih --out PACK",
    "vindr": "the folder of VinDr-CXR, as in: twinray pack FOLDER --format vindr --out PACK",
    "rsna": "the folder of the RSNA challenge, as in: twinray pack FOLDER --format rsna --out PACK",
    "chexpert": "the folder of CheXpert, as in: twinray pack FOLDER --format chexpert --out PACK",
    "medmnist": "the archive, as in: twinray pack FILE.npz --format medmnist --out PACK",
    "medimeta": "the data set's folder, as in: twinray pack FOLDER --format medimeta --out PACK",
    "dicom": "the folder of DICOM files, as in: twinray pack FOLDER --format dicom --out PACK",
}


def read_source(config: PackConfig) -> list[Collection]:
    """Read what is to be packed: one collection a source; the phantom has none and draws its own.

    Raises:
        InputError: no source, an option that goes with one source or another format, or what the reader refuses.
    """
    check_options(config)
    if config.format == "phantom":
        if config.source:
            raise InputError(f"--format phantom draws its own images, got the source {config.source[0]}; leave it out")
        if config.shared_patients:
            raise InputError("--shared-patients goes with several sources, the phantom has none; leave it out")
        return [phantom_collection(_phantom(config))]
    if not config.source:
        raise InputError(f"expected {_WHAT[config.format]}")
    resolved = [path.resolve() for path in config.source]
    for path, real in zip(config.source, resolved, strict=True):
        if resolved.count(real) > 1:
            raise InputError(f"the source {path} is given twice; leave one out")
    if len(config.source) > 1:
        for name, value in (("--images", config.images), ("--table", config.table)):
            if value is not None:
                raise InputError(f"{name} goes with one source, got {len(config.source)}; pack them one by one")
    elif config.shared_patients:
        raise InputError("--shared-patients goes with several sources, got 1; leave it out")
    read = _READERS[config.format]
    collections = [read(path, config) for path in config.source]
    return share_patients(collections) if config.shared_patients else collections


def check_options(config: PackConfig) -> None:
    """Refuse an unknown format and options that the format has no use for.

    Raises:
        InputError: naming the option and the formats that it goes with.
    """
    if config.format not in get_args(Format):
        raise InputError(f"expected --format {', '.join(get_args(Format))}, got {config.format!r}")
    goes_with: tuple[tuple[str, bool, tuple[Format, ...]], ...] = (
        ("--images", config.images is not None, ("coco", "nih", "vindr", "rsna")),
        ("--patient-regex", config.patient_regex is not None, ("folder",)),
        ("--table", config.table is not None, ("folder", "dicom")),
        ("--layout", config.layout != "auto", ("folder",)),
        ("--fusion-iou", config.fusion_iou is not None, ("vindr",)),
        ("--min-readers", config.min_readers != 1, ("vindr",)),
        ("--task", config.task is not None, ("medimeta",)),
        ("--views", config.views != "auto", ("chexpert", "dicom")),
        ("--pseudonymise", config.pseudonymise is not None, ("dicom",)),
    )
    for name, given, formats in goes_with:
        if given and config.format not in formats:
            told = ", ".join(formats)
            raise InputError(f"{name} goes with --format {told}, not with {config.format}; leave one of them out")


def _phantom(config: PackConfig) -> PhantomConfig:
    return PhantomConfig(
        images=config.phantom_images,
        size=max(256, config.size),
        seed=config.seed,
        images_per_patient=config.phantom_images_per_patient,
        labelled=config.phantom_labelled,
    )


def _folder(source: Path, config: PackConfig) -> Collection:
    return read_folder(source, patient_regex=config.patient_regex, table=config.table, layout=config.layout)


def _coco(source: Path, config: PackConfig) -> Collection:
    return read_coco(source, config.images, strict=config.strict)


def _nih(source: Path, config: PackConfig) -> Collection:
    return read_nih(source, images_root=config.images)


def _vindr(source: Path, config: PackConfig) -> Collection:
    iou = DEFAULT_FUSION_IOU if config.fusion_iou is None else config.fusion_iou
    return read_vindr(source, images_root=config.images, fusion_iou=iou, min_readers=config.min_readers)


def _rsna(source: Path, config: PackConfig) -> Collection:
    return read_rsna(source, images_root=config.images)


def _chexpert(source: Path, config: PackConfig) -> Collection:
    return read_chexpert(source, frontal_only=config.views != "all")


def _medmnist(source: Path, config: PackConfig) -> Collection:
    return read_medmnist(source)


def _medimeta(source: Path, config: PackConfig) -> Collection:
    return read_medimeta(source, task=config.task)


def _dicom(source: Path, config: PackConfig) -> Collection:
    return read_dicom_folder(
        source,
        table=config.table,
        frontal_only=config.views == "frontal",
        pseudonymise=None if config.pseudonymise is None else _key(config.pseudonymise),
    )


def _key(path: Path) -> str:
    """The secret in a file: on a command line, every user of the machine could read it."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"could not read the key file {path}: {error.strerror}; correct --pseudonymise") from error
    except UnicodeDecodeError as error:
        raise InputError(f"expected a secret as UTF-8 text in {path}, found other bytes; write a new one") from error
    if not key:
        raise InputError(f"expected a secret in {path}, the file is empty; write one into it")
    return key


_READERS: dict[Format, Callable[[Path, PackConfig], Collection]] = {
    "folder": _folder,
    "coco": _coco,
    "nih": _nih,
    "vindr": _vindr,
    "rsna": _rsna,
    "chexpert": _chexpert,
    "medmnist": _medmnist,
    "medimeta": _medimeta,
    "dicom": _dicom,
}

"""The verb ``pack``: files on disk -> a pack."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinray.checks import (
    DATA,
    EACH,
    GIVEN,
    MODEL,
    PLACE,
    RECORD,
    RISING,
    SEED,
    SPEED,
    Help,
    Told,
    above,
    at_least,
    between,
    goes_with,
    not_with,
    settle,
    up_to,
    zero_or,
)
from twinray.data.decoding.options import Exif, PixelType
from twinray.data.identity import DATA_SETS, NO_DATA_SET
from twinray.data.keyed import own_key
from twinray.data.pack import Pack, PackInfo, open_pack, verify_pack
from twinray.data.packing.options import MAX_SIZE, MIN_SIZE, Channels, PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.pseudonyms import Pseudonyms, read_key
from twinray.data.readers.folder import Layout
from twinray.data.readers.formats import (
    FORMATS,
    SourceOptions,
    Views,
    check_formats,
    formats_in_words,
    read_sources,
    takers_in_words,
)
from twinray.data.readers.label_readings import Blank, NoFinding, Uncertain
from twinray.data.splitting.record import GivenSplits
from twinray.errors import InputError
from twinray.geometry import Fit
from twinray.records import SPLITS
from twinray.words import counted

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]  # the command line's choices are the table's rows


_DATA_SETS = (NO_DATA_SET, *DATA_SETS)
_KNOWN_DATA_SETS = Told(
    f"data sets of {', '.join(_DATA_SETS)}",
    lambda values: set(values) <= set(_DATA_SETS),
    (("nonesuch",),),
)


def taken(option: str) -> Help:
    """The help of an option that only some formats take begins with their names."""
    return Help(before=f"{takers_in_words(option)}:")


PNG_FILE = Told(
    "a name that ends in .png",
    lambda path: path.suffix.lower() == ".png",
    (Path("sheet.jpg"),),
)


@dataclass(frozen=True)
class PackConfig:
    """Decode images once and keep them, with patients, splits, labels and boxes, in a pack that training reads fast."""

    source: Annotated[tuple[Path, ...], DATA] = ()
    """One or several sources for one pack: folders, or files (coco, medmnist, yolo, cvat, label-studio); none for the phantom; with --verify the pack.
    Sources of several formats are given as --source PATH --format FORMAT, once for each."""

    format: Annotated[
        tuple[FormatName, ...], MODEL, EACH, Help(after=formats_in_words(FORMATS))
    ] = ("folder",)
    """What the sources are, one for all or one for each in their order; data sets in the layouts they are published in."""

    data_set: Annotated[tuple[str, ...], MODEL, EACH, _KNOWN_DATA_SETS] = ()
    """The published data set that the sources are copies of (nih-cxr14, kermany-cxr, ...; none for no such), one for all or
    one for each: which sources share people follows from it. The default is what names of folders and files tell."""

    out: Annotated[Path | None, PLACE] = None
    """New folder for the pack."""

    size: Annotated[int, MODEL, between(MIN_SIZE, MAX_SIZE, unit="pixels")] = 256
    """Side of the packed images, in pixels (16 to 4096)."""

    fit: Annotated[Fit, MODEL] = "squash"
    """squash: stretch both sides to the square; letterbox: keep proportions, pad with black."""

    channels: Annotated[Channels, MODEL] = "auto"
    """grey, rgb, or auto: grey if no image carries colour."""

    images: Annotated[Path | None, DATA, taken("images")] = None
    """folder of the images (default: the source; coco: images/ beside the file, else the file's folder)."""

    layout: Annotated[Layout, MODEL, taken("layout")] = "auto"
    """auto tells class and split folders by their names and places, and the split of a COCO file by
    its name or folder; flat ignores these names."""

    patient_regex: Annotated[str | None, MODEL, taken("patient_regex")] = None
    r"""regular expression whose first non-empty group, in the file's name or path, is the patient.
    Kermany's chest X-rays: '(person\d+)_|(IM-\d+)-'."""

    patient_column: Annotated[str | None, MODEL, taken("patient_column")] = None
    """column of the table, or key of an image's COCO record, that holds the patient (default: the usual names,
    such as patient_id, PatientID, subject_id, case_id)."""

    table: Annotated[Path | None, DATA, taken("table")] = None
    """CSV with a column path and any of patient, split, label (several joined by |)."""

    fusion_iou: Annotated[float | None, MODEL, between(0, 1, below=True), taken("fusion_iou")] = (
        None
    )
    """fuse the readers' boxes that overlap by more than this intersection over union (default: 0.5;
    0 keeps every reader's boxes)."""

    min_readers: Annotated[int, MODEL, at_least(1), taken("min_readers")] = 1
    """drop labels and fused boxes on which fewer readers agree."""

    database: Annotated[str | None, DATA, taken("database")] = None
    """URL of the store's PostgreSQL database (postgresql://user@host/name; password by PGPASSWORD or ~/.pgpass); the source is
    its folder of files."""

    task: Annotated[str | None, MODEL, taken("task")] = None
    """the task whose labels to take (default: the only one; with several, none)."""

    views: Annotated[Views, MODEL, taken("views")] = "auto"
    """frontal leaves lateral views out, all keeps them (auto: all for dicom, frontal elsewhere)."""

    uncertain: Annotated[Uncertain, MODEL, taken("uncertain")] = "ignore"
    """How a label that the source calls uncertain is read: kept as uncertain, which counts for nothing unless training says
    otherwise; or as absent (zero) or present (one), in figures too."""

    blank: Annotated[Blank, MODEL, taken("blank")] = "unknown"
    """How a label that the source does not mention is read, where the image has others: as not stated, or as absent (zero)."""

    no_finding: Annotated[NoFinding, MODEL, taken("no_finding")] = "implies"
    """implies: where "No Finding" is present, findings that are not mentioned are absent, and where a finding is present, "No
    Finding" is absent; alone: every label is read by itself."""

    pseudonymise: Annotated[Path | None, DATA] = None
    """File that holds a secret key. Patients, ids, paths and names of sources are replaced by their
    keyed hashes, everywhere; messages name rows; attributes are those of --attributes alone."""

    pseudonyms: Annotated[Path | None, PLACE, goes_with(pseudonymise=GIVEN)] = None
    """New CSV file that leads from pseudonyms back to names, for the key's holder alone: outside the pack."""

    key: Annotated[Path | None, DATA, not_with("pseudonymise", ": its key serves for both")] = None
    """File that holds a secret key, under which runs keep the ids of private sources (default: that
    which TWINRAY_KEY names, else one that is made once in your configuration folder). Packs of one
    key match each other."""

    attributes: Annotated[tuple[str, ...], MODEL] = ()
    """Further columns of the source to keep, such as sex age. None given: all, with --pseudonymise none."""

    shared_patients: Annotated[bool, MODEL] = False
    """The sources are parts of one data set: equal patient ids are the same patient (default: only in sources of one name)."""

    pixels: Annotated[PixelType, MODEL] = "uint8"
    """uint8: as each image's window shows it; uint16: linear values as stored, with the window beside them, from which training
    draws others. (--depth is the detector's, not the pack's.)"""

    depth: Annotated[int | None, MODEL, between(8, 16, unit="bits")] = None
    """Bits of the detector, for grey or colour files of more than 8 bits. The default is what the
    source's headers declare. Without such headers it is the smallest usual depth that holds the
    largest value of the whole source. DICOM files have their own windows."""

    value_range: Annotated[tuple[float, float] | None, MODEL, RISING, not_with("depth")] = None
    """Stored values that become black and white, in place of --depth; for floating point, signed
    and 32-bit files. The default is the smallest and largest of the whole source."""

    exif: Annotated[Exif, MODEL] = "ignore"
    """ignore: pixels as stored, whatever an EXIF or TIFF orientation tag asks for; apply: turn them as it asks."""

    lenient: Annotated[bool, MODEL, not_with("strict")] = False
    """Keep what damaged files give, and count them, in place of setting them aside."""

    val: Annotated[float, MODEL, between(0, 1, "a share", below=True)] = 0.1
    """Share of images to cut for validation, by patient, where the source has no validation split (0: none)."""

    test: Annotated[float, MODEL, between(0, 1, "a share", below=True)] = 0.2
    """Share of images to cut for testing, by patient, where the source has no test split (0: none)."""

    folds: Annotated[int, MODEL, zero_or(at_least(2))] = 0
    """Cross-validation: cut this many folds by patient and test on one of them, instead of on a share (0: no folds)."""

    fold: Annotated[
        int, SEED, at_least(0), goes_with(folds=at_least(2)), up_to("folds", below=True)
    ] = 0
    """With --folds, which fold is the test split, from 0; the folds are the same for one --seed."""

    splits: Annotated[Path | None, DATA] = None
    """Splits to use again: the splits.json of a pack of the same images. It takes precedence over the source's own splits,
    nothing is cut, and images that it does not name are set aside."""

    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the splits that are cut, and of the phantom."""

    workers: Annotated[int, SPEED, at_least(1)] = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode images (default: one a core)."""

    timeout: Annotated[float, SPEED, above(0, "seconds")] = 60.0
    """Longest that decoding one image may take before it is set aside, in seconds."""

    memory: Annotated[int, SPEED, at_least(64, "MiB")] = 2048
    """Most memory that decoding one image may take before it is set aside, in MiB."""

    strict: Annotated[bool, RECORD] = False
    """Stop at the first file, row or box that would be set aside."""

    exclude: Annotated[Path | None, DATA] = None
    """List of files to leave out, one a line, as paths below the source: exclude.txt of twinray look."""

    resume: Annotated[bool, RECORD] = False
    """Go on with a pack that was cut off."""

    verify: Annotated[bool, RECORD] = False
    """Check the finished pack SOURCE against its checksums instead of writing one."""

    sheet: Annotated[Path | None, PLACE, PNG_FILE] = None
    """New PNG that shows what was packed: random and extreme images with their boxes; goes with --verify too."""

    phantom_images: Annotated[int, MODEL, at_least(1), taken("phantom_images")] = 1000
    """number of images to draw."""

    phantom_images_per_patient: Annotated[
        float, MODEL, between(1, 16), taken("phantom_images_per_patient")
    ] = 2.0
    """mean number of images of a patient (1 to 16)."""

    phantom_labelled: Annotated[
        float, MODEL, between(0, 1, "a share"), taken("phantom_labelled")
    ] = 1.0
    """share of patients whose images carry labels and boxes (0 to 1)."""

    def __post_init__(self) -> None:
        settle(self)


def run(config: PackConfig, console: Console | None = None) -> Pack:
    """Write (or with ``verify``, check) a pack and print what is in it.

    Args:
        config: the options.
        console: where the summary goes; by default standard output.

    Raises:
        InputError: bad options, a contact sheet that is there already, or a source that cannot be used.
        TwinrayError: the disk is full.
    """
    console = console or Console()
    if config.sheet is not None and (config.sheet.exists() or config.sheet.is_symlink()):
        raise InputError(f"{config.sheet} is there already; choose another --sheet, or remove it")
    if config.verify:
        if len(config.source) != 1:
            raise InputError(
                f"expected the pack to verify, as in: twinray pack PACK --verify; got {len(config.source)}"
            )
        pack = verify_pack(config.source[0])
        show(pack.info, pack.path, console, heading="verified: files match their checksums")
        _draw(config, pack, console)
        return pack
    options = _options(config)
    if config.out is None:
        raise InputError("expected --out, the new folder of the pack")
    out = config.out
    names = None if config.pseudonymise is None else Pseudonyms(read_key(config.pseudonymise))
    if names is not None and options.given is not None:
        options = replace(options, given=_keyed(options.given, names))
    Pseudonyms.check_table(config.pseudonyms, out, exists=config.resume)
    collections = read_sources(
        config.format,
        config.source,
        _source_options(config),
        shared_patients=config.shared_patients,
        data_sets=config.data_set,
        pseudonyms=names,
        attributes=config.attributes,
        exclude=config.exclude,
    )
    if not all(collection.public for collection in collections):
        key = own_key(config.pseudonymise or config.key)
        options = replace(options, key=key, pseudonymised=names is not None)
    result = write_pack(
        collections,
        out,
        options,
        workers=config.workers,
        strict=config.strict,
        resume=config.resume,
        timeout_s=config.timeout,
        memory_bytes=config.memory << 20,
    )
    if names is not None and config.pseudonyms is not None:
        names.write(config.pseudonyms)
    show(result.info, out, console, heading="packed")
    pack = open_pack(out)
    _draw(config, pack, console)
    return pack


def _draw(config: PackConfig, pack: Pack, console: Console) -> None:
    """Write the contact sheet, where one is asked for."""
    if config.sheet is None:
        return
    from twinray.jobs.pack_sheet import write_sheet  # matplotlib takes a second to import

    write_sheet(pack, config.sheet, config.seed)
    console.print(Text(f"contact sheet: {config.sheet}"))


def show(info: PackInfo, path: Path, console: Console, heading: str) -> None:
    """Print what a pack holds: images by split, classes, boxes, what was set aside, and its notes."""
    counts = info.counts
    table = Table(
        title=Text(f"{path} - {heading}"), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    by_split = ", ".join(f"{split} {counts.get(split, 0):,}" for split in SPLITS)
    colour = "grey" if info.channels == 1 else "RGB"
    colour += "" if info.pixels == "uint8" else f", {info.pixels}"
    table.add_row(
        "images",
        f"{counts['images']:,} ({by_split}), {info.size} x {info.size} {colour}, {info.fit}",
    )
    table.add_row("patients", f"{counts['patients']:,}" if counts.get("patients") else "not known")
    table.add_row("splits", Text(info.split_method))
    if info.label_classes:
        labelled = info.extra.get("label_counts", {})
        told = _named(labelled) if any(labelled.values()) else "no image has any"
        table.add_row("labels", Text(f"{info.task}: {told}"))
    if info.box_classes:
        annotated = counts.get("annotated", 0)
        told = f"{counts.get('boxes', 0):,} on {counted(annotated, 'annotated image')}: {_named(info.extra.get('box_counts', {}))}"
        table.add_row("boxes", Text(told if annotated else "no image was annotated"))
    table.add_row(
        "set aside", Text(f"{info.skipped:,}" + (" (skipped.csv)" if info.skipped else ""))
    )
    for reason, n in list(info.skipped_reasons.items())[:3]:
        table.add_row("", Text(f"{n:,} x {reason}"))
    for note in info.notes:
        table.add_row("note", Text(note, style="bold red" if note.startswith("WARNING") else ""))
    console.print(table)


def _named(counts: Mapping[str, int], most: int = 20) -> str:
    shown = ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _source_options(config: PackConfig) -> SourceOptions:
    return SourceOptions(
        **{option.name: getattr(config, option.name) for option in fields(SourceOptions)}
    )


_PSEUDONYM = re.compile(r"[0-9a-f]{16}")


def _keyed(given: GivenSplits, names: Pseudonyms) -> GivenSplits:
    """Splits by pseudonym; those of a pack that was pseudonymised too are so already."""
    if all(_PSEUDONYM.fullmatch(i.rsplit("/", 1)[-1]) for i in given.split_of):
        return given
    return replace(given, split_of={names.of(i, "image"): s for i, s in given.split_of.items()})


def _options(config: PackConfig) -> PackOptions:
    """Check the options before any file is read."""
    check_formats(config.format, _source_options(config))
    options = PackOptions(
        config.size,
        config.fit,
        config.channels,
        config.val,
        config.test,
        config.seed,
        config.folds,
        config.fold,
        depth=config.depth,
        value_range=config.value_range,
        exif=config.exif,
        lenient=config.lenient,
        attributes=config.attributes,
        pixels=config.pixels,
    )
    options.check()
    if config.splits is None:
        return options
    for name in ("val", "test", "folds"):
        if getattr(config, name) != getattr(PackConfig, name):
            raise InputError(f"--{name} cuts splits, --splits gives them; leave one of them out")
    return replace(options, given=GivenSplits.read(config.splits))

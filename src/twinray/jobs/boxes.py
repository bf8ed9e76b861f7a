"""The verb ``boxes``: published annotations -> one COCO file and its counts. No pixels are needed.

The COCO file's boxes are in pixels of the image file where that is on the disk (its header is
read). Otherwise they are in pixels of the original image. The file holds for each image its width
and height where known, patient and split where known. It holds for each box its reader (raw) or
``n_readers``, how many distinct readers agreed (fused). Images that were looked at and have no box
are in it, images that were never annotated with boxes are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twinray.checks import DATA, MODEL, PLACE, Help, Told, at_least, between, settle
from twinray.data.annotations import size_fault
from twinray.data.decoding.images import image_size
from twinray.data.fusion import fuse_collection
from twinray.data.packing.mix import Mix
from twinray.data.readers.disk import FileLoader
from twinray.data.readers.formats import (
    FORMATS,
    FUSION_IOU,
    SourceOptions,
    formats_in_words,
    read_annotations,
)
from twinray.errors import InputError
from twinray.files import clear_disk_errors, write_bytes, write_json
from twinray.progress import progress
from twinray.records import Boxes, Collection, Sample, Skipped
from twinray.runs.classes import box_classes_of, difference
from twinray.words import counted

_FORMATS = {name: row for name, row in FORMATS.items() if row.annotations is not None}

if TYPE_CHECKING:
    BoxFormat = str
else:
    BoxFormat = Literal[tuple(_FORMATS)]  # the command line's choices are the table's rows


PICTURE_FILE = Told(
    "a name that ends in .png, .svg or .pdf",
    lambda path: path.suffix.lower() in (".png", ".svg", ".pdf"),
    (Path("chart.gif"),),
)


@dataclass(frozen=True)
class BoxesConfig:
    """Turn published annotations into one COCO file, fusing several readers' boxes, and count boxes by class."""

    source: Annotated[Path, DATA]
    """The data set's folder, or its file of annotations. Images are not needed."""

    format: Annotated[BoxFormat, MODEL, Help(after=formats_in_words(_FORMATS))]
    """What the annotations are."""

    out: Annotated[Path, PLACE]
    """New COCO file."""

    fusion_iou: Annotated[float | None, MODEL, between(0, 1, below=True)] = None
    """Fuse boxes of one class that overlap by more than this intersection over union; 0 keeps them
    as they are. The default is 0.5 where several readers drew boxes, as in vindr; 0 elsewhere."""

    min_readers: Annotated[int, MODEL, at_least(1)] = 1
    """Drop fused boxes on which fewer distinct readers agree."""

    images: Annotated[Path | None, DATA] = None
    """Folder to look for images in (default: the source)."""

    with_boxes_only: Annotated[bool, MODEL] = False
    """Leave out images without a box, as published VinDr-CXR experiments do."""

    like: Annotated[Path | None, DATA] = None
    """A finished detect run or a pack: refuse annotations whose classes are not the same names in the same order."""

    figure: Annotated[Path | None, PLACE, PICTURE_FILE] = None
    """New bar chart of the counts: .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class BoxesResult:
    """What was counted: by class, boxes before and after fusion (None: not fused), and images with each label."""

    before: dict[str, int]
    after: dict[str, int] | None
    labels: dict[str, int]
    set_aside: tuple[Skipped, ...]


def run(config: BoxesConfig, console: Console | None = None) -> BoxesResult:
    """Write the COCO file and the chart, and print the counts.

    Args:
        config: the options.
        console: where the table goes; by default standard output.

    Raises:
        InputError: bad options, an output that is there already, a source that cannot be used, or classes other than those
            of ``like``.
        TwinrayError: the disk is full or may not be written.
    """
    iou = _checked(config)
    wanted = None if config.like is None else box_classes_of(config.like)
    raw = _read(config)
    if wanted is not None:
        _check_classes(raw, config, *wanted)
    fused = _fuse(raw, config, iou) if iou else None
    written = fused or raw
    content, faults = as_coco(written, config.with_boxes_only)
    content["info"]["fusion_iou"] = iou or None
    content["info"]["min_readers"] = config.min_readers if iou else None
    result = BoxesResult(
        before=_count(raw),
        after=None if fused is None else _count(fused),
        labels=_label_counts(raw),
        set_aside=(*raw.skipped, *faults),
    )
    figure = None if config.figure is None else _chart(config, result, raw)
    for path in (config.out, config.figure):
        if path is not None:
            with clear_disk_errors(path, "the folder of"):
                path.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, content, "the COCO file")
    if config.figure is not None and figure is not None:
        write_bytes(config.figure, figure, "the chart")
    _show(config, result, written, content, console or Console())
    return result


def _checked(config: BoxesConfig) -> float:
    """The threshold to fuse at (0: not at all), after a look at all options."""
    iou = config.fusion_iou
    if iou is None:
        iou = FUSION_IOU if _FORMATS[config.format].fuse else 0.0
    if config.min_readers > 1 and not iou:
        raise InputError(
            "--min-readers needs fused boxes, --fusion-iou 0 keeps them raw; change one of them"
        )
    for name, path in (("--out", config.out), ("--figure", config.figure)):
        if path is not None and (path.exists() or path.is_symlink()):
            raise InputError(f"{path} is there already; choose another {name}, or remove it")
    if config.figure is not None and config.figure.resolve() == config.out.resolve():
        raise InputError(
            f"--out and --figure are the same file, {config.out}; choose another for one of them"
        )
    return iou


def _check_classes(
    raw: Collection, config: BoxesConfig, wanted: tuple[str, ...], whose: str
) -> None:
    """Refuse other classes: boxes of a class that the model does not know, or knows by another number, would be lost or swapped."""
    what = difference(wanted, raw.box_classes, whose, "annotations")
    if what:
        raise InputError(
            f"box classes of {config.source} and of the {whose} {config.like} differ ({what}); rename or reorder the "
            "annotations' classes, or leave --like out"
        )


def _read(config: BoxesConfig) -> Collection:
    return read_annotations(config.format, config.source, SourceOptions(images=config.images))


def _fuse(raw: Collection, config: BoxesConfig, iou: float) -> Collection:
    fuse = _FORMATS[config.format].fuse or fuse_collection
    return fuse(raw, iou, config.min_readers)


def as_coco(
    collection: Collection, with_boxes_only: bool = False
) -> tuple[dict[str, Any], list[Skipped]]:
    """The annotated images of a collection as a COCO dictionary, and the images and boxes that had to be set aside.

    Image and annotation ids count from 1 in the collection's order; category ids are class ids plus 1.

    Args:
        collection: with boxes, raw or fused.
        with_boxes_only: leave out images without a box.
    """
    mix = Mix.of([collection])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    aside: list[Skipped] = []
    root = collection.load.root if isinstance(collection.load, FileLoader) else None
    with progress("reading sizes", len(collection.samples)) as meter:
        for i, sample in enumerate(collection.samples):
            meter.advance()
            if sample.boxes is None or (with_boxes_only and not len(sample.boxes)):
                continue
            size, fault = _size(sample, root)
            if fault is not None:
                aside.append(Skipped(sample.source, f"its size could not be read: {fault}"))
            elif size is not None and (other := size_fault(sample, *size)) is not None:
                aside.append(Skipped(sample.source, f"{other}; give the images of the annotations"))
                continue
            boxes: Boxes | None = sample.boxes
            if size is not None:
                boxes, refused = mix.boxes(i, *size)
                aside += refused
            if boxes is None or (with_boxes_only and not len(boxes)):
                continue
            images.append(_image(len(images) + 1, sample, size))
            annotations += _annotations(boxes, len(images), len(annotations) + 1)
    if not images:
        raise InputError(
            f"expected annotated images in {collection.name}, found none that can be used; check the source"
        )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(collection.box_classes)]
    info = {
        "description": f"boxes of {collection.name}, research use only",
        "notes": list(collection.notes),
    }
    return {
        "info": info,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }, aside


def _size(sample: Sample, root: Path | None) -> tuple[tuple[int, int] | None, str | None]:
    """(width, height) of the pixels that boxes are to be in: of the file, else of the original; and what went wrong."""
    path = None if root is None else root / sample.source
    if path is not None and path.is_file():
        try:
            return image_size(path), None
        except InputError as error:
            return sample.size or sample.boxes_frame, str(error)
    return sample.size or sample.boxes_frame, None


def _image(number: int, sample: Sample, size: tuple[int, int] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": number, "file_name": sample.source}
    if size is not None:
        entry |= {"width": size[0], "height": size[1]}
    if sample.patient is not None:
        entry["patient_id"] = sample.patient
    if sample.split is not None:
        entry["split"] = sample.split
    return entry


def _annotations(boxes: Boxes, image: int, first: int) -> list[dict[str, Any]]:
    rows = []
    for j, ((x1, y1, x2, y2), label) in enumerate(
        zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True)
    ):
        row: dict[str, Any] = {
            "id": first + j,
            "image_id": image,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        if boxes.readers is not None:
            row["reader"] = boxes.readers[j]
        if boxes.n_readers is not None:
            row["n_readers"] = int(boxes.n_readers[j])
        rows.append(row)
    return rows


def _count(collection: Collection) -> dict[str, int]:
    """Boxes by class, in order of class id."""
    counts: Counter[int] = Counter()
    for sample in collection.samples:
        if sample.boxes is not None:
            counts.update(sample.boxes.labels.tolist())
    return {name: counts[k] for k, name in enumerate(collection.box_classes)}


def _label_counts(collection: Collection) -> dict[str, int]:
    """Images by label."""
    counts: Counter[int] = Counter()
    for sample in collection.samples:
        if sample.labels is not None:
            counts.update((sample.labels == 1).nonzero()[0].tolist())
    return {name: counts[k] for k, name in enumerate(collection.label_classes)}


def _chart(config: BoxesConfig, result: BoxesResult, raw: Collection) -> bytes:
    from twinray.report.charts.box_counts import (  # matplotlib takes a second to import
        ImageKind,
        Panel,
        box_counts_chart,
    )

    assert config.figure is not None
    panels = []
    if (
        result.after is None and raw.label_classes != raw.box_classes
    ):  # labels that no box stands for
        panels.append(Panel(f"Images by label, {raw.name}", result.labels))
    what = f"Boxes by class, {raw.name}" + (
        "" if result.after is None else ", before and after fusion"
    )
    panels.append(Panel(what, result.before, result.after))
    kind = cast(ImageKind, config.figure.suffix.lower().removeprefix("."))
    return box_counts_chart(tuple(panels), kind)


def _show(
    config: BoxesConfig,
    result: BoxesResult,
    written: Collection,
    content: dict[str, Any],
    console: Console,
) -> None:
    console.print(Text(f"{config.out} - boxes of {written.name}", style="italic"))
    table = Table(box=None)
    table.add_column("class", style="bold")
    table.add_column("boxes" if result.after is None else "before fusion", justify="right")
    columns: Sequence[dict[str, int]] = [result.before]
    if result.after is not None:
        table.add_column("after fusion", justify="right")
        columns = [result.before, result.after]
    for name in result.before:
        table.add_row(Text(name), *(f"{counts[name]:,}" for counts in columns))
    table.add_section()
    table.add_row("all", *(f"{sum(counts.values()):,}" for counts in columns))
    console.print(table)
    images, boxes = content["images"], content["annotations"]
    with_boxes = len({row["image_id"] for row in boxes})
    sized = sum("width" in image for image in images)
    console.print(
        Text(
            f"written: {counted(len(boxes), 'box', 'boxes')} on {counted(with_boxes, 'image')}, {counted(len(images) - with_boxes, 'image without', 'images without')} a box; "
            f"sizes known of {sized:,}; set aside: {len(result.set_aside):,}"
        )
    )
    for skipped in result.set_aside[:3]:
        console.print(Text(f"  {skipped.where}: {skipped.reason}"))
    for note in written.notes:
        console.print(Text(f"note: {note}"))

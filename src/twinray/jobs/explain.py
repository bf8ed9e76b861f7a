"""``twinray explain``: a heat map for each predicted box, as one picture a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from rich.console import Console

from twinray.data.coco import read_coco
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError, check_options
from twinray.files import claim_folder, write_bytes, write_json
from twinray.inference import (
    Explained,
    Method,
    Model,
    Prepared,
    check_classes,
    check_pack,
    load_model,
    prepare_row,
)
from twinray.jobs.image_files import Found, decode, find_images
from twinray.progress import progress
from twinray.records import SPLITS, Boxes, Sample, Skipped
from twinray.report.pictures import as_png, box_picture, picture_name


@dataclass(frozen=True)
class ExplainConfig:
    """Draw, for each predicted box, the image, the box, the true boxes where known, and the exact heat map."""

    run: Path
    """Folder of a finished detect run."""
    images: tuple[str, ...] = ()
    """Image files and folders of them; with --data, ids of the pack's images (none: the first --count images with boxes of --split)."""
    out: Path = Path("explanations")
    """New folder for the pictures."""
    data: Path | None = None
    """A pack to take images and true boxes from."""
    truth: Path | None = None
    """A COCO file with the true boxes of the image files, found by file name."""
    split: str = "test"
    """Split of --data to choose images from."""
    count: int = 4
    """How many images of --data to choose."""
    boxes: int = 3
    """Most boxes an image, best first."""
    least_score: float = 0.05
    """Boxes that score less are not drawn, 0..1."""
    method: Method = "ablation"
    """ablation: channels of the pyramid level the box pools from; ablation-last-stage: channels of the backbone's last stage."""
    workers: int = 1
    """Processes that decode image files."""
    timeout: float = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: int = 2048
    """Most memory that decoding one file may take, MiB."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(config: ExplainConfig) -> list[Path]:
    """Write one PNG a box and ``explanations.json``; return the pictures' paths.

    Raises:
        InputError: bad options, or not one image that could be read.
    """
    _check(config)
    pack = open_pack(config.data) if config.data is not None else None
    found = find_images([Path(name) for name in config.images]) if pack is None else Found((), ())
    model = load_model(config.run, config.device)
    _ = model.detector  # a classifier is refused before any folder is made
    rows = chosen_rows(pack, config.images, config.split, config.count) if pack is not None else []
    truth = _true_boxes(config.truth, model, found.files)
    skipped = list(found.skipped)
    if pack is not None:
        images = _from_pack(model, pack, rows)
    else:
        images = _from_files(config, model, found.files, truth, skipped)
    claim_folder(config.out, False, "explanations")
    pictures, records = [], []
    number = 0
    with progress("explaining", len(rows) + len(found.files)) as meter:
        for number, (prepared, true) in enumerate(images, start=1):
            explained = model.explain(
                prepared, true, method=config.method, most=config.boxes, least_score=config.least_score
            )
            for path, record in write_pictures(explained, model.classes, config.out, number):
                pictures.append(path)
                records.append(record)
            meter.advance()
    console = Console()
    for item in skipped:
        console.print(f"set aside: {item.where}: {item.reason}", soft_wrap=True, markup=False)
    if number == 0:
        raise InputError(f"none of the {len(skipped)} image files could be read; the first: {skipped[0].reason}")
    write_json(config.out / "explanations.json", records, "explanations")
    empty = "" if pictures else f": no box scored {config.least_score} or more"
    console.print(f"{len(pictures)} pictures in {config.out}{empty}", soft_wrap=True, markup=False)
    return pictures


def _check(config: ExplainConfig) -> None:
    check_options(
        (
            (config.split in SPLITS, "--split", config.split, f"one of {', '.join(SPLITS)}"),
            (config.count >= 1, "--count", config.count, "1 or more"),
            (config.boxes >= 1, "--boxes", config.boxes, "1 or more"),
            (0 <= config.least_score <= 1, "--least-score", config.least_score, "0..1"),
            (config.workers >= 0, "--workers", config.workers, "0 or more"),
            (config.timeout > 0, "--timeout", config.timeout, "more than 0 seconds"),
            (config.memory >= 1, "--memory", config.memory, "1 MiB or more"),
        )
    )
    if config.data is None and not config.images:
        raise InputError("expected image files, or a pack with --data; got neither")
    if config.data is not None and config.truth is not None:
        raise InputError("--truth goes with image files; a pack given with --data has its own true boxes")


def explain_pack_images(
    run: Path, pack: Path, ids: Sequence[str], *, most: int = 3, least_score: float = 0.05, method: Method = "ablation"
) -> list[Explained]:
    """Boxes and heat maps of some images of a pack.

    Raises:
        InputError: not a detect run, not a pack made alike, an unknown id.
    """
    model, opened = load_model(run), open_pack(pack)
    rows = chosen_rows(opened, ids, "test", len(ids))
    return [
        model.explain(prepared, true, method=method, most=most, least_score=least_score)
        for prepared, true in _from_pack(model, opened, rows)
    ]


def chosen_rows(pack: Pack, ids: Sequence[str], split: str, count: int) -> list[int]:
    """Rows of the named images, or of the split's first images with boxes.

    Raises:
        InputError: an id that the pack does not have; a split without boxes.
    """
    if ids:
        position = {str(image): row for row, image in enumerate(pack.ids)}
        unknown = [image for image in ids if image not in position]
        if unknown:
            raise InputError(
                f"{pack.path} has no image {unknown[0]!r}; ids are in the column id of its samples.parquet"
            )
        return [position[image] for image in ids]
    with_boxes = (int(row) for row in pack.where(split) if len(pack.boxes(int(row)) or ()) > 0)
    rows = list(islice(with_boxes, count))
    if not rows:
        raise InputError(f"no image with a box in split {split} of {pack.path}; name images by id, or see --split")
    return rows


def write_pictures(
    explained: Explained, classes: Sequence[str], out: Path, image_number: int
) -> Iterator[tuple[Path, dict[str, object]]]:
    """Write a picture for each heat map; yield its path and what it shows.

    ``image_number`` begins the pictures' names, so that images of one name in two folders keep their own.
    """
    boxes = explained.predictions
    assert boxes.scores is not None
    for number, (index, heat) in enumerate(zip(explained.top, explained.heat_maps, strict=True), start=1):
        one = Boxes(boxes.xyxy[index : index + 1], boxes.labels[index : index + 1], boxes.scores[index : index + 1])
        name = classes[int(boxes.labels[index])]
        picture = box_picture(
            explained.image, heat, classes, one, explained.truth, explained.scale, explained.definition
        )
        path = out / picture_name(image_number, PurePosixPath(explained.id).name, f"box{number}", name)
        write_bytes(path, as_png(picture), "picture")
        yield (
            path,
            {
                "image": explained.id,
                "picture": path.name,
                "class": name,
                "score": float(boxes.scores[index]),
                "box_xyxy": [float(v) for v in boxes.xyxy[index]],
                "heat_map": explained.definition,
            },
        )


def _from_pack(model: Model, pack: Pack, rows: Sequence[int]) -> Iterator[tuple[Prepared, Boxes | None]]:
    """Images and true boxes of a pack; a pack that does not fit the model is refused at once, not at the first image."""
    check_pack(model, pack)
    check_classes(model, pack.info.box_classes, pack.path)
    return ((prepare_row(model, pack, row), pack.boxes(row)) for row in rows)


def _from_files(
    config: ExplainConfig, model: Model, files: Sequence[Path], truth: dict[Path, Boxes | None], skipped: list[Skipped]
) -> Iterator[tuple[Prepared, Boxes | None]]:
    for file, pixels in decode(files, workers=config.workers, timeout=config.timeout, memory=config.memory):
        if isinstance(pixels, Skipped):
            skipped.append(pixels)
        else:
            yield model.prepare(pixels, str(file)), truth.get(file)


def _true_boxes(path: Path | None, model: Model, files: Sequence[Path]) -> dict[Path, Boxes | None]:
    """True boxes of those files that the COCO file names.

    Raises:
        InputError: no COCO file, other classes, or a file name that fits two images: boxes of another image would be shown.
    """
    if path is None:
        return {}
    collection = read_coco(path)
    check_classes(model, collection.box_classes, path)
    by_name: dict[str, list[Sample]] = {}
    for sample in collection.samples:
        by_name.setdefault(PurePosixPath(sample.source).name, []).append(sample)
    owner: dict[str, Path] = {}
    for file in files:
        named = by_name.get(file.name, [])
        if len(named) > 1:
            raise InputError(
                f"{path} has {len(named)} images named {file.name} ({named[0].source}, {named[1].source}), so the true "
                f"boxes of {file} are not certain; give a file with one of them"
            )
        if named and owner.setdefault(file.name, file) != file:
            raise InputError(
                f"{owner[file.name]} and {file} are both named {file.name}, and {path} has one image of that name; "
                "explain them one by one"
            )
    return {file: by_name[file.name][0].boxes for file in files if file.name in by_name}

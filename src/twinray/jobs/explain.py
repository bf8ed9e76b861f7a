"""``twinray explain``: a heat map for each predicted box, as one picture a box."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinray.data.coco import read_coco
from twinray.data.images import load_image
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.files import claim_folder, write_bytes, write_json
from twinray.inference import Explained, Method, Model, Prepared, check_classes, load_model, prepare_row
from twinray.progress import progress
from twinray.records import SPLITS, Boxes, Skipped
from twinray.report.pictures import as_png, box_picture


@dataclass(frozen=True)
class ExplainConfig:
    """Draw, for each predicted box, the image, the box, the true boxes where known, and the exact heat map."""

    run: Path
    """Folder of a finished detect run."""
    images: tuple[str, ...] = ()
    """Image files; with --data, ids of the pack's images (none: the first --count images with boxes of --split)."""
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
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(config: ExplainConfig) -> list[Path]:
    """Write one PNG a box and ``explanations.json``; return the pictures' paths.

    Raises:
        InputError: bad options, or not one image that could be read.
    """
    if config.split not in SPLITS or config.count < 1 or config.boxes < 1 or not 0 <= config.least_score <= 1:
        raise InputError(
            f"expected --split {', '.join(SPLITS)}, --count and --boxes 1 or more and --least-score 0..1, got {config.split}, "
            f"{config.count}, {config.boxes}, {config.least_score}"
        )
    if config.data is None and not config.images:
        raise InputError("expected image files, or a pack with --data; got neither")
    model = load_model(config.run, config.device)
    _ = model.detector  # a classifier is refused before any folder is made
    pack = open_pack(config.data) if config.data is not None else None
    rows = chosen_rows(pack, config.images, config.split, config.count) if pack is not None else []
    truth = _truth_by_name(config.truth, model)
    claim_folder(config.out, False, "explanations")
    skipped: list[Skipped] = []
    pictures, records = [], []
    images = _from_pack(model, pack, rows) if pack is not None else _from_files(model, config.images, truth, skipped)
    with progress("explaining", len(rows) or len(config.images)) as meter:
        for prepared, true in images:
            explained = model.explain(
                prepared, true, method=config.method, most=config.boxes, least_score=config.least_score
            )
            for path, record in write_pictures(explained, model.classes, config.out):
                pictures.append(path)
                records.append(record)
            meter.advance()
    for item in skipped:
        print(f"set aside: {item.where}: {item.reason}")
    if skipped and len(skipped) == len(config.images):
        raise InputError(f"none of the {len(skipped)} image files could be read; the first: {skipped[0].reason}")
    write_json(config.out / "explanations.json", records, "explanations")
    print(
        f"{len(pictures)} pictures in {config.out}"
        + ("" if pictures else f": no box scored {config.least_score} or more")
    )
    return pictures


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
    rows = [int(row) for row in pack.where(split) if len(pack.boxes(int(row)) or ()) > 0][:count]
    if not rows:
        raise InputError(f"no image with a box in split {split} of {pack.path}; name images by id, or see --split")
    return rows


def write_pictures(explained: Explained, classes: Sequence[str], out: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Write a picture for each heat map; yield its path and what it shows."""
    boxes = explained.predictions
    assert boxes.scores is not None
    for number, (index, heat) in enumerate(zip(explained.top, explained.heat_maps, strict=True), start=1):
        one = Boxes(boxes.xyxy[index : index + 1], boxes.labels[index : index + 1], boxes.scores[index : index + 1])
        name = classes[int(boxes.labels[index])]
        picture = box_picture(
            explained.image, heat, classes, one, explained.truth, explained.scale, explained.definition
        )
        path = out / f"{_safe(explained.id)}-box{number}-{_safe(name)}.png"
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
    check_classes(model, pack.info.box_classes, pack.path)
    for row in rows:
        yield prepare_row(model, pack, row), pack.boxes(row)


def _from_files(
    model: Model, files: Sequence[str], truth: dict[str, Boxes], skipped: list[Skipped]
) -> Iterator[tuple[Prepared, Boxes | None]]:
    for file in files:
        try:
            prepared = model.prepare(load_image(Path(file)), Path(file).name)
        except InputError as error:
            skipped.append(Skipped(file, str(error)))
            continue
        yield prepared, truth.get(Path(file).name)


def _truth_by_name(path: Path | None, model: Model) -> dict[str, Boxes]:
    if path is None:
        return {}
    collection = read_coco(path)
    check_classes(model, collection.box_classes, path)
    return {Path(s.source).name: s.boxes for s in collection.samples if s.boxes is not None}


def _safe(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "image"

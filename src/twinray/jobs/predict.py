"""``twinray predict``: a finished run on files and folders."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from twinray.data.images import is_image_name, load_image
from twinray.data.sandbox import map_in_workers
from twinray.errors import InputError
from twinray.evaluation.coco_json import truth_as_coco, write_predictions
from twinray.files import claim_folder, write_bytes, write_json, write_text
from twinray.inference import Model, Prepared, load_model
from twinray.progress import progress
from twinray.records import Boxes, Skipped
from twinray.report.pictures import DISCLAIMER, as_png, overlay


@dataclass(frozen=True)
class PredictConfig:
    """Boxes or labels for image files and folders of them; a file that cannot be read is set aside and named."""

    run: Path
    """Folder of a finished detect or classify run."""
    paths: tuple[Path, ...]
    """Image files (PNG, JPEG, TIFF, DICOM) and folders, which are searched whole."""
    out: Path = Path("predictions")
    """New folder for predictions.csv, predictions.json, overlays and skipped.csv."""
    least_score: float = 0.3
    """Boxes that score less are left out of the overlays, not of the files, 0..1."""
    overlays: bool = True
    """Draw an overlay PNG for every image with a detection run."""
    strict: bool = False
    """Stop at the first file that cannot be read."""
    batch_size: int = 16
    """Images at once."""
    workers: int = 1
    """Processes that decode."""
    timeout: float = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: int = 2048
    """Most memory that decoding one file may take, MiB."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass
class _Results:
    """What has been found so far; small things only, so that a long job stays small."""

    names: list[str] = field(default_factory=list)
    sizes: dict[str | int, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str | int, Boxes] = field(default_factory=dict)
    labels: list[list[float]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def run(config: PredictConfig) -> Path:
    """Predict and write the files; return the folder.

    Raises:
        InputError: bad options, no image, or with ``strict`` a file that cannot be read.
    """
    if config.batch_size < 1 or config.workers < 0 or not 0 <= config.least_score <= 1:
        raise InputError(
            f"expected --batch-size 1 or more, --workers 0 or more and --least-score 0..1, got {config.batch_size}, "
            f"{config.workers}, {config.least_score}"
        )
    files = list(find_images(config.paths))
    model = load_model(config.run, config.device)
    claim_folder(config.out, False, "predictions")
    results = _Results()
    with progress("predicting", len(files)) as meter:
        batch: list[Prepared] = []
        for prepared in _decoded(config, model, files, results):
            if prepared is not None:
                batch.append(prepared)
            if len(batch) == config.batch_size:
                _predict(config, model, batch, results)
                batch = []
            meter.advance()
        if batch:
            _predict(config, model, batch, results)
    _write(config, model, results)
    if not results.names:
        raise InputError(
            f"none of the {len(files)} files could be read; {config.out / 'skipped.csv'} says why for each"
        )
    return config.out


def find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and every file of a folder that has an image's name, in a stable order.

    Raises:
        InputError: a path that is not there, or a folder without images.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"expected an image file or a folder, {path} is not there; check the path")
        if path.is_file():
            yield path
            continue
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and is_image_name(p))
        if not inside:
            raise InputError(f"no image file (PNG, JPEG, TIFF, DICOM) in {path}; check the path")
        yield from inside


def _decoded(
    config: PredictConfig, model: Model, files: Sequence[Path], results: _Results
) -> Iterator[Prepared | None]:
    """Each file, decoded in a process of its own so that a bomb cannot end the job; None where it was set aside."""
    outcomes = map_in_workers(
        load_image, files, workers=config.workers, timeout_s=config.timeout, memory_bytes=config.memory << 20
    )
    for file, outcome in zip(files, outcomes, strict=True):
        if outcome.error is not None or outcome.value is None:
            if config.strict:
                raise InputError(f"{outcome.error}; without --strict such a file is set aside")
            results.skipped.append(Skipped(str(file), str(outcome.error)))
            yield None
            continue
        yield model.prepare(outcome.value, str(file))


def _predict(config: PredictConfig, model: Model, batch: Sequence[Prepared], results: _Results) -> None:
    results.names += [image.id for image in batch]
    if model.kind == "classifier":
        results.labels += model.labels(batch).tolist()
        return
    for image, boxes in zip(batch, model.boxes(batch), strict=True):
        results.boxes[image.id], results.sizes[image.id] = boxes, image.size
        if config.overlays:
            _write_overlay(config, model, image, boxes, len(results.boxes))


def _write_overlay(config: PredictConfig, model: Model, image: Prepared, boxes: Boxes, number: int) -> None:
    assert boxes.scores is not None
    shown = boxes.scores >= config.least_score
    best = Boxes(boxes.xyxy[shown], boxes.labels[shown], boxes.scores[shown])
    folder = config.out / "overlays"
    folder.mkdir(exist_ok=True)
    picture = overlay(image.display, model.classes, best)
    write_bytes(folder / f"{number:06d}-{Path(image.id).stem}.png", as_png(picture), "overlay")


def _write(config: PredictConfig, model: Model, results: _Results) -> None:
    if results.skipped:
        rows: list[Sequence[Any]] = [("file", "reason"), *((s.where, s.reason) for s in results.skipped)]
        write_text(config.out / "skipped.csv", _as_csv(rows), "list of files set aside")
    if model.kind == "classifier":
        table: list[Sequence[Any]] = [("file", *model.classes)]
        table += [(name, *map(repr, scores)) for name, scores in zip(results.names, results.labels, strict=True)]
        write_text(config.out / "predictions.csv", _as_csv(table), "predictions")
    else:
        _write_boxes(config.out, model, results)
    console = Console()
    console.print(
        f"{len(results.names)} images, {len(results.skipped)} set aside; results in {config.out}", soft_wrap=True
    )
    for reason, count in Counter(s.reason for s in results.skipped).most_common(3):
        console.print(f"  set aside ({count}): {reason}", soft_wrap=True, markup=False)
    console.print(DISCLAIMER)


def _write_boxes(out: Path, model: Model, results: _Results) -> None:
    """COCO results, the image list their ids point into, and a CSV in original pixels."""
    ids: dict[str | int, int] = {name: number for number, name in enumerate(results.names, start=1)}
    nothing: dict[str | int, Boxes] = {name: Boxes.empty() for name in results.names}
    images = truth_as_coco(
        nothing, model.classes, sizes=results.sizes, file_names={n: str(n) for n in nothing}, image_ids=ids
    )
    write_json(out / "images.json", images, "image list")
    write_predictions(out / "predictions.json", results.boxes, len(model.classes), ids)
    rows: list[Sequence[Any]] = [("file", "class", "score", "x1", "y1", "x2", "y2")]
    for name in results.names:
        boxes = results.boxes[name]
        assert boxes.scores is not None
        for label, score, box in zip(boxes.labels, boxes.scores, np.round(boxes.xyxy, 2), strict=True):
            rows.append((name, model.classes[int(label)], f"{score:.4f}", *map(float, box)))
    write_text(out / "predictions.csv", _as_csv(rows), "predictions")


def _as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

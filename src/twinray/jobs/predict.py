"""``twinray predict``: a finished run on files and folders."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from twinray.errors import InputError, TwinrayError, check_options
from twinray.evaluation.coco_json import truth_as_coco, write_predictions
from twinray.files import claim_folder, clear_disk_errors, write_bytes, write_json
from twinray.inference import Model, Prepared, load_model
from twinray.jobs.image_files import Found, decode, find_images
from twinray.progress import progress
from twinray.records import Boxes, FloatArray, Skipped
from twinray.report.pictures import DISCLAIMER, as_png, overlay, picture_name


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


class _Table:
    """A CSV file that grows by whole rows: a kill or a full disk leaves all that was done before."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._size = path, 0
        self.append([columns])

    def append(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode("utf-8")
        try:
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._size)  # no half row
            raise TwinrayError(
                f"could not write {self._path}: {error.strerror}; what was done before is kept in it: "
                "make room, then run again for the rest with another --out"
            ) from error
        self._size += len(data)


@dataclass
class _Results:
    """What has been found so far; small things only, so that a long job stays small."""

    table: _Table
    names: list[str] = field(default_factory=list)
    sizes: dict[str | int, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str | int, Boxes] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    skipped_table: _Table | None = None
    unwritten: list[str] = field(default_factory=list)


def run(config: PredictConfig) -> Path:
    """Predict and write the files; return the folder.

    ``predictions.csv`` and ``skipped.csv`` grow with every batch; the JSON files come at the end.

    Raises:
        InputError: bad options, no image, or with ``strict`` a file that cannot be read.
        TwinrayError: the disk refuses a file; what could be written is kept.
    """
    _check(config)
    found = find_images(config.paths)
    model = load_model(config.run, config.device)
    claim_folder(config.out, False, "predictions")
    columns = model.classes if model.kind == "classifier" else ("class", "score", "x1", "y1", "x2", "y2")
    results = _Results(_Table(config.out / "predictions.csv", ("file", *columns)))
    for item in found.skipped:
        _set_aside(config, item, results)
    _predict_all(config, model, found, results)
    _finish(config, model, results)
    if not results.names:
        raise InputError(
            f"none of the {len(results.skipped)} files could be read; {config.out / 'skipped.csv'} says why for each"
        )
    return config.out


def _check(config: PredictConfig) -> None:
    check_options(
        (
            (config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more"),
            (config.workers >= 0, "--workers", config.workers, "0 or more"),
            (0 <= config.least_score <= 1, "--least-score", config.least_score, "0..1"),
            (config.timeout > 0, "--timeout", config.timeout, "more than 0 seconds"),
            (config.memory >= 1, "--memory", config.memory, "1 MiB or more"),
        )
    )


def _predict_all(config: PredictConfig, model: Model, found: Found, results: _Results) -> None:
    batch: list[Prepared] = []
    with progress("predicting", len(found.files)) as meter:
        for file, pixels in decode(found.files, workers=config.workers, timeout=config.timeout, memory=config.memory):
            if isinstance(pixels, Skipped):
                _set_aside(config, pixels, results)
            else:
                batch.append(model.prepare(pixels, str(file)))
            if len(batch) == config.batch_size:
                _predict(config, model, batch, results)
                batch = []
            meter.advance()
        if batch:
            _predict(config, model, batch, results)


def _set_aside(config: PredictConfig, item: Skipped, results: _Results) -> None:
    if config.strict:
        named = item.reason if item.where in item.reason else f"{item.where}: {item.reason}"
        raise InputError(f"{named}; without --strict such a file is set aside")
    if results.skipped_table is None:
        results.skipped_table = _Table(config.out / "skipped.csv", ("file", "reason"))
    results.skipped_table.append([(item.where, item.reason)])
    results.skipped.append(item)


def _predict(config: PredictConfig, model: Model, batch: Sequence[Prepared], results: _Results) -> None:
    """Predict a batch; its rows are on the disk before any picture is drawn."""
    if model.kind == "classifier":
        scores: FloatArray = model.labels(batch)
        results.table.append([(i.id, *map(repr, row)) for i, row in zip(batch, scores.tolist(), strict=True)])
        results.names += [image.id for image in batch]
        return
    found = model.boxes(batch)
    results.table.append([row for i, b in zip(batch, found, strict=True) for row in _rows(i.id, b, model.classes)])
    for image, boxes in zip(batch, found, strict=True):
        results.names.append(image.id)
        results.boxes[image.id], results.sizes[image.id] = boxes, image.size
        number = len(results.names)
        if config.overlays and not results.unwritten:
            with_overlay = f"the overlays from number {number} on"
            _try(with_overlay, lambda: _write_overlay(config, model, image, boxes, number), results)  # noqa: B023


def _rows(name: str, boxes: Boxes, classes: Sequence[str]) -> list[Sequence[Any]]:
    """The lines of ``predictions.csv`` of one image, in original pixels."""
    assert boxes.scores is not None
    columns = zip(boxes.labels, boxes.scores, np.round(boxes.xyxy, 2), strict=True)
    return [(name, classes[int(label)], f"{score:.4f}", *map(float, box)) for label, score, box in columns]


def _write_overlay(config: PredictConfig, model: Model, image: Prepared, boxes: Boxes, number: int) -> None:
    assert boxes.scores is not None
    shown = boxes.scores >= config.least_score
    best = Boxes(boxes.xyxy[shown], boxes.labels[shown], boxes.scores[shown])
    folder = config.out / "overlays"
    with clear_disk_errors(folder, "folder"):
        folder.mkdir(exist_ok=True)
    picture = overlay(image.display, model.classes, best)
    write_bytes(folder / picture_name(number, Path(image.id).stem), as_png(picture), "overlay")


def _try(what: str, write: Callable[[], None], results: _Results) -> None:
    """Write; where the disk refuses, remember what is missing and go on: the table matters more than one file."""
    try:
        write()
    except TwinrayError as error:
        cause = error.__cause__
        results.unwritten.append(f"{what} ({cause.strerror if isinstance(cause, OSError) else error})")


def _finish(config: PredictConfig, model: Model, results: _Results) -> None:
    if model.kind != "classifier":
        _write_boxes(config.out, model, results)
    console = Console()
    console.print(
        f"{len(results.names)} images, {len(results.skipped)} set aside; results in {config.out}",
        soft_wrap=True,
        markup=False,
    )
    first = {item.reason: item.where for item in reversed(results.skipped)}
    for reason, count in Counter(s.reason for s in results.skipped).most_common(5):
        console.print(f"  set aside ({count}): {first[reason]}: {reason}", soft_wrap=True, markup=False)
    console.print(DISCLAIMER)
    if results.unwritten:
        raise TwinrayError(
            f"could not write {' nor '.join(results.unwritten)}; {config.out / 'predictions.csv'} holds all "
            f"{len(results.names)} images: make room, then run again with another --out for the rest"
        )


def _write_boxes(out: Path, model: Model, results: _Results) -> None:
    """COCO results, and the image list that their ids point into."""
    ids: dict[str | int, int] = {name: number for number, name in enumerate(results.names, start=1)}
    nothing: dict[str | int, Boxes] = {name: Boxes.empty() for name in results.names}
    images = truth_as_coco(
        nothing, model.classes, sizes=results.sizes, file_names={n: str(n) for n in nothing}, image_ids=ids
    )
    _try("images.json", lambda: write_json(out / "images.json", images, "image list"), results)
    boxes = results.boxes
    _try(
        "predictions.json",
        lambda: write_predictions(out / "predictions.json", boxes, len(model.classes), ids),
        results,
    )

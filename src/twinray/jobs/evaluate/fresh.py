"""Figures of finished runs on a pack: predictions are made now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from twinray.backbones.pixels import network_input
from twinray.data.pack import Pack
from twinray.detection.data import DetectionData, annotated
from twinray.detection.on_pack import detect_rows
from twinray.errors import InputError
from twinray.evaluation.boxes import compare_boxes, evaluate_boxes
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.evaluation.labels import compare_labels, evaluate_labels
from twinray.files import write_json
from twinray.inference.model import Model
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.diagnose import Detected, diagnose
from twinray.jobs.evaluate.options import checksums_of
from twinray.progress import progress
from twinray.records import Boxes, FloatArray, IntArray
from twinray.runs.folder import read_config
from twinray.runs.names import file_names, run_names
from twinray.runs.seen import Checked, check_unseen, read_seen
from twinray.training.loader import PixelSource, prefetch


def check_seen(config: EvaluateConfig, model: Model, pack: Pack, rows: IntArray) -> tuple[str, Checked]:
    """Whether it is known what the run's initial weights saw, and what of it is among the rows.

    On the pack that the run was made from, its own training images are what that pack's split says they are, and only
    the weights that it started from are asked for theirs.

    Raises:
        InputError: training saw some of the images.
    """
    seen = read_seen(model.path)
    own_pack = pack.info.checksums in checksums_of(model)
    if own_pack and config.split == "train":
        return seen.before.status, Checked()
    asked = seen.before if own_pack else seen
    found = check_unseen(asked, pack, {config.split: rows}, weights=model.path, allow=config.allow_seen)
    return seen.before.status, found


def annotated_part(config: EvaluateConfig, pack: Pack) -> DetectionData:
    """The annotated images of the split under test.

    Raises:
        InputError: there are none.
    """
    part = annotated(pack, config.split)
    if len(part) == 0:
        raise InputError(f"no image of split {config.split} in {pack.path} is annotated with boxes; see --split")
    return part


def labelled_rows(config: EvaluateConfig, pack: Pack) -> IntArray:
    """Rows of the split under test that have a label.

    Raises:
        InputError: there are none.
    """
    rows = pack.where(config.split)
    rows = rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)] if pack.labels.shape[1] else rows[:0]
    if len(rows) == 0:
        raise InputError(f"no labelled image of split {config.split} in {pack.path}; see --split")
    return rows


def evaluate_detectors(
    config: EvaluateConfig, models: Sequence[Model], part: DetectionData
) -> tuple[dict[str, Any], dict[str, Detected]]:
    """Figures of each detector on the same images, and its curves."""
    pack, truth = part.pack, part.truth_by_id()
    results: dict[str, Any] = {}
    detected: dict[str, Detected] = {}
    first: Mapping[str | int, Boxes] = {}
    names = run_names(config.runs)
    ids, files = coco_image_ids(list(pack.ids[part.rows])), file_names(names)
    for name, model in zip(names, models, strict=True):
        found = detect_rows(
            model.detector, pack, part.rows, machine=model.machine, batch_size=config.batch_size, label=name
        )
        report = evaluate_boxes(
            truth, found, model.classes, part.patients(), bootstrap=config.bootstrap, seed=config.seed
        )
        detected[name] = diagnose(truth, found, model.classes, model.description.get("thresholds"), name)
        results[name] = {config.split: report.as_json(), "diagnostics": detected[name].as_json()}
        if first:
            results[name]["difference_to_first"] = _difference(config, part, model.classes, first, found)
        first = first or found
        if config.out is not None:
            file = f"predictions {files[name]}.json"
            write_predictions(config.out / file, found, len(model.classes), ids)
            results[name]["predictions"] = file
    if config.out is not None:
        write_json(config.out / "truth.json", truth_as_coco(truth, models[0].classes, image_ids=ids), "true boxes")
    return results, detected


def _difference(
    config: EvaluateConfig,
    part: DetectionData,
    classes: Sequence[str],
    first: Mapping[str | int, Boxes],
    found: Mapping[str | int, Boxes],
) -> dict[str, Any]:
    """Over all images, and under ``with_boxes`` over those with a box."""
    truth, patients = part.truth_by_id(), part.patients()
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "seed": config.seed}
    with_boxes = any(len(boxes) for boxes in truth.values())
    return {
        **compare_boxes(truth, first, found, classes, patients, **options).as_json(),
        "with_boxes": compare_boxes(truth, first, found, classes, patients, images="with_boxes", **options).as_json()
        if with_boxes
        else None,
    }


def evaluate_classifiers(config: EvaluateConfig, models: Sequence[Model], pack: Pack, rows: IntArray) -> dict[str, Any]:
    """Figures of each classifier on the same images."""
    truth, patients = pack.labels[rows], pack.patients[rows].tolist()
    results: dict[str, Any] = {}
    first: FloatArray | None = None
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "seed": config.seed}
    for name, model in zip(run_names(config.runs), models, strict=True):
        scores = _scores(model, pack, rows, config.batch_size, name)
        report = evaluate_labels(truth, scores, model.classes, pack.info.task, patients, **options)
        results[name] = {config.split: report.as_json()}
        if len(read_config(model.path).get("seeds", ())) > 1:
            results[name]["probe_of_seed"] = model.description["seed"]
        if first is not None:
            compared = compare_labels(truth, first, scores, model.classes, pack.info.task, patients, **options)
            results[name]["difference_to_first"] = compared.as_json()
        first = scores if first is None else first
    return results


@torch.no_grad()
def _scores(model: Model, pack: Pack, rows: IntArray, batch_size: int, label: str) -> FloatArray:
    """Probabilities (n, k) of the given rows of a checked pack, whole batches straight from its memory map."""
    source = PixelSource([pack.images], np.stack([np.zeros_like(rows), rows], axis=1))
    batches = [np.arange(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    scores = np.empty((len(rows), len(model.classes)), dtype=np.float64)
    with progress(label, len(rows)) as meter:
        for batch, pixels in zip(batches, prefetch(source.gather, batches), strict=True):
            found = model.network(network_input(pixels, model.size, model.machine.device))
            scores[batch] = found.double().cpu().numpy()
            meter.advance(len(batch))
    return scores

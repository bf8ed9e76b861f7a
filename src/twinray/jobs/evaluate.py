"""``twinray evaluate``: finished runs on a split of a pack, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from twinray.data.pack import Pack, open_pack
from twinray.detection.data import DetectionData, annotated
from twinray.detection.predict import detect_rows
from twinray.errors import InputError
from twinray.evaluation.boxes import compare_boxes, evaluate_boxes
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.evaluation.labels import compare_labels, evaluate_labels
from twinray.files import claim_folder, write_json, write_text
from twinray.inference import Model, check_classes, check_pack, load_model, prepare_row
from twinray.progress import progress
from twinray.records import SPLITS, Boxes, FloatArray, IntArray
from twinray.report.tables import arms_csv, arms_table

_OVERALL = {
    "detector": ("map50", "map40", "map", "froc"),
    "classifier": ("auc", "average_precision", "accuracy", "balanced_accuracy"),
}


@dataclass(frozen=True)
class EvaluateConfig:
    """Test finished runs on a pack; with several, also each one's difference to the first on the same images."""

    runs: tuple[Path, ...]
    """Folders of finished detect runs, or of finished classify runs."""
    data: Path
    """A pack made as the runs' own were."""
    split: str = "test"
    """train, val or test."""
    out: Path | None = None
    """New folder for metrics.json, metrics.csv and predictions; without it the table is only printed."""
    bootstrap: int = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: int = 0
    """Seed of the resamples."""
    batch_size: int = 16
    """Images at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print a table, and write it if ``out`` is given.

    Returns:
        ``{run: {split: figures}}``, with ``difference_to_first`` beside the figures of every later run.

    Raises:
        InputError: runs, pack or split that cannot be compared.
    """
    if config.split not in SPLITS:
        raise InputError(f"expected --split to be one of {', '.join(SPLITS)}, got {config.split!r}")
    if config.bootstrap < 0 or config.batch_size < 1:
        raise InputError(
            f"expected --bootstrap 0 or more and --batch-size 1 or more, got {config.bootstrap} and {config.batch_size}"
        )
    pack = open_pack(config.data)
    models = [load_model(path, config.device) for path in config.runs]
    kinds = {model.kind for model in models}
    if len(kinds) != 1:
        raise InputError(
            f"expected runs of one kind, got {', '.join(f'{m.path} ({m.kind})' for m in models)}; evaluate them apart"
        )
    if config.out is not None:
        claim_folder(config.out, False, "evaluation")
    kind = kinds.pop()
    results = (
        _evaluate_detectors(config, models, pack) if kind == "detector" else _evaluate_classifiers(config, models, pack)
    )
    Console().print(arms_table([(name, figures[config.split]) for name, figures in results.items()], _OVERALL[kind]))
    if config.out is not None:
        write_json(config.out / "metrics.json", results, "metrics")
        rows = [(name, figures[config.split]) for name, figures in results.items()]
        write_text(config.out / "metrics.csv", arms_csv(rows, _OVERALL[kind]), "table")
    return results


def _evaluate_detectors(config: EvaluateConfig, models: Sequence[Model], pack: Pack) -> dict[str, Any]:
    part = annotated(pack, config.split)
    if len(part) == 0:
        raise InputError(f"no image of split {config.split} in {pack.path} is annotated with boxes; see --split")
    truth, results = part.truth_by_id(), {}
    first: Mapping[str | int, Boxes] = {}
    for name, model in zip(_names(config.runs), models, strict=True):
        check_pack(model, pack)
        check_classes(model, pack.info.box_classes, pack.path)
        found = detect_rows(
            model.detector, pack, part.rows, machine=model.machine, batch_size=config.batch_size, label=name
        )
        report = evaluate_boxes(
            truth, found, model.classes, part.patients(), bootstrap=config.bootstrap, seed=config.seed
        )
        results[name] = {config.split: report.as_json()}
        if first:
            difference = compare_boxes(
                truth, first, found, model.classes, part.patients(), bootstrap=config.bootstrap, seed=config.seed
            )
            results[name]["difference_to_first"] = difference.as_json()
        first = first or found
        if config.out is not None:
            _write_boxes(config.out, name, part, found, model.classes)
    return results


def _write_boxes(
    out: Path, name: str, part: DetectionData, found: Mapping[str | int, Boxes], classes: Sequence[str]
) -> None:
    ids = coco_image_ids(list(part.pack.ids[part.rows]))
    write_json(out / "truth.json", truth_as_coco(part.truth_by_id(), classes, image_ids=ids), "true boxes")
    write_predictions(out / f"predictions {name.replace('/', '_')}.json", found, len(classes), ids)


def _evaluate_classifiers(config: EvaluateConfig, models: Sequence[Model], pack: Pack) -> dict[str, Any]:
    rows = pack.where(config.split)
    rows = rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)] if pack.labels.shape[1] else rows[:0]
    if len(rows) == 0:
        raise InputError(f"no labelled image of split {config.split} in {pack.path}; see --split")
    truth, patients = pack.labels[rows], pack.patients[rows].tolist()
    results: dict[str, Any] = {}
    first: FloatArray | None = None
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "seed": config.seed}
    for name, model in zip(_names(config.runs), models, strict=True):
        check_pack(model, pack)
        check_classes(model, pack.info.label_classes, pack.path)
        scores = _scores(model, pack, rows, config.batch_size, name)
        report = evaluate_labels(truth, scores, model.classes, pack.info.task, patients, **options)
        results[name] = {config.split: report.as_json()}
        if first is not None:
            compared = compare_labels(truth, first, scores, model.classes, pack.info.task, patients, **options)
            results[name]["difference_to_first"] = compared.as_json()
        first = scores if first is None else first
    return results


def _scores(model: Model, pack: Pack, rows: IntArray, batch_size: int, label: str) -> FloatArray:
    parts = []
    with progress(label, len(rows)) as meter:
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            parts.append(model.labels([prepare_row(model, pack, int(row)) for row in chosen]))
            meter.advance(len(chosen))
    return np.concatenate(parts)


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names where these differ, else their paths."""
    names = [path.resolve().name for path in runs]
    return names if len(set(names)) == len(names) else [str(path) for path in runs]

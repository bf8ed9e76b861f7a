"""What a finished detector leaves beside its weights: COCO files of a split, and thresholds by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinray.detection.data import DetectionData
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.evaluation.thresholds import choose_thresholds
from twinray.files import read_json, write_json
from twinray.runs.folder import RunFolder


def write_thresholds(
    folder: RunFolder, part: DetectionData, found: Mapping[str | int, Any]
) -> None:
    """Score thresholds by class, chosen on these predictions, into the model's description."""
    chosen = choose_thresholds(part.truth_by_id(), found, part.pack.info.box_classes)
    path = folder.path / "model.json"
    description = read_json(path, "weight description") | {"thresholds": chosen.as_json()}
    write_json(path, description, "weight description")


def write_coco(
    folder: RunFolder, split: str, part: DetectionData, found: Mapping[str | int, Any]
) -> None:
    """Truth and predictions of a split as COCO files; those of test under the plain name ``predictions.json``."""
    suffix = "" if split == "test" else f"_{split}"
    ids = coco_image_ids(list(part.pack.ids[part.rows]))
    sizes = {
        part.pack.ids[row]: (int(part.pack.sizes[row][0]), int(part.pack.sizes[row][1]))
        for row in part.rows
    }
    classes = part.pack.info.box_classes
    names = {
        part.pack.ids[row]: part.pack.table.column("source")[int(row)].as_py() for row in part.rows
    }
    # who is whose image is needed for intervals, the patient's number is not (file names, which COCO needs, may hold it)
    patients = dict(zip(part.truth_by_id(), part.codes(), strict=True))
    truth = truth_as_coco(
        part.truth_by_id(), classes, sizes=sizes, file_names=names, image_ids=ids, patients=patients
    )
    write_json(folder.path / f"truth{suffix}.json", truth, "true boxes")
    write_predictions(folder.path / f"predictions{suffix}.json", found, len(classes), ids)

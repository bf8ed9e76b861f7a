"""Equality with pycocotools over real annotations: VinDr-CXR's, that torchxrayvision ships, and RSNA's."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from twinray.data.readers.coco import read_coco
from twinray.evaluation.boxes import class_average_precision
from twinray.evaluation.coco_engine import IOUS
from twinray.records import Boxes


@pytest.fixture(scope="module")
def annotations():
    """660 images with the boxes of their first reader; text ids; 14 classes."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchxrayvision, whose wheel ships VinDr-CXR's annotations, is not installed")
    path = Path(spec.origin).parent / "data" / "vinbigdata-train.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this torchxrayvision")
    boxes, reader = defaultdict(list), {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            image = row["image_id"]
            if len(boxes) >= 660 and image not in boxes:
                continue
            if (
                row["class_name"] == "No finding"
                or reader.setdefault(image, row["rad_id"]) != row["rad_id"]
            ):
                continue
            corners = [float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]
            boxes[image].append((corners, int(row["class_id"])))
    return {
        image: Boxes(np.array([c for c, _ in found]), np.array([label for _, label in found]))
        for image, found in boxes.items()
    }


def near_and_anywhere(truth, n_classes, side):
    """Seeded predictions: noisy copies of the true boxes, boxes anywhere, images with none and one with very many."""
    rng = np.random.default_rng(0)
    predictions = {}
    for i, (image, boxes) in enumerate(truth.items()):
        if i % 10 == 9:
            continue  # nothing predicted here
        n = 30 if i else 400  # one image exceeds 100 predictions of a class
        start, size = rng.uniform(0, side, (n, 2)), rng.uniform(side / 100, 0.45 * side, (n, 2))
        near = boxes.xyxy + rng.normal(0, side / 66, boxes.xyxy.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        labels = np.concatenate(
            [boxes.labels, rng.integers(0, n_classes if i else min(n_classes, 2), n)]
        )
        scores = np.concatenate([rng.uniform(0.2, 1, len(boxes)), rng.uniform(0, 0.9, n)])
        predictions[image] = Boxes(
            np.concatenate([near, np.concatenate([start, start + size], 1)]),
            labels,
            np.round(scores, 3),
        )
    return predictions


def test_average_precision_equals_pycocotools_over_vindr(annotations, pycocotools_ap):
    predictions = near_and_anywhere(annotations, 14, 2000)
    truth = {**annotations, "normal": Boxes.empty()}
    names = [str(i) for i in range(14)]
    expected = pycocotools_ap(truth, predictions, 14, IOUS)
    assert 0.1 < np.nanmean(expected) < 0.9
    np.testing.assert_allclose(
        class_average_precision(truth, predictions, names), expected, atol=1e-9
    )


def test_average_precision_equals_pycocotools_over_rsna(real_data, pycocotools_ap):
    collection = read_coco(real_data / "rsna-pneumonia" / "annotations.json")
    truth = {sample.id: sample.boxes for sample in collection.samples}
    assert (
        sum(len(boxes) == 0 for boxes in truth.values()) > 100
    )  # more images without boxes than with
    predictions = near_and_anywhere(truth, 1, 1024)
    expected = pycocotools_ap(truth, predictions, 1, IOUS)
    assert 0.02 < np.nanmean(expected) < 0.9
    np.testing.assert_allclose(
        class_average_precision(truth, predictions, ["opacity"]), expected, atol=1e-9
    )

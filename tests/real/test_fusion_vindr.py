"""VinDr-CXR's raw radiologist boxes, as the torchxrayvision wheel ships them, fused at IoU 0.5."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

from twinray.data.fusion import fuse_table

# Counts of fused boxes made with ensemble_boxes in the file's row order (last row first), class ids 0 to 13.
PUBLISHED = [3386, 230, 745, 2402, 435, 733, 954, 2017, 1867, 1836, 1771, 4058, 131, 3369]


@pytest.fixture(scope="module")
def rows():
    spec = importlib.util.find_spec("torchxrayvision")
    path = (
        Path(spec.origin).parent / "data" / "vinbigdata-train.csv.gz"
        if spec and spec.origin
        else None
    )
    if path is None or not path.exists():
        pytest.skip("torchxrayvision, whose wheel ships VinDr-CXR's rows, is not installed")
    with gzip.open(path, "rt", newline="") as file:
        table = [row for row in csv.DictReader(file) if row["class_name"] != "No finding"]
    return {
        "image_ids": np.array([row["image_id"] for row in table]),
        "class_ids": np.array([int(row["class_id"]) for row in table]),
        "xyxy": np.array(
            [[float(row[c]) for c in ("x_min", "y_min", "x_max", "y_max")] for row in table]
        ),
        "readers": np.array([row["rad_id"] for row in table]),
    }


def test_published_counts_in_the_files_own_order_of_ties(rows):
    assert len(rows["class_ids"]) == 36_096 and len(np.unique(rows["image_ids"])) == 4_394
    number = -np.arange(len(rows["class_ids"]))
    fused = fuse_table(**rows, tie_order=number)
    assert np.bincount(fused.class_ids, minlength=14).tolist() == PUBLISHED
    assert len(fused) == 23_934 and len(np.unique(fused.image_ids)) == 4_394
    assert fused.n_boxes.sum() == 36_096 and fused.n_readers.max() == 3
    shuffle = np.random.default_rng(0).permutation(len(number))
    again = fuse_table(
        **{name: column[shuffle] for name, column in rows.items()}, tie_order=number[shuffle]
    )
    assert again.xyxy.tobytes() == fused.xyxy.tobytes()


def test_default_is_the_same_however_the_file_is_shuffled(rows):
    fused = fuse_table(**rows)
    # Ties by content instead of by row number: the same within what any order of rows gives.
    assert abs(len(fused) - 23_934) < 0.002 * 23_934
    for seed in range(3):
        shuffle = np.random.default_rng(seed).permutation(len(rows["class_ids"]))
        again = fuse_table(**{name: column[shuffle] for name, column in rows.items()})
        for name in ("image_ids", "class_ids", "xyxy", "scores", "n_readers", "n_boxes"):
            assert getattr(again, name).tobytes() == getattr(fused, name).tobytes(), name


def test_sizes_do_not_matter(rows):
    number = -np.arange(len(rows["class_ids"]))
    fused = fuse_table(**rows, tie_order=number)
    sizes = np.array(
        [3000.0, 3500.0]
    )  # any size holds all boxes here; dividing by it changes rounding only
    normalised = {**rows, "xyxy": rows["xyxy"] / np.tile(sizes, 2)}
    scaled = fuse_table(**normalised, tie_order=number)
    assert np.bincount(scaled.class_ids, minlength=14).tolist() == PUBLISHED
    boxes = scaled.xyxy * np.tile(sizes, 2)
    # Rounding may swap neighbours in the output, which is sorted by x1 first.
    _, image = np.unique(scaled.image_ids, return_inverse=True)
    order = np.lexsort((*np.round(boxes, 3).T[::-1], scaled.class_ids, image))
    expected = np.lexsort((*np.round(fused.xyxy, 3).T[::-1], fused.class_ids, image))
    np.testing.assert_allclose(boxes[order], fused.xyxy[expected], atol=1e-6)


def test_agrees_with_ensemble_boxes_box_by_box(rows):
    oracle = pytest.importorskip(
        "ensemble_boxes", reason="the oracle ensemble-boxes is not installed"
    )
    images = np.unique(rows["image_ids"])[:400]
    keep = np.isin(rows["image_ids"], images)
    part = {name: column[keep] for name, column in rows.items()}
    # Distinct scores make the order of boxes well defined in the oracle, whose sort does not resolve ties.
    scores = 1 - 1e-3 * np.random.default_rng(0).permutation(keep.sum()) / keep.sum()
    ours = fuse_table(**part, scores=scores)
    for image in images:
        here = part["image_ids"] == image
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxes, _, labels = oracle.weighted_boxes_fusion(
                [part["xyxy"][here] / 4000], [scores[here]], [part["class_ids"][here]], iou_thr=0.5
            )
        mine = ours.image_ids == image
        theirs = np.column_stack([labels, boxes * 4000])
        theirs = theirs[np.lexsort(np.round(theirs, 1).T[::-1])]
        us = np.column_stack([ours.class_ids[mine], ours.xyxy[mine]])
        us = us[np.lexsort(np.round(us, 1).T[::-1])]
        np.testing.assert_allclose(us, theirs, atol=0.05, err_msg=str(image))

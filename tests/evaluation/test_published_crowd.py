"""Examples of COCO's annotations whose figures are published.

The one with a crowd region is faster-coco-eval's: 13 people and a crowd on COCO's image 2299. The one of 100 images and 80 classes is
pycocotools' own (``results/`` of COCO's API, fake boxes). Its files are in no wheel and no sdist: the test is skipped without them.

Boxes and figures are those of its repository (Apache-2.0), ``tests/dataset/gt_ignore_test.json``, ``dt_ignore_test.json`` and
``tests/test_basic.py``; COCO's annotations are CC BY 4.0.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from support import REAL_DATA
from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.records import Boxes

PEOPLE = """70.18 189.51 64.2 112.04 4357.5248, 139.9 190.55 72.04 107.81 4688.67255, 204.27 187.31 65.83 101.12 4038.51595,
257.68 192.06 72.41 95.16 4427.58245, 327.79 190.02 63.11 95.01 4009.8197, 387.02 193.51 62.58 98.63 3448.9535,
394.3 127.59 40.72 92.29 2209.38355, 331.91 131.75 66.35 117.15 3576.6812, 322.94 129.11 38.51 72.29 1914.45695,
60.0 32.96 53.21 106.88 2595.7634, 99.93 80.0 46.67 74.28 1766.34185, 431.19 134.39 42.6 141.41 3529.92265,
284.3 118.18 41.34 109.28 2461.4506, 0 18 499 263 87090"""
"""x, y, width, height, area; the last is the crowd."""

FOUND = """0.023 131.217 46.438 145.565 0.73537, 69.943 193.115 64.941 107.132 0.70184, 384.914 193.709 69.607 97.819 0.67916,
327.302 189.619 60.443 97.483 0.66178, 139.475 192.003 72.769 103.302 0.65485, 391.178 127.631 42.296 92.2 0.63106,
38.117 128.745 41.144 147.276 0.62575, 429.468 132.132 47.589 146.875 0.61723, 110.203 126.231 38.686 133.226 0.57315,
264.701 193.581 65.041 95.608 0.57249, 355.63 130.565 42.723 97.821 0.56443, 248.012 123.709 46.19 108.957 0.50313,
321.319 129.063 39.732 108.869 0.45959, 216.014 122.973 39.979 98.859 0.45283, 202.388 190.317 65.361 101.373 0.45203,
97.949 86.133 48.116 73.603 0.3739, 178.873 121.629 43.202 116.363 0.35788, 288.638 121.121 37.154 112.827 0.34437,
60.512 33.788 52.803 94.854 0.33802, 0.147 90.889 48.041 77.764 0.33673, 446.76 87.429 48.095 203.282 0.33519,
44.883 80.76 48.201 79.793 0.32205, 145.264 133.644 37.335 101.748 0.30812, 112.352 29.787 50.295 92.886 0.3036,
391.916 36.331 49.174 83.455 0.28702, 407.634 83.988 44.853 76.104 0.27551, 75.197 135.555 37.547 101.157 0.26372,
144.933 86.119 42.959 71.099 0.22839, 362.281 90.381 46.311 69.53 0.22765, 320.495 89.08 44.146 70.92 0.21637,
163.672 26.658 44.792 89.299 0.21491, 445.443 86.566 48.408 141.157 0.20146, 349.221 26.183 44.031 94.373 0.19005,
223.965 69.865 54.486 86.119 0.15501, 185.664 87.481 42.012 66.442 0.11465, 208.43 21.466 50.104 89.881 0.11058,
280.518 77.143 41.889 77.157 0.09798, 309.162 26.131 44.849 85.952 0.09246, 259.397 20.575 51.144 91.443 0.05121,
62.077 135.453 46.545 131.122 0.03459, 466.823 111.56 26.689 164.975 0.03184, 0.182 130.571 78.871 146.433 0.02702,
445.229 86.43 49.057 97.353 0.02381, 490.18 115.411 8.953 82.674 0.01302, 0.0 88.71 45.545 154.808 0.01296,
489.462 113.478 9.899 129.077 0.01273, 299.674 151.119 26.202 91.479 0.01212, 297.389 154.313 20.477 71.486 0.00785,
405.277 10.189 43.449 61.716 0.00776, 489.496 97.104 9.761 195.3 0.00769, 186.769 86.918 39.848 44.476 0.00768,
285.392 78.01 34.151 60.72 0.00699, 466.259 153.136 25.771 123.508 0.00549, 0.062 142.144 6.042 103.175 0.0054,
147.124 119.077 34.7 37.527 0.00529, 67.806 141.949 16.843 21.701 0.00511, 0.0 90.053 18.181 73.594 0.00443,
491.181 84.361 8.079 101.684 0.00438, 458.387 171.324 35.509 108.345 0.00417, 0.323 87.054 69.343 150.877 0.00411,
184.714 110.484 42.733 46.185 0.00403, 357.611 126.773 55.277 96.348 0.00402, 41.073 127.625 75.55 145.037 0.00382"""
"""x, y, width, height, score."""

EXAMPLE = Path(os.environ.get("COCO_EXAMPLE", REAL_DATA / "coco-example"))
"""Folder of ``instances_val2014_100.json`` and ``instances_val2014_fakebbox100_results.json``."""

FAKE_BOXES = {
    "map": 0.5045806987249628,
    "map50": 0.6969727247299577,
    "map75": 0.5729816669904824,
    "map_small": 0.5856257209410443,
    "map_medium": 0.5193996948036719,
    "map_large": 0.5013978986347466,
    "ar1": 0.38681277964578054,
    "ar10": 0.5936795762842003,
    "ar100": 0.595352982877607,
    "ar_small": 0.6398109626113442,
    "ar_medium": 0.5664205978994309,
    "ar_large": 0.5642905982905982,
}
"""Of faster-coco-eval's ``tests/test_cocoapi_fake_data.py``; pycocotools prints three digits of them."""

PUBLISHED = {
    "map": 0.7099009900990099,
    "map50": 1.0,
    "map75": 0.8415841584158416,
    "map_medium": 0.7099009900990099,
    "ar1": 0.0,
    "ar10": 0.45384615384615384,
    "ar100": 0.7153846153846154,
    "ar_medium": 0.7153846153846154,
}


def rows(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) corners and (n,) last numbers."""
    table = np.array([line.split() for line in text.replace("\n", " ").split(", ")], dtype=float)
    return np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1), table[:, 4]


def test_a_crowd_region_takes_what_lies_in_it():
    xyxy, areas = rows(PEOPLE)
    crowd = np.arange(len(xyxy)) == len(xyxy) - 1
    labels = np.zeros(len(xyxy), dtype=np.int64)
    boxes, scores = rows(FOUND)
    truth = {2299: Boxes(xyxy, labels, crowd=crowd, area=areas)}
    found = {2299: Boxes(boxes, np.zeros(len(boxes), dtype=np.int64), scores)}
    report = evaluate_boxes(truth, found, ("person",), resampling=Resampling(0)).all_images.metrics
    own = {name: report[name].value for name in PUBLISHED}
    assert own == pytest.approx(PUBLISHED, abs=1e-9)
    assert np.isnan(report["map_small"].value) and np.isnan(report["map_large"].value)
    without = {2299: Boxes(xyxy[~crowd], labels[~crowd], area=areas[~crowd])}
    bare = evaluate_boxes(without, found, ("person",), resampling=Resampling(0)).all_images.metrics
    assert bare["map"].value < own["map"] - 0.1


def read_example(folder: Path) -> tuple[dict[int, Boxes], dict[int, Boxes], tuple[str, ...]]:
    """True boxes, found boxes and classes of pycocotools' example."""
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    found = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    of_class = {one["id"]: i for i, one in enumerate(truth["categories"])}

    def boxes(rows: list[dict], *, scored: bool) -> Boxes:
        corners = np.array([row["bbox"] for row in rows], dtype=float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        labels = np.array([of_class[row["category_id"]] for row in rows], dtype=np.int64)
        if scored:
            return Boxes(corners, labels, np.array([row["score"] for row in rows], dtype=float))
        crowd = np.array([row["iscrowd"] == 1 for row in rows], dtype=bool)
        return Boxes(
            corners, labels, crowd=crowd, area=np.array([row["area"] for row in rows], dtype=float)
        )

    images = [one["id"] for one in truth["images"]]
    of_image = [
        {i: [row for row in rows if row["image_id"] == i] for i in images}
        for rows in (truth["annotations"], found)
    ]
    return (
        {i: boxes(rows, scored=False) for i, rows in of_image[0].items()},
        {i: boxes(rows, scored=True) for i, rows in of_image[1].items()},
        tuple(one["name"] for one in truth["categories"]),
    )


@pytest.mark.skipif(
    not EXAMPLE.is_dir(), reason="pycocotools' example is not here; COCO_EXAMPLE names its folder"
)
def test_the_example_of_pycocotools():
    truth, found, classes = read_example(EXAMPLE)
    report = evaluate_boxes(truth, found, classes, resampling=Resampling(0)).all_images.metrics
    own = {name: report[name].value for name in FAKE_BOXES}
    assert own == pytest.approx(FAKE_BOXES, abs=1e-6)


def test_the_shapes_of_faster_coco_eval():
    """Clouds, hearts, arrows and stars of its ``tests/dataset``; figures of ``tests/test_basic.py``, where boxes and outlines agree.

    Two shapes bear each other's class and one was found where none is, above all others.
    """
    cloud, heart, arrow, star = range(4)
    true = {
        1: [(22, 24, 109, 111, cloud), (145, 24, 108, 108, heart), (4, 156, 107, 91, arrow)],
        2: [(22, 24, 109, 111, cloud), (10, 147, 107, 107, star), (132, 130, 107, 108, heart)],
        3: [(144, 2, 109, 111, cloud), (14, 21, 121, 124, heart), (108, 120, 131, 127, star)],
    }
    found = {
        1: [(22, 24, 109, 111, heart), (145, 24, 108, 108, cloud), (4, 156, 107, 91, arrow)],
        2: [(22, 24, 109, 111, cloud), (10, 147, 107, 107, star), (132, 130, 107, 108, heart)],
        3: [(144, 2, 109, 111, cloud), (108, 120, 131, 127, star), (4, 145, 109, 111, cloud)],
    }
    scores = iter(np.arange(19, 28) / 30)

    def boxes(shapes: list[tuple[int, ...]], own: np.ndarray | None = None) -> Boxes:
        table = np.array(shapes, dtype=float)
        corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
        return Boxes(corners, table[:, 4].astype(np.int64), own)

    report = evaluate_boxes(
        {i: boxes(shapes) for i, shapes in true.items()},
        {i: boxes(shapes, np.array([next(scores) for _ in shapes])) for i, shapes in found.items()},
        ("cloud", "heart", "arrow", "star"),
        resampling=Resampling(0),
    ).all_images.metrics
    published = dict.fromkeys(("map", "map50", "map75"), 0.6947194719471946)
    published |= {"ar1": 0.6666666666666666, "ar10": 0.75, "ar100": 0.75}
    assert {name: report[name].value for name in published} == pytest.approx(published, abs=1e-9)

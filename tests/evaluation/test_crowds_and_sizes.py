"""Crowd regions, sizes and recall against pycocotools and torchmetrics: all twelve figures that COCO prints."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from twinray.errors import InputError
from twinray.evaluation.accumulate import froc, froc_rows
from twinray.evaluation.boxes import (
    COCO_SIZES,
    FROC_RULE,
    BoxCache,
    BoxRules,
    evaluate_boxes,
    plain_figures,
    sizes_between,
)
from twinray.evaluation.coco_json import predictions_as_coco, read_truth, truth_as_coco
from twinray.evaluation.diagnostics import confusion_with_background, froc_curve, precision_recall
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.thresholds import choose_thresholds
from twinray.records import Boxes

NAMES = ("a", "b", "c", "d")
TWELVE = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


def with_crowds(truth: dict, share: float, seed: int, *, outlines: bool = True) -> dict:
    """Some true boxes become large crowd regions; outlines are smaller than their boxes."""
    rng = np.random.default_rng(seed)
    changed = {}
    for image, boxes in truth.items():
        crowd = rng.random(len(boxes)) < share
        xyxy = boxes.xyxy.copy()
        xyxy[crowd, :2] -= 60
        xyxy[crowd, 2:] += 60
        area = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1) * rng.uniform(0.5, 1, len(boxes))
        changed[image] = Boxes(xyxy, boxes.labels, crowd=crowd, area=area if outlines else None)
    return changed


def by_pycocotools(truth: dict, predictions: dict, names: tuple[str, ...] = NAMES) -> list[float]:
    """The twelve figures, NaN where it says -1."""
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    everywhere = {image: predictions.get(image, nothing) for image in truth}
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = truth_as_coco(truth, names)
        true.createIndex()
        evaluation = COCOeval(
            true, true.loadRes(predictions_as_coco(everywhere, len(names))), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float("nan") if v == -1 else float(v) for v in evaluation.stats]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_figures_are_pycocotools(simulate, seed, share):
    truth, predictions = simulate(seed, n_false=14)
    truth = with_crowds(truth, share, seed)
    expected = by_pycocotools(truth, predictions)
    flat = flatten(truth, predictions, NAMES)
    cache = BoxCache(flat, np.arange(len(flat.ids)), FROC_RULE)
    engine, kept = plain_figures(flat, cache), cache.figures(np.ones((len(flat.ids), 1)))
    assert [engine[None, m][0] for m in TWELVE] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert set(engine) == set(kept)
    for key, value in engine.items():
        assert kept[key][0] == pytest.approx(value[0], abs=1e-6, nan_ok=True), key


def test_crowds_change_the_figure_that_ignoring_them_would_give(simulate):
    truth, predictions = simulate(1, n_false=14)
    truth = with_crowds(truth, 0.4, 1)
    plain = {i: Boxes(b.xyxy[~b.crowd], b.labels[~b.crowd]) for i, b in truth.items()}
    value = {
        name: evaluate_boxes(t, predictions, NAMES, resampling=Resampling(0)).all_images
        for name, t in (("crowds", truth), ("none", plain))
    }
    assert value["crowds"].n_boxes == value["none"].n_boxes
    for measure in ("map", "map50", "froc"):
        assert value["crowds"].metrics[measure].value > value["none"].metrics[measure].value


def test_resampled_figures_with_crowds_are_those_of_copied_images(simulate):
    truth, predictions = simulate(2, n_false=14)
    truth = with_crowds(truth, 0.4, 2)
    flat = flatten(truth, predictions, NAMES)
    weights = np.random.default_rng(0).multinomial(25, np.full(25, 1 / 25))
    found = BoxCache(flat, np.arange(25), FROC_RULE).figures(weights[:, None].astype(float))
    copies = [(i, j) for i, w in enumerate(weights) for j in range(w)]
    ids = list(truth)
    own_truth = {n: truth[ids[i]] for n, (i, _) in enumerate(copies)}
    own = {n: predictions[ids[i]] for n, (i, _) in enumerate(copies) if ids[i] in predictions}
    expected = by_pycocotools(own_truth, own)
    assert [found[None, m][0] for m in TWELVE] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_the_published_example_of_torchmetrics():
    """Its docstring: one box of 348 x 244, moved by 44 pixels."""
    report = evaluate_boxes(
        [Boxes(np.array([[214.0, 41, 562, 285]]), np.zeros(1, dtype=np.int64))],
        [Boxes(np.array([[258.0, 41, 606, 285]]), np.zeros(1, dtype=np.int64), np.array([0.536]))],
        ("a",),
        resampling=Resampling(0),
    ).all_images.metrics
    assert [report[m].value for m in TWELVE] == pytest.approx(
        [0.6, 1.0, 1.0, np.nan, np.nan, 0.6, 0.6, 0.6, 0.6, np.nan, np.nan, 0.6], nan_ok=True
    )


def test_crowds_agree_with_torchmetrics(simulate):
    from torchmetrics.detection import MeanAveragePrecision

    truth, predictions = simulate(3, n_false=10)
    truth = with_crowds(truth, 0.4, 3, outlines=False)
    theirs = MeanAveragePrecision()
    for image, boxes in truth.items():
        own = predictions.get(image, Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)))
        theirs.update(
            [{"boxes": torch.tensor(own.xyxy), "scores": torch.tensor(own.scores), "labels": torch.tensor(own.labels)}],
            [{
                "boxes": torch.tensor(boxes.xyxy), "labels": torch.tensor(boxes.labels),
                "iscrowd": torch.tensor(boxes.crowd.astype(int)),
            }],
        )  # fmt: skip
    expected = theirs.compute()
    ours = evaluate_boxes(truth, predictions, NAMES, resampling=Resampling(0)).all_images.metrics
    names = {
        "map": "map",
        "map50": "map_50",
        "map75": "map_75",
        "map_large": "map_large",
        "ar1": "mar_1",
        "ar100": "mar_100",
    }
    for name, other in names.items():
        assert ours[name].value == pytest.approx(float(expected[other]), abs=1e-5)


BOX = np.array([0.0, 0.0, 10.0, 10.0])


def scored(*boxes: tuple[list[float], float]) -> Boxes:
    return Boxes(
        np.array([b for b, _ in boxes], dtype=float),
        np.zeros(len(boxes), dtype=np.int64),
        np.array([s for _, s in boxes]),
    )


def test_a_region_takes_any_number_and_a_box_comes_first():
    truth = [
        Boxes(
            np.array([BOX, [0, 0, 100, 100]]),
            np.zeros(2, dtype=np.int64),
            crowd=np.array([False, True]),
        )
    ]
    found = [
        scored(
            ([0, 0, 10, 10], 0.9),
            ([1, 1, 11, 11], 0.8),
            ([50, 50, 60, 60], 0.7),
            ([95, 95, 130, 130], 0.6),
        )
    ]
    matches = match(flatten(truth, found, ("a",)), (0.5,))
    assert matches.hit[0].tolist() == [True, False, False, False]
    assert matches.ignored[0].tolist() == [False, True, True, False]
    assert matches.truth_counts.tolist() == [[1]]
    sensitivity = froc(
        froc_rows(matches, 0.5, np.zeros(1, dtype=np.int64)), np.ones((1, 1)), (0.125, 1.0)
    )
    assert sensitivity[:, 0].tolist() == [1.0, 1.0]
    assert froc_curve(matches).false_positives_per_image[-1] == 1.0
    assert precision_recall(matches).precision[-1] == 0.5
    table = confusion_with_background(flatten(truth, found, ("a",)), 0.0)
    assert table.tolist() == [[1, 0], [1, 0]]
    by_centre = match(flatten(truth, found, ("a",)), "centre")
    assert by_centre.ignored[0].tolist() == [False, True, True, False]


def test_thresholds_do_not_count_predictions_in_regions():
    region = Boxes(
        np.array([[0.0, 0, 100, 100]]), np.zeros(1, dtype=np.int64), crowd=np.array([True])
    )
    truth = dict.fromkeys(range(30), region)
    found = {i: scored(([10, 10, 20, 20], 0.9)) for i in range(30)}
    point = choose_thresholds(truth, found, ("a",)).at(0.25)
    assert point.measured == 0.0


def test_sizes_are_by_the_side_of_a_square():
    assert sizes_between((32, 96)) == COCO_SIZES
    for bad in ((0, 5), (5, 5), (9, 3), (1, float("inf")), (1,)):
        with pytest.raises(InputError, match="two rising sides"):
            sizes_between(bad)
    truth = [Boxes(np.array([[0.0, 0, 50, 50], [100, 100, 300, 300]]), np.zeros(2, dtype=np.int64))]
    found = [scored(([0, 0, 50, 50], 0.9))]
    coco = evaluate_boxes(truth, found, ("a",), resampling=Resampling(0)).all_images.metrics
    assert [coco[f"map_{s}"].value for s in COCO_SIZES] == pytest.approx(
        [np.nan, 1.0, 0.0], nan_ok=True
    )
    wide = evaluate_boxes(
        truth,
        found,
        ("a",),
        resampling=Resampling(0),
        rules=BoxRules(sizes=sizes_between((60, 400))),
    ).all_images.metrics
    assert [wide[f"map_{s}"].value for s in COCO_SIZES] == pytest.approx(
        [1.0, 0.0, np.nan], nan_ok=True
    )


def test_regions_and_areas_are_kept_in_the_file_of_true_boxes(simulate, tmp_path):
    truth, _ = simulate(4, ids=[f"i{i}" for i in range(25)])
    truth = with_crowds(truth, 0.4, 4)
    (tmp_path / "truth.json").write_text(json.dumps(truth_as_coco(truth, NAMES)))
    again = read_truth(tmp_path / "truth.json").boxes
    for image, boxes in truth.items():
        crowd = again[image].crowd
        assert boxes.crowd.tolist() == ([False] * len(boxes) if crowd is None else crowd.tolist())
        assert again[image].area == pytest.approx(boxes.area)


def test_the_four_images_of_torchmetrics_own_tests():
    """Boxes of COCO's images 42, 73, 74 and 987 (Apache-2.0, ``tests/unittests/detection/test_map.py``), and the figures published with them."""
    chairs = [0.532, 0.204, 0.782, 0.202, 0.883, 0.271, 0.561, 0.204, 0.349]
    images = [
        ([[214.15, 41.29, 562.41, 285.07]], [4], [[258.15, 41.29, 606.41, 285.07]], [4], [0.236]),
        (
            [[13.00, 22.75, 548.98, 632.42], [1.66, 3.32, 270.26, 275.23]], [2, 2],
            [[61.00, 22.75, 565.00, 632.42], [12.66, 3.32, 281.26, 275.23]], [3, 2], [0.318, 0.726],
        ),
        (
            [
                [61.87, 276.25, 358.29, 379.43], [2.75, 3.66, 162.15, 316.06], [295.55, 93.96, 313.97, 152.79],
                [326.94, 97.05, 340.49, 122.98], [356.62, 95.47, 372.33, 147.55], [462.08, 105.09, 493.74, 146.99],
                [277.11, 103.84, 292.44, 150.72],
            ], [4, 1, 0, 0, 0, 0, 0],
            [
                [87.87, 276.25, 384.29, 379.43], [0.00, 3.66, 142.15, 316.06], [296.55, 93.96, 314.97, 152.79],
                [328.94, 97.05, 342.49, 122.98], [356.62, 95.47, 372.33, 147.55], [464.08, 105.09, 495.74, 146.99],
                [276.11, 103.84, 291.44, 150.72],
            ], [4, 1, 0, 0, 0, 0, 0], [0.546, 0.3, 0.407, 0.611, 0.335, 0.805, 0.953],
        ),
        (
            [
                [72.92, 45.96, 91.23, 80.57], [50.17, 45.34, 71.28, 79.83], [81.28, 47.04, 98.66, 78.50],
                [63.96, 46.17, 84.35, 80.48], [75.29, 23.01, 91.85, 50.85], [56.39, 21.65, 75.66, 45.54],
                [73.14, 1.10, 98.96, 28.33], [62.34, 55.23, 78.14, 79.57], [44.17, 45.78, 63.99, 78.48],
                [58.18, 44.80, 66.42, 56.25],
            ], [5] * 10,
            [
                [72.92, 45.96, 91.23, 80.57], [45.17, 45.34, 66.28, 79.83], [82.28, 47.04, 99.66, 78.50],
                [59.96, 46.17, 80.35, 80.48], [75.29, 23.01, 91.85, 50.85], [71.14, 1.10, 96.96, 28.33],
                [61.34, 55.23, 77.14, 79.57], [41.17, 45.78, 60.99, 78.48], [56.18, 44.80, 64.42, 56.25],
            ], [5] * 9, chairs,
        ),
    ]  # fmt: skip
    names = tuple("abcdef")
    truth = {i: Boxes(np.array(one[0]), np.array(one[1])) for i, one in enumerate(images)}
    found = {
        i: Boxes(np.array(one[2]), np.array(one[3]), np.array(one[4]))
        for i, one in enumerate(images)
    }
    report = evaluate_boxes(truth, found, names, resampling=Resampling(0)).all_images.metrics
    own = [report[m].value for m in TWELVE]
    assert own == pytest.approx(by_pycocotools(truth, found, names), abs=1e-6)
    published = [0.637, 0.859, 0.761, 0.622, 0.800, 0.635, 0.432, 0.652, 0.652, 0.673, 0.800, 0.633]
    assert own == pytest.approx(published, abs=5e-4)

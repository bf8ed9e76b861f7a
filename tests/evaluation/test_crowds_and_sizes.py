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

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from twinray.errors import InputError
from twinray.evaluation.accumulate import (
    RECALLS,
    _interpolated,
    average_precision,
    froc,
    froc_rows,
    hit_rows,
    mean_over_classes,
)
from twinray.evaluation.boxes import (
    BoxRules,
    FrocRule,
    class_average_precision,
    compare_boxes,
    evaluate_boxes,
    mean_average_precision,
)
from twinray.evaluation.coco_engine import IOUS
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.matching import flatten, match
from twinray.records import Boxes

NAMES = ("a", "b", "c", "d")


def cached_ap(truth, predictions, weights=None, names=NAMES):
    """(t, k) from cached matches, each image weighted on its own."""
    flat = flatten(truth, predictions, names)
    matches, groups = match(flat, IOUS), np.arange(len(flat.ids))
    weights = np.ones(len(groups)) if weights is None else np.asarray(weights, dtype=float)
    return np.stack(
        [
            average_precision(hit_rows(matches, c, groups), weights[:, None])[:, 0]
            for c in range(len(names))
        ],
        1,
    )


CASES = {
    "plain": {},
    "equal scores": {"decimals": 1},
    "sparse integer ids": {"ids": [7, 100_003, 12, 5, 99, 2_000, 31, 4, 77, 1_000_000]},
    "text ids": {"ids": [f"{i}.png" for i in (9, 10, 2, 33, 4, 21, 8)], "decimals": 1},
    "more than 100 predictions": {"n_images": 6, "n_classes": 2, "n_false": 320},
    "more than 100 with equal scores": {
        "n_images": 6,
        "n_classes": 2,
        "n_false": 320,
        "decimals": 1,
    },
    "a class without true boxes": {"classes_with_truth": 2},
    "no false ones": {"n_false": 0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(case, seed, simulate, pycocotools_ap):
    options = CASES[case]
    truth, predictions = simulate(seed, **options)
    names = NAMES[: options.get("n_classes", 4)]
    expected = pycocotools_ap(truth, predictions, len(names), IOUS)
    np.testing.assert_allclose(
        class_average_precision(truth, predictions, names), expected, atol=1e-9
    )
    np.testing.assert_allclose(cached_ap(truth, predictions, names=names), expected, atol=1e-9)
    for ious in ((0.5,), (0.4,), IOUS[1:]):
        rows = [IOUS.index(t) for t in ious]
        got = mean_average_precision(truth, predictions, names, ious)
        assert got == pytest.approx(np.nanmean(expected[rows]), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_copies_of_images(seed, simulate, pycocotools_ap):
    truth, predictions = simulate(seed, n_images=12)
    weights = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12))
    copies = [
        (image, i * 100 + copy) for i, image in enumerate(truth) for copy in range(weights[i])
    ]
    truth_copies = {new: truth[old] for old, new in copies}
    prediction_copies = {new: predictions[old] for old, new in copies if old in predictions}
    expected = pycocotools_ap(truth_copies, prediction_copies, 4, IOUS)
    # Copies carry equal scores, which pycocotools takes one by one and the weights all at once: a step inside
    # a run of copies may differ, so compare with the copies' order undone by unequal scores.
    np.testing.assert_allclose(cached_ap(truth, predictions, weights), expected, atol=0.02)
    flat, flat_copies = (
        flatten(truth, predictions, NAMES),
        flatten(truth_copies, prediction_copies, NAMES),
    )
    both = [
        froc(froc_rows(match(f, (0.5,)), 0.5, np.arange(len(f.ids))), w[:, None])
        for f, w in ((flat, weights.astype(float)), (flat_copies, np.ones(len(flat_copies.ids))))
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-12)


def plain_ap(hit, weight, n_true):
    """One class, one threshold, spelled out: hits in score order, whole weights."""
    found, seen = np.cumsum(hit * weight), np.cumsum(weight)
    precision = np.divide(found, seen, out=np.zeros(len(hit)), where=seen > 0)
    recall = found / n_true
    return np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_whole_weights_are_the_same_as_integers_and_as_floats(simulate, seed):
    truth, predictions = simulate(seed, n_images=8, n_classes=2, n_false=4)
    flat = flatten(truth, predictions, NAMES[:2])
    matches, groups = match(flat, IOUS), np.arange(8)
    weights = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), 5).T
    rows, free = hit_rows(matches, 0, groups), froc_rows(matches, 0.5, groups)
    for kind in (np.int32, np.int64):
        own = weights.astype(kind)
        np.testing.assert_array_equal(
            average_precision(rows, own), average_precision(rows, weights.astype(float))
        )
        np.testing.assert_array_equal(froc(free, own), froc(free, weights.astype(float)))


@pytest.mark.parametrize("n_true", [1, 3, 7, 100, 101, 299, 700, 25_000])
def test_recalls_that_lie_on_a_hundredth_count_as_pycocotools_counts_them(n_true):
    """Hits among misses, so that precision falls: one recall taken too early or late shows.

    7 of 100 is below ``numpy.linspace``'s 0.07 by a rounding; what pycocotools makes of that counts.
    """
    found = np.arange(1, n_true + 1)
    seen = found + found**2 // 7
    reached = np.searchsorted(found / n_true, RECALLS, side="left")
    expected = (found / seen)[reached].mean()
    got = _interpolated(found[:, None], seen[:, None], np.array([n_true]))
    assert got[0] == pytest.approx(expected, abs=1e-13)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_weighted_average_precision_is_the_spelled_out_one(simulate, seed):
    truth, predictions = simulate(seed, n_images=8, n_classes=2, n_false=4)
    flat = flatten(truth, predictions, NAMES[:2])
    matches = match(flat, IOUS)
    weights = np.random.default_rng(seed).integers(0, 4, 8).astype(float)
    for label in range(2):
        own = slice(matches.starts[label], matches.starts[label + 1])
        n_true = matches.truth_counts[:, label] @ weights
        got = average_precision(hit_rows(matches, label, np.arange(8)), weights[:, None])[:, 0]
        if n_true == 0:
            assert np.isnan(got).all()
            continue
        expected = [
            plain_ap(hit, weights[matches.image[own]], n_true) for hit in matches.hit[:, own]
        ]
        np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.permutations(range(9)))
def test_order_and_names_of_images_do_not_matter(simulate, seed, images):
    truth, predictions = simulate(seed, n_images=9)
    shuffled = {i: truth[i] for i in images}
    assert np.array_equal(
        class_average_precision(truth, predictions, NAMES),
        class_average_precision(shuffled, predictions, NAMES),
        equal_nan=True,
    )
    renamed = {i: f"x{place}" for place, i in enumerate(images)}
    again = class_average_precision(
        {renamed[i]: truth[i] for i in images},
        {renamed[i]: b for i, b in predictions.items()},
        NAMES,
    )
    np.testing.assert_allclose(
        again, class_average_precision(truth, predictions, NAMES), atol=1e-12
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 8))
def test_a_false_positive_of_the_lowest_score_never_helps(simulate, seed, image):
    truth, predictions = simulate(seed, n_images=9)
    predictions.setdefault(image, Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)))
    before = predictions[image]
    after = Boxes(
        np.concatenate([before.xyxy, [[900.0, 900.0, 950.0, 950.0]]]),
        np.append(before.labels, 1),
        np.append(before.scores, 0.0),
    )
    old = class_average_precision(truth, predictions, NAMES)
    new = class_average_precision(truth, {**predictions, image: after}, NAMES)
    assert np.all((new <= old + 1e-12) | np.isnan(old))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_a_perfect_predictor_has_everything_one(simulate, seed):
    truth, _ = simulate(seed, n_images=9)
    perfect = {i: Boxes(b.xyxy, b.labels, np.linspace(0.5, 1, len(b))) for i, b in truth.items()}
    report = evaluate_boxes(truth, perfect, NAMES, resampling=Resampling(20))
    n = sum(len(b) > 0 for b in truth.values())
    for name, interval in report.all_images.metrics.items():
        if name == "ar1" or np.isnan(interval.value):
            continue  # an image has several boxes; none of the size
        assert interval.value == pytest.approx(1.0)
        if name.endswith(("small", "medium", "large")):
            continue
        exact = binomtest(n, n).proportion_ci(0.95, "exact")
        assert (interval.low, interval.high) == (pytest.approx(exact.low), 1.0)
        assert "too few" in interval.method and str(n) in interval.method


def test_multiplicity_one_is_the_point_estimate(simulate):
    truth, predictions = simulate(3)
    report = evaluate_boxes(truth, predictions, NAMES, resampling=Resampling(0))
    table = cached_ap(truth, predictions)
    assert report.all_images.metrics["map50"].value == pytest.approx(
        mean_over_classes(table[1][:, None])[0], abs=1e-12
    )
    assert report.all_images.metrics["map"].value == pytest.approx(np.nanmean(table[1:]), abs=1e-12)
    assert report.all_images.metrics["map50"].low is None


def test_report_has_the_form_of_metrics_json(simulate):
    truth, predictions = simulate(0, classes_with_truth=3)
    patients = [f"p{i // 2}" for i in range(25)]
    report = json.loads(
        json.dumps(
            evaluate_boxes(
                truth, predictions, NAMES, patients, resampling=Resampling(50)
            ).as_json(),
            allow_nan=False,
        )
    )
    for name in (
        "map50",
        "map40",
        "map",
        "froc",
        "froc@0.125",
        "froc@0.25",
        "froc@0.5",
        "froc@1",
        "froc@2",
        "froc@4",
        "froc@8",
    ):
        figure = report[name]
        assert set(figure) == {"value", "ci95", "n", "over"}
        assert figure["ci95"][0] <= figure["ci95"][1]
        assert figure["n"] == 13
        if name.startswith("map"):
            assert report["with_boxes"][name]["value"] >= figure["value"]
    assert report["n_images"] == 25
    assert report["with_boxes"]["n_images"] == 20
    assert list(report["per_class"]) == list(NAMES)
    assert report["per_class"]["d"]["ap50"] == {
        "value": None,
        "ci95": None,
        "n": 13,
        "over": "patients",
    }
    assert report["per_class"]["d"]["n_boxes"] == 0
    assert (
        report["n_boxes"]
        == sum(report["per_class"][n]["n_boxes"] for n in NAMES)
        == sum(map(len, truth.values()))
    )


def test_images_with_boxes_only(simulate, pycocotools_ap):
    truth, predictions = simulate(4)
    kept = {i: b for i, b in truth.items() if len(b)}
    expected = pycocotools_ap(kept, {i: predictions[i] for i in kept if i in predictions}, 4, IOUS)
    got = class_average_precision(truth, predictions, NAMES, images="with_boxes")
    np.testing.assert_allclose(got, expected, atol=1e-9)
    report = evaluate_boxes(truth, predictions, NAMES, resampling=Resampling(0))
    assert report.with_boxes.metrics["map50"].value == pytest.approx(
        np.nanmean(expected[1]), abs=1e-9
    )


def test_same_seed_same_report_whatever_the_order(simulate):
    truth, predictions = simulate(5)
    patients = {i: f"p{i % 12}" for i in truth}
    first = evaluate_boxes(
        truth, predictions, NAMES, patients, resampling=Resampling(40, 3)
    ).as_json()
    again = evaluate_boxes(
        dict(reversed(truth.items())), predictions, NAMES, patients, resampling=Resampling(40, 3)
    ).as_json()
    assert json.dumps(first) == json.dumps(again)
    other = evaluate_boxes(
        truth, predictions, NAMES, patients, resampling=Resampling(40, 4)
    ).as_json()
    assert first["map50"]["value"] == other["map50"]["value"]
    assert first["map50"]["ci95"] != other["map50"]["ci95"]


def test_interval_has_the_spread_of_resampled_images_around_the_value(simulate):
    truth, predictions = simulate(6, n_images=60)
    report = evaluate_boxes(truth, predictions, NAMES, resampling=Resampling(400, 1))
    rng = np.random.default_rng(0)
    values = [
        np.nanmean(cached_ap(truth, predictions, rng.multinomial(60, np.full(60, 1 / 60)))[1])
        for _ in range(400)
    ]
    interval = report.all_images.metrics["map50"]
    reach = 1.96 * np.std(values)
    assert (interval.high - interval.low) / 2 == pytest.approx(reach, rel=0.15)
    assert (interval.high + interval.low) / 2 == pytest.approx(interval.value, abs=0.2 * reach)


def test_froc_takes_another_hit_where_asked(simulate):
    truth, predictions = simulate(11, n_false=20)
    value = {
        hit: evaluate_boxes(
            truth, predictions, NAMES, resampling=Resampling(0), rules=BoxRules(FrocRule(hit))
        ).all_images.metrics["froc"]
        for hit in (0.5, 0.3, 0.9, "centre")
    }
    assert value["centre"].value > value[0.5].value > value[0.9].value
    assert value[0.3].value >= value[0.5].value
    for wrong in (1.5, 0, "middle", None):
        with pytest.raises(InputError, match="FROC: expected a hit"):
            FrocRule(wrong)
    with pytest.raises(InputError, match="repeats"):
        FrocRule(repeats="twice")


def test_further_boxes_on_a_found_one_count_or_not_as_the_rule_says():
    """One true box, found; two more boxes on it and one elsewhere, all of one image: LUNA16's rule and nnDetection's."""
    true = Boxes(np.array([[0.0, 0, 10, 10]]), np.array([0]))
    xyxy = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [1, 0, 10, 10], [40, 40, 50, 50]])
    found = Boxes(xyxy, np.zeros(4, dtype=int), np.array([0.6, 0.9, 0.8, 0.95]))
    truth = {i: true if i == 0 else Boxes.empty() for i in range(2)}
    rates = {
        rule: evaluate_boxes(
            truth,
            {0: found},
            ("a",),
            resampling=Resampling(0),
            rules=BoxRules(FrocRule(repeats=rule)),
        ).all_images.metrics
        for rule in ("false-positive", "ignore")
    }
    # the hit is behind one false positive in two images whatever the rule; what comes after it differs
    assert [rates[rule]["froc@0.25"].value for rule in rates] == [0, 0]
    assert [rates[rule]["froc@0.5"].value for rule in rates] == [1, 1]
    two = Boxes(np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.array([0, 0]))
    more = Boxes(
        np.append(xyxy, [[20.0, 20, 30, 30]], axis=0),
        np.zeros(5, dtype=int),
        np.append(found.scores, 0.5),
    )
    values = {
        rule: evaluate_boxes(
            {0: two},
            {0: more},
            ("a",),
            resampling=Resampling(0),
            rules=BoxRules(FrocRule(repeats=rule)),
        ).all_images.metrics
        for rule in ("false-positive", "ignore")
    }
    assert (
        values["false-positive"]["froc@2"].value == 0.5
    )  # 3 false positives stand before the second box
    assert values["ignore"]["froc@1"].value == 1.0
    assert values["ignore"]["map50"] == values["false-positive"]["map50"]


def test_one_patient_has_no_interval(simulate):
    truth, predictions = simulate(7)
    report = evaluate_boxes(truth, predictions, NAMES, ["p"] * 25, resampling=Resampling(20))
    assert report.all_images.metrics["map50"].as_json()["ci95"] is None


def test_no_true_box_anywhere():
    report = evaluate_boxes([Boxes.empty()] * 3, {}, ("a",), resampling=Resampling(10))
    assert report.with_boxes is None
    assert report.as_json()["map50"] == {"value": None, "ci95": None, "n": 3, "over": "patients"}


def test_no_prediction_anywhere(simulate):
    truth, _ = simulate(8)
    report = evaluate_boxes(truth, {}, NAMES, resampling=Resampling(10))
    assert {interval.value for interval in report.all_images.metrics.values()} == {0.0}


def test_comparison_with_itself_is_zero_and_with_the_truth_is_sure(simulate):
    truth, predictions = simulate(9)
    same = compare_boxes(truth, predictions, predictions, NAMES, resampling=Resampling(50))
    assert same.metrics["map50"].as_json() == {
        "value": 0.0,
        "ci95": None,
        "n": 25,
        "over": "patients",
        "note": "too even to say: no resample differs",
        "share_above_zero": None,
    }
    perfect = {i: Boxes(b.xyxy, b.labels, np.ones(len(b))) for i, b in truth.items()}
    better = compare_boxes(
        truth, predictions, perfect, NAMES, resampling=Resampling(50), images="with_boxes"
    )
    assert better.metrics["map"].share_above_zero == 1.0
    assert better.metrics["map"].interval.low > 0
    assert better.n_images == 20
    one_sided = (
        evaluate_boxes(truth, predictions, NAMES, resampling=Resampling(0))
        .with_boxes.metrics["froc"]
        .value
    )
    assert better.metrics["froc"].interval.value == pytest.approx(1 - one_sided)
    assert set(better.as_json()["per_class"]) == set(NAMES)


def test_paired_interval_is_narrower_than_the_runs_own(simulate):
    truth, predictions = simulate(10, n_images=40)
    worse = {i: Boxes(b.xyxy + 1.0, b.labels, b.scores) for i, b in predictions.items()}
    difference = (
        compare_boxes(truth, worse, predictions, NAMES, resampling=Resampling(100))
        .metrics["map50"]
        .interval
    )
    alone = evaluate_boxes(
        truth, predictions, NAMES, resampling=Resampling(100)
    ).all_images.metrics["map50"]
    assert difference.high - difference.low < (alone.high - alone.low) / 2


BOX = np.array([[0.0, 0.0, 10.0, 10.0]])


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (Boxes(BOX, np.array([0]), np.array([np.nan])), "scores in 0..1, box 0 has nan"),
        (Boxes(BOX, np.array([0]), np.array([1.5])), "scores in 0..1"),
        (Boxes(BOX, np.array([0]), np.array([-0.1])), "scores in 0..1"),
        (Boxes(BOX, np.array([0])), "expected a score"),
        (Boxes(BOX * np.nan, np.array([0]), np.array([0.5])), "finite coordinates"),
        (Boxes(BOX[:, [2, 1, 0, 3]], np.array([0]), np.array([0.5])), "x2 >= x1"),
        (Boxes(BOX, np.array([1]), np.array([0.5])), "class ids 0 to 0"),
        (Boxes(BOX, np.array([-1]), np.array([0.5])), "class ids"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(prediction, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate_boxes({"x.png": Boxes(BOX, np.array([0]))}, {"x.png": prediction}, ("a",))
    assert "\n" not in str(caught.value)
    assert "x.png" in str(caught.value)


def test_bad_truth_and_strangers_are_refused():
    flat_box = Boxes(np.array([[0.0, 0.0, 10.0, 0.0]]), np.array([0]))
    with pytest.raises(InputError, match="x2 > x1 and y2 > y1"):
        evaluate_boxes([flat_box], {}, ("a",))
    with pytest.raises(InputError, match="is not among the 1 images"):
        evaluate_boxes(
            {"x.png": Boxes.empty()}, {"y.png": Boxes(BOX, np.array([0]), np.ones(1))}, ("a",)
        )
    with pytest.raises(InputError, match="at least one image"):
        evaluate_boxes({}, {}, ("a",))
    with pytest.raises(InputError, match="one entry for each of 1 images, found 2"):
        evaluate_boxes([Boxes.empty()], {}, ("a",), ["p", "q"])


def test_evaluation_needs_no_torch():
    code = (
        "import sys, twinray.evaluation.boxes, twinray.evaluation.labels.report, twinray.evaluation.diagnostics;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

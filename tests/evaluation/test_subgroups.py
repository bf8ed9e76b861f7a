from __future__ import annotations

import json

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.boxes import evaluate_boxes
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.report import compare_labels, evaluate_labels
from twinray.evaluation.record import read_split, split_as_json
from twinray.evaluation.subgroups import (
    By,
    group_names,
    parse_by,
    subgroups_of_boxes,
    subgroups_of_labels,
)
from twinray.records import Boxes


def made(seed, n=600, worse=0.0):
    """Two classes; in group b scores are mixed with chance by ``worse``."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 2)) < 0.3).astype(float)
    sex = np.where(np.arange(n) // 2 % 2 == 0, "a", "b")
    share = np.where(sex == "a", 0.3, 0.3 - worse)[:, None]
    return truth, share * truth + (1 - share) * rng.random((n, 2)), np.arange(n) // 2, sex


def test_a_groups_figures_are_those_of_its_images_alone():
    truth, scores, patients, sex = made(0)
    truth[:9] = np.nan
    by = {"sex": (sex.tolist(), ("a", "b"))}
    found = subgroups_of_labels(
        truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(300)
    ).subgroups()
    for group in "ab":
        rows = sex == group
        alone = evaluate_labels(
            truth[rows],
            scores[rows],
            "xy",
            "multilabel",
            patients[rows],
            resampling=Resampling(300),
        ).record()
        own = found.groups["sex"][group]
        assert own.counts["n_images"] == alone.counts["n_images"]
        for name, figure in alone.figures.items():
            assert own.figures[name].value == pytest.approx(figure.value, abs=1e-12)
            assert own.figures[name].ci95 == pytest.approx(figure.ci95, abs=0.05)
        assert own.per_class["x"].counts == alone.per_class["x"].counts


def test_a_gap_that_is_there_is_found_and_one_that_is_not_is_not():
    truth, scores, patients, sex = made(1, worse=0.25)
    by = {"sex": (sex.tolist(), ("a", "b"))}
    found = subgroups_of_labels(
        truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(400)
    ).subgroups()
    gap = next(g for g in found.gaps["sex"] if (g.class_name, g.measure) == (None, "auc"))
    groups = found.groups["sex"]
    assert gap.figure.value == pytest.approx(
        groups["a"].figures["auc"].value - groups["b"].figures["auc"].value
    )
    assert (gap.high, gap.low, gap.pairs) == ("a", "b", 1)
    assert gap.figure.ci95[0] > 0 and gap.figure.tests["p"] < 0.01


@pytest.mark.parametrize("groups", [2, 6])
def test_chance_alone_seldom_makes_a_gap(groups):
    """Largest of many differences: without allowing for that a quarter of these would be "significant" with six groups."""
    rng, found, held = np.random.default_rng(3), 0, 0
    for seed in range(60):
        truth, scores, patients, _ = made(seed + 10)
        of = np.repeat(rng.integers(0, groups, 300), 2).astype(str)
        by = {"site": (of.tolist(), tuple(sorted(set(of))))}
        result = subgroups_of_labels(
            truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(200, seed)
        ).subgroups()
        gap = next(g for g in result.gaps["site"] if (g.class_name, g.measure) == (None, "auc"))
        found += gap.figure.tests["p"] < 0.05
        held += gap.figure.ci95[0] <= 0
    assert found <= 9 and held >= 51


def test_two_groups_have_the_plain_difference():
    truth, scores, patients, sex = made(4)
    by = {"sex": (sex.tolist(), ("a", "b"))}
    result = subgroups_of_labels(
        truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(2000)
    ).subgroups()
    gap = next(g for g in result.gaps["sex"] if (g.class_name, g.measure) == (None, "brier"))
    errors = [
        (np.subtract(*f.ci95) / 3.92)
        for f in (result.groups["sex"][g].figures["brier"] for g in "ab")
    ]
    half = 1.96 * np.hypot(*errors)
    assert gap.figure.ci95[1] - gap.figure.value == pytest.approx(half, rel=0.1)


def test_groups_of_few_are_shown_and_not_compared():
    truth, scores, patients, sex = made(5)
    sex = sex.astype(object)
    sex[:6] = "other"
    truth[:6] = [[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]]
    by = {"sex": (sex.tolist(), ("a", "b", "other"))}
    result = subgroups_of_labels(
        truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(100)
    ).subgroups()
    other = result.groups["sex"]["other"]
    assert other.counts == {"n_images": 6, "n_patients": 3}
    assert (
        other.figures["average_precision"].ci95 is None
        and "too few" in other.figures["average_precision"].note
    )
    assert all(
        {g.high, g.low} == {"a", "b"}
        for g in result.gaps["sex"]
        if g.measure == "average_precision"
    )


def test_they_travel_in_metrics_json():
    truth, scores, patients, sex = made(6)
    by = {"sex": (sex.tolist(), ("a", "b"))}
    whole = evaluate_labels(
        truth, scores, "xy", "multilabel", patients, resampling=Resampling(20)
    ).record()
    result = subgroups_of_labels(
        truth, [scores], "xy", "multilabel", patients, by, resampling=Resampling(20)
    ).subgroups()
    raw = json.loads(json.dumps(split_as_json(result.beside(whole)), allow_nan=False))
    read = read_split(raw, "metrics.json")
    assert read.subgroups["sex"]["b"].figures["auc"] == result.groups["sex"]["b"].figures["auc"]
    assert read.details["gaps"]["sex"][0]["comparisons"] == 1


def test_detectors():
    rng = np.random.default_rng(7)
    truth, predictions, sites, patients = {}, {}, {}, {}
    for i in range(120):
        corner = rng.random((1, 2)) * 50
        box = np.hstack([corner, corner + 20])
        n = int(rng.random() < 0.7)
        truth[i] = Boxes(box[:n], np.zeros(n, dtype=np.int64))
        sites[i], patients[i] = ("near" if i % 2 else "far"), i // 2
        moved = box + (rng.random((1, 4)) * (4 if i % 2 else 16))
        predictions[i] = Boxes(moved, np.zeros(1, dtype=np.int64), rng.random(1))
    by = {"site": (sites, ("far", "near"))}
    found = subgroups_of_boxes(
        truth, [predictions], ("nodule",), patients, by, resampling=Resampling(300)
    ).subgroups()
    for site in ("far", "near"):
        own = {i: boxes for i, boxes in truth.items() if sites[i] == site}
        alone = evaluate_boxes(
            own,
            {i: predictions[i] for i in own},
            ("nodule",),
            {i: patients[i] for i in own},
            resampling=Resampling(0),
        ).record()
        assert found.groups["site"][site].figures["map50"].value == pytest.approx(
            alone.figures["map50"].value
        )
        assert found.groups["site"][site].counts["n_boxes"] == alone.counts["n_boxes"]
    gap = next(g for g in found.gaps["site"] if (g.class_name, g.measure) == (None, "map50"))
    assert gap.high == "near" and gap.figure.ci95[0] > 0


def test_what_to_group_by_is_read():
    assert parse_by(["sex", "age:0,40,60,80"]) == (By("sex"), By("age", (0, 40, 60, 80)))
    for wrong in ("", ":1", "age:", "age:b", "age:40,0", "age:1,1", "age:nan"):
        with pytest.raises(InputError, match="expected --by as an attribute"):
            parse_by([wrong])
    with pytest.raises(InputError, match="each attribute once"):
        parse_by(["age", "age:0,40"])


def test_groups_of_numbers():
    values = ["-1", "0", "39.9", "40", "058Y", "006M", "", None, float("nan"), "about 50", 81]
    names, order = group_names(By("age", (0, 40, 60)), values)
    assert names == [
        "under 0", "0 to <40", "0 to <40", "40 to <60", "40 to <60", "0 to <40",
        "unknown", "unknown", "unknown", "unknown", "60 and more",
    ]  # fmt: skip
    assert order == ("under 0", "0 to <40", "40 to <60", "60 and more", "unknown")


def test_groups_of_words():
    names, order = group_names(By("site"), ["site 10", "site 2", None, "site 2"])
    assert names == ["site 10", "site 2", "unknown", "site 2"]
    assert order == ("site 2", "site 10", "unknown")


@pytest.mark.parametrize(
    ("by", "values", "message"),
    [
        (By("sex"), [None, ""], "none of them states it"),
        (By("age"), list(map(str, range(40))), "give edges: --by age:0,40,60"),
        (By("sex", (0.0,)), ["F", "M"], "expected numbers in the attribute 'sex', got 'F'"),
    ],
)
def test_bad_attributes_are_refused(by, values, message):
    with pytest.raises(InputError, match=message):
        group_names(by, values)


def test_differences_within_groups_are_paired():
    truth, scores, patients, sex = made(8)
    better = np.clip(scores * 0.7 + truth * 0.3, 0, 1)
    by = {"sex": (sex.tolist(), ("a", "b"))}
    first, second = (
        subgroups_of_labels(
            truth, [table], "xy", "multilabel", patients, by, resampling=Resampling(300)
        )
        for table in (scores, better)
    )
    found = second.minus(first)["sex"]
    for group in "ab":
        rows = sex == group
        alone = compare_labels(
            truth[rows], scores[rows], better[rows], "xy", "multilabel", patients[rows], resampling=Resampling(300)
        ).record()  # fmt: skip
        for class_name in (None, "x"):
            own, expected = found[group].get("auc", class_name), alone.get("auc", class_name)
            assert own.value == pytest.approx(expected.value) and own.ci95 == pytest.approx(
                expected.ci95, abs=0.05
            )
            assert own.share_above_zero == 1
    assert first.minus(first)["sex"]["a"].figures["auc"].ci95 == (0, 0)


def test_figures_of_several_models_are_averaged():
    truth, scores, patients, sex = made(9)
    other = np.random.default_rng(0).random(scores.shape)
    by = {"sex": (sex.tolist(), ("a", "b"))}
    one, two, both = (
        subgroups_of_labels(
            truth, tables, "xy", "multilabel", patients, by, resampling=Resampling(50)
        ).subgroups()
        for tables in ([scores], [other], [scores, other])
    )
    values = [found.groups["sex"]["a"].figures["auc"].value for found in (one, two, both)]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)

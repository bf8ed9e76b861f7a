"""Runs over folds and seeds: the plain case is the plain evaluation, means are means, and what is not crossed is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.boxes import compare_boxes, evaluate_boxes
from twinray.evaluation.folds import (
    FoldRun,
    LabelRun,
    crossed_boxes,
    crossed_labels,
    over_runs,
)
from twinray.evaluation.intervals import NO_LUCK, Resampling, mean_over_seeds
from twinray.evaluation.labels.cutoffs import choose_label_thresholds
from twinray.evaluation.labels.report import compare_labels, evaluate_labels
from twinray.evaluation.record import figure_of
from twinray.records import Boxes

CLASSES = ("a", "b", "c", "d")


def worse(predictions: dict, seed: int) -> dict:
    """The same boxes with scores that say less."""
    rng = np.random.default_rng(seed)
    return {
        image: Boxes(
            boxes.xyxy, boxes.labels, 0.4 * boxes.scores + 0.6 * rng.uniform(size=len(boxes))
        )
        for image, boxes in predictions.items()
    }


def fold_run(simulate, fold: int, seed: int, arm: int) -> FoldRun:
    truth, predictions = simulate(fold, ids=[f"f{fold}i{i}" for i in range(25)])
    predictions = (
        worse(predictions, 10 * seed + fold) if arm == 0 else worse(worse(predictions, seed), fold)
    )
    patients = {image: f"f{fold}p{i // 2}" for i, image in enumerate(truth)}
    return FoldRun(fold, seed, truth, predictions, patients)


def test_one_fold_and_one_seed_is_the_plain_evaluation(simulate) -> None:
    first, second = fold_run(simulate, 0, 0, 0), fold_run(simulate, 0, 0, 1)
    report = crossed_boxes(
        {"first": [first], "second": [second]}, CLASSES, resampling=Resampling(200)
    )
    for name, run in (("first", first), ("second", second)):
        plain_report = evaluate_boxes(
            run.truth, run.predictions, CLASSES, run.patients, resampling=Resampling(200)
        )
        everything = plain_report.all_images
        plain = everything.metrics
        found = report.arm(name)
        for measure, interval in plain.items():
            assert report.arms[name].over_patients[None, measure].as_json() == interval.as_json()
        for i, class_name in enumerate(CLASSES):
            for measure, interval in everything.per_class[class_name].items():
                assert report.arms[name].over_patients[i, measure].as_json() == interval.as_json()
                if not np.isnan(interval.value):
                    assert found.get(measure, class_name).value == pytest.approx(interval.value)
            assert found.per_class[class_name].counts["n_boxes"] == everything.n_boxes[class_name]
        assert report.arms[name].over_seeds[None, "map50"].ci95 is None
        subset = (
            crossed_boxes({name: [run]}, CLASSES, images="with_boxes", resampling=Resampling(200))
            .arms[name]
            .over_patients
        )
        expected = {m: i.as_json() for m, i in plain_report.with_boxes.metrics.items()}
        assert {m: i.as_json() for (label, m), i in subset.items() if label is None} == expected
    compared = compare_boxes(
        first.truth,
        first.predictions,
        second.predictions,
        CLASSES,
        first.patients,
        resampling=Resampling(200),
    )
    found = report.differences["second"].over_patients
    for label, own in (
        (None, compared.metrics),
        *((i, compared.per_class[name]) for i, name in enumerate(CLASSES)),
    ):
        for measure, one in own.items():
            assert found[label, measure].as_json() == one.as_json()
            assert found[label, measure].tests == one.tests
    assert report.difference("second").details == compared.record().details


def test_figures_are_means_over_folds_and_seeds(simulate) -> None:
    arms = {
        name: [fold_run(simulate, fold, seed, arm) for seed in (0, 1, 2) for fold in (0, 1)]
        for arm, name in enumerate(("first", "second"))
    }
    report = crossed_boxes(arms, CLASSES, resampling=Resampling(300))
    assert (report.folds, report.seeds) == ((0, 1), (0, 1, 2))
    for name, runs in arms.items():
        values = np.array(
            [
                [
                    evaluate_boxes(r.truth, r.predictions, CLASSES, resampling=Resampling(0))
                    .all_images.metrics["map50"]
                    .value
                    for s in (0, 1, 2)
                    for r in runs
                    if (r.fold, r.seed) == (fold, s)
                ]
                for fold in (0, 1)
            ]
        )
        found = report.arms[name]
        np.testing.assert_allclose(found.runs[None, "map50"], values)
        assert found.over_patients[None, "map50"].value == pytest.approx(values.mean())
        assert (
            found.over_patients[None, "map50"].low
            < values.mean()
            < found.over_patients[None, "map50"].high
        )
        assert found.over_patients[None, "map50"].n == 26
        assert found.over_seeds[None, "map50"] == figure_of(
            mean_over_seeds(values.mean(axis=0)), "seeds"
        )
    difference, key = report.differences["second"], (None, "map50")
    expected = (
        report.arms["second"].over_patients[key].value
        - report.arms["first"].over_patients[key].value
    )
    assert difference.over_patients[key].interval.value == pytest.approx(expected)
    assert difference.over_seeds[key].value == pytest.approx(expected)
    again = crossed_boxes(arms, CLASSES, resampling=Resampling(300))
    assert again.difference("second") == report.difference("second")


def test_an_interval_over_folds_has_the_spread_of_the_mean_of_independent_folds(simulate) -> None:
    """Around the value, not moved by the resamples' own excess; what each fold's classes lack is added."""
    folds = range(4)
    runs = [fold_run(simulate, fold, 0, 0) for fold in folds]
    arm = (
        crossed_boxes({"one": runs}, CLASSES, resampling=Resampling(800))
        .arms["one"]
        .over_patients[None, "map50"]
    )
    alone = [
        evaluate_boxes(
            r.truth, r.predictions, CLASSES, r.patients, resampling=Resampling(800)
        ).all_images.metrics["map50"]
        for r in runs
    ]
    spread = np.sqrt(np.sum([((one.high - one.low) / 3.92) ** 2 for one in alone])) / len(folds)
    assert (arm.high - arm.low) / 3.92 == pytest.approx(spread, rel=0.15)
    assert (arm.high + arm.low) / 2 == pytest.approx(arm.value, abs=0.3 * spread)
    assert arm.value == pytest.approx(np.mean([one.value for one in alone]))
    assert arm.n == sum(one.n for one in alone)


def test_an_arm_compared_with_itself_does_not_differ(simulate) -> None:
    runs = [fold_run(simulate, fold, seed, 0) for seed in (0, 1) for fold in (0, 1, 2)]
    same = crossed_boxes(
        {"one": runs, "same": runs}, CLASSES, resampling=Resampling(100)
    ).differences["same"]
    there = {key for key, one in same.over_patients.items() if not np.isnan(one.interval.value)}
    assert len(there) > len(CLASSES) * 10
    for key in there:
        seeds, patients = same.over_seeds[key], same.over_patients[key].figure()
        assert (seeds.value, seeds.ci95, seeds.share_above_zero) == (0, None, 0)
        assert seeds.note == NO_LUCK
        assert (patients.value, patients.ci95, patients.share_above_zero) == (0, None, None)
        assert patients.note.startswith("too ")


def test_what_is_not_crossed_is_refused(simulate) -> None:
    runs = [fold_run(simulate, fold, seed, 0) for seed in (0, 1) for fold in (0, 1)]
    with pytest.raises(InputError, match="at least one run each"):
        crossed_boxes({"a": runs, "b": []}, CLASSES)
    with pytest.raises(InputError, match="fold 1, seed 1 is not in all"):
        crossed_boxes({"a": runs, "b": runs[:-1]}, CLASSES)
    with pytest.raises(InputError, match="several runs of fold 0, seed 0"):
        crossed_boxes({"a": [*runs, runs[0]]}, CLASSES)
    shared = dataclasses.replace(runs[1], patients=dict.fromkeys(runs[1].truth, "f0p3"))
    others = [dataclasses.replace(shared, seed=seed) for seed in (0, 1)]
    with pytest.raises(InputError, match="patient f0p3 is tested in folds 0 and 1"):
        crossed_boxes({"a": [runs[0], runs[2], *others]}, CLASSES)
    image = next(iter(runs[0].truth))
    moved = {**runs[0].truth, image: Boxes(np.array([[0.0, 0, 5, 5]]), np.array([0]))}
    with pytest.raises(
        InputError, match=r"arm b, fold 0, seed 0 was tested on other images or true boxes"
    ):
        crossed_boxes(
            {"a": runs, "b": [dataclasses.replace(runs[0], truth=moved), *runs[1:]]}, CLASSES
        )


def label_run(fold: int, seed: int, arm: int, n: int = 40) -> LabelRun:
    rng = np.random.default_rng(fold)
    truth = np.eye(2)[rng.integers(0, 2, n)]
    noise = np.random.default_rng(100 * arm + 10 * seed + fold).normal(0, 1 + arm, n)
    score = 1 / (1 + np.exp(-(2 * truth[:, 1] - 1 + noise)))
    images = tuple(f"f{fold}i{i}" for i in range(n))
    patients = tuple(None if i < 2 else f"f{fold}p{i // 3}" for i in range(n))
    return LabelRun(fold, seed, images, truth, np.stack([1 - score, score], axis=1), patients)


def test_classifiers_over_seeds_and_folds_are_means_of_the_runs_own_figures() -> None:
    arms = {
        name: [label_run(f, s, arm) for s in (0, 1, 2) for f in (0, 1)]
        for arm, name in enumerate(("first", "second"))
    }
    report = crossed_labels(arms, ("no", "yes"), "multiclass", resampling=Resampling(200))
    own = {
        name: np.array([
            [evaluate_labels(r.truth, r.scores, ("no", "yes"), "multiclass", r.patients, resampling=Resampling(0)).metrics["auc"].value
             for s in (0, 1, 2) for r in runs if (r.fold, r.seed) == (fold, s)]
            for fold in (0, 1)
        ])
        for name, runs in arms.items()
    }  # fmt: skip
    for name in arms:
        figure = report.arm(name).get("auc")
        np.testing.assert_allclose(np.array(figure.runs), own[name])
        assert figure.value == pytest.approx(own[name].mean())
        assert figure.over_seeds == figure_of(mean_over_seeds(own[name].mean(axis=0)), "seeds")
        assert figure.ci95[0] < figure.value < figure.ci95[1]
    difference = report.difference("second").get("auc")
    assert difference.value == pytest.approx((own["second"] - own["first"]).mean())
    assert difference.over_seeds.value == pytest.approx(difference.value)
    # images in another order are the same images
    turned = [
        dataclasses.replace(r, images=r.images[::-1], truth=r.truth[::-1], scores=r.scores[::-1])
        for r in arms["second"]
    ]
    again = crossed_labels(
        arms | {"second": turned}, ("no", "yes"), "multiclass", resampling=Resampling(200)
    )
    assert again.difference("second") == report.difference("second")
    one = crossed_labels(
        {"a": [label_run(0, 0, 0)]}, ("no", "yes"), "multiclass", resampling=Resampling(200)
    )
    run = label_run(0, 0, 0)
    plain = evaluate_labels(
        run.truth, run.scores, ("no", "yes"), "multiclass", run.patients, resampling=Resampling(200)
    )
    assert one.arms["a"].over_patients[None, "auc"].value == plain.metrics["auc"].value
    flipped = dataclasses.replace(arms["second"][0], truth=arms["second"][0].truth[:, ::-1])
    with pytest.raises(InputError, match="other images or labels"):
        crossed_labels(
            arms | {"second": [flipped, *arms["second"][1:]]}, ("no", "yes"), "multiclass"
        )


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_one_fold_and_one_seed_of_a_classifier_is_the_plain_evaluation(classes) -> None:
    """Intervals, notes, p and Holm's p: all as of one run, few patients included."""
    rng = np.random.default_rng(5)
    n, k = 90, len(classes)
    truth = np.eye(k)[rng.choice(k, n, p=[0.9, 0.1] if k == 2 else [0.6, 0.34, 0.06])]
    images = tuple(f"i{i}" for i in range(n))
    patients = tuple(f"p{i // 2}" for i in range(n))
    runs = []
    for _ in range(2):
        scores = np.exp(2 * truth + rng.normal(size=(n, k)))
        scores /= scores.sum(axis=1, keepdims=True)
        chosen = choose_label_thresholds(truth, scores, classes)
        runs.append(LabelRun(0, 0, images, truth, scores, patients, chosen))
    task, resampling = "multiclass", Resampling(150, 0)
    report = crossed_labels({"a": [runs[0]], "b": [runs[1]]}, classes, task, resampling=resampling)
    options = {"thresholds": runs[0].thresholds, "resampling": resampling}
    plain = evaluate_labels(truth, runs[0].scores, classes, task, patients, **options)
    for name, own in plain.metrics.items():
        assert report.arms["a"].over_patients[None, name] == own, name
    for c, of_class in enumerate(classes):
        for name, own in plain.per_class[of_class].items():
            found = report.arms["a"].over_patients[c, name]
            assert repr(found) == repr(own), (of_class, name)
    assert any(own.method for of in plain.per_class.values() for own in of.values())
    apart = compare_labels(
        truth, runs[0].scores, runs[1].scores, classes, task, patients,
        thresholds=(runs[0].thresholds, runs[1].thresholds), resampling=resampling,
    )  # fmt: skip
    crossed = report.differences["b"].over_patients
    for c, of_class in enumerate(classes):
        for name, own in apart.per_class[of_class].items():
            assert repr(crossed[c, name]) == repr(own), (of_class, name)
    assert report.difference("b").details["tests"]["comparisons"] == apart.n_comparisons


@pytest.mark.parametrize("folds", [1, 2])
def test_an_arms_interval_holds_its_own_figure(folds) -> None:
    """Of the calibration error too, which every resample makes larger."""
    rng = np.random.default_rng(3)
    runs = []
    for fold in range(folds):
        p = rng.uniform(0.02, 0.98, 400)
        present = rng.uniform(size=400) < p
        truth = np.stack([~present, present], axis=1).astype(np.float64)
        images = tuple(f"f{fold}i{i}" for i in range(400))
        runs += [
            LabelRun(fold, seed, images, truth, np.stack([1 - q, q], axis=1), images)
            for seed in (0, 1, 2)
            for q in [np.clip(p + rng.normal(0, 0.01, 400), 0, 1)]
        ]
    report = crossed_labels(
        {"a": runs}, ("no", "yes"), "multiclass", resampling=Resampling(300)
    ).arm("a")
    assert "ece" in report.figures
    for name, figure in report.figures.items():
        if figure.ci95 is not None:
            assert figure.ci95[0] <= figure.value <= figure.ci95[1], name


def test_several_kinds_of_luck_are_told_apart() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    assert over_runs(values, {}) == figure_of(mean_over_seeds(values), "seeds")
    together = {"pre-trainings": "abcdef", "label draws": (0, 1, 2, 3, 4, 5)}
    assert over_runs(values, together) == figure_of(mean_over_seeds(values), "seeds")
    crossed = {"pre-trainings": "aaabbb", "label draws": (0, 1, 2, 0, 1, 2)}
    figure = over_runs(values, crossed)
    assert (figure.over, figure.n, figure.value) == ("pre-trainings", 2, pytest.approx(0.4))
    assert figure.ci95 == pytest.approx(figure_of(mean_over_seeds([0.2, 0.6])).ci95)
    assert figure.by["label draws"].ci95 == pytest.approx(
        figure_of(mean_over_seeds([0.3, 0.4, 0.5])).ci95
    )
    assert over_runs(values, {"pre-trainings": "aaabbc"}) == figure_of(
        mean_over_seeds(values), "seeds"
    )

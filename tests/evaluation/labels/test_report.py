from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
    roc_curve,
)
from sklearn.metrics import (
    confusion_matrix as sklearn_confusion,
)

from twinray.errors import InputError
from twinray.evaluation.bounded import newcombe_auc
from twinray.evaluation.intervals import Resampling, expanded_p
from twinray.evaluation.labels.cutoffs import choose_label_thresholds
from twinray.evaluation.labels.data import Drawn, Labelled
from twinray.evaluation.labels.delong import auc_covariance, auc_freedom
from twinray.evaluation.labels.measures import figures
from twinray.evaluation.labels.ranking import auc_and_average_precision, rank
from twinray.evaluation.labels.report import (
    compare_labels,
    confusion_matrix,
    evaluate_labels,
    row_normalised,
)


def made(seed, n=200, k=4, decimals=None):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, k)) < 0.3).astype(float)
    scores = np.clip(truth * 0.2 + rng.random((n, k)) * 0.8, 0, 1)
    return truth, scores if decimals is None else np.round(scores, decimals)


def one_hot(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    return np.eye(k)[label], rng.dirichlet(np.ones(k), n) * 0.7 + 0.3 * np.eye(k)[label]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from([1, 2, None]))
def test_weighted_ranks_equal_scikit_learn(seed, n, decimals):
    rng = np.random.default_rng(seed)
    truth, scores = made(seed, n, 1, decimals)
    positive, weights = truth[:, 0] == 1, rng.integers(0, 4, n).astype(float)
    auc, average = auc_and_average_precision(
        rank(scores[:, 0], positive, np.arange(n)), weights[:, None]
    )
    used = weights > 0
    if len(set(positive[used])) == 2:
        assert auc[0] == pytest.approx(
            roc_auc_score(positive[used], scores[used, 0], sample_weight=weights[used]), abs=1e-12
        )
        expected = average_precision_score(
            positive[used], scores[used, 0], sample_weight=weights[used]
        )
        assert average[0] == pytest.approx(expected, abs=1e-12)
    else:
        assert np.isnan(auc[0])


@pytest.mark.parametrize("decimals", [None, 1])
def test_multilabel_figures_equal_scikit_learn(decimals):
    truth, scores = made(1, decimals=decimals)
    truth[3, 0], truth[5, 0], truth[7, 1] = np.nan, -1, np.nan
    report = evaluate_labels(truth, scores, "abcd", "multilabel", resampling=Resampling(0))
    expected = {"auc": [], "average_precision": [], "accuracy": [], "balanced_accuracy": []}
    for c in range(4):
        known = (truth[:, c] == 0) | (truth[:, c] == 1)
        y, s = truth[known, c], scores[known, c]
        expected["auc"].append(roc_auc_score(y, s))
        expected["average_precision"].append(average_precision_score(y, s))
        expected["accuracy"].append(accuracy_score(y, s >= 0.5))
        expected["balanced_accuracy"].append(balanced_accuracy_score(y, s >= 0.5))
    for name, values in expected.items():
        assert report.metrics[name].value == pytest.approx(np.mean(values), abs=1e-12)
        for c, value in zip("abcd", values, strict=True):
            assert report.per_class[c][name].value == pytest.approx(value, abs=1e-12)
    assert report.n_positive["a"] + report.n_negative["a"] == 198


def test_multiclass_figures_equal_scikit_learn():
    truth, scores = one_hot(2)
    report = evaluate_labels(truth, scores, "abcd", "multiclass", resampling=Resampling(0))
    label, decided = truth.argmax(1), scores.argmax(1)
    assert report.metrics["accuracy"].value == pytest.approx(accuracy_score(label, decided))
    assert report.metrics["balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(label, decided)
    )
    assert report.metrics["auc"].value == pytest.approx(
        roc_auc_score(label, scores, multi_class="ovr"), abs=1e-12
    )
    assert report.metrics["average_precision"].value == pytest.approx(
        average_precision_score(truth, scores), abs=1e-12
    )
    assert np.array_equal(report.confusion, sklearn_confusion(label, decided))
    np.testing.assert_allclose(
        row_normalised(report.confusion), sklearn_confusion(label, decided, normalize="true")
    )
    assert report.per_class["b"]["recall"].value == pytest.approx(
        row_normalised(report.confusion)[1, 1]
    )


def test_of_two_classes_the_second_is_the_positive_one():
    truth, scores = one_hot(3, k=2)
    scores[:, 0] = 0.5  # an unnormalised first column must not matter
    report = evaluate_labels(truth, scores, ("no", "yes"), "multiclass", resampling=Resampling(0))
    assert report.metrics["auc"].value == pytest.approx(roc_auc_score(truth[:, 1], scores[:, 1]))
    assert report.metrics["average_precision"].value == pytest.approx(
        average_precision_score(truth[:, 1], scores[:, 1])
    )


def test_classes_of_one_kind_are_left_out_and_named():
    truth, scores = made(4)
    truth[:, 2], truth[:, 3] = 0, np.nan
    report = evaluate_labels(truth, scores, "abcd", "multilabel", resampling=Resampling(30))
    assert report.left_out == ("c", "d")
    assert report.as_json()["per_class"]["c"]["auc"] == {
        "value": None,
        "ci95": None,
        "n": 200,
        "over": "patients",
    }
    both = [roc_auc_score(truth[:, c], scores[:, c]) for c in (0, 1)]
    assert report.metrics["auc"].value == pytest.approx(np.mean(both))
    both = [average_precision_score(truth[:, c], scores[:, c]) for c in (0, 1)]
    assert report.metrics["average_precision"].value == pytest.approx(np.mean(both))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_intervals_equal_a_plain_bootstrap(task):
    truth, scores = made(5) if task == "multilabel" else one_hot(5)
    patients = [f"p{i // 4}" for i in range(200)]
    report = evaluate_labels(truth, scores, "abcd", task, patients, resampling=Resampling(1000, 1))
    rng, values = np.random.default_rng(9), []
    for _ in range(250):
        rows = (rng.integers(0, 50, 50)[:, None] * 4 + np.arange(4)).ravel()
        values.append(np.mean([roc_auc_score(truth[rows, c], scores[rows, c]) for c in range(4)]))
    low, high = np.percentile(values, [2.5, 97.5])
    interval = report.metrics["auc"]
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=0.015),
        pytest.approx(high, abs=0.015),
    )
    assert interval.n == 50
    for figure in report.metrics.values():
        assert figure.low <= figure.value <= figure.high


def test_order_of_images_does_not_matter():
    truth, scores = made(6, decimals=1)
    patients = np.array([f"p{i % 30}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    first = evaluate_labels(
        truth, scores, "abcd", "multilabel", patients, resampling=Resampling(20)
    )
    again = evaluate_labels(
        truth[order],
        scores[order],
        "abcd",
        "multilabel",
        patients[order],
        resampling=Resampling(20),
    )
    for name, interval in first.metrics.items():
        other = again.metrics[name]
        assert (interval.value, interval.low, interval.high) == pytest.approx(
            (other.value, other.low, other.high), abs=1e-12
        )


def test_same_seed_same_json_without_nan():
    truth, scores = made(7)
    texts = [
        json.dumps(
            evaluate_labels(
                truth, scores, "abcd", "multilabel", resampling=Resampling(20, s)
            ).as_json(),
            allow_nan=False,
        )
        for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_unlabelled_images_are_left_out_of_multiclass():
    truth, scores = one_hot(8)
    truth[:10] = np.nan
    report = evaluate_labels(truth, scores, "abcd", "multiclass", resampling=Resampling(0))
    assert report.n_images == 190
    assert report.metrics["accuracy"].value == pytest.approx(
        np.mean(truth[10:].argmax(1) == scores[10:].argmax(1))
    )


def test_comparison():
    truth, scores = made(9)
    same = compare_labels(truth, scores, scores, "abcd", "multilabel", resampling=Resampling(30))
    assert same.metrics["auc"].as_json() == {
        "value": 0.0,
        "ci95": [0.0, 0.0],
        "n": 200,
        "over": "patients",
        "share_above_zero": 0.0,
        "tests": {"p": 1.0},
    }
    better = compare_labels(
        truth, scores, truth * 0.5 + scores * 0.5, "abcd", "multilabel", resampling=Resampling(30)
    )
    assert better.metrics["auc"].share_above_zero == 1.0
    assert set(better.as_json()["per_class"]) == set("abcd")


def test_confusion_row_of_an_absent_class_is_nan():
    table = confusion_matrix(np.eye(3)[[0, 0, 2]], np.eye(3)[[0, 1, 2]])
    assert table.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert np.isnan(row_normalised(table)[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, s: (t, np.where(np.arange(len(s))[:, None] == 3, np.nan, s)),
            "scores in 0..1, image 3 class 'a' has nan",
        ),
        (lambda t, s: (t, s * 2 + 1), "scores in 0..1"),
        (lambda t, s: (t + 5, s), "labels 1, 0, -1 or NaN"),
        (lambda t, s: (t, s[:, :3]), "compare the class lists"),
        (lambda t, s: (t, s[:5]), "scores of 200 images, got 5"),
        (lambda t, s: (t * np.nan, s), "at least one image with a label"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    truth, scores = change(*made(10))
    with pytest.raises(InputError, match=message) as caught:
        evaluate_labels(truth, scores, "abcd", "multilabel")
    assert "\n" not in str(caught.value)


def test_several_classes_or_no_task_are_refused():
    truth, scores = one_hot(11)
    truth[4] = 1
    with pytest.raises(InputError, match="exactly one class for image 4"):
        evaluate_labels(truth, scores, "abcd", "multiclass")
    with pytest.raises(InputError, match="multiclass or multilabel"):
        evaluate_labels(truth, scores, "abcd", "none")


def test_brier_f1_and_sensitivity_equal_scikit_learn():
    truth, scores = made(12, decimals=2)
    report = evaluate_labels(truth, scores, "abcd", "multilabel", resampling=Resampling(0))
    for c, name in enumerate("abcd"):
        own = report.per_class[name]
        assert own["brier"].value == pytest.approx(
            brier_score_loss(truth[:, c], scores[:, c]), abs=1e-12
        )
        false, true, _ = roc_curve(truth[:, c], scores[:, c], drop_intermediate=False)
        for specificity in (0.9, 0.95):
            best = true[false <= 1 - specificity + 1e-12].max()
            assert own[f"sensitivity@{100 * specificity:g}"].value == pytest.approx(best, abs=1e-12)
    label, scores = one_hot(12)
    report = evaluate_labels(label, scores, "abcd", "multiclass", resampling=Resampling(0))
    assert report.metrics["brier"].value == pytest.approx(
        brier_score_loss(label.argmax(1), scores), abs=1e-12
    )
    expected = f1_score(label.argmax(1), scores.argmax(1), average="macro")
    assert report.metrics["macro_f1"].value == pytest.approx(expected, abs=1e-12)


def test_two_classes_have_the_brier_score_of_the_second():
    truth, scores = one_hot(13, k=2)
    report = evaluate_labels(truth, scores, ("no", "yes"), "multiclass", resampling=Resampling(0))
    assert report.metrics["brier"].value == pytest.approx(
        brier_score_loss(truth[:, 1], scores[:, 1]), abs=1e-12
    )


def test_decisions_use_the_thresholds_of_other_images_and_equal_scikit_learn():
    truth, scores = made(14, n=400)
    val, test = slice(0, 150), slice(150, 400)
    chosen = choose_label_thresholds(truth[val], scores[val], "abcd")
    report = evaluate_labels(
        truth[test], scores[test], "abcd", "multilabel", thresholds=chosen, resampling=Resampling(0)
    )
    for c, name in enumerate("abcd"):
        own, y = report.per_class[name], truth[test][:, c]
        by_f1 = scores[test][:, c] >= chosen.of("f1")[c]
        called = scores[test][:, c] >= chosen.of("youden")[c]
        table = sklearn_confusion(y, called)
        (tn, fp), (fn, tp) = table
        assert own["f1"].value == pytest.approx(f1_score(y, by_f1))
        assert own["youden"].value == pytest.approx(2 * balanced_accuracy_score(y, called) - 1)
        figures = [own[name].value for name in ("sensitivity", "specificity", "ppv", "npv")]
        assert figures == pytest.approx(
            [tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)]
        )
        decided = report.decisions[name]
        assert [decided[k] for k in ("true_negative", "false_positive", "false_negative", "true_positive")] == [
            tn, fp, fn, tp,
        ]  # fmt: skip
        assert decided["rule"] == "youden" and decided["threshold"] == chosen.of("youden")[c]


def test_without_thresholds_no_figure_needs_one():
    truth, scores = made(15)
    report = evaluate_labels(truth, scores, "abcd", "multilabel", resampling=Resampling(0))
    assert not {"f1", "youden", "sensitivity", "ppv"} & set(report.metrics)
    assert report.decisions["a"]["rule"] == "fixed"


def test_three_of_three_are_not_certain():
    truth, scores = made(16)
    truth[:, 0] = 0
    truth[:3, 0], scores[:3, 0] = 1, 0.99
    scores[3:, 0] *= 0.9
    report = evaluate_labels(truth, scores, "abcd", "multilabel", resampling=Resampling(200))
    assert report.few == ("a",)
    area = report.per_class["a"]["auc"]
    assert area.value == 1 and area.high == 1
    assert area.low == pytest.approx(newcombe_auc(1.0, 3, 197)[0]) and area.low < 0.75
    found = report.per_class["a"]["sensitivity@90"]
    assert (found.value, found.low, found.high) == (1, pytest.approx(0.025 ** (1 / 3)), 1)
    average = report.per_class["a"]["average_precision"]
    assert average.value == 1 and average.low is None and "too few to say" in average.method
    assert report.as_json()["per_class"]["a"]["average_precision"]["note"].startswith(
        "too few to say"
    )
    compared = compare_labels(
        truth, scores, scores * 0.9, "abcd", "multilabel", resampling=Resampling(50)
    )
    assert compared.per_class["a"]["auc"].interval.low is None


def test_a_perfect_score_of_many_has_an_interval():
    truth = made(17)[0]
    report = evaluate_labels(
        truth, truth * 0.8 + 0.1, "abcd", "multilabel", resampling=Resampling(50)
    )
    n = int(truth[:, 0].sum())
    own = report.per_class["a"]
    assert (
        own["auc"].low == pytest.approx(newcombe_auc(1.0, n, 200 - n)[0]) and own["auc"].high == 1
    )
    assert own["accuracy"].low == pytest.approx(0.025 ** (1 / 200))
    assert own["average_precision"].low is None and own["average_precision"].method


def test_interval_of_auc_is_on_the_logit_scale_with_the_bootstraps_spread():
    truth, scores = made(18, k=1)
    report = evaluate_labels(truth, scores, "a", "multilabel", resampling=Resampling(2000))
    value = report.per_class["a"]["auc"]
    variance = auc_covariance(scores[:, 0], truth[:, 0] == 1, np.arange(200)).covariance[0, 0]
    half = (
        stats.t.ppf(0.975, auc_freedom(scores[:, 0], truth[:, 0] == 1, np.arange(200)))
        * np.sqrt(variance)
        / (value.value * (1 - value.value))
    )
    ends = special.expit(special.logit(value.value) + np.array([-half, half]))
    assert (value.low, value.high) == pytest.approx(tuple(ends), abs=0.004)


def test_shares_of_the_confusion_matrix_have_intervals():
    truth, scores = one_hot(19)
    report = evaluate_labels(truth, scores, "abcd", "multiclass", resampling=Resampling(200))
    shares = row_normalised(report.confusion)
    for i in range(4):
        for j in range(4):
            cell = report.confusion_share[i][j]
            assert cell.value == pytest.approx(shares[i, j]) and cell.low <= cell.value <= cell.high
        recall = report.per_class["abcd"[i]]["recall"]
        own = report.confusion_share[i][i]
        assert (own.value, own.low, own.high) == (recall.value, recall.low, recall.high)


def test_a_difference_that_no_resample_changes_has_no_interval_without_width():
    """One model is right and one wrong of every image of a class in each resample: nobody knows of other patients."""
    truth = np.eye(3)[np.arange(48) % 3]
    sure = truth * 0.9
    turned = sure.copy()
    turned[:, [0, 1]] = sure[:, [1, 0]]
    found = compare_labels(truth, sure, turned, "abc", "multiclass", resampling=Resampling(100))
    interval = found.metrics["balanced_accuracy"].interval
    assert interval.value == pytest.approx(-2 / 3)
    assert interval.low is None and interval.high is None and "too even" in interval.method
    same = compare_labels(truth, sure, sure, "abc", "multiclass", resampling=Resampling(100))
    own = same.metrics["balanced_accuracy"].interval
    assert (own.value, own.low, own.high) == (0, 0, 0)


def test_tests_are_corrected_over_classes():
    truth, scores = made(20)
    other = scores.copy()
    other[:, 0] = np.clip(0.5 * truth[:, 0] + 0.5 * scores[:, 0], 0, 1)
    found = compare_labels(truth, scores, other, "abcd", "multilabel", resampling=Resampling(199))
    record = found.as_json()
    assert record["tests"]["comparisons"] == 4
    first = record["per_class"]["a"]["auc"]["tests"]
    rarer = int(min(truth[:, 0].sum(), 200 - truth[:, 0].sum()))
    least = expanded_p(2 / 200, rarer)
    assert first["p"] == pytest.approx(least) and first["holm_p"] == pytest.approx(4 * least)
    assert (
        first["delong_holm_p"] == pytest.approx(min(4 * first["delong_p"], 1))
        and first["delong_p"] < 1e-6
    )
    # what 80 of 100 studies would show, by DeLong's standard error: 1.96 + 0.84 of them, and a little for Student's t
    error = found.delong["a"][0].standard_errors[2]
    assert 2.5 * error < first["detectable"] < 3.2 * error
    assert record["per_class"]["b"]["auc"]["tests"] == {
        "p": 1.0,
        "holm_p": 1.0,
        "delong_p": 1.0,
        "delong_holm_p": 1.0,
    }
    two = compare_labels(
        *one_hot(21, k=2),
        one_hot(22, k=2)[1],
        ("no", "yes"),
        "multiclass",
        resampling=Resampling(50),
    )
    assert two.n_comparisons == 1  # the first class mirrors the second


def test_delongs_test_is_withheld_where_patients_are_few():
    """Of 90 patients 20 have the class: the resamples' p alone."""
    truth, scores = made(20)
    other = np.clip(scores + 0.1 * np.random.default_rng(0).normal(size=scores.shape), 0, 1)
    truth[:, 1] = (np.arange(200) % 90 < 20).astype(float)
    found = compare_labels(
        truth, scores, other, "abcd", "multilabel", np.arange(200) % 90, resampling=Resampling(100)
    ).as_json()
    few = found["per_class"]["b"]
    assert few["auc"]["tests"]["delong_p"] is None and few["auc"]["tests"]["p"] is not None
    assert few["delong"]["ci95"] is None and "20 patients" in few["delong"]["note"]
    many = [own for name, own in found["per_class"].items() if name != "b"]
    assert all(own["auc"]["tests"]["delong_p"] is not None for own in many)
    assert found["tests"]["comparisons"] == 4


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_weights_are_copies_of_patients(task):
    """A patient of weight 2 counts as two patients with the same images, in every measure."""
    truth, scores = made(23, n=120, decimals=1) if task == "multilabel" else one_hot(23, n=120)
    patients = np.arange(120) // 3
    thresholds = choose_label_thresholds(*made(24), "abcd")
    weights = np.random.default_rng(0).integers(0, 3, 40)
    rows = np.concatenate(
        [np.flatnonzero(patients == p) for p, w in enumerate(weights) for _ in range(w)]
    )
    data = Labelled.of(truth, scores, "abcd", task, patients, thresholds)
    weighed = figures(Drawn(data, weights[:, None].astype(float)))
    copied = Labelled.of(truth[rows], scores[rows], "abcd", task, np.arange(len(rows)), thresholds)
    plain = figures(Drawn(copied, np.ones((copied.n_groups, 1))))
    assert set(weighed) == set(plain) and len(plain) > 30
    for key, value in plain.items():
        assert weighed[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key


@pytest.mark.long
def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    """500 simulated studies of patients with several images each, the true AUC known in closed form."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    path = Path(__file__).parents[3] / "benchmarks" / "interval_coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    design = benchmark.LabelDesign(400, (0.15,), 1.2)
    found = benchmark.label_studies(design, studies=500, bootstrap=400, population=100_000)
    assert found["auc"]["truth"] == pytest.approx(0.8019, abs=1e-4)
    held = {name: one["held"] / one["printed"] for name, one in found.items()}
    assert 0.93 <= held["auc"] <= 0.97
    for name in (
        "auc difference",
        "auc difference delong",
        "average_precision",
        "accuracy",
        "youden",
        "brier",
        "ece",
    ):
        assert 0.9 <= held[name] <= 0.99, name


def test_a_class_without_a_negative_has_no_figure() -> None:
    """All labels are 1, and so is whatever a classifier says: no figure may call that perfect."""
    rng = np.random.default_rng(0)
    truth = np.stack([np.ones(60), rng.integers(0, 2, 60)], axis=1)
    truth[:30, 0] = np.nan
    scores = np.stack([np.full(60, 0.999), rng.random(60)], axis=1)
    both = evaluate_labels(truth, scores, ("No Finding", "Edema"), "multilabel")
    assert all(np.isnan(figure.value) for figure in both.per_class["No Finding"].values())
    assert both.left_out == ("No Finding",)
    alone = evaluate_labels(truth[:, 1:], scores[:, 1:], ("Edema",), "multilabel")
    for name, figure in both.metrics.items():
        assert figure.value == pytest.approx(alone.metrics[name].value), name
    never = evaluate_labels(truth[30:, :1], scores[30:, :1], ("No Finding",), "multilabel")
    assert all(np.isnan(figure.value) for figure in never.metrics.values())

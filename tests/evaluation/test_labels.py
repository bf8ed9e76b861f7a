from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
)
from sklearn.metrics import (
    confusion_matrix as sklearn_confusion,
)

from twinray.errors import InputError
from twinray.evaluation.labels import compare_labels, confusion_matrix, evaluate_labels, row_normalised
from twinray.evaluation.ranking import auc_and_average_precision, rank


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
    auc, average = auc_and_average_precision(rank(scores[:, 0], positive, np.arange(n)), weights[:, None])
    used = weights > 0
    if len(set(positive[used])) == 2:
        assert auc[0] == pytest.approx(
            roc_auc_score(positive[used], scores[used, 0], sample_weight=weights[used]), abs=1e-12
        )
        expected = average_precision_score(positive[used], scores[used, 0], sample_weight=weights[used])
        assert average[0] == pytest.approx(expected, abs=1e-12)
    else:
        assert np.isnan(auc[0])


@pytest.mark.parametrize("decimals", [None, 1])
def test_multilabel_figures_equal_scikit_learn(decimals):
    truth, scores = made(1, decimals=decimals)
    truth[3, 0], truth[5, 0], truth[7, 1] = np.nan, -1, np.nan
    report = evaluate_labels(truth, scores, "abcd", "multilabel", bootstrap=0)
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
    report = evaluate_labels(truth, scores, "abcd", "multiclass", bootstrap=0)
    label, decided = truth.argmax(1), scores.argmax(1)
    assert report.metrics["accuracy"].value == pytest.approx(accuracy_score(label, decided))
    assert report.metrics["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(label, decided))
    assert report.metrics["auc"].value == pytest.approx(roc_auc_score(label, scores, multi_class="ovr"), abs=1e-12)
    assert report.metrics["average_precision"].value == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert np.array_equal(report.confusion, sklearn_confusion(label, decided))
    np.testing.assert_allclose(row_normalised(report.confusion), sklearn_confusion(label, decided, normalize="true"))
    assert report.per_class["b"]["recall"].value == pytest.approx(row_normalised(report.confusion)[1, 1])


def test_of_two_classes_the_second_is_the_positive_one():
    truth, scores = one_hot(3, k=2)
    scores[:, 0] = 0.5  # an unnormalised first column must not matter
    report = evaluate_labels(truth, scores, ("no", "yes"), "multiclass", bootstrap=0)
    assert report.metrics["auc"].value == pytest.approx(roc_auc_score(truth[:, 1], scores[:, 1]))
    assert report.metrics["average_precision"].value == pytest.approx(
        average_precision_score(truth[:, 1], scores[:, 1])
    )


def test_classes_of_one_kind_are_left_out_and_named():
    truth, scores = made(4)
    truth[:, 2], truth[:, 3] = 0, np.nan
    report = evaluate_labels(truth, scores, "abcd", "multilabel", bootstrap=30)
    assert report.left_out == ("c", "d")
    assert report.as_json()["per_class"]["c"]["auc"] == {"value": None, "ci95": None, "n": 200, "over": "patients"}
    both = [roc_auc_score(truth[:, c], scores[:, c]) for c in (0, 1)]
    assert report.metrics["auc"].value == pytest.approx(np.mean(both))
    both = [average_precision_score(truth[:, c], scores[:, c]) for c in (0, 1)]
    assert report.metrics["average_precision"].value == pytest.approx(np.mean(both))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_intervals_equal_a_plain_bootstrap(task):
    truth, scores = made(5) if task == "multilabel" else one_hot(5)
    patients = [f"p{i // 4}" for i in range(200)]
    report = evaluate_labels(truth, scores, "abcd", task, patients, bootstrap=1000, seed=1)
    rng, values = np.random.default_rng(9), []
    for _ in range(250):
        rows = (rng.integers(0, 50, 50)[:, None] * 4 + np.arange(4)).ravel()
        values.append(np.mean([roc_auc_score(truth[rows, c], scores[rows, c]) for c in range(4)]))
    low, high = np.percentile(values, [2.5, 97.5])
    interval = report.metrics["auc"]
    assert (interval.low, interval.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))
    assert interval.n == 50
    for figure in report.metrics.values():
        assert figure.low <= figure.value <= figure.high


def test_order_of_images_does_not_matter():
    truth, scores = made(6, decimals=1)
    patients = np.array([f"p{i % 30}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    first = evaluate_labels(truth, scores, "abcd", "multilabel", patients, bootstrap=20)
    again = evaluate_labels(truth[order], scores[order], "abcd", "multilabel", patients[order], bootstrap=20)
    for name, interval in first.metrics.items():
        other = again.metrics[name]
        assert (interval.value, interval.low, interval.high) == pytest.approx(
            (other.value, other.low, other.high), abs=1e-12
        )


def test_same_seed_same_json_without_nan():
    truth, scores = made(7)
    texts = [
        json.dumps(
            evaluate_labels(truth, scores, "abcd", "multilabel", bootstrap=20, seed=s).as_json(), allow_nan=False
        )
        for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_unlabelled_images_are_left_out_of_multiclass():
    truth, scores = one_hot(8)
    truth[:10] = np.nan
    report = evaluate_labels(truth, scores, "abcd", "multiclass", bootstrap=0)
    assert report.n_images == 190
    assert report.metrics["accuracy"].value == pytest.approx(np.mean(truth[10:].argmax(1) == scores[10:].argmax(1)))


def test_comparison():
    truth, scores = made(9)
    same = compare_labels(truth, scores, scores, "abcd", "multilabel", bootstrap=30)
    assert same.metrics["auc"].as_json() == {
        "value": 0.0,
        "ci95": [0.0, 0.0],
        "n": 200,
        "over": "patients",
        "share_above_zero": 0.0,
    }
    better = compare_labels(truth, scores, truth * 0.5 + scores * 0.5, "abcd", "multilabel", bootstrap=30)
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

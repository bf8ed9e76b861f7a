"""DeLong's test against published figures, and its clustered form against the bootstrap and against its own special cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from twinray.evaluation.labels.delong import auc_covariance, auc_freedom, delong_test

# Subarachnoid haemorrhage, 72 good and 41 poor outcomes by grade of the World Federation of Neurosurgical Societies: data
# and results as pROC publishes them.
GRADES = np.repeat([1, 2, 3, 4, 5, 1, 2, 3, 4, 5], [37, 20, 3, 8, 4, 2, 12, 1, 8, 18]).astype(float)
POOR = np.repeat([False, True], [72, 41])

# DeLong's worked toy of two scores: AUC 0.9375 and 0.80208333, their standard errors, covariance 0.00365823.
FIRST = np.array([0.9, 0.8, 0.8, 0.6, 0.4, 0.7, 0.1, 0.3, 0.4, 0.2, 0.6, 0.5, 0.35, 0.15])
SECOND = np.array([0.7, 0.9, 0.5, 0.3, 0.45, 0.6, 0.2, 0.5, 0.4, 0.1, 0.65, 0.3, 0.45, 0.25])
TOY = np.repeat([True, False], [6, 8])


def test_area_and_standard_error_are_those_published():
    found = auc_covariance(GRADES, POOR, np.arange(113))
    assert found.auc[0] == pytest.approx(0.82367886, abs=5e-9)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(0.03833947, abs=5e-9)
    assert not found.clustered


def test_paired_test():
    found = delong_test(SECOND, FIRST, TOY)
    assert found.difference == pytest.approx(0.13541667, abs=1e-8)
    assert found.standard_errors[:2] == pytest.approx((0.12180948, 0.06149994), abs=5e-9)
    assert (found.z, found.p) == pytest.approx((1.2737056, 0.2027678), abs=5e-8)
    assert found.method == "DeLong 1988"
    back = delong_test(FIRST, SECOND, TOY)
    assert (back.z, back.p, back.low) == pytest.approx((-found.z, found.p, -found.high))


def plain_covariance(scores, positive):
    """DeLong's formulas by two loops."""
    tables = []
    for s in scores:
        kernel = (s[positive][:, None] > s[~positive]) + 0.5 * (
            s[positive][:, None] == s[~positive]
        )
        tables.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    return sum(
        np.cov(np.stack([t[i] for t in tables])) / n
        for i, n in ((0, positive.sum()), (1, (~positive).sum()))
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(8, 60), st.sampled_from([1, None]))
def test_one_image_a_patient_is_delongs_variance(seed, n, decimals):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    scores = rng.normal(size=(2, n)) + positive
    scores = scores if decimals is None else scores.round(decimals)
    found = auc_covariance(scores, positive, rng.permutation(n))
    assert found.auc == pytest.approx([roc_auc_score(positive, s) for s in scores], abs=1e-12)
    np.testing.assert_allclose(found.covariance, plain_covariance(scores, positive), atol=1e-12)


def clustered(seed, patients=300, each=4):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), each)
    illness, habit = rng.normal(size=(2, patients))
    positive = 0.7 * illness[groups] + 0.7 * rng.normal(size=len(groups)) > 0.5
    shared = 0.8 * habit[groups]
    scores = np.stack([positive + shared + 0.6 * rng.normal(size=len(groups)) for _ in range(2)])
    return scores, positive, groups


def test_clustered_variance_is_that_of_a_bootstrap_of_patients():
    scores, positive, groups = clustered(0)
    found = auc_covariance(scores, positive, groups)
    rng, areas = np.random.default_rng(1), []
    for _ in range(400):
        rows = (rng.integers(0, 300, 300)[:, None] * 4 + np.arange(4)).ravel()
        areas.append([roc_auc_score(positive[rows], s[rows]) for s in scores])
    np.testing.assert_allclose(found.covariance, np.cov(np.array(areas).T), rtol=0.25)
    naive = auc_covariance(scores, positive, np.arange(len(positive)))
    assert found.clustered and found.covariance[0, 0] > 1.5 * naive.covariance[0, 0]
    assert delong_test(*scores, positive, groups).method.startswith("Obuchowski 1997")


def test_every_image_twice_is_no_news():
    """The variance of patients whose images are copies is that of the patients."""
    once = auc_covariance(FIRST, TOY, np.arange(14))
    twice = auc_covariance(np.tile(FIRST, 2), np.tile(TOY, 2), np.tile(np.arange(14), 2))
    np.testing.assert_allclose(twice.covariance, once.covariance, atol=1e-12)


def test_freedom_is_that_of_a_variance_of_such_kurtosis():
    """Placements of patients whose squares are alike have one less than their number; a few that make all have few."""
    positive = np.arange(60) < 30
    rng = np.random.default_rng(0)
    even = np.concatenate([rng.normal(1, 1, 30), rng.normal(0, 1, 30)])
    few = np.concatenate([np.full(30, 9.0), rng.random(30)])
    few[:2] = -1.0  # two positives of 30 lie below all negatives
    groups = np.arange(60)
    assert 15 < auc_freedom(even, positive, groups) <= 29
    # Two of 30 at -(1 - 1/15), 28 at 1/15: by hand.
    off = np.array([28 / 30] * 2 + [2 / 30] * 28)
    kurtosis = 30 * (off**4).sum() / (off**2).sum() ** 2
    assert auc_freedom(few, positive, groups) == pytest.approx(60 / (kurtosis - 1), rel=1e-9)
    # Every image twice is no news, and gaps between patients' numbers do no harm.
    twice = np.repeat(groups, 2)
    assert auc_freedom(even[twice], positive[twice], 3 * twice) == pytest.approx(
        auc_freedom(even, positive, groups)
    )
    assert auc_freedom(even, np.arange(60) == 0, groups) == 0
    assert auc_freedom(even, np.zeros(60, bool), groups) == 0
    assert auc_freedom(positive.astype(float), positive, groups) == 0


def test_equal_runs_do_not_differ():
    found = delong_test(FIRST, FIRST * 2 + 1, TOY)
    assert (found.difference, found.z, found.p) == (0, 0, 1)


def test_few_patients_have_a_difference_and_no_test():
    found = delong_test(SECOND, FIRST, TOY)
    assert found.known(40) == found
    few = found.known(39)
    assert few.difference == found.difference
    assert np.isnan([few.z, few.p, few.low, few.high]).all()
    assert few.as_json()["note"].startswith("too few for a normal law: 39 patients")
    assert few.as_json()["ci95"] is None and "note" not in found.as_json()


@pytest.mark.parametrize("positive", [np.zeros(5, bool), np.ones(5, bool), np.arange(5) == 0])
def test_no_test_without_two_of_each_kind(positive):
    found = delong_test(np.arange(5.0), np.arange(5.0)[::-1], positive)
    assert np.isnan(found.p) and found.as_json()["p"] is None and found.as_json()["ci95"] is None


def test_no_area_is_turned_round():
    assert auc_covariance(-GRADES, POOR, np.arange(113)).auc[0] == pytest.approx(
        1 - 0.82367886, abs=5e-9
    )


def test_a_perfect_ranking_beside_none_has_no_variance_and_no_test():
    """Both scores' placements are constant: z would be infinite, p 0, and JSON would refuse it."""
    positive = np.array([True, True, False, False])
    found = delong_test(np.zeros(4), positive.astype(float), positive)
    assert found.difference == pytest.approx(0.5)
    assert np.isnan([found.z, found.p, found.low, found.high]).all()
    kept = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert kept["difference"] == 0.5 and kept["ci95"] is None

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from twinray.errors import InputError
from twinray.evaluation.intervals import (
    bootstrap_groups,
    expanded_p,
    expanded_tails,
    group_index,
    mean_over_seeds,
    paired_difference,
    paired_over_seeds,
    percentile_interval,
)


def test_groups_number_patients_and_leave_unknown_ones_alone():
    index = group_index(["p2", None, "p1", "p2", "", float("nan")], ["a", "b", "c", "d", "e", "f"])
    assert index[0] == index[3]
    assert len(set(index.tolist())) == 5
    assert set(index.tolist()) == set(range(5))


def test_a_patient_named_like_an_image_is_not_that_image():
    index = group_index({"a": "b", "b": None}, ["a", "b"])
    assert index[0] != index[1]


@given(st.permutations([("a", "p"), ("b", "q"), ("c", None), ("d", "p")]))
def test_group_numbers_do_not_depend_on_the_order(pairs):
    ids = [image for image, _ in pairs]
    index = dict(zip(ids, group_index(dict(pairs), ids).tolist(), strict=True))
    assert index == {"a": 0, "b": 1, "c": 2, "d": 0}


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="image 'b' has no entry"):
        group_index({"a": "p"}, ["a", "b"])
    with pytest.raises(InputError, match="found 1"):
        group_index(["p"], ["a", "b"])


@pytest.mark.parametrize("chunk", [1, 7, 100, None])
def test_resamples_do_not_depend_on_the_chunk(chunk):
    groups = np.arange(11)
    whole = np.concatenate(list(bootstrap_groups(groups, 50, 3, chunk=50)), axis=1)
    pieces = np.concatenate(list(bootstrap_groups(groups, 50, 3, chunk=chunk)), axis=1)
    assert whole.shape == (11, 50)
    assert np.array_equal(whole, pieces)
    assert (whole.sum(axis=0) == 11).all()
    assert not np.array_equal(whole, np.concatenate(list(bootstrap_groups(groups, 50, 4)), axis=1))


def test_multiplicities_have_the_moments_of_the_bootstrap():
    drawn = np.concatenate(list(bootstrap_groups(np.arange(40), 5000, 0)), axis=1)
    assert drawn.mean() == 1.0
    assert drawn.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    assert (drawn == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, rel=0.02)


def test_no_or_negative_resamples():
    assert list(bootstrap_groups(np.arange(3), 0, 0)) == []
    assert list(bootstrap_groups(np.zeros(0, dtype=int), 5, 0)) == []
    with pytest.raises(InputError, match="got -1"):
        list(bootstrap_groups(np.arange(3), -1, 0))


@pytest.mark.parametrize("cases", [5, 12, 28, 400])
def test_expanded_percentiles_of_a_mean_are_students(cases):
    """A mean of so many values, resampled: the interval is that of Student's t, and p agrees with it."""
    values = np.random.default_rng(0).normal(0.3, 1, cases)
    error = values.std() / np.sqrt(cases)  # of the resamples of a bootstrap
    samples = values.mean() + error * stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
    found = percentile_interval(values.mean(), samples, cases, tails=expanded_tails(cases))
    theirs = stats.ttest_1samp(values, 0)
    ends = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == (
        pytest.approx(ends.low, abs=2e-3),
        pytest.approx(ends.high, abs=2e-3),
    )
    bootstrap = 2 * float(stats.norm.sf(abs(values.mean()) / error))
    assert expanded_p(bootstrap, cases) == pytest.approx(theirs.pvalue, rel=1e-6)
    assert expanded_tails(1) == expanded_tails(4, 4) == pytest.approx((2.5, 97.5))
    assert expanded_p(0.02, 1) == 0.02


def test_expanded_percentiles_of_folds_lack_one_patient_a_fold():
    """Mean of five means of 12 values each: Student's t of their pooled variance, 55 degrees of freedom."""
    folds = np.random.default_rng(1).normal(0.3, 1, (5, 12))
    value = folds.mean()
    error = np.sqrt((folds.var(axis=1) / 12).mean() / 5)  # of resamples within folds
    samples = value + error * stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
    found = percentile_interval(value, samples, 60, tails=expanded_tails(60, 5))
    pooled = np.sqrt(folds.var(axis=1, ddof=1).mean() / 60)
    ends = stats.t(55, value, pooled).interval(0.95)
    assert (found.low, found.high) == pytest.approx(ends, abs=2e-3)
    bootstrap = 2 * float(stats.norm.sf(value / error))
    assert expanded_p(bootstrap, 60, 5) == pytest.approx(
        2 * stats.t(55).sf(value / pooled), rel=1e-6
    )


def test_percentile_interval():
    samples = np.append(np.arange(101) / 100, np.nan)
    interval = percentile_interval(0.4, samples, 10)
    assert (interval.value, interval.low, interval.high, interval.n) == (
        0.4,
        pytest.approx(0.025),
        pytest.approx(0.975),
        10,
    )
    assert percentile_interval(0.4, samples, 1).low is None
    assert percentile_interval(0.4, np.full(5, np.nan), 9).low is None
    assert percentile_interval(float("nan"), samples, 9).as_json() == {
        "value": None,
        "ci95": None,
        "n": 9,
    }


def test_bootstrap_of_a_mean_covers_it():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        data = rng.normal(0.5, 1, 40)
        samples = np.concatenate(
            [data @ w / 40 for w in bootstrap_groups(np.arange(40), 200, seed)]
        )
        interval = percentile_interval(data.mean(), samples, 40)
        covered += interval.low <= 0.5 <= interval.high
    assert 175 <= covered <= 199


def test_student_t_over_seeds():
    interval = mean_over_seeds([1.0, 2.0, 3.0, 4.0])
    half = (
        3.182446305284263 * np.std([1, 2, 3, 4], ddof=1) / 2
    )  # t with 3 degrees of freedom, from a table
    assert (interval.value, interval.low, interval.high, interval.n) == (
        2.5,
        pytest.approx(2.5 - half),
        pytest.approx(2.5 + half),
        4,
    )
    assert mean_over_seeds([0.7]).as_json() == {"value": 0.7, "ci95": None, "n": 1}
    assert np.isnan(mean_over_seeds([0.7, float("nan")]).value)
    with pytest.raises(InputError, match="at least one run"):
        mean_over_seeds([])


def test_paired_differences():
    difference = paired_difference(
        0.2, 0.3, np.array([0.1, 0.2, 0.3, np.nan]), np.array([0.2, 0.2, 0.4, 0.5]), 4
    )
    assert difference.interval.value == pytest.approx(0.1)
    assert difference.share_above_zero == pytest.approx(2 / 3)
    assert (
        paired_difference(0.2, 0.3, np.zeros(3), np.ones(3), 1).as_json()["share_above_zero"]
        is None
    )
    with pytest.raises(ValueError, match="as many resamples"):
        paired_difference(0, 0, np.zeros(2), np.zeros(3), 4)


def test_paired_over_seeds_is_narrower_where_seeds_go_together():
    paired = paired_over_seeds([0.1, 0.5, 0.9], [0.2, 0.61, 1.0])
    assert paired.interval.value == pytest.approx(0.31 / 3)
    assert paired.interval.low > 0
    assert paired.share_above_zero == 1.0
    with pytest.raises(InputError, match="as many baseline as candidate"):
        paired_over_seeds([0.1], [0.2, 0.3])

"""Monotone label curves and their inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from twinray.errors import InputError
from twinray.evaluation.worth.label_curves import figure_at, isotonic, patients_for

N = np.array([100.0, 200, 400, 800])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 4)), min_size=1, max_size=8), st.booleans()
)
def test_isotonic_regression_is_scikit_learns(rows, weighted):
    y = np.array([v for v, _ in rows])
    w = np.array([v for _, v in rows]) if weighted else None
    theirs = IsotonicRegression().fit_transform(np.arange(len(y)), y, sample_weight=w)
    ours = isotonic(np.stack([y, y[::-1]]), w)
    np.testing.assert_allclose(ours[0], theirs, atol=1e-9)
    assert (np.diff(ours[1]) >= -1e-12).all()


def test_a_known_distance():
    fitted = isotonic(np.array([0.60, 0.66, 0.65, 0.72]))
    np.testing.assert_allclose(fitted, [0.60, 0.655, 0.655, 0.72])
    needed = patients_for(np.array(0.70), N, fitted)
    assert needed == pytest.approx(646.35, abs=5e-3) and needed / 200 == pytest.approx(
        3.2317, abs=5e-5
    )


def test_plateaus_and_ends():
    fitted = np.array([0.6, 0.655, 0.655, 0.72])
    found = patients_for(
        np.array([0.5, 0.6, 0.655, 0.6551, 0.72, 0.73]), N, np.tile(fitted, (6, 1))
    )
    assert found[0] == found[1] == -np.inf  # how few would do is not known
    assert found[2] == pytest.approx(200) and 400 < found[3] < 402
    assert found[4] == pytest.approx(800) and found[5] == np.inf
    flat = np.full(4, 0.7)
    assert patients_for(np.array(0.7), N, flat) == -np.inf
    assert patients_for(np.array(0.8), N, flat) == np.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=4), st.floats(100, 800))
def test_the_inverse_inverts(steps, n):
    fitted = np.cumsum(np.array(steps))
    level = figure_at(n, N, fitted)
    if level > fitted[0] + 1e-9:
        assert float(patients_for(level, N, fitted)) == pytest.approx(n, rel=1e-4)
    with pytest.raises(InputError, match="nothing is extrapolated"):
        figure_at(99, N, fitted)

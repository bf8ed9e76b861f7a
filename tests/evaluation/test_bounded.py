from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from twinray.evaluation.bounded import exact_share, logit_interval, newcombe_auc


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (8, 10), (20, 20), (3, 3), (1, 1)])
def test_exact_shares_equal_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="exact")
    assert exact_share(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("value", "m", "n", "low", "high"),
    [  # published by Newcombe's own calculator, through pROC's data
        (1.0, 10, 10, 0.800214, 1.0),
        (0.82367886, 41, 72, 0.726884, 0.888567),
        (0.61195799, 41, 72, 0.500772, 0.710784),
        (0.9375, 6, 8, 0.634943, 0.991050),
    ],
)
def test_newcombes_interval_is_the_published_one(value, m, n, low, high):
    assert newcombe_auc(value, m, n) == pytest.approx((low, high), abs=1e-6)
    mirrored = newcombe_auc(1 - value, m, n)
    assert value == 1 or mirrored[0] < 1 - value < mirrored[1]


def test_logit_interval():
    samples = 0.82367886 + 0.03833947 * np.array([-1, 1, -1, 1]) * np.sqrt(3 / 4)
    # With many degrees of freedom pROC's logit interval of the same standard error.
    assert logit_interval(0.82367886, samples, 10_000_000) == pytest.approx(
        (0.735764, 0.886842), abs=1e-5
    )
    assert logit_interval(1.0, samples, 10) is None
    assert logit_interval(0.8, np.full(5, 0.8), 10) is None

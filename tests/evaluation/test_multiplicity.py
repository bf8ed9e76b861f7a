"""Holm's correction against published and computed values, and over classes."""

from __future__ import annotations

import numpy as np
import pytest

from twinray.evaluation.intervals import Difference
from twinray.evaluation.multiplicity import comparisons, holm, over_classes
from twinray.records import Interval


def test_holm():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.04, np.nan, 0.9])) == pytest.approx([0.08, np.nan, 0.9], nan_ok=True)
    assert len(holm(np.array([]))) == 0


def with_p(**p: float) -> Difference:
    return Difference(Interval(0.1, 0.0, 0.2, 50), 0.9, dict(p))


def test_each_measure_is_a_family_and_untested_classes_do_not_count():
    per_class = {
        "a": {"ap50": with_p(p=0.01, detectable=0.3), "froc": with_p(p=0.5)},
        "b": {"ap50": with_p(p=0.04), "froc": with_p(p=0.01)},
        "c": {"ap50": with_p(), "froc": with_p(p=0.02)},
    }
    found = over_classes(per_class)
    assert found["a"]["ap50"].tests == {"p": 0.01, "detectable": 0.3, "holm_p": 0.02}
    assert found["b"]["ap50"].tests["holm_p"] == pytest.approx(0.04)
    assert found["c"]["ap50"].tests == {}
    assert [found[c]["froc"].tests["holm_p"] for c in "abc"] == pytest.approx([0.5, 0.03, 0.04])
    assert comparisons(found) == 3
    mirrored = over_classes(per_class, [True, False, False])
    assert mirrored["a"]["ap50"].tests["holm_p"] == 0.01 and mirrored["b"] == per_class["b"]


def test_with_equal_classes_the_family_errs_in_five_of_a_hundred():
    """14 equal classes: raw tests find something in half of all studies, corrected ones in at most 5 %."""
    p = np.random.default_rng(0).random((4000, 14))
    assert np.mean((p < 0.05).any(axis=1)) == pytest.approx(1 - 0.95**14, abs=0.03)
    assert np.mean([(holm(row) < 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.012)

"""Degrees of freedom behind a mean over classes, down to groups in which a class has no case at all."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from twinray.evaluation.intervals import expanded_p, expanded_tails
from twinray.evaluation.labels.measures import Behind

CLASSES = st.lists(
    st.tuples(
        st.floats(1e-9, 1.0),
        st.builds(Behind, st.integers(0, 50).map(float), st.integers(1, 5).map(float)),
    ),
    min_size=1,
    max_size=6,
)


@given(CLASSES)
def test_no_spread_is_taken_for_none_however_few_cases(classes):
    """A class without a case in a group of four patients divided by 0 and ended the report."""
    made = Behind.mean(classes)
    assert math.isfinite(made.cases) and made.freedom >= 1 - 1e-9 and made.grown >= 1
    low, high = expanded_tails(made.cases, made.lacking)
    assert 0 <= low < 2.5 and 97.5 < high <= 100  # percent; wider than the plain ones
    assert 0 < expanded_p(0.04, made.cases, made.lacking) <= 1
    most = sum(one.freedom for _, one in classes)
    assert made.freedom <= most * (1 + 1e-9)


def test_classes_of_one_spread_add_their_degrees_of_freedom():
    ten = Behind(11.0, 1.0)
    assert math.isclose(Behind.mean([(0.2, ten)]).freedom, 10)
    assert math.isclose(Behind.mean([(0.2, ten), (0.2, ten)]).freedom, 20)

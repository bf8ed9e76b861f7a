from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.evaluation.record import Figure
from twinray.report.numbers import (
    NOT_DEFINED,
    count,
    duration,
    interval,
    interval_of,
    number,
    seconds,
    signed,
    typeset,
    value_of,
)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf, "0.5", True])
def test_what_is_no_finite_number_reads_not_defined(missing: object) -> None:
    assert [
        number(missing),
        signed(missing),
        seconds(missing),
        count(missing),
        duration(missing),
    ] == [NOT_DEFINED] * 5


def test_numbers_intervals_and_signs() -> None:
    assert number(0.12345) == "0.123"
    assert number(-0.00001) == "0.000"
    assert signed(-0.00001) == "+0.000"
    assert signed(-0.1) == "-0.100"
    assert interval(Figure(0.3, (0.123, 0.456), 9)) == "0.123 to 0.456"
    assert interval(Figure(0.3, (-0.02, 0.1), 9), sign=True) == "-0.020 to +0.100"


@given(st.floats(-1e-3, 1e-3), st.integers(0, 4))
def test_nothing_that_reads_zero_has_a_minus_sign(value: float, digits: int) -> None:
    for text in (
        number(value, digits),
        signed(value, digits),
        interval(Figure(0.0, (value, value), 9), digits),
    ):
        assert not re.search(r"-0\.?0*(?![0-9.])", text), text
    assert number(-0.0) == "0.000" and signed(-0.0) == "+0.000"


@pytest.mark.parametrize("ends", [None, (math.nan, 0.2), (0.1, math.inf)])
def test_a_broken_interval_is_none(ends: tuple[float, float] | None) -> None:
    assert interval_of(Figure(0.3, ends, 1)) is None
    assert interval(Figure(0.3, ends, 1)) == NOT_DEFINED


def test_an_absent_figure_has_no_value() -> None:
    assert value_of(None) is None and value_of(Figure(None)) is None and interval_of(None) is None


def test_a_page_has_a_real_minus_sign_and_names_keep_their_hyphens() -> None:
    assert (
        typeset("-0.020 to +0.100, detect-3, 1e-5, -x (-0.1)")
        == "−0.020 to +0.100, detect-3, 1e-5, -x (−0.1)"
    )


def test_counts_and_times_read_naturally() -> None:
    assert count(1, "image") == "1 image"
    assert count(1234, "image") == "1,234 images"
    assert count(2, "box", "boxes") == "2 boxes"
    assert (seconds(0.42), seconds(95.4), duration(59), duration(125), duration(7260)) == (
        "0.4", "95", "59 s", "2 min 5 s", "2 h 1 min",
    )  # fmt: skip

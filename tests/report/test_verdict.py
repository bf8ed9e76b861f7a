from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from twinray.report.verdict import paired_verdict

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("value", "ends", "outcome", "words"),
    [
        (0.1, (0.02, 0.2), "higher", "did better"),
        (-0.1, (-0.2, -0.02), "lower", "did worse"),
        (0.1, (-0.02, 0.2), "open", "does not show a difference"),
        (0.1, (0.0, 0.2), "open", "does not show a difference"),
        (0.0, (0.0, 0.0), "open", "does not show a difference"),
        (0.1, (None, None), "unknown", "No interval"),
        (None, (None, None), "unknown", "cannot be compared"),
    ],
)
def test_the_interval_decides(
    figure: Make, value: float, ends: tuple[float, float], outcome: str, words: str
) -> None:
    verdict = paired_verdict(
        ("random", figure(0.3)), ("Barlow Twins", figure(0.4)), figure(value, *ends)
    )
    assert verdict.outcome == outcome and words in verdict.headline
    assert "0.400 (Barlow Twins) and 0.300 (random)" in verdict.reason
    assert not verdict.caution


def test_the_reason_names_the_interval(figure: Make) -> None:
    verdict = paired_verdict(("a", figure(0.3)), ("b", figure(0.4)), figure(0.1, -0.02, 0.2))
    assert "95 % interval -0.020 to +0.200: the interval includes 0" in verdict.reason


def test_detectors_that_learned_nothing_are_called_so(figure: Make) -> None:
    same = figure(0.0, 0.0, 0.0)
    assert paired_verdict(("a", figure(0.01)), ("b", figure(None)), same).caution.startswith(
        "Neither detector learned much"
    )
    assert (
        "of the arm a hardly learned"
        in paired_verdict(("a", figure(0.01)), ("b", figure(0.4)), same).caution
    )


def test_a_difference_larger_than_any_is_not_named(figure: Make) -> None:
    """Of 18 patients "only a difference of about 1.540 or more" was told of an area between 0 and 1."""
    for least, told in ((0.4, "about 0.400 or more"), (1.54, "no difference, however large")):
        open_ = replace(figure(0.1, -0.4, 0.6), tests={"detectable": least})
        reason = paired_verdict(("a", figure(0.5)), ("b", figure(0.6)), open_, "AUC").reason
        assert told in reason and "1.5" not in reason

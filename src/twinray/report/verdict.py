"""What a paired difference says, and does not say, in plain words computed from the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinray.evaluation.record import Figure
from twinray.report.numbers import finite, interval, interval_of, number, remark, signed, value_of

Outcome = Literal["higher", "lower", "open", "unknown"]
WHOLE = 1.0
"""What two models can differ by at most: main measures lie in 0..1."""
BARELY_LEARNED = 0.05
"""An mAP50 below this is next to nothing: a detector that learned too little to be compared."""


@dataclass(frozen=True)
class Verdict:
    """One sentence to remember and one to understand it.

    Attributes:
        outcome: candidate ``higher`` or ``lower``, ``open`` where the interval includes 0, ``unknown`` without interval.
        headline: the sentence to remember.
        reason: the figures behind it.
        caution: fact that limits it; empty where nothing more than the page's general cautions
            does.
    """

    outcome: Outcome
    headline: str
    reason: str
    caution: str = ""


def paired_verdict(
    baseline: tuple[str, Figure | None],
    candidate: tuple[str, Figure | None],
    difference: Figure | None,
    measure: str = "mAP50",
) -> Verdict:
    """Judge candidate against baseline by the 95 % interval of their paired difference.

    Args:
        baseline: name and figure of the arm to beat.
        candidate: name and figure of the other arm.
        difference: candidate minus baseline, with its interval.
        measure: name of what was measured; larger is better.
    """
    value, ends = value_of(difference), interval_of(difference)
    known = f"{measure}: {number(value_of(candidate[1]))} ({candidate[0]}) and {number(value_of(baseline[1]))} ({baseline[0]})"
    caution = _caution(baseline, candidate, measure)
    if value is None:
        return Verdict(
            "unknown",
            "The two arms cannot be compared.",
            f"{known}: the difference does not exist.",
            caution,
        )
    told = f"{known}; paired difference {signed(value)}"
    if ends is None:
        why = remark(difference) or "too few patients for an interval"
        return Verdict("unknown", "No interval, so no verdict.", f"{told}; {why}.", caution)
    told += f", 95 % interval {interval(difference, sign=True)}"
    if ends[0] > 0:
        headline = f"On these test images, {candidate[0]} did better than {baseline[0]}."
        return Verdict("higher", headline, f"{told}: the whole interval lies above 0.", caution)
    if ends[1] < 0:
        headline = f"On these test images, {candidate[0]} did worse than {baseline[0]}."
        return Verdict("lower", headline, f"{told}: the whole interval lies below 0.", caution)
    headline = "This run does not show a difference between the two arms."
    return Verdict(
        "open", headline, f"{told}: the interval includes 0.{not_shown(difference)}", caution
    )


def not_shown(difference: Figure | None, digits: int = 3) -> str:
    """That a difference that is not shown may be there, and how large it would have to be to be seen; empty where unknown."""
    least = None if difference is None else finite(difference.tests.get("detectable"))
    if least is None:
        return ""
    if least >= WHOLE:
        return " That is no proof that there is none: no difference, however large, would have been shown in 80 of 100 studies like this one."
    return (
        f" That is no proof that there is none: in 80 of 100 studies like this one, only a difference of about "
        f"{number(least, digits)} or more would have been shown."
    )


def _caution(
    baseline: tuple[str, Figure | None], candidate: tuple[str, Figure | None], measure: str
) -> str:
    weak = [
        name for name, figure in (baseline, candidate) if (value_of(figure) or 0.0) < BARELY_LEARNED
    ]
    if not weak:
        return ""
    who = "Neither detector" if len(weak) == 2 else f"The detector of the arm {weak[0]}"
    verb = "learned" if len(weak) == 2 else "hardly learned"
    what = "much" if len(weak) == 2 else "anything"
    return f"{who} {verb} {what} ({measure} below {BARELY_LEARNED}): train longer or on more images before you compare."

"""Many comparisons at once: Holm's correction of one measure's tests over the classes.

With 14 classes and no difference anywhere, at least one 95 % interval leaves 0 out in about half of
all studies. The share is 1 - 0.95^14 = 51 % if the classes were independent. Intervals are reported
as they are, not corrected; beside them stands the corrected p, with the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinray.evaluation.intervals import Difference
from twinray.records import FloatArray

_Array: TypeAlias = npt.NDArray[np.float64]
ByClass: TypeAlias = Mapping[str, Mapping[str, Difference]]


def holm(p: FloatArray) -> _Array:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 1979).

    Args:
        p: (m,) of one family, fixed before looking; NaN for tests that were not possible, which do not count.

    Returns:
        (m,) adjusted values, in the same order, at most 1; NaN where ``p`` is.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def over_classes(
    per_class: ByClass, counted: Sequence[bool] | None = None
) -> dict[str, dict[str, Difference]]:
    """Each measure's ``p`` with ``holm_p`` over the classes beside it.

    Args:
        per_class: class name -> measure -> difference.
        counted: (k,) whether a class is a comparison of its own; one that mirrors another is not. All if None.
    """
    result = {name: dict(own) for name, own in per_class.items()}
    family = [
        name for name, counts in zip(result, counted or [True] * len(result), strict=True) if counts
    ]
    for measure in dict.fromkeys(m for name in family for m in result[name]):
        own = {name: result[name][measure] for name in family if measure in result[name]}
        tested = {name: p for name, one in own.items() if (p := one.tests.get("p")) is not None}
        for (name, _), value in zip(
            tested.items(), holm(np.array(list(tested.values()))), strict=True
        ):
            result[name][measure] = replace(
                own[name], tests={**own[name].tests, "holm_p": float(value)}
            )
    return result


def comparisons(per_class: ByClass) -> int:
    """The largest number of classes that any one measure was tested and corrected for."""
    measures = dict.fromkeys(m for own in per_class.values() for m in own)
    return max(
        (sum("holm_p" in own[m].tests for own in per_class.values() if m in own) for m in measures),
        default=0,
    )


def tests_record(n: int) -> dict[str, Any]:
    """How ``metrics.json`` says what was corrected, under ``tests``."""
    family = {"family": "the classes of one measure", "comparisons": n, "correction": "Holm"}
    return {"tests": family | {"intervals": "not corrected"}}

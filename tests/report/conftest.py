from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from twinray.evaluation.record import ClassFigures, Figure, SplitFigures
from twinray.evaluation.result import ArmResult, Evaluation, RunResult

CLASSES = ("opacity", "nodule", "<script>alert(1)</script>")


Make = Callable[..., Any]


def _figure(
    value: float | None, low: float | None = None, high: float | None = None, n: int = 40
) -> Figure:
    return Figure(value, None if low is None or high is None else (low, high), n)


def _split_figures(shift: float = 0.0) -> SplitFigures:
    """Figures of one split, with the gaps that real ones have: a class without a box, a value without an interval."""
    rates = {
        f"froc@{r}": _figure(0.2 + 0.05 * i + shift, 0.1, 0.9)
        for i, r in enumerate((0.125, 0.25, 0.5, 1, 2, 4, 8))
    }
    per_class = {
        CLASSES[0]: ClassFigures({"ap50": _figure(0.4 + shift, 0.3, 0.5)}, {"n_boxes": 45}),
        CLASSES[1]: ClassFigures({"ap50": _figure(None)}, {"n_boxes": 0}),
        CLASSES[2]: ClassFigures({"ap50": _figure(0.1 + shift)}, {"n_boxes": 1}),
    }
    overall = {
        "map50": _figure(0.25 + shift, 0.2, 0.31),
        "map": _figure(0.12),
        "froc": _figure(0.35, 0.3, 0.4),
        **rates,
    }
    return SplitFigures(overall, per_class, {"n_images": 80, "n_boxes": 46})


def _evaluation(
    arms: Mapping[str, SplitFigures],
    differences: Mapping[str, SplitFigures] | None = None,
    **more: Any,
) -> Evaluation:
    """What an evaluation of detectors came to: one run an arm, each later arm compared with the first."""
    differences = differences or {}
    first = next(iter(arms))
    results = {
        name: ArmResult(
            figures,
            (f"run {name}",),
            "nothing",
            {},
            name,
            1.0,
            first if name in differences else "",
            differences.get(name),
        )
        for name, figures in arms.items()
    }
    runs = {
        f"run {name}": RunResult(f"runs/{name}", name, 0, 0, None, "random", "nothing")
        for name in arms
    }
    return replace(
        Evaluation("detector", "", "test", "", CLASSES, 1, (0,), "a rule", results, runs), **more
    )


@pytest.fixture
def classes() -> tuple[str, ...]:
    return CLASSES


@pytest.fixture
def figure() -> Make:
    return _figure


@pytest.fixture
def split_figures() -> Make:
    return _split_figures


@pytest.fixture
def evaluation() -> Make:
    return _evaluation


@pytest.fixture
def pretraining_lines() -> list[dict[str, Any]]:
    return [
        {
            "step": s,
            "epoch": s // 20,
            "loss": 500 / s,
            "mean_c_ii": 1 - 1 / s,
            "rms_c_ij": 0.3 / s,
            "effective_rank": 10.0 + s,
        }
        for s in range(5, 60, 5)
    ]


@pytest.fixture
def detector_lines() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for epoch in range(4):
        lines.append(
            {
                "step": 10 * (epoch + 1),
                "epoch": epoch,
                "loss": 2.0 / (epoch + 1),
                "loss_classifier": 0.1,
            }
        )
        lines.append(
            {
                "step": 10 * (epoch + 1),
                "epoch": epoch,
                "val_map50": None if epoch == 1 else 0.1 * epoch,
            }
        )
    lines.append({"step": 50, "epoch": 4, "loss": math.nan})
    return lines

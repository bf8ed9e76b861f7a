from __future__ import annotations

import numpy as np
import pytest

from twinray.evaluation.bounded import score_interval
from twinray.explanation.faithfulness_figures import MeasuredMaps, faithfulness_figures

RNG = np.random.default_rng(0)
VALUES = RNG.random((30, 3, 2))
LABELS = np.arange(30) % 2
GROUPS = np.arange(30) // 3 * 5  # gaps


def measured(values: np.ndarray = VALUES, groups: np.ndarray = GROUPS) -> MeasuredMaps:
    return MeasuredMaps(
        ("odam", "box", "gaussian"), ("pointing", "energy"), values, LABELS[: len(values)], groups
    )


def test_means_over_boxes_by_class_and_intervals_over_patients() -> None:
    figures = faithfulness_figures(measured(), ("a", "b", "never found"), bootstrap=400)
    assert list(figures) == ["odam", "box", "gaussian"]
    energy = figures["odam"]["energy"]
    assert energy["value"] == pytest.approx(VALUES[:, 0, 1].mean())
    assert energy["n"] == 10  # patients
    assert energy["ci95"][0] < energy["value"] < energy["ci95"][1]
    assert figures["odam"]["n_boxes"] == 30
    assert list(figures["odam"]["per_class"]) == ["a", "b"]
    of_b = figures["box"]["per_class"]["b"]
    assert of_b["n_boxes"] == 15
    assert of_b["pointing"]["value"] == pytest.approx(VALUES[LABELS == 1, 1, 0].mean())
    # The interval is Wilson's, with the standard error of a mean over independent patients.
    by_patient = VALUES[:, 0, 1].reshape(10, 3).mean(axis=1)
    size = energy["value"] * (1 - energy["value"]) / (by_patient.var(ddof=1) / 10)
    np.testing.assert_allclose(energy["ci95"], score_interval(energy["value"], size), atol=0.02)
    assert figures == faithfulness_figures(measured(), ("a", "b", "never found"), bootstrap=400)


def test_differences_to_the_floors_are_paired() -> None:
    values = VALUES.copy()
    values[:, 0] = values[:, 1] + 0.1
    over = faithfulness_figures(measured(values), ("a", "b"), bootstrap=2000)["odam"]["over_floor"]
    assert list(over) == ["box", "gaussian"]
    assert over["box"]["energy"]["value"] == pytest.approx(0.1)
    assert over["box"]["energy"]["ci95"] is None  # no resample differs
    gap = VALUES[:, 1, 1] + 0.1 - VALUES[:, 2, 1]
    error = gap.reshape(10, 3).mean(axis=1).std(ddof=1) / np.sqrt(10)
    low, high = over["gaussian"]["energy"]["ci95"]
    assert (low + high) / 2 == pytest.approx(gap.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert "over_floor" not in faithfulness_figures(measured(), ("a", "b"))["box"]


def test_three_of_three_is_not_certain() -> None:
    values = np.ones((12, 3, 2))
    pointing = faithfulness_figures(measured(values, np.arange(12)), ("a", "b"))["odam"]["pointing"]
    assert pointing["value"] == 1
    np.testing.assert_allclose(pointing["ci95"], [0.735, 1], atol=1e-3)  # Clopper-Pearson, 12 of 12


def test_few_patients_say_so() -> None:
    figures = faithfulness_figures(measured(VALUES[:9], GROUPS[:9]), ("a", "b"))["odam"]
    assert "too few" in figures["energy"]["method"]
    assert figures["energy"]["ci95"][1] - figures["energy"]["ci95"][0] > 0.4
    assert figures["over_floor"]["box"]["energy"]["ci95"] is None


def test_one_patient_has_no_interval() -> None:
    figures = faithfulness_figures(measured(VALUES[:3], GROUPS[:3]), ("a", "b"))
    assert figures["odam"]["pointing"]["ci95"] is None
    assert figures["odam"]["pointing"]["value"] == pytest.approx(VALUES[:3, 0, 0].mean())

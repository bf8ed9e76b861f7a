"""What a study's report says of the gain: levels at which something can be said."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from twinray.evaluation.worth.gain import LabelCurve
from twinray.studies.report.worth import _gains, _images_per_patient


def curve(name: str, means: list[float]) -> LabelCurve:
    values = np.array(means)[:, None]
    spread = np.random.default_rng(len(name)).normal(0, 0.002, (len(means), 1, 200))
    return LabelCurve(name, (11.0, 109.0, 1078.0), values, values[..., None] + spread)


def test_the_level_of_the_answer_is_the_first_arm_with_all_its_labels():
    """At the other arm's best figure the first has no label left to need: the gain there is a bound of 0."""
    task = SimpleNamespace(arms=("random", "ours"), measure="auc")
    curves = {
        "random": curve("random", [0.79, 0.915, 0.956]),
        "ours": curve("ours", [0.88, 0.954, 0.971]),
    }
    found = _gains(curves, task, 2.0, 1.5)
    saves = [one for one in found if one.way == "saves"]
    assert [one.at for one in saves] == [109, 1078]
    last = saves[-1]
    assert 109 < last.needed.value < 400 and 600 < last.patients.value < 969
    assert math.isfinite(last.patients.low) and last.patients.low > 0
    assert last.hours.value == last.patients.value * 1.5 * 2 / 60
    assert [one.at for one in found if one.way == "replaces"] == [11, 109]


def test_images_of_a_patient_come_from_the_runs():
    def run(**metrics):
        return SimpleNamespace(run=SimpleNamespace(metrics=metrics))

    arm = SimpleNamespace(
        tested=[run(training_images=[30, 60], training_patients=[10, 20]), run(training_images=30, training_patients=10), run()]
    )  # fmt: skip
    assert _images_per_patient(SimpleNamespace(arms={"a": arm})) == 3
    assert _images_per_patient(SimpleNamespace(arms={})) == 1

"""Runs on the same resamples: the figures of ``folds``, seed by seed."""

from __future__ import annotations

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.folds import FoldRun, LabelRun, crossed_boxes, crossed_labels
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.worth.gain import gain
from twinray.evaluation.worth.power import detectable
from twinray.evaluation.worth.sampled import sampled_boxes, sampled_labels
from twinray.records import Boxes

CLASSES = ("a", "b", "c", "d")
DRAWS = Resampling(60)
MAP = (None, "map50")


@pytest.fixture
def arms(simulate):
    """Two arms at two shares of labels, two folds and two seeds."""
    made = {}
    for number, name in enumerate(("base 100", "base 200", "ours 100", "ours 200")):
        runs = []
        for fold in (0, 1):
            truth, found = simulate(fold, ids=[f"f{fold}i{i}" for i in range(20)])
            patients = {image: f"f{fold}p{i // 2}" for i, image in enumerate(truth)}
            for seed in (0, 1):
                rng = np.random.default_rng(100 * number + 10 * seed + fold)
                noise = (0.9, 0.6, 0.6, 0.3)[number]
                worse = {
                    k: Boxes(
                        b.xyxy, b.labels, (1 - noise) * b.scores + noise * rng.uniform(size=len(b))
                    )
                    for k, b in found.items()
                }
                runs.append(FoldRun(fold, seed, truth, worse, patients))
        made[name] = runs
    return made


def test_values_and_resamples_are_those_of_folds(arms):
    found = sampled_boxes(arms, CLASSES, resampling=DRAWS)
    report = crossed_boxes(arms, CLASSES, resampling=DRAWS)
    assert found.seeds == (0, 1) and found.patients == 20
    for name in arms:
        runs = report.arms[name].runs[MAP]  # (folds, seeds)
        np.testing.assert_allclose(found.values[name][MAP], runs.mean(axis=0))
        assert found.samples[name][MAP].shape == (2, 60)
    spread = found.spread("base 100", "ours 200", MAP, over="patients")
    theirs = report.differences["ours 200"].over_patients[MAP]
    assert spread.difference == pytest.approx(theirs.interval.value)
    # both say what such a study would detect; each corrects its variance in a way of its own
    assert detectable(spread) == pytest.approx(theirs.tests["detectable"], rel=0.15)


def test_from_runs_to_a_gain(arms):
    found = sampled_boxes(arms, CLASSES, resampling=DRAWS)
    base = found.curve("base", {100: "base 100", 200: "base 200"}, MAP)
    ours = found.curve("ours", {200: "ours 200", 100: "ours 100"}, MAP)
    assert base.patients == (100, 200) and base.values.shape == (2, 2)
    worth = gain(base, ours)
    assert worth.over == "patients and seeds" and worth.patients.value >= 0
    with pytest.raises(InputError, match="expected one of the arms"):
        found.curve("x", {1: "nobody", 2: "base 100"}, MAP)
    with pytest.raises(InputError, match="no figure 'auc'"):
        found.spread("base 100", "ours 100", (None, "auc"))


def test_classifiers_too():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (40, 2)).astype(float)
    images = tuple(f"i{i}" for i in range(40))
    patients = tuple(f"p{i // 2}" for i in range(40))
    made = {}
    for name, skill in (("a", 0.2), ("b", 0.6)):
        made[name] = []
        for seed in (0, 1):
            order = rng.permutation(40)
            scores = skill * truth + (1 - skill) * rng.uniform(size=truth.shape)
            made[name].append(
                LabelRun(
                    0,
                    seed,
                    tuple(images[i] for i in order),
                    truth[order],
                    scores[order],
                    tuple(patients[i] for i in order),
                )
            )
    found = sampled_labels(made, ("x", "y"), "multilabel", resampling=DRAWS)
    report = crossed_labels(made, ("x", "y"), "multilabel", resampling=DRAWS)
    for name in made:
        np.testing.assert_allclose(
            found.values[name][None, "auc"], report.arms[name].runs[None, "auc"][0]
        )
    assert found.spread("a", "b", (None, "auc")).difference > 0
    other = LabelRun(0, 0, images, 1 - truth, truth, patients)
    with pytest.raises(InputError, match="other images or labels"):
        sampled_labels({"a": [made["a"][0]], "b": [other]}, ("x", "y"), "multilabel")


def test_a_patient_in_two_folds_is_refused(arms):
    run = arms["base 100"][0]
    again = FoldRun(
        1,
        0,
        {f"other {k}": b for k, b in run.truth.items()},
        {},
        {f"other {k}": p for k, p in run.patients.items()},
    )
    with pytest.raises(InputError, match="tested in folds"):
        sampled_boxes({"a": [run, again]}, CLASSES, resampling=DRAWS)

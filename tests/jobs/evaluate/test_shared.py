"""Arms that were not run equally often: compared on what they share, and said so with counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from run_copies import changed
from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.errors import InputError
from twinray.evaluation.boxes import FROC_RULE, BoxRules
from twinray.evaluation.folds import Resampling
from twinray.evaluation.labels.report import compare_labels, evaluate_labels
from twinray.jobs.evaluate.arms import arms_of
from twinray.jobs.evaluate.measure import Settings, measure
from twinray.jobs.evaluate.notes import notes_of, what_is_repeated
from twinray.jobs.evaluate.stored import kept, read_runs

N, K = 60, ("a", "b", "c")


@pytest.fixture(scope="module")
def probe(tmp_path_factory, class_pack) -> Path:
    out = tmp_path_factory.mktemp("shared") / "probe"
    classify(
        ClassifyConfig(
            class_pack, out, arch="resnet18", size=32, seeds=(3, 4), fraction=0.5, bootstrap=0
        )
    )
    return out


def made(probe, arms, *, unlearned=(), n=N):
    """Tested models of made-up scores: arm -> (images, draws, whether all labels were used)."""
    one = kept(read_runs([probe]), "test")[0]
    rng = np.random.default_rng(0)
    truth = {f: (rng.random((n, 3)) < 0.4).astype(float) for f in range(5)}
    found = []
    for name, models in arms.items():
        for fold, draw, every in models:
            run = replace(
                one.run, name=f"{name} {fold} {draw}", path=Path(f"{name}-{fold}-{draw}"), classes=K, task="multilabel", recipe=name, init=name,
                init_hash="", fraction=1.0 if every else 0.5,
                options={}, metrics={"never_learned": list(unlearned)} if name == next(iter(arms)) else {},
            )  # fmt: skip
            scores = np.clip(truth[fold] * 0.3 + rng.random((n, 3)) * 0.7, 0, 1)
            data = replace(
                one.data,
                images=tuple(f"{fold}-{i}" for i in range(n)),
                truth=truth[fold],
                scores=scores,
                patients=tuple(f"p{fold}-{i}" for i in range(n)),
                thresholds=None,
                unlearned=tuple(run.metrics.get("never_learned", ())),
            )
            found.append(
                replace(one, run=run, name=run.name, draw=draw, data=data, every_draw=every)
            )
    return found


def measured(tested):
    arms = arms_of(tested)
    return arms, measure(arms, Settings("test", "", Resampling(50, 0), BoxRules(FROC_RULE)))


def aucs(tested, arm, **more):
    return {
        (one.images, one.draw): evaluate_labels(
            one.data.truth, one.data.scores, K, "multilabel", resampling=Resampling(0), **more
        ).metrics["auc"].value
        for one in tested
        if one.run.recipe == arm
    }  # fmt: skip


def test_each_arm_is_a_mean_over_its_own_runs_and_a_difference_over_the_shared_ones(probe):
    tested = made(
        probe, {"x": [(0, d, False) for d in range(5)], "y": [(0, d, False) for d in (1, 3, 7)]}
    )
    arms, found = measured(tested)
    x, y = aucs(tested, "x"), aucs(tested, "y")
    results = found.result.arms
    assert results["x"].figures.get("auc").value == pytest.approx(np.mean(list(x.values())))
    assert results["y"].figures.get("auc").value == pytest.approx(np.mean(list(y.values())))
    assert (
        results["x"].figures.get("auc").over_seeds.n,
        results["y"].figures.get("auc").over_seeds.n,
    ) == (5, 3)
    shared = np.mean([y[key] - x[key] for key in y if key in x])
    difference = results["y"].difference.get("auc")
    assert difference.value == pytest.approx(shared)
    assert difference.over_seeds.n == 2
    (note,) = found.result.notes
    assert note.startswith(
        "y minus x is over the 2 seeds or label draws that both have; x has 5, y 3"
    )
    assert what_is_repeated(found.arms) == "3 to 5 label draws"
    assert "arms were not run equally often: 5 label draws: x; 3 label draws: y" in notes_of(
        arms, "test"
    )


def test_arms_that_share_no_draw_are_refused_in_one_line(probe):
    tested = made(
        probe, {"x": [(0, d, False) for d in (0, 1)], "y": [(0, d, False) for d in (2, 3)]}
    )
    with pytest.raises(
        InputError, match=r"the arms x \(0, 1\) and y \(2, 3\) share no seed or label draw"
    ):
        measured(tested)


def test_a_model_of_all_labels_is_that_of_every_draw(probe):
    tested = made(probe, {"x": [(0, d, False) for d in range(3)], "y": [(0, 0, True)]})
    tested = [replace(one, run=replace(one.run, fraction=1.0)) for one in tested]
    _, found = measured(tested)
    x, (y,) = aucs(tested, "x"), aucs(tested, "y").values()
    difference = found.result.arms["y"].difference.get("auc")
    assert difference.value == pytest.approx(np.mean([y - v for v in x.values()]))
    assert difference.over_seeds.n == 3
    assert found.result.arms["y"].figures.get("auc").over_seeds is None
    assert found.result.notes == ()


def test_folds_that_not_every_arm_has_are_left_out_and_counted(probe):
    tested = made(
        probe,
        {
            "x": [(f, d, False) for f in range(3) for d in (0, 1)],
            "y": [(f, d, False) for f in (1, 2) for d in (0, 1, 2) if (f, d) != (2, 2)],
        },
    )
    _, found = measured(tested)
    assert found.result.folds == 2
    x, y = aucs(tested, "x"), aucs(tested, "y")
    both = [key for key in x if key in y]
    assert found.result.arms["x"].figures.get("auc").value == pytest.approx(
        np.mean([x[k] for k in both])
    )
    difference = found.result.arms["y"].difference.get("auc").value
    assert difference == pytest.approx(np.mean([y[k] - x[k] for k in both]))
    notes = "\n".join(found.result.notes)
    assert "2 runs of 6 of x left out" in notes and "1 run of 5 of y left out" in notes
    assert sum(run.arm == "x" for run in found.result.runs.values()) == 4
    only = made(probe, {"x": [(0, 0, False), (0, 1, False)], "y": [(1, 0, False), (1, 1, False)]})
    with pytest.raises(InputError, match="the arms x and y share no fold"):
        measured(only)


def test_a_class_that_no_training_image_showed_is_out_of_every_mean_and_named(probe):
    tested = made(
        probe,
        {"x": [(0, 0, False), (0, 1, False)], "y": [(0, 0, False), (0, 1, False)]},
        unlearned=("b",),
    )
    _, found = measured(tested)
    for arm in ("x", "y"):
        own = aucs(tested, arm, unlearned=("b",))
        plain = aucs(tested, arm)
        assert found.result.arms[arm].figures.get("auc").value == pytest.approx(
            np.mean(list(own.values()))
        )
        assert np.mean(list(own.values())) != pytest.approx(np.mean(list(plain.values())))
    assert any("means over classes leave out b" in note for note in found.result.notes)


def test_means_without_a_class_are_those_over_the_others():
    rng = np.random.default_rng(3)
    truth = (rng.random((80, 3)) < 0.5).astype(float)
    scores = rng.random((80, 3))
    report = evaluate_labels(
        truth, scores, K, "multilabel", unlearned=("c",), resampling=Resampling(20)
    )
    assert report.left_out == ("c",)
    for name in ("auc", "average_precision", "brier", "ece", "accuracy"):
        own = [report.per_class[c][name].value for c in "ab"]
        assert report.metrics[name].value == pytest.approx(np.mean(own))
    assert not np.isnan(report.per_class["c"]["auc"].value)
    none = evaluate_labels(truth, scores, K, "multilabel", unlearned=K, resampling=Resampling(0))
    assert not np.isnan(none.metrics["auc"].value)
    assert compare_labels(truth, scores, scores, K, "multilabel").metrics["auc"].interval.value == 0


def test_detectors_of_unequal_numbers_through_the_command_line(detect_run, tmp_path, cli):
    runs = [
        changed(detect_run, tmp_path / f"{init}{seed}", seed=seed, init=init)
        for init, seeds in (("random", (0, 1, 2)), ("other", (1, 2)))
        for seed in seeds
    ]
    out = tmp_path / "e"
    status, shown, err = cli("evaluate", *runs, "--out", out, "--bootstrap", 20, "--png")
    assert status == 0, err
    assert "2 to 3 training seeds" in shown
    assert (
        "other minus random is over the 2 seeds or label draws that both have; random has 3, other 2"
        in shown
    )
    results = json.loads((out / "metrics.json").read_text())
    assert results["arms"]["other"]["difference"]["map50"]["over_seeds"]["n"] == 2
    assert results["arms"]["random"]["test"]["map50"]["over_seeds"]["n"] == 3
    names = {path.stem for path in (out / "figures").glob("*.svg")}
    assert {path.stem for path in (out / "figures").glob("*.png")} == names


def test_reliability_is_drawn_and_kept_for_every_model(probe, tmp_path, cli):
    out = tmp_path / "e"
    status, _, err = cli("evaluate", probe, "--out", out, "--bootstrap", 50)
    assert status == 0, err
    svg = (out / "figures" / "reliability.svg").read_text()
    assert "How often a probability of" in svg and "<title>" in svg
    for run in json.loads((out / "metrics.json").read_text())["runs"].values():
        (curve,) = run["diagnostics"]["reliability"].values()
        assert sum(curve["count"]) == 12
        assert curve["definition"] == "per class"


def test_intervals_over_draws_stay_in_range_and_have_a_width(probe, class_pack, tmp_path):
    metrics = json.loads((probe / "metrics.json").read_text())
    for name, figure in metrics["test"].items():
        if isinstance(figure, dict) and figure.get("ci95"):
            low, high = figure["ci95"]
            assert figure["over"] == "seeds" and low < high, name
            assert (-1 if name == "youden" else 0) <= low and (high <= 1 or name == "brier"), name
    whole = tmp_path / "whole"
    classify(
        ClassifyConfig(class_pack, whole, arch="resnet18", size=32, seeds=(3, 4), bootstrap=50)
    )
    metrics = json.loads((whole / "metrics.json").read_text())
    assert (metrics["test"]["auc"]["over"], len(metrics["test"]["per_seed"])) == ("patients", 2)
    low, high = metrics["test"]["auc"]["ci95"]
    assert low < high


def test_an_arm_without_pretrainings_stands_beside_each_pretraining_of_the_other(probe):
    """The difference is over all of its runs: the means of both arms give it, and its interval knows the pre-trainings."""
    draws = (0, 1, 2)
    tested = made(probe, {"x": [(0, d, False) for d in draws], "y": [(0, d, False) for d in draws]})
    first = made(probe, {"y": [(0, d, False) for d in draws], "z": [(0, 0, False)]})
    again = [
        replace(one, run=replace(one.run, init_hash="other", path=Path(f"again-{one.draw}")))
        for one in first
        if one.run.recipe == "y"
    ]
    arms, found = measured([*tested, *again])
    results = found.result.arms
    x, y = results["x"].figures.get("auc").value, results["y"].figures.get("auc").value
    assert len(arms["y"].tested) == 6 and len(arms["x"].tested) == 3
    assert results["y"].difference.get("auc").value == pytest.approx(y - x)
    assert "stands beside each of them" in " ".join(found.result.notes)

"""Groups of patients, FROC's rules and pictures, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from run_copies import changed, table
from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.evaluation.boxes import BoxRules, FrocRule, evaluate_boxes
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.report import evaluate_labels
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack
from twinray.runs.results import read_label_predictions


@pytest.fixture(scope="module")
def sexed_pack(tmp_path_factory, class_folder) -> Path:
    """The class folder with a table that says each patient's sex; one image's is not stated."""
    folder = tmp_path_factory.mktemp("sexed")
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "patient", "label", "sex", "age"))
        for name in ("dark", "bright"):
            for i in range(20):
                sex = "" if i == 0 else "FM"[(i // 2) % 2]
                rows.writerow(
                    (
                        f"{name}/{name}{i // 2:02d}_{i}.png",
                        f"{name}{i // 2}",
                        name,
                        sex,
                        30 + 3 * (i // 2),
                    )
                )
    out = folder / "pack"
    pack(
        PackConfig(
            source=class_folder,
            out=out,
            size=32,
            val=0.1,
            test=0.5,
            workers=1,
            table=folder / "table.csv",
        )
    )
    return out


def test_groups_have_the_figures_of_their_images_alone(sexed_pack, tmp_path, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run = tmp_path / "probe"
    classify(ClassifyConfig(sexed_pack, run, arch="resnet18", size=32, bootstrap=0))
    other = changed(run, tmp_path / "other", init="elsewhere")
    out = tmp_path / "e"
    status, shown, told = cli(
        "evaluate",
        run,
        other,
        "--data",
        sexed_pack,
        "--by",
        "sex",
        "age:40,50",
        "--out",
        out,
        "--bootstrap",
        "60",
    )
    assert status == 0, told
    arms = json.loads((out / "metrics.json").read_text())["arms"]
    groups = arms["probe"]["test"]["subgroups"]
    opened = open_pack(sexed_pack)
    sex = dict(zip(opened.ids.tolist(), opened.attribute("sex"), strict=True))
    kept = read_label_predictions(run)
    for group in ("F", "M"):
        rows = np.array([sex[image] == group for image in kept.images])
        (scores,) = kept.scores.values()
        own = evaluate_labels(
            kept.truth[rows], scores[rows], kept.classes, "multiclass", resampling=Resampling(0)
        )
        assert groups["sex"][group]["auc"]["value"] == pytest.approx(
            own.metrics["auc"].value, abs=1e-5
        )
        assert groups["sex"][group]["n_images"] == rows.sum()
        assert arms["other"]["difference"]["subgroups"]["sex"][group]["auc"][
            "value"
        ] == pytest.approx(0, abs=1e-9)
    assert sum(g["n_images"] for g in groups["age"].values()) == len(kept.images)
    assert set(arms["probe"]["test"]["gaps"]) == {"sex", "age"}
    rows = {(r["run"], r["images"], r["class"], r["measure"]) for r in table(out / "metrics.csv")}
    assert ("probe", "sex=F", "", "auc") in rows
    assert "by sex" in (out / "report.html").read_text()
    assert "By sex" in shown and "largest gap of AUC by age" in shown
    status, _, told = cli("evaluate", run, "--data", sexed_pack, "--by", "scanner")
    assert (status, "no attribute 'scanner'" in told) == (2, True)
    status, _, told = cli("evaluate", run, "--by", "sex")
    assert (status, "--by goes with --data" in told) == (2, True)


def test_froc_counts_as_it_is_told_with_and_without_data(detect_run, blob_pack, tmp_path, cli):
    truth = read_truth(detect_run / "truth.json")
    found = read_predictions(detect_run / "predictions.json", truth.image_ids, 1)
    for options, rule in (
        (("--froc-hit", "centre", "--froc-repeats", "ignore"), FrocRule("centre", "ignore")),
        (("--froc-iou", "0.2"), FrocRule(0.2)),
        ((), FrocRule()),
    ):
        expected = evaluate_boxes(
            truth.boxes, found, ("blob",), resampling=Resampling(0), rules=BoxRules(rule)
        ).all_images.metrics
        for data in ((), ("--data", blob_pack)):
            out = tmp_path / f"e{len(list(tmp_path.iterdir()))}"
            status, shown, told = cli(
                "evaluate", detect_run, *data, *options, "--out", out, "--bootstrap", "0"
            )
            assert status == 0, told
            results = json.loads((out / "metrics.json").read_text())
            for measure in ("froc", "froc@1", "map50"):
                value = results["arms"]["detector"]["test"][measure]["value"]
                assert value == pytest.approx(expected[measure].value, abs=1e-6)
            assert results["froc_rule"] == rule.told()
            assert f"FROC: {rule.told()}" in shown
    for wrong in (("--froc-hit", "middle"), ("--froc-iou", "0"), ("--froc-repeats", "twice")):
        status, _, told = cli("evaluate", detect_run, *wrong)
        assert (status, len(told.splitlines())) == (2, 1), told


def test_pictures_show_true_boxes_and_those_of_every_arm(detect_run, blob_pack, tmp_path, cli):
    other = changed(detect_run, tmp_path / "other", init="elsewhere/pretrained")
    out = tmp_path / "e"
    command = ("evaluate", detect_run, other, "--bootstrap", "0", "--pictures", "2")
    status, _, told = cli(*command, "--data", blob_pack, "--out", out)
    assert status == 0, told
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2 * 2
    assert "Drawn before any result was looked at" in page
    for missing in (("--data", blob_pack), ("--out", tmp_path / "f")):
        status, _, told = cli(*command, *missing)
        assert (status, "--pictures goes with" in told) == (2, True)


def test_a_detector_notes_how_its_froc_counts(detect_run):
    assert (
        "IoU is 0.5 or more" in json.loads((detect_run / "metrics.json").read_text())["froc_rule"]
    )

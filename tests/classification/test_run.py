"""The verb as a whole: every policy through the real command line, what it keeps, and what it says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.evaluation.labels.cutoffs import choose_label_thresholds
from twinray.inference.model import load_model, prepare_row
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.runs.results import read_label_predictions
from twinray.runs.seen import read_seen

TINY = (
    "--size",
    32,
    "--epochs",
    2,
    "--least-steps",
    1,
    "--batch-size",
    8,
    "--bootstrap",
    20,
    "--precision",
    "float32",
)
POLICIES = {
    "head": (),
    "full": (),
    "surgical": ("--tune", "norms"),
    "auto": (),
}


def options(policy: str, arch: str) -> list[object]:
    tune = {"surgical": ["--tune", "blocks.11" if "vit" in arch else "layer4", "norms"]}.get(
        policy, []
    )
    return ["--policy", "surgical" if policy == "auto" else policy, *tune, "--arch", arch, *TINY]


@pytest.fixture(scope="module")
def finding_pack(tmp_path_factory) -> Path:
    """Multi-label: synthetic chest images, without val images."""
    out = tmp_path_factory.mktemp("packs") / "findings"
    pack_images(
        PackConfig(
            source=(),
            format="phantom",
            out=out,
            size=64,
            val=0,
            test=0.4,
            phantom_images=60,
            workers=1,
        )
    )
    return out


@pytest.mark.parametrize("arch", ["resnet18", "timm/vit_tiny_patch16_224"])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_policy_runs_and_its_model_predicts(cli, class_pack, tmp_path, policy, arch):
    if arch.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")
    out = tmp_path / "run"
    status, said, err = cli("classify", "--data", class_pack, "--out", out, *options(policy, arch))
    assert status == 0, err
    assert "test AUC" in said and "best epoch" in said
    pack, metrics = open_pack(class_pack), json.loads((out / "metrics.json").read_text())
    assert len(metrics["best_epoch"]) == 1 and metrics["selected_on"] == [
        f"AUC on {len(pack.where('val'))} val images"
    ]
    described = json.loads((out / "model.json").read_text())
    assert (described["policy"], described["protocol"]) == (
        policy.replace("auto", "surgical"),
        "sound",
    )
    learning = described["layers"]["learning"]
    if policy == "head":
        assert learning == ["head"]
    elif policy == "surgical":
        assert ("layer4" if arch == "resnet18" else "blocks.11") in learning
        assert described["norm"] == "trainable"
    else:
        assert not described["layers"]["frozen"]
    if policy == "auto":
        kept = json.loads((out / "tune.json").read_text())["0"]
        largest = max(kept["relative_gradient_norms"].values())
        assert kept["parts"] == {k: v / largest for k, v in kept["relative_gradient_norms"].items()}
        assert (out / "tune.svg").read_bytes().startswith(b"<?xml")
    assert b"svg" in (out / "curves.svg").read_bytes()[:200]
    # what is loaded gives the scores that the run kept
    model, rows = load_model(out), pack.where("test")
    scores = model.labels([prepare_row(model, pack, int(row)) for row in rows])
    kept_scores = read_label_predictions(out, "test")
    assert kept_scores.images == tuple(pack.ids[rows])
    np.testing.assert_allclose(scores, kept_scores.scores[0], atol=2e-5)


@pytest.mark.parametrize("policy", ["head", "full"])
def test_several_draws_are_several_trainings(cli, class_pack, tmp_path, policy):
    out = tmp_path / "run"
    more = ("--seeds", 3, 5, "--fraction", 0.5)
    status, _, err = cli(
        "classify", "--data", class_pack, "--out", out, *options(policy, "resnet18"), *more
    )
    assert status == 0, err
    assert "model.safetensors is that of seed 3" in err
    metrics = json.loads((out / "metrics.json").read_text())
    assert len(metrics["test"]["per_seed"]) == len(metrics["best_epoch"]) == 2
    assert any("--fraction 0.5 does not count" in note for note in metrics["notes"])
    for split in ("test", "val"):
        kept = read_label_predictions(out, split)
        assert list(kept.scores) == [3, 5]
        assert not np.array_equal(kept.scores[3], kept.scores[5])
        assert not set(kept.patients) & set(open_pack(class_pack).patients)
    assert {p.name for p in (out / "seeds" / "3").iterdir()} == {"draw.json", "metrics.jsonl"}
    alone = tmp_path / "alone"
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--out",
        alone,
        *options(policy, "resnet18"),
        "--seeds",
        5,
        "--fraction",
        0.5,
    )
    assert status == 0, err
    same = read_label_predictions(alone, "test").scores[5]
    np.testing.assert_array_equal(same, read_label_predictions(out, "test").scores[5])


def test_multi_label_without_val_chooses_on_a_held_out_fifth(cli, finding_pack, tmp_path):
    out = tmp_path / "run"
    more = ("--class-weights", "balanced", "--uncertain", "zero", "--blank", "zero")
    status, said, err = cli(
        "classify", "--data", finding_pack, "--out", out, *options("full", "resnet18"), *more
    )
    assert status == 0, err
    pack, metrics = open_pack(finding_pack), json.loads((out / "metrics.json").read_text())
    assert (
        "held out of the labelled fraction" in said and "held out of the labelled fraction" in err
    )
    assert any("has no labelled val images" in note for note in metrics["notes"])
    assert "val" not in metrics and read_label_predictions(out, "val") is None
    learnt = metrics["training_images"][0]
    assert 0.6 * len(pack.where("train")) < learnt < len(pack.where("train"))
    used = [(part.use, part.n_images) for part in read_seen(out).parts]
    assert used == [("training", learnt), ("selection", len(pack.where("train")) - learnt)]
    cutoffs = json.loads((out / "model.json").read_text())["thresholds"]
    assert "held out" in cutoffs["chosen_on"] and list(cutoffs["per_class"]) == list(
        pack.info.label_classes
    )


def test_thresholds_are_chosen_on_val_and_used_by_predict(cli, class_pack, finding_pack, tmp_path):
    pack = open_pack(class_pack)
    run = classify(
        ClassifyConfig(finding_pack, tmp_path / "p", arch="resnet18", size=32, bootstrap=0)
    )
    described = json.loads((run.path / "model.json").read_text())["thresholds"]
    assert "fitted without its patient's fold" in described["chosen_on"]
    names = open_pack(finding_pack).info.label_classes
    images = tmp_path / "images"
    images.mkdir()
    for row in range(3):
        Image.fromarray(np.asarray(pack.images[row])).save(images / f"{row}.png")
    status, said, err = cli(
        "predict", run.path, images, "--out", tmp_path / "out", "--operating-point", "f1"
    )
    assert status == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["thresholds"]
    assert summary["rule"] == "f1" and "F1" in said
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    for row in rows:
        called = [name for name in names if float(row[name]) >= summary["per_class"][name]]
        assert row["called"] == "|".join(called)
    for name in names:
        known = described["per_class"][name]["thresholds"]
        assert summary["per_class"][name] == known.get("f1", 0.5)
        assert (name in summary["fallback"]) == (not known)
    status, _, err = cli(
        "predict", run.path, images, "--out", tmp_path / "o2", "--score-threshold", 0.0
    )
    assert status == 0, err
    assert next(csv.DictReader((tmp_path / "o2" / "predictions.csv").open()))["called"] == "|".join(
        names
    )


def test_thresholds_of_a_run_are_those_of_its_val_scores(class_pack, tmp_path):
    run = classify(
        ClassifyConfig(class_pack, tmp_path / "p", arch="resnet18", size=32, bootstrap=0)
    )
    kept = read_label_predictions(run.path, "val")
    expected = choose_label_thresholds(kept.truth, kept.scores[0], kept.classes).as_json()
    assert json.loads((run.path / "model.json").read_text())["thresholds"] == json.loads(
        json.dumps(expected)
    )


def test_medmnists_own_evaluator_gives_the_same_figures(class_pack, tmp_path):
    evaluator = pytest.importorskip(
        "medmnist.evaluator", reason="medmnist is not installed; make test installs it"
    )
    run = classify(
        ClassifyConfig(
            class_pack, tmp_path / "p", arch="resnet18", size=32, bootstrap=0, fraction=0.2
        )
    )
    kept = read_label_predictions(run.path, "test")
    metrics = json.loads((run.path / "metrics.json").read_text())["test"]
    truth = kept.truth.argmax(axis=1).reshape(-1, 1)
    auc = evaluator.getAUC(truth, kept.scores[0], "binary-class")
    acc = evaluator.getACC(truth, kept.scores[0], "binary-class")
    assert metrics["auc"]["value"] == pytest.approx(auc, abs=1e-9)
    assert metrics["accuracy"]["value"] == pytest.approx(acc, abs=1e-9)


def test_the_paper_s_protocol_is_recorded_whole(cli, class_pack, tmp_path):
    out = tmp_path / "run"
    more = (
        "--policy",
        "full",
        "--protocol",
        "as-published",
        "--arch",
        "resnet18",
        "--size",
        32,
        "--epochs",
        1,
    )
    status, _, err = cli(
        "classify", "--data", class_pack, "--out", out, *more, "--bootstrap", 0, "--batch-size", 8
    )
    assert status == 0, err
    resolved = yaml.safe_load((out / "config.yaml").read_text())
    wanted = {
        "optimizer": "sgd",
        "weight_decay": 1e-6,
        "crop_min": 0.08,
        "schedule": "epoch",
        "lr_head": 0.5 * 8 / 64,
    }
    assert {name: resolved[name] for name in wanted} == wanted
    assert "chooses the epoch on validation patients" in err


def medimeta(root: Path, n: int = 36) -> Path:
    """A MedIMeta folder of three organs, two slices a patient."""
    rng = np.random.default_rng(0)
    for name in ("images", "splits", "task_labels"):
        (root / name).mkdir(parents=True)
    which = np.arange(n) // 2 % 3
    for i, organ in enumerate(which):
        pixels = rng.normal(60 + 50 * organ, 30, (32, 32)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i:06d}.tiff")
    task = {
        "task_name": "organ label",
        "task_target": "MULTICLASS_CLASSIFICATION",
        "labels": {0: "heart", 1: "liver", 2: "spleen"},
    }
    info = {"id": root.name, "name": "organs", "tasks": [task], "input_size": [1, 32, 32]}
    (root / "info.yaml").write_text(yaml.safe_dump(info, sort_keys=False))
    parts = {"train": range(24), "val": range(24, 30), "test": range(30, n)}
    for name, members in parts.items():
        (root / "splits" / f"{name}.txt").write_text(
            "\n".join(f"images/{i:06d}.tiff" for i in members)
        )
    np.save(root / "task_labels" / "organ label.npy", which)
    lines = ["filepath,patient_id", *(f"images/{i:06d}.tiff,{i // 2}" for i in range(n))]
    (root / "annotations.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("policy", ["head", "full"])
def test_a_medimeta_folder_of_several_organs(cli, tmp_path, policy):
    source = medimeta(tmp_path / "organs")
    status, _, err = cli(
        "pack",
        source,
        "--format",
        "medimeta",
        "--size",
        32,
        "--out",
        tmp_path / "p",
        "--workers",
        1,
    )
    assert status == 0, err
    status, _, err = cli(
        "classify", "--data", tmp_path / "p", "--out", tmp_path / "r", *options(policy, "resnet18")
    )
    assert status == 0, err
    test = json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]
    assert len(test["confusion"]) == 3 and set(test["per_class"]) == {"heart", "liver", "spleen"}


def test_the_same_verbs_on_real_images(cli, real_data, tmp_path):
    """PneumoniaMNIST with its own splits, and NIH's findings, several an image."""
    sources = {
        "pneumonia": (real_data / "medmnist" / "pneumoniamnist.npz", "--format", "medmnist"),
        "nih": (real_data / "nih-cxr14", "--format", "nih", "--val", 0.2),
    }
    for name, source in sources.items():
        pack, out = tmp_path / name, tmp_path / f"{name}-run"
        status, _, err = cli("pack", *source, "--size", 32, "--out", pack, "--workers", 1)
        assert status == 0, err
        more = ("--policy", "head", "--fraction", 0.05 if name == "pneumonia" else 0.5)
        status, _, err = cli(
            "classify", "--data", pack, "--out", out, "--arch", "resnet18", *TINY, *more
        )
        assert status == 0, err
        assert json.loads((out / "metrics.json").read_text())["test"]["auc"]["value"] > 0.4

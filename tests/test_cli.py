"""The verbs, end to end on tiny data, through the command line."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import yaml
from PIL import Image

from support import PRETRAIN, twinray
from twinray.cli import VERBS, build_parser
from twinray.data.pack import open_pack


def test_help_names_every_verb_and_every_option_has_a_text(cli):
    status, out, _ = cli("--help")
    assert status == 0
    for verb in VERBS:
        assert verb in out
        status, text, _ = cli(verb, "--help")
        assert status == 0
        for block in text.split("\n  --")[1:]:
            words = block.split(maxsplit=1)
            assert len(words) > 1, f"{verb}: {block!r} has no help"


def test_version_and_no_arguments(cli):
    assert cli("--version")[1].startswith("twinray ")
    assert cli()[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["flyaway"],
        ["pretrain"],
        ["pretrain", "--data", "nowhere", "--out", "x"],
        ["pretrain", "--data", "nowhere", "--out", "x", "--epochs", "many"],
        ["pretrain", "--data", "nowhere", "--out", "x", "--epohcs", "3"],
        ["pretrain", "--data", "nowhere", "--out", "x", "--batch-size", "1"],
        ["detect", "--data", "nowhere", "--out", "x"],
        ["classify", "--data", "nowhere", "--out", "x", "--fraction", "0"],
        ["evaluate", "nowhere", "--data", "nowhere"],
        ["explain", "nowhere", "image.png", "--out", "x"],
        ["predict", "nowhere", "image.png", "--out", "x"],
        ["pack", "nowhere", "--format", "folder", "--out", "x"],
        ["pack", "nowhere", "--format", "coco", "--out", "x"],
        ["pretrain", "--config", "nowhere.yaml"],
    ],
)
def test_bad_requests_are_one_line_and_exit_with_2(cli, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = cli(*arguments)
    assert status == 2
    assert err.startswith("twinray: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "x").exists()


def test_a_configuration_file_gives_the_same_as_flags(cli, tmp_path):
    status, out, _ = cli(
        "pretrain",
        "--data",
        "a",
        "b",
        "--out",
        "x",
        "--projector",
        16,
        8,
        "--lr",
        0.1,
        "--print_config",
    )
    assert status == 0
    (tmp_path / "c.yaml").write_text(out)
    status, again, _ = cli("pretrain", "--config", tmp_path / "c.yaml", "--print_config")
    assert status == 0
    assert yaml.safe_load(again) == yaml.safe_load(out)
    assert yaml.safe_load(out)["projector"] == [16, 8]


@pytest.mark.parametrize("text", ["#key", "null", "~", "Null", "&a"])
def test_a_value_that_yaml_reads_as_nothing_is_used_or_refused(cli, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i in range(6):
        Image.fromarray(np.full((20, 20), i, np.uint8)).save(tmp_path / "in" / f"#{i // 2}_{i}.png")
    arguments = ("pack", "in", "--size", 16, "--workers", 1, "--out", "p")
    status, _, err = cli(*arguments, "--pseudonymise", text)
    assert (status, f"could not read the key file {text}: " in err) == (2, True)
    status, _, err = cli(*arguments, "--pseudonymise=" + text)
    assert (status, f"could not read the key file {text}: " in err) == (2, True)
    status, _, err = cli(*arguments, "--depth", text)
    assert (status, "expected --depth to be a whole number" in err) == (2, True)
    (tmp_path / text).write_text("secret")
    assert cli(*arguments, "--pseudonymise", text, "--patient-regex", r"#(\d)_")[0] == 0
    assert len(set(open_pack(tmp_path / "p").patients)) == 3
    assert not any(str(i).startswith("#") for i in open_pack(tmp_path / "p").ids)


@pytest.mark.parametrize("seed", [2**32, 20251125101530, 2**63 - 1])
def test_every_seed_works(class_pack, cli, tmp_path, seed):
    small = ("--arch", "resnet18", "--size", 32, "--bootstrap", 10)
    arguments = ("classify", "--data", class_pack, *small, "--fraction", 0.5)
    status, _, err = cli(*arguments, "--out", tmp_path / "probe", "--seeds", seed)
    assert status == 0, err
    assert cli("evaluate", tmp_path / "probe", "--bootstrap", 0)[0] == 0
    train = ("--policy", "full", "--epochs", 1, "--batch-size", 8, "--lr-backbone", 0.001)
    status, _, err = cli(*arguments, *train, "--out", tmp_path / "full", "--seeds", seed)
    assert status == 0, err


def test_a_seed_that_no_file_holds_is_refused_with_the_largest_one(cli, tmp_path):
    status, _, err = cli("pack", tmp_path, "--out", tmp_path / "p", "--seed", 2**63)
    assert (status, "at most 9223372036854775807, got 9223372036854775808" in err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("pack", "a" * 300),
        ("pretrain", "--data", "x", "--init", "a" * 300),
        ("detect", "--data", "x", "--init", "b/" + "a" * 300),
        ("evaluate", "a" * 300),
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(cli, tmp_path, words):
    status, _, err = cli(*words, "--out", tmp_path / "out")
    assert status == 2
    assert "unforeseen" not in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("joined", [True, False])
def test_options_are_not_read_from_a_pipe(cli, tmp_path, joined):
    """The parser would wait for ever, or read a device without end."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        given = (f"--config={place}",) if joined else ("--config", place)
        status, _, err = cli("pack", tmp_path, *given, "--out", tmp_path / "p")
        assert (status, "is a pipe, a socket or a device" in err) == (2, True)


def test_flags_are_the_fields():
    from twinray.detection.config import DetectConfig

    text = build_parser("x", DetectConfig).format_help()
    assert "--batch-size" in text
    assert "--batch_size" not in text


def test_pretrain_then_classify(class_pack, tmp_path, cli):
    run = tmp_path / "pre"
    status, _, err = cli("pretrain", "--data", class_pack, "--out", run, "--epochs", 2, *PRETRAIN)
    assert status == 0, err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train"]["loss"]["value"] > 0
    assert 0 <= metrics["train"]["data_wait"]["value"] <= 1
    described = json.loads((run / "backbone.json").read_text())
    assert described["arch"] == "resnet18"
    assert described["data"][0]["checksums"] == open_pack(class_pack).info.checksums
    assert "fc.weight" not in safetensors.torch.load_file(run / "backbone.safetensors")
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert (resolved["job"], resolved["optimizer"], resolved["lr"]) == (
        "pretrain",
        "adamw",
        1e-3 * 8 / 256,
    )

    out = tmp_path / "probe"
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--init",
        run,
        "--out",
        out,
        "--seeds",
        0,
        1,
        "--fraction",
        0.5,
    )
    assert status == 0, err
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["test"]["auc"]["n"] == 2
    assert figures["init"]["sha256"]
    assert len(figures["test"]["per_seed"]) == 2
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(rows) == 2 * len(open_pack(class_pack).where("test"))

    status, shown, err = cli(
        "evaluate", out, "--data", class_pack, "--out", tmp_path / "eval", "--bootstrap", 20
    )
    assert status == 0, err
    assert "AUC" in shown
    assert "model of label draw 0" in shown
    again = json.loads((tmp_path / "eval" / "metrics.json").read_text())["arms"]["probe"]["test"][
        "auc"
    ]["value"]
    assert again == pytest.approx(figures["test"]["per_seed"][0]["auc"]["value"], abs=1e-6)

    status, _, err = cli("predict", out, class_pack.parent, "--out", tmp_path / "p")
    assert status == 2  # a folder without images
    image = tmp_path / "one.png"
    Image.fromarray(np.full((30, 50), 200, np.uint8)).save(image)
    status, _, err = cli("predict", out, image, "--out", tmp_path / "p")
    assert status == 0, err
    row = next(csv.DictReader((tmp_path / "p" / "predictions.csv").open()))
    assert float(row["bright"]) + float(row["dark"]) == pytest.approx(1.0, abs=1e-5)


def test_a_full_folder_is_refused_and_kept(class_pack, blob_pack, tmp_path, cli):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    for verb in ("pretrain", "detect", "classify"):
        status, _, err = cli(
            verb,
            "--data",
            blob_pack if verb == "detect" else class_pack,
            "--out",
            tmp_path / "out",
            "--arch",
            "resnet18",
            "--epochs" if verb != "classify" else "--size",
            64,
            *(["--batch-size", 8] if verb == "pretrain" else []),
        )
        assert status == 2
        assert "not empty" in err
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"


def test_resuming_with_other_options_is_refused_and_names_them(class_pack, tmp_path, cli):
    run = tmp_path / "pre"
    assert cli("pretrain", "--data", class_pack, "--out", run, "--epochs", 1, *PRETRAIN)[0] == 0
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", run, "--epochs", 2, *PRETRAIN, "--resume"
    )
    assert status == 2
    assert "epochs was 1, now 2" in err
    assert (
        cli("pretrain", "--data", class_pack, "--out", run, "--epochs", 1, *PRETRAIN, "--resume")[0]
        == 0
    )


def test_a_diverging_run_is_one_line_and_can_be_told_apart(class_pack, tmp_path, cli):
    more = ("--optimizer", "sgd", "--lr", 1e30, "--warmup-epochs", 0)
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", tmp_path / "r", "--epochs", 3, *PRETRAIN, *more
    )
    assert status == 1
    assert "lower the learning rate" in err
    assert not (tmp_path / "r" / "backbone.safetensors").exists()


def test_resuming_with_another_pack_under_the_same_name_is_refused(class_folder, tmp_path, cli):
    pack = ("pack", class_folder, "--out", tmp_path / "p", "--workers", 1, "--test", 0)
    assert cli(*pack, "--size", 64)[0] == 0
    run = ("pretrain", "--data", tmp_path / "p", "--out", tmp_path / "r", "--epochs", 1, *PRETRAIN)
    assert cli(*run)[0] == 0
    (tmp_path / "r" / "metrics.json").unlink()  # as if it had been killed at the end
    shutil.rmtree(tmp_path / "p")
    assert cli(*pack, "--size", 48)[0] == 0
    status, _, err = cli(*run, "--resume")
    assert status == 2
    assert "packs changed since it was started" in err


def test_arms_must_name_what_they_share(class_pack, blob_pack, tmp_path, cli):
    status, _, err = cli("detect", "--data", blob_pack, "--out", tmp_path / "d")
    assert status == 2
    assert "expected --arch with --init random" in err
    status, _, err = cli(
        "classify", "--data", class_pack, "--out", tmp_path / "c", "--arch", "resnet18"
    )
    assert status == 2
    assert "expected --size with --init random" in err


@pytest.mark.parametrize(
    "text",
    [
        "resume: maybe",
        "projector: 5",
        "data: abc",
        "[1, 2]",
        "seed: -1",
        "lr: .nan",
        "nonsense: 1",
        "\xff\xfe\x00",
    ],
)
def test_odd_configuration_files(cli, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text, encoding="latin-1")
    status, _, err = cli(
        "pretrain", "--data", "a", "--out", tmp_path / "x", "--config", tmp_path / "c.yaml"
    )
    assert status == 2
    assert err.startswith("twinray: ")
    assert err.count("\n") == 1


def test_detect_run_folder(detect_run, blob_pack):
    metrics = json.loads((detect_run / "metrics.json").read_text())
    assert set(metrics) >= {"val", "test", "best_epoch", "seconds", "init"}
    assert 0 <= metrics["test"]["map50"]["value"] <= 1
    assert metrics["test"]["n_images"] == len(open_pack(blob_pack).where("test"))
    described = json.loads((detect_run / "model.json").read_text())
    assert described["classes"] == ["blob"]
    assert not described["layers"]["frozen"]
    assert (detect_run / "environment.json").is_file()
    lines = [json.loads(line) for line in (detect_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val_map50" in line] == [0, 1, 2]


def test_pycocotools_reads_the_predictions_and_agrees(detect_run):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is the oracle")
    from pycocotools.cocoeval import COCOeval

    truth = coco.COCO(str(detect_run / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(detect_run / "predictions.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = json.loads((detect_run / "metrics.json").read_text())["test"]
    assert ours["map50"]["value"] == pytest.approx(evaluation.stats[1], abs=1e-6)
    assert ours["map"]["value"] == pytest.approx(evaluation.stats[0], abs=1e-6)


def test_evaluate_explain_and_predict(detect_run, blob_pack, blobs, tmp_path, cli):
    again = shutil.copytree(detect_run, tmp_path / "again")
    status, _, err = cli(
        "evaluate",
        detect_run,
        again,
        "--data",
        blob_pack,
        "--bootstrap",
        20,
        "--out",
        tmp_path / "e",
        "--apart",
    )
    assert status == 0, err
    figures = json.loads((tmp_path / "e" / "metrics.json").read_text())["arms"]
    trained = json.loads((detect_run / "metrics.json").read_text())["test"]["map50"]["value"]
    assert list(figures) == ["detector", "again"]
    for value in figures.values():
        assert value["test"]["map50"]["value"] == pytest.approx(trained, abs=1e-6)
    assert figures["again"]["difference"]["map50"]["value"] == pytest.approx(0, abs=1e-9)
    assert figures["again"]["options"] == {}

    status, out, err = cli(
        "explain",
        detect_run,
        "--data",
        blob_pack,
        "--out",
        tmp_path / "x",
        "--least-score",
        0,
        "--count",
        2,
        "--boxes",
        2,
    )
    assert status == 0, err
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert len(records) == 4
    for record in records:
        assert Image.open(tmp_path / "x" / record["picture"]).width > 400

    file = blobs.parent / "images" / "im000.png"
    status, out, err = cli(
        "explain",
        detect_run,
        file,
        "--truth",
        blobs,
        "--out",
        tmp_path / "y",
        "--least-score",
        0,
        "--method",
        "ablation-last-stage",
    )
    assert status == 0, err
    assert (
        "last stage"
        in json.loads((tmp_path / "y" / "explanations.json").read_text())[0]["heat_map"]
    )

    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.png").write_bytes(
            (blobs.parent / "images" / f"im00{i}.png").read_bytes()
        )
    (tmp_path / "in" / "broken.png").write_text("this is text")
    status, out, err = cli("predict", detect_run, tmp_path / "in", "--out", tmp_path / "p")
    assert status == 0, err
    assert "3 images, 1 set aside" in out
    assert "research software, not a medical device" in out.lower()
    assert "broken.png" in (tmp_path / "p" / "skipped.csv").read_text()
    assert len(list((tmp_path / "p" / "overlays").iterdir())) == 3
    results = json.loads((tmp_path / "p" / "predictions.json").read_text())
    assert {entry["image_id"] for entry in results} <= {1, 2, 3}
    status, _, err = cli(
        "predict", detect_run, tmp_path / "in", "--out", tmp_path / "q", "--strict"
    )
    assert status == 2
    assert "broken.png" in err


def test_predict_sees_the_same_pixels_as_training(detect_run, blob_pack, blobs):
    """A file decoded, fitted and predicted alone gives the boxes that the pack's row gives."""
    from twinray.data.decoding.images import load_image
    from twinray.inference.model import load_model, prepare_row

    model, pack = load_model(detect_run), open_pack(blob_pack)
    row = int(pack.where("test")[0])
    file = blobs.parent / "images" / pack.table.column("source")[row].as_py().rsplit("/", 1)[-1]
    alone = model.boxes([model.prepare(load_image(file), "x")])[0]
    packed = model.boxes([prepare_row(model, pack, row)])[0]
    np.testing.assert_array_equal(alone.xyxy, packed.xyxy)
    np.testing.assert_array_equal(alone.scores, packed.scores)


def test_ctrl_c_is_no_traceback(tmp_path, class_pack, monkeypatch, cli):
    monkeypatch.setattr(
        "twinray.pretraining.run.train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", tmp_path / "x", "--epochs", 1, *PRETRAIN
    )
    assert status == 130
    assert "--resume" in err


def test_an_unforeseen_error_is_one_line_too(tmp_path, class_pack, monkeypatch, cli):
    monkeypatch.delenv("TWINRAY_TRACEBACK", raising=False)
    monkeypatch.setattr("twinray.pretraining.run.train", lambda *_: 1 / 0)
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", tmp_path / "x", "--epochs", 1, *PRETRAIN
    )
    assert status == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_python_has_every_verb(blob_pack, tmp_path):
    import twinray as package

    config = package.DetectConfig(
        data=blob_pack,
        out=tmp_path / "d",
        arch="resnet18",
        size=64,
        epochs=1,
        batch_size=100,
        fpn_channels=16,
        box_head_width=32,
        rois_per_image=16,
        bootstrap=0,
    )
    run = package.detect(config)
    assert (run.path / "model.safetensors").is_file()
    assert twinray("--version").returncode == 0

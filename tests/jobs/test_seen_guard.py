"""No run is tested on what its weights had seen: refused before any training, and marked where it is forced."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from run_copies import sealed
from twinray.backbones.build import build_backbone
from twinray.backbones.weights import weight_file
from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.run import run as detect
from twinray.errors import InputError
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import run as evaluate
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.jobs.train import summary
from twinray.runs.folder import RunFolder
from twinray.runs.seen import MARK, Seen, inherited, read_seen, write_seen
from twinray.training.record import save_weights

DETECT = {
    "arch": "resnet18", "size": 64, "batch_size": 4, "fpn_channels": 32, "box_head_width": 64, "rois_per_image": 32,
    "anchor_scale": 4.0, "bootstrap": 0, "precision": "float32", "epochs": 1,
}  # fmt: skip


def pretrained(folder: Path, pack: Path, *splits: str, init: str = "random") -> Path:
    """Weights in a run's folder, with the record of having seen the given splits."""
    folder.mkdir(parents=True)
    described = {"kind": "backbone", "arch": "resnet18", "size": 32}
    save_weights(
        RunFolder(folder), "backbone", build_backbone("resnet18", 1).state_dict(), described
    )
    opened = open_pack(pack)
    rows = np.flatnonzero(np.isin(opened.splits.astype(str), splits))
    write_seen(folder, inherited(weight_file(init)).plus(folder, "pretrain", [(opened, rows)]))
    return folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory, class_pack) -> Path:
    """Pre-trained on the training split alone."""
    return pretrained(tmp_path_factory.mktemp("honest") / "pre", class_pack, "train")


@pytest.fixture(scope="module")
def greedy(tmp_path_factory, class_pack) -> Path:
    """Pre-trained on everything."""
    return pretrained(
        tmp_path_factory.mktemp("greedy") / "pre-all", class_pack, "train", "val", "test"
    )


@pytest.fixture(scope="module")
def forced(tmp_path_factory, class_pack, greedy) -> Path:
    """A probe that was tested on seen images."""
    out = tmp_path_factory.mktemp("forced") / "probe"
    classify(
        ClassifyConfig(
            class_pack, out, init=str(greedy), seeds=(0, 1), bootstrap=0, allow_seen=True
        )
    )
    return out


def test_training_images_may_have_been_seen(honest, class_pack, tmp_path):
    run = classify(
        ClassifyConfig(class_pack, tmp_path / "probe", init=str(honest), bootstrap=0)
    ).path
    metrics = json.loads((run / "metrics.json").read_text())
    assert MARK not in metrics["test"]
    assert metrics["init"]["seen"] == "recorded"
    assert metrics["notes"] == list(open_pack(class_pack).info.notes)
    results = evaluate(EvaluateConfig((run,), class_pack, bootstrap=0))
    assert (results.arms["probe"].figures.seen, results.arms["probe"].seen) == (None, "recorded")


def test_a_probe_on_seen_images_is_refused_before_it_starts(greedy, class_pack, tmp_path):
    config = ClassifyConfig(class_pack, tmp_path / "probe", init=str(greedy), bootstrap=0)
    with pytest.raises(
        InputError, match=r"images of split test .*by the pretrain run pre-all.*--allow-seen"
    ):
        classify(config)
    assert not (tmp_path / "probe").exists()


def test_forced_figures_are_marked(forced, class_pack, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    n = len(open_pack(class_pack).where("test"))
    mark = {"value": n, "ci95": None, "n": n}
    metrics = json.loads((forced / "metrics.json").read_text())
    assert metrics["test"][MARK] == mark
    assert any(f"{n} of {n} images" in note for note in metrics["notes"])
    assert f"includes {n} of {n} images that training had seen" in summary(metrics)
    with pytest.raises(InputError, match="--allow-seen"):
        evaluate(EvaluateConfig((forced,), class_pack, out=tmp_path / "e"))
    assert not (tmp_path / "e").exists()
    capsys.readouterr()
    results = evaluate(
        EvaluateConfig((forced,), class_pack, out=tmp_path / "e", bootstrap=0, allow_seen=True)
    )
    assert results.arms["probe"].figures.seen == (mark["value"], mark["n"])
    shown = capsys.readouterr().out
    assert "probe *" in shown
    assert f"probe * includes {n} of {n} images" in shown
    rows = list(csv.DictReader((tmp_path / "e" / "metrics.csv").open()))
    assert [(row["value"], row["n"]) for row in rows if row["measure"] == MARK] == [
        (str(float(n)), str(n))
    ]


def test_permission_is_on_record_and_comes_too_late_for_a_finished_run(
    forced, class_pack, honest, tmp_path, capsys
):
    assert yaml.safe_load((forced / "config.yaml").read_text())["allow_seen"] is True
    out = tmp_path / "probe"
    config = {"init": str(honest), "bootstrap": 0, "resume": True}
    classify(ClassifyConfig(class_pack, out, **config))
    assert "stays as it is" not in capsys.readouterr().err
    made = (out / "metrics.json").read_bytes()
    classify(ClassifyConfig(class_pack, out, allow_seen=True, **config))
    told = f"note: {out} is finished and stays as it is, made with --allow-seen False, not True"
    assert told in capsys.readouterr().err
    assert (out / "metrics.json").read_bytes() == made


def test_weights_without_a_record_are_unknown_not_refused(greedy, class_pack, tmp_path, capsys):
    shutil.copy(greedy / "backbone.safetensors", tmp_path / "found.safetensors")
    config = {"arch": "resnet18", "size": 32, "bootstrap": 0}
    run = classify(
        ClassifyConfig(
            class_pack, tmp_path / "probe", init=str(tmp_path / "found.safetensors"), **config
        )
    ).path
    assert json.loads((run / "metrics.json").read_text())["init"]["seen"] == "unknown"
    assert evaluate(EvaluateConfig((run,), class_pack, bootstrap=0)).arms["probe"].seen == "unknown"
    assert "not recorded" in capsys.readouterr().out
    (run / "seen.json").unlink()  # a run of an older version
    sealed(run)
    assert evaluate(EvaluateConfig((run,), class_pack, bootstrap=0)).arms["probe"].seen == "unknown"


def test_a_detector_is_refused_on_seen_val_or_test_images(blob_pack, tmp_path):
    for split in ("val", "test"):
        run = pretrained(tmp_path / f"pre-{split}", blob_pack, "train", split)
        with pytest.raises(InputError, match=f"images of split {split} ") as refused:
            detect(DetectConfig(blob_pack, tmp_path / "d", init=str(run), **DETECT))
        assert str(refused.value).count("images of split") == 1
    assert not (tmp_path / "d").exists()


def test_a_forced_detector_is_marked(blob_pack, tmp_path, capsys):
    run = pretrained(tmp_path / "pre", blob_pack, "train", "test")
    out = detect(
        DetectConfig(blob_pack, tmp_path / "d", init=str(run), allow_seen=True, **DETECT)
    ).path
    metrics = json.loads((out / "metrics.json").read_text())
    n = len(json.loads((out / "truth.json").read_text())["images"])
    assert metrics["test"][MARK] == {"value": n, "ci95": None, "n": n}
    assert MARK not in metrics["val"]
    assert "note:" in capsys.readouterr().err


def test_a_detector_trained_on_sees_its_images_for_those_after_it(
    detect_run, blobs, blob_pack, class_pack, tmp_path
):
    seen = inherited(detect_run / "model.safetensors")
    pack = open_pack(blob_pack)
    assert [(p.run, p.job, p.use) for p in seen.parts] == [
        ("detector", "detect", "training"),
        ("detector", "detect", "selection"),
    ]
    assert read_seen(detect_run).before.status == "nothing"
    again = detect(
        DetectConfig(blob_pack, tmp_path / "again", init=str(detect_run), **DETECT)
    ).path  # its own splits
    assert [p.run for p in read_seen(again).parts] == ["detector", "detector", "again", "again"]

    other = tmp_path / "cut-anew"  # the same images in other splits
    pack_images(
        PackConfig(
            source=(blobs,),
            format="coco",
            out=other,
            size=64,
            val=0.2,
            test=0.25,
            seed=9,
            workers=1,
        )
    )
    assert open_pack(other).splits.tolist() != pack.splits.tolist()
    with pytest.raises(InputError, match="by the detect run detector"):
        detect(DetectConfig(other, tmp_path / "d", init=str(detect_run), **DETECT))
    with pytest.raises(InputError, match="by the detect run detector"):
        evaluate(EvaluateConfig((detect_run,), other, bootstrap=0))
    results = evaluate(EvaluateConfig((detect_run,), other, bootstrap=0, allow_seen=True))
    assert results.arms["detector"].figures.seen[0] > 0
    for split in ("train", "val", "test"):
        result = evaluate(EvaluateConfig((detect_run,), blob_pack, split=split, bootstrap=0))
        assert result.arms["detector"].figures.seen is None


def test_another_archive_with_the_same_bare_numbers_is_not_refused(
    class_pack, class_folder, tmp_path, capsys
):
    """The same file names, hence patients, in a folder of another name, and other pixels: other people."""
    from PIL import Image

    rng = np.random.default_rng(8)
    for path in sorted(class_folder.rglob("*.png")):
        copy = tmp_path / "clinic" / path.relative_to(class_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8)).save(copy)
    options = {
        "size": 64,
        "val": 0.1,
        "test": 0.3,
        "workers": 1,
        "patient_regex": r"((?:dark|bright)\d+)_",
    }
    pack_images(PackConfig(source=(tmp_path / "clinic",), out=tmp_path / "pack", **options))
    run = pretrained(tmp_path / "pre", tmp_path / "pack", "train", "val", "test")
    out = classify(ClassifyConfig(class_pack, tmp_path / "probe", init=str(run), bootstrap=0)).path
    metrics = json.loads((out / "metrics.json").read_text())
    assert MARK not in metrics["test"]
    assert any("were taken for other people" in note for note in metrics["notes"])
    assert "--shared-patients" in capsys.readouterr().err


def test_a_chain_through_two_pretrainings(class_pack, blob_pack, tmp_path):
    first = pretrained(tmp_path / "first", class_pack, "test")
    second = pretrained(tmp_path / "second", blob_pack, "train", init=str(first))
    with pytest.raises(InputError, match="by the pretrain run first"):
        classify(ClassifyConfig(class_pack, tmp_path / "probe", init=str(second)))
    with pytest.raises(InputError, match="by the pretrain run first"):
        classify(
            ClassifyConfig(
                class_pack, tmp_path / "probe", init=str(second / "backbone.safetensors")
            )
        )
    assert Seen().status == "nothing"

"""The training verbs draw how they go, and resuming a finished run draws nothing anew."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from twinray.jobs.learning import CURVES, _Sketch, pretrain
from twinray.pretraining.config import PretrainConfig
from twinray.training.rundir import RunFolder

TINY = {"arch": "resnet18", "size": 32, "batch_size": 8, "projector": (32, 32), "precision": "float32", "log_every": 1}


def test_a_detector_leaves_its_curves(detect_run):
    assert ElementTree.fromstring((detect_run / CURVES).read_bytes()).tag.endswith("svg")


def test_pretraining_draws_at_the_first_epoch_and_at_the_end(class_pack, tmp_path, monkeypatch):
    drawn: list[int] = []
    plain = _Sketch.draw

    def counted(self: _Sketch, run: RunFolder, best_epoch: int) -> None:
        plain(self, run, best_epoch)
        drawn.append(len(run.history()))

    monkeypatch.setattr(_Sketch, "draw", counted)
    config = PretrainConfig(data=(class_pack,), out=tmp_path / "run", epochs=3, resume=True, knn_every=0, **TINY)
    run = pretrain(config)
    assert (run.path / CURVES).is_file()
    assert drawn == [3, 9]  # three steps an epoch; epochs in between come too soon after the first
    pretrain(config)
    assert drawn == [3, 9]


def test_images_of_packs_to_be_tested_on_are_not_learnt_from(class_pack, tmp_path, cli):
    rest = tmp_path / "rest"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "projector"]
    more = ("--data", class_pack, "--projector", 32, 32, "--epochs", 1, *options, "--out", tmp_path / "run")
    status, _, told = cli("pretrain", *more, "--leave-out", class_pack)
    assert (status, "24 of 24 images left out" in told) == (2, True)
    assert "no image of split train" in told
    status, _, told = cli("pretrain", *more, "--leave-out", rest)
    assert status == 2
    assert str(Path(rest)) in told

"""The training verbs draw how they go, and resuming a finished run draws nothing anew."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from support import DETECT, PRETRAIN
from twinray.jobs import train as learning
from twinray.jobs.train import CURVES, _Sketch, pretrain
from twinray.pretraining.config import PretrainConfig
from twinray.runs.folder import RunFolder

TINY = {
    "arch": "resnet18",
    "size": 32,
    "batch_size": 8,
    "projector": (32, 32),
    "precision": "float32",
    "log_every": 1,
}


def test_a_detector_leaves_its_curves(detect_run):
    assert ElementTree.fromstring((detect_run / CURVES).read_bytes()).tag.endswith("svg")


def test_pretraining_draws_at_the_first_epoch_and_at_the_end(class_pack, tmp_path, monkeypatch):
    drawn: list[int] = []
    plain = _Sketch.draw

    def counted(self: _Sketch, run: RunFolder, best_epoch: int) -> None:
        plain(self, run, best_epoch)
        drawn.append(len(run.history()))

    monkeypatch.setattr(_Sketch, "draw", counted)
    config = PretrainConfig(
        data=(class_pack,), out=tmp_path / "run", epochs=3, resume=True, knn_every=0, **TINY
    )
    run = pretrain(config)
    assert (run.path / CURVES).is_file()
    assert drawn == [3, 9]  # three steps an epoch; epochs in between come too soon after the first
    pretrain(config)
    assert drawn == [3, 9]


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_detect_says_what_came_out_and_a_finished_run_that_it_was(blob_pack, tmp_path, cli):
    run = tmp_path / "run"
    command = ("detect", "--data", blob_pack, "--out", run, *DETECT, "--epochs", 2, "--resume")
    status, first, err = cli(*command)
    assert status == 0, err
    figure = json.loads((run / "metrics.json").read_text())["test"]["map50"]
    assert f"mAP50 {figure['value']:.3f} (95 % interval" in first and "of the test split" in first
    assert "best epoch" in first and " of 2, chosen by: val map50" in first
    assert str(run) in first.splitlines()[0] and "finished already" not in first
    assert lines_of(first)[-1] == "Research software, not a medical device."
    assert len(lines_of(first)) == 4
    status, again, _ = cli(*command)
    assert status == 0 and "finished already, nothing was trained anew" in again.splitlines()[0]
    assert again.splitlines()[1:] == first.splitlines()[1:]


def test_pretrain_says_what_to_do_next(class_pack, tmp_path, cli, monkeypatch, capsys):
    run = tmp_path / "a run"
    status, said, err = cli(
        "pretrain", "--data", class_pack, "--out", run, *PRETRAIN, "--epochs", 2, "--knn-every", 0
    )
    assert status == 0, err
    assert (
        "after 2 epochs" in said and f"--init '{run}'" in said and str(run) in said.splitlines()[0]
    )
    assert "not a medical device" in said
    # as a function it is silent (demo calls it), and of several ranks one talks
    config = PretrainConfig(
        data=(class_pack,), out=tmp_path / "quiet", epochs=1, knn_every=0, **TINY
    )
    pretrain(config)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(learning, "launched_rank", lambda: (1, 2, 1))
    monkeypatch.setattr(learning, "pretrain", lambda config: RunFolder(config.out))
    learning.pretrain_and_tell(config)
    assert capsys.readouterr().out == ""


def test_images_of_packs_to_be_tested_on_are_not_learnt_from(class_pack, tmp_path, cli):
    rest = tmp_path / "rest"
    options = [
        f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "projector"
    ]
    more = (
        "--data",
        class_pack,
        "--projector",
        32,
        32,
        "--epochs",
        1,
        *options,
        "--out",
        tmp_path / "run",
    )
    status, _, told = cli("pretrain", *more, "--leave-out", class_pack)
    assert (status, "24 of 24 images left out" in told) == (2, True)
    assert "no image of split train" in told
    status, _, told = cli("pretrain", *more, "--leave-out", rest)
    assert status == 2
    assert str(Path(rest)) in told

"""Ctrl-C at the real command line: what is kept, and what the line says of it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from support import PRETRAIN, twinray
from twinray.cli import main
from twinray.runs.folder import what_is_kept


def start(*arguments):
    command = [sys.executable, "-m", "twinray", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_for(there, process):
    for _ in range(2400):
        if there() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    assert there()


def test_ctrl_c_saves_the_step_and_the_run_goes_on_from_there(class_pack, tmp_path):
    out = tmp_path / "run"
    options = ("pretrain", "--data", class_pack, "--out", out, *PRETRAIN, "--log-every", 1)
    process = start(*options, "--epochs", 3000)
    log = out / "metrics.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = [line for line in err.splitlines() if line.startswith("twinray: ")]
    assert "Traceback" not in err
    newest = max((out / "checkpoints").glob("step-*.pt"))
    step = int(newest.stem.removeprefix("step-"))
    assert line == (
        f"twinray: interrupted after step {step}, which is saved in {out}; the same command with --resume goes on from there"
    )
    assert json.loads(log.read_text().splitlines()[-1])["step"] <= step
    assert not (out / "metrics.json").exists()


def test_the_line_tells_what_lies_in_the_folder(tmp_path, monkeypatch, capsys, class_pack):
    def stop(config):
        raise KeyboardInterrupt

    def line(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        assert end.value.code == 130
        return capsys.readouterr().err

    monkeypatch.setattr("twinray.jobs.train.pretrain_and_tell", stop)
    monkeypatch.setattr("twinray.jobs.predict.run.run", stop)
    monkeypatch.setattr("twinray.jobs.evaluate.run.run", stop)
    monkeypatch.setattr("twinray.jobs.pack.run", stop)
    out = tmp_path / "out"
    pretrain = ("pretrain", "--data", "p", "--out", out)
    assert line(*pretrain) == "twinray: interrupted; nothing was written\n"
    out.mkdir()
    assert "nothing was written" in line(*pretrain)
    (out / "config.yaml").write_text("job: pretrain\n")
    assert "no step is saved" in line(*pretrain)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "step-000000012.pt").write_bytes(b"")
    assert f"step 12 is saved in {out}, the same command with --resume goes on" in line(*pretrain)
    assert f"{out} holds what was written so far, which is not all" in line(
        "evaluate", "r", "--out", out
    )
    assert f"what was finished is kept in {out}" in line("predict", "r", "i", "--out", out)
    assert f"what was finished is kept in {out}" in line("pack", "s", "--out", out)


def test_finished_label_draws_are_counted(tmp_path):
    for seed in (0, 1):
        (tmp_path / "seeds" / str(seed)).mkdir(parents=True)
        (tmp_path / "seeds" / str(seed) / "draw.json").write_text("{}")
    assert what_is_kept(tmp_path).startswith("2 finished label draws kept in")
    (tmp_path / "seeds" / "2" / "checkpoints").mkdir(parents=True)
    (tmp_path / "seeds" / "2" / "checkpoints" / "step-000000003.pt").write_bytes(b"")
    assert what_is_kept(tmp_path).startswith(f"step 3 is saved in {tmp_path / 'seeds' / '2'}")


def test_a_run_s_own_options_make_the_same_run_again(class_pack, tmp_path, cli):
    run = tmp_path / "pre"
    options = ("--data", class_pack, "--epochs", 1, *PRETRAIN)
    assert cli("pretrain", *options, "--out", run)[0] == 0
    again = tmp_path / "again"
    status, _, err = cli("pretrain", "--config", run / "config.yaml", "--out", again)
    assert status == 0, err
    first, second = (yaml.safe_load((r / "config.yaml").read_text()) for r in (run, again))
    assert {**first, "out": ""} == {**second, "out": ""}
    assert (run / "backbone.safetensors").read_bytes() == (
        again / "backbone.safetensors"
    ).read_bytes()
    status, _, err = cli("detect", f"--config={run / 'config.yaml'}", "--out", tmp_path / "d")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds the options of a pretrain run, not of twinray detect" in err


@pytest.mark.parametrize("policy", ["probe", "head", "full", "surgical"])
def test_options_of_every_policy_are_taken_again(class_pack, tmp_path, cli, policy):
    options = ("--data", class_pack, "--arch", "resnet18", "--size", 32, "--policy", policy)
    more = () if policy == "probe" else ("--epochs", 1)
    assert cli("classify", *options, *more, "--out", tmp_path / "c", "--bootstrap", 0)[0] == 0
    kept = tmp_path / "c" / "config.yaml"
    status, printed, err = cli("classify", "--config", kept, "--print_config")
    assert status == 0, err
    assert {"job": "classify", **yaml.safe_load(printed)} == yaml.safe_load(kept.read_text())


def test_a_detector_s_options_are_taken_again(detect_run, cli):
    status, printed, err = cli("detect", "--config", detect_run / "config.yaml", "--print_config")
    assert status == 0, err
    kept = yaml.safe_load((detect_run / "config.yaml").read_text())
    assert {"job": "detect", **yaml.safe_load(printed)} == kept


def test_pretraining_says_that_it_enlarges_a_pack(class_pack, tmp_path, cli):
    options = ("pretrain", "--data", class_pack, "--epochs", 1, *PRETRAIN)
    status, _, err = cli(*options, "--size", 96, "--out", tmp_path / "a")
    assert status == 0, err
    told = "--size 96 is larger than the images of the pack"
    assert told in err and "(64 pixels)" in err
    assert any(
        told in note for note in json.loads((tmp_path / "a" / "metrics.json").read_text())["notes"]
    )
    status, _, err = cli(*options, "--out", tmp_path / "b")
    assert told not in err
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--arch",
        "resnet18",
        "--size",
        96,
        "--out",
        tmp_path / "c",
    )
    assert status == 0 and told in err


def test_help_ends_quietly_when_nobody_reads_on():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = f"{sys.executable} -m twinray --help | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.startswith("usage: twinray VERB")
    assert done.stderr == ""
    assert twinray("--version").stderr == ""

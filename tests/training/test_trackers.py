"""Copies of a run's log in TensorBoard, MLflow and Weights & Biases, read back with their own readers."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import PRETRAIN, twinray
from twinray.errors import InputError
from twinray.runs.folder import RunFolder
from twinray.training import trackers
from twinray.training.trackers import Trackers, check_trackers
from warm_process import Process

NAMES = ("tensorboard", "mlflow", "wandb")


def of_tensorboard(run: Path) -> Counter[tuple[str, int]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    points: Counter[tuple[str, int]] = Counter()
    for path in (run / "tensorboard").glob("events*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name != "text":
                    points[value.tag, event.step] += 1
    return points


def of_mlflow(run: Path, uri: str | None = None) -> Counter[tuple[str, int]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri or f"sqlite:///{run.resolve()}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("twinray")
    points: Counter[tuple[str, int]] = Counter()
    for one in client.search_runs([experiment.experiment_id]):
        for name in one.data.metrics:
            for point in client.get_metric_history(one.info.run_id, name):
                points[name, point.step] += 1
    return points


def of_wandb(run: Path) -> Counter[tuple[str, int]]:
    """History rows of the offline file of a finished run, which another process writes: it may still be at it."""
    deadline = time.monotonic() + 60
    while True:
        records = list(wandb_records(run))
        if any(one.HasField("exit") for one in records) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    points: Counter[tuple[str, int]] = Counter()
    for record in records:
        items = {
            (i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item
        }
        points.update(
            {(k, items["step"]): 1 for k in items if k != "step" and not k.startswith("_")}
        )
    return points


def wandb_records(run: Path) -> Iterator[Any]:
    """Records of the offline files, in blocks of 32 KiB, as LevelDB writes its log."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2 as proto

    for path in (run / "wandb").rglob("*.wandb"):
        data, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            left = 32768 - at % 32768
            if left < 7:
                at += left
                continue
            _, n, kind = struct.unpack("<IHB", data[at : at + 7])
            whole += data[at + 7 : at + 7 + n]
            at += 7 + n
            if kind in (1, 4):  # a whole record, or the last part of one
                record = proto.Record()
                try:
                    record.ParseFromString(whole)
                except DecodeError:  # its end is not on the disk yet
                    return
                whole = b""
                yield record


READERS = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb}


def of_log(run: Path) -> Counter[tuple[str, int]]:
    points: Counter[tuple[str, int]] = Counter()
    for line in RunFolder(run).history():
        points.update(
            (k, line["step"])
            for k, v in line.items()
            if k != "step" and isinstance(v, (int, float))
        )
    return points


def without_final(points: Counter[tuple[str, int]]) -> Counter[tuple[str, int]]:
    return Counter({key: n for key, n in points.items() if not key[0].startswith("final/")})


def fake_run(root: Path, n: int) -> RunFolder:
    run = RunFolder(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text(
        "job: pretrain\ndata: [/home/someone/pack]\nout: /home/someone/run\nepochs: 3\n"
    )
    for step in range(n):
        run.log({"step": step, "epoch": 0, "loss": 1 / (step + 1), "odd": None, "bad": math.nan})
    return run


KILLED = """
import os, sys
from pathlib import Path
from twinray.runs.folder import RunFolder
from twinray.training.trackers import Trackers
run = RunFolder(Path(sys.argv[1]))
copy = Trackers([sys.argv[2]], False, lambda r, _: {"": r.history()})
copy(run, -1)
run.log({"step": 6, "epoch": 0, "loss": 0.1})
copy(run, -1)
os._exit(9)
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_every_point_once_also_where_steps_were_done_again(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip(trackers._MODULES[name])
    run = fake_run(tmp_path / "run", 6)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.path), name], check=False, timeout=120
    )
    assert done.returncode == 9
    run.forget_after(3)
    for step in (4, 5, 6, 7):
        run.log({"step": step, "epoch": 0, "loss": 2.0})
    second = Trackers([name], False, lambda r, _: {"": r.history()})
    second(run, -1)
    second.finish(run, -1)
    points = READERS[name](run.path)
    assert set(points.values()) == {1}
    assert {step for key, step in points if key == "loss"} == set(range(8))
    assert not {key for key, _ in points} & {"odd", "bad"}


def test_a_server_gets_what_it_does_not_have_and_no_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/server.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = fake_run(tmp_path / "run", 6)
    Trackers(["mlflow"], True, lambda r, _: {"": r.history()})(run, -1)
    run.forget_after(3)
    for step in (4, 5, 6):
        run.log({"step": step, "epoch": 0, "loss": 2.0})
    again = Trackers(["mlflow"], True, lambda r, _: {"": r.history()})
    again(run, -1)
    again.finish(run, -1)
    points = of_mlflow(run.path, uri)
    assert set(points.values()) == {1} and ("loss", 6) in points
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (kept,) = client.search_runs([client.get_experiment_by_name("twinray").experiment_id])
    assert kept.data.params == {"epochs": "3", "job": "pretrain"}, (
        "options that name places stay here"
    )
    assert kept.info.status == "FINISHED"


def test_a_tracker_that_fails_is_left_alone_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Any] = []

    class Good:
        def write(self, rows: Any) -> None:
            written.extend(rows)

        def close(self, final: Any) -> None:
            written.append("closed")

    class Bad(Good):
        def write(self, rows: Any) -> None:
            raise OSError("no space\nleft")

    monkeypatch.setattr(
        trackers, "_OPENERS", {"wandb": lambda *_: Bad(), "mlflow": lambda *_: Good()}
    )
    run = fake_run(tmp_path / "run", 2)
    both = Trackers(["wandb", "mlflow"], False, lambda r, _: {"": r.history()})
    both(run, -1)
    both(run, -1)
    both.finish(run, -1)
    assert written == [(0, {"epoch": 0.0, "loss": 1.0}), (1, {"epoch": 0.0, "loss": 0.5}), "closed"]
    told = capsys.readouterr().err.splitlines()
    assert (
        len(told) == 1
        and "wandb takes no more of this run (no space left); the run goes on" in told[0]
    )


def test_what_cannot_be_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_MODULES", {"mlflow": "no_such_package"})
    with pytest.raises(InputError, match=r"pip install 'twinray\[mlflow\]'"):
        check_trackers(("mlflow",), False)
    with pytest.raises(InputError, match="give --track too"):
        check_trackers((), True)
    monkeypatch.setattr(trackers, "_MODULES", {"mlflow": "json"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="it names none"):
        check_trackers(("mlflow",), True)


def test_a_run_that_is_killed_and_resumed_is_copied_without_doubles(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    twinray(
        "pack",
        "--format",
        "phantom",
        "--phantom-images",
        48,
        "--size",
        32,
        "--out",
        tmp_path / "p",
        "--workers",
        1,
        check=True,
    )
    words = ("pretrain", "--data", tmp_path / "p", "--out", tmp_path / "r", *PRETRAIN, "--epochs", 6, "--log-every", 1,
             "--track", "tensorboard", "--resume", "--device", "cpu", "--checkpoint-minutes", 0.001)  # fmt: skip
    started = Process(["-m", "twinray.cli", *words], {**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and started.poll() is None:
        if (tmp_path / "r" / "tensorboard").is_dir() and len(
            RunFolder(tmp_path / "r").history()
        ) > 6:
            break
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = twinray(*words, check=True)
    assert "takes no more" not in done.stderr
    points = of_tensorboard(tmp_path / "r")
    assert without_final(points) == of_log(tmp_path / "r")
    assert any(key.startswith("final/") for key, _ in points)

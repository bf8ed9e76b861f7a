"""`kill -9`, then `--resume`: the weights of an uninterrupted run, byte for byte, on the CPU."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from support import DETECT, PRETRAIN, ranks, twinray
from warm_process import Process


def kill_after(
    arguments: list[str], run: Path, lines: int, log_name: str = "metrics.jsonl"
) -> None:
    """Start the real command and kill it once its log has the given number of lines."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = Process(["-m", "twinray.cli", *arguments], environment)
    log, deadline = run / log_name, time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) >= lines:
            break
        time.sleep(0.005)
    assert process.poll() is None, (
        f"the run ended before it could be killed: make it longer\n{process.communicate()[1]}"
    )
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("verb", "weights"), [("pretrain", "backbone.safetensors"), ("detect", "model.safetensors")]
)
def test_killed_runs_continue_to_the_same_bytes(verb, weights, class_pack, blob_pack, tmp_path):
    options = {
        "pretrain": [
            "--data",
            class_pack,
            "--epochs",
            4,
            "--checkpoint-every",
            2,
            "--log-every",
            1,
            "--pairs",
            "patient",
            "--average",
            0.3,
            "--norm-statistics",
            "whole",
            *PRETRAIN,
        ],
        "detect": [
            "--data",
            blob_pack,
            "--epochs",
            4,
            "--checkpoint-every",
            2,
            "--log-every",
            1,
            *DETECT,
        ],
    }[verb]
    arguments = [str(a) for a in (verb, *options)]
    twinray(*arguments, "--out", tmp_path / "whole", check=True)
    cut = tmp_path / "cut"
    for lines in (3, 8):  # twice in one run, in the middle of an epoch and later
        kill_after([*arguments, "--out", str(cut), "--resume"], cut, lines)
        assert not (cut / weights).exists()
    twinray(*arguments, "--out", cut, "--resume", check=True)
    assert (cut / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    if verb == "detect":
        for name in ("predictions.json", "truth.json"):
            assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_killed_classifier_goes_on_to_the_same_bytes(class_pack, tmp_path):
    """Killed in the middle of its second draw: the first, which was finished, is not trained again."""
    small = (
        "--arch",
        "resnet18",
        "--size",
        32,
        "--batch-size",
        8,
        "--bootstrap",
        20,
        "--precision",
        "float32",
    )
    more = (
        "--policy",
        "full",
        "--seeds",
        0,
        1,
        "--epochs",
        2,
        "--least-steps",
        6,
        "--checkpoint-every",
        2,
        "--log-every",
        1,
    )
    arguments = [str(a) for a in ("classify", "--data", class_pack, *small, *more)]
    twinray(*arguments, "--out", tmp_path / "whole", check=True)
    cut = tmp_path / "cut"
    kill_after([*arguments, "--out", str(cut), "--resume"], cut, 5, "seeds/1/metrics.jsonl")
    assert not (cut / "model.safetensors").exists()
    assert (cut / "seeds" / "0" / "draw.json").exists() and not (
        cut / "seeds" / "1" / "draw.json"
    ).exists()
    finished = (cut / "seeds" / "0" / "draw.json").stat().st_mtime_ns
    twinray(*arguments, "--out", cut, "--resume", check=True)
    assert (cut / "seeds" / "0" / "draw.json").stat().st_mtime_ns == finished
    for name in ("model.safetensors", "predictions.csv", "predictions.parquet"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def killed_at_random(
    arguments: list[object], run: Path, n_ranks: int, kills: int, seed: int, limit: float
) -> None:
    """Start, `kill -9` every rank at a random moment, start again, ...; then let it end."""
    rng = random.Random(seed)
    command = ["-m", "twinray.cli", *arguments, "--out", run, "--resume"]
    done = 0
    while done < kills:
        processes = ranks(n_ranks, command, start_only=True)
        checkpoints, before = run / "checkpoints", {p.name for p in run.glob("checkpoints/*.pt")}
        deadline = time.monotonic() + limit / 2
        # some moment after training began again: before, there is nothing new to lose
        while time.monotonic() < deadline and processes[0].poll() is None:
            if {p.name for p in checkpoints.glob("*.pt")} - before or rng.random() < 0.01:
                break
            time.sleep(0.02)
        time.sleep(rng.random() * 0.5)
        over = processes[0].poll() is not None
        for process in processes:
            process.kill()
            process.communicate()
        assert not over, "the run ended before it could be killed often enough: make it longer"
        done += 1
    ranks(n_ranks, command, limit=limit)


LIMIT = {20: 1800, 1: 240}
LONG = [pytest.mark.long, pytest.mark.timeout(3600)]


# On one rank the suite kills at chosen moments (above), and at many random ones in the long set.
@pytest.mark.parametrize(
    ("kills", "n_ranks"), [pytest.param(20, 1, marks=LONG), pytest.param(20, 2, marks=LONG), (1, 2)]
)
def test_pretraining_killed_at_random_moments_ends_with_the_same_bytes(
    n_ranks, kills, class_pack, tmp_path
):
    epochs = 40 if kills > 1 else 4
    more = ["--epochs", epochs, "--checkpoint-every", 2, "--log-every", 1, "--knn-every", 0]
    more += ["--average", 0.3, "--norm-statistics", "whole"]
    arguments = ["pretrain", "--data", class_pack, *PRETRAIN, *more]
    ranks(
        n_ranks, ["-m", "twinray.cli", *arguments, "--out", tmp_path / "whole"], limit=LIMIT[kills]
    )
    killed_at_random(arguments, tmp_path / "cut", n_ranks, kills, n_ranks, LIMIT[kills])
    whole, cut = (
        (tmp_path / name / "backbone.safetensors").read_bytes() for name in ("whole", "cut")
    )
    assert cut == whole


@pytest.mark.parametrize("kills", [pytest.param(20, marks=LONG)])
def test_detectors_on_two_ranks_killed_at_random_moments_end_with_the_same_bytes(
    kills, blob_pack, tmp_path
):
    epochs = 30
    arguments = ["detect", "--data", blob_pack, *DETECT, "--epochs", epochs, "--checkpoint-every", 1, "--log-every", 1]  # fmt: skip
    ranks(2, ["-m", "twinray.cli", *arguments, "--out", tmp_path / "whole"], limit=LIMIT[kills])
    killed_at_random(arguments, tmp_path / "cut", 2, kills, 5, LIMIT[kills])
    for name in ("model.safetensors", "predictions.json", "predictions_val.json", "truth.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

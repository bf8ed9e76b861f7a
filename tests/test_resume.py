"""`kill -9`, then `--resume`: the weights of an uninterrupted run, byte for byte, on the CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import DETECT, PRETRAIN, twinray


def kill_after(arguments: list[str], run: Path, lines: int) -> None:
    """Start the real command and kill it once its log has the given number of lines."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "twinray.cli", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) >= lines:
            break
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed: make it longer"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(("verb", "weights"), [("pretrain", "backbone.safetensors"), ("detect", "model.safetensors")])
def test_killed_runs_continue_to_the_same_bytes(verb, weights, class_pack, blob_pack, tmp_path):
    options = {
        "pretrain": ["--data", class_pack, "--epochs", 4, "--checkpoint-every", 2, "--log-every", 1, *PRETRAIN],
        "detect": ["--data", blob_pack, "--epochs", 4, "--checkpoint-every", 2, "--log-every", 1, *DETECT],
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

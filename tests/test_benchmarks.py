"""The benchmarks start, and the one of pre-training still fits the loop that the job builds; no time is judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text())
PEERS = ("pytorch_grad_cam", "lightly", "pycocotools", "ensemble_boxes")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_runs(script):
    done = run(script, "--help")
    missing = re.search(r"No module named '(\w+)", done.stderr)
    if missing and missing[1] in PEERS:
        pytest.skip(f"{missing[1]}, which {script} compares with, is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_pretraining_is_measured_on_the_jobs_own_loop(class_pack, tmp_path):
    small = ("--arch", "resnet18", "--sizes", 32, "--batch-size", 8, "--projector", 16, 16, "--precision", "float32")
    short = ("--warmup", 1, "--steps", 2, "--repeats", 2, "--device", "cpu", "--skip-lightly")
    done = run("pretrain_throughput.py", "--pack", class_pack, *small, *short, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["sizes"]
    assert {name: len(rates) for name, rates in figures["rates"].items()} == {
        "twinray, end to end": 2,
        "the same, pixels on the device": 2,
        "network alone, views ready": 2,
    }
    assert all(rate["pairs_per_s"] > 0 for rates in figures["rates"].values() for rate in rates)
    assert all(0 <= rate["data_wait"] <= 1 for rate in figures["rates"]["twinray, end to end"])
    assert all(name in done.stdout for name in figures["rates"])
    assert "left out" in done.stdout


def test_bad_input_is_one_line(tmp_path):
    done = run("pretrain_throughput.py", "--pack", tmp_path / "none", "--skip-lightly")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "error: " in done.stderr

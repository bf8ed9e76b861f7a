"""Packs and runs that an earlier version wrote open, evaluate, predict and resume as they did then.

``scripts/make_generation.py`` made the fixtures, with the version that their name tells.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twinray.data.pack import open_pack, verify_pack

FIXTURES = Path(__file__).parent / "fixtures" / "generations"
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in FIXTURES.glob("*.tar.xz"))
NETWORK = ("--arch", "timm/test_convnext", "--size", 32, "--projector", 8, 8)

pytest.importorskip("timm", reason="the fixtures' backbone is timm's smallest")


@pytest.fixture(scope="module", params=NAMES)
def generation(request, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The unpacked folder, and what its own version said of it."""
    folder = tmp_path_factory.mktemp("generation")
    with tarfile.open(FIXTURES / f"{request.param}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder, json.loads((FIXTURES / f"{request.param}.json").read_text())


@pytest.fixture
def verb(cli, generation, monkeypatch):
    """Run a verb in the unpacked folder, where the paths in the runs' files lead."""
    monkeypatch.chdir(generation[0])

    def run(*arguments: object) -> None:
        status, _, error = cli(*arguments)
        assert status == 0, error

    return run


def values(figures: dict[str, Any]) -> dict[str, float]:
    """The measures that both versions know, without their intervals."""
    found = {
        name: entry["value"]
        for name, entry in figures.items()
        if isinstance(entry, dict) and "value" in entry
    }
    return {name: value for name, value in found.items() if value is not None}


def test_packs_open_and_hold_what_is_packed_today(generation, verb, tmp_path: Path) -> None:
    """The phantom is drawn in another way since; what a pack says of its images is the same."""
    folder, _ = generation
    old = verify_pack(folder / "pack")
    verb(
        "pack", "--format", "phantom", "--phantom-images", 24, "--size", 32, "--seed", 3, "--out", tmp_path / "new",
    )  # fmt: skip
    new = open_pack(tmp_path / "new")
    assert new.ids.tolist() == old.ids.tolist()
    for part in ("label_classes", "box_classes", "task", "size", "channels", "fit"):
        assert getattr(new.info, part) == getattr(old.info, part)


@pytest.mark.parametrize("run", ["detector", "classifier"])
def test_runs_evaluate_as_they_did(generation, verb, tmp_path: Path, run: str) -> None:
    _, expected = generation
    out = tmp_path / "evaluation"
    arguments = (
        "evaluate",
        run,
        "--data",
        "pack",
        "--bootstrap",
        0,
        "--device",
        "cpu",
        "--out",
        out,
    )
    verb(*arguments)
    verb("evaluate", run, "--bootstrap", 20)  # from what it kept alone
    now = values(json.loads((out / "metrics.json").read_text())["arms"][run]["test"])
    then = values(expected[run])
    assert len(then) >= 4
    assert {name: now[name] for name in then} == pytest.approx(then, abs=1e-5)


def test_detectors_find_the_same_boxes(generation, verb, tmp_path: Path) -> None:
    _, expected = generation
    verb(
        "evaluate", "detector", "--data", "pack", "--bootstrap", 0, "--device", "cpu", "--out", tmp_path / "out",
    )  # fmt: skip
    now = json.loads((tmp_path / "out" / "predictions detector.json").read_text())
    for one in expected["predictions"]:
        of_image = [
            p
            for p in now
            if p["image_id"] == one["image_id"] and p["category_id"] == one["category_id"]
        ]
        nearest = min(of_image, key=lambda p: np.abs(np.subtract(p["bbox"], one["bbox"])).max())
        assert nearest["bbox"] == pytest.approx(one["bbox"], abs=0.02)
        assert nearest["score"] == pytest.approx(one["score"], abs=1e-4)


@pytest.mark.parametrize("run", ["detector", "classifier"])
def test_runs_predict(verb, tmp_path: Path, run: str) -> None:
    Image.fromarray(np.full((40, 50), 90, np.uint8)).save(tmp_path / "image.png")
    verb("predict", run, tmp_path / "image.png", "--device", "cpu", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").is_file()


def test_an_interrupted_run_ends_as_it_would_have(generation, verb) -> None:
    folder, expected = generation
    arguments = (
        "pretrain", "--data", "pack", *NETWORK, "--epochs", 3, "--batch-size", 4, "--device", "cpu",
        "--keep-checkpoints", 9, "--out", "interrupted", "--resume",
    )  # fmt: skip
    verb(*arguments)
    lines = [
        json.loads(line)
        for line in (folder / "interrupted" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(
        expected["resumed_loss"], rel=1e-3
    )
    assert (folder / "interrupted" / "backbone.safetensors").is_file()

"""Packs and runs of one version of twinray, small enough to keep: ``tests/fixtures/generations/NAME.tar.xz``.

    PYTHONPATH=CHECKOUT_OF_THAT_VERSION/src python scripts/make_generation.py NAME

The runs are made by the command line of the version on ``PYTHONPATH``, from the phantom. Then their weights are rounded
to a few values, so that they compress to a tenth, and that version says once more what it predicts, how it
evaluates, and how the interrupted run ends: later versions must say the same of the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "generations"
LEVELS = 2
"""Values on either side of zero that a rounded tensor may take."""
NETWORK = ("--arch", "timm/test_convnext")


def twinray(*arguments: object) -> None:
    """Run a verb of the version on ``PYTHONPATH``, on the processor, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def rounded(value: Any) -> Any:
    """Float tensors with few values, everything else as it is."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 64:
        step = value.abs().mean() * 2 / LEVELS
        return (value / step.clamp_min(1e-12)).round().clamp(-LEVELS, LEVELS) * step
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(rounded(item) for item in value)
    return value


def round_weights(path: Path) -> None:
    """Round a weight file, and let its description name the new bytes."""
    state = {
        name: rounded(tensor).contiguous()
        for name, tensor in safetensors.torch.load_file(path).items()
    }
    path.write_bytes(safetensors.torch.save(state))
    description = json.loads(path.with_suffix(".json").read_text())
    description["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(description, indent=1))


def interrupt(run: Path) -> None:
    """Back to the checkpoint after two epochs of three, as a kill would have left it."""
    checkpoints = sorted((run / "checkpoints").glob("step-*.pt"))
    for later in checkpoints[2:]:
        later.unlink()
    checkpoints[0].unlink()
    for made in ("backbone.safetensors", "backbone.json", "metrics.json", "curves.svg"):
        (run / made).unlink(missing_ok=True)
    torch.save(rounded(torch.load(checkpoints[1], weights_only=True)), checkpoints[1])


def main() -> None:
    """Make the fixture that the first argument names."""
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        phantom = ("pack", "--format", "phantom", "--phantom-images", 24, "--size", 32, "--seed", 3)
        twinray(*phantom, "--out", "pack")
        training = ("--epochs", 3, "--batch-size", 4, "--device", "cpu")
        pretrain = (
            "pretrain",
            "--data",
            "pack",
            *NETWORK,
            "--size",
            32,
            "--projector",
            8,
            8,
            *training,
            "--keep-checkpoints",
            9,
        )
        twinray(*pretrain, "--out", "pretrained")
        shutil.copytree("pretrained", "interrupted")
        (config := Path("interrupted/config.yaml")).write_text(
            config.read_text().replace("out: pretrained", "out: interrupted")
        )
        interrupt(Path("interrupted"))
        shutil.rmtree("pretrained/checkpoints")
        round_weights(Path("pretrained/backbone.safetensors"))
        detect = (
            "detect",
            "--data",
            "pack",
            "--size",
            64,
            "--fpn-channels",
            8,
            "--box-head-width",
            8,
            *training,
        )
        twinray(*detect, "--init", "pretrained", "--out", "detector")
        twinray(
            "classify",
            "--data",
            "pack",
            "--init",
            "pretrained",
            "--seeds",
            0,
            1,
            "--device",
            "cpu",
            "--out",
            "classifier",
        )
        for run in ("detector", "classifier"):
            shutil.rmtree(f"{run}/checkpoints", ignore_errors=True)
            round_weights(Path(run) / "model.safetensors")
            for picture in Path(run).glob("*.svg"):
                picture.unlink()
        (FOLDER).mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
            for part in ("pack", "pretrained", "interrupted", "detector", "classifier"):
                archive.add(part)
        (FOLDER / f"{name}.tar.xz").write_bytes(buffer.getvalue())
        (FOLDER / f"{name}.json").write_text(json.dumps(expected(), indent=1) + "\n")


def expected() -> dict[str, Any]:
    """What this version says of the rounded files."""
    for run in ("detector", "classifier"):
        twinray(
            "evaluate",
            run,
            "--data",
            "pack",
            "--bootstrap",
            0,
            "--device",
            "cpu",
            "--out",
            f"evaluated-{run}",
        )
    resumed = (
        "pretrain",
        "--data",
        "pack",
        *NETWORK,
        "--size",
        32,
        "--projector",
        8,
        8,
        "--epochs",
        3,
        "--batch-size",
        4,
    )
    twinray(
        *resumed, "--device", "cpu", "--keep-checkpoints", 9, "--out", "interrupted", "--resume"
    )
    lines = [
        json.loads(line) for line in Path("interrupted/metrics.jsonl").read_text().splitlines()
    ]
    return {
        "detector": json.loads(Path("evaluated-detector/metrics.json").read_text())["detector"][
            "test"
        ],
        "predictions": best(
            json.loads(Path("evaluated-detector/predictions detector.json").read_text())
        ),
        "classifier": json.loads(Path("evaluated-classifier/metrics.json").read_text())[
            "classifier"
        ]["test"],
        "resumed_loss": [line["loss"] for line in lines if "loss" in line],
    }


def best(predictions: list[dict[str, Any]], most: int = 5) -> list[dict[str, Any]]:
    """The best boxes of every image: enough to tell one detector from another."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for one in sorted(predictions, key=lambda p: -p["score"]):
        by_image.setdefault(one["image_id"], []).append(one)
    return [one for found in by_image.values() for one in found[:most]]


if __name__ == "__main__":
    main()

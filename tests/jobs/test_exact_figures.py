"""Figures, predictions and heat maps are made in full float32, whatever training may shorten on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from support import DETECT


@pytest.fixture
def convolutions():
    """Of every convolution, in turn: (whether a GPU might shorten its factors, whether its network was learning)."""
    seen: list[tuple[bool, bool]] = []

    def look(module: nn.Module, _) -> None:
        if isinstance(module, nn.Conv2d):
            seen.append((torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()))

    hook = register_module_forward_pre_hook(look)
    yield seen
    hook.remove()


@pytest.fixture(scope="module")
def probe_run(tmp_path_factory, class_pack):
    from twinray.classification.config import ClassifyConfig
    from twinray.classification.run import run

    out = tmp_path_factory.mktemp("runs") / "probe"
    run(
        ClassifyConfig(
            data=class_pack, out=out, arch="resnet18", size=32, bootstrap=0, device="cpu"
        )
    )
    return out


def test_a_detector_learns_with_shortened_factors_and_is_tested_without(
    blob_pack, tmp_path, cli, convolutions
):
    options = ["--epochs", 1, *DETECT, "--device", "cpu"]
    assert cli("detect", "--data", blob_pack, "--out", tmp_path / "run", *options)[0] == 0
    short = [tf32 for tf32, _ in convolutions]
    assert all(tf32 for tf32, learning in convolutions if learning)
    first = short.index(False)  # then nothing but final figures
    assert first > 0 and not any(short[first:])


@pytest.mark.parametrize("policy", [("probe",), ("full", "--epochs", 1, "--batch-size", 8)])
def test_a_classifier_is_tested_without(class_pack, tmp_path, cli, convolutions, policy):
    options = [
        "--arch",
        "resnet18",
        "--size",
        32,
        "--bootstrap",
        0,
        "--device",
        "cpu",
        "--policy",
        *policy,
    ]
    status, _, error = cli("classify", "--data", class_pack, "--out", tmp_path / "run", *options)
    assert status == 0, error
    assert convolutions and not convolutions[-1][0]
    if policy == ("probe",):
        assert not any(tf32 for tf32, _ in convolutions)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--bootstrap", 0),
        ("explain", "--method", "grad-cam"),
        ("explain", "--method", "ablation-rerun", "--count", 1, "--boxes", 1),
        ("faithfulness", "--methods", "occlusion", "--least-score", 0, "--curve-points", 2),
    ],
)
def test_a_detector_answers_without(detect_run, blob_pack, tmp_path, cli, convolutions, arguments):
    verb, *options = arguments
    status, _, error = cli(
        verb,
        detect_run,
        "--data",
        blob_pack,
        *options,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert status == 0, error
    assert convolutions and not any(tf32 for tf32, _ in convolutions)


@pytest.mark.parametrize("method", [None, "grad-cam", "occlusion"])
def test_a_classifier_answers_without(probe_run, class_pack, tmp_path, cli, convolutions, method):
    options = (
        ("evaluate", "--bootstrap", 0)
        if method is None
        else ("explain", "--method", method, "--count", 1)
    )
    verb, *more = options
    status, _, error = cli(
        verb, probe_run, "--data", class_pack, *more, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert status == 0, error
    assert convolutions and not any(tf32 for tf32, _ in convolutions)


def test_files_are_predicted_without(detect_run, probe_run, blobs, tmp_path, cli, convolutions):
    images = sorted((blobs.parent / "images").iterdir())[:3]
    for run in (detect_run, probe_run):
        out = tmp_path / run.name
        status, _, error = cli("predict", run, *images, "--out", out, "--device", "cpu")
        assert status == 0, error
    assert convolutions and not any(tf32 for tf32, _ in convolutions)

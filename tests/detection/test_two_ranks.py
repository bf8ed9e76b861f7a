"""``detect`` under torchrun against ``detect`` on one rank: statistics of the norms, and weights where nothing is drawn by rank."""

import json
import os
from pathlib import Path

import safetensors.torch
import torch

import warm_process
from support import DETECT, ranks
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.options import resolve
from twinray.detection.run import make_detector

STILL = ("--flip", 0, "--scale", 1, 1, "--brightness", 0, "--contrast", 0)
"""Without augmentation every rank sees what one rank would see."""


def weights(run):
    return safetensors.torch.load_file(run / "model.safetensors")


def started(options):
    """Weights before training of a ``detect`` command."""
    config = DetectConfig(
        data=Path(options[2]), out=Path("nowhere"), arch="resnet18", size=64, fpn_channels=32,
        protocol="as-published", detector="retinanet",
    )  # fmt: skip
    return make_detector(resolve(config), open_pack(config.data))[0].state_dict()


def test_as_published_on_two_ranks_of_torchrun_is_one_rank(blob_pack, tmp_path, cli):
    """RetinaNet samples nothing and takes means over images: the recipe allows equal weights."""
    options = (
        "detect", "--data", blob_pack, "--protocol", "as-published", "--detector", "retinanet", "--arch", "resnet18",
        "--size", 64, "--batch-size", 4, "--fpn-channels", 32, "--anchor-scale", 4, "--bootstrap", 0,
        "--precision", "float32", "--epochs", 2, "--warmup-steps", 0, "--lr", 0.01, "--device", "cpu", *STILL,
    )  # fmt: skip
    status, _, err = cli(*options, "--out", tmp_path / "one")
    assert status == 0, err
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "twinray"]  # fmt: skip
    done = warm_process.run(
        [*command, *options, "--out", tmp_path / "two"], {**os.environ, "OMP_NUM_THREADS": "1"}, 400
    )
    assert done.returncode == 0, done.stderr
    one, two, start = weights(tmp_path / "one"), weights(tmp_path / "two"), started(options)
    assert one.keys() == two.keys() == start.keys()
    moved = max(float((one[n] - t).abs().max()) for n, t in start.items() if t.is_floating_point())
    assert moved > 1e-3
    for name, value in one.items():
        # in float32 the ranks' sums round in another order
        assert float((two[name].double() - value.double()).abs().max()) <= 0.01 * moved, name
        layer = name.removeprefix("backbone.body.")
        if (
            layer.startswith(("conv1", "bn1", "layer1"))
            or "running" in name
            or "num_batches" in name
        ):
            assert torch.equal(value, start[name]) and torch.equal(two[name], start[name]), name


def test_statistics_of_a_faster_rcnn_move_on_two_ranks_where_they_do_on_one(
    blob_pack, tmp_path, cli
):
    """One step: what the network saw before it is the same, so the statistics are too."""
    options = (
        "detect", "--data", blob_pack, "--protocol", "as-published", *DETECT, *STILL, "--norm", "trainable",
        "--trainable-stages", 2, "--fraction", 0.4, "--epochs", 1, "--device", "cpu",
    )  # fmt: skip
    status, _, err = cli(*options, "--out", tmp_path / "one")
    assert status == 0, err
    ranks(2, ["-m", "twinray", *options, "--out", tmp_path / "two"])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    n = json.loads((tmp_path / "one" / "metrics.json").read_text())["training_images"]
    assert 4 <= n < 8  # one batch
    moved = set()
    for name, value in one.items():
        if "running" not in name or not name.startswith("backbone.body."):
            continue
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
        fresh = torch.zeros_like(value) if name.endswith("mean") else torch.ones_like(value)
        if not torch.equal(value, fresh):
            moved.add(name.removeprefix("backbone.body.").partition(".")[0])
    assert moved == {"layer3", "layer4"}

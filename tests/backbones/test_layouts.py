"""Layouts of other people's weight files, and values that no network can compute with."""

from __future__ import annotations

import collections

import pytest
import torch
import torchvision

from twinray.backbones.build import build_backbone
from twinray.backbones.weights import initialise
from twinray.errors import InputError


@pytest.fixture(scope="module")
def body():
    """Random weights of torchvision's own ResNet-18, without its classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        whole = torchvision.models.resnet18().state_dict()
    return {key: value for key, value in whole.items() if not key.startswith("fc.")}


def behind(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def zeros(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


def numbered(state):
    """What ``nn.Sequential(*list(resnet.children())[:-1])`` calls them, asked from torch itself."""
    net = torchvision.models.resnet18()
    net.load_state_dict(state, strict=False)
    return torch.nn.Sequential(*list(net.children())[:-1]).state_dict()


LAYOUTS = {
    "MoCo's query encoder, not its key encoder": lambda b: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": behind("module.encoder_k.", zeros(b))
        | behind("module.encoder_q.", b)
        | {"module.encoder_q.fc.0.weight": torch.ones(2, 2), "module.queue": torch.zeros(128, 4)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{}]},
    },
    "MoCo v3's base encoder": lambda b: {
        "state_dict": behind("module.momentum_encoder.", zeros(b))
        | behind("module.base_encoder.", b)
        | {"module.predictor.0.weight": torch.ones(4, 4), "module.base_encoder.fc.0.weight": torch.ones(4, 4)}
    },
    "torch.compile": lambda b: {"state_dict": behind("_orig_mod.", b)},
    "torch.compile in DDP": lambda b: behind("module._orig_mod.", b),
    "DDP in torch.compile": lambda b: behind("_orig_mod.module.backbone.", b),
    "a compiled backbone in a wrapper": lambda b: behind("model.backbone._orig_mod.", b),
    "Barlow Twins' checkpoint": lambda b: {
        "epoch": 999,
        "model": behind("module.backbone.", b)
        | {"module.projector.0.weight": torch.ones(4, 4), "module.bn.running_mean": torch.ones(4)},
        "optimizer": {},
    },
    "DINO's full checkpoint: the teacher": lambda b: {
        "student": behind("module.backbone.", zeros(b)),
        "teacher": behind("backbone.", b),
        "args": "text",
    },
    "solo-learn": lambda b: {
        "state_dict": behind("momentum_backbone.", zeros(b)) | behind("backbone.", b),
        "pytorch-lightning_version": "2.0",
    },
    "older solo-learn": lambda b: {"state_dict": behind("encoder.", b) | {"projector.0.weight": torch.ones(2, 2)}},
    "OpenMMLab": lambda b: {"meta": {"epoch": 1}, "state_dict": behind("backbone.", b) | {"neck.0.weight": torch.ones(2)}},
    "SwAV": lambda b: behind("module.", b) | {"module.prototypes.weight": torch.ones(3, 2)},
    "BioViL": lambda b: behind("encoder.encoder.", b) | {"projector.model.0.weight": torch.ones(2, 2)},
    "GLoRIA": lambda b: {"state_dict": behind("gloria.img_encoder.model.", b)},
    "lightly's Sequential": lambda b: {
        "state_dict": behind("backbone.", numbered(b)) | {"projection_head.layers.0.weight": torch.ones(2, 2)}
    },
    "RadImageNet's numbered children": lambda b: behind("backbone.", numbered(b)),
    "a bare Sequential": numbered,
    "weights without counters": lambda b: {k: v for k, v in b.items() if "num_batches" not in k},
    "half precision": lambda b: {k: v.half() if v.is_floating_point() else v for k, v in b.items()},
    "an exponential average beside the model": lambda b: {"model": b, "model_ema": zeros(b)},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_loads_completely(tmp_path, body, layout):
    torch.save(LAYOUTS[layout](body), tmp_path / "w.pth.tar")
    backbone = build_backbone("resnet18", 0)
    found = initialise(backbone, str(tmp_path / "w.pth.tar"))
    exact = layout != "half precision"
    for key, value in backbone.state_dict().items():
        if "num_batches" not in key:
            want = body[key] if exact else body[key].half().float()
            assert torch.equal(value, want), key
    second = any(word in layout for word in ("key", "base", "teacher", "solo-learn", "average"))
    if second and layout != "older solo-learn":
        assert "was taken, not" in " ".join(found.notes)


def test_two_networks_that_nothing_tells_apart_are_refused_by_their_prefixes(tmp_path, body):
    state = behind("left.", body) | behind("right.", zeros(body))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"prefixes 'left\.', 'right\.'"):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))
    torch.save(
        behind("left.", body) | behind("right.", body), tmp_path / "w.pth"
    )  # equal: no matter
    initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))


def test_a_first_convolution_of_one_channel_computes_the_same_of_grey(tmp_path, body):
    net = torchvision.models.resnet18()
    net.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    net.load_state_dict({k: v for k, v in body.items() if k != "conv1.weight"}, strict=False)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone("resnet18", 0).eval()
    found = initialise(backbone, str(tmp_path / "w.pth"))
    assert "conv1.weight" in found.notes[0] and "one channel" in found.notes[0]
    grey = torch.rand(2, 1, 64, 64)
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(grey.repeat(1, 3, 1, 1)), net.eval()(grey), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("shape", [(64, 2, 7, 7), (64, 1, 3, 3), (32, 1, 7, 7)])
def test_other_first_convolutions_are_refused(tmp_path, body, shape):
    torch.save(body | {"conv1.weight": torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"of another shape: conv1\.weight"):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))


def test_counters_are_not_counted_as_tensors_that_fit(tmp_path, body):
    strange = {f"net.{i}.kernel": value for i, value in enumerate(body.values())}
    torch.save(strange, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no name of a tensor ends as one") as caught:
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))
    assert "prefix 'net'" in str(caught.value)
    less = {key: value for key, value in body.items() if key != "conv1.weight"}
    torch.save(behind("module.encoder_q.", less), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"99 of 100 tensors fit, read behind the prefix 'module\.encoder_q\.'"
    ):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))  # fmt: skip


NAN, INF = float("nan"), float("inf")
TENSORS = (
    "bn1.running_var",
    "layer4.1.bn2.running_mean",
    "layer1.0.bn1.bias",
    "conv1.weight",
    "fc.bias",
)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("value", [NAN, -INF])
def test_a_value_that_is_not_finite_is_refused_by_its_tensors_name(tmp_path, name, value):
    state = build_backbone("resnet18", 3).state_dict() | {"fc.bias": torch.zeros(5)}
    state[name].view(-1)[-1] = value
    torch.save({"state_dict": behind("module.", state)}, tmp_path / "w.pth")
    backbone = build_backbone("resnet18", 0)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(InputError, match=f"module.{name} is not finite") as caught:
        initialise(backbone, str(tmp_path / "w.pth"))
    assert "w.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in backbone.state_dict().items())


BAD = {
    "half": lambda t: t.half().fill_(INF),
    "bfloat16": lambda t: t.bfloat16().fill_(NAN),
    "float8": lambda t: t.to(torch.float8_e5m2).fill_(INF),
    "float64 beyond float32": lambda t: t.double().fill_(1e300),
    "a variance below zero": lambda t: t.fill_(-1.0),
    "quantised": lambda t: t.to(torch.int8),
}


@pytest.mark.parametrize("kind", BAD)
def test_values_of_any_type_are_checked(tmp_path, body, kind):
    state = collections.OrderedDict(build_backbone("resnet18", 3).state_dict())
    state["bn1.running_var"] = BAD[kind](state["bn1.running_var"].clone())
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"the tensor bn1\.running_var"):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path):
    torch.save(torchvision.models.resnet18(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"torchvision\.models\.resnet\.ResNet") as caught:
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pt"))
    assert "state_dict()" in str(caught.value) and "\n" not in str(caught.value)

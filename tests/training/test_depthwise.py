"""Depthwise convolutions stay in float32 where a processor trains in bfloat16."""

import copy
import pickle

import pytest
import torch
from torch import nn

from twinray.backbones.build import build_backbone
from twinray.training.depthwise import concerns, full_depthwise
from twinray.training.device import Machine

PROCESSOR = Machine(torch.device("cpu"), bf16=True)


def test_a_depthwise_convolution_is_that_of_float32_and_others_are_bf16():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8))
    x = torch.randn(2, 3, 9, 9)
    before = copy.deepcopy(net)
    full_depthwise(net, PROCESSOR)
    seen = {}
    net[0].register_forward_hook(lambda m, i, o: seen.update(first=o))
    with PROCESSOR.autocast():
        y = net(x)
    assert seen["first"].dtype == torch.bfloat16 and y.dtype == torch.float32
    assert torch.equal(y, before[1](seen["first"].float()))
    assert torch.equal(net(x), before(x)), "float32 is as it was"


@pytest.mark.parametrize("arch", ["timm/tf_efficientnet_lite0", "timm/convnext_atto"])
def test_gradients_are_nearer_to_float32_and_names_stay(arch):
    """timm pads some of them in its own way, which must not be lost."""
    plain = build_backbone(
        arch, seed=0, size=64
    ).eval()  # statistics of 4 tiny maps would amplify any rounding
    mixed = copy.deepcopy(plain)
    kept = full_depthwise(copy.deepcopy(plain), PROCESSOR)
    assert list(kept.state_dict()) == list(plain.state_dict())
    x = torch.randn(4, 3, 64, 64)
    for net in (plain, mixed, kept):
        with torch.autocast("cpu", torch.bfloat16, enabled=net is not plain):
            net(x).float().square().mean().backward()

    def error(net):
        pairs = zip(net.parameters(), plain.parameters(), strict=True)
        both = [(a.grad - b.grad, b.grad) for a, b in pairs if b.grad is not None]
        return sum(d.square().sum() for d, _ in both) / sum(g.square().sum() for _, g in both)

    assert error(kept) < 0.05
    assert error(kept) < 2 * error(mixed)


def test_copies_and_networks_without_them():
    kept = full_depthwise(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), PROCESSOR)
    again = full_depthwise(copy.deepcopy(kept), PROCESSOR)
    assert type(again[0]) is type(kept[0])
    assert not concerns(build_backbone("resnet18", seed=0, size=64), PROCESSOR)
    assert not concerns(kept, Machine(torch.device("cpu"), bf16=False))
    assert not concerns(kept, Machine(torch.device("cuda"), bf16=True))
    assert pickle.loads(pickle.dumps(kept.state_dict())).keys() == kept.state_dict().keys()

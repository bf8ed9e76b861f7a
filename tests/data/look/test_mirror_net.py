"""The network that tells an image from its mirror image: torch's arithmetic, and the sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from twinray.data.look import mirror_net
from twinray.data.look.mirror_net import GROUPS, SIDE, mirror_logit


@pytest.mark.parametrize("images", [1, 3])
def test_it_is_the_network_of_torch(images: int) -> None:
    """The same layers in torch, with the weights of the package."""
    kept = {name: torch.from_numpy(value) for name, value in mirror_net._weights().items()}
    x = torch.rand(images, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(images)) * 2 - 1
    wanted = x
    layers = sum(name.startswith("convolution") for name in kept) // 2
    for layer in range(layers):
        weight, bias = kept[f"convolution{layer}.weight"], kept[f"convolution{layer}.bias"]
        wanted = nn.functional.conv2d(wanted, weight, bias, stride=2, padding=1)
        weight, bias = kept[f"norm{layer}.weight"], kept[f"norm{layer}.bias"]
        wanted = nn.functional.group_norm(wanted, GROUPS, weight, bias).relu()
    wanted = wanted.flatten(1) @ kept["head.weight"]
    found = mirror_net._forward(x.numpy(), mirror_net._weights())
    assert layers == 4
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_the_mirrored_image_has_the_same_odds_with_the_other_sign(seed: int) -> None:
    ranks = np.random.default_rng(seed).uniform(-1, 1, (SIDE, SIDE))
    assert mirror_logit(ranks[:, ::-1]) == pytest.approx(-mirror_logit(ranks), abs=1e-4)

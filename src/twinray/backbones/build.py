"""Backbones: torchvision ResNets without their classifier.

State-dict names are torchvision's own (``conv1``, ``bn1``, ``layer1`` ... ``layer4``), so weights move
to and from every tool that speaks torchvision.
"""

from __future__ import annotations

from typing import Final, final

import torch
import torchvision
from torch import Tensor, nn

from twinray.errors import InputError

ARCHITECTURES: Final = ("resnet18", "resnet34", "resnet50")


@final
class Backbone(nn.Module):
    """A ResNet (He et al. 2016) that gives pooled features or the feature maps of its four stages.

    Attributes:
        arch: torchvision's name of the architecture.
        features: d, the width of the pooled features.
        stage_channels: channels of the stages c2 (stride 4), c3 (8), c4 (16), c5 (32).
    """

    def __init__(self, arch: str) -> None:
        super().__init__()
        net = torchvision.models.get_model(arch, weights=None)
        self.arch = arch
        self.features: int = net.fc.in_features
        expansion = self.features // 512
        self.stage_channels = (64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of (b, 3, h, w) normalised images, by stage name, each (b, c, h / stride, w / stride)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return {"c2": c2, "c3": c3, "c4": c4, "c5": self.layer4(c4)}

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (b, d) of (b, 3, h, w) normalised images."""
        return self.stages(x)["c5"].mean(dim=(2, 3))


def build_backbone(arch: str, seed: int = 0) -> Backbone:
    """A backbone with torchvision's random initial weights, drawn from ``seed`` alone.

    Raises:
        InputError: an architecture that is not known.
    """
    if arch not in ARCHITECTURES:
        raise InputError(f"expected --arch to be one of {', '.join(ARCHITECTURES)}, got {arch!r}; choose one of those")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(arch)

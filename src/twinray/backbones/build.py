"""Backbones by name: torchvision's ResNets, and every network of timm.

State-dict names of the ResNets are torchvision's own (``conv1``, ``bn1``, ``layer1`` ... ``layer4``), so
weights move to and from every tool that speaks torchvision.
"""

from __future__ import annotations

import difflib
import re
from typing import Final, final

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from twinray.backbones.contract import STAGE_NAMES, Backbone, Channels, has_tokens
from twinray.backbones.timm_backbone import PREFIX, build_timm, timm_knows, timm_parameters
from twinray.errors import InputError

__all__ = ["ARCHITECTURES", "Backbone", "ResNet", "build_backbone", "zero_last_norms"]

ARCHITECTURES: Final = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""The names that mean torchvision's networks; timm's have ``timm/`` before them."""
_LAYER = re.compile(r"layer([1-4])(\.|$)")


@final
class ResNet(Backbone):
    """A ResNet (He et al. 2016) or one of its wide and grouped kin, from torchvision."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        net = torchvision.models.get_model(arch, weights=None)
        self.arch = arch
        self.features: int = net.fc.in_features
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            net.layer1,
            net.layer2,
            net.layer3,
            net.layer4,
        )

    @property
    def patch(self) -> int:
        """0: four stages."""
        return 0

    @property
    def stage_channels(self) -> Channels:
        """Channels of c2..c5; each stage doubles them."""
        return self.features // 8, self.features // 4, self.features // 2, self.features

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of (b, 3, h, w) normalised images, by stage name, each (b, c, h / stride, w / stride)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return {"c2": c2, "c3": c3, "c4": c4, "c5": self.layer4(c4)}

    def stage_of(self, name: str) -> int:
        """0 for the stem, 1..4 for ``layer1`` .. ``layer4``."""
        match = _LAYER.match(name)
        return int(match.group(1)) if match else 0

    def parts(self) -> dict[str, tuple[str, ...]]:
        """``stem`` and ``layer1`` .. ``layer4``, each with the names of its parameters."""
        names = [name for name, _ in self.named_parameters()]
        return {
            part: tuple(n for n in names if self.stage_of(n) == i)
            for i, part in enumerate(STAGE_NAMES)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (b, d) of (b, 3, h, w) normalised images."""
        return self.stages(x)["c5"].mean(dim=(2, 3))


def build_backbone(
    arch: str, seed: int = 0, size: int | None = None, drop_path: float = 0.0
) -> Backbone:
    """A backbone with its library's random initial weights, drawn from ``seed`` alone.

    Args:
        arch: one of ``ARCHITECTURES``, or ``timm/NAME`` with a name (and, after a dot, a weight tag) of timm.
        seed: seed of the random weights.
        size: side of the square images it will see, pixels. Few networks of timm are built for one size and need it;
            of all of timm's it is checked that they take it. None: the size the network was published with.
        drop_path: probability that training leaves out the last block's branch (stochastic depth, Huang et al. 2016),
            rising to it in equal steps from 0 at the first; for networks of timm.

    Raises:
        InputError: an architecture that is not known, that does not take the size or ``drop_path``, or that needs timm
            where it is not installed.
    """
    if arch.startswith(PREFIX):
        return build_timm(arch, seed, size, drop_path)
    if arch not in ARCHITECTURES:
        raise InputError(
            f"expected --arch to be one of {', '.join(ARCHITECTURES)}, or {PREFIX}NAME with a name of timm "
            f"(pip install 'twinray[timm]'), got {arch!r}; {_hint(arch)}"
        )
    if drop_path:
        raise InputError(
            f"--drop-path is for networks of timm, {arch} is torchvision's; leave it out, or choose {PREFIX}{arch}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(arch)


def zero_last_norms(backbone: Backbone) -> None:
    """Give the last norm of every residual block of a torchvision network the weight 0, in place; others stay as they are.

    Every block is so the identity at first, as with torchvision's ``zero_init_residual`` (Goyal et al. 2017), which the
    authors of Barlow Twins use. timm's ResNets begin so by themselves.
    """
    for module in backbone.modules():
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)


def is_transformer(arch: str) -> bool:
    """Whether an architecture attends over tokens; made without values, so that asking costs little.

    Raises:
        InputError: timm is not installed or cannot make it.
    """
    if not arch.startswith(PREFIX):
        return False
    with torch.device("meta"):
        return has_tokens(timm_parameters(arch))


def _hint(arch: str) -> str:
    if timm_knows(arch):
        return f"did you mean {PREFIX}{arch}?"
    close = difflib.get_close_matches(arch, ARCHITECTURES, n=2)
    return f"did you mean {' or '.join(close)}?" if close else "choose one of those"

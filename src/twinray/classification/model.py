"""A classifier: a backbone and one linear layer."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.classification.probe import LinearProbe
from twinray.records import Task

HEAD_STD = 0.01
"""Standard deviation of the linear layer's random initial weights (Barlow Twins' linear evaluation); its biases are 0."""


@final
class Classifier(nn.Module):
    """Backbone features (b, d) -> logits (b, k) -> probabilities (softmax or a sigmoid each)."""

    def __init__(self, backbone: Backbone, classes: int, task: Task) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.features, classes)
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) normalised images -> (b, k) probabilities."""
        return probabilities(self.logits(x), self.task)

    def logits(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) normalised images -> (b, k) logits."""
        found: Tensor = self.head(self.backbone(x))
        return found

    def set_head(self, probe: LinearProbe) -> None:
        """Take over a fitted linear layer."""
        with torch.no_grad():
            self.head.weight.copy_(probe.weight)
            self.head.bias.copy_(probe.bias)


@final
class Head(nn.Module):
    """The linear layer alone, on features (b, d) that are standardised first; logits (b, k).

    Args:
        features: d.
        classes: k.
        mean, std: (d,) of the features that it learns from; None for features as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, features: int, classes: int, mean: Tensor | None = None, std: Tensor | None = None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.register_buffer("mean", torch.zeros(features) if mean is None else mean)
        self.register_buffer("std", torch.ones(features) if std is None else std)

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) features -> (b, k) logits."""
        logits: Tensor = self.linear((features.float() - self.mean) / self.std)
        return logits

    def folded(self, task: Task, penalty: float) -> LinearProbe:
        """The same layer on features as they are, in float64."""
        mean, std = self.mean.double().cpu(), self.std.double().cpu()
        weight = self.linear.weight.detach().double().cpu() / std
        labels = 1 if task == "multiclass" else len(weight)
        bias = self.linear.bias.detach().double().cpu() - weight @ mean
        return LinearProbe(weight, bias, task, (penalty,) * labels)


def draw_head(linear: nn.Linear, seed: int) -> None:
    """Initial weights of a linear layer, drawn from the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        linear.weight.copy_(
            torch.empty(linear.weight.shape).normal_(0, HEAD_STD, generator=generator)
        )
        linear.bias.zero_()


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """(b, k) logits -> probabilities: a softmax over classes, or a sigmoid each."""
    return logits.softmax(dim=1) if task == "multiclass" else logits.sigmoid()

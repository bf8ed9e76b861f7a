"""A classifier: a backbone and one linear layer."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.classification.probe import LinearProbe
from twinray.records import Task


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
        logits = self.head(self.backbone(x))
        scores: Tensor = logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()
        return scores

    def set_head(self, probe: LinearProbe) -> None:
        """Take over a fitted probe."""
        with torch.no_grad():
            self.head.weight.copy_(probe.weight)
            self.head.bias.copy_(probe.bias)

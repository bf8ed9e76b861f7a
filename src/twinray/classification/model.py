"""A classifier: a backbone and one linear layer."""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.classification.probe import LinearProbe
from twinray.progress import progress
from twinray.records import FloatArray, IntArray, Task
from twinray.training.device import Machine
from twinray.training.loader import PixelSource, prefetch


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


@torch.no_grad()
def extract_features(
    backbone: Backbone, images: npt.NDArray[np.uint8], rows: IntArray, *, size: int, batch_size: int, machine: Machine
) -> FloatArray:
    """Features (n, d) float32 of the given rows of a pack's images, in their order; no augmentation."""
    backbone = backbone.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    source = PixelSource([images], np.stack([np.zeros(len(rows), dtype=np.int64), rows], axis=1))
    batches = [np.arange(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    out = np.empty((len(rows), backbone.features), dtype=np.float32)
    with progress("features", len(rows)) as meter:
        for batch, pixels in zip(batches, prefetch(source.gather, batches), strict=True):
            with machine.autocast():
                features = backbone(network_input(pixels, size, machine.device))
            out[batch] = features.float().cpu().numpy()
            meter.advance(len(batch))
    return out

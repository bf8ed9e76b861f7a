"""The network of Barlow Twins: a backbone and a projector that only pre-training uses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from twinray.backbones.build import Backbone


@final
class BarlowTwins(nn.Module):
    """Backbone, then projector: linear without bias, BatchNorm, ReLU, ..., the last linear bare.

    Args:
        backbone: gives (b, features).
        projector: widths of its layers, (8192, 8192, 8192) in the paper.
    """

    def __init__(self, backbone: Backbone, projector: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        widths = [backbone.features, *projector]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
        self.projector = nn.Sequential(*layers)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, h, w) normalised view -> features (b, f) and embedding (b, d)."""
        features = self.backbone(view)
        return features, self.projector(features)

"""The networks of pre-training: a backbone, and the parts that only pre-training uses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.pretraining.momentum import MomentumTwin, Predictor


@final
class BarlowTwins(nn.Module):
    """Backbone, then projector: linear without bias, BatchNorm, ReLU, ..., the last linear bare.

    Args:
        backbone: gives (b, features).
        projector: widths of its layers, (8192, 8192, 8192) in the paper.
        averaged: whether a twin holds the running average of the backbone's weights.
    """

    def __init__(
        self, backbone: Backbone, projector: Sequence[int], averaged: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = projector[-1]
        widths = [backbone.features, *projector]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [
                nn.Linear(before, after, bias=False),
                nn.BatchNorm1d(after),
                nn.ReLU(inplace=True),
            ]
        layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
        self.projector = nn.Sequential(*layers)
        self.average = MomentumTwin(backbone) if averaged else None

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, h, w) normalised view -> features (b, f) and embedding (b, d)."""
        features = self.backbone(view)
        return features, self.projector(features)


@final
class Byol(nn.Module):
    """The network of BYOL (Grill et al. 2020): backbone and projector, a predictor, and a twin that follows both.

    Args:
        online: backbone and projector.
        hidden: width of the predictor's hidden layer.
    """

    def __init__(self, online: BarlowTwins, hidden: int = 4096) -> None:
        super().__init__()
        self.backbone, self.projector = online.backbone, online.projector
        self.average, online.average = online.average, None  # owned once, and never averaged itself
        self.predictor = Predictor(online.width, hidden)
        self.twin = MomentumTwin(online)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, h, w) normalised view -> features (b, f) and the prediction (b, d) of the twin's embedding."""
        features = self.backbone(view)
        return features, self.predictor(self.projector(features))

    def target(self, view: Tensor) -> Tensor:
        """(b, 3, h, w) normalised view -> the twin's embedding (b, d), without gradient."""
        embedding: Tensor = self.twin(view)[1]
        return embedding


def kept_backbone(model: BarlowTwins | Byol) -> Backbone:
    """The backbone that a run keeps: the average where there is one, else the last."""
    if model.average is None:
        return model.backbone
    kept = model.average.target
    assert isinstance(kept, Backbone)
    return kept

"""A k-nearest-neighbour probe of the backbone while it trains (Wu et al. 2018, arXiv:1805.01978).

It needs no training, so it shows early whether features come to mean something. It reads labels of images that the
run learns from, and of no others: a monitor, not a result. An image's neighbours are never of its own patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.evaluation.labels.ranking import auc_and_average_precision, rank
from twinray.records import ABSENT, PRESENT, FloatArray, IntArray
from twinray.training.device import Machine
from twinray.training.loader import PixelSource

IMAGES, NEIGHBOURS, TEMPERATURE = 2000, 20, 0.07
FEWEST = 200
"""Among fewer images, leaving an image's patient out lowers its class's share so much that votes point the wrong way."""
_BATCH = 128


@dataclass(frozen=True, eq=False)
class KnnProbe:
    """What the probe looks at.

    Attributes:
        source: pixels.
        chosen: (m,) positions in ``source``.
        labels: (m, k) 1.0, 0.0 or NaN where not stated, or stated as uncertain.
        patients: (m,) group numbers; images of one number are no neighbours.
        size: side of the network's input, pixels.
    """

    source: PixelSource
    chosen: IntArray
    labels: FloatArray
    patients: IntArray
    size: int

    @classmethod
    def of(
        cls, source: PixelSource, labels: FloatArray, patients: IntArray, size: int, seed: int
    ) -> KnnProbe | None:
        """A seeded choice of at most 2,000 labelled images; None where those are under 200 or no class has
        both kinds among them.

        Args:
            labels: (n, k) of every image of ``source``, 1 or 0, anything else not stated; ``patients``: (n,) group numbers.
        """
        labels = np.where((labels == ABSENT) | (labels == PRESENT), labels, np.nan)
        known = (
            np.flatnonzero(~np.isnan(labels).all(axis=1))
            if labels.shape[1]
            else np.zeros(0, dtype=np.int64)
        )
        chosen = np.sort(np.random.default_rng([seed, 20]).permutation(known)[:IMAGES])
        probe = cls(source, chosen, labels[chosen], patients[chosen], size)
        return probe if len(chosen) >= FEWEST and probe._usable().any() else None

    def _usable(self) -> npt.NDArray[np.bool_]:
        both: npt.NDArray[np.bool_] = (self.labels == 1).any(axis=0) & (self.labels == 0).any(
            axis=0
        )
        return both

    def __call__(self, backbone: Backbone, machine: Machine) -> dict[str, float]:
        """``knn_auc``: mean AUC over classes of the neighbours' weighted votes; 0.5 is chance."""
        was_training = backbone.training
        backbone.eval()
        features = F.normalize(self._features(backbone, machine).float(), dim=1)
        backbone.train(was_training)
        votes = _votes(features, self.labels, self.patients)
        areas = []
        for c in np.flatnonzero(self._usable()):
            stated = ~np.isnan(self.labels[:, c]) & ~np.isnan(votes[:, c])
            truth = self.labels[stated, c]
            if 0 < truth.sum() < len(truth):
                ranking = rank(votes[stated, c], truth == 1, np.arange(len(truth)))
                areas.append(
                    float(auc_and_average_precision(ranking, np.ones((len(truth), 1)))[0][0])
                )
        return {"knn_auc": float(np.mean(areas)) if areas else float("nan")}

    @torch.no_grad()
    def _features(self, backbone: Backbone, machine: Machine) -> Tensor:
        found = []
        for start in range(0, len(self.chosen), _BATCH):
            pixels = self.source.gather(self.chosen[start : start + _BATCH])
            with machine.autocast():
                seen = network_input(pixels, self.size, machine.device, backbone.normalisation)
                found.append(backbone(seen).float())
        return torch.cat(found)


def _votes(features: Tensor, labels: FloatArray, patients: IntArray) -> FloatArray:
    """(m, k) weighted share of positives among each image's nearest neighbours of other patients; NaN without one."""
    similar = features @ features.T
    group = torch.from_numpy(patients).to(features.device)
    similar[group[:, None] == group[None, :]] = -torch.inf
    top, index = similar.topk(min(NEIGHBOURS, len(features) - 1), dim=1)
    weight = torch.exp(top / TEMPERATURE).double().cpu().numpy()  # exp(-inf) = 0: own patient
    near = labels[index.cpu().numpy()]  # (m, neighbours, k)
    stated = ~np.isnan(near) * weight[:, :, None]
    total = stated.sum(axis=1)
    positive = (np.nan_to_num(near) * stated).sum(axis=1)
    votes: FloatArray = np.divide(positive, total, out=np.full_like(total, np.nan), where=total > 0)
    return votes

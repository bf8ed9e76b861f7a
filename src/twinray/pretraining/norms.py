"""Statistics of batch norms for the images that come after pre-training.

While a backbone learns it sees views: cropped, jittered, blurred, some inverted. Its batch norms keep running means and
variances of those. Probes and detectors then feed it whole images, for which these statistics are wrong. Measuring them
anew on whole images changes no weight. (Crops make things larger than they are in use: Touvron et al. 2019,
arXiv:1906.06423, who also adapt batch norms; statistics of another domain: Li et al. 2016, arXiv:1603.04779.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.training.device import Machine
from twinray.training.loader import PixelSource

IMAGES, _BATCH = 2048, 128
"""Most images that the statistics are taken over."""


@torch.no_grad()
def settle_norms(backbone: Backbone, inputs: Iterable[Tensor]) -> int:
    """Set every batch norm's running statistics to their mean over batches; returns how many norms there are.

    Args:
        backbone: network whose buffers are changed; its mode stays.
        inputs: batches (b, 3, h, w) of normalised images, b >= 2, each of the same weight.
    """
    norms = [
        m
        for m in backbone.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    before = backbone.training, [norm.momentum for norm in norms]
    backbone.eval()  # dropout and stochastic depth stay as they are in use
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean over all batches
        norm.train()
    for x in inputs if norms else ():
        backbone(x)
    backbone.train(before[0])
    for norm, momentum in zip(norms, before[1], strict=True):
        norm.momentum = momentum
    return len(norms)


def whole_images(
    source: PixelSource, size: int, seed: int, backbone: Backbone, machine: Machine
) -> Iterable[Tensor]:
    """Batches (b, 3, size, size) of at most 2,048 images of ``source`` chosen by ``seed``, as a probe feeds them."""
    chosen = np.sort(np.random.default_rng([seed, 21]).permutation(len(source))[:IMAGES])
    # Batches of one size but for one image: each has the same weight, and none is a single image.
    for rows in np.array_split(chosen, -(-len(chosen) // _BATCH)):
        yield network_input(source.gather(rows), size, machine.device, backbone.normalisation)

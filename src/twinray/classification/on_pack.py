"""A network on images of a pack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.progress import progress
from twinray.records import FloatArray, IntArray
from twinray.training.device import Machine
from twinray.training.loader import PixelSource, prefetch


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

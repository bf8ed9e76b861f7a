"""A network on images of a pack: features and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.data.packed_pixels import PackedPixels
from twinray.progress import progress
from twinray.records import FloatArray, IntArray
from twinray.runs.description import Normalisation
from twinray.training.device import Machine
from twinray.training.loader import PixelSource, prefetch


@dataclass(frozen=True)
class Seen:
    """What a network takes of an image: the side of its input in pixels, and the statistics of its weights."""

    size: int
    by: Normalisation


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    images: PackedPixels,
    rows: IntArray,
    *,
    size: int,
    batch_size: int,
    machine: Machine,
) -> FloatArray:
    """Features (n, d) float32 of the given rows of a pack's images, in their order; no augmentation."""
    backbone = backbone.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    out = np.empty((len(rows), backbone.features), dtype=np.float32)
    seen = Seen(size, backbone.normalisation)
    _forward(backbone, images, rows, seen, batch_size, machine, "features", out)
    return out


@torch.no_grad()
def label_scores(
    network: Callable[[Tensor], Tensor],
    images: PackedPixels,
    rows: IntArray,
    classes: int,
    *,
    seen: Seen,
    batch_size: int,
    machine: Machine,
    label: str = "scores",
) -> FloatArray:
    """What a classifier gives, (n, k) float64, for the given rows of a pack's images, in their order.

    Args:
        network: (b, 3, size, size) normalised images -> (b, k); a module must be in evaluation mode.
        images: images of the pack (``Pack.pixels``).
        rows: which of them.
        classes: k.
        seen: what the network takes of them.
        batch_size: images at once; no effect on results but for rounding.
        machine: device and precision.
        label: text shown in the progress bar.
    """
    out = np.empty((len(rows), classes), dtype=np.float64)
    _forward(network, images, rows, seen, batch_size, machine, label, out)
    return out


def _forward(
    network: nn.Module | Callable[[Tensor], Tensor],
    images: PackedPixels,
    rows: IntArray,
    seen: Seen,
    batch_size: int,
    machine: Machine,
    label: str,
    out: npt.NDArray[np.floating],
) -> None:
    source = PixelSource([images], np.stack([np.zeros(len(rows), dtype=np.int64), rows], axis=1))
    batches = [
        np.arange(start, min(start + batch_size, len(rows)))
        for start in range(0, len(rows), batch_size)
    ]
    with progress(label, len(rows)) as meter:
        for batch, pixels in zip(batches, prefetch(source.gather, batches), strict=True):
            with machine.autocast():
                found = network(network_input(pixels, seen.size, machine.device, seen.by))
            out[batch] = (
                found.to(torch.float64 if out.dtype == np.float64 else torch.float32).cpu().numpy()
            )
            meter.advance(len(batch))

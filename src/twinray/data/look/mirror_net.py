"""A small network that tells a frontal chest radiograph from its mirror image. NumPy, weights of 80 kB beside this file.

``benchmarks/look_net.py`` trains it, on the halves of Kermany's and NIH's patients that the figures of ``docs/look.md`` do not use.
Four convolutions of stride 2, each with group normalisation (Wu and He, ECCV 2018) and ReLU, then one linear layer.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from twinray.records import FloatArray

SIDE: Final = 64
"""Side of the image of ranks that the network takes."""
GROUPS: Final = 4
"""Groups of the normalisation."""
WEIGHTS: Final = "mirror_net.npz"
_STABLE: Final = 1e-5

Weights = dict[str, npt.NDArray[np.float32]]


def mirror_logit(ranks: FloatArray) -> float:
    """Log odds that an image is the right way round; the mirrored image has the same with the other sign.

    Args:
        ranks: (64, 64) ranks in -1..1, about the body's axis.
    """
    both = np.stack([ranks, ranks[:, ::-1]]).astype(np.float32)[:, None]
    own, mirrored = _forward(both, _weights())
    return float(own - mirrored)


@cache
def _weights() -> Weights:
    with (resources.files(__package__) / WEIGHTS).open("rb") as file, np.load(file) as kept:
        return {name: kept[name].astype(np.float32) for name in kept.files}


def _forward(x: npt.NDArray[np.float32], weights: Weights) -> npt.NDArray[np.float32]:
    """(n, 1, 64, 64) -> (n,)."""
    layer = 0
    while f"convolution{layer}.weight" in weights:
        of = f"convolution{layer}"
        x = _convolved(x, weights[f"{of}.weight"]) + weights[f"{of}.bias"][:, None, None]
        x = _normalised(x, weights[f"norm{layer}.weight"], weights[f"norm{layer}.bias"])
        x = np.maximum(x, 0)
        layer += 1
    scores: npt.NDArray[np.float32] = x.reshape(len(x), -1) @ weights["head.weight"]
    return scores


def _convolved(
    x: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Convolution of stride 2 by (o, c, 3, 3), with a border of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    channels_last = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))
    found: npt.NDArray[np.float32] = np.moveaxis(channels_last, -1, 1)
    return found


def _normalised(
    x: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    n, c, h, w = x.shape
    groups = x.reshape(n, GROUPS, -1)
    mean, variance = groups.mean(axis=2, keepdims=True), groups.var(axis=2, keepdims=True)
    flat = ((groups - mean) / np.sqrt(variance + _STABLE)).reshape(n, c, h, w)
    found: npt.NDArray[np.float32] = flat * weight[:, None, None] + bias[:, None, None]
    return found

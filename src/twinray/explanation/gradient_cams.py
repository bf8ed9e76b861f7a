"""Gradient-based and gradient-free class activation maps for a detected box, beside Ablation-CAM.

All explain the same score as Ablation-CAM: the class probability of the box's source proposal. The
score is computed through RoIAlign and the box head, with the proposal held fixed. The channels are
those of the pyramid level that the box pools from.

- Grad-CAM: Selvaraju et al. 2017.
- Grad-CAM++: Chattopadhay et al. 2018, equation 19; its pole, which only channels with a negative sum have, is rounded off.
- Eigen-CAM: Muhammad & Yeasin 2020. It looks at activations alone: every box of a level gets the same map.
  ``eigen-cam`` projects places that are centred over the level, as the ``grad-cam`` package does. That package leaves
  the sign to the linear algebra library; here the larger extreme is positive (Chung & Ying 2025, equation 13).
  ``eigen-cam-uncentred`` projects the activations as they are, with the sign that makes the mean positive.
- ODAM: Zhao & Chan 2023, Gradient-based instance-specific visual explanations for object detection. Gradients
  are kept place by place, so that a box gets a map of its own. ``odam`` is the released code (``savefig_odam.py``):
  the positive part of gradient times activation, summed over channels. RoIAlign reads a few points of a bin, so the
  gradient of a large box is a lattice of dots. ``odam-smoothed`` closes the lattice with a Gaussian on the gradient,
  whose sigma is a quarter of a bin, half the distance of these points.

Shapes: c channels, h w the level's grid, s side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.explanation.scoring import BoxScorer, FixedBox, HeatMap, peak_to_one

GradientMethod = Literal[
    "grad-cam", "grad-cam++", "eigen-cam", "eigen-cam-uncentred", "odam", "odam-smoothed"
]

_Rule = Callable[[Tensor, Tensor, tuple[float, float]], tuple[Tensor, Tensor]]
"""Activation and gradient (c, h, w), height and width of a bin in cells -> raw map (h, w), channel weights (c,)."""
_LEAST_SIGMA = 0.5
_POLE = 0.01
"""Half width of the pole that Grad-CAM++ rounds off; a share's ordinary denominator is 2, so it changes by 2.5e-5."""


def gradient_cam(
    method: GradientMethod,
    pyramid: Sequence[Tensor],
    boxes: Sequence[FixedBox],
    scorer: BoxScorer,
    image_size: tuple[int, int],
) -> list[HeatMap]:
    """Heat maps of one image's boxes.

    Args:
        method: name of the map.
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: boxes on that image.
        scorer: the detector's box head.
        image_size: (height, width) of the network's input.

    Returns:
        One heat map a box; its ``weights`` are the channels' (for ODAM the mean gradient over places).

    Raises:
        ValueError: an unknown method.
    """
    if method not in NAMES:
        raise ValueError(f"expected method to be one of {', '.join(NAMES)}, got {method!r}")
    principal: dict[int, tuple[Tensor, Tensor]] = {}
    maps = []
    for box in boxes:
        feature = pyramid[box.level]
        if method in ("eigen-cam", "eigen-cam-uncentred"):
            if box.level not in principal:
                principal[box.level] = eigen_cam(
                    feature[0].detach().float(), centred=method == "eigen-cam"
                )
            raw, weights = principal[box.level]
            score = float(scorer.score(feature.detach().float(), box)[0].detach())
        else:
            activation, gradient, score = _score_gradient(feature, box, scorer)
            raw, weights = _RULES[method](
                activation, gradient, _bin_size(feature, box, scorer, image_size)
            )
        definition = f"{NAMES[method]}, fixed box, channels of the pyramid level it pools from"
        drawn = peak_to_one(raw, image_size)
        maps.append(HeatMap(drawn, weights.float().cpu().numpy(), score, box.level, definition))
    return maps


def _score_gradient(
    feature: Tensor, box: FixedBox, scorer: BoxScorer
) -> tuple[Tensor, Tensor, float]:
    """Activation (c, h, w), the gradient of the box's score with respect to it, and the score."""
    with torch.enable_grad():
        leaf = feature.detach().float().requires_grad_(True)
        score = scorer.score(leaf, box)[0]
        (gradient,) = torch.autograd.grad(score, leaf)
    return leaf.detach()[0], gradient[0], float(score.detach())


def _bin_size(
    feature: Tensor, box: FixedBox, scorer: BoxScorer, image_size: tuple[int, int]
) -> tuple[float, float]:
    """Height and width of one bin of the pooled box, in cells of its level's grid."""
    bins = (scorer.fc6.in_features / feature.shape[1]) ** 0.5
    x1, y1, x2, y2 = (float(v) for v in box.proposal)
    rows, columns = feature.shape[2] / image_size[0], feature.shape[3] / image_size[1]
    return (y2 - y1) * rows / bins, (x2 - x1) * columns / bins


def grad_cam(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM of an activation and its gradient, both (c, h, w): raw map (h, w), channel weights (c,)."""
    weights = gradient.mean(dim=(1, 2))
    return torch.einsum("c,chw->hw", weights, activation), weights


def grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM++ of an activation and its gradient, both (c, h, w): raw map (h, w), channel weights (c,)."""
    # Of exp(score), whose higher derivatives are powers of the score's gradient; its common factor exp(score) is
    # left out, as the map is scaled to its peak. RoIAlign leaves most places without gradient: they count zero.
    rows, columns = _support(gradient)
    inside, wide = gradient[:, rows, columns].double(), activation.double()
    # Equation 19 divided by the gradient's square, whose powers would leave float32's range.
    denominator = 2 + wide.sum(dim=(1, 2), keepdim=True) * inside
    # Where a channel's sum is negative, which the paper's activations never are, the denominator passes through zero:
    # 1 / d would make a rounding error the map's largest value.
    share = denominator / (denominator.square() + _POLE**2)
    weights = (share * inside.clamp(min=0)).sum(dim=(1, 2))
    return torch.einsum("c,chw->hw", weights, wide).to(activation.dtype), weights.to(
        activation.dtype
    )


def eigen_cam(activation: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Eigen-CAM of an activation (c, h, w): raw map (h, w), channel weights (c,)."""
    # First principal direction of the places in channel space. Its sign is free and must not hang on the library.
    places = activation.flatten(1).T
    if centred:
        places = places - places.mean(dim=0)
    direction = torch.linalg.eigh(places.T @ places).eigenvectors[:, -1]
    raw = (places @ direction).view(activation.shape[1:])
    negative = -raw.min() > raw.max() if centred else raw.sum() < 0
    sign = torch.where(negative, -1.0, 1.0)
    return raw * sign, direction * sign


def _odam(
    activation: Tensor, gradient: Tensor, bin_size: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    del bin_size
    return (activation * gradient).sum(dim=0), gradient.mean(dim=(1, 2))


def _odam_smoothed(
    activation: Tensor, gradient: Tensor, bin_size: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    sigmas = [max(side / 4, _LEAST_SIGMA) for side in bin_size]
    rows, columns = _support(gradient, [_reach(sigma) for sigma in sigmas])
    smooth = _blur(_blur(gradient[:, rows, columns], sigmas[0], dim=1), sigmas[1], dim=2)
    raw = torch.zeros_like(activation[0])
    raw[rows, columns] = (activation[:, rows, columns] * smooth).sum(dim=0)
    return raw, gradient.mean(dim=(1, 2))


def _support(gradient: Tensor, margin: Sequence[int] = (0, 0)) -> tuple[slice, slice]:
    """Rows and columns of (c, h, w) that hold all that is not zero, and a margin: a box is a small part of its level."""
    used = (gradient != 0).any(dim=0)
    found = []
    for places, around, length in zip(
        (used.any(dim=1), used.any(dim=0)), margin, used.shape, strict=True
    ):
        at = torch.nonzero(places)[:, 0]
        low, high = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
        found.append(slice(max(low - around, 0), min(high + around, length)))
    return found[0], found[1]


def _reach(sigma: float) -> int:
    return max(1, round(3 * sigma))


def _blur(values: Tensor, sigma: float, dim: int) -> Tensor:
    """Gaussian along one axis of (c, h, w), zero beyond the edge, cut at three sigmas."""
    reach = _reach(sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    shape = (1, 1, -1, 1) if dim == 1 else (1, 1, 1, -1)
    padding = (reach, 0) if dim == 1 else (0, reach)
    return F.conv2d(values[:, None], (kernel / kernel.sum()).view(shape), padding=padding)[:, 0]


_RULES: dict[str, _Rule] = {
    "grad-cam": lambda activation, gradient, _: grad_cam(activation, gradient),
    "grad-cam++": lambda activation, gradient, _: grad_cam_plus_plus(activation, gradient),
    "odam": _odam,
    "odam-smoothed": _odam_smoothed,
}
NAMES: dict[str, str] = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "eigen-cam": "Eigen-CAM (of the level, not of the box alone)",
    "eigen-cam-uncentred": "Eigen-CAM without centring (of the level, not of the box alone)",
    "odam": "ODAM (gradient times activation, place by place)",
    "odam-smoothed": "ODAM with a smoothed gradient (times activation, place by place)",
}

"""Gradient-based and gradient-free class activation maps for a detected box, beside Ablation-CAM.

All explain the same score as Ablation-CAM: the class probability of the box's source proposal, through
RoIAlign and the box head, held fixed; the channels are those of the pyramid level that the box pools from.

- Grad-CAM: Selvaraju et al. 2017. - Grad-CAM++: Chattopadhay et al. 2018, equation 19.
- Eigen-CAM: Muhammad & Yeasin 2020. - ODAM: Zhao & Chan 2023, gradients kept place by place, an instance's own map.

Shapes: c channels, h w the level's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from twinray.explanation.scoring import BoxScorer, FixedBox, HeatMap, peak_to_one

GradientMethod = Literal["grad-cam", "grad-cam++", "eigen-cam", "odam"]

_Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def gradient_cam(
    method: GradientMethod,
    pyramid: Sequence[Tensor],
    boxes: Sequence[FixedBox],
    scorer: BoxScorer,
    image_size: tuple[int, int],
) -> list[HeatMap]:
    """Heat maps of one image's boxes.

    Args:
        method: which map.
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: boxes on that image.
        scorer: the detector's box head.
        image_size: (height, width) of the network's input.

    Returns:
        One heat map a box; its ``weights`` are the channels' (for ODAM the mean over places).

    Raises:
        ValueError: an unknown method.
    """
    if method not in _RULES:
        raise ValueError(f"expected method to be one of {', '.join(_RULES)}, got {method!r}")
    maps = []
    for box in boxes:
        activation, gradient, score = _score_gradient(pyramid[box.level], box, scorer)
        raw, weights = _RULES[method](activation, gradient)
        definition = f"{method}, fixed box, channels of the pyramid level it pools from"
        drawn = peak_to_one(raw, image_size)
        maps.append(HeatMap(drawn, weights.float().cpu().numpy(), score, box.level, definition))
    return maps


def _score_gradient(feature: Tensor, box: FixedBox, scorer: BoxScorer) -> tuple[Tensor, Tensor, float]:
    """Activation (c, h, w), the gradient of the box's score with respect to it, and the score."""
    with torch.enable_grad():
        leaf = feature.detach().float().requires_grad_(True)
        score = scorer.score(leaf, box)[0]
        (gradient,) = torch.autograd.grad(score, leaf)
    return leaf.detach()[0], gradient[0], float(score.detach())


def _grad_cam(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    weights = gradient.mean(dim=(1, 2))
    return torch.einsum("c,chw->hw", weights, activation), weights


def _grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    # Of exp(score), whose higher derivatives are powers of the score's gradient; its common factor exp(score) is
    # left out, as the map is scaled to its peak. RoIAlign leaves most places without gradient: they count zero.
    squared = gradient**2
    denominator = 2 * squared + activation.sum(dim=(1, 2), keepdim=True) * gradient**3
    share = torch.where(denominator != 0, squared / torch.where(denominator != 0, denominator, 1), 0)
    weights = (share * gradient.clamp(min=0)).sum(dim=(1, 2))
    return torch.einsum("c,chw->hw", weights, activation), weights


def _eigen_cam(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    # First principal direction of the places in channel space; its sign, which is free, such that the mean is positive.
    del gradient
    places = activation.flatten(1).T
    direction = torch.linalg.eigh(places.T @ places).eigenvectors[:, -1]
    raw = (places @ direction).view(activation.shape[1:])
    sign = torch.where(raw.sum() < 0, -1.0, 1.0)
    return raw * sign, direction * sign


def _odam(activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return (activation * gradient).sum(dim=0), gradient.mean(dim=(1, 2))


_RULES: dict[str, _Rule] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "eigen-cam": _eigen_cam,
    "odam": _odam,
}

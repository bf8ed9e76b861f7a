"""The objectives that papers compare with Barlow Twins: VICReg, SimCLR and BYOL.

Shape legend: b batch (of all ranks together), d embedding.

Each is a function of embeddings like :func:`~twinray.pretraining.objective.barlow_twins`. Each
computes in float32 (float64 for float64 input) whatever the autocast, and reports the same two
monitors. They are mean C_ii and RMS of the off-diagonal C_ij of the standardised cross-correlation
C of the two views. So runs of different objectives can be compared although their losses cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from twinray.pretraining.objective import ObjectiveValue, barlow_twins

VICREG_EPSILON = 1e-4
"""Added to the variance before its square root, as by the authors of VICReg."""


def vicreg(
    z1: Tensor,
    z2: Tensor,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    gram: bool | None = None,
) -> ObjectiveValue:
    """VICReg (Bardes et al. 2022, arXiv:2105.04906).

    The loss has three terms. The first is the mean squared distance of the two embeddings. The
    second is a hinge that keeps every dimension's standard deviation at 1. The third is the squared
    covariances between dimensions.

    The mean hinge is averaged over the two views and the covariances (divided by d) are summed over
    them, as in the authors' code.

    Args:
        z1, z2: (b, d) embeddings of the two views, b >= 2.
        invariance_weight, variance_weight, covariance_weight: weights of the three terms.
        gram: form of the covariances' sum: over (b, b) Gram matrices (True) or (d, d) covariance
            matrices (False), equal in value and gradient. None chooses the Gram form when b < d.

    Raises:
        ValueError: the shapes differ or the batch has fewer than two rows.
    """
    _check(z1, z2)
    with torch.autocast(z1.device.type, enabled=False):
        x1, x2 = _exact(z1), _exact(z2)
        use_gram = gram if gram is not None else len(x1) < x1.shape[1]
        distance = functional.mse_loss(x1, x2)
        x1, x2 = x1 - x1.mean(dim=0), x2 - x2.mean(dim=0)
        hinge = (_variance_hinge(x1) + _variance_hinge(x2)) / 2
        covariance = _covariance(x1, use_gram) + _covariance(x2, use_gram)
        loss = (
            invariance_weight * distance + variance_weight * hinge + covariance_weight * covariance
        )
    return _monitored(loss, z1, z2)


def simclr(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> ObjectiveValue:
    """NT-Xent, the objective of SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Each of the 2b embeddings has to pick its image's other view among the 2b - 1 others by cosine
    similarity. Needs O(b^2) memory whatever d.

    Args:
        z1, z2: (b, d) embeddings of the two views, b >= 2.
        temperature: divides the similarities; above 0.

    Raises:
        ValueError: the shapes differ, the batch has fewer than two rows, or the temperature is not above 0.
    """
    _check(z1, z2)
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    b = len(z1)
    with torch.autocast(z1.device.type, enabled=False):
        z = functional.normalize(torch.cat([_exact(z1), _exact(z2)]), dim=1)
        itself = torch.eye(2 * b, dtype=torch.bool, device=z.device)
        logits = (z @ z.T / temperature).masked_fill(itself, float("-inf"))
        partner = torch.arange(2 * b, device=z.device).roll(b)
        loss = functional.cross_entropy(logits, partner)
    return _monitored(loss, z1, z2)


def byol(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> ObjectiveValue:
    """BYOL (Grill et al. 2020, arXiv:2006.07733).

    The loss is the squared distance of unit vectors, 2 - 2 cos, between each view's prediction and
    the other view's target. It is averaged over the batch and summed over both ways.

    No gradient goes into the targets. The monitors are those of the targets, which are embeddings
    like those of the other objectives; predictions are not.

    Args:
        p1, p2: (b, d) predictions of the online network for views 1 and 2, b >= 2.
        t1, t2: (b, d) embeddings of views 1 and 2 by the target network.

    Raises:
        ValueError: the shapes differ or the batch has fewer than two rows.
    """
    _check(p1, p2, t1, t2)
    with torch.autocast(p1.device.type, enabled=False):
        loss = _unit_distance(p1, t2) + _unit_distance(p2, t1)
    return _monitored(loss, t1, t2)


def _check(first: Tensor, *others: Tensor) -> None:
    shapes = [first.shape, *(other.shape for other in others)]
    if len(set(shapes)) != 1 or first.ndim != 2 or len(first) < 2:
        got = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"expected {len(shapes)} (b, d) embeddings of one shape with b >= 2, got {got}"
        )


def _exact(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()


def _variance_hinge(centred: Tensor) -> Tensor:
    variance = centred.square().sum(dim=0) / (len(centred) - 1)
    return functional.relu(1 - (variance + VICREG_EPSILON).sqrt()).mean()


def _covariance(centred: Tensor, gram: bool) -> Tensor:
    """Sum of the squared covariances of different dimensions, over d.

    ``||X^T X||_F^2`` equals ``||X X^T||_F^2``, so b < d never needs the (d, d) matrix.
    """
    b, d = centred.shape
    product = centred @ centred.T if gram else centred.T @ centred
    variances = centred.square().sum(dim=0)
    return (product.square().sum() - variances.square().sum()) / ((b - 1) ** 2 * d)


def _unit_distance(prediction: Tensor, target: Tensor) -> Tensor:
    p = functional.normalize(_exact(prediction), dim=1)
    t = functional.normalize(_exact(target.detach()), dim=1)
    return (2 - 2 * (p * t).sum(dim=1)).mean()


def _monitored(loss: Tensor, z1: Tensor, z2: Tensor) -> ObjectiveValue:
    with torch.no_grad():
        return barlow_twins(z1.detach(), z2.detach())._replace(loss=loss)

"""The Barlow Twins objective (Zbontar et al. 2021, arXiv:2103.03230).

Shape legend: b batch, d embedding.

Z is standardised per dimension over the batch:

    C    = Z1^T Z2 / b
    loss = sum_i (1 - C_ii)^2 + lambda * sum_{i != j} C_ij^2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], "ObjectiveValue"]

EPSILON = 1e-5
"""Added to the variance, as in the authors' BatchNorm without affine parameters."""


class ObjectiveValue(NamedTuple):
    """The loss and what a person can read.

    ``invariance`` is the mean C_ii (1 is best). ``redundancy`` is the root mean square of the
    off-diagonal C_ij (0 is best). All are scalars; the last two are without gradient.
    """

    loss: Tensor
    invariance: Tensor
    redundancy: Tensor


def barlow_twins(
    z1: Tensor, z2: Tensor, lam: float = 0.0051, gram: bool | None = None
) -> ObjectiveValue:
    """Barlow Twins loss of the embeddings of two views.

    All statistics and sums are float32 (float64 for float64 input) whatever the autocast: in bf16
    the diagonal alone would be several per cent off.

    The sum over C is taken in one of two forms of equal value and gradient. ``||C||_F^2`` equals
    ``<Z1 Z1^T, Z2 Z2^T> / b^2``. A batch smaller than the embedding so needs two (b, b) Gram
    matrices and never the (d, d) matrix.

    Args:
        z1, z2: (b, d) embeddings, b >= 2.
        lam: weight of the redundancy term.
        gram: form to force; None chooses the Gram form when b < d.

    Raises:
        ValueError: the shapes differ or the batch has fewer than two rows.
    """
    if z1.shape != z2.shape or z1.ndim != 2 or len(z1) < 2:
        raise ValueError(
            f"expected two (b, d) embeddings with b >= 2, got {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    b, d = z1.shape
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = standardise(z1), standardise(z2)
        diagonal = (z1 * z2).sum(dim=0) / b
        if gram if gram is not None else b < d:
            total = ((z1 @ z1.T) * (z2 @ z2.T)).sum() / b**2
            off_diagonal = total - diagonal.square().sum()
        else:
            c = z1.T @ z2 / b
            off_diagonal = c.square().sum() - diagonal.square().sum()
        loss = (1 - diagonal).square().sum() + lam * off_diagonal
    redundancy = (off_diagonal.detach().clamp_min(0) / max(d * (d - 1), 1)).sqrt()
    return ObjectiveValue(loss, diagonal.detach().mean(), redundancy)


def standardise(z: Tensor) -> Tensor:
    """Zero mean and unit (biased) variance per dimension over the batch, in at least float32."""
    z = z if z.dtype == torch.float64 else z.float()
    z = z - z.mean(dim=0)
    variance: Tensor = z.square().mean(dim=0)
    return z * (variance + EPSILON).rsqrt()

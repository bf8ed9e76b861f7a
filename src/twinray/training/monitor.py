"""Is the embedding healthy? Figures that show a collapse long before a probe would."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LEAST_STD, LEAST_RANK = 0.01, 1.5
FEWEST_ROWS = 8
"""Among fewer embeddings a low rank means little: two of them always lie on a line."""


@torch.no_grad()
def embedding_health(z: Tensor) -> dict[str, Tensor]:
    """Spread of a batch of embeddings.

    Args:
        z: (b, d) embeddings as the projector gives them, in its precision: what rounding alone makes of a line is not counted.

    Returns:
        ``embedding_std``: mean over dimensions of the standard deviation over the batch, relative
        to the root mean square of the embedding. A value of 0 means collapsed, near 1 healthy.
        ``effective_rank``: exp of the entropy of the normalised singular values of the centred
        batch (RankMe, Garrido et al. 2023). It lies between 1 and min(b, d).
        Both are NaN for embeddings that are not finite.
    """
    finite, rounding = torch.isfinite(z).all(), torch.finfo(z.dtype).eps
    z = torch.where(finite, z, 0).double()
    centred = z - z.mean(dim=0)
    power = z.square().mean()
    std = centred.square().mean(dim=0).sqrt().mean() / power.sqrt().clamp_min(1e-12)
    # Singular values from the smaller Gram matrix: much cheaper than an SVD. In float64, since the root of a rounding
    # error in float32 is a thousandth of the largest value, and hundreds of those look like a healthy rank.
    gram = centred @ centred.T if z.shape[0] < z.shape[1] else centred.T @ centred
    squared = torch.linalg.eigvalsh(gram)
    # Rounding is noise of a known size, whose singular values have a known edge (Marchenko & Pastur 1967).
    b, d = z.shape
    edge = power * (rounding / 2) ** 2 * (b**0.5 + d**0.5) ** 2
    singular = torch.where(squared > edge, squared, 0).sqrt()
    p = singular / singular.sum().clamp_min(1e-12)
    entropy = -(p * p.clamp_min(1e-12).log()).sum()
    nothing = torch.full_like(std, float("nan"))
    return {
        "embedding_std": torch.where(finite, std, nothing),
        "effective_rank": torch.where(finite, entropy.exp(), nothing),
    }


def collapse(figures: Mapping[str, float], rows: int) -> str | None:
    """Why a log line's figures mean that the embedding collapsed, or None.

    All views on one point (relative standard deviation under 0.01), or all on one line (effective rank under 1.5,
    asked from 8 rows up).

    Args:
        figures: figures of a log line.
        rows: embeddings in the batch that they are of.
    """
    std, rank = figures.get("embedding_std"), figures.get("effective_rank")
    if std is not None and std < LEAST_STD:
        return f"the embedding collapsed to a point (relative standard deviation {std:.2g}, expected over {LEAST_STD})"
    if rank is not None and rows >= FEWEST_ROWS and rank < LEAST_RANK:
        return f"the embedding collapsed to a line (effective rank {rank:.2f}, expected over {LEAST_RANK})"
    return None

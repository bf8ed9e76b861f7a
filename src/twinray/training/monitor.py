"""Is the embedding healthy? Figures that show a collapse long before a probe would."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LEAST_STD, LEAST_RANK = 0.01, 1.5


@torch.no_grad()
def embedding_health(z: Tensor) -> dict[str, Tensor]:
    """Spread of a batch of embeddings.

    Args:
        z: (b, d) embeddings as the projector gives them.

    Returns:
        ``embedding_std``: mean over dimensions of the standard deviation over the batch, relative to
        the root mean square of the embedding (0: collapsed; near 1: healthy).
        ``effective_rank``: exp of the entropy of the normalised singular values of the centred batch
        (RankMe, Garrido et al. 2023), between 1 and min(b, d).
        Both are NaN for embeddings that are not finite.
    """
    z = z.float()
    if not bool(torch.isfinite(z).all()):
        nothing = torch.full((), float("nan"), device=z.device)
        return {"embedding_std": nothing, "effective_rank": nothing}
    centred = z - z.mean(dim=0)
    scale = z.square().mean().sqrt().clamp_min(1e-12)
    std = centred.square().mean(dim=0).sqrt().mean() / scale
    # Singular values from the smaller Gram matrix: much cheaper than an SVD, exact enough for a monitor.
    gram = centred @ centred.T if z.shape[0] < z.shape[1] else centred.T @ centred
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    p = singular / singular.sum().clamp_min(1e-12)
    entropy = -(p * p.clamp_min(1e-12).log()).sum()
    return {"embedding_std": std, "effective_rank": entropy.exp()}


def collapse(figures: Mapping[str, float]) -> str | None:
    """Why a log line's figures mean that the embedding collapsed, or None.

    All views on one point (relative standard deviation under 0.01), or all on one line (effective rank under 1.5).
    """
    std, rank = figures.get("embedding_std"), figures.get("effective_rank")
    if std is not None and std < LEAST_STD:
        return f"the embedding collapsed to a point (relative standard deviation {std:.2g}, expected over {LEAST_STD})"
    if rank is not None and rank < LEAST_RANK:
        return f"the embedding collapsed to a line (effective rank {rank:.2f}, expected over {LEAST_RANK})"
    return None

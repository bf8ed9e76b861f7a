"""Is the embedding healthy? Figures that show a collapse long before a probe would."""

from __future__ import annotations

import torch
from torch import Tensor


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

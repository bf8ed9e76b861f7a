"""One rank of a job that trains backbones for one step under every norm policy; saves what came out. Started by ``support.ranks``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.backbones.norm import apply_norm_policy, set_norm_modes
from twinray.training.ranks import Ranks, joined_ranks
from twinray.training.sync_norm import synchronise_norms

POLICIES = ("trainable", "eval", "frozen", "group")
BATCH, SIDE = 4, 32


def images() -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, SIDE, SIDE, dtype=torch.float64, generator=rng)


def trained(policy: str, stages: int, ranks: Ranks) -> dict[str, Tensor]:
    """Weights and statistics after one step on this rank's share; the loss is a mean over images, as a detector's."""
    backbone = build_backbone("resnet18", 0).double()
    apply_norm_policy(backbone, policy, stages)  # type: ignore[arg-type]
    if ranks.world > 1:
        synchronise_norms(backbone)
    learning = [p for p in backbone.parameters() if p.requires_grad]
    backbone.train()
    set_norm_modes(backbone, policy, stages)  # type: ignore[arg-type]
    maps = backbone.stages(images()[ranks.share(BATCH)])
    loss = torch.stack([m.square().mean() for m in maps.values()]).sum()
    if learning:
        loss.backward()
        ranks.sum_gradients(learning, mean=True)
    with torch.no_grad():
        for p in learning:
            if p.grad is not None:
                p -= 0.01 * p.grad
    return {name: t.detach().clone() for name, t in backbone.state_dict().items()}


def main() -> None:
    torch.set_num_threads(1)
    with joined_ranks(torch.device("cpu")) as ranks:
        results = {
            f"{policy}-{stages}": trained(policy, stages, ranks)
            for policy in POLICIES
            for stages in map(int, sys.argv[2:])
        }
        if ranks.main:
            torch.save(results, Path(sys.argv[1]))


if __name__ == "__main__":
    main()

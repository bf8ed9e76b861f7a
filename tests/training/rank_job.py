"""One rank of a test job: runs the real training step on its share and saves what came out. Started by ``support.ranks``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from twinray.backbones.pixels import IMAGENET
from twinray.pretraining.objective import barlow_twins
from twinray.pretraining.step import Step
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.training.device import Machine
from twinray.training.ranks import Ranks, joined_ranks
from twinray.training.sync_norm import synchronise_norms

BATCH, SIDE, LAMBDA = 16, 8, 0.0051


class TinyTwins(nn.Module):
    """A network of any precision with the interface of the real one."""

    def __init__(self, norm: bool, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), *([nn.BatchNorm2d(6)] if norm else []), nn.Tanh()
        )
        self.backbone.normalisation = IMAGENET
        self.projector = nn.Sequential(
            nn.Linear(6 * SIDE**2, 12),
            *([nn.BatchNorm1d(12)] if norm else []),
            nn.ReLU(),
            nn.Linear(12, 24),
        )
        self.to(dtype)
        self.dtype = dtype

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(view.to(self.dtype)).flatten(1)
        return features, self.projector(features)


def make_pixels() -> Tensor:
    return torch.randint(
        0, 256, (BATCH, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def view_makers() -> tuple[ViewMaker, ViewMaker]:
    first, second = ViewOptions.pair()
    return ViewMaker(SIDE, first), ViewMaker(SIDE, second)


def run_step(model: TinyTwins, ranks: Ranks, accumulate: int) -> dict[str, Tensor]:
    """Loss, gradients and buffers after one step on this rank's share."""
    step = Step(
        model=model,  # type: ignore[arg-type]
        machine=Machine(torch.device("cpu"), bf16=False),
        views=view_makers(),
        objective=lambda a, b: barlow_twins(a, b, LAMBDA),
        seed=5,
        health_every=1,
        ranks=ranks,
        accumulate=accumulate,
    )
    figures = step(make_pixels()[ranks.share(BATCH)], 7)
    ranks.sum_gradients(model.parameters())
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**figures, **gradients, **dict(model.named_buffers())}


def main() -> None:
    out = Path(sys.argv[1])
    with joined_ranks(torch.device("cpu")) as ranks:
        results = {}
        for norm in (False, True):
            for dtype in (torch.float32, torch.float64):
                for accumulate in (1, 2, 4):
                    model = TinyTwins(norm, dtype).train()
                    if ranks.world > 1:
                        synchronise_norms(model)
                    name = f"{'norm' if norm else 'plain'}-{str(dtype).removeprefix('torch.')}-{accumulate}"
                    results[name] = {
                        k: v.detach().clone() for k, v in run_step(model, ranks, accumulate).items()
                    }
        if ranks.main:
            torch.save(results, out)


if __name__ == "__main__":
    main()

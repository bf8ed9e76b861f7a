"""The momentum twin and the predictor of BYOL (Grill et al. 2020, arXiv:2006.07733)."""

from __future__ import annotations

import copy
import math
from typing import Any, final

import torch
from torch import Tensor, nn

BASE_MOMENTUM = 0.996
"""The momentum at the first step in the paper."""


def momentum_at(step: int, total: int, base: float = BASE_MOMENTUM) -> float:
    """The share of the twin that an update keeps: cosine from ``base`` at step 0 to 1 at step ``total``.

    Raises:
        ValueError: ``step`` outside 0..total, no steps at all, or ``base`` outside 0..1.
    """
    if total < 1 or not 0 <= step <= total:
        raise ValueError(
            f"expected a step of 0..total and a total of 1 or more, got step {step} of {total}"
        )
    if not 0 <= base <= 1:
        raise ValueError(f"expected a base momentum of 0..1, got {base}")
    return 1 - (1 - base) * (math.cos(math.pi * step / total) + 1) / 2


def share_kept(step: int, total: int, share: float) -> float:
    """What an average of weights keeps of itself after ``step`` updates (counted from 1).

    The average forgets over ``share`` of the run: it keeps 1 - 1 / (share * total). Early on it keeps less,
    (step - 1) / (step + 9), so that the random first weights do not linger.

    Args:
        step: number of updates that are done, this one among them.
        total: number of updates of the run.
        share: part of the run, 0..1; 0 keeps nothing.
    """
    steps = share * total
    return min(1 - 1 / steps, (step - 1) / (step + 9)) if steps > 1 else 0.0


@final
class MomentumTwin(nn.Module):
    """A copy of a network that follows it as an exponential moving average.

    Its tensors are in ``state_dict`` (under ``target.``) and so in checkpoints, and require no
    gradient, so no optimiser takes them. The network itself is only referred to, not owned: register
    it once, elsewhere.

    Args:
        online: the network to copy and follow (backbone and projector in BYOL).
    """

    target: nn.Module

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self._online = (
            online,
        )  # in a tuple: as an attribute it would become a submodule, stored twice
        self.target = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Any:
        """What the online network would give for ``view``, by the averaged weights; without gradient."""
        return self.target(view)

    @torch.no_grad()
    def update(self, tau: float) -> None:
        """``target <- tau * target + (1 - tau) * online`` for parameters; buffers are copied.

        Multi-tensor kernels only, without a host synchronisation. To be called after the optimiser's step.

        Raises:
            ValueError: ``tau`` outside 0..1.
        """
        if not 0 <= tau <= 1:
            raise ValueError(f"expected a momentum of 0..1, got {tau}")
        online = self._online[0]
        torch._foreach_lerp_(list(self.target.parameters()), list(online.parameters()), 1 - tau)
        buffers = list(self.target.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(online.buffers()))


@final
class Predictor(nn.Module):
    """The online network's last part: linear, BatchNorm, ReLU, linear; (b, d) -> (b, d).

    Without biases, as the projector here: BatchNorm's replaces the first.

    Args:
        d: width of embeddings (256 in the paper).
        hidden: width of the hidden layer (4096 in the paper).
    """

    def __init__(self, d: int, hidden: int = 4096) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, d, bias=False),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(b, d) embeddings of the online network -> (b, d) predictions of the target's embeddings."""
        prediction: Tensor = self.layers(embedding)
        return prediction

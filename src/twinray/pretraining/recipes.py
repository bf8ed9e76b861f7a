"""Ways to pre-train, as values of the same options: ``published`` and ``short``.

``published`` is the recipe of the authors of Barlow Twins (Zbontar et al. 2021, and their code), which was made for
hundreds of epochs over a million colour photographs. ``short`` is for runs of some hundred to a few thousand steps on grey
images. What it differs in, and on which data that was chosen, stands in docs/training.md. An option
that is given wins over its recipe's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

RecipeName = Literal["published", "short"]
LONG = 100
"""Epochs from which on a run without a named recipe takes ``published``."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets.

    Attributes:
        lam: weight of the redundancy term; None: 1 / width of the embedding.
        crop_min: smallest area of a crop, share of the image.
        warmup: epochs of linear warm-up; a part of the epochs where ``warmup_part``.
        warmup_part: number of parts of the epochs, one of which the warm-up takes at most.
        average: share of the run's steps over which the backbone's weights are averaged; 0: none.
        norm_statistics: images that the kept statistics of batch norms are of.
        zero_init_residual: whether random ResNets begin with a weight of 0 in the last norm of every residual block.
    """

    lam: float | None
    crop_min: float
    warmup: float
    warmup_part: float
    average: float
    norm_statistics: Literal["views", "whole"]
    zero_init_residual: bool

    def warmup_epochs(self, epochs: int) -> float:
        """Epochs of linear warm-up of a run of ``epochs``."""
        return min(self.warmup, epochs / self.warmup_part)


RECIPES: Mapping[RecipeName, Recipe] = MappingProxyType(
    {
        "published": Recipe(
            lam=0.0051,
            crop_min=0.08,
            warmup=10.0,
            warmup_part=10.0,  # the authors' runs have 100 epochs and more, so 10 epochs is never above a tenth
            average=0.0,
            norm_statistics="views",
            zero_init_residual=True,
        ),
        "short": Recipe(
            lam=None,
            crop_min=0.5,
            warmup=10.0,
            warmup_part=10.0,
            average=0.0,
            norm_statistics="views",
            zero_init_residual=False,
        ),
    }
)


def recipe_name(asked: Literal["auto", "published", "short"], epochs: int) -> RecipeName:
    """The recipe that ``--recipe`` means for a run of ``epochs``."""
    if asked != "auto":
        return asked
    return "published" if epochs >= LONG else "short"

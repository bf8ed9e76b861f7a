"""What every stage of the project may ask of a backbone, wherever its layers come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from twinray.runs.description import Normalisation

Channels = tuple[int, ...]
STAGE_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
"""The stages that a feature pyramid is built on, and the pixels of the image from one of their pixels to the next."""

STAGE_NAMES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""What comes before c2's first layer, and what ends with c2 .. c5."""

LAST_MAP = "last"
"""The one map of a plain transformer, whose blocks all work at the stride of its patches."""

PATCH_STRIDES = {8: 8, 14: 16, 16: 16}
"""Patches that a pyramid can be built on, and the power of two that their stride stands for.

A map of patches of 32 pixels holds too little to make one of stride 4 of."""


class Backbone(nn.Module, ABC):
    """A network without its classifier: pooled features, and feature maps where it has them.

    These are the maps of four stages, or the last one of a plain transformer (``patch`` is then above 0).

    Its state-dict names are those of the library it comes from, so weights move to and from every tool that speaks it.

    Attributes:
        arch: the architecture as ``--arch`` names it.
        features: d, the width of the pooled features.
        normalisation: pixels that its weights take; set with them.
        aligned: whether cell i of a stage is to look at the pixel stride * i, as anchors and RoIAlign take it, to a pixel. It is by
            itself where padding is even; TensorFlow's looks nearly a cell further right and down.
    """

    arch: str
    features: int
    normalisation: Normalisation = Normalisation()
    aligned: bool = False

    @property
    @abstractmethod
    def patch(self) -> int:
        """Side of a plain transformer's patches, pixels; 0 for a network with four stages.

        Raises:
            InputError: the network has neither.
        """

    @property
    @abstractmethod
    def stage_channels(self) -> Channels:
        """Channels of the stages c2 (stride 4), c3 (8), c4 (16), c5 (32); of a plain transformer those of its last map.

        Raises:
            InputError: the network has no such maps.
        """

    @abstractmethod
    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of (b, 3, h, w) normalised images, by stage name, each (b, c, h / stride, w / stride).

        A plain transformer has one, ``last``: its patch tokens after the last block and its final norm, without class
        and register tokens.

        Raises:
            InputError: the network has no such maps.
        """

    @abstractmethod
    def stage_of(self, name: str) -> int | None:
        """The stage of a parameter, or of a module that holds parameters, named as ``named_modules`` names it.

        Returns:
            0 for the stem, 1..4 for what comes after it up to c2..c5; None for what only the pooled features need. Of a
            plain transformer 1..4 are the quarters of its blocks.

        Raises:
            InputError: the network has no such maps.
        """

    @abstractmethod
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Names of the parameters of each part of the network, from the input on: the stem, then stages or blocks.

        Every parameter, as ``named_parameters`` names it, is in exactly one part.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (b, d) of (b, 3, h, w) normalised images."""


def has_tokens(names: Iterable[str]) -> bool:
    """Whether a network attends over tokens (ViT, Swin, ...), by the names of its parameters."""
    marks = ("pos_embed", "cls_token", "relative_position")
    return any(mark in name for name in names for mark in marks)


def parts_of_maps(backbone: Backbone) -> list[tuple[str, ...]]:
    """Names of the parameters of each part that feature maps are made of, from the input on.

    Raises:
        InputError: the network has no maps.
    """
    used = (
        tuple(name for name in names if backbone.stage_of(name) is not None)
        for names in backbone.parts().values()
    )
    return [names for names in used if names]


def layer_factors(backbone: Backbone, decay: float) -> dict[str, float]:
    """Factors on the rate under layer-wise decay (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT), by parameter.

    What stands after the feature maps has 1, their last part ``decay``, each part before it ``decay`` times that.
    Parameters that only the pooled features need are left out.

    Raises:
        InputError: the network has no maps.
    """
    parts = parts_of_maps(backbone)
    return {
        name: decay ** (len(parts) - place) for place, names in enumerate(parts) for name in names
    }

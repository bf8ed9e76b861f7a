"""What every stage of the project may ask of a backbone, wherever its layers come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from twinray.runs.description import Normalisation

Channels = tuple[int, int, int, int]
STAGE_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
"""The stages that a feature pyramid is built on, and the pixels of the image from one of their pixels to the next."""

STAGE_NAMES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""What comes before c2's first layer, and what ends with c2 .. c5."""


class Backbone(nn.Module, ABC):
    """A network without its classifier: pooled features, and the feature maps of four stages where it has them.

    Its state-dict names are those of the library it comes from, so weights move to and from every tool that speaks it.

    Attributes:
        arch: the architecture as ``--arch`` names it.
        features: d, the width of the pooled features.
        normalisation: pixels that its weights take; set with them.
    """

    arch: str
    features: int
    normalisation: Normalisation = Normalisation()

    @property
    @abstractmethod
    def stage_channels(self) -> Channels:
        """Channels of the stages c2 (stride 4), c3 (8), c4 (16), c5 (32).

        Raises:
            InputError: the network has no maps at these strides.
        """

    @abstractmethod
    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of (b, 3, h, w) normalised images, by stage name, each (b, c, h / stride, w / stride).

        Raises:
            InputError: the network has no maps at these strides.
        """

    @abstractmethod
    def stage_of(self, name: str) -> int | None:
        """The stage of a parameter, or of a module that holds parameters, named as ``named_modules`` names it.

        Returns:
            0 for the stem, 1..4 for what comes after it up to c2..c5; None for what only the pooled features need.

        Raises:
            InputError: the network has no maps at these strides.
        """

    @abstractmethod
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Names of the parameters of each part of the network, from the input on: the stem, then stages or blocks.

        Every parameter, as ``named_parameters`` names it, is in exactly one part.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (b, d) of (b, 3, h, w) normalised images."""

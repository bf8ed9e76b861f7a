"""Heat maps of classes, for a classifier and one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twinray.backbones.pixels import network_input
from twinray.classification.model import Classifier
from twinray.errors import InputError
from twinray.explanation.class_maps import (
    CLASS_METHODS,
    DEFINITIONS,
    ClassMap,
    ClassMethod,
    ClassScorer,
    class_maps,
    last_map_is_pooled,
)
from twinray.inference.model import Model
from twinray.inference.prepared import Prepared


@dataclass(frozen=True, eq=False)
class ExplainedClasses:
    """A picture's worth of results for one image.

    Attributes:
        id: the image. image: (h, w) or (h, w, 3) uint8 for display.
        scale: (2,) factors from original pixels to pixels of ``image``.
        scores: (k,) probabilities of all classes.
        labels: classes that have a heat map.
        heat_maps: (len(labels), h, w) float32 in 0..1.
        definition: what the heat map is, in words.
    """

    id: str
    image: npt.NDArray[np.uint8]
    scale: tuple[float, float]
    scores: npt.NDArray[np.float64]
    labels: tuple[int, ...]
    heat_maps: npt.NDArray[np.float32]
    definition: str


class ClassExplainer:
    """A classifier ready to be asked for heat maps, by one method or several.

    Args:
        model: model of a classify run.

    Raises:
        InputError: the run is a detector.
    """

    def __init__(self, model: Model) -> None:
        network = model.classifier
        self.model = model
        self.network = network
        with model.machine.autocast():
            self.scorer = _scorer(network, model.size, model.machine.device)

    def check_method(self, method: str) -> None:
        """Refuse a method that does not exist, or that this network has no use for.

        Raises:
            InputError: naming the methods that can be used.
        """
        if method not in CLASS_METHODS:
            raise InputError(
                f"expected --method to be one of {', '.join(CLASS_METHODS)} for a classifier, got {method!r}"
            )
        if not self.has_use_for(method):
            raise InputError(
                f"the method {method} needs a last feature map whose mean over places are the features; "
                f"{self.network.backbone.arch} has none: use --method occlusion"
            )

    def has_use_for(self, method: str) -> bool:
        """Whether this network has what a method needs: occlusion nothing, the others a last map that is pooled."""
        return method == "occlusion" or self.scorer.last_map is not None

    def maps(
        self, image: Prepared, labels: Sequence[int], method: ClassMethod, *, batch_size: int = 16
    ) -> list[ClassMap]:
        """Heat maps over the network's input.

        Raises:
            InputError: see ``check_method``.
        """
        self.check_method(method)
        pixels = self.batch(image)[0]
        with self.model.machine.autocast():
            return class_maps(method, pixels, labels, self.scorer, batch_size=batch_size)

    def explain(
        self, image: Prepared, labels: Sequence[int], method: ClassMethod
    ) -> ExplainedClasses:
        """Heat maps over the image as it is shown, and the probabilities of all classes."""
        found = self.maps(image, labels, method)
        height, width = image.display.shape[:2]
        return ExplainedClasses(
            image.id,
            image.display,
            (width / image.place.original[0], height / image.place.original[1]),
            self.model.labels([image])[0].astype(np.float64),
            tuple(labels),
            np.stack([image.map_to_display(one.map) for one in found])
            if found
            else np.zeros((0, height, width), np.float32),
            DEFINITIONS[method],
        )

    def batch(self, image: Prepared) -> Tensor:
        """(1, 3, s, s) normalised: what the network sees of an image."""
        packed = torch.from_numpy(np.stack([image.packed]))
        by = self.model.description.normalisation
        return network_input(packed, self.model.size, self.model.machine.device, by)

    @torch.no_grad()
    def probabilities(self, versions: Tensor, labels: Sequence[int]) -> Tensor:
        """(b,) probability of class i on version i of an image, ``versions`` (b, 3, s, s)."""
        with self.model.machine.autocast():
            scores: Tensor = self.network(versions.contiguous(memory_format=torch.channels_last))
        return scores.float().gather(1, torch.tensor(list(labels), device=scores.device)[:, None])[
            :, 0
        ]


def _scorer(network: Classifier, size: int, device: torch.device) -> ClassScorer:
    backbone = network.backbone

    def last_map(images: Tensor) -> Tensor:
        return list(backbone.stages(images).values())[-1]

    def logits(images: Tensor) -> Tensor:
        found: Tensor = network.head(backbone(images))
        return found

    # Networks of timm may normalise, attend or widen between their last map and their features: asked, not guessed.
    probe = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with torch.no_grad():
            pooled = last_map_is_pooled(last_map(probe).float(), backbone(probe).float())
    except InputError:
        pooled = False
    return ClassScorer(
        last_map if pooled else None, network.head, logits, network.task == "multiclass"
    )

"""What leaves the house: a finished run's network with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.pixels import network_input, pixels_to_unit, resize
from twinray.backbones.weights import initialise
from twinray.classification.model import Classifier
from twinray.data.decoding.options import Decoding
from twinray.detection.model import Detector
from twinray.errors import InputError
from twinray.exporting.parity import Limits
from twinray.inference.model import Model, load_model
from twinray.records import Boxes
from twinray.runs.checksums import UNVERIFIED, check_files
from twinray.runs.description import (
    MadeLike,
    ModelDescription,
    Normalisation,
    StartedFrom,
    WeightDescription,
    read_weight_description,
)

BACKBONE = "backbone.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A finished run, opened for export.

    Attributes:
        run: its folder.
        description: what the JSON beside its weights says.
        network: the network with its weights, on the processor, in evaluation mode.
        model: detector or classifier ready for images; None of a backbone.
        edited: notes on files that are not as the run wrote them.
    """

    run: Path
    description: ModelDescription | WeightDescription
    network: Detector | Classifier | Backbone
    model: Model | None
    edited: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``detector``, ``classifier`` or ``backbone``."""
        return self.description.kind

    @property
    def arch(self) -> str:
        """Architecture of the backbone."""
        return self.description.arch

    @property
    def size(self) -> int:
        """Side of the network's input, pixels."""
        return self.description.size or 224

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none of a backbone."""
        return self.description.classes if isinstance(self.description, ModelDescription) else ()

    @property
    def init(self) -> StartedFrom:
        """What it started from."""
        return self.description.init

    @property
    def normalisation(self) -> Normalisation:
        """Pixels that it takes."""
        return self.description.normalisation

    @property
    def pack(self) -> MadeLike:
        """How images became those that it learned from; of backbones that do not say, letterboxed grey at the network's side."""
        if self.description.pack is not None:
            return self.description.pack
        assert isinstance(self.description, WeightDescription)
        return MadeLike(
            self.size, "letterbox", 1, pixels="uint16" if self.description.windows else "uint8"
        )

    @property
    def decoding(self) -> Decoding:
        """How new files are decoded: as those of its pack were."""
        return self.pack.decoded.for_new_files(None, self.pack.pixels)

    @property
    def linear(self) -> bool:
        """Whether it learned from packs of linear values (uint16), each image in its own window."""
        return self.pack.pixels == "uint16"

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, wherever it stands."""
        if isinstance(self.network, Detector):
            return self.network.backbone.body
        return self.network.backbone if isinstance(self.network, Classifier) else self.network

    def unit_input(self, pixels: Tensor) -> Tensor:
        """Packed uint8 pixels (b, p, p[, 3]) -> (b, 3, s, s) on the 0..1 scale, red, green and blue."""
        how = self.network.options.resize if isinstance(self.network, Detector) else "bicubic"
        unit = resize(pixels_to_unit(pixels), self.size, how)
        return unit.expand(-1, 3, -1, -1).contiguous()

    def network_input(self, pixels: Tensor) -> Tensor:
        """Packed uint8 pixels (b, p, p[, 3]) -> (b, 3, s, s) normalised, as every verb makes it.

        Values lie channel by channel, as other tools lay them: another order in memory is another order of summing.
        """
        if isinstance(self.network, Detector):
            return self.network.network_input(pixels).contiguous()
        seen = network_input(pixels, self.size, torch.device("cpu"), self.normalisation)
        return seen.contiguous()


def open_subject(run: Path, *, allow_edited: bool = False) -> Subject:
    """Open a finished run.

    Args:
        run: its folder.
        allow_edited: flag to take files that are not as the run wrote them.

    Raises:
        InputError: not a finished run, or one whose files do not belong together.
    """
    if (run / "model.safetensors").is_file():
        model = load_model(run, "cpu", allow_edited=allow_edited)
        network = model.network.to(memory_format=torch.contiguous_format).eval()
        return Subject(run, model.description, network, model, model.edited)
    if not (run / BACKBONE).is_file():
        raise InputError(
            f"expected the folder of a finished pretrain, classify or detect run, {run} has neither model.safetensors nor "
            f"{BACKBONE}; did it finish?"
        )
    described = read_weight_description((run / BACKBONE).with_suffix(".json"))
    if described is None:
        raise InputError(f"{run}: backbone.json describes no weights of ours; restore the file")
    edited = check_files(run, [BACKBONE, "backbone.json"], allow_edited=allow_edited)
    backbone = build_backbone(described.arch, 0, described.size or None)
    initialise(backbone, str(run / BACKBONE))
    notes = tuple(note for note in edited if note != UNVERIFIED)
    return Subject(run, described, backbone.eval(), None, notes)


def rgb_state(network: nn.Module, order: str) -> dict[str, Tensor]:
    """A network's tensors by name, for pixels in the order red, green, blue.

    Weights that take blue first have the channels of their first convolution turned round: other tools do not ask.
    """
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    if order == "BGR":
        first = next(
            one for one in network.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3
        )
        kept = network.state_dict(keep_vars=True)
        key = next(name for name, tensor in kept.items() if tensor is first.weight)
        state[key] = state[key].flip(1)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def outputs(subject: Subject, seen: Tensor) -> Tensor:
    """Logits or features of what a classifier or backbone sees."""
    network: Any = subject.network
    found: Tensor = network.logits(seen) if subject.kind == "classifier" else network(seen)
    return found


def rgb(subject: Subject, seen: Tensor) -> Tensor:
    """What a network of red, green and blue is fed where ours takes blue first."""
    return seen.flip(1) if subject.normalisation.order == "BGR" else seen


def limits_of(network: Detector) -> Limits:
    """Where a detector's lists of boxes end."""
    options = network.options
    return Limits(options.size, options.detections_per_image, options.score_threshold)


def boxes_of(found: Any) -> Boxes:
    """A detection as boxes in pixels of the network's input."""
    return Boxes(
        found.boxes.double().numpy(),
        found.labels.numpy().astype(np.int64),
        found.scores.double().numpy(),
    )

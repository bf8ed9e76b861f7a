"""Initial weights of a backbone: random, ImageNet, an earlier run, or a file.

Nothing loads silently: every missing and unexpected key is named, and loading fails unless every
tensor of the backbone was filled.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from twinray.backbones.contract import Backbone
from twinray.backbones.layouts import Match, best_match
from twinray.backbones.timm_backbone import TimmBackbone, pretrained_state
from twinray.backbones.weight_file import Tensors, check_values, read_tensors
from twinray.errors import InputError
from twinray.files import read_json, sha256
from twinray.runs.description import WeightDescription, read_weight_description

_IMAGENET = {"imagenet-v1": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
RUN_WEIGHTS = ("backbone.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Provenance:
    """Where a backbone's weights came from; written beside every result.

    Attributes:
        init: as asked for (``random``, ``imagenet-v2``, a path).
        source: the file or weight enum that was read; empty for random weights.
        sha256: SHA-256 of that file; of nothing for random weights.
        loaded: number of tensors filled.
        unexpected: keys of the file that the backbone has no place for (its classifier, a projector).
        description: the JSON beside the weights of a run, if there was one.
        seen: whether it is known what these weights saw in training: ``recorded``, ``nothing`` (random and ImageNet
            weights) or ``unknown``; empty where nobody asked.
        layout: the spelling of the names in the file. prefix: what stood before them there.
        notes: what was done to make them fit, and what else the file holds.
    """

    init: str
    source: str = ""
    sha256: str = ""
    loaded: int = 0
    unexpected: tuple[str, ...] = ()
    description: Mapping[str, Any] | None = None
    seen: str = ""
    layout: str = ""
    prefix: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json`` and the description beside the weights."""
        return asdict(self)

    @property
    def is_random(self) -> bool:
        """Whether no tensor was loaded."""
        return self.init == "random"


def initialise(backbone: Backbone, init: str) -> Provenance:
    """Fill ``backbone`` in place.

    Args:
        backbone: network to fill; its own random weights stay for ``random``.
        init: ``random``, ``imagenet-v1``, ``imagenet-v2``, a run's folder, or a weight file. Under
            ``imagenet-v1`` a timm network gets the weights that timm publishes by default, or those
            of the tag in its name. A weight file is ``.safetensors``, or a PyTorch file, which is
            read with ``weights_only=True``.

    Raises:
        InputError: no such weights, no network to fetch them, an unreadable file, or weights that
            do not fill this architecture exactly. Every key that disagrees is counted and named.
    """
    if init == "random":
        return Provenance("random")
    description: Mapping[str, Any] | None = None
    if init in _IMAGENET:
        state, source, digest = _imagenet(backbone, init)
        dictionaries = {"": state}
    else:
        path = _weight_file(init)
        dictionaries, source, digest = read_tensors(path), str(path), sha256(path)
        described = read_description(init)
        if described is not None:  # kept as it stands, for the record
            backbone.normalisation = described.normalisation
            description = read_json(path.with_suffix(".json"), "weight description")
    match = _fill(backbone, dictionaries, source)
    return Provenance(
        init,
        source,
        digest,
        len(backbone.state_dict()),
        match.unexpected,
        description,
        layout=match.layout,
        prefix=f"{match.place}{':' if match.place else ''}{match.prefix}",
        notes=match.notes,
    )


def weight_file(init: str) -> Path | None:
    """The file that ``init`` names; None for random and ImageNet weights.

    Raises:
        InputError: ``init`` names neither known weights, nor a run, nor a file.
    """
    return None if init == "random" or init in _IMAGENET else _weight_file(init)


def read_description(init: str) -> WeightDescription | None:
    """What the JSON beside the weights that ``init`` names says; None where there is none of ours.

    Raises:
        InputError: ``init`` names neither known weights, nor a run, nor a file; or the description is damaged, or of other
            weights.
    """
    if init == "random" or init in _IMAGENET:
        return None
    weights = _weight_file(init)
    beside = weights.with_suffix(".json")
    described = read_weight_description(beside) if beside.is_file() else None
    if described is not None and described.sha256 != sha256(weights):
        raise InputError(
            f"{beside} describes other weights than {weights.name}: copied by halves? Copy both files again"
        )
    return described


def described_arch(init: str) -> str:
    """The architecture that the weights' description names.

    Raises:
        InputError: there is no description: whoever compares arms must say what they share.
    """
    described = read_description(init)
    if described is None:
        raise InputError(
            f"expected --arch with --init {init}: name the architecture that all arms of the comparison share"
        )
    return described.arch


def _imagenet(backbone: Backbone, init: str) -> tuple[dict[str, Tensor], str, str]:
    arch = backbone.arch
    if isinstance(backbone, TimmBackbone):
        if init != "imagenet-v1":
            raise InputError(
                f"timm has no {init} weights for {arch}; choose --init imagenet-v1, timm's published weights"
            )
        return pretrained_state(backbone)
    enum = torchvision.models.get_model_weights(arch)
    name = _IMAGENET[init]
    if name not in enum.__members__:
        known = [key for key, value in _IMAGENET.items() if value in enum.__members__]
        raise InputError(
            f"torchvision has no {init} weights for {arch}; choose --init {' or '.join(known)}, or another --arch"
        )
    weights = enum[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise InputError(
            f"could not fetch {weights} ({_first_line(error)}); without a network, download {Path(weights.url).name} with "
            f"torchvision on another machine and copy it to {file}, or name the file itself with --init FILE"
        ) from error
    return dict(state), str(weights), sha256(file) if file.is_file() else ""


def _weight_file(init: str) -> Path:
    path = Path(init)
    if path.is_dir():
        for name in RUN_WEIGHTS:
            if (path / name).is_file():
                return path / name
        raise InputError(
            f"expected {' or '.join(RUN_WEIGHTS)} in the run {path}, found neither: did the run finish? (see --resume)"
        )
    if not path.is_file():
        raise InputError(
            f"expected --init to be random, imagenet-v1, imagenet-v2, a run's folder or a weight file; {init!r} is none of these"
        )
    return path


def _fill(
    backbone: Backbone, dictionaries: Mapping[str, Tensors], source: str, layout: str = ""
) -> Match:
    """Fill every tensor of ``backbone``, or refuse; nothing is loaded in part."""
    match = best_match(backbone, dictionaries, source, layout)
    if not match.complete:
        raise InputError(_does_not_fit(backbone.arch, match, source))
    check_values(dictionaries[match.place], source)
    own = backbone.state_dict()
    for name, tensor in match.state.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise InputError(
                f"{source}: the tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}, not real numbers "
                "(quantised weights?); give the weights that it was made from"
            )
    backbone.load_state_dict({key: match.state.get(key, own[key]) for key in own}, strict=True)
    return match


def _does_not_fit(arch: str, match: Match, source: str) -> str:
    if not match.fitting and not match.misshaped:
        names = match.unexpected
        heads = {name.partition(".")[0] for name in names}
        called = f"all begin with the prefix {heads.pop()!r}" if len(heads) == 1 else _some(names)
        return (
            f"weights in {source} do not fit {arch}: no name of a tensor ends as one of the network ({called}); "
            "pass the --arch that they were trained with, or export the network's own state_dict"
        )
    wrong = f"; of another shape: {_some(match.misshaped)}" if match.misshaped else ""
    lacking = f"; missing: {_some(match.missing)}" if match.missing else ""
    extra = f"; unexpected: {_some(match.unexpected)}" if match.unexpected else ""
    prefix = f", read behind the prefix {match.prefix!r}" if match.prefix else ""
    return (
        f"weights in {source} do not fit {arch}: {match.fitting} of {match.wanted} tensors fit{prefix}{lacking}{wrong}{extra}; "
        "pass the --arch that they were trained with"
    )


def _some(keys: Sequence[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

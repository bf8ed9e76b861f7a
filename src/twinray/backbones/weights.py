"""Initial weights of a backbone: random, ImageNet, an earlier run, or a file.

Nothing loads silently: every missing and unexpected key is named, and loading fails unless every
tensor of the backbone was filled.
"""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from twinray.backbones.contract import Backbone
from twinray.backbones.timm_backbone import TimmBackbone, pretrained_state
from twinray.errors import InputError
from twinray.files import read_json, sha256
from twinray.runs.description import WeightDescription, read_weight_description

_IMAGENET = {"imagenet-v1": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "net", "backbone")
_PREFIXES = (
    "",
    "module.",
    "backbone.",
    "encoder.",
    "model.",
    "module.backbone.",
    "model.backbone.",
    "backbone.body.",
)
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
    """

    init: str
    source: str = ""
    sha256: str = ""
    loaded: int = 0
    unexpected: tuple[str, ...] = ()
    description: Mapping[str, Any] | None = None
    seen: str = ""

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
    else:
        path = _weight_file(init)
        state, source, digest = _read_state(path), str(path), sha256(path)
        if read_description(init) is not None:  # kept as it stands, for the record
            description = read_json(path.with_suffix(".json"), "weight description")
    state = _strip_prefix(state, backbone)
    unexpected = _load_exactly(backbone, state, source)
    return Provenance(init, source, digest, len(backbone.state_dict()), unexpected, description)


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


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
    ) as error:
        raise InputError(
            f"could not read weights from {path} ({_first_line(error)}); expected a .safetensors file or a PyTorch file that "
            "holds tensors only"
        ) from error
    for _ in range(2):  # {"state_dict": {...}} and the like, at most nested twice
        for key in _WRAPPERS:
            if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
                raw = raw[key]
                break
    if (
        not isinstance(raw, Mapping)
        or not raw
        or not all(isinstance(v, Tensor) for v in raw.values())
    ):
        raise InputError(
            f"expected a dictionary of tensors in {path}, found {type(raw).__name__}; export the model's state_dict"
        )
    return {str(key): value for key, value in raw.items()}


def _strip_prefix(state: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Undo the prefix that a wrapper (DataParallel, MMDetection, lightly) put before every name."""
    wanted = backbone.state_dict().keys()
    best = max(_PREFIXES, key=lambda prefix: sum(prefix + key in state for key in wanted))
    return {
        key.removeprefix(best) if key.startswith(best) else f"(other) {key}": value
        for key, value in state.items()
    }


def _load_exactly(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    own = backbone.state_dict()
    optional = {
        key for key in own if key.endswith("num_batches_tracked")
    }  # a counter, not a weight
    missing = sorted(own.keys() - state.keys() - optional)
    shapes = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    unexpected = tuple(sorted(state.keys() - own.keys()))
    if missing or shapes:
        wrong = f"; of another shape: {_some(shapes)}" if shapes else ""
        lacking = f"; missing: {_some(missing)}" if missing else ""
        extra = f"; unexpected: {_some(list(unexpected))}" if unexpected else ""
        raise InputError(
            f"weights in {source} do not fit {backbone.arch}: {len(own) - len(missing) - len(shapes)} of {len(own)} tensors "
            f"fit{lacking}{wrong}{extra}; pass the --arch that they were trained with"
        )
    backbone.load_state_dict({key: state.get(key, own[key]) for key in own}, strict=True)
    return unexpected


def _some(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

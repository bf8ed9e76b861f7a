"""``--to timm``: weights and ``config.json`` that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from twinray.about import version_of
from twinray.backbones.timm_backbone import TimmBackbone
from twinray.detection.model import Detector
from twinray.errors import InputError
from twinray.exporting.files import Exported
from twinray.exporting.parity import Parity, of_numbers
from twinray.exporting.subject import Subject, outputs, rgb, rgb_state
from twinray.exporting.to_torchvision import torchvision_state
from twinray.files import write_bytes, write_json

_LIMIT = 1e-5
_BATCH = 4


def installed_timm() -> Any:
    """The package, imported; asked for before any work.

    Raises:
        InputError: it is not installed, naming the extra.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise InputError("--to timm needs timm: pip install 'twinray[timm]'") from error


def write(subject: Subject, out: Path) -> Exported:
    """Write ``model.safetensors`` and ``config.json``; of a detector the backbone alone.

    Raises:
        InputError: timm is not installed, or has no such network.
        TwinrayError: the place cannot be written.
    """
    timm = installed_timm()
    name, options = _named(subject)
    if not timm.is_model(name):
        raise InputError(f"timm {timm.__version__} has no network {name}; use --to torchvision")
    detector = isinstance(subject.network, Detector)
    order = subject.normalisation.order
    state = rgb_state(subject.backbone, order) if detector else torchvision_state(subject)
    write_json(out / "config.json", _config(subject, name, options, timm), "description for timm")
    write_bytes(out / "model.safetensors", safetensors.torch.save(state), "weights")
    usage = "```python\nimport timm\n\nmodel = timm.create_model('local-dir:.', pretrained=True).eval()\n```"
    notes = (
        *(["the backbone alone: timm has no detectors"] if detector else []),
        *_pixel_notes(subject),
    )

    def check(pixels: Tensor) -> Parity:
        model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        return _check(subject, model, pixels)

    return Exported(("config.json", "model.safetensors"), usage, check, notes)


def _pixel_notes(subject: Subject) -> Iterator[str]:
    """Where timm's own transforms make other pixels than the run's pack."""
    own = subject.pack
    if own.channels == 1:
        yield "the run's images are grey: feed timm's transforms `image.convert('L').convert('RGB')`"
    if own.fit == "letterbox":
        yield "timm pads in the mean colour, the run's pack in black: pad images to a square first where figures must be the run's"


def _named(subject: Subject) -> tuple[str, dict[str, Any]]:
    backbone = subject.backbone
    if isinstance(backbone, TimmBackbone):
        options = dict(backbone.options)
        built_for = getattr(getattr(backbone.net, "patch_embed", None), "img_size", None)
        if options.get("dynamic_img_size") and built_for:
            # else timm would build it for another side and resample the position embeddings
            options["img_size"] = int(built_for[0])
        return backbone.name.partition(".")[0], options
    built = subject.network.options if isinstance(subject.network, Detector) else None
    # torchvision's ResNets stand in timm under the same names, with the same names of tensors
    if built is not None and built.norm == "group":
        return backbone.arch, {"norm_layer": "groupnorm"}
    if built is not None and built.norm_eps is not None:
        raise InputError(
            f"{subject.run}: batch norms that add {built.norm_eps:g} to the variance cannot be stated for timm; use --to "
            "torchvision"
        )
    return backbone.arch, {}


def _config(subject: Subject, name: str, options: dict[str, Any], timm: Any) -> dict[str, Any]:
    by, k = subject.normalisation, len(subject.classes)
    classes = k if subject.kind == "classifier" else 0
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    pixels = {
        "input_size": [3, subject.size, subject.size],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        # timm's way to stretch to the square, or to keep the proportions and pad
        "crop_mode": "squash" if subject.pack.fit == "squash" else "border",
        "mean": list(by.mean),
        "std": list(by.std),
        "num_classes": classes,
        "first_conv": getattr(known, "first_conv", None),
        "classifier": getattr(known, "classifier", None),
    }
    found: dict[str, Any] = {
        "architecture": name,
        "num_classes": classes,
        "num_features": subject.backbone.features,
        "model_args": options,
        "pretrained_cfg": pixels,
    }
    if subject.kind == "classifier":
        found["label_names"] = list(subject.classes)
    return found


@torch.no_grad()
def _check(subject: Subject, model: Any, pixels: Tensor) -> Parity:
    ours, theirs = [], []
    for part in torch.split(pixels, _BATCH):
        seen = subject.network_input(part)
        own = (
            subject.backbone(seen)
            if isinstance(subject.network, Detector)
            else outputs(subject, seen)
        )
        ours.append(own)
        theirs.append(model(rgb(subject, seen)))
    both = (torch.cat(one).double().numpy() for one in (ours, theirs))
    what = "logits" if subject.kind == "classifier" else "features"
    return of_numbers(*both, loader=f"timm {version_of('timm')}", what=what, limit=_LIMIT)

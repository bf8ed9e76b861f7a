"""``--to hub``: the layout of Hugging Face's hub, from which ``twinray.load`` and ``--init`` take the weights again.

The description stands in the metadata of the safetensors file too, so that the file alone is enough. Paths of the house and names of
private sources stay behind.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from twinray.about import own_version
from twinray.backbones.ledger import row_named
from twinray.errors import InputError
from twinray.exporting.files import Exported
from twinray.exporting.licences import chain
from twinray.exporting.parity import Parity, of_boxes, of_numbers
from twinray.exporting.subject import Subject, boxes_of, limits_of, open_subject, outputs
from twinray.files import sha256, write_bytes, write_json
from twinray.runs.description import LearntFrom, ModelDescription, StartedFrom
from twinray.runs.folder import plain

METADATA = "twinray"
"""Key of the description in a safetensors file's metadata."""
_WHAT = "loaded again by twinray"


def write(subject: Subject, out: Path) -> Exported:
    """Write weights and description.

    Raises:
        TwinrayError: the place cannot be written.
    """
    name = "backbone" if subject.kind == "backbone" else "model"
    described = _described(subject)
    state = {
        key: value.detach().contiguous() for key, value in subject.network.state_dict().items()
    }
    metadata = {"format": "pt", METADATA: json.dumps(described)}
    weights = out / f"{name}.safetensors"
    write_bytes(weights, safetensors.torch.save(state, metadata=metadata), "weights")
    write_json(out / f"{name}.json", {**described, "sha256": sha256(weights)}, "weight description")
    usage = (
        "```python\nimport twinray\n\nmodel = twinray.load('.')  # or the hub's id\nfound = model('image.png')\n```\n\n"
        "As initial weights: `twinray detect --init FOLDER`."
    )

    def check(pixels: Tensor) -> Parity:
        return _check(subject, open_subject(out), pixels)

    return Exported((weights.name, f"{name}.json"), usage, check)


def _described(subject: Subject) -> dict[str, Any]:
    """The description without paths, and without names that only the house knows."""
    row = row_named(subject.init.init)
    named = subject.init.init if subject.init.init in ("", "random") else "other weights"
    named = named if row is None else row.name
    init = StartedFrom(named, subject.init.sha256, chain(subject))
    description = subject.description
    decoded = subject.pack.decoded
    # by source, whose names are the house's; new files are decoded by the values alone
    scales = {f"source {i}": one for i, one in enumerate(decoded.scales.values(), start=1)}
    pack = replace(subject.pack, decoded=replace(decoded, scales=scales))
    if isinstance(description, ModelDescription):
        data = tuple(LearntFrom("?", (), one.checksums) for one in description.data)
        found = plain(replace(description, init=init, data=data, pack=pack))
    else:
        found = plain(replace(description, init=init, size=subject.size, pack=pack))
        found["features"] = subject.backbone.features
    del found["sha256"]
    return {**found, "exported_by": f"twinray {own_version()}"}


def described_in(weights: Path) -> dict[str, Any]:
    """The description in a safetensors file's metadata.

    Raises:
        InputError: it holds none.
    """
    try:
        with safetensors.safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get(METADATA, "")
        found = json.loads(text)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"expected weights of twinray export in {weights}, their metadata hold no description; give the folder with model.json"
        ) from error
    return dict(found)


@torch.no_grad()
def _check(subject: Subject, again: Subject, pixels: Tensor) -> Parity:
    seen = [subject.network_input(one[None]) for one in pixels]
    if subject.model is None or subject.kind == "classifier":
        both = (
            torch.cat([outputs(one, x) for x in seen]).double().numpy() for one in (subject, again)
        )
        what = "logits" if subject.kind == "classifier" else "features"
        return of_numbers(*both, loader=_WHAT, what=what, limit=0.0)
    assert again.model is not None
    network, other = subject.model.detector, again.model.detector
    ours, theirs = ([boxes_of(one.detect(x)[0]) for x in seen] for one in (network, other))
    return of_boxes(ours, theirs, limits=limits_of(network), loader=_WHAT, limit=0.0)

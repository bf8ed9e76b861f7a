"""A file of weights opened: the dictionaries of tensors in it, and whether their values can be used.

Files are read with ``weights_only=True``: one that holds more than tensors is refused, never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from twinray.errors import InputError

Tensors = dict[str, Tensor]

_DEEPEST = 3
"""Checkpoints nest their weights at most twice (``{"teacher": {"model": {...}}}``)."""
_NO_WEIGHTS = ("optim", "scheduler", "scaler", "loops", "callbacks", "hyper_parameters", "state")
"""Entries of a checkpoint, by how their name begins, that hold no network; ``state_dict`` does."""


def read_tensors(path: Path) -> dict[str, Tensors]:
    """All dictionaries of tensors in a weight file.

    Returns:
        Where each lies in the file (``state_dict``, ``teacher.model``; empty for the file itself)
        -> its tensors by name.

    Raises:
        InputError: the file cannot be read, holds more than tensors and plain values, or none.
    """
    try:
        if path.suffix == ".safetensors":
            raw: Any = safetensors.torch.load_file(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(_unreadable(path, error)) from error
    found = dict(_dictionaries(raw, "", 0))
    if not found:
        kind = type(raw).__name__
        raise InputError(
            f"expected a dictionary of tensors in {path}, found {kind}; export the model's state_dict"
        )
    return found


def check_values(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse values that no network can compute with.

    Args:
        tensors: all tensors of a network as a file holds them, heads included.
        source: name of the file in a message.

    Raises:
        InputError: naming the tensor: a value that is not finite, or is not once it is float32, or
            a variance below zero.
    """
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        wide = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        values = wide.to(torch.float32)  # as the network will hold them; float8 knows no isfinite
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise InputError(
                f"{source}: the tensor {name} is not finite ({bad:,} of {values.numel():,} values are NaN or "
                "infinite): training overflowed there; use an earlier checkpoint, or train again"
            )
        if name.endswith("running_var") and bool((values < 0).any()):
            raise InputError(
                f"{source}: the tensor {name} holds a variance below zero; the file is damaged, copy it again"
            )


def _dictionaries(raw: Any, where: str, depth: int) -> Iterator[tuple[str, Tensors]]:
    if not isinstance(raw, Mapping) or depth > _DEEPEST:
        return
    own = {key: value for key, value in raw.items() if isinstance(key, str)}
    tensors = {key: value for key, value in own.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for key, value in own.items():
        if key.startswith(_NO_WEIGHTS) and not key.startswith("state_dict"):
            continue
        yield from _dictionaries(value, f"{where}.{key}".lstrip("."), depth + 1)


def _unreadable(path: Path, error: Exception) -> str:
    words = " ".join(str(error).split())
    if found := re.search(r"GLOBAL (\S+) was not an allowed global", words):
        return (
            f"could not read weights from {path}: it holds more than tensors (a pickled {found[1]}), and reading that can run "
            "code; where you trust the file, write its state_dict() with torch.save on a machine that has the package"
        )
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"could not read weights from {path} ({first}); expected a .safetensors file or a PyTorch file that "
        "holds tensors only"
    )

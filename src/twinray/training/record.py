"""What a run keeps that needs torch to say: the machine that it ran on, and the weights that came out."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import Tensor

from twinray.about import own_version
from twinray.files import sha256, write_bytes, write_json
from twinray.runs.folder import RunFolder


def environment() -> dict[str, Any]:
    """Versions and hardware that a result depends on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "twinray": own_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "arguments": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def save_weights(
    folder: RunFolder, name: str, state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> Path:
    """Write ``name.safetensors`` and ``name.json`` (what loading needs to know, and the file's hash).

    Raises:
        TwinrayError: the disk refuses.
    """
    path = folder.path / f"{name}.safetensors"
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_bytes(path, safetensors.torch.save(tensors), "weights")
    write_json(
        path.with_suffix(".json"), {**description, "sha256": sha256(path)}, "weight description"
    )
    return path

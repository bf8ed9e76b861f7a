"""Where the arithmetic runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from twinray.errors import InputError

Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True)
class Machine:
    """A device and the precision of matrix products and convolutions on it."""

    device: torch.device
    bf16: bool

    @property
    def precision(self) -> str:
        """For the record: what ``auto`` became."""
        return "bf16" if self.bf16 else "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()


def choose_machine(device: str = "auto", precision: Precision = "auto") -> Machine:
    """Resolve ``auto``: a GPU if there is one; bf16 where the processor computes in it.

    Raises:
        InputError: the device is not known or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"expected --device auto, cpu, cuda or cuda:N, got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"expected --device auto, cpu, cuda or cuda:N, got {device!r}")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: this machine has no usable GPU; use --device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    bf16 = precision == "bf16" or (precision == "auto" and _computes_bf16(chosen))
    return Machine(chosen, bf16)


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is a gain: emulated bf16 on an older processor is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))

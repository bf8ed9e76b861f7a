"""Where the arithmetic runs and in which precision."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from twinray.errors import InputError
from twinray.training.ranks import launched_rank

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
    if device == "cuda":
        device = f"cuda:{launched_rank()[2]}"  # one GPU a process of this machine
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


def set_arithmetic(machine: Machine, *, deterministic: bool) -> None:
    """Choose between the fastest kernels and those that give the same bytes every time.

    TensorFloat-32 is left to convolutions of float32 runs (cuDNN's default): matrix products stay exact, since the
    correlations of the objective are made of them. Processors are deterministic either way.
    """
    if machine.device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is a gain: emulated bf16 on an older processor is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def compiled(module: nn.Module) -> Callable[[Tensor], Any]:
    """The module's forward pass through ``torch.compile``; where that fails, a warning and the module itself.

    Compilation happens at the first call, and fails there on machines without a compiler or with an unsupported GPU.
    """
    fast: Callable[[Tensor], Any] = torch.compile(module)
    chosen: list[Callable[[Tensor], Any]] = []

    def forward(x: Tensor) -> Any:
        if chosen:
            return chosen[0](x)
        try:
            result = fast(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's stages each raise errors of their own
            reason = " ".join(str(error).split())[:200]
            print(
                f"warning: torch.compile failed ({type(error).__name__}: {reason}); going on without", file=sys.stderr
            )
            chosen.append(module)
            return module(x)
        chosen.append(fast)
        return result

    return forward

"""Where the arithmetic runs and in which precision."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from twinray.errors import InputError
from twinray.training.ranks import launched_rank

Precision = Literal["auto", "float32", "bf16"]
T = TypeVar("T")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Options of ``mallopt``, as malloc.h numbers them."""


@dataclass(frozen=True)
class Machine:
    """A device and the precision of matrix products and convolutions on it.

    Attributes:
        device: device that tensors are on.
        bf16: whether forward passes run in bfloat16 where autocast does so.
        tf32: whether a GPU may round the factors of float32 convolutions to TensorFloat-32, which keeps 10 bits of 23.
    """

    device: torch.device
    bf16: bool
    tf32: bool = True

    @property
    def exact(self) -> Machine:
        """The same device in full float32: for figures that another process, batch or device must find again."""
        return replace(self, bf16=False, tf32=False)

    @property
    def precision(self) -> str:
        """For the record: what ``auto`` became."""
        return "bf16" if self.bf16 else "float32"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The context in which forward passes run: bfloat16, float32 as it is set, or float32 in full."""
        if self.bf16:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                yield
        elif self.tf32:
            yield
        else:
            with torch.autocast(self.device.type, enabled=False), _full_float32():
                yield


@contextmanager
def _full_float32() -> Iterator[None]:
    """No shortened factors in matrix products and convolutions, and no kernel that a race of kernels chose."""
    cudnn = torch.backends.cudnn
    products, convolutions, race = (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.benchmark,
    )
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32, cudnn.benchmark = False, False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        cudnn.allow_tf32, cudnn.benchmark = convolutions, race


def choose_machine(device: str = "auto", precision: Precision = "auto") -> Machine:
    """Resolve ``auto``: a GPU if there is one; bf16 where the processor computes in it.

    Raises:
        InputError: the device is not known or not there, or several ranks would share it.
    """
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    beside = int(told) if told.isdecimal() else launched_rank()[1]
    if device.startswith("cuda:") and beside > 1:
        raise InputError(
            f"--device {device} under torchrun would put all {beside} ranks of this machine on one GPU; use --device cuda"
        )
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
        raise InputError(
            f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0"
        )
    bf16 = precision == "bf16" or (precision == "auto" and _computes_bf16(chosen))
    return Machine(chosen, bf16)


def set_arithmetic(machine: Machine, *, deterministic: bool) -> None:
    """Choose between the fastest kernels and those that give the same bytes every time.

    TensorFloat-32 is left to convolutions of float32 training (cuDNN's default): matrix products stay exact, since the
    correlations of the objective are made of them. Final figures do without it (:attr:`Machine.exact`). Processors are
    deterministic either way.
    """
    if machine.device.type != "cuda":
        _keep_freed_memory()
        return
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one.

    By default it gives every large tensor back to the system, which hands the pages out again one by one and emptied: a sixth of
    a detector's step in bf16. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, -1)


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is a gain: emulated bf16 on an older processor is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and any(
        flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16")
    )


def sent(small: Tensor, device: torch.device) -> Tensor:
    """A few numbers of the processor where the arithmetic runs; the host does not wait for the copy."""
    return (small.pin_memory() if device.type == "cuda" else small).to(device, non_blocking=True)


@dataclass(frozen=True)
class Amount:
    """How much a training computes.

    Attributes:
        steps: of the whole run.
        pixels: of the images of one step on one device.
    """

    steps: int
    pixels: int


COMPILED_FROM = Amount(steps=1000, pixels=3_000_000)
"""From both of these on, compiling a network gains more on a GPU than it costs.

Smaller steps wait for the host, whose work compiling leaves as it is: on an H100 a step of 64 images of 64 pixels took longer compiled than
not, one of 16 images of 224 pixels as long; 768 images of 224 pixels gained. The bound lies between (docs/benchmarks.md).
"""


def to_compile(choice: Literal["auto", "on", "off"], device: torch.device, amount: Amount) -> bool:
    """Whether a training is compiled; ``auto``: on a GPU, where it gains more than the minutes that it takes before the first step."""
    if choice == "auto":
        worth = amount.steps >= COMPILED_FROM.steps and amount.pixels >= COMPILED_FROM.pixels
        return device.type == "cuda" and worth
    return choice == "on"


def compiled(call: Callable[[Tensor], T]) -> Callable[[Tensor], T]:
    """A forward pass through ``torch.compile``; where that fails, a warning and the pass as it is.

    Compilation happens at the first call, and fails there on machines without a compiler or with an unsupported GPU.
    """
    fast: Callable[[Tensor], T] = torch.compile(call)
    chosen: list[Callable[[Tensor], T]] = []

    def forward(x: Tensor) -> T:
        if chosen:
            return chosen[0](x)
        try:
            result = fast(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's stages each raise errors of their own
            reason = " ".join(str(error).split())[:200]
            print(
                f"warning: torch.compile failed ({type(error).__name__}: {reason}); going on without",
                file=sys.stderr,
            )
            chosen.append(call)
            return call(x)
        chosen.append(fast)
        return result

    return forward

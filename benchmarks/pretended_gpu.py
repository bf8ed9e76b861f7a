"""Tensors that say they are on ``cuda:0`` and compute on the processor: what a GPU's host would wait for, without a GPU.

Every operation that reaches PyTorch's dispatcher is counted. Those that make the host wait (reading a value, counting what is true,
copies that are not asynchronous) are noted with the line of the product that they came from. A tensor of the processor that meets one
of the pretended GPU raises, as it would there. Streams, autocast, Triton, NCCL and time are not seen.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from twinray.backbones import pixels

DEVICE = torch.device("cuda", 0)
WAITING = {
    "aten::nonzero": "nonzero",
    "aten::_local_scalar_dense": "item",
    "aten::is_nonzero": "item",
    "aten::equal": "equal",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique",
    "aten::repeat_interleave.Tensor": "repeat_interleave",
    "aten::bincount": "bincount",
    "aten::histc": "histc",
    "aten::_linalg_eigh": "eigh",
    "torchvision::nms": "nms",
}
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class PretendedTensor(torch.Tensor):
    """A tensor of the pretended GPU around one of the processor."""

    @staticmethod
    def __new__(cls, real: Tensor, requires_grad: bool = False) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=torch.device("meta"),
            requires_grad=requires_grad,
        )
        made.inner = real
        return made

    def __repr__(self) -> str:
        return f"pretended({self.inner!r})"

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def is_meta(self) -> bool:
        return False

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _note("tolist")
        return self.inner.tolist()


@dataclass
class Counts:
    """What was counted: operations by name, and waits by what made them and where."""

    operations: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def told(self) -> list[str]:
        """A line for every place that waits."""
        return [f"{n:5d} x {what:30} {where}" for (what, where), n in self.waits.most_common()]


_counts: list[Counts] = []


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count what happens on the pretended GPU within the block."""
    _counts.append(Counts())
    try:
        yield _counts[-1]
    finally:
        _counts.pop()


def put(module: nn.Module) -> None:
    """Move a module's parameters and buffers to the pretended GPU, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = PretendedTensor(parameter.data)
                part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = PretendedTensor(buffer)


class _Mode(TorchDispatchMode):
    """Catches what makes new tensors on the device: no argument is there yet."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        pretended = any(isinstance(x, PretendedTensor) for x in tree_leaves((args, kwargs)))
        if pretended or (device is not None and _is_gpu(device)):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


class _NoAutocast(contextlib.nullcontext[None]):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__()


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within the block ``cuda:0`` is there, as far as tensors go."""
    import torch.nn.utils.clip_grad as clip_grad
    import torch.utils._foreach_utils as foreach

    tensor, as_tensor, new_tensor = torch.tensor, torch.as_tensor, Tensor.new_tensor
    kernels, fused = (
        foreach._get_foreach_kernels_supported_devices(),
        foreach._get_fused_kernels_supported_devices(),
    )

    def pinned(self: Tensor, *args: object) -> Tensor:
        self.is_pretended_pinned = True
        return self

    def sent(made: Any, what: str) -> Any:
        def make(data: Any, *args: Any, device: Any = None, **more: Any) -> Any:
            if device is None or not _is_gpu(device) or isinstance(data, Tensor):
                return made(data, *args, device=device, **more)
            _note(f"{what} of Python's numbers")
            return PretendedTensor(made(data, *args, **more))

        return make

    def sent_beside(self: Tensor, data: Any, **more: Any) -> Tensor:
        if not isinstance(self, PretendedTensor):
            return new_tensor(self, data, **more)
        _note("new_tensor of Python's numbers")
        return PretendedTensor(new_tensor(self.inner, data, **more))

    patches = [
        mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
        # constants are kept for plain tensors alone, and these count as such
        mock.patch.object(pixels, "Tensor", PretendedTensor),
        mock.patch.dict(pixels._KEPT),
        mock.patch.object(torch, "autocast", _NoAutocast),
        mock.patch.object(torch.amp, "autocast", _NoAutocast),
        mock.patch.object(Tensor, "pin_memory", pinned),
        mock.patch.object(torch, "tensor", sent(tensor, "tensor")),
        mock.patch.object(torch, "as_tensor", sent(as_tensor, "as_tensor")),
        mock.patch.object(Tensor, "new_tensor", sent_beside),
        mock.patch.object(
            foreach, "_get_foreach_kernels_supported_devices", return_value=[*kernels, "meta"]
        ),
        mock.patch.object(
            foreach, "_get_fused_kernels_supported_devices", return_value=[*fused, "meta"]
        ),
        mock.patch.object(clip_grad, "_device_has_foreach_support", return_value=True),
        mock.patch.object(clip_grad, "_has_foreach_support", return_value=True),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(_Mode())
        yield


def _is_gpu(device: Any) -> bool:
    return torch.device(device).type in ("cuda", "meta")


def _where() -> str:
    for frame in reversed(traceback.extract_stack()):
        if "/twinray/" in frame.filename:
            return f"{frame.filename.split('/twinray/')[-1]}:{frame.lineno}"
    return "elsewhere"


def _note(what: str) -> None:
    if _counts:
        _counts[-1].waits[what, _where()] += 1


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    base = func._schema.name
    name = f"{base}.{func._schema.overload_name}" if func._schema.overload_name else base
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [isinstance(x, PretendedTensor) for x in tensors]
    if _counts:
        _counts[-1].operations[base] += 1
    on_gpu, options = any(there), dict(kwargs)
    device = kwargs.get("device")
    if base in ("aten::_to_copy", "aten::to"):
        if device is not None:
            on_gpu = _is_gpu(device)
            options["device"] = torch.device("cpu")
            if on_gpu != there[0]:
                _note_copy(tensors[0], to_gpu=on_gpu, asked=bool(kwargs.get("non_blocking")))
    elif base == "aten::copy_":
        on_gpu = there[0]
        if there[0] != there[1]:
            _note_copy(tensors[1], to_gpu=on_gpu, asked=bool(args[2]) if len(args) > 2 else False)
    else:
        if device is not None:
            on_gpu = _is_gpu(device)
            options["device"] = torch.device("cpu")
        elif any(there):
            _check_and_note(base, name, args, tensors, there)
    real = lambda x: x.inner if isinstance(x, PretendedTensor) else x  # noqa: E731
    result = func(*tree_map(real, args), **tree_map(real, options))
    if base == "aten::_local_scalar_dense":
        return result
    same = {id(real(x)): x for x in tensors}  # an operation in place gives back its own argument

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return same.get(id(x), PretendedTensor(x) if on_gpu else x)

    return tree_map(wrapped, result)


def _note_copy(source: Tensor, *, to_gpu: bool, asked: bool) -> None:
    if to_gpu and asked and getattr(source, "is_pretended_pinned", False):
        return
    _note(f"copy {'to' if to_gpu else 'from'} the device")


def _check_and_note(
    base: str, name: str, args: tuple[Any, ...], tensors: list[Tensor], there: list[bool]
) -> None:
    strangers = [x for x, own in zip(tensors, there, strict=True) if not own and x.dim() > 0]
    if strangers and base in _INDEXING and isinstance(args[0], PretendedTensor):
        _note("index of the processor")
    elif strangers and base != "aten::set_":
        raise RuntimeError(f"{name} of the device with a tensor of the processor, at {_where()}")
    waiting = WAITING.get(name, WAITING.get(base))
    if waiting is not None:
        _note(waiting)
    if base in _INDEXING:
        masks = [
            x for x in args[1] if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)
        ]
        if masks and (base == "aten::index" or args[2].numel() != 1):
            _note("index by what is true")

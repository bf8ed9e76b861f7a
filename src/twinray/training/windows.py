"""Windows drawn anew for training images of packs with linear values.

Such an image comes as levels: 0 and 1 are the ends of its own window, and what lies beyond is still there. A window is drawn
about its own, its width by a factor and its centre by a share of its own width, before anything is cut off: values that one
window saturates another shows. Østmo et al. draw windows so for CT (View it like a radiologist: shifted windows for deep
learning augmentation of CT images, MLSP 2023, arXiv:2311.14990; Random window augmentations, 2025, arXiv:2510.08116). How far
is ours: they draw in Hounsfield units about one region's window, packs hold images with windows of their own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from twinray.data.pack import Pack
from twinray.errors import InputError

DRAWS = 2
"""Numbers that one window takes."""


@dataclass(frozen=True)
class Windows:
    """How far windows are drawn from an image's own.

    Attributes:
        width: largest factor on its width, and its inverse the smallest; drawn evenly on a log scale; 1 keeps it.
        shift: largest shift of its centre up or down, share of its own width; 0 keeps it.
    """

    width: float = 1.0
    shift: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether every image keeps its own window."""
        return self.width == 1 and self.shift == 0

    def of(self, draws: Tensor) -> Tensor:
        """(b, 2) numbers in 0..1 -> (b, 2) windows: the level that becomes black, and the width."""
        signed = draws[:, :DRAWS] * 2 - 1
        width = torch.exp(signed[:, 0] * math.log(self.width))
        centre = 0.5 + signed[:, 1] * self.shift
        return torch.stack([centre - width / 2, width], dim=1)


def in_window(levels: Tensor, windows: Tensor) -> Tensor:
    """(b, c, h, w) levels as (b, 2) windows show them: 0..1, outside cut off."""
    black, width = (one.view(-1, 1, 1, 1) for one in windows.unbind(dim=1))
    return ((levels - black) / width).clamp_(0, 1)


class _DrawsWindows(Protocol):
    """Options of a verb that trains on packs."""

    @property
    def window_width(self) -> float | None: ...

    @property
    def window_shift(self) -> float | None: ...


_C = TypeVar("_C", bound=_DrawsWindows)

DRAWN = Windows(width=1.5, shift=0.1)
"""What training draws unless told: as far as the jitter of brightness and contrast goes."""


def settled_windows(config: _C, pack: Pack, default: Windows = DRAWN) -> _C:
    """The options with the windows of a pack with linear values filled in; None where the pack has other pixels.

    Args:
        config: options with ``window_width`` and ``window_shift``.
        pack: what it learns from.
        default: what is not given.

    Raises:
        InputError: they are given, and the pack has display values.
    """
    if pack.info.pixels == "uint16":
        width = default.width if config.window_width is None else config.window_width
        shift = default.shift if config.window_shift is None else config.window_shift
        return dataclasses.replace(config, window_width=width, window_shift=shift)  # type: ignore[type-var]
    for name in ("window_width", "window_shift"):
        if getattr(config, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} draws windows of linear values, {pack.path} has display values (uint8); leave it "
                "out, or pack with --pixels uint16"
            )
    return config


def windows_of(config: _DrawsWindows) -> Windows | None:
    """What settled options draw; None for a pack of display values."""
    if config.window_width is None or config.window_shift is None:
        return None
    return Windows(config.window_width, config.window_shift)


def windows_told(config: _DrawsWindows) -> dict[str, object]:
    """What a model's description says of windows; nothing for display values."""
    drawn = windows_of(config)
    if drawn is None:
        return {}
    return {"windows": {"evaluation": "each image's own", **dataclasses.asdict(drawn)}}

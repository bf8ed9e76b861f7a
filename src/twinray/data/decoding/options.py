"""How files are decoded: what a user may declare or choose, the same for every file of a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from twinray.data.decoding.scale import Scale, Spread
from twinray.records import Pixels, Sample

Exif = Literal["ignore", "apply"]
PixelType = Literal["uint8", "uint16"]
"""What a pack's pixels are: uint8 as its windows show them, or uint16 as they are stored, each image with its window."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How files are decoded.

    Attributes:
        scale: stored values that become black and white in images of more than 8 bits; None: each file is a source of
            its own. An image that the scale does not cover is refused (:class:`twinray.data.decoding.images.UnscaledError`).
        exif: ``ignore`` keeps pixels as stored whatever orientation a file asks for; ``apply`` turns them.
        lenient: flag to keep what can be decoded of a damaged file; ``Pixels.remarks`` says so.
        linear: flag to keep stored values as uint16 with the window beside them (``Pixels.linear``), in place of 8 bits.
    """

    scale: Scale | None = None
    exif: Exif = "ignore"
    lenient: bool = False
    linear: bool = False


ALONE = Decoding()
"""Every file a source of its own."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """How the files of a pack were decoded, as ``pack.json`` and ``model.json`` say it.

    Attributes:
        exif: see :class:`Decoding`; ``lenient`` likewise.
        scales: source -> its scale, for sources that have images of more than 8 bits.
    """

    exif: Exif = "ignore"
    lenient: bool = False
    scales: dict[str, Scale] = field(default_factory=dict)

    def for_new_files(self, declared: Scale | None, pixels: PixelType = "uint8") -> Decoding:
        """How files that are none of the pack's are decoded: as the pack's, with the one scale that all its sources have.

        Args:
            declared: the scale that the user declares; takes precedence.
            pixels: type of the pack's pixels.
        """
        whole = {one.whole for one in self.scales.values() if one.whole is not None}
        real = {one.real for one in self.scales.values() if one.real is not None}
        own = Scale(
            whole.pop() if len(whole) == 1 else None, real.pop() if len(real) == 1 else None
        )
        return Decoding(own if declared is None else declared, self.exif, linear=pixels == "uint16")


@runtime_checkable
class DecodesFiles(Protocol):
    """A loader of samples whose files are decoded as chosen; loaders of arrays have nothing to choose."""

    def decoding_as(self, decoding: Decoding) -> Callable[[Sample], Pixels]:
        """The same loader, decoding as told."""
        ...

    def spread(self, sample: Sample) -> Spread | None:
        """What a sample has to say on the scale of its source; None for 8 bits."""
        ...

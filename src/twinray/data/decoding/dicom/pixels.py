"""One DICOM radiograph -> display-ready 8-bit grey pixels, or one line that says why not.

Accepted images are single-frame grey CR, DX (FOR PRESENTATION) and secondary capture images of 8 or
16 bits allocated. Accepted transfer syntaxes are native or have an installed decoder. The
``[dicom]`` extra installs python-gdcm, pylibjpeg-openjpeg and pyjpegls. JPEG Baseline, JPEG 2000
and RLE need no extra. Images are never flipped or rotated. The way from stored to display values is
in :mod:`twinray.data.decoding.dicom.display`.

Nothing is decoded before the sizes that the file claims were checked. These are file length,
inflated length, number of elements, Rows x Columns, and the compressed frame's own header. A
decoder written in C may still crash on a damaged stream, so long jobs run :func:`load_dicom` in
:mod:`twinray.data.decoding.sandbox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from twinray.data.decoding.bounded_file import (
    parser_faults_as_input_errors,
)
from twinray.data.decoding.damage import missing_fault
from twinray.data.decoding.dicom.codestream import codestream_fault, frame_damage, library_warnings
from twinray.data.decoding.dicom.display import DisplayError, display_pixels, linear_pixels
from twinray.data.decoding.dicom.header import (
    ADVICE,
    MAX_DICOM_PIXELS,
    DicomAttributes,
    attributes_of,
    check_kind,
    check_pixel_module,
    numbers,
    read_header,
)
from twinray.errors import InputError
from twinray.records import Pixels, Remark

_PLUGINS: dict[str, tuple[str, ...]] = {
    uids.RLELossless: ("pylibjpeg", "pydicom"),
    uids.JPEGBaseline8Bit: ("pillow",),
    uids.JPEGLossless: ("gdcm", "pylibjpeg"),
    uids.JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    uids.JPEGLSLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    uids.JPEGLSNearLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    uids.JPEG2000Lossless: ("pillow", "pylibjpeg", "gdcm"),
    uids.JPEG2000: ("pillow", "pylibjpeg", "gdcm"),
}
"""Decoders by preference; the first that is installed decodes, so that a machine always takes the same one."""


def load_dicom(
    path: Path,
    *,
    frontal_only: bool = False,
    any_class: bool = False,
    max_pixels: int = MAX_DICOM_PIXELS,
    lenient: bool = False,
    linear: bool = False,
) -> Pixels:
    """Decode one DICOM radiograph.

    Args:
        path: a DICOM file with the ``DICM`` mark.
        frontal_only: flag to refuse files that say they are lateral or oblique views (files that
            say nothing pass).
        any_class: flag to accept any SOP class (CT and MR slices, mammograms), not only CR, DX and
            secondary capture.
        max_pixels: number of pixels above which a file is refused before decoding.
        lenient: flag to keep what a damaged file gives; the remarks say so.
        linear: flag to keep linear values as uint16 and the window beside them, in place of uint8.

    Returns:
        (h, w) uint8, brighter is denser as on a display, and the way taken; uint16 where ``linear``.

    Raises:
        InputError: the file is damaged, is not a single grey image for presentation, or claims
            sizes that it cannot hold. Or it needs a decoder that is not installed.
    """
    stored = load_stored(
        path,
        frontal_only=frontal_only,
        any_class=any_class,
        max_pixels=max_pixels,
        lenient=lenient,
    )
    with parser_faults_as_input_errors(path, "applying the DICOM grey scale transforms", ADVICE):
        try:
            return stored.linear() if linear else stored.display()
        except DisplayError as error:
            raise InputError(f"{path}: {error}; correct the header or leave the file out") from None


@dataclass(frozen=True, slots=True, eq=False)
class StoredDicom:
    """A decoded image before anything was done to its values.

    Attributes:
        values: (h, w) uint8, int8, uint16 or int16, without bits above Bits Stored.
        header: pydicom Dataset with the attributes of interest.
        fault: why it is not whole; None where it is.
        high: what became of bits above Bits Stored; empty where none was in use.
    """

    values: npt.NDArray[Any]
    header: Any
    fault: str | None
    high: str

    def display(self) -> Pixels:
        """Its display values, uint8.

        Raises:
            DisplayError: as :func:`twinray.data.decoding.dicom.display.display_pixels`.
        """
        return self._told(*display_pixels(self.values, self.header))

    def linear(self) -> Pixels:
        """Its linear values, uint16, with the window beside them.

        Raises:
            DisplayError: as :meth:`display`.
        """
        units, meaning, how, unread, curve = linear_pixels(self.values, self.header)
        found = self._told(units, how, unread)
        curved: tuple[Remark, ...] = (("curve", curve),) if curve else ()
        return replace(found, remarks=(*found.remarks, *curved), linear=meaning)

    def _told(self, array: npt.NDArray[Any], how: str, unread: Sequence[str]) -> Pixels:
        """Values of it, with all that users must know."""
        remarks: list[Remark] = [] if self.fault is None else [("damaged", self.fault)]
        remarks += [("unread", what) for what in unread[:1]]
        if self.high:
            remarks.append(("high bits", self.high))
            how += f", {self.high}"
        return Pixels(array, how + (", damaged" if self.fault else ""), tuple(remarks))


def load_stored(
    path: Path,
    *,
    frontal_only: bool = False,
    any_class: bool = False,
    max_pixels: int = MAX_DICOM_PIXELS,
    lenient: bool = False,
) -> StoredDicom:
    """The stored values of one DICOM radiograph, checked and refused as :func:`load_dicom` does.

    Raises:
        InputError: as :func:`load_dicom`, as far as values and header show it.
    """
    with parser_faults_as_input_errors(path, "reading the DICOM file", ADVICE):
        header = read_header(path, pixels=True, max_pixels=max_pixels)
        attributes = attributes_of(header)
        check_kind(path, header, attributes, frontal_only=frontal_only, any_class=any_class)
        check_pixel_module(path, header, attributes, max_pixels)
    with parser_faults_as_input_errors(
        path, f"decoding {_syntax_name(attributes.transfer_syntax)} pixels", ADVICE
    ):
        stored, fault = _stored_values(path, header, attributes, lenient)
    if fault is not None and not lenient:
        raise InputError(f"{path}: expected whole pixel data, these are damaged: {fault}; {ADVICE}")
    clean, high = _without_high_bits(stored, int(numbers(header, "BitsStored")[0]))
    return StoredDicom(clean, header, fault, high)


def _without_high_bits(stored: npt.NDArray[Any], bits: int) -> tuple[npt.NDArray[Any], str]:
    """Stored values without the bits above Bits Stored, and what to say of these where any is in use.

    They are no part of the value (PS3.5, 8.1.1): overlays lay there until 2004, and a compressed frame keeps them.
    """
    spare = 8 * stored.itemsize - bits
    if spare <= 0:
        return stored, ""
    mask = (1 << bits) - 1
    above = stored.view(f"u{stored.itemsize}") & ~np.array(mask, f"u{stored.itemsize}")
    signed = stored.dtype.kind == "i"
    # the sign is that of the highest stored bit; writers fill the bits above with it, or with zeros
    clean = (stored << spare) >> spare if signed else stored & stored.dtype.type(mask)
    share = float(((clean != stored) & (above != 0)).mean())
    return clean, f"bits above {bits} left out ({100 * share:.2g} % of the pixels)" if share else ""


def _stored_values(
    path: Path, header: Any, seen: DicomAttributes, lenient: bool
) -> tuple[npt.NDArray[Any], str | None]:
    """(h, w) stored values, uint8, int8, uint16 or int16 in this machine's byte order, and why they are not whole."""
    syntax = uids.UID(seen.transfer_syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = _syntax_name(syntax)
        raise InputError(
            f"{path}: pixels in transfer syntax {name} cannot be read; convert the file"
        ) from None
    plugin, damage = "", None
    if decoder.is_encapsulated:
        plugin = _installed_plugin(path, syntax, int(header.BitsStored), decoder.available_plugins)
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        fault = codestream_fault(
            frame, syntax, seen.height, seen.width, int(header.BitsAllocated) // 8
        )
        if fault:
            raise InputError(f"{path}: {fault}; {ADVICE}")
        damage = frame_damage(frame, syntax)
        if damage and not lenient:
            raise InputError(
                f"{path}: expected whole pixel data, these are damaged: {damage}; {ADVICE}"
            )
    with library_warnings() as said:
        # unused bits are looked at here, for every syntax alike: pydicom leaves them in some
        options: Any = {"correct_unused_bits": False}
        array, _ = decoder.as_array(header, index=0, raw=True, decoding_plugin=plugin, **options)
    damage = damage or (said[0] if said else None)
    if (
        array.shape != (seen.height, seen.width)
        or array.dtype.kind not in "ui"
        or array.itemsize > 2
    ):
        raise InputError(
            f"{path}: expected {seen.width} x {seen.height} grey pixels, decoded {array.shape}; {ADVICE}"
        )
    if damage is None and syntax != uids.JPEGBaseline8Bit:
        damage = missing_fault(array)
    return array.astype(np.dtype(f"{array.dtype.kind}{array.itemsize}"), copy=False), damage


def _installed_plugin(
    path: Path, syntax: uids.UID, bits_stored: int, installed: tuple[str, ...]
) -> str:
    """The preferred decoder that is installed for a compressed transfer syntax."""
    if syntax == uids.JPEGExtended12Bit:
        # 12-bit JPEG needs a decoder that only a GPL package brings; 8-bit JPEG Extended is read by Pillow.
        wanted: tuple[str, ...] = ("pillow", "pylibjpeg") if bits_stored <= 8 else ("pylibjpeg",)
        cure = "convert it with another tool, or install pylibjpeg-libjpeg (GPL)"
    else:
        wanted = _PLUGINS.get(syntax, ("pylibjpeg", "gdcm"))
        cure = "install the decoders: pip install 'twinray[dicom]'"
    for plugin in wanted:
        if plugin in installed:
            return plugin
    raise InputError(f"{path}: no decoder for {_syntax_name(syntax)} is installed; {cure}")


def _syntax_name(syntax: str) -> str:
    return uids.UID(syntax).name or "unknown"

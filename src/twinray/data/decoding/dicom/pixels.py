"""One DICOM radiograph -> display-ready 8-bit grey pixels, or one line that says why not.

Accepted: single-frame grey CR, DX (FOR PRESENTATION) and secondary capture images of 8 or 16 bits
allocated, in the transfer syntaxes that are native or whose decoder is installed (``[dicom]`` extra:
python-gdcm, pylibjpeg-openjpeg, pyjpegls; JPEG Baseline, JPEG 2000 and RLE need no extra). Never
flipped or rotated. The way from stored to display values is in :mod:`twinray.data.decoding.dicom.display`.

Nothing is decoded before the sizes that the file claims were checked: file length, inflated length,
number of elements, Rows x Columns, and the compressed frame's own header. A decoder written in C may
still crash on a damaged stream: long jobs run :func:`load_dicom` in :mod:`twinray.data.decoding.sandbox`.
"""

from __future__ import annotations

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
from twinray.data.decoding.dicom.codestream import codestream_fault
from twinray.data.decoding.dicom.display import display_pixels
from twinray.data.decoding.dicom.header import (
    ADVICE,
    MAX_DICOM_PIXELS,
    DicomAttributes,
    attributes_of,
    check_kind,
    check_pixel_module,
    read_header,
)
from twinray.errors import InputError
from twinray.records import Pixels

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
) -> Pixels:
    """Decode one DICOM radiograph.

    Args:
        path: a DICOM file with the ``DICM`` mark.
        frontal_only: refuse files that say they are lateral or oblique views (files that say nothing pass).
        any_class: accept any SOP class (CT and MR slices, mammograms), not only CR, DX and secondary capture.
        max_pixels: refuse more than this many pixels before decoding.

    Returns:
        (h, w) uint8, brighter is denser as on a display, and the way taken.

    Raises:
        InputError: the file is damaged, is not a single grey image for presentation, claims sizes that it
            cannot hold, or needs a decoder that is not installed.
    """
    with parser_faults_as_input_errors(path, "reading the DICOM file", ADVICE):
        header = read_header(path, pixels=True, max_pixels=max_pixels)
        attributes = attributes_of(header)
        check_kind(path, header, attributes, frontal_only=frontal_only, any_class=any_class)
        check_pixel_module(path, header, attributes, max_pixels)
    with parser_faults_as_input_errors(path, f"decoding {_syntax_name(attributes.transfer_syntax)} pixels", ADVICE):
        stored = _stored_values(path, header, attributes)
    with parser_faults_as_input_errors(path, "applying the DICOM grey scale transforms", ADVICE):
        array, how = display_pixels(stored, header)
    return Pixels(array, how)


def _stored_values(path: Path, header: Any, seen: DicomAttributes) -> npt.NDArray[Any]:
    """(h, w) stored values, uint8, int8, uint16 or int16 in this machine's byte order."""
    syntax = uids.UID(seen.transfer_syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = _syntax_name(syntax)
        raise InputError(f"{path}: pixels in transfer syntax {name} cannot be read; convert the file") from None
    plugin = ""
    if decoder.is_encapsulated:
        plugin = _installed_plugin(path, syntax, int(header.BitsStored), decoder.available_plugins)
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        fault = codestream_fault(frame, syntax, seen.height, seen.width, int(header.BitsAllocated) // 8)
        if fault:
            raise InputError(f"{path}: {fault}; {ADVICE}")
    array, _ = decoder.as_array(header, index=0, raw=True, decoding_plugin=plugin)
    if array.shape != (seen.height, seen.width) or array.dtype.kind not in "ui" or array.itemsize > 2:
        raise InputError(f"{path}: expected {seen.width} x {seen.height} grey pixels, decoded {array.shape}; {ADVICE}")
    return array.astype(np.dtype(f"{array.dtype.kind}{array.itemsize}"), copy=False)


def _installed_plugin(path: Path, syntax: uids.UID, bits_stored: int, installed: tuple[str, ...]) -> str:
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

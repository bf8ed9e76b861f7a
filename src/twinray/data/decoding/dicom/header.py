"""What a DICOM file says of itself, read without its pixels."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom.uid as uids
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.filereader import read_partial

from twinray.data.decoding.bounded_file import (
    BoundedReader,
    RestOfFileWanted,
    first_bytes,
    is_dicom_head,
    parser_faults_as_input_errors,
    read_whole,
    regular_file_size,
)
from twinray.errors import InputError

MAX_DICOM_PIXELS = 64_000_000
"""Rows x Columns above which a file is refused (a 43 cm detector with 0.1 mm pixels has 18 million)."""


_SPARE_BYTES = 32 << 20


_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}


ADVICE = "copy the file again from its source or leave it out"


_FOR_PROCESSING_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"


SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "computed radiography",
    "1.2.840.10008.5.1.4.1.1.1.1": "digital X-ray",
    _FOR_PROCESSING_CLASS: "digital X-ray FOR PROCESSING",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.7.1": "secondary capture, single bit",
    "1.2.840.10008.5.1.4.1.1.7.2": "secondary capture, grey byte",
    "1.2.840.10008.5.1.4.1.1.7.3": "secondary capture, grey word",
    "1.2.840.10008.5.1.4.1.1.7.4": "secondary capture, true colour",
}
"""SOP class UIDs that hold plain radiographs."""


_LATERAL_VIEWS = (
    "LL",
    "RL",
    "LATERAL",
    "LAT",
    "LLO",
    "RLO",
    "LPO",
    "RPO",
    "LAO",
    "RAO",
    "LEFT LATERAL",
    "RIGHT LATERAL",
)


@dataclass(frozen=True, slots=True)
class DicomAttributes:
    """What a reader of DICOM folders needs from a header; text is empty and numbers are 0 where the file is silent.

    Attributes:
        patient_id: (0010,0020); ``patient_sex``, ``patient_age`` as written (``047Y``).
        study_uid: Study, ``series_uid`` Series, ``sop_uid`` SOP instance, ``sop_class_uid`` SOP class UID.
        modality: CR, DX, OT, ...; ``body_part`` Body Part Examined.
        view_position: AP, PA, LL, RL, ...; ``laterality`` Image Laterality, else Laterality.
        orientation: Patient Orientation, row direction then column direction (``L\\F``).
        presentation_intent: FOR PRESENTATION, FOR PROCESSING or empty.
        photometric: Photometric Interpretation.
        width: Columns in pixels; ``height`` Rows; ``frames`` at least 1.
        transfer_syntax: its UID.
        lateral: the file says that the view is lateral or oblique, not frontal.
        device: Manufacturer and Manufacturer's Model Name, as far as stated.
        study_date: Study Date as written (``20190412``).
        bits_stored: Bits Stored.
    """

    patient_id: str
    patient_sex: str
    patient_age: str
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    modality: str
    body_part: str
    view_position: str
    laterality: str
    orientation: str
    presentation_intent: str
    photometric: str
    width: int
    height: int
    frames: int
    transfer_syntax: str
    lateral: bool
    device: str
    study_date: str
    bits_stored: int


_ATTRIBUTES = (  # noqa: SIM905 - one word a line would be forty lines
    "PatientID PatientSex PatientAge StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Modality "
    "BodyPartExamined ViewPosition ViewCodeSequence ImageLaterality Laterality PatientOrientation "
    "PresentationIntentType PhotometricInterpretation Columns Rows NumberOfFrames "
    "Manufacturer ManufacturerModelName StudyDate"
).split()


_PIXEL_ATTRIBUTES = (  # noqa: SIM905
    "SamplesPerPixel PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue "
    "PixelPaddingRangeLimit RescaleSlope RescaleIntercept ModalityLUTSequence VOILUTSequence WindowCenter WindowWidth "
    "VOILUTFunction PresentationLUTShape ExtendedOffsetTable ExtendedOffsetTableLengths FloatPixelData "
    "DoubleFloatPixelData PixelData"
).split()


_TAGS = [tag_for_keyword(k) for k in (*_ATTRIBUTES, *_PIXEL_ATTRIBUTES)]


def is_dicom(path: Path) -> bool:
    """Whether the file's first bytes are DICOM's, whatever its name.

    The mark ``DICM`` stands at byte 128. A file that was written without its preamble is known by
    its beginning (:func:`twinray.data.decoding.bounded_file.is_dicom_head`).

    Raises:
        InputError: the file is missing, not a regular file, unreadable or empty.
    """
    return is_dicom_head(first_bytes(path, 132))


def dicom_attributes(path: Path) -> DicomAttributes:
    """Read a DICOM header (no pixels).

    Raises:
        InputError: the file cannot be read or is no DICOM file.
    """
    with parser_faults_as_input_errors(path, "reading the DICOM header", ADVICE):
        return attributes_of(read_header(path, pixels=False, max_pixels=MAX_DICOM_PIXELS))


def read_header(path: Path, *, pixels: bool, max_pixels: int) -> Any:
    """The attributes of interest as a pydicom dataset; nothing is allocated beyond the file's size and the limits."""
    size = regular_file_size(path)
    if pixels and size > 2 * max_pixels + _SPARE_BYTES:
        raise InputError(
            f"{path}: {size >> 20} MiB, more than one image of {max_pixels} pixels; leave it out"
        )
    if not is_dicom(path):
        raise InputError(
            f"{path}: expected a DICOM file with 'DICM' at byte 128, which is missing; {ADVICE}"
        )
    head = first_bytes(path, 132)
    if head[:4] == b"DICM" and head[128:] != b"DICM":  # the mark without the preamble before it
        whole = bytes(128) + read_whole(path, 2 * max_pixels + _SPARE_BYTES)
        return _parse(path, io.BytesIO(whole), len(whole), pixels)
    with open(path, "rb") as file:
        try:
            return _parse(path, file, size, pixels)
        except RestOfFileWanted as wanted:
            plain = _inflated(path, file, wanted.position, 2 * max_pixels + _SPARE_BYTES)
    header = _parse(path, io.BytesIO(plain), len(plain), pixels)
    header.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    return header


def _parse(path: Path, file: BinaryIO, size: int, pixels: bool) -> Any:
    reader = BoundedReader(file, size, str(path))
    header = read_partial(
        cast(BinaryIO, reader),
        stop_when=lambda tag, _vr, _length: tag > 0x7FE00010 or (not pixels and tag in _PIXEL_TAGS),
        specific_tags=cast(Any, _TAGS),
        force=True,  # the first bytes are DICOM's, with or without the preamble
    )
    if len(header.file_meta) == 0 and not pixels_are_compressed(header):
        header.file_meta.TransferSyntaxUID = _native_syntax(header)
    if reader.exhausted_reads:
        raise InputError(f"{path}: far more data elements than a radiograph has; {ADVICE}")
    return header


def pixels_are_compressed(header: Any) -> bool:
    """Whether the pixel data have no stated length, which compressed data alone may have."""
    element = header.get_item("PixelData") if "PixelData" in header else None
    return bool(
        getattr(element, "is_undefined_length", False)
        or getattr(element, "length", 0) == 0xFFFFFFFF
    )


def _native_syntax(header: Any) -> uids.UID:
    """The transfer syntax of a file without meta information, as its elements are written (PS3.5, 7.1 and 10.1)."""
    implicit, little = header.original_encoding
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little is not False else uids.ExplicitVRBigEndian


def _inflated(path: Path, file: BinaryIO, start: int, limit: int) -> bytes:
    """The file as if it had been written without deflate: same meta header, explicit VR little endian."""
    file.seek(0)
    meta = file.read(start)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    dataset = inflate.decompress(file.read(), limit + 1)
    if len(dataset) > limit:
        raise InputError(
            f"{path}: inflates to more than {limit >> 20} MiB (a deflate bomb?); leave it out"
        )
    deflated, explicit = (
        uids.DeflatedExplicitVRLittleEndian.encode(),
        uids.ExplicitVRLittleEndian.encode(),
    )
    if deflated not in meta:
        raise InputError(f"{path}: the transfer syntax cannot be made out; {ADVICE}")
    return meta.replace(deflated, explicit.ljust(len(deflated), b"\0")) + dataset


def attributes_of(header: Any) -> DicomAttributes:
    """The attributes that packing and predicting use, from a parsed header."""

    def whole(keyword: str) -> int:
        return int((numbers(header, keyword) or [0])[0])

    meta = header.file_meta
    return DicomAttributes(
        patient_id=text(header, "PatientID"),
        patient_sex=text(header, "PatientSex"),
        patient_age=text(header, "PatientAge"),
        study_uid=text(header, "StudyInstanceUID"),
        series_uid=text(header, "SeriesInstanceUID"),
        sop_uid=text(header, "SOPInstanceUID"),
        sop_class_uid=text(header, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID"),
        modality=text(header, "Modality"),
        body_part=text(header, "BodyPartExamined"),
        view_position=text(header, "ViewPosition"),
        laterality=text(header, "ImageLaterality") or text(header, "Laterality"),
        orientation=text(header, "PatientOrientation"),
        presentation_intent=text(header, "PresentationIntentType"),
        photometric=text(header, "PhotometricInterpretation"),
        width=whole("Columns"),
        height=whole("Rows"),
        frames=max(1, whole("NumberOfFrames")),
        transfer_syntax=text(meta, "TransferSyntaxUID"),
        lateral=_is_lateral(header),
        device=" ".join(
            filter(None, (text(header, "Manufacturer"), text(header, "ManufacturerModelName")))
        ),
        study_date=text(header, "StudyDate"),
        bits_stored=whole("BitsStored"),
    )


def _is_lateral(header: Any) -> bool:
    """The file's own word for a lateral or oblique view: View Position, else View Code, else Patient Orientation."""
    view = text(header, "ViewPosition").upper()
    if view:
        return view in _LATERAL_VIEWS
    codes = header.get("ViewCodeSequence")
    if codes:
        meaning = text(codes[0], "CodeMeaning").lower()
        return ("lateral" in meaning and "decubitus" not in meaning) or "oblique" in meaning
    # Rows that run front to back show the patient from the side.
    return text(header, "PatientOrientation").upper()[:1] in ("A", "P")


def check_kind(
    path: Path, header: Any, seen: DicomAttributes, *, frontal_only: bool, any_class: bool
) -> None:
    """Refuse what is not one grey frame of a radiograph for presentation."""
    if (
        seen.presentation_intent.upper() == "FOR PROCESSING"
        or seen.sop_class_uid == _FOR_PROCESSING_CLASS
    ):
        raise InputError(
            f"{path}: a FOR PROCESSING image is not meant for display; use the FOR PRESENTATION one"
        )
    if not any_class and seen.sop_class_uid not in SOP_CLASSES:
        name = uids.UID(seen.sop_class_uid).name or "no SOP class"
        raise InputError(
            f"{path}: expected a CR, DX or secondary capture image, got {name}; leave the file out"
        )
    if not any(k in header for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"{path}: has no pixel data; leave the file out")
    if seen.frames > 1:
        raise InputError(
            f"{path}: expected one frame, got {seen.frames}; export the wanted frame as its own file"
        )
    samples = int((numbers(header, "SamplesPerPixel") or [1])[0])
    if samples != 1 or seen.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        came = seen.photometric or "no photometric interpretation"
        raise InputError(
            f"{path}: expected MONOCHROME1 or MONOCHROME2, got {came} with {samples} samples; leave it out"
        )
    if frontal_only and seen.lateral:
        view = seen.view_position or seen.orientation or "lateral by its view code"
        raise InputError(
            f"{path}: expected a frontal view, got {view}; leave it out, or take every view with --views all"
        )


def check_pixel_module(path: Path, header: Any, seen: DicomAttributes, max_pixels: int) -> None:
    """Refuse sizes and depths that are impossible, too large, or that the pixel data cannot hold."""
    width, height = seen.width, seen.height
    if width < 1 or height < 1:
        raise InputError(f"{path}: the header states {width} x {height} pixels; {ADVICE}")
    if width * height > max_pixels:
        raise InputError(
            f"{path}: claims {width} x {height} pixels, more than the limit of {max_pixels}; leave it out"
        )
    if "PixelData" not in header:
        raise InputError(
            f"{path}: expected integer pixel data, got floating point; leave the file out"
        )
    for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation"):
        if not numbers(header, keyword):
            element = f"{dictionary_description(keyword)} {tag_in_words(keyword)}"
            raise InputError(
                f"{path}: the header lacks {element}, without which stored values mean nothing; {ADVICE}"
            )
    allocated, stored = (
        int(numbers(header, keyword)[0]) for keyword in ("BitsAllocated", "BitsStored")
    )
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise InputError(
            f"{path}: expected 8 or 16 bits a pixel, got {stored} stored in {allocated}; leave it out"
        )
    high = numbers(header, "HighBit")
    if high and int(high[0]) != stored - 1:
        raise InputError(
            f"{path}: expected high bit {stored - 1} with {stored} bits stored, got {int(high[0])}; {ADVICE}"
        )
    syntax = uids.UID(seen.transfer_syntax)
    if not syntax:
        raise InputError(f"{path}: the transfer syntax is missing; {ADVICE}")
    have, need = len(header.PixelData or b""), width * height * allocated // 8
    if have == 0 or (syntax in uids.UncompressedTransferSyntaxes and have < need):
        raise InputError(
            f"{path}: {width} x {height} pixels need {need} bytes, the file has {have}; {ADVICE}"
        )


def numbers(header: Any, keyword: str) -> list[float]:
    """The numbers of an attribute, as :func:`read_numbers` gives them, without what it has to say of them."""
    return read_numbers(header, keyword)[0]


def read_numbers(header: Any, keyword: str) -> tuple[list[float], str]:
    """The finite numbers of an attribute, and its text where that is not as the standard has it.

    Some devices write a decimal comma (``2048,0``) or a list in brackets (``[02048, 00400]``) into
    decimal strings. The number is plain then, and the text is given for a remark. What is no number
    at all gives none.

    Returns:
        The numbers; none if the attribute is absent, empty, or holds one that is not finite. The odd text, or "".
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return [], ""
        items = [value] if isinstance(value, (int, float, str)) else list(value)
        found = [float(item) for item in items if item is not None and item != ""]
    except (ValueError, TypeError, OverflowError):
        odd = _raw_text(header, keyword)
        return _odd_numbers(odd), odd
    if not all(np.isfinite(found)):
        return [], "\\".join(map(str, items))
    return found, ""


def _raw_text(header: Any, keyword: str) -> str:
    """An attribute as its file has it, on one line; pydicom refuses to convert it."""
    raw = getattr(header.get_item(keyword), "value", b"")
    written = (
        raw.decode("ascii", "backslashreplace") if isinstance(raw, (bytes, bytearray)) else str(raw)
    )
    return " ".join("".join(c if c.isprintable() else " " for c in written).split())


_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def _odd_numbers(written: str) -> list[float]:
    inside = written.strip().strip("[](){}")
    # in a list of whole numbers with a comma between them, the first is right to less than 1 either way
    parts = [inside] if _DECIMAL_COMMA.fullmatch(inside) else re.split(r"[\\;\s]+|,\s+", inside)
    found = []
    for part in parts:
        if not part.strip():
            continue
        try:
            found.append(float(part.strip().strip("[](){}").replace(",", ".")))
        except ValueError:
            return []
    return found if all(np.isfinite(found)) else []


def tag_in_words(keyword: str) -> str:
    """(gggg,eeee) of an attribute."""
    tag = int(tag_for_keyword(keyword) or 0)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def text(header: Any, keyword: str) -> str:
    """An attribute as one line of text; several values joined by a backslash; empty if absent."""
    value = header.get(keyword)
    if value is None:
        return ""
    several = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
    joined = "\\".join(str(item) for item in value) if several else str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in joined).split())

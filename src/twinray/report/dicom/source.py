"""What a derived DICOM object takes over from the image it was made from, checked.

Only what ties the new object to its patient, study and image is read. Names and texts that nobody
asked for cannot leak, and a de-identified source stays as it is. Values that are not legal for
their attribute (a date that is none) are left out where the standard lets them be empty. Where they
identify something, the file is refused. Attributes: DICOM PS3.3 C.7.1.1 (patient), C.7.2.1 (general
study), C.12.1 (SOP common).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from twinray.data.decoding.bounded_file import parser_faults_as_input_errors
from twinray.errors import InputError

_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_MAY_BE_EMPTY = {
    "PatientName": "PN",
    "PatientBirthDate": "DA",
    "StudyID": "SH",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
    "IssuerOfPatientID": "LO",
}
_TAGS = (
    *_UIDS,
    *_MAY_BE_EMPTY,
    *(
        "PatientID",
        "PatientSex",
        "InstanceNumber",
        "PatientOrientation",
        "Laterality",
        "SpecificCharacterSet",
    ),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *(
        "BurnedInAnnotation",
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    ),
)
_LOSSY_SYNTAXES = {  # by transfer syntax UID, with the defined term of Lossy Image Compression Method
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}


@dataclass(frozen=True, slots=True)
class DicomSource:
    """A source image's identity; text is empty where the file is silent or its value is not legal.

    Attributes:
        sop_class, sop, series, study: UIDs, always there.
        patient_id: identifier as written; empty in many de-identified files.
        study_attributes: (keyword, text) of patient and study attributes that are copied as they are.
        instance_number: number, at least 1.
        orientation: row and column direction (``L``, ``F``), or ().
        laterality: L, R or empty.
        deidentified: the file says that the patient's identity was removed.
        deidentification: method, in its words.
        burned_in: YES, NO or empty.
        lossy: True where the pixels were ever compressed with loss.
        lossy_methods, lossy_ratios: methods and ratios, as far as the file says.
    """

    sop_class: str
    sop: str
    series: str
    study: str
    patient_id: str
    study_attributes: tuple[tuple[str, str], ...]
    instance_number: int
    orientation: tuple[str, ...]
    laterality: str
    deidentified: bool
    deidentification: tuple[str, ...]
    burned_in: str
    lossy: bool
    lossy_methods: tuple[str, ...]
    lossy_ratios: tuple[str, ...]


def read_source(path: Path) -> DicomSource:
    """Read a DICOM image's identity.

    Raises:
        InputError: the header cannot be read, or lacks what a derived object must refer to.
    """
    advice = "the file's boxes are written all the same"
    with parser_faults_as_input_errors(path, "reading patient and study", advice):
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        return _source(path, header)


_DISPLAY = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
    *(
        "BitsStored",
        "PresentationLUTShape",
        "PixelAspectRatio",
        "PixelSpacing",
        "ImagerPixelSpacing",
    ),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"),
    *("VOILUTSequence", "SpecificCharacterSet"),
)


def read_display(path: Path) -> Dataset:
    """How a DICOM image's pixels become a picture: size, modality and VOI transformations, polarity.

    Raises:
        InputError: the header cannot be read, or has no size.
    """
    with parser_faults_as_input_errors(path, "reading how it is displayed", "no GSPS is made"):
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_DISPLAY))
        if not (header.get("Rows") and header.get("Columns")):
            raise InputError(f"{path}: expected Rows and Columns, it has none; no GSPS is made")
        found = Dataset()
        for keyword in _DISPLAY:
            if keyword in header and header[keyword].value not in (None, "", []):
                setattr(found, keyword, header[keyword].value)
        _first_view_only(found)
        return found


def _first_view_only(found: Dataset) -> None:
    """Keep the first of several windows or tables: dcmtk refuses a presentation state with more than one.

    A table takes precedence over a window, as it does where the image is decoded.
    """
    if "VOILUTSequence" in found:
        found.VOILUTSequence = found.VOILUTSequence[:1]
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        if keyword in found and "VOILUTSequence" in found:
            delattr(found, keyword)
        elif keyword in found and found[keyword].VM > 1:
            setattr(found, keyword, found[keyword].value[0])


def _source(path: Path, header: Any) -> DicomSource:
    uids = {keyword: _one(header, keyword) for keyword in _UIDS}
    for keyword, value in uids.items():
        if not (value and UID(value).is_valid):
            came = f"got {value!r}" if value else "it has none"
            raise InputError(
                f"{path}: expected a {keyword}, {came}; no DICOM objects can refer to the image"
            )
    patient_id = _one(header, "PatientID")
    if not _legal("LO", patient_id):
        raise InputError(
            f"{path}: expected a PatientID of at most 64 characters, got {patient_id[:80]!r}; correct it"
        )
    attributes = {keyword: _one(header, keyword) for keyword in _MAY_BE_EMPTY}
    kept = {k: v if _legal(_MAY_BE_EMPTY[k], v) else "" for k, v in attributes.items()}
    sex = _one(header, "PatientSex")
    number = _one(header, "InstanceNumber")
    orientation = _several(header, "PatientOrientation")
    methods = tuple(v for v in _several(header, "LossyImageCompressionMethod") if _legal("CS", v))
    known = _LOSSY_SYNTAXES.get(str(header.file_meta.get("TransferSyntaxUID", "")), "")
    return DicomSource(
        sop_class=uids["SOPClassUID"],
        sop=uids["SOPInstanceUID"],
        series=uids["SeriesInstanceUID"],
        study=uids["StudyInstanceUID"],
        patient_id=patient_id,
        study_attributes=(*kept.items(), ("PatientSex", sex if sex in ("M", "F", "O") else "")),
        instance_number=int(number) if re.fullmatch(r"\+?0*[1-9]\d{0,8}", number) else 1,
        orientation=orientation if _is_orientation(orientation) else (),
        laterality=side if (side := _one(header, "Laterality")) in ("L", "R") else "",
        deidentified=_one(header, "PatientIdentityRemoved") == "YES",
        deidentification=_deidentification(header),
        burned_in=burned if (burned := _one(header, "BurnedInAnnotation")) in ("YES", "NO") else "",
        lossy=_one(header, "LossyImageCompression") == "01" or bool(known),
        lossy_methods=methods or ((known,) if known else ()),
        lossy_ratios=tuple(
            v for v in _several(header, "LossyImageCompressionRatio") if v and _legal("DS", v)
        ),
    )


def _one(header: Any, keyword: str) -> str:
    """An attribute as text without the padding at its ends; several values joined as they stood in the file."""
    return "\\".join(_several(header, keyword))


def _several(header: Any, keyword: str) -> tuple[str, ...]:
    value = header.get(keyword)
    if value is None or value == "":
        return ()
    several = (
        not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") and keyword not in _NAMES
    )
    return (
        tuple(str(item).strip(" \0") for item in value) if several else (str(value).strip(" \0"),)
    )


_NAMES = tuple(
    keyword for keyword, vr in _MAY_BE_EMPTY.items() if vr == "PN"
)  # a name iterates over its letters


def _legal(vr: str, value: str) -> bool:
    if not all(letter.isprintable() for letter in value):
        return False
    try:
        validate_value(vr, value, config.RAISE)
    except ValueError:
        return False
    return "\\" not in value


def _is_orientation(values: tuple[str, ...]) -> bool:
    return len(values) == 2 and all(re.fullmatch("[APRLHF]{1,3}", value) for value in values)


def _deidentification(header: Any) -> tuple[str, ...]:
    """The method in words; the standard wants one wherever identity was removed."""
    words = [*_several(header, "DeidentificationMethod")]
    words += [
        _one(item, "CodeMeaning") for item in header.get("DeidentificationMethodCodeSequence") or ()
    ]
    legal = tuple(word for word in words if word and _legal("LO", word))
    return legal or ("not stated in the source image",)

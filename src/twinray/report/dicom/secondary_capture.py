"""A Secondary Capture image (DICOM PS3.3 A.8.1): the source's display pixels, boxes and stamp burnt in, RGB.

JPEG 2000 without loss, a fifth of the size of bare pixels on radiographs; uncompressed where an archive takes nothing else.
It has no pixel spacing: nothing should be measured on it.
"""

from __future__ import annotations

from typing import Any

from highdicom import CoordinateSystemNames, PhotometricInterpretationValues
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from twinray.about import DISCLAIMER
from twinray.report.dicom.finding import Finding, device, identity
from twinray.report.pictures.burn_in import burn_in

SERIES_NUMBER = 9001


def secondary_capture(finding: Finding, *, compressed: bool = True) -> SCImage:
    """The image with its boxes; larger than the source by the stamp's band, and by a whole factor if it is small.

    Args:
        finding: what it is made of.
        compressed: flag, true for JPEG 2000 without loss.
    """
    source = finding.source
    header: Any = identity(source)
    pixels, factor = burn_in(finding.image, finding.boxes, finding.classes, finding.as_text())
    capture: Any = SCImage(
        pixel_array=pixels,
        # the standard's reversible colour transform: on grey pixels two of three planes are nothing
        photometric_interpretation=PhotometricInterpretationValues.YBR_RCT
        if compressed
        else PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "F"),  # highdicom wants one; the source's own replaces it below
        study_instance_uid=source.study,
        series_instance_uid=finding.series_uid("sc series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=finding.uid("sc"),
        instance_number=source.instance_number,
        patient_id=source.patient_id,
        patient_sex=header.PatientSex,
        transfer_syntax_uid=JPEG2000Lossless if compressed else ExplicitVRLittleEndian,
        series_description=DISCLAIMER,
        **device(finding),
    )
    capture.copy_patient_and_study_information(header)
    capture.PatientOrientation = list(source.orientation) or None
    capture.Laterality = source.laterality or None  # may be empty, not absent
    capture.ConversionType = "WSD"  # workstation: drawn by software from another image
    capture.SourceImageSequence = [_reference(finding)]
    enlarged = f", enlarged {factor} times" if factor > 1 else ""
    capture.DerivationDescription = (
        f"Display pixels with predicted boxes burnt in{enlarged}. {DISCLAIMER}."
    )
    capture.ImageComments = " ".join(finding.as_text())
    if source.burned_in:
        capture.BurnedInAnnotation = source.burned_in  # the stamp names no patient and no date
    if source.lossy:
        capture.LossyImageCompression = "01"  # once lossy, always said so (PS3.3 C.7.6.1.1.5)
        if source.lossy_methods:
            capture.LossyImageCompressionMethod = list(source.lossy_methods)
        if source.lossy_ratios:
            capture.LossyImageCompressionRatio = list(source.lossy_ratios)
    return capture  # type: ignore[no-any-return]


def _reference(finding: Finding) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = finding.source.sop_class
    reference.ReferencedSOPInstanceUID = finding.source.sop
    reference.PurposeOfReferenceCodeSequence = [
        CodedConcept("121322", "DCM", "Source image for image processing operation")
    ]
    return reference

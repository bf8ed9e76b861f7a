"""A Structured Report with the boxes as findings: Comprehensive SR, template TID 1500, through highdicom.

Each box has one measurement group (TID 1410). It holds the region on the source image, the class as
a coded finding and the score as a measurement. It also holds the algorithm with version and model.
A report without a box holds one group that says so: their number, 0. The observer is a device; the
report is complete, preliminary and unverified, as nobody has looked.

A reader who has looked is a second observer, a person, and each group states the verdict: accepted,
moved or added. Labels of the whole image that the reader stated are a group of their own, each present or absent. A box that the reader moved or added has no score, since none was computed for it. The report
stays unverified: verifying takes a person's organisation (PS3.3 C.17.2.5), which is not known here.

Regions are closed POLYLINEs in image-relative coordinates (PS3.3 C.18.6.1.2): column, then row. The
point 0\\0 is the top left corner of the top left pixel, Columns\\Rows the bottom right corner of
the last one. That is this project's own frame of boxes, so numbers are taken over as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)

from twinray.about import DISCLAIMER
from twinray.records import FloatArray
from twinray.report.dicom.codes import PRIVATE_SCHEME, finding_code
from twinray.report.dicom.finding import (
    MAKER,
    Finding,
    Review,
    derived_uid,
    device,
    identity,
)

SERIES_NUMBER = 9002

_DEVICE = CodedConcept("121007", "DCM", "Device")
_PERSON = CodedConcept("121006", "DCM", "Person")
_RADIOGRAPH = CodedConcept("43468-8", "LN", "XR unspecified body region")  # of CID 100
_NO_UNIT = CodedConcept("1", "UCUM", "no units")
_SCORE = CodedConcept("SCORE", PRIVATE_SCHEME, "Detector score from 0 to 1, not a probability")
_COUNT = CodedConcept("COUNT", PRIVATE_SCHEME, "Number of boxes that reach their threshold")
_COUNT_OF_READER = CodedConcept("READERCOUNT", PRIVATE_SCHEME, "Number of boxes of the reader")
_VERDICT = CodedConcept("VERDICT", PRIVATE_SCHEME, "Verdict of the reader")
_VERDICTS = {
    "accepted": CodedConcept("ACCEPTED", PRIVATE_SCHEME, "Accepted as the model drew it"),
    "moved": CodedConcept("MOVED", PRIVATE_SCHEME, "Box of the model, moved by the reader"),
    "added": CodedConcept("ADDED", PRIVATE_SCHEME, "Added by the reader"),
}
_NORMAL = CodedConcept("NORMAL", PRIVATE_SCHEME, "Image called normal")
_THERE = {
    True: CodedConcept("52101004", "SCT", "Present"),
    False: CodedConcept("2667000", "SCT", "Absent"),
}  # of CID 240
_BOUNDED_BY = CodedConcept("75958009", "SCT", "Bounded by")  # of CID 219


def structured_report(finding: Finding) -> ComprehensiveSR:
    """The report on one image."""
    uid = finding.uid("sr")
    groups: list[Any] = [
        _group(finding, i, derived_uid("box", uid, i)) for i in range(len(finding.boxes))
    ]
    groups = groups or [_nothing(finding, derived_uid("no box", uid))]
    if finding.review is not None and finding.review.labels:
        groups.append(_whole(finding, finding.review, derived_uid("whole image", uid)))
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_person_context=_reader(finding.review),
            observer_device_context=_observer(finding),
        ),
        procedure_reported=_RADIOGRAPH,
        imaging_measurements=groups,
    )
    scheme = CodingSchemeIdentificationItem(
        PRIVATE_SCHEME,
        name="Class names and measures of twinray's models",
        responsible_organization=MAKER,
    )
    return ComprehensiveSR(
        evidence=[identity(finding.source)],
        content=report,
        series_instance_uid=finding.series_uid("sr series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=finding.source.instance_number,
        is_complete=True,
        series_description=DISCLAIMER,
        coding_schemes=[scheme],
        **device(finding),
    )


def _observer(finding: Finding) -> ObserverContext:
    algorithm = finding.algorithm
    attributes = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", algorithm.version, algorithm.model),
        name=f"{MAKER} ({DISCLAIMER.lower()})",
        manufacturer_name=MAKER,
        model_name=f"{MAKER} {algorithm.version}",
        serial_number=algorithm.model,
    )
    return ObserverContext(_DEVICE, attributes)


def _reader(review: Review | None) -> ObserverContext | None:
    """The person who looked, under the name of the sign-in."""
    if review is None:
        return None
    return ObserverContext(_PERSON, PersonObserverIdentifyingAttributes(review.person_name))


def _algorithm(finding: Finding) -> AlgorithmIdentification:
    algorithm = finding.algorithm
    parameters = [
        f"model SHA-256: {algorithm.model}",
        f"boxes shown: {algorithm.shown}",
        f"{DISCLAIMER}.",
    ]
    return AlgorithmIdentification(MAKER, algorithm.version, parameters)


def _group(finding: Finding, i: int, uid: str) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """One box."""
    boxes, source = finding.boxes, finding.source
    assert boxes.scores is not None
    code = finding_code(finding.classes[int(boxes.labels[i])])
    region = ImageRegion(
        GraphicTypeValues.POLYLINE,
        corners(boxes.xyxy[i]),
        SourceImageForRegion(source.sop_class, source.sop),
    )
    score, review = float(boxes.scores[i]), finding.review
    verdict = None if review is None else review.verdicts[i]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid, f"box {i + 1}"),
        referenced_region=region,
        finding_type=CodedConcept(code.value, code.scheme, code.meaning),
        algorithm_id=None if verdict == "added" else _algorithm(finding),
        measurements=None
        if np.isnan(score)
        else [Measurement(name=_SCORE, value=round(score, 6), unit=_NO_UNIT)],
        qualitative_evaluations=None
        if verdict is None
        else [QualitativeEvaluation(_VERDICT, _VERDICTS[verdict])],
        geometric_purpose=_BOUNDED_BY,
    )


def corners(box: FloatArray) -> Any:
    """(4,) xyxy -> (5, 2) float32 column and row of the corners, clockwise from the top left and back to it."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]], dtype=np.float32)


def _nothing(finding: Finding, uid: str) -> MeasurementsAndQualitativeEvaluations:
    source, review = finding.source, finding.review
    called = (
        [] if review is None or not review.normal else [QualitativeEvaluation(_VERDICT, _NORMAL)]
    )
    count = _COUNT if review is None else _COUNT_OF_READER
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid, "no box"),
        algorithm_id=_algorithm(finding),
        measurements=[Measurement(name=count, value=0, unit=_NO_UNIT)],
        qualitative_evaluations=called or None,
        source_images=[SourceImageForMeasurementGroup(source.sop_class, source.sop)],
    )


def _whole(finding: Finding, review: Review, uid: str) -> MeasurementsAndQualitativeEvaluations:
    """Labels of the whole image, as the reader stated them."""
    source = finding.source
    codes = [(finding_code(name), there) for name, there in review.labels]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid, "whole image"),
        qualitative_evaluations=[
            QualitativeEvaluation(
                CodedConcept(code.value, code.scheme, code.meaning), _THERE[there]
            )
            for code, there in codes
        ],
        source_images=[SourceImageForMeasurementGroup(source.sop_class, source.sop)],
    )

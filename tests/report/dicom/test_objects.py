"""Secondary Capture and Structured Report: valid, on the right pixels, nobody's data but the needed, repeatable."""

from __future__ import annotations

import dataclasses
import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_support import dciodvfy_errors, write_radiograph
from twinray.data.decoding.images import load_image
from twinray.errors import InputError
from twinray.records import Boxes
from twinray.report.dicom.codes import PRIVATE_SCHEME, finding_code
from twinray.report.dicom.finding import Algorithm, Finding, Review
from twinray.report.dicom.objects import dicom_objects
from twinray.report.dicom.source import read_source
from twinray.report.pictures.burn_in import LEAST_WIDTH, burn_in

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")

CLASSES = (
    "Pneumothorax",
    "Nodule/Mass",
    "Verschattung – ärztlich „unklar“, 肺炎, mit sehr langem Namen zum Kürzen",
)
MADE = datetime(2026, 1, 2, 3, 4, 5)
ALGORITHM = Algorithm("0.1.0", "ab" * 32, "score >= 0.3")
NONE = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
THREE = Boxes(
    np.array(
        [[100.25, 40.5, 260.75, 200.125], [0.0, 300.0, 50.0, 360.0], [400.0, 300.0, 701.0, 523.0]]
    ),
    np.array([0, 1, 2]),
    np.array([0.912345678, 0.5, 0.3]),
)


@pytest.fixture
def film() -> np.ndarray:
    """Odd on both sides, so that nothing is square or even by luck."""
    return np.random.default_rng(0).integers(0, 256, (523, 701)).astype(np.uint8)


def make(
    path: Path, boxes: Boxes = THREE, algorithm: Algorithm = ALGORITHM, made: datetime = MADE
) -> dict[str, bytes]:
    return dicom_objects(
        Finding(read_source(path), load_image(path).array, boxes, CLASSES, algorithm, made)
    )


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


VARIANTS = {
    "whole": {},
    "deidentified": {
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": ["dates kept", "by hand"],
    },
    "deidentified, no method": {
        "PatientIdentityRemoved": "YES",
        "PatientID": "",
        "PatientName": "",
    },
    "bare": {
        "without": (
            *(
                "PatientName",
                "PatientBirthDate",
                "PatientSex",
                "StudyID",
                "StudyDate",
                "StudyTime",
                "AccessionNumber",
            ),
            *(
                "ReferringPhysicianName",
                "InstanceNumber",
                "PatientOrientation",
                "PatientID",
                "SpecificCharacterSet",
            ),
        )
    },
    "lossy once": {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "12.5",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "BurnedInAnnotation": "NO",
    },
    "many scripts": {
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "Laterality": "L",
        "IssuerOfPatientID": "här",
    },
    "inverted": {"photometric": "MONOCHROME1"},
}


@pytest.mark.parametrize("boxes", [THREE, NONE], ids=["boxes", "no box"])
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_dciodvfy_finds_no_error(tmp_path, film, values, boxes):
    path = write_radiograph(tmp_path / "a.dcm", film, **values)
    for kind, data in make(path, boxes).items():
        (tmp_path / kind).write_bytes(data)
        assert dciodvfy_errors(tmp_path / kind) == []


def test_dciodvfy_is_able_to_find_errors(tmp_path, film):
    path = write_radiograph(tmp_path / "a.dcm", film)
    broken = read(make(path)["sc"])
    del broken.StudyInstanceUID
    broken.save_as(tmp_path / "broken.dcm")
    assert any("StudyInstanceUID" in line for line in dciodvfy_errors(tmp_path / "broken.dcm"))


def test_the_report_reads_back(tmp_path, film):
    from highdicom.sr import srread

    path = write_radiograph(tmp_path / "a.dcm", film)
    (tmp_path / "sr.dcm").write_bytes(make(path)["sr"])
    report = srread(tmp_path / "sr.dcm")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert [tuple(map(str, one))[:3] for one in report.get_evidence()] == [
        ("1.2.3", "1.2.3.4", "1.2.3.4.5")
    ]
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == 3
    for i, group in enumerate(groups):
        region = group.roi
        assert region.graphic_type.value == "POLYLINE"
        x1, y1, x2, y2 = THREE.xyxy[i]
        np.testing.assert_array_equal(
            region.value, [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]
        )
        reference = region.ContentSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == "1.2.3.4.5"
        assert group.finding_type.meaning == finding_code(CLASSES[i]).meaning
        (score,) = group.get_measurements()
        assert score.value == pytest.approx(THREE.scores[i], abs=1e-6)
        assert "not a probability" in score.name.meaning
    assert (
        groups[0].finding_type.value == "36118008"
        and groups[0].finding_type.scheme_designator == "SCT"
    )
    assert {g.finding_type.scheme_designator for g in groups[1:]} == {PRIVATE_SCHEME}
    text = (tmp_path / "sr.dcm").read_bytes().decode("utf-8", "ignore")
    assert ALGORITHM.model in text and "0.1.0" in text and "score >= 0.3" in text
    assert "not a medical device" in text.lower()
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_type.meaning == "Device"


def test_a_report_without_boxes_says_so(tmp_path, film):
    report = read(make(write_radiograph(tmp_path / "a.dcm", film), NONE)["sr"])
    text = str(report)
    assert "Number of boxes" in text and "SCOORD" not in text
    assert report.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("boxes", [THREE, NONE], ids=["boxes", "no box"])
def test_labels_that_a_reader_stated_are_in_every_object(tmp_path, film, boxes):
    from highdicom.sr import srread

    path = write_radiograph(tmp_path / "a.dcm", film)
    labels = (("Nodule", True), ("a class of ours", False))

    def built(*of: tuple[str, bool]) -> dict[str, bytes]:
        review = Review("anna", ("accepted",) * len(boxes), None, of)
        return dicom_objects(
            Finding(read_source(path), load_image(path).array, boxes, CLASSES, ALGORITHM, MADE, review)
        )  # fmt: skip

    with_labels, without = built(*labels), built()
    for kind, data in with_labels.items():
        (tmp_path / kind).write_bytes(data)
        assert dciodvfy_errors(tmp_path / kind) == []
        assert read(data).SOPInstanceUID != read(without[kind]).SOPInstanceUID
    report = srread(tmp_path / "sr")
    *_, group = report.content.get_image_measurement_groups()
    told = {one.name.meaning: one.value.meaning for one in group.get_qualitative_evaluations()}
    assert told == {"Nodule": "Present", "a class of ours": "Absent"}
    assert len(report.content.get_planar_roi_measurement_groups()) == len(boxes)
    assert "Nodule present, a class of ours absent." in read(with_labels["sc"]).ImageComments
    assert "Whole image" not in read(without["sc"]).ImageComments


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_capture_holds_the_display_pixels(tmp_path, film, photometric):
    path = write_radiograph(tmp_path / "a.dcm", film, photometric=photometric)
    shown = film if photometric == "MONOCHROME2" else 255 - film
    capture = read(make(path)["sc"])
    pixels = capture.pixel_array
    assert capture.PhotometricInterpretation == "YBR_RCT"  # lossless JPEG 2000 (PS3.5, 8.2.4)
    assert pixels.shape[0] > 523 and pixels.shape[1:] == (701, 3)
    for x1, y1, x2, y2 in np.rint(THREE.xyxy).astype(int)[
        [0]
    ]:  # the first box touches no border and no name
        assert (pixels[y1:y2, x1:x2] == shown[y1:y2, x1:x2, None]).all()
        assert (pixels[y1 - 3 : y1 - 1, x1:x2] == (255, 210, 63)).all(axis=-1).any()
    assert (pixels[0:30, 300:700] == shown[0:30, 300:700, None]).all()
    assert len(np.unique(pixels[523:].reshape(-1, 3), axis=0)) > 2  # letters on black
    reference = capture.SourceImageSequence[0]
    assert (
        reference.ReferencedSOPInstanceUID,
        reference.PurposeOfReferenceCodeSequence[0].CodeValue,
    ) == (
        "1.2.3.4.5",
        "121322",
    )
    assert (
        capture.ImageType[0] == "DERIVED"
        and "not a medical device" in capture.DerivationDescription
    )
    assert list(capture.PatientOrientation) == ["L", "F"]
    assert "PixelSpacing" not in capture


def test_patient_and_study_are_the_sources(tmp_path, film):
    path = write_radiograph(
        tmp_path / "a.dcm", film, PatientName="Yamada^Tarou=山田^太郎", IssuerOfPatientID="ward"
    )
    for data in make(path).values():
        header = read(data)
        assert (header.PatientID, header.IssuerOfPatientID) == ("p7", "ward")
        assert str(header.PatientName) == "Yamada^Tarou=山田^太郎"
        assert (header.PatientBirthDate, header.PatientSex) == ("19700101", "F")
        assert (header.StudyInstanceUID, header.StudyID, header.StudyDate) == (
            "1.2.3",
            "s1",
            "20200102",
        )
        assert (header.StudyTime, header.AccessionNumber, header.InstanceNumber) == (
            "101112",
            "a9",
            3,
        )
        assert header.SeriesInstanceUID != "1.2.3.4" and header.SOPInstanceUID != "1.2.3.4.5"
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert (header.Manufacturer, header.DeviceSerialNumber) == ("twinray", ALGORITHM.model)
        assert "not a medical device" in header.SeriesDescription


def test_nothing_else_is_copied(tmp_path, film):
    secrets = {
        "PatientAddress": "SECRET street",
        "PatientComments": "SECRET remark",
        "OtherPatientIDs": "SECRET id",
        "InstitutionName": "SECRET clinic",
        "OperatorsName": "SECRET^Operator",
        "StationName": "SECRET",
        "StudyDescription": "SECRET study",
        "DeviceSerialNumber": "SECRET",
        "AdditionalPatientHistory": "SECRET past",
    }
    path = write_radiograph(tmp_path / "a.dcm", film, **secrets)
    header = pydicom.dcmread(path)
    header.private_block(0x0019, "MAKER", create=True).add_new(1, "LO", "SECRET private")
    header.save_as(path)
    for data in make(path).values():
        assert b"SECRET" not in data


def test_a_deidentified_source_stays_so(tmp_path, film):
    path = write_radiograph(
        tmp_path / "a.dcm",
        film,
        PatientIdentityRemoved="YES",
        DeidentificationMethod=["dates kept", "by hand"],
    )
    for data in make(path).values():
        header = read(data)
        assert header.PatientIdentityRemoved == "YES"
        assert list(header.DeidentificationMethod) == ["dates kept", "by hand"]


def test_the_same_content_gives_the_same_bytes_and_identifiers(tmp_path, film):
    path = write_radiograph(tmp_path / "a.dcm", film)
    first, again = make(path), make(path)
    assert first == again
    later = make(path, made=datetime(2027, 2, 3))

    def uids(built: dict[str, bytes]) -> set[str]:
        headers = [read(data) for data in built.values()]
        return {h.SOPInstanceUID for h in headers} | {h.SeriesInstanceUID for h in headers}

    assert uids(first) == uids(later) and len(uids(first)) == 4
    assert (
        read(later["sr"]).ContentDate == "20270203" and read(first["sr"]).ContentDate == "20260102"
    )
    for other in (
        make(path, NONE),
        make(path, algorithm=dataclasses.replace(ALGORITHM, model="cd" * 32)),
        make(path, algorithm=dataclasses.replace(ALGORITHM, shown="score >= 0.4")),
    ):
        assert not {read(d).SOPInstanceUID for d in other.values()} & uids(first)
    # two files that claim one identity but differ in their pixels
    twin = write_radiograph(tmp_path / "b.dcm", 255 - film)
    assert not {read(d).SOPInstanceUID for d in make(twin).values()} & uids(first)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"without": ("StudyInstanceUID",)}, "expected a StudyInstanceUID, it has none"),
        ({"without": ("SeriesInstanceUID",)}, "expected a SeriesInstanceUID"),
        ({"SOPInstanceUID": "no uid"}, "expected a SOPInstanceUID, got 'no uid'"),
        ({"PatientID": "x" * 65}, "PatientID of at most 64"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_source_without_identity_is_refused_in_one_line(tmp_path, film, values, reason):
    path = write_radiograph(tmp_path / "a.dcm", film, **values)
    with pytest.raises(InputError, match=reason) as caught:
        read_source(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_values_that_are_not_legal_are_left_out(tmp_path, film):
    path = write_radiograph(
        tmp_path / "a.dcm",
        film,
        StudyDate="unknown",
        PatientBirthDate="1970-01-01",
        PatientSex="W",
        StudyID="longer than sixteen letters",
        PatientOrientation=["links", "unten"],
        InstanceNumber="0",
    )
    assert not any(
        dict(read_source(path).study_attributes)[k]
        for k in ("StudyDate", "PatientBirthDate", "PatientSex")
    )
    for kind, data in make(path).items():
        header = read(data)
        assert (header.StudyDate, header.PatientSex, header.StudyID, header.InstanceNumber) == (
            "",
            "",
            "",
            1,
        )
        (tmp_path / kind).write_bytes(data)
        assert dciodvfy_errors(tmp_path / kind) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=90), unique=True, max_size=8
    )
)
def test_codes_are_legal_and_tell_names_apart(names):
    codes = [finding_code(name) for name in names]
    for code in codes:
        assert 1 <= len(code.value) <= 16 and code.value.isascii() and "\\" not in code.value
        assert (
            1 <= len(code.meaning.encode()) <= 64
            and code.meaning.isprintable()
            and "\\" not in code.meaning
        )
    private = [code.value for code in codes if code.scheme == PRIVATE_SCHEME]
    assert len(set(private)) == len(private)


def test_standard_codes_are_those_of_dicoms_own_context_groups():
    from pydicom.sr.codedict import codes

    for name in ("Pneumothorax", "Pleural effusion", "Pulmonary edema", "Mass", "Nodule"):
        ours = finding_code(name.upper().replace(" ", "_"))
        theirs = getattr(codes.SCT, "".join(word.capitalize() for word in name.split()))
        assert (ours.value, ours.scheme, ours.meaning) == (theirs.value, "SCT", theirs.meaning)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 90),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5),
    st.booleans(),
)
def test_any_box_on_any_image_can_be_burnt_in(width, height, corners, colour):
    image = np.full((height, width, 3) if colour else (height, width), 90, dtype=np.uint8)
    raw = np.array(corners).reshape(-1, 4) * [width, height, width, height]
    xyxy = np.concatenate(
        [np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1
    )
    boxes = Boxes(xyxy, np.zeros(len(xyxy), dtype=np.int64), np.full(len(xyxy), 0.5))
    before = image.copy()
    pixels, factor = burn_in(image, boxes, ("a rather long name of a class",), ("Stamp.",))
    assert (image == before).all()
    assert pixels.dtype == np.uint8 and pixels.shape[1] == factor * width >= LEAST_WIDTH
    assert factor == 1 or (factor - 1) * width < LEAST_WIDTH
    assert pixels.shape[0] > factor * height
    if not len(boxes):
        assert (pixels[: factor * height] == 90).all()

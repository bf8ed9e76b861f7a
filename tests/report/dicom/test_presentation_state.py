"""Presentation states and reviewed reports: valid, the image looks as before, boxes where they are, the reader's word kept."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_support import dciodvfy_errors, write_radiograph
from twinray.data.decoding.images import load_image
from twinray.errors import InputError
from twinray.records import Boxes
from twinray.report.dicom.finding import Algorithm, Finding, Review
from twinray.report.dicom.objects import KINDS, dicom_objects
from twinray.report.dicom.source import read_display, read_source

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")

CLASSES = ("Pneumothorax", "Nodule/Mass", "Verschattung \\ 肺炎")
BOXES = Boxes(
    np.array([[10.25, 4.5, 26.75, 20.125], [0.0, 0.0, 5.0, 6.0], [40.0, 30.0, 71.0, 53.0]]),
    np.array([0, 1, 2]),
    np.array([0.912345678, 0.5, np.nan]),
)
NONE = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
REVIEW = Review("dr.who^x=\\y", ("accepted", "moved", "added"))


@pytest.fixture
def film() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (53, 71)).astype(np.uint8)


def make(path: Path, boxes: Boxes = BOXES, review: Review | None = REVIEW) -> dict[str, bytes]:
    algorithm = Algorithm("0.1.0", "ab" * 32, "score >= 0.3, then as a reader left them")
    finding = Finding(
        read_source(path),
        load_image(path).array,
        boxes,
        CLASSES,
        algorithm,
        datetime(2026, 1, 2),
        review,
    )
    return dicom_objects(finding, kinds=KINDS, display=read_display(path))


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


DISPLAYS = {
    "bare": {},
    "window": {"WindowCenter": "100", "WindowWidth": "120"},
    "windows": {"WindowCenter": ["100", "90"], "WindowWidth": ["120", "30"], "WindowCenterWidthExplanation": ["A", "B"]},
    "sigmoid": {"WindowCenter": "100", "WindowWidth": "120", "VOILUTFunction": "SIGMOID"},
    "rescaled": {"RescaleSlope": "2", "RescaleIntercept": "-20", "RescaleType": "US", "WindowCenter": "180", "WindowWidth": "240"},
    "MONOCHROME1": {"photometric": "MONOCHROME1", "PresentationLUTShape": "INVERSE", "WindowCenter": "100", "WindowWidth": "120"},
    "MONOCHROME1, shape unsaid": {"photometric": "MONOCHROME1"},
}  # fmt: skip


@pytest.mark.parametrize("values", DISPLAYS.values(), ids=DISPLAYS)
def test_the_image_looks_as_without_it(tmp_path, film, values):
    """dcmtk applies the state to the image; the pixels are those that the file asks for by itself."""
    if shutil.which("dcmp2pgm") is None:
        pytest.skip("dcmp2pgm is not installed (Debian: dcmtk)")
    source = write_radiograph(tmp_path / "source.dcm", film, **values)
    state = tmp_path / "gsps.dcm"
    state.write_bytes(make(source)["gsps"])
    assert dciodvfy_errors(state) == []
    shown = {}
    for name, options in (("with", ["-p", state]), ("without", [])):
        out = tmp_path / f"{name}.pgm"
        subprocess.run(["dcmp2pgm", *options, source, out], check=True, capture_output=True)
        shown[name] = np.asarray(Image.open(out))
    assert (shown["with"] == shown["without"]).all()
    if "VOILUTFunction" not in values:  # dcmtk of Debian 12 draws sigmoids as straight lines
        ours = load_image(source).array.astype(int)
        assert np.abs(shown["with"] - ours).max() <= 1


def test_boxes_are_drawn_where_they_are(tmp_path, film):
    made = make(write_radiograph(tmp_path / "source.dcm", film))
    state, report = read(made["gsps"]), read(made["sr"])
    drawn = state.GraphicAnnotationSequence[0]
    assert drawn.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    for graphic, box in zip(drawn.GraphicObjectSequence, BOXES.xyxy, strict=True):
        points = np.array(graphic.GraphicData).reshape(-1, 2)
        assert graphic.GraphicAnnotationUnits == "PIXEL" and graphic.GraphicFilled == "N"
        assert (points[0] == points[-1]).all() and len(points) == 5
        assert points.min(0) == pytest.approx(box[:2]) and points.max(0) == pytest.approx(box[2:])
    tracked = [
        i.UID for i in walk(report) if i.get("ConceptNameCodeSequence") and code(i) == "112040"
    ]
    assert [graphic.TrackingUID for graphic in drawn.GraphicObjectSequence] == tracked
    texts = [text.UnformattedTextValue for text in drawn.TextObjectSequence]
    assert "not a medical device" in texts[0]
    assert texts[1:] == [
        "Pneumothorax 0.91 (accepted by reader)",
        "Nodule/Mass 0.50 (moved by reader)",
        "Verschattung   肺炎 (added by reader)",
    ]
    for text in drawn.TextObjectSequence:
        left, top = text.BoundingBoxTopLeftHandCorner
        right, bottom = text.BoundingBoxBottomRightHandCorner
        assert 0 <= left < right <= 71 and 0 <= top < bottom <= 53
    assert (state.PatientID, str(state.PatientName), state.AccessionNumber) == (
        "p7",
        "Doe^Jane",
        "a9",
    )
    assert state.StudyInstanceUID == "1.2.3" and state.SeriesInstanceUID != "1.2.3.4"


def test_pixels_that_are_not_square_stay_so(tmp_path, film):
    source = write_radiograph(tmp_path / "source.dcm", film, ImagerPixelSpacing=["0.2", "0.1"])
    area = read(make(source)["gsps"]).DisplayedAreaSelectionSequence[0]
    assert list(area.PresentationPixelAspectRatio) == [200, 100]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [71, 53]


@pytest.mark.parametrize(
    ("boxes", "review"),
    [(BOXES, REVIEW), (NONE, Review("a", (), True)), (NONE, Review("a", ())), (NONE, None)],
    ids=["reviewed", "normal", "all rejected", "nobody looked"],
)
def test_dciodvfy_finds_no_error(tmp_path, film, boxes, review):
    made = make(write_radiograph(tmp_path / "source.dcm", film), boxes, review)
    assert made.keys() == set(KINDS)
    for kind, data in made.items():
        (tmp_path / f"{kind}.dcm").write_bytes(data)
        assert dciodvfy_errors(tmp_path / f"{kind}.dcm") == []


def test_the_report_holds_the_readers_word(tmp_path, film):
    report = read(make(write_radiograph(tmp_path / "source.dcm", film))["sr"])
    items = list(walk(report))
    assert [str(i.PersonName) for i in items if i.get("ValueType") == "PNAME"] == ["dr.who x y^"]
    assert report.VerificationFlag == "UNVERIFIED"
    groups = [i for i in items if i.get("ConceptNameCodeSequence") and code(i) == "125007"]
    verdicts, scores, algorithms = [], [], []
    for group in groups:
        inside = list(walk(group))
        verdicts += [i.ConceptCodeSequence[0].CodeValue for i in inside if code(i) == "VERDICT"]
        scores.append(
            [float(i.MeasuredValueSequence[0].NumericValue) for i in inside if i.ValueType == "NUM"]
        )
        algorithms.append(sum(code(i) == "111001" for i in inside))
    assert verdicts == ["ACCEPTED", "MOVED", "ADDED"]
    assert scores == [[0.912346], [0.5], []]
    assert algorithms == [1, 1, 0]


def test_another_verdict_is_another_object_and_the_same_one_is_not(tmp_path, film):
    source = write_radiograph(tmp_path / "source.dcm", film)
    uids = [
        {k: read(v).SOPInstanceUID for k, v in make(source, review=review).items()}
        for review in (
            REVIEW,
            REVIEW,
            dataclasses.replace(REVIEW, reader="b"),
            dataclasses.replace(REVIEW, verdicts=("moved", "moved", "added")),
        )
    ]
    assert uids[0] == uids[1]
    assert len({uid for one in uids[1:] for uid in one.values()}) == 3 * len(KINDS)


def test_without_a_size_there_is_no_state(tmp_path, film):
    source = write_radiograph(tmp_path / "source.dcm", film, without=("Rows",))
    with pytest.raises(InputError, match="expected Rows and Columns"):
        read_display(source)


def walk(item):
    for one in item.get("ContentSequence") or ():
        yield one
        yield from walk(one)


def code(item) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue

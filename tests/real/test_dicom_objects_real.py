"""DICOM objects of real radiographs: valid for dciodvfy, and boxes on the pixels that they were put on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from dicom_support import dciodvfy_errors
from twinray.data.decoding.images import load_image
from twinray.records import Boxes
from twinray.report.dicom.finding import Algorithm, Finding
from twinray.report.dicom.objects import dicom_objects
from twinray.report.dicom.source import read_source

pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
PYDICOM = Path(pydicom.data.__file__).parent
FILES = [
    *sorted(SHARED.glob("*.dcm")),
    *sorted((PYDICOM / "test_files/dicomdirtests/77654033").glob("CR*/*")),
    *sorted((PYDICOM / "charset_files").glob("chr[FGHIRX]*.dcm")),
]
CLASSES = ("Lung Opacity", "side marker")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[-16:])
def test_objects_of_real_files_are_valid(path: Path, tmp_path: Path) -> None:
    image = load_image(path).array
    height, width = image.shape[:2]
    boxes = Boxes(
        np.array([[0.6, 0.1, 0.9, 0.4], [0.0, 0.5, 0.3, 1.0]]) * [width, height, width, height],
        np.array([0, 1]),
        np.array([0.9, 0.4]),
    )
    none = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
    algorithm = Algorithm("0.1.0", "ab" * 32, "score >= 0.3")
    for found in (boxes, none):
        finding = Finding(read_source(path), image, found, CLASSES, algorithm, datetime(2026, 1, 2))
        for kind, data in dicom_objects(finding).items():
            (tmp_path / kind).write_bytes(data)
            assert dciodvfy_errors(tmp_path / kind) == []


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared DICOM files (../shared/data/dicom) are absent"
)
def test_the_box_around_the_side_marker_holds_the_side_marker(tmp_path: Path) -> None:
    """The lead letters at the top right are the brightest thing there: inside the frame they are, unchanged."""
    path = SHARED / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    image = load_image(path).array
    x1, y1, x2, y2 = 872, 0, 920, 143
    boxes = Boxes(np.array([[x1, y1, x2, y2]], dtype=float), np.array([1]), np.array([0.97]))
    algorithm = Algorithm("0.1.0", "ab" * 32, "score >= 0.3")
    built = dicom_objects(
        Finding(read_source(path), image, boxes, CLASSES, algorithm, datetime(2026, 1, 2))
    )
    for kind, data in built.items():
        (tmp_path / kind).write_bytes(data)
    pixels = pydicom.dcmread(tmp_path / "sc").pixel_array
    stored = pydicom.dcmread(path).pixel_array
    assert stored[y1:y2, x1:x2].max() > 200
    np.testing.assert_array_equal(pixels[8:y2, x1:x2, 0], image[8:y2, x1:x2])
    frame = (pixels[: stored.shape[0]] == (255, 210, 63)).all(axis=-1)
    rows, columns = (
        np.flatnonzero(frame[: y2 + 4].any(axis=1)),
        np.flatnonzero(frame[: y2 + 4].any(axis=0)),
    )
    assert abs(columns.min() - (x1 - 4)) <= 2 and abs(columns.max() - (x2 + 3)) <= 2
    assert rows.min() <= 4
    from highdicom.sr import srread

    (group,) = srread(tmp_path / "sr").content.get_planar_roi_measurement_groups()
    np.testing.assert_array_equal(group.roi.value[[0, 2]], [[x1, y1], [x2, y2]])

"""Two real radiographs and pydicom's CR files against highdicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from twinray.data.decoding.dicom.header import dicom_attributes
from twinray.data.decoding.dicom.pixels import load_dicom
from twinray.data.decoding.images import image_size, load_image

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
RSNA = FOLDER / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
INVERTED = FOLDER / "Fake_MONOHR1.dcm"
CR_FILES = sorted(
    (Path(pydicom.data.__file__).parent / "test_files/dicomdirtests/77654033").glob("CR*/*")
)

needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the shared DICOM files (../shared/data/dicom) are absent"
)


@needs_data
@pytest.mark.parametrize("path", [RSNA, INVERTED], ids=["MONOCHROME2", "MONOCHROME1"])
def test_shared_files_equal_highdicom(path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is the oracle")
    pixels = load_dicom(path, frontal_only=True)
    frame = highdicom.imread(path).get_frame(1, apply_voi_transform=None)
    assert pixels.array.shape == (1024, 1024)
    np.testing.assert_allclose(pixels.array, frame, atol=1)


@needs_data
def test_polarity_is_inverted_exactly_once() -> None:
    plain, inverted = load_image(RSNA), load_image(INVERTED)
    assert inverted.how == plain.how + ", inverted"
    np.testing.assert_array_equal(inverted.array, 255 - plain.array)


@needs_data
def test_never_flipped() -> None:
    np.testing.assert_allclose(
        load_dicom(RSNA).array, pydicom.dcmread(RSNA).pixel_array.astype(int), atol=1
    )


@needs_data
def test_attributes_of_a_shared_file() -> None:
    seen = dicom_attributes(RSNA)
    assert (seen.patient_id, seen.view_position) == ("16d7f894-55d7-4d95-8957-d18987f0e981", "PA")
    assert (seen.modality, seen.photometric, seen.frames, seen.lateral) == (
        "CR",
        "MONOCHROME2",
        1,
        False,
    )
    assert image_size(RSNA) == (1024, 1024)


@pytest.mark.parametrize("path", CR_FILES, ids=lambda path: path.parent.name)
def test_cr_files_of_pydicom_equal_highdicom(path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is the oracle")
    pixels = load_dicom(path)
    frame = highdicom.imread(path).get_frame(1, apply_voi_transform=None)
    assert pixels.how == "dicom rescale, window 1 LINEAR, inverted"
    np.testing.assert_allclose(pixels.array / 255, frame, atol=1 / 255)


def test_pydicom_ships_its_cr_files() -> None:
    assert len(CR_FILES) == 3

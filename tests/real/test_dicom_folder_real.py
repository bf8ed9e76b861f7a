"""Two real radiographs, and pydicom's own folder of odd and damaged files."""

from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest

from twinray.data.decoding.sandbox import map_in_workers
from twinray.data.readers.dicom_folder import read_dicom_folder

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the shared DICOM files (../shared/data/dicom) are absent"
)
def test_shared_files() -> None:
    found = read_dicom_folder(FOLDER, frontal_only=True)
    assert [s.source for s in found.samples] == [
        "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
        "Fake_MONOHR1.dcm",
    ]
    rsna = found.samples[0]
    assert rsna.patient == "16d7f894-55d7-4d95-8957-d18987f0e981"
    assert rsna.attributes["view_position"] == "PA"
    assert all(found.load(sample).array.shape == (1024, 1024) for sample in found.samples)
    assert not found.skipped


def test_every_file_of_pydicom_is_a_sample_set_aside_or_counted() -> None:
    found = read_dicom_folder(PYDICOM_FILES)
    assert len(found.samples) > 100
    assert len({sample.id for sample in found.samples}) == len(found.samples)
    assert all("\n" not in skipped.reason for skipped in found.skipped)
    assert not any(Path(sample.source).name == "DICOMDIR" for sample in found.samples)
    outcomes = list(map_in_workers(found.load, found.samples, workers=1, timeout_s=20))
    decoded = [
        sample.source for sample, outcome in zip(found.samples, outcomes, strict=True) if outcome.ok
    ]
    assert sum(source.startswith("dicomdirtests/77654033/CR") for source in decoded) == 3
    assert all("\n" not in outcome.error for outcome in outcomes if outcome.error is not None)

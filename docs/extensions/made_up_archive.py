"""A made-up hospital's export for the documentation: phantom images as DICOM files, a lateral view, a damaged file, a table of findings.

python made_up_archive.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.records import Collection, Sample

_ROOT = "1.2.826.0.1.3680043.10.1."


def main(folder: Path) -> None:
    """Write the files."""
    collection = phantom_collection(PhantomConfig(images=96, size=256, seed=3))
    for number, sample in enumerate(collection.samples):
        pixels = collection.load(sample).array
        path = folder / f"study{number // 4:03d}" / f"IM{number:04d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        view = "LL" if number == 5 else "PA"
        _file(pixels, number, str(sample.patient), view).save_as(path, enforce_file_format=True)
    damaged = folder / "study000" / "IM0003"
    damaged.write_bytes(damaged.read_bytes()[:-20_000])
    rows = [
        f"study{number // 4:03d}/IM{number:04d},{_findings(collection, sample)}\n"
        for number, sample in enumerate(collection.samples)
        if number >= len(collection.samples) // 2
    ]
    folder.with_name("findings.csv").write_text("".join(["path,label\n", *rows]), "utf-8")


def _findings(collection: Collection, sample: Sample) -> str:
    """Findings of an image as a reader would list them in a table."""
    assert sample.labels is not None
    there = zip(collection.label_classes, sample.labels, strict=True)
    return "|".join(name for name, present in there if present) or "no finding"


def _file(pixels: np.ndarray, number: int, patient: str, view: str) -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{_ROOT}3.{number + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{_ROOT}1.{number + 1}", f"{_ROOT}2.{number + 1}"
    one.PatientID, one.PatientName = f"MRN-{patient}", "Example^Person"
    one.PatientSex, one.PatientAge = ("F", "061Y") if number % 3 else ("M", "047Y")
    one.Modality, one.BodyPartExamined, one.ViewPosition = "DX", "CHEST", view
    one.Manufacturer = "Made Up Imaging"
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME1"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelIntensityRelationshipSign = 1
    one.PresentationLUTShape = "INVERSE"
    one.RescaleSlope, one.RescaleIntercept = 1, 0
    stored = 4095 - pixels.astype(np.uint16) * 16
    one.PixelData = np.ascontiguousarray(stored.astype("<u2")).tobytes()
    return one


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Options of ``twinray predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    GIVEN,
    MODEL,
    PLACE,
    RECORD,
    RISING,
    SPEED,
    above,
    at_least,
    between,
    goes_with,
    not_with,
    settle,
)
from twinray.inference.methods import OperatingPoint


@dataclass(frozen=True)
class PredictConfig:
    """Boxes or labels for image files and folders of them; a file that cannot be read is set aside and named."""

    run: Annotated[Path, DATA]
    """Folder of a finished detect or classify run."""
    paths: Annotated[tuple[Path, ...], DATA]
    """Image files (PNG, JPEG, TIFF, DICOM) and folders, which are searched whole."""
    out: Annotated[Path, PLACE] = Path("predictions")
    """New folder for predictions.csv, predictions.json, summary.json, overlays, DICOM objects and skipped.csv."""
    fp_per_image: Annotated[float | None, MODEL, above(0), not_with("score_threshold")] = None
    """Show the boxes that reach the thresholds, class by class, for so many false positives per
    image on validation (0.25 unless given). The thresholds are the model's own for 0.125, 0.25,
    0.5, 1, 2, 4 and 8. For other numbers they are computed from the predictions on val that the run
    kept."""
    score_threshold: Annotated[float | None, MODEL, between(0, 1)] = None
    """Show the boxes, or call the labels, that score at least this, 0..1, in place of the model's
    thresholds. The tables hold every score all the same."""
    operating_point: Annotated[OperatingPoint | None, MODEL, not_with("score_threshold")] = None
    """Of a classification run: which of the model's thresholds, chosen on validation, call a label
    present. The choices are that of Youden's index, of F1, or of a specificity of 0.90 or 0.95
    (youden unless given). Of three or more classes that exclude each other the highest score is
    called."""
    views: Annotated[Literal["all", "frontal"], MODEL] = "all"
    """Which views of DICOM images are predicted: all, or frontal, which leaves out those whose header
    says lateral or oblique. The header alone is asked; other files are taken as they are."""
    nested: Annotated[Literal["merge", "keep"], MODEL] = "merge"
    """Of boxes of one class that lie in one another (at least 80 % of the smaller one), pictures and
    DICOM objects show the best (merge), or each (keep). predictions.csv has them all, marked."""
    depth: Annotated[int | None, MODEL, between(8, 16, unit="bits")] = None
    """Bits of the detector, of files of more than 8 bits (default: as in the model's pack; files are refused where that had none)."""
    value_range: Annotated[tuple[float, float] | None, MODEL, RISING, not_with("depth")] = None
    """Stored values that become black and white, in place of --depth."""
    overlays: Annotated[bool, RECORD] = True
    """Draw an overlay PNG for every image with a detection run."""
    dicom_objects: Annotated[bool, RECORD] = True
    """Write a Secondary Capture, a Structured Report and, of grey images, a presentation state (GSPS) for
    every DICOM image with a detection run; needs the extra twinray[dicom]."""
    captures: Annotated[Literal["jpeg2000", "uncompressed"], RECORD] = "jpeg2000"
    """Pixels of Secondary Captures: JPEG 2000 without loss, about a fifth of the size, or
    uncompressed, for archives that take nothing else."""
    resume: Annotated[bool, RECORD] = False
    """Go on with predictions that were cut off, by the same options and of the same files."""
    overwrite: Annotated[bool, RECORD, not_with("resume")] = False
    """Begin again in a folder that predict wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    strict: Annotated[bool, RECORD] = False
    """Stop at the first file that cannot be read."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 16
    """Images at once."""
    workers: Annotated[int, SPEED, at_least(0)] = 1
    """Processes that decode."""
    timeout: Annotated[float, SPEED, above(0, "seconds")] = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: Annotated[int, SPEED, at_least(1, "MiB")] = 2048
    """Most memory that decoding one file may take, MiB."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    pseudonymise: Annotated[Path | None, DATA] = None
    """File that holds a secret key. Files and UIDs are replaced by their keyed hashes, as pack does it; no DICOM objects are
    written, which must name the patient."""
    pseudonyms: Annotated[Path | None, PLACE, goes_with(pseudonymise=GIVEN)] = None
    """New CSV file that leads from pseudonyms back to names, for the key's holder alone: outside --out."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the run is not the one that it wrote; summary.json says so."""

    def __post_init__(self) -> None:
        settle(self)

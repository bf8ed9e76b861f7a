"""Options of ``twinray look``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from twinray.checks import DATA, MODEL, PLACE, RECORD, SEED, SPEED, above, at_least, settle
from twinray.data.look.archive import CHECKS, WRONG

if TYPE_CHECKING:
    CheckName = str
else:
    CheckName = Literal[tuple(CHECKS)]  # the command line's choices are the table's rows


@dataclass(frozen=True)
class LookConfig:
    """What is wrong in an archive of images, before anything is trained on it: checks, contact sheets, and a list to exclude."""

    paths: Annotated[tuple[Path, ...], DATA]
    """Folders, which are searched whole, and image files (PNG, JPEG, TIFF, DICOM)."""
    out: Annotated[Path, PLACE] = Path("look")
    """New folder for look.csv, by_device_and_year.csv, summary.json, exclude.txt and the contact sheets."""
    exclude: Annotated[tuple[CheckName, ...], MODEL] = WRONG
    """Checks whose images are put on the list exclude.txt, which pack --exclude takes."""
    patient_regex: Annotated[str | None, MODEL] = None
    r"""Regular expression whose first non-empty group, in the file's path, is the patient, for files that are not DICOM."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the folds in which the archive's images are told from their wrong copies."""
    overwrite: Annotated[bool, RECORD] = False
    """Begin again in a folder that look wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    workers: Annotated[int, SPEED, at_least(0)] = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode (default: one a core)."""
    timeout: Annotated[float, SPEED, above(0, "seconds")] = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: Annotated[int, SPEED, at_least(64, "MiB")] = 2048
    """Most memory that decoding one file may take, MiB."""

    def __post_init__(self) -> None:
        settle(self)

"""Options of ``twinray report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from twinray.checks import DATA, PLACE, RECORD, above, settle


@dataclass(frozen=True)
class ReportConfig:
    """Write the report of a study, finished or not: one page, tables, figures.

    While the test images are sealed it shows the state of the runs and validation figures alone.
    """

    study: Annotated[Path, DATA]
    """Folder of the study."""
    out: Annotated[Path | None, PLACE] = None
    """Folder for the report; by default the folder report in that of the study."""
    heat_maps: Annotated[bool, RECORD] = True
    """Draw boxes and heat maps on test images, as many as the study's file asks for, and measure the maps' faithfulness; needs the
    packs, and takes seconds an image."""
    embeddings: Annotated[bool, RECORD] = True
    """Draw maps of the features that the arms start from, on at most 500 test images; needs packs and weights."""
    minutes_per_image: Annotated[float | None, RECORD, above(0)] = None
    """Minutes that labelling an image takes a reader; the gain in labelled patients is then told in reader hours too."""

    def __post_init__(self) -> None:
        settle(self)

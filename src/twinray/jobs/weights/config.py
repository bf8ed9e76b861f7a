"""Options of ``twinray weights``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from twinray.checks import DATA, MODEL, settle


@dataclass(frozen=True)
class WeightsConfig:
    """Public weights that --init takes by name, all facts of one of them, or what a weight file holds.

    Without anything the table is printed. Nothing is fetched and nothing is written.
    """

    target: Annotated[str, DATA] = ""
    """A name of the table for its facts with their sources; a weight file, a run's folder or NAME=FILE for its layout, what
    would load and what not."""
    arch: Annotated[str, MODEL] = ""
    """Architecture to read a file as; default the one of all known here that it fills."""

    def __post_init__(self) -> None:
        settle(self)

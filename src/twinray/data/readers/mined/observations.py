"""What readers of report-mined labels share: one row an image, frontal views, images on the disk, one collection.

The labels are the 14 observations of CheXpert's labeller (:mod:`twinray.data.readers.chexpert`), which MIMIC-CXR-JPG and
BRAX use as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twinray.data.decoding.bounded_file import one_line
from twinray.data.readers.chexpert import APART, LABELS, NO_FINDING
from twinray.data.readers.disk import FileLoader
from twinray.data.readers.label_readings import LabelReading, LabelTable
from twinray.errors import InputError
from twinray.records import Collection, Sample, Skipped, Task
from twinray.words import counted


@dataclass(slots=True)
class Found:
    """What the rows of a source gave.

    Attributes:
        samples: the images that are taken.
        skipped, notes: what was set aside, and what users must know.
        ids: ids of all rows.
        missing: sources that are not on the disk.
        other_views: number of images that are left out as no frontal views.
        unknown_views: number of images of an unknown view.
    """

    samples: list[Sample] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    other_views: int = 0
    unknown_views: int = 0

    def collection(
        self, name: str, root: Path, tables: str, classes: Sequence[str], task: Task = "multilabel"
    ) -> Collection:
        """The collection.

        Args:
            name: its name.
            root: folder that sources are relative to.
            tables: names of its tables, for messages.
            classes: names that labels index.
            task: ``multilabel`` or ``none``.

        Raises:
            InputError: no image is left.
        """
        if not self.samples:
            raise InputError(self._nothing_left(root, tables))
        return Collection(
            name=name,
            label_classes=tuple(classes),
            box_classes=(),
            task=task,
            samples=tuple(self.samples),
            load=FileLoader(root),
            skipped=tuple(self.skipped),
            notes=(*self.notes, *self._counts(tables)),
        )

    def _counts(self, tables: str) -> list[str]:
        notes = []
        if self.missing:
            notes.append(
                f"{len(self.missing):,} of the {len(self.ids):,} images in {tables} are not on this disk (first: "
                f"{one_line(self.missing[0], 120)}): left out"
            )
        if self.other_views:
            notes.append(
                f"{counted(self.other_views, 'image that is no frontal view was left', 'images that are no frontal views were left')} out (--views all keeps them)"
            )
        if self.unknown_views:
            notes.append(
                f"{counted(self.unknown_views, 'image has no view in the table and is kept: it may be lateral', 'images have no view in the table and are kept: laterals may be among them')}"
            )
        return notes

    def _nothing_left(self, root: Path, tables: str) -> str:
        if self.missing:
            return (
                f"none of the {len(self.missing):,} images that {tables} lists is in {root} "
                f"(first: {one_line(self.missing[0], 120)}); put the images beside the tables"
            )
        if self.other_views:
            return f"all {self.other_views:,} images in {root} are no frontal views; --views all keeps them"
        first = (
            f"; first set aside: {self.skipped[0].where}: {self.skipped[0].reason}"
            if self.skipped
            else ""
        )
        return f"expected rows in {tables} in {root}, found none that can be used{first}"


def observations(reading: LabelReading) -> LabelTable:
    """The table of CheXpert's 14 observations."""
    return LabelTable(LABELS, NO_FINDING, APART, reading)


def source_folder(root: Path, what: str) -> Path:
    """The folder that holds a source.

    Raises:
        InputError: it is not there, or is a file.
    """
    if not root.is_dir():
        came = "is a file; give its folder" if root.exists() else "is not there; check the path"
        raise InputError(f"expected the folder of {what}, {root} {came}")
    return root

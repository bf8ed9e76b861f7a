"""Tested models: whose run it is, and what it said of which images. Made by ``stored`` or by ``fresh``, measured by ``measure``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.evaluation.labels.cutoffs import LabelThresholds
from twinray.evaluation.matching import ImageId
from twinray.evaluation.measures import Kind
from twinray.records import Boxes, FloatArray
from twinray.runs.description import ModelDescription


@dataclass(frozen=True, eq=False)
class RunInfo:
    """What a finished run says of itself; no image and no weight is looked at.

    Attributes:
        path: its folder. name: what it is called beside the others.
        kind: kind of its model. task: task of a classifier's labels; empty for detectors.
        classes: names.
        description: its ``model.json``. metrics: its ``metrics.json``; empty where only the weights were kept.
        init: initial weights, as asked for.
        recipe: what distinguishes them from another arm's: the options of their pre-training but
            for its seed. It is ``init`` where the folder of the pre-training is not at hand.
        init_hash: SHA-256 of the file that they came from; empty for random and ImageNet weights and where not recorded.
        options: what else makes its model, without what tells an arm's runs apart.
        seed: seed of its training.
        fraction: share of the training images that it used, 0..1.
        fraction_seed: draw of these images; None where all were used, or where the run has several draws.
        packs: what tells the packs that it was trained on. pixels: the same of their images alone, whatever their splits.
        notes: its own.
        precision: what ``auto`` came to on the machine that trained it; empty where the option said it, or where it is not recorded.
    """

    path: Path
    name: str
    kind: Kind
    task: str
    classes: tuple[str, ...]
    description: ModelDescription
    metrics: Mapping[str, Any]
    init: str
    recipe: str
    init_hash: str
    options: Mapping[str, Any]
    seed: int
    fraction: float
    fraction_seed: int | None
    packs: str
    pixels: str
    notes: tuple[str, ...]
    precision: str = ""


@dataclass(frozen=True, eq=False)
class BoxData:
    """True and predicted boxes by image, and whose image it is."""

    truth: Mapping[ImageId, Boxes]
    found: Mapping[ImageId, Boxes]
    patients: Mapping[ImageId, str | None]


@dataclass(frozen=True, eq=False)
class LabelData:
    """(n, k) labels and scores of n images, whose images they are, thresholds that validation images gave, classes never learned."""

    images: tuple[str, ...]
    truth: FloatArray
    scores: FloatArray
    patients: tuple[str | None, ...]
    thresholds: LabelThresholds | None = None
    unlearned: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Tested:
    """One model of a run on its test images; a classify run of several label draws has a model a draw.

    Attributes:
        run: run that it belongs to.
        name: of the run, with the draw where the run has several.
        draw: draw of the labelled images; None where all were used.
        data: predictions and truth.
        seen: how many of the images training had seen, of how many; None for none.
        status: whether it is known what the initial weights saw (``recorded``, ``nothing``, ``unknown``).
        notes: of this evaluation; of the run's own those that are not among them.
        file: name of the predictions that were written.
        every_draw: flag, true where all labels were used, so that it is the model of every label draw.
    """

    run: RunInfo
    name: str
    draw: int | None
    data: BoxData | LabelData
    seen: tuple[int, int] | None
    status: str
    notes: tuple[str, ...]
    file: str = ""
    every_draw: bool = False

    @property
    def images(self) -> tuple[str, ...]:
        """What tells its fold."""
        ids = self.data.truth if isinstance(self.data, BoxData) else self.data.images
        return tuple(sorted(map(str, ids)))

    @property
    def patients(self) -> tuple[str | None, ...]:
        """Of its images; None where unknown."""
        own = self.data.patients
        return tuple(own.values()) if isinstance(own, Mapping) else own

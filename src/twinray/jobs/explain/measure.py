"""``twinray faithfulness``: do the heat maps of a split show the finding? Of detectors, or of classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from twinray.checks import (
    DATA,
    DEVICE,
    MODEL,
    PLACE,
    RECORD,
    SEED,
    SPEED,
    above,
    at_least,
    between,
    no_repeat,
    one_of,
    settle,
    zero_or,
)
from twinray.data.pack import Pack, open_pack
from twinray.explanation.class_maps import ClassMethod
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.heat_maps import Method
from twinray.inference.model import Model, check_classes, check_pack, load_model
from twinray.jobs.explain.faithfulness import FaithfulnessOptions, measure_faithfulness
from twinray.jobs.explain.localisation import LocalisationOptions, measure_localisation
from twinray.jobs.explain.rows import chosen_rows, rows_to_explain
from twinray.records import SPLITS

_COMPARED: tuple[Method, ...] = (
    "ablation",
    "ablation-last-stage",
    "occlusion",
    "grad-cam",
    "grad-cam++",
    "eigen-cam",
    "odam",
    "odam-smoothed",
)
"""Heat maps of detectors that are compared unless somebody names others."""


@dataclass(frozen=True)
class FaithfulnessConfig:
    """Measure whether heat maps point at the finding: of all correctly found boxes, or of all classes with true boxes."""

    run: Annotated[Path, DATA]
    """Folder of a finished detect or classify run."""
    data: Annotated[Path, DATA]
    """A pack with true boxes."""
    images: Annotated[tuple[str, ...], DATA] = ()
    """Ids of the pack's images; none: all images with boxes of --split."""
    out: Annotated[Path, PLACE] = Path("faithfulness")
    """New folder for figures, tables and a chart."""
    split: Annotated[str, MODEL, one_of(*SPLITS)] = "test"
    """Split to measure on."""
    count: Annotated[int | None, MODEL, at_least(1)] = None
    """Most images to measure on; all unless given."""
    least_score: Annotated[float, MODEL, between(0, 1)] = 0.05
    """Boxes of a detector that score less are left out, 0..1."""
    methods: Annotated[tuple[Method, ...], MODEL, no_repeat("methods", "odam")] = ()
    """Heat maps to compare, as explain --method names them; none given: all of the kind of run but ablation-rerun and eigen-cam-uncentred."""
    iou: Annotated[float, MODEL, above(0, up_to=1)] = 0.5
    """A box of a detector is found correctly if it hits a true box of its class at this IoU, 0..1."""
    curve_points: Annotated[int, MODEL, zero_or(at_least(2))] = 12
    """Points of the deletion and insertion curves; each costs two passes of the network a map of a box. 0: no curves."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the resamples and of the order of equal pixels."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 16
    """Versions of an image at once."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        settle(self)


def run(config: FaithfulnessConfig) -> list[Path]:
    """Measure, print a table, and write JSON, CSV tables and a chart.

    Returns:
        The paths of the files.

    Raises:
        InputError: a run or pack that cannot be used, a method that the run has no use for, nothing to measure.
        TwinrayError: the disk refuses a file.
    """
    pack = open_pack(config.data)
    model = load_model(config.run, config.device)
    if model.kind == "classifier":
        return _localise(config, model, pack)
    return _measure(config, model, pack)


def _measure(config: FaithfulnessConfig, model: Model, pack: Pack) -> list[Path]:
    check_pack(model, pack)
    check_classes(model, pack.info.box_classes, pack.path)
    rows = chosen_rows(
        pack, config.images, config.split, len(pack) if config.count is None else config.count
    )
    options = FaithfulnessOptions(
        methods=config.methods or _COMPARED,
        split=config.split,
        least_score=config.least_score,
        iou=config.iou,
        points=config.curve_points,
        bootstrap=config.bootstrap,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    return measure_faithfulness(model, pack, rows, options, config.out)


def _localise(config: FaithfulnessConfig, model: Model, pack: Pack) -> list[Path]:
    check_pack(model, pack)
    check_classes(model, pack.info.label_classes, pack.path)
    explainer = ClassExplainer(model)
    most = len(pack) if config.count is None else config.count
    rows = (
        chosen_rows(pack, config.images, config.split, most)
        if config.images
        else rows_to_explain(pack, config.split, most)
    )
    for method in config.methods:
        explainer.check_method(method)
    options = LocalisationOptions(
        methods=tuple(cast(ClassMethod, method) for method in config.methods),
        split=config.split,
        points=config.curve_points,
        bootstrap=config.bootstrap,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    return measure_localisation(explainer, pack, rows, options, config.out)

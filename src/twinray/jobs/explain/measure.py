"""``twinray faithfulness``: do the heat maps of a split show the finding? Of detectors, or of classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from twinray.data.pack import Pack, open_pack
from twinray.explanation.class_maps import ClassMethod
from twinray.files import frees_folders
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.heat_maps import usable
from twinray.inference.methods import Method
from twinray.inference.model import Model, check_classes, check_pack, load_model
from twinray.jobs.explain.config import FaithfulnessConfig
from twinray.jobs.explain.faithfulness import (
    FaithfulnessOptions,
    check_measurable,
    measure_faithfulness,
)
from twinray.jobs.explain.localisation import LocalisationOptions, measure_localisation
from twinray.jobs.explain.rows import chosen_rows, rows_to_explain
from twinray.runs.notes import metrics_of
from twinray.runs.output import Output, open_output, pack_fact, run_fact
from twinray.runs.sealed import check_open

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


@frees_folders
def run(config: FaithfulnessConfig) -> list[Path]:
    """Measure, print a table, and write JSON, CSV tables and a chart.

    Returns:
        The paths of the files.

    Raises:
        InputError: a run or pack that cannot be used, a method that the run has no use for, nothing to measure.
        TwinrayError: the disk refuses a file.
    """
    check_open([(config.run, metrics_of(config.run))], config.split)
    pack = open_pack(config.data, allow_edited=config.allow_edited)
    model = load_model(config.run, config.device, allow_edited=config.allow_edited)
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
        # of a detector that has a use for none of them the first is refused, with its reason
        methods=config.methods or usable(model.detector, _COMPARED) or _COMPARED,
        split=config.split,
        least_score=config.least_score,
        iou=config.iou,
        points=config.curve_points,
        bootstrap=config.bootstrap,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    check_measurable(model, options)
    with _open(config, model, pack) as output:
        if output.finished:
            output.say_finished()
            return [*output.files]
        return measure_faithfulness(model, pack, rows, options, output)


def _open(config: FaithfulnessConfig, model: Model, pack: Pack) -> Output:
    """The folder of the measurements."""
    inputs = {
        "run": run_fact(model.path),
        "data": pack_fact(pack.path),
        "images": [*config.images],
        "device": model.machine.device.type,
    }
    reads = [config.run, config.data]
    return open_output(config, "faithfulness", config.out, inputs, reads=reads)


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
    with _open(config, model, pack) as output:
        if output.finished:
            output.say_finished()
            return [*output.files]
        return measure_localisation(explainer, pack, rows, options, output)

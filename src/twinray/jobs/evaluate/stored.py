"""What finished runs say of themselves, and what they kept of their own test images. No weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinray.backbones.ledger import row_named
from twinray.checks import check_kept
from twinray.errors import InputError
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.labels.cutoffs import (
    LabelThresholds,
    choose_label_thresholds,
    label_thresholds_from_json,
)
from twinray.evaluation.record import read_split
from twinray.files import read_json
from twinray.jobs.evaluate.options import config_class, model_options, recipe, seeds
from twinray.jobs.evaluate.tested import BoxData, LabelData, RunInfo, Tested
from twinray.runs.checksums import check_files
from twinray.runs.description import MODEL, read_description
from twinray.runs.folder import CONFIG, INPUTS, METRICS, read_config
from twinray.runs.names import run_names
from twinray.runs.notes import metrics_of, own_notes
from twinray.runs.results import (
    OLD_PREDICTIONS,
    PREDICTIONS,
    UNLEARNED,
    LabelPredictions,
    read_label_predictions,
    split_figures,
)
from twinray.runs.sealed import kept_marks
from twinray.runs.seen import FILE as SEEN
from twinray.runs.seen import read_seen

_VERBS = {"detect", "classify"}


def read_runs(
    paths: Sequence[Path], *, kept_of: str | None = None, allow_edited: bool = False
) -> list[RunInfo]:
    """What the runs say of themselves, from files that are as the runs wrote them.

    Args:
        paths: their folders.
        kept_of: split whose kept predictions will be read too; None for none.
        allow_edited: flag to take files that were changed; the runs' notes then say so.

    Raises:
        InputError: some is no detect or classify run, or they are not of one kind and of the same classes.
    """
    runs = [
        _read(path, name, kept_of, allow_edited)
        for path, name in zip(paths, run_names(paths), strict=True)
    ]
    if len({run.kind for run in runs}) != 1:
        told = ", ".join(f"{run.path} ({run.kind})" for run in runs)
        raise InputError(f"expected runs of one kind, got {told}; evaluate them apart")
    first = runs[0]
    for run in runs:
        if (run.classes, run.task) != (first.classes, first.task):
            what = "box classes" if run.kind == "detector" else "label classes and one task"
            raise InputError(
                f"expected runs of the same {what}, got {list(first.classes)} {first.task} in {first.path} and "
                f"{list(run.classes)} {run.task} in {run.path}"
            )
    return runs


def _read(path: Path, name: str, kept_of: str | None, allow_edited: bool) -> RunInfo:
    config = read_config(path)
    verb = config.get("job", "detect")
    if not isinstance(verb, str) or verb not in _VERBS:
        raise InputError(
            f"expected detect or classify runs, {path} is a {verb} run; train a detector from it first"
        )
    check_kept(config_class(config), config, str(path / CONFIG))
    description, metrics = read_description(path / MODEL), metrics_of(path)
    seed, init = config.get("seed", 0), str(config.get("init", ""))
    fraction, draw = config.get("fraction", 1.0), config.get("fraction_seed", 0)
    for option, value in (("seed", seed), ("fraction_seed", draw)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(
                f"expected a whole number as {option} in {path / 'config.yaml'}, got {value!r}; was it edited?"
            )
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise InputError(
            f"expected a share as fraction in {path / 'config.yaml'}, got {fraction!r}; was it edited?"
        )
    read = [CONFIG, METRICS, MODEL, SEEN, *_kept_files(description.kind, kept_of)]
    verified = check_files(
        path, read, named=bool(metrics.get("checksums")), allow_edited=allow_edited
    )
    sums = [pack.checksums for pack in description.data]
    row = row_named(init)
    public = "random" if init == "random" else row.name if row is not None else ""
    return RunInfo(
        path=path,
        name=name,
        kind=description.kind,
        task="" if description.kind == "detector" else description.task,
        classes=description.classes,
        description=description,
        metrics=metrics,
        init=init,
        recipe=public or recipe(init),
        init_hash="" if public else description.init.sha256 or "",
        options=model_options(config, metrics),
        seed=seed,
        fraction=float(fraction),
        fraction_seed=seeds(config).get("fraction_seed"),
        packs=repr(sums) if sums else "",
        pixels=repr([s.get("images.npy") if isinstance(s, dict) else s for s in sums])
        if sums
        else "",
        notes=(*verified, *own_notes(metrics)),
        precision=_precision(path, config),
    )


def _precision(path: Path, config: Mapping[str, Any]) -> str:
    """What ``--precision auto`` came to; empty where it was given, is not recorded, or decides nothing, as of a probe."""
    if config.get("precision", "auto") != "auto" or config.get("policy") == "probe":
        return ""
    kept = read_json(path / INPUTS, "record of inputs") if (path / INPUTS).is_file() else {}
    found = kept.get("precision") if isinstance(kept, dict) else None
    return found if isinstance(found, str) else ""


def _kept_files(kind: str, split: str | None) -> list[str]:
    """What a run kept of a split, by name of file."""
    if split is None:
        return []
    if kind == "classifier":
        return [PREDICTIONS, OLD_PREDICTIONS]
    suffix = "" if split == "test" else f"_{split}"
    return [f"truth{suffix}.json", f"predictions{suffix}.json"]


def kept(runs: Sequence[RunInfo], split: str) -> list[Tested]:
    """What the runs kept of a split: one entry a detector, one a label draw of a classifier.

    Raises:
        InputError: a run did not finish, kept no predictions of the split, or was edited.
    """
    return [
        one for run in runs for one in (_boxes if run.kind == "detector" else _labels)(run, split)
    ]


def _boxes(run: RunInfo, split: str) -> list[Tested]:
    suffix = "" if split == "test" else f"_{split}"
    truth_file, predictions = (
        run.path / f"truth{suffix}.json",
        run.path / f"predictions{suffix}.json",
    )
    if not truth_file.is_file() or not predictions.is_file():
        raise InputError(
            f"{run.path} kept no predictions of split {split}; give --data to make them now"
        )
    truth = read_truth(truth_file)
    if truth.classes != run.classes:
        raise InputError(
            f"classes of {truth_file} ({list(truth.classes)}) are not those of the run; was it edited?"
        )
    data = BoxData(
        truth.boxes,
        read_predictions(predictions, truth.image_ids, len(run.classes)),
        truth.patients,
    )
    return [
        Tested(run, run.name, run.fraction_seed, data, _seen(run, split), _status(run), run.notes)
    ]


def _labels(run: RunInfo, split: str) -> list[Tested]:
    found = read_label_predictions(run.path, split)
    if found is None:
        raise InputError(
            f"{run.path} kept no predictions of split {split}; give --data to make them now"
        )
    if found.classes != run.classes:
        raise InputError(
            f"classes of the predictions in {run.path} ({list(found.classes)}) are not those of the run; was it edited?"
        )
    scores, notes, one_model = dict(found.scores), run.notes, False
    first, table = next(iter(scores.items()))
    if (
        run.fraction == 1
        and len(scores) > 1
        and all(np.array_equal(other, table) for other in scores.values())
    ):
        scores, one_model = {first: table}, True
        notes += ("all labels were used, so its label draws are one and the same model",)
    val = read_label_predictions(run.path, "val") if split == "test" else None
    several = len(scores) > 1
    return [
        Tested(
            run,
            f"{run.name}, draw {draw}" if several else run.name,
            draw,
            LabelData(
                found.images,
                found.truth,
                own,
                found.patients,
                _thresholds(run, draw, val),
                unlearned_of(run),
            ),
            _seen(run, split),
            _status(run),
            notes,
            every_draw=one_model,
        )
        for draw, own in scores.items()
    ]


def _thresholds(run: RunInfo, draw: int, val: LabelPredictions | None) -> LabelThresholds | None:
    """Those that the draw's own scores on val give; else those of the model, where it is the draw that the run kept."""
    if val is not None and draw in val.scores:
        return choose_label_thresholds(val.truth, val.scores[draw], run.classes)
    return thresholds_of(run) if draw == run.description.seed else None


def unlearned_of(run: RunInfo) -> tuple[str, ...]:
    """Classes that no training image of some label draw showed, as the run recorded them."""
    named = run.metrics.get(UNLEARNED) or ()
    return tuple(name for name in run.classes if name in named)


def thresholds_of(run: RunInfo) -> LabelThresholds | None:
    """Of decisions, as a classifier's description holds them; None where it holds none.

    Raises:
        InputError: they are of another form or of other classes.
    """
    raw = run.description.thresholds
    return (
        None if raw is None else label_thresholds_from_json(raw, run.classes, f"{run.path / MODEL}")
    )


def _seen(run: RunInfo, split: str) -> tuple[int, int] | None:
    if not run.metrics:
        raise InputError(
            f"{run.path} has no {METRICS}: a run that did not finish; continue it with --resume"
        )
    own = split_figures(run.path, run.metrics).get(split)
    if own is None and split == "test":  # of a run that was sealed when it ended
        return read_split(kept_marks(run.metrics), f"{run.path / METRICS}, sealed").seen
    return None if own is None else own.seen


def _status(run: RunInfo) -> str:
    return read_seen(run.path).before.status

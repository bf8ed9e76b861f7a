"""Models of finished runs on a pack: predictions are made now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twinray.classification.features.on_pack import Seen, label_scores
from twinray.data.pack import Pack
from twinray.detection.data import DetectionData, annotated
from twinray.detection.on_pack import detect_rows
from twinray.errors import InputError
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.files import write_json
from twinray.inference.model import Model, check_classes, check_pack, load_model
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.options import checksums_of
from twinray.jobs.evaluate.stored import thresholds_of, unlearned_of
from twinray.jobs.evaluate.tested import BoxData, LabelData, RunInfo, Tested
from twinray.records import FloatArray, IntArray
from twinray.runs.names import file_names
from twinray.runs.results import LabelPredictions, write_label_predictions
from twinray.runs.seen import MARK, Checked, check_unseen, read_seen


def load(
    config: EvaluateConfig, runs: Sequence[RunInfo], pack: Pack
) -> tuple[list[Model], list[tuple[str, Checked]]]:
    """The runs' models, checked against the pack, and what their training saw of its images.

    Raises:
        InputError: a model that does not fit the pack, or whose training saw some of the images.
    """
    models = [load_model(run.path, config.device, allow_edited=config.allow_edited) for run in runs]
    detectors = runs[0].kind == "detector"
    for model in models:
        check_pack(model, pack)
        check_classes(
            model, pack.info.box_classes if detectors else pack.info.label_classes, pack.path
        )
    rows = (
        annotated_part(config.split, pack).rows if detectors else labelled_rows(config.split, pack)
    )
    edited = pack.check_pixels(rows)
    checked = [check_seen(config, model, pack, rows) for model in models]
    return models, [
        (status, replace(found, notes=(*edited, *found.notes))) for status, found in checked
    ]


def predict(
    config: EvaluateConfig,
    runs: Sequence[RunInfo],
    models: Sequence[Model],
    checked: Sequence[tuple[str, Checked]],
    pack: Pack,
) -> list[Tested]:
    """Every model on the same images; with ``--out`` predictions and truth are written there."""
    if runs[0].kind == "detector":
        return _boxes(config, runs, models, checked, annotated_part(config.split, pack))
    return _labels(config, runs, models, checked, pack)


def check_seen(
    config: EvaluateConfig, model: Model, pack: Pack, rows: IntArray
) -> tuple[str, Checked]:
    """Whether it is known what the run's initial weights saw, and what of it is among the rows.

    On the pack that the run was made from, its own training images are what that pack's split says
    they are. Only the weights that it started from are asked for theirs.

    Raises:
        InputError: training saw some of the images.
    """
    seen = read_seen(model.path)
    own_pack = pack.info.checksums in checksums_of(model)
    if own_pack and config.split == "train":
        return seen.before.status, Checked()
    asked = seen.before if own_pack else seen
    found = check_unseen(
        asked, pack, {config.split: rows}, weights=model.path, allow=config.allow_seen
    )
    return seen.before.status, found


def annotated_part(split: str, pack: Pack) -> DetectionData:
    """The annotated images of a split.

    Raises:
        InputError: there are none.
    """
    part = annotated(pack, split)
    if len(part) == 0:
        raise InputError(
            f"no image of split {split} in {pack.path} is annotated with boxes; see --split"
        )
    return part


def labelled_rows(split: str, pack: Pack) -> IntArray:
    """Rows of a split that have a label.

    Raises:
        InputError: there are none.
    """
    rows = pack.where(split)
    rows = (
        rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)]
        if pack.labels.shape[1]
        else rows[:0]
    )
    if len(rows) == 0:
        raise InputError(f"no labelled image of split {split} in {pack.path}; see --split")
    return rows


def _boxes(
    config: EvaluateConfig,
    runs: Sequence[RunInfo],
    models: Sequence[Model],
    checked: Sequence[tuple[str, Checked]],
    part: DetectionData,
) -> list[Tested]:
    pack, truth = part.pack, part.truth_by_id()
    patients = dict(zip(truth, part.codes(), strict=True))
    ids, files = coco_image_ids(list(pack.ids[part.rows])), file_names([run.name for run in runs])
    tested = []
    for run, model, (status, seen) in zip(runs, models, checked, strict=True):
        found = detect_rows(
            model.detector,
            pack,
            part.rows,
            machine=model.machine,
            batch_size=config.batch_size,
            label=run.name,
        )
        file = ""
        if config.out is not None:
            file = f"predictions {files[run.name]}.json"
            write_predictions(config.out / file, found, len(model.classes), ids)
        data = BoxData(truth, found, patients)
        tested.append(
            Tested(
                run,
                run.name,
                run.fraction_seed,
                data,
                _mark(seen, config.split),
                status,
                _notes(run, seen),
                file,
            )
        )
    if config.out is not None:
        write_json(
            config.out / "truth.json",
            truth_as_coco(truth, runs[0].classes, image_ids=ids),
            "true boxes",
        )
    return tested


def _labels(
    config: EvaluateConfig,
    runs: Sequence[RunInfo],
    models: Sequence[Model],
    checked: Sequence[tuple[str, Checked]],
    pack: Pack,
) -> list[Tested]:
    rows = labelled_rows(config.split, pack)
    images = tuple(str(i) for i in pack.ids[rows])
    patients = tuple(pack.patient_codes[rows].tolist())
    truth, tested = pack.labels[rows], []
    for run, model, (status, seen) in zip(runs, models, checked, strict=True):
        scores = score_rows(model, pack, rows, config.batch_size, run.name)
        draw = model.description.seed
        notes = _notes(run, seen)
        if len(run.metrics.get("seeds") or ()) > 1:
            notes += (
                f"model of label draw {draw}, the one that a run of several draws keeps; without --data all are taken",
            )
        cuts = thresholds_of(run) if config.split == "test" else None
        data = LabelData(images, truth, scores, patients, cuts, unlearned_of(run))
        tested.append(Tested(run, run.name, draw, data, _mark(seen, config.split), status, notes))
    if config.out is not None:
        files = file_names([run.name for run in runs])
        for one in tested:
            assert isinstance(one.data, LabelData) and one.draw is not None
            by_draw = {one.draw: one.data.scores}
            part = LabelPredictions(config.split, images, patients, one.run.classes, truth, by_draw)
            write_label_predictions(
                config.out, [part], f"predictions {files[one.run.name]}.parquet"
            )
        tested = [replace(one, file=f"predictions {files[one.run.name]}.parquet") for one in tested]
    return tested


def _mark(seen: Checked, split: str) -> tuple[int, int] | None:
    own = seen.marks.get(split, {}).get(MARK)
    return None if own is None else (own["value"], own["n"])


def _notes(run: RunInfo, seen: Checked) -> tuple[str, ...]:
    """What evaluating it told of a run, then what the run itself has noted."""
    own = [note for note in run.notes if note not in seen.notes]
    return (*seen.notes, *(f"from its training: {note}" for note in own))


def score_rows(model: Model, pack: Pack, rows: IntArray, batch_size: int, label: str) -> FloatArray:
    """Probabilities (n, k) of the given rows of a checked pack, whole batches straight from its memory map."""
    return label_scores(
        model.network,
        pack.pixels,
        rows,
        len(model.classes),
        seen=Seen(model.size, model.description.normalisation),
        batch_size=batch_size,
        machine=model.machine,
        label=label,
    )

"""What a finished run keeps of its results: figures, scores of labelled images, boxes.

Datasheet of ``predictions.parquet``, which classify runs write: one row an image, split and label draw.

- ``image``: id in the pack. ``patient``: code of the patient (``records.patient_code``), null where unknown.
- ``split``: ``test`` or ``val``. ``seed``: int32 (int64 where one does not fit), the label draw whose model gave the scores.
- ``truth:<class>``: float32, 1 present, 0 absent, -1 uncertain, NaN not stated. ``score:<class>``: float64, 0..1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twinray.errors import InputError
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.record import FORMAT, SplitFigures, read_split
from twinray.evaluation.thresholds import Thresholds, choose_thresholds
from twinray.files import write_bytes
from twinray.records import SPLITS, FloatArray, patient_code
from twinray.runs.checksums import check_files
from twinray.runs.classes import difference
from twinray.runs.folder import METRICS, read_metrics

PREDICTIONS, OLD_PREDICTIONS = "predictions.parquet", "predictions.csv"
UNLEARNED = "never_learned"
"""Key in a classifier's ``metrics.json``: classes that no training image of some label draw showed."""
_TRUTH, _SCORE = "truth:", "score:"


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """Scores of one split's labelled images, of one or several label draws.

    Attributes:
        split: test or val.
        images: (n,) ids.
        patients: (n,) codes of patients; None where unknown.
        classes: (k,) names.
        truth: (n, k) 1 present, 0 absent, -1 uncertain, NaN not stated.
        scores: label draw -> (n, k) in 0..1.
    """

    split: str
    images: tuple[str, ...]
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]
    truth: FloatArray
    scores: Mapping[int, FloatArray]


def write_label_predictions(
    run: Path, parts: Sequence[LabelPredictions], name: str = PREDICTIONS
) -> None:
    """Write ``predictions.parquet`` into a run's folder, atomically.

    Args:
        run: folder.
        parts: one a split, all of the same classes.
        name: name of the file.

    Raises:
        TwinrayError: the disk refuses.
    """
    classes = parts[0].classes
    columns: dict[str, list[Any]] = {name: [] for name in ("image", "patient", "split", "seed")}
    truth, scores = [], []
    for part in parts:
        for seed, table in part.scores.items():
            n = len(part.images)
            columns["image"] += part.images
            columns["patient"] += part.patients
            columns["split"] += [part.split] * n
            columns["seed"] += [seed] * n
            truth.append(np.asarray(part.truth, dtype=np.float32))
            scores.append(np.asarray(table, dtype=np.float64))
    all_truth, all_scores = np.concatenate(truth), np.concatenate(scores)
    arrays: dict[str, pa.Array] = {
        "image": pa.array(columns["image"], pa.string()),
        "patient": pa.array(columns["patient"], pa.string()),
        "split": pa.array(columns["split"], pa.string()),
        "seed": pa.array(
            columns["seed"], pa.int32() if max(columns["seed"]) < 2**31 else pa.int64()
        ),
        **{
            _TRUTH + name: pa.array(all_truth[:, i], pa.float32()) for i, name in enumerate(classes)
        },
        **{
            _SCORE + name: pa.array(all_scores[:, i], pa.float64())
            for i, name in enumerate(classes)
        },
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink)
    write_bytes(run / name, sink.getbuffer(), "predictions")


def read_label_predictions(run: Path, split: str = "test") -> LabelPredictions | None:
    """What a classify run kept of a split; None where it kept nothing of it.

    Runs of the first versions have ``predictions.csv`` of the test images alone; it is read where there is no Parquet file.

    Raises:
        InputError: the file is damaged, or its label draws are not of the same images and labels.
    """
    if (run / PREDICTIONS).is_file():
        return _from_parquet(run / PREDICTIONS, split)
    if split == "test" and (run / OLD_PREDICTIONS).is_file():
        return _from_csv(run / OLD_PREDICTIONS)
    return None


def _from_parquet(path: Path, split: str) -> LabelPredictions | None:
    try:
        table = pq.read_table(path)
        names = table.column_names  # decoded here: they may be no UTF-8
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(
            f"could not read {path} as Parquet ({error!s:.80}); copy it again from the run"
        ) from error
    classes = tuple(name.removeprefix(_TRUTH) for name in names if name.startswith(_TRUTH))
    wanted = [
        "image",
        "patient",
        "split",
        "seed",
        *(_TRUTH + c for c in classes),
        *(_SCORE + c for c in classes),
    ]
    if not classes or (missing := [name for name in wanted if name not in names]):
        raise InputError(f"{path}: expected the columns image, patient, split, seed, and truth and score of each class; "
                         f"missing: {', '.join(missing) if classes else 'truth:CLASS'}; was it edited?")  # fmt: skip
    kinds = {name: table.column(name).type for name in wanted}
    odd = [
        *(name for name in wanted[:3] if not _is_text(kinds[name])),
        *(name for name in wanted[3:4] if not pa.types.is_integer(kinds[name])),
        *(name for name in wanted[4:] if not _is_number(kinds[name])),
    ]
    if odd:
        told = ", ".join(f"{name} ({kinds[name]})" for name in odd[:4])
        raise InputError(
            f"{path}: expected text as image, patient and split, whole numbers as seed, numbers as truth and scores; found "
            f"others: {told}; was it edited?"
        )
    try:
        columns: dict[str, list[Any]] = {
            name: table.column(name).to_pylist() for name in wanted[:4]
        }
        truth = np.stack(
            [np.asarray(table.column(_TRUTH + c), dtype=np.float64) for c in classes], axis=1
        )
        scores = np.stack(
            [np.asarray(table.column(_SCORE + c), dtype=np.float64) for c in classes], axis=1
        )
        kept = np.flatnonzero(np.array(columns["split"], dtype=object) == split)
        draws = np.array(columns["seed"], dtype=np.int64)[kept]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected numbers in truth, score and seed ({error!s:.80}); was it edited?"
        ) from error
    if len(kept) == 0:
        return None
    images = [str(columns["image"][i]) for i in kept]
    patients = [columns["patient"][i] for i in kept]
    return _by_draw(path, split, classes, draws, (images, patients, truth[kept], scores[kept]))


def _is_text(kind: pa.DataType) -> bool:
    """Text, or nothing but empty cells."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _from_csv(path: Path) -> LabelPredictions:
    """Of the first format: ``id, patient, seed, true CLASS ..., score CLASS ...``; patients in the clear."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        classes = tuple(name.removeprefix("true ") for name in head if name.startswith("true "))
        at = {name: i for i, name in enumerate(head)}
        truth = np.array(
            [[_number(row[at[f"true {c}"]]) for c in classes] for row in rows], dtype=np.float64
        )
        scores = np.array(
            [[float(row[at[f"score {c}"]]) for c in classes] for row in rows], dtype=np.float64
        )
        images, patients = (
            [row[at["id"]] for row in rows],
            [patient_code(row[at["patient"]]) for row in rows],
        )
        draws = np.array([int(row[at["seed"]]) for row in rows], dtype=np.int64)
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise InputError(f"{path}: expected predictions of a classify run, got something else ({error!s:.80}); "
                         "was it edited?") from error  # fmt: skip
    if not rows or not classes:
        raise InputError(f"{path}: expected at least one row and one class; was it edited?")
    return _by_draw(path, "test", classes, draws, (images, patients, truth, scores))


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def _by_draw(
    path: Path,
    split: str,
    classes: tuple[str, ...],
    draws: Any,
    rows: tuple[list[str], list[str | None], FloatArray, FloatArray],
) -> LabelPredictions:
    """Rows by label draw; every draw must be of the same images with the same labels."""
    images, patients, truth, scores = rows
    parts = {int(draw): np.flatnonzero(draws == draw) for draw in dict.fromkeys(draws.tolist())}
    first = next(iter(parts.values()))
    of_first = [images[i] for i in first]
    if len(set(of_first)) != len(of_first):
        raise InputError(
            f"{path}: expected every image once for each seed, found one twice; was it edited?"
        )
    tables = {}
    for draw, own in parts.items():
        same = [images[i] for i in own] == of_first
        if not same or not np.array_equal(truth[own], truth[first], equal_nan=True):
            raise InputError(
                f"{path}: expected the same images and labels for every seed, seed {draw} has others; was it edited?"
            )
        tables[draw] = scores[own]
    return LabelPredictions(
        split, tuple(of_first), tuple(patients[i] for i in first), classes, truth[first], tables
    )


def split_figures(run: Path, metrics: Mapping[str, Any] | None = None) -> dict[str, SplitFigures]:
    """A run's figures by split, of this format or of the first.

    Args:
        run: folder.
        metrics: its ``metrics.json`` where that was read already.

    Raises:
        InputError: the run did not finish, or its figures are of a later format or were edited.
    """
    metrics = read_metrics(run) if metrics is None else metrics
    version = metrics.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(
            f"{run / METRICS} is of format {version!r}, this version reads up to {FORMAT}; update twinray"
        )
    try:
        return {
            s: read_split(metrics[s], f"{run / METRICS}, {s}")
            for s in SPLITS
            if metrics.get(s) is not None
        }
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(
            f"expected figures as this version writes them in {run / METRICS}, got something else ({error!r:.80}); was it "
            "edited? Restore the file"
        ) from error


def thresholds_on_val(
    run: Path, box_classes: Sequence[str], fp_per_image: float, *, allow_edited: bool = False
) -> Thresholds | None:
    """Thresholds for one number of false positives per image, from what a run kept of val; None where it kept nothing.

    Raises:
        InputError: a number that is not finite and above 0, or files that are damaged, edited or of other classes.
    """
    truth_file, predictions_file = run / "truth_val.json", run / "predictions_val.json"
    if not (truth_file.is_file() and predictions_file.is_file()):
        return None
    check_files(run, [truth_file.name, predictions_file.name], allow_edited=allow_edited)
    truth = read_truth(truth_file)
    if what := difference(box_classes, truth.classes, "model", "file"):
        raise InputError(
            f"classes of {truth_file} and of the run's model differ ({what}); restore the file"
        )
    found = read_predictions(predictions_file, truth.image_ids, len(box_classes))
    return choose_thresholds(truth.boxes, found, box_classes, default=fp_per_image, rates=())

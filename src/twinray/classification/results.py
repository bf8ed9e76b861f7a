"""What a classifier run keeps of its results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from twinray.backbones.build import Backbone
from twinray.backbones.weights import Provenance
from twinray.classification.config import ClassifyConfig
from twinray.classification.draws import Fitted
from twinray.classification.model import Classifier
from twinray.data.pack import Pack
from twinray.evaluation.intervals import Resampling, mean_over_seeds
from twinray.evaluation.labels.cutoffs import LabelThresholds, choose_label_thresholds
from twinray.evaluation.labels.report import LabelReport, evaluate_labels
from twinray.evaluation.measures import ends
from twinray.evaluation.record import SEEDS, figure_as_json, figure_of
from twinray.files import write_json, write_text
from twinray.records import FloatArray, IntArray
from twinray.runs.folder import RunFolder, plain
from twinray.runs.results import UNLEARNED, LabelPredictions, write_label_predictions
from twinray.runs.sealed import KEY as SEALED
from twinray.runs.seen import Checked
from twinray.training.record import save_weights
from twinray.training.windows import windows_told

PREDICTIONS = "predictions.csv"
TUNE = "tune.json"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run before it is written down.

    Attributes:
        config: filled options. pack: the images. backbone: as its initial weights left it.
        provenance: where these came from. checked: what training had seen of val and test.
        val, test: rows of the pack's splits.
        fitted: the draws, in the order of their seeds.
        notes: facts that every reader of the figures must know.
        unlearned: classes that no training image of some draw shows.
        patients: number of labelled training patients of each draw; an image of an unknown patient counts as one.
    """

    config: ClassifyConfig
    pack: Pack
    backbone: Backbone
    provenance: Provenance
    checked: Checked
    val: IntArray
    test: IntArray
    fitted: Sequence[Fitted]
    notes: Sequence[str]
    unlearned: tuple[str, ...] = ()
    patients: tuple[int, ...] = ()


def mean_auc(report: LabelReport) -> float | None:
    """Mean AUC over classes; None where no class has positives and negatives."""
    value = report.metrics["auc"].value
    return None if np.isnan(value) else float(value)


def report_of(
    out: Outcome, rows: IntArray, scores: FloatArray, thresholds: LabelThresholds | None
) -> LabelReport:
    """Figures of some rows of the pack."""
    config, pack = out.config, out.pack
    return evaluate_labels(
        pack.labels[rows],
        scores,
        pack.info.label_classes,
        pack.info.task,
        pack.patients[rows].tolist(),
        thresholds=thresholds,
        resampling=Resampling(config.bootstrap, config.seed),
        unlearned=out.unlearned,
    )


def thresholds_of(pack: Pack, val: IntArray, one: Fitted) -> LabelThresholds | None:
    """A draw's decision thresholds: chosen on val, or on what was held out where the pack has no val images; None without."""
    if len(val) and one.val is not None:
        return choose_label_thresholds(pack.labels[val], one.val, pack.info.label_classes)
    if one.choosing is None:
        return None
    scored = ~np.isnan(one.choosing).any(axis=1)
    return choose_label_thresholds(
        pack.labels[one.choosing_rows[scored]],
        one.choosing[scored],
        pack.info.label_classes,
        chosen_on=one.choosing_words,
    )


def write_results(folder: RunFolder, out: Outcome) -> None:
    """Weights, predictions and figures of a finished run."""
    config, pack, fitted = out.config, out.pack, out.fitted
    cutoffs = [thresholds_of(pack, out.val, one) for one in fitted]
    reports = [
        report_of(out, out.test, one.test, own)
        for one, own in zip(fitted, cutoffs, strict=True)
        if not config.seal
    ]
    if config.policy == "probe" or len(fitted) > 1:  # else the log is the training's own
        folder.forget_after(0)
        for number, one in enumerate(fitted, start=1):
            folder.log(_line(number, one, reports[number - 1] if reports else None))
    save_weights(folder, "model", _state(out), plain(_description(out, cutoffs[0])))
    _write_predictions(
        folder.path / PREDICTIONS, pack, out.test, [one.test for one in fitted], config.seeds
    )
    parts = [_kept(pack, "test", out.test, {one.seed: one.test for one in fitted})]
    if len(out.val):
        parts.append(
            _kept(
                pack, "val", out.val, {one.seed: one.val for one in fitted if one.val is not None}
            )
        )
    write_label_predictions(folder.path, parts)
    tuned = {str(one.seed): one.record["tune"] for one in fitted if "tune" in one.record}
    if tuned:
        write_json(folder.path / TUNE, tuned, "rates of the parts")
    splits: dict[str, Any] = {}
    if reports:
        splits["test"] = _figures(reports, [one.test for one in fitted])
    if len(out.val):
        pairs = [
            (one.val, own) for one, own in zip(fitted, cutoffs, strict=True) if one.val is not None
        ]
        splits["val"] = _figures(
            [report_of(out, out.val, scores, own) for scores, own in pairs],
            [scores for scores, _ in pairs],
        )
    metrics: dict[str, Any] = {
        **{
            split: figures | dict(out.checked.marks.get(split, {}))
            for split, figures in splits.items()
        },
        **({SEALED: {"marks": dict(out.checked.marks.get("test", {}))}} if config.seal else {}),
        "seeds": list(config.seeds),
        "training_images": [one.training_images for one in fitted],
        "training_patients": list(out.patients),
        **({UNLEARNED: list(out.unlearned)} if out.unlearned else {}),
        **_records(out),
        "init": out.provenance.as_json(),
        "notes": [*pack.info.notes, *out.checked.notes, *out.notes],
    }
    folder.write_metrics(metrics)


def _records(out: Outcome) -> dict[str, Any]:
    """What the draws say of themselves: penalties of probes, epochs of the others."""
    if out.config.policy == "probe":
        return {
            "penalties": [list(one.head.penalties) for one in out.fitted if one.head is not None]
        }
    return {
        "best_epoch": [one.record["best_epoch"] for one in out.fitted],
        "selected_on": [one.record["selected_on"] for one in out.fitted],
        "seconds": sum(one.record["seconds"] for one in out.fitted),
        "policy": out.config.policy,
        "protocol": out.config.protocol,
    }


def _line(number: int, one: Fitted, report: LabelReport | None) -> dict[str, Any]:
    line: dict[str, Any] = {"step": number, "seed": one.seed, "images": one.training_images}
    if one.head is not None and "best_epoch" not in one.record:
        line["penalties"] = list(one.head.penalties)
    else:
        line["best_epoch"] = one.record["best_epoch"]
    return line if report is None else {**line, "test_auc": mean_auc(report)}


def _figures(reports: Sequence[LabelReport], scores: Sequence[FloatArray]) -> dict[str, Any]:
    """Of one draw its own, of several their means. Draws that are one and the same model have no luck to tell: one stands for all."""
    if len(reports) == 1:
        return reports[0].as_json()
    means = over_seeds(reports)
    if all(np.array_equal(scores[0], other) for other in scores):
        return {**means, **reports[0].as_json()}
    return means


def _state(out: Outcome) -> Mapping[str, Tensor]:
    """Weights of the first draw's classifier."""
    first = out.fitted[0]
    if first.head is None:
        return first.state
    classifier = Classifier(out.backbone, len(out.pack.info.label_classes), out.pack.info.task)
    classifier.set_head(first.head)
    return classifier.state_dict()


def _description(out: Outcome, thresholds: LabelThresholds | None) -> dict[str, Any]:
    config, pack, first = out.config, out.pack, out.fitted[0]
    description: dict[str, Any] = {
        "kind": "classifier",
        "arch": config.arch,
        "features": out.backbone.features,
        "classes": list(pack.info.label_classes),
        "task": pack.info.task,
        "normalisation": out.backbone.normalisation,
        "size": config.size,
        "pack": pack.info.made(),
        "trained_by": f"classify ({config.policy})",
        "seed": config.seeds[0],
        "data": [
            {
                "pack": str(config.data),
                "names": list(pack.info.names),
                "checksums": pack.info.checksums,
            }
        ],
        "init": out.provenance.as_json(),
        **windows_told(config),
    }
    if config.policy != "probe":
        names = ("layers", "norm", "rates", "tune")
        description |= {"policy": config.policy, "protocol": config.protocol}
        description |= {name: first.record[name] for name in names if name in first.record}
    if thresholds is not None:
        description["thresholds"] = thresholds.as_json()
    return description


def over_seeds(reports: Sequence[LabelReport]) -> dict[str, Any]:
    """Means over seeds with Student's t intervals, and under ``per_seed`` each seed with its own interval."""
    names = reports[0].metrics
    return {
        **{
            name: _over_seeds(name, [report.metrics[name].value for report in reports])
            for name in names
        },
        "per_class": {
            label: {
                name: _over_seeds(name, [report.per_class[label][name].value for report in reports])
                for name in figures
            }
            for label, figures in reports[0].per_class.items()
        },
        "per_seed": [json.loads(json.dumps(report.as_json())) for report in reports],
        "n_images": reports[0].n_images,
    }


def _over_seeds(name: str, values: Sequence[float]) -> dict[str, Any]:
    return figure_as_json(figure_of(mean_over_seeds(values, ends(name)), SEEDS))


def _kept(
    pack: Pack, split: str, rows: IntArray, scores: Mapping[int, FloatArray]
) -> LabelPredictions:
    return LabelPredictions(
        split,
        tuple(map(str, pack.ids[rows])),
        tuple(pack.patient_codes[rows].tolist()),
        pack.info.label_classes,
        pack.labels[rows],
        scores,
    )


def _write_predictions(
    path: Path, pack: Pack, rows: IntArray, scores: Sequence[FloatArray], seeds: Sequence[int]
) -> None:
    """One row an image and seed: id, patient, seed, the true labels, the scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = pack.info.label_classes
    writer.writerow(
        ["id", "patient", "seed", *(f"true {c}" for c in classes), *(f"score {c}" for c in classes)]
    )
    for seed, table in zip(seeds, scores, strict=True):
        for row, values in zip(rows, table, strict=True):
            true: list[Any] = ["" if np.isnan(v) else int(v) for v in pack.labels[row]]
            writer.writerow(
                [
                    pack.ids[row],
                    pack.patients[row] or "",
                    seed,
                    *true,
                    *(repr(float(v)) for v in values),
                ]
            )
    write_text(path, text.getvalue(), "predictions")

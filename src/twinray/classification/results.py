"""What a classifier run keeps of its results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import MEAN, STD
from twinray.backbones.weights import Provenance
from twinray.classification.config import ClassifyConfig
from twinray.classification.model import Classifier
from twinray.classification.probe import LinearProbe
from twinray.data.pack import Pack
from twinray.evaluation.intervals import mean_over_seeds
from twinray.evaluation.labels import LabelReport
from twinray.files import write_text
from twinray.records import FloatArray, IntArray
from twinray.runs.folder import RunFolder, plain
from twinray.runs.seen import Checked
from twinray.training.record import save_weights

PREDICTIONS = "predictions.csv"


def mean_auc(report: LabelReport) -> float | None:
    """Mean AUC over classes; None where no class has positives and negatives."""
    value = report.metrics["auc"].value
    return None if np.isnan(value) else float(value)


def write_results(
    config: ClassifyConfig,
    folder: RunFolder,
    pack: Pack,
    backbone: Backbone,
    provenance: Provenance,
    probes: Sequence[LinearProbe],
    test: IntArray,
    features: FloatArray,
    reports: Sequence[LabelReport],
    used: Sequence[int],
    checked: Checked,
) -> None:
    """Weights, predictions and figures of a finished run."""
    classifier = Classifier(backbone, len(pack.info.label_classes), pack.info.task)
    classifier.set_head(probes[0])
    description: dict[str, Any] = {
        "kind": "classifier",
        "arch": config.arch,
        "features": backbone.features,
        "classes": list(pack.info.label_classes),
        "task": pack.info.task,
        "normalisation": {"mean": MEAN, "std": STD, "scale": "0..1"},
        "size": config.size,
        "pack": {"size": pack.info.size, "fit": pack.info.fit, "channels": pack.info.channels},
        "trained_by": f"classify ({config.policy})",
        "seed": config.seeds[0],
        "data": [{"pack": str(config.data), "names": list(pack.info.names), "checksums": pack.info.checksums}],
        "init": provenance.as_json(),
    }
    save_weights(folder, "model", classifier.state_dict(), plain(description))
    _write_predictions(folder.path / PREDICTIONS, pack, test, [p.scores(features) for p in probes], config.seeds)
    test_figures: dict[str, Any] = reports[0].as_json()
    if len(reports) > 1:
        test_figures = over_seeds(reports)
    folder.write_metrics(
        {
            "test": test_figures | dict(checked.marks.get("test", {})),
            "seeds": list(config.seeds),
            "training_images": list(used),
            "penalties": [probe.penalty for probe in probes],
            "init": provenance.as_json(),
            "notes": [*pack.info.notes, *checked.notes],
        }
    )


def over_seeds(reports: Sequence[LabelReport]) -> dict[str, Any]:
    """Means over seeds with Student's t intervals, and under ``per_seed`` each seed with its own interval."""
    names = reports[0].metrics
    return {
        **{name: mean_over_seeds([report.metrics[name].value for report in reports]).as_json() for name in names},
        "per_class": {
            label: {
                name: mean_over_seeds([report.per_class[label][name].value for report in reports]).as_json()
                for name in figures
            }
            for label, figures in reports[0].per_class.items()
        },
        "per_seed": [json.loads(json.dumps(report.as_json())) for report in reports],
        "n_images": reports[0].n_images,
    }


def _write_predictions(
    path: Path, pack: Pack, rows: IntArray, scores: Sequence[FloatArray], seeds: Sequence[int]
) -> None:
    """One row an image and seed: id, patient, seed, the true labels, the scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = pack.info.label_classes
    writer.writerow(["id", "patient", "seed", *(f"true {c}" for c in classes), *(f"score {c}" for c in classes)])
    for seed, table in zip(seeds, scores, strict=True):
        for row, values in zip(rows, table, strict=True):
            true: list[Any] = ["" if np.isnan(v) else int(v) for v in pack.labels[row]]
            writer.writerow([pack.ids[row], pack.patients[row] or "", seed, *true, *(repr(float(v)) for v in values)])
    write_text(path, text.getvalue(), "predictions")

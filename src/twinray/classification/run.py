"""``twinray classify``: a pack with labels and initial weights -> a classifier and its figures."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.pixels import MEAN, STD
from twinray.backbones.weights import Provenance, described_arch, initialise, read_description, weight_file
from twinray.classification.config import ClassifyConfig
from twinray.classification.model import Classifier, extract_features
from twinray.classification.probe import LinearProbe, fit_probe
from twinray.data.pack import Pack, open_pack
from twinray.data.splitting.cut import label_fraction
from twinray.errors import InputError, check_numbers, check_options
from twinray.evaluation.intervals import mean_over_seeds
from twinray.evaluation.labels import LabelReport, evaluate_labels
from twinray.files import write_text
from twinray.records import FloatArray, IntArray
from twinray.runs.seen import Checked, check_unseen, footnote, inherited, write_seen
from twinray.training.device import choose_machine
from twinray.training.record import RunFolder, open_run, plain

PREDICTIONS = "predictions.csv"


def run(config: ClassifyConfig) -> RunFolder:
    """Fit on the training split's labelled fraction, once a seed; test on the test split, once.

    Raises:
        InputError: bad options, pack or initial weights; a split without usable labels; weights that were trained on
            images of the test split.
    """
    config = resolve(config)
    pack = open_pack(config.data)
    train, test = _labelled(pack, "train"), _labelled(pack, "test")
    backbone = build_backbone(config.arch, config.seed, config.size)
    provenance = initialise(backbone, config.init)
    seen = inherited(weight_file(config.init))
    checked = check_unseen(seen, pack, {"test": test}, weights=config.init, allow=config.allow_seen)
    provenance = dataclasses.replace(provenance, seen=seen.status)
    chosen = [
        train[label_fraction(pack.patients[train].tolist(), pack.labels[train], config.fraction, s)]
        for s in config.seeds
    ]
    for seed, rows in zip(config.seeds, chosen, strict=True):
        _check_classes(pack, rows, config.fraction, seed)
    machine = choose_machine(config.device, config.precision)
    inputs = {"pack": pack.info.checksums, "init": provenance.sha256, "precision": machine.precision}
    folder = open_run(config, out=config.out, resume=config.resume, job="classify", inputs=inputs)
    if folder.finished:
        return folder
    for note in checked.notes:
        print(f"note: {note}", file=sys.stderr)
    write_seen(folder.path, seen.plus(config.out, "classify", [(pack, np.unique(np.concatenate(chosen)))]))
    folder.forget_after(0)  # an interrupted probe is done again
    needed = np.unique(np.concatenate([*chosen, test]))  # at 1 % of the labels few images need features
    features = extract_features(
        backbone, pack.images, needed, size=config.size, batch_size=config.batch_size, machine=machine
    )
    test_features = features[np.searchsorted(needed, test)]
    probes, reports = [], []
    for seed, rows in zip(config.seeds, chosen, strict=True):
        probes.append(_fit(pack, rows, features[np.searchsorted(needed, rows)], config, seed))
        reports.append(_report(pack, test, probes[-1].scores(test_features), config))
        folder.log(
            {
                "step": len(reports),
                "seed": seed,
                "images": len(rows),
                "penalty": probes[-1].penalty,
                "test_auc": _auc(reports[-1]),
            }
        )
    used = [len(rows) for rows in chosen]
    _write(config, folder, pack, backbone, provenance, probes, test, test_features, reports, used, checked)
    return folder


def resolve(config: ClassifyConfig) -> ClassifyConfig:
    """Check the options; take architecture and size from the run that gave the weights.

    Raises:
        InputError: an option outside its range.
    """
    check_numbers(config)
    rules: Sequence[tuple[bool, str, object, str]] = (
        (0 < config.fraction <= 1, "--fraction", config.fraction, "above 0 and up to 1"),
        (
            bool(config.seeds) and len(set(config.seeds)) == len(config.seeds),
            "--seeds",
            config.seeds,
            "one or more different numbers",
        ),
        (config.size == 0 or config.size >= 32, "--size", config.size, "32 pixels or more"),
        (config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more"),
        (config.folds >= 2, "--folds", config.folds, "2 or more"),
        (config.bootstrap >= 0, "--bootstrap", config.bootstrap, "0 or more"),
    )
    check_options(rules)
    size = config.size or int(read_description(config.init).get("size", 0))
    if not size:
        raise InputError(
            f"expected --size with --init {config.init}: name the side that all arms of the comparison share"
        )
    return dataclasses.replace(config, arch=config.arch or described_arch(config.init), size=size)


def _labelled(pack: Pack, split: str) -> IntArray:
    if pack.info.task == "none":
        raise InputError(f"{pack.path} has no labels: pack a source with class folders, a label table or annotations")
    rows = pack.where(split)
    usable: IntArray = rows[((pack.labels[rows] == 0) | (pack.labels[rows] == 1)).any(axis=1)]
    if len(usable) == 0:
        raise InputError(f"no labelled image of split {split} in {pack.path}; pack again with a larger share for it")
    return usable


def _check_classes(pack: Pack, rows: IntArray, fraction: float, seed: int) -> None:
    """One class alone teaches nothing; said before any work is done."""
    labels = pack.labels[rows]
    if pack.info.task == "multiclass" and len(np.unique(labels.argmax(axis=1))) < 2:
        name = pack.info.label_classes[int(labels[0].argmax())]
        raise InputError(
            f"all {len(rows)} training images of --fraction {fraction} with seed {seed} are {name!r}; raise the fraction, or pack "
            "images of other classes too"
        )


def _fit(pack: Pack, rows: IntArray, features: FloatArray, config: ClassifyConfig, seed: int) -> LinearProbe:
    patients = np.unique(pack.groups[rows].astype(str), return_inverse=True)[1]
    return fit_probe(features, pack.labels[rows], patients, pack.info.task, folds=config.folds, seed=seed)


def _report(pack: Pack, rows: IntArray, scores: FloatArray, config: ClassifyConfig) -> LabelReport:
    return evaluate_labels(
        pack.labels[rows],
        scores,
        pack.info.label_classes,
        pack.info.task,
        pack.patients[rows].tolist(),
        bootstrap=config.bootstrap,
        seed=config.seed,
    )


def _auc(report: LabelReport) -> float | None:
    value = report.metrics["auc"].value
    return None if np.isnan(value) else float(value)


def _write(
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
    folder.save_weights("model", classifier.state_dict(), plain(description))
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


def summary(metrics: Mapping[str, Any]) -> str:
    """One line for the end of the command."""
    auc = metrics["test"]["auc"]
    interval = f" (95 % interval {auc['ci95'][0]:.4f} to {auc['ci95'][1]:.4f})" if auc["ci95"] else ""
    mark = f"; {note}" if (note := footnote(metrics["test"])) else ""
    return f"test AUC {auc['value']:.4f}{interval}{mark}" if auc["value"] is not None else "test AUC not defined"

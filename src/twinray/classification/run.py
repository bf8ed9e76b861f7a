"""``twinray classify``: a pack with labels and initial weights -> a classifier and its figures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from twinray.backbones.build import build_backbone
from twinray.backbones.weights import initialise, weight_file
from twinray.classification.config import ClassifyConfig
from twinray.classification.data import check_classes, labelled_rows
from twinray.classification.on_pack import extract_features
from twinray.classification.options import resolve
from twinray.classification.probe import LinearProbe, fit_probe
from twinray.classification.results import mean_auc, write_results
from twinray.data.pack import Pack, open_pack
from twinray.data.splitting.cut import label_fraction
from twinray.evaluation.labels import LabelReport, evaluate_labels
from twinray.records import FloatArray, IntArray
from twinray.runs.folder import RunFolder, open_run
from twinray.runs.seen import check_unseen, footnote, inherited, write_seen
from twinray.training.device import choose_machine
from twinray.training.record import environment


def run(config: ClassifyConfig) -> RunFolder:
    """Fit on the training split's labelled fraction, once a seed; test on the test split, once.

    Raises:
        InputError: bad options, pack or initial weights; a split without usable labels; weights that were trained on
            images of the test split.
    """
    config = resolve(config)
    pack = open_pack(config.data)
    train, test = labelled_rows(pack, "train"), labelled_rows(pack, "test")
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
        check_classes(pack, rows, config.fraction, seed)
    machine = choose_machine(config.device, config.precision)
    inputs = {"pack": pack.info.checksums, "init": provenance.sha256, "precision": machine.precision}
    folder = open_run(
        config, out=config.out, resume=config.resume, job="classify", environment=environment(), inputs=inputs
    )
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
                "test_auc": mean_auc(reports[-1]),
            }
        )
    used = [len(rows) for rows in chosen]
    write_results(config, folder, pack, backbone, provenance, probes, test, test_features, reports, used, checked)
    return folder


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


def summary(metrics: Mapping[str, Any]) -> str:
    """One line for the end of the command."""
    auc = metrics["test"]["auc"]
    interval = f" (95 % interval {auc['ci95'][0]:.4f} to {auc['ci95'][1]:.4f})" if auc["ci95"] else ""
    mark = f"; {note}" if (note := footnote(metrics["test"])) else ""
    return f"test AUC {auc['value']:.4f}{interval}{mark}" if auc["value"] is not None else "test AUC not defined"

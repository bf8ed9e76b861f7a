"""What finished runs kept of their own test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.evaluation.coco_json import CocoTruth, read_truth
from twinray.jobs.evaluate.options import model_options, recipe, seeds
from twinray.runs.description import MODEL, read_description
from twinray.runs.folder import read_config, read_metrics
from twinray.runs.notes import own_notes
from twinray.runs.seen import MARK, read_seen

_KNOWN_BY_NAME = {"random", "imagenet-v1", "imagenet-v2"}


@dataclass(frozen=True)
class ArmRun:
    """What a finished run left.

    Attributes:
        path: its folder.
        init: its initial weights, as asked for.
        recipe: what tells the arm's initial weights from another arm's: the options of their pre-training but for its seed,
            where the folder of it is at hand; else ``init``.
        init_hash: SHA-256 of the file that they came from; empty for random and ImageNet weights and where not recorded.
        options: what else makes its model; neither seeds nor data.
        seed, fraction_seed: which run it is; the latter None where all labelled images were used.
        truth: its test images and their true boxes.
        predictions: file of its boxes.
        packs: what tells the packs that it was trained on.
        mark: how many of its test images training had seen; None for none.
        seen: whether it is known what its initial weights saw (``recorded``, ``nothing``, ``unknown``).
        notes: its own.
        thresholds: those of its description, or None.
    """

    path: Path
    init: str
    recipe: str
    init_hash: str
    options: Mapping[str, Any]
    seed: int
    fraction_seed: object
    truth: CocoTruth
    predictions: Path
    packs: str
    mark: Mapping[str, Any] | None
    seen: str
    notes: tuple[str, ...]
    thresholds: object

    @property
    def images(self) -> tuple[str, ...]:
        """What tells its fold."""
        return tuple(sorted(map(str, self.truth.boxes)))


def read_run(path: Path, split: str) -> ArmRun:
    """Read what a run left of its test (or val) images; no image is looked at.

    Raises:
        InputError: it did not finish, is no detector, kept no predictions of the split, or was edited.
    """
    config, metrics = read_config(path), read_metrics(path)
    if (verb := config.get("job", "detect")) != "detect":
        advice = "give --data to evaluate classifiers" if verb == "classify" else "train a detector from it first"
        raise InputError(f"expected runs of detectors, {path} is a {verb} run; {advice}")
    description = read_description(path / MODEL)
    if description["kind"] != "detector":
        raise InputError(f"expected runs of detectors, {path} is none; give --data to evaluate classifiers")
    suffix = "" if split == "test" else f"_{split}"
    truth, predictions = path / f"truth{suffix}.json", path / f"predictions{suffix}.json"
    if not truth.is_file() or not predictions.is_file():
        raise InputError(f"{path} kept no predictions of split {split}; give --data to make them now")
    seed, figures = config.get("seed", 0), metrics.get(split)
    if not isinstance(seed, int):
        raise InputError(f"expected a whole number as seed in {path / 'config.yaml'}, got {seed!r}; was it edited?")
    init = str(config.get("init", ""))
    by_name = init in _KNOWN_BY_NAME
    return ArmRun(
        path=path,
        init=init,
        recipe=init if by_name else recipe(init),
        init_hash="" if by_name else _init_hash(description),
        options=model_options(config, metrics),
        seed=seed,
        fraction_seed=seeds(config).get("fraction_seed"),
        truth=read_truth(truth),
        predictions=predictions,
        packs=_checksums(description),
        mark=figures.get(MARK) if isinstance(figures, dict) else None,
        seen=read_seen(path).before.status,
        notes=own_notes(metrics),
        thresholds=description.get("thresholds"),
    )


def _init_hash(description: Mapping[str, Any]) -> str:
    init = description.get("init")
    return str(init.get("sha256") or "") if isinstance(init, dict) else ""


def _checksums(description: Mapping[str, Any]) -> str:
    """Of the packs that a run was trained on; empty where it does not say."""
    packs = description.get("data")
    return repr([p.get("checksums") for p in packs if isinstance(p, dict)]) if isinstance(packs, list) else ""

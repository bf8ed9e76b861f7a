"""Finished detector runs and the arms that they make: runs that differ only in their seed, that of their pre-training, and in
the fold of their pack."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.evaluation.coco_json import CocoTruth, read_truth
from twinray.jobs.evaluate.options import options_of
from twinray.jobs.run_notes import own_notes
from twinray.runs.description import MODEL, read_description
from twinray.runs.seen import MARK, read_seen
from twinray.training.record import MAY_CHANGE, read_config, read_metrics

_WHICH_RUN = {"init", "seed", "fraction_seed", "data"}
"""Options that tell an arm's runs apart, and the initial weights that name it."""
_MOST_NAMED = 3
"""Options that a name can hold and stay readable."""
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
        options: what else makes its model, without ``_WHICH_RUN``.
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


@dataclass(frozen=True)
class Arm:
    """Runs over seeds and folds.

    Attributes:
        runs: in the order given.
        differing: those of its options in which some arms differ.
        letter: what the arm's name says instead of these where they are many; else empty.
    """

    runs: tuple[ArmRun, ...]
    differing: Mapping[str, Any]
    letter: str


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
    return ArmRun(
        path=path,
        init=init,
        recipe=_recipe(init),
        init_hash="" if init in _KNOWN_BY_NAME else _init_hash(description),
        options={k: v for k, v in options_of(config, metrics).items() if k not in _WHICH_RUN},
        seed=seed,
        fraction_seed=config.get("fraction_seed", 0) if config.get("fraction", 1.0) != 1 else None,
        truth=read_truth(truth),
        predictions=predictions,
        packs=_checksums(description),
        mark=figures.get(MARK) if isinstance(figures, dict) else None,
        seen=read_seen(path).before.status,
        notes=own_notes(metrics),
        thresholds=description.get("thresholds"),
    )


def _recipe(init: str) -> str:
    """Pre-trainings that differ in nothing but their seed are one arm's: its luck is theirs too."""
    if init in _KNOWN_BY_NAME or not (Path(init) / "config.yaml").is_file():
        return init
    try:
        config = read_config(Path(init))
    except InputError:
        return init
    if config.get("job") != "pretrain":
        return init
    return repr(sorted((k, v) for k, v in config.items() if k not in MAY_CHANGE | {"seed"}))


def _init_hash(description: Mapping[str, Any]) -> str:
    init = description.get("init")
    return str(init.get("sha256") or "") if isinstance(init, dict) else ""


def _checksums(description: Mapping[str, Any]) -> str:
    """Of the packs that a run was trained on; empty where it does not say."""
    packs = description.get("data")
    return repr([p.get("checksums") for p in packs if isinstance(p, dict)]) if isinstance(packs, list) else ""


def arms_of(runs: Sequence[ArmRun]) -> dict[str, Arm]:
    """Runs by arm, in the order of their first run; named by their initial weights and by what else differs.

    Where more options differ than a name can hold, each set of them has a letter.
    """
    keys: dict[str, list[ArmRun]] = {}
    for run in runs:
        keys.setdefault(repr((run.recipe, sorted(run.options.items()))), []).append(run)
    members = list(keys.values())
    options = dict.fromkeys(name for arm in members for name in arm[0].options)
    differing = [name for name in options if len({repr(arm[0].options.get(name)) for arm in members}) > 1]
    names = _names(members)
    letters = _letters()
    sets: dict[str, str] = {}
    named: dict[str, Arm] = {}
    for arm in members:
        own = {option: arm[0].options.get(option) for option in differing}
        letter = ""
        if len(differing) > _MOST_NAMED:
            if repr(own) not in sets:
                sets[repr(own)] = next(letters)
            letter = sets[repr(own)]
        also = f"options {letter}" if letter else ", ".join(f"{option} {value}" for option, value in own.items())
        name = ", ".join(part for part in (names[arm[0].recipe], also) if part)
        named[name] = Arm(tuple(arm), own, letter)
    return named


def _names(members: Sequence[Sequence[ArmRun]]) -> dict[str, str]:
    """Of each recipe: the name of its folder, or what the names of its folders begin with; paths where these are alike."""
    paths: dict[str, list[str]] = {}
    for run in itertools.chain.from_iterable(members):
        paths.setdefault(run.recipe, []).append(run.init)
    short = {recipe: _common([Path(init).name for init in own]) for recipe, own in paths.items()}
    if len(set(short.values())) == len(short):
        return short
    return {recipe: _common(own) for recipe, own in paths.items()}


def _common(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike).rstrip("-_./").removesuffix("seed").rstrip("-_./") or names[0]


def _letters() -> itertools.chain[str]:
    """A to Z, then numbers."""
    return itertools.chain(string.ascii_uppercase, map(str, itertools.count(27)))

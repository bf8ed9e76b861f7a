"""Finished detector runs and the arms that they make: runs that differ only in their seed, that of their pre-training, and in
the fold of their pack."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.jobs.evaluate.stored import ArmRun

_MOST_NAMED = 3
"""Options that a name can hold and stay readable."""


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

"""Arms: runs that are alike but for chance. Which tested model belongs to which arm, and how an arm's runs are told apart."""

from __future__ import annotations

import itertools
import string
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinray.errors import InputError
from twinray.evaluation.folds import Luck
from twinray.jobs.evaluate.tested import RunInfo, Tested

_MOST_NAMED = 3
"""Options that a name can hold and stay readable."""

PRETRAININGS, TRAINING_SEEDS, DRAWS, PACKS = (
    "pre-trainings",
    "training seeds",
    "label draws",
    "training sets",
)


@dataclass(frozen=True, eq=False)
class Arm:
    """Tested models over seeds and folds.

    Attributes:
        tested: in the order given.
        differing: those of its options in which some arms differ.
        letter: what the arm's name says instead of these where they are many; else empty.
        family: name of the arm whatever its share of the training images.
        fraction: share of the training images that it used, 0..1.
    """

    tested: tuple[Tested, ...]
    differing: Mapping[str, Any]
    letter: str
    family: str
    fraction: float


@dataclass(frozen=True)
class Place:
    """Where a tested model stands in its arm: number of its test images, and what it is paired by with other arms' models."""

    fold: int
    seed: Hashable


def arms_of(
    tested: Sequence[Tested], *, apart: bool = False, packs_differ: bool = False
) -> dict[str, Arm]:
    """Tested models by arm, in the order of their first; named by their initial weights and by what else differs.

    Where more options differ than a name can hold, each set of them has a letter. Where every arm is one run, arms have the
    names of their runs.

    Args:
        tested: models.
        apart: every run is an arm of its own.
        packs_differ: models that were trained on other images are of other arms, though all were tested on the same.
    """
    keys: dict[str, list[Tested]] = {}
    for one in tested:
        run = one.run
        who: list[object] = [run.recipe, sorted(run.options.items(), key=str)]
        keys.setdefault(
            repr([*who, run.pixels if packs_differ else "", str(run.path) if apart else ""]), []
        ).append(one)
    members = list(keys.values())
    firsts = [arm[0].run for arm in members]
    options = dict.fromkeys(name for run in firsts for name in run.options)
    differing = [
        name for name in options if len({repr(run.options.get(name)) for run in firsts}) > 1
    ]
    owns = [{option: run.options.get(option) for option in differing} for run in firsts]
    if packs_differ and len({run.pixels for run in firsts}) > 1:
        owns = [own | {"data": _data_of(run)} for own, run in zip(owns, firsts, strict=True)]
    single = all(len({one.run.path for one in arm}) == 1 for arm in members)
    names = [run.name for run in firsts] if single else None
    letters = _Letters(owns)
    shown = names or _named([_names(members)[run.recipe] for run in firsts], owns, letters)
    families = _families(members, owns, shown)
    found: dict[str, Arm] = {}
    for name, arm, own, family in zip(_different(shown), members, owns, families, strict=True):
        found[name] = Arm(
            tuple(arm), own, "" if names else letters.of(own), family, arm[0].run.fraction
        )
    return found


def _data_of(run: RunInfo) -> str:
    return " + ".join(pack.pack for pack in run.description.data) or "?"


def _named(
    recipes: Sequence[str], owns: Sequence[Mapping[str, Any]], letters: _Letters
) -> list[str]:
    also = [letters.words(own) or ", ".join(f"{k} {v}" for k, v in own.items()) for own in owns]
    return [
        ", ".join(part for part in (recipe, more) if part)
        for recipe, more in zip(recipes, also, strict=True)
    ]


def _families(
    members: Sequence[Sequence[Tested]], owns: Sequence[Mapping[str, Any]], shown: Sequence[str]
) -> list[str]:
    """Name of each arm without its share of labels; the arm's own name where shares do not differ."""
    shares = [arm[0].run.fraction for arm in members]
    if len(set(shares)) == 1:
        return list(shown)
    with_share = _options_of_a_share(shares, owns)
    rest = [{k: v for k, v in own.items() if k not in with_share} for own in owns]
    recipes = [arm[0].run.recipe for arm in members]
    keys = [repr((recipe, own)) for recipe, own in zip(recipes, rest, strict=True)]
    if len(set(keys)) == len(keys):
        return list(shown)  # no two arms differ in their share alone
    names = _names(members)
    by_key = dict(
        zip(keys, _named([names[recipe] for recipe in recipes], rest, _Letters(rest)), strict=True)
    )
    return [by_key[key] for key in keys]


def _options_of_a_share(shares: Sequence[float], owns: Sequence[Mapping[str, Any]]) -> set[str]:
    """The share of labels and the options that go with it: more epochs where labels are few, the same for every arm.

    They are no part of an arm's family. Otherwise arms of all the labels would be compared with one of a hundredth.
    """
    if len(set(shares)) == len(shares):  # one arm a share: nothing says what goes with what
        return {"fraction"}
    names = {name for own in owns for name in own} - {"policy"}
    return {"fraction"} | {
        name
        for name in names
        if len({(share, repr(own.get(name))) for share, own in zip(shares, owns, strict=True)})
        == len(set(shares))
    }


class _Letters:
    """A letter for each set of options, where these are too many for a name.

    Policies of training differ in many options at once: where the policy (and the share of labels) tells the sets
    apart, it is the name.
    """

    def __init__(self, owns: Sequence[Mapping[str, Any]]) -> None:
        many = any(len(own) > _MOST_NAMED for own in owns)
        sets = {repr(own): own for own in owns}
        policies = [_policy(own) for own in sets.values()]
        self._by_policy = many and all(policies) and len(set(policies)) == len(sets)
        letters = itertools.chain(string.ascii_uppercase, map(str, itertools.count(27)))
        each = policies if self._by_policy else letters
        self._letters = dict(zip(sets, each, strict=False)) if many else {}

    def of(self, own: Mapping[str, Any]) -> str:
        """Empty where options are named."""
        return self._letters.get(repr(own), "")

    def words(self, own: Mapping[str, Any]) -> str:
        """What a name says of them; empty where options are named."""
        letter = self.of(own)
        return letter if self._by_policy or not letter else f"options {letter}"


def _policy(own: Mapping[str, Any]) -> str:
    """The policy, and the share of labels where it differs; empty where no policy differs."""
    if not own.get("policy"):
        return ""
    return ", ".join(
        [str(own["policy"]), *([f"fraction {own['fraction']}"] if "fraction" in own else [])]
    )


def _names(members: Sequence[Sequence[Tested]]) -> dict[str, str]:
    """Of each recipe: the name of its folder, or what the names of its folders begin with; paths where these are alike."""
    paths: dict[str, list[str]] = {}
    for one in itertools.chain.from_iterable(members):
        paths.setdefault(one.run.recipe, []).append(one.run.init)
    short = {recipe: _common([Path(init).name for init in own]) for recipe, own in paths.items()}
    if len(set(short.values())) == len(short):
        return short
    return {recipe: _common(own) for recipe, own in paths.items()}


def _common(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return (
        "".join(letters[0] for letters in alike).rstrip("-_./").removesuffix("seed").rstrip("-_./")
        or names[0]
    )


def _different(names: Sequence[str]) -> list[str]:
    """Where two arms would have one name, a number behind it."""
    found: list[str] = []
    for name in names:
        chosen, number = name, 1
        while chosen in found:
            number += 1
            chosen = f"{name} ({number})"
        found.append(chosen)
    return found


def baselines(arms: Mapping[str, Arm]) -> dict[str, str]:
    """Arm -> the arm that it is compared with: the first, or where arms are curves over shares of labels the first of its share.

    Where no two arms are of one family, since other options differ too, but several have one share, the first
    of that share; an arm that is alone in its share is compared with the first of all.
    """
    first = next(iter(arms))
    family = arms[first].family
    curves = len({arm.family for arm in arms.values()}) < len(arms)
    of_share = {arm.fraction: name for name, arm in arms.items() if arm.family == family}
    peers: dict[float, list[str]] = {}
    for name, arm in arms.items():
        peers.setdefault(arm.fraction, []).append(name)
    found: dict[str, str] = {}
    for name, arm in arms.items():
        own = peers[arm.fraction]
        base = of_share.get(arm.fraction, "") if curves else own[0] if len(own) > 1 else first
        if base and base != name and not (curves and arm.family == family):
            found[name] = base
    return found


def places(
    arms: Mapping[str, Arm], folds: Mapping[tuple[str, ...], int]
) -> tuple[dict[str, list[Place]], dict[str, Luck]]:
    """Fold and pairing of every tested model, and how the models of an arm differ by chance.

    Models of two arms are a pair where they have the same training seed. Where seeds repeat inside
    an arm, a pair has the same label draw instead. Where draws repeat too, a pair has both the
    same. The last resort adds the same place among the arm's training sets and then among its
    pre-trainings.

    Args:
        arms: arms that are compared with each other.
        folds: test images -> their number.

    Returns:
        arm -> places in the order of its models, and arm -> luck by the seed of a place.

    Raises:
        InputError: two models of one arm that nothing tells apart.
    """
    lucks = {name: [_luck(one, arm) for one in arm.tested] for name, arm in arms.items()}
    kinds: tuple[tuple[str, ...], ...] = ((TRAINING_SEEDS,), (DRAWS,), (TRAINING_SEEDS, DRAWS), (PACKS, TRAINING_SEEDS, DRAWS),
             (PRETRAININGS, PACKS, TRAINING_SEEDS, DRAWS))  # fmt: skip
    chosen = next(
        (k for k in kinds if all(_tells(k, lucks[n], arm, folds) for n, arm in arms.items())), None
    )
    if chosen is None:
        for name, arm in arms.items():
            found: dict[object, Tested] = {}
            for one, luck in zip(arm.tested, lucks[name], strict=True):
                key = (folds[one.images], *luck.values())
                if (twin := found.setdefault(key, one)) is not one:
                    raise InputError(
                        f"arm {name} has several runs of fold {folds[one.images]}, seed {one.run.seed}: {twin.run.path} and "
                        f"{one.run.path}; leave all but one out, or give --apart"
                    )
        raise InputError("runs of the arms cannot be paired by seed; give --apart")
    one_each = all(len(arm.tested) == 1 for arm in arms.values())
    if one_each and len({(own[0][TRAINING_SEEDS], own[0][DRAWS]) for own in lucks.values()}) > 1:
        chosen = ()  # arms of one run each are a pair whatever their seeds, and a note says so
    seeds = {name: [_seed(chosen, luck) for luck in own] for name, own in lucks.items()}
    found_places = {
        name: [
            Place(folds[one.images], seed)
            for one, seed in zip(arm.tested, seeds[name], strict=True)
        ]
        for name, arm in arms.items()
    }
    by_seed: dict[str, Luck] = {
        name: {
            kind: {s: luck[kind] for s, luck in zip(seeds[name], own, strict=True)}
            for kind in own[0]
        }
        for name, own in lucks.items()
    }
    return found_places, by_seed


def _luck(one: Tested, arm: Arm) -> dict[str, Hashable]:
    """Levels by kind; pre-trainings and training sets by their place among the arm's own, to be paired with other arms'."""
    starts = list(dict.fromkeys((other.run.init_hash or other.run.init) for other in arm.tested))
    packs = list(
        dict.fromkeys(other.run.packs for other in arm.tested if other.images == one.images)
    )
    return {
        PRETRAININGS: starts.index(one.run.init_hash or one.run.init),
        PACKS: packs.index(one.run.packs),
        TRAINING_SEEDS: one.run.seed,
        DRAWS: one.draw,
    }


def _tells(
    kinds: Sequence[str],
    lucks: Sequence[Mapping[str, Hashable]],
    arm: Arm,
    folds: Mapping[tuple[str, ...], int],
) -> bool:
    keys = [
        (folds[one.images], *(luck[k] for k in kinds))
        for one, luck in zip(arm.tested, lucks, strict=True)
    ]
    return len(set(keys)) == len(keys)


def _seed(kinds: Sequence[str], luck: Mapping[str, Hashable]) -> Hashable:
    """One number where one is enough, else a text."""
    levels = [luck[kind] for kind in kinds]
    if len(levels) <= 1:
        return levels[0] if levels else 0
    short = {
        PRETRAININGS: "pre-training",
        PACKS: "training set",
        TRAINING_SEEDS: "seed",
        DRAWS: "draw",
    }
    return ", ".join(f"{short[k]} {v}" for k, v in zip(kinds, levels, strict=True) if v is not None)

"""Which runs are compared where arms were not run equally often: all on the same images, pairs on what both have.

An arm's own figures are means over all of its runs on the folds that every arm has. A difference of two arms is over
the seeds (or label draws) that both have. Both are said with counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from twinray.errors import InputError
from twinray.evaluation.folds import Luck
from twinray.jobs.evaluate.arms import DRAWS, PRETRAININGS, Arm, Place
from twinray.report.numbers import count


@dataclass(frozen=True, eq=False)
class Placed:
    """Arms that are compared with each other, and where their runs stand.

    Attributes:
        arms: by name.
        where: arm -> places in the order of its models.
        luck: arm -> how its models differ by chance, by the seed of a place.
    """

    arms: Mapping[str, Arm]
    where: Mapping[str, Sequence[Place]]
    luck: Mapping[str, Luck]

    @property
    def alike(self) -> bool:
        """Whether all arms have the same folds and seeds."""
        return len({frozenset((p.fold, p.seed) for p in own) for own in self.where.values()}) == 1

    def seeds(self, name: str) -> list[Hashable]:
        """Of an arm, each once."""
        return list(dict.fromkeys(place.seed for place in self.where[name]))

    def of(self, names: Sequence[str], seeds: Sequence[Hashable] | None = None) -> Placed:
        """Some arms, on some seeds."""
        some = {name: self._on(name, seeds) for name in names}
        return Placed(
            {name: replace(self.arms[name], tested=tuple(self.arms[name].tested[i] for i in rows)) for name, rows in some.items()},
            {name: [self.where[name][i] for i in rows] for name, rows in some.items()},
            {name: self.luck[name] for name in names},
        )  # fmt: skip

    def _on(self, name: str, seeds: Sequence[Hashable] | None) -> list[int]:
        return [
            i for i, place in enumerate(self.where[name]) if seeds is None or place.seed in seeds
        ]

    def pair(self, base: str, name: str) -> Placed:
        """Two arms on the seeds that both have.

        An arm whose one model is that of every label draw, since it used all labels, has them all. An arm without
        several pre-trainings, such as one of random weights, stands beside each pre-training of the other.

        Raises:
            InputError: they share none.
        """
        for one, partner in ((base, name), (name, base)):
            if beside := self._beside_pretrainings(one, partner):
                return self._moved(one, beside).pair(base, name)
        own = self.seeds(name) if self._of_every_draw(base, name) else self.seeds(base)
        other = self.seeds(base) if self._of_every_draw(name, base) else self.seeds(name)
        seeds = [seed for seed in own if seed in other]
        if not seeds:
            raise InputError(
                f"the arms {base} ({_seeds_told(self.seeds(base))}) and {name} ({_seeds_told(self.seeds(name))}) share no seed "
                "or label draw to be paired by; add runs of the same seeds, or give --apart"
            )
        given = self
        for one, partner in ((base, name), (name, base)):
            if self._of_every_draw(one, partner):
                given = given._repeated(one, seeds)
        return given.of([base, name], seeds)

    def _beside_pretrainings(self, name: str, other: str) -> dict[Hashable, Hashable]:
        """Seed of the other arm -> the arm's own that is alike but for the pre-training; empty where the arm has several itself."""
        own, theirs = self.luck[name], self.luck[other]
        starts = [
            len({of[PRETRAININGS][seed] for seed in self.seeds(arm)})
            for arm, of in ((name, own), (other, theirs))
        ]
        if starts[0] > 1 or starts[1] < 2:
            return {}
        rest = [kind for kind in own if kind != PRETRAININGS and kind in theirs]
        alike = {tuple(own[kind][seed] for kind in rest): seed for seed in self.seeds(name)}
        found = {
            seed: alike.get(tuple(theirs[kind][seed] for kind in rest))
            for seed in self.seeds(other)
        }
        beside = {seed: old for seed, old in found.items() if old is not None}
        return {} if set(beside) <= set(self.seeds(name)) else beside

    def _moved(self, name: str, to: Mapping[Hashable, Hashable]) -> Placed:
        """The arm's models at other seeds, once for each: new seed -> the model's own."""
        arm, own = self.arms[name], self.where[name]
        rows = [
            (i, new) for i, place in enumerate(own) for new, old in to.items() if place.seed == old
        ]
        luck = {
            kind: {new: of[old] for new, old in to.items()} for kind, of in self.luck[name].items()
        }
        return Placed(
            {**self.arms, name: replace(arm, tested=tuple(arm.tested[i] for i, _ in rows))},
            {**self.where, name: [Place(own[i].fold, new) for i, new in rows]},
            {**self.luck, name: luck},
        )

    def _of_every_draw(self, name: str, other: str) -> bool:
        draws = self.luck[other].get(DRAWS, {})
        return (
            len(self.seeds(name)) == 1
            and len(self.seeds(other)) > 1
            and all(one.every_draw for one in self.arms[name].tested)
            and all(draws.get(seed) == seed for seed in self.seeds(other))
        )

    def _repeated(self, name: str, seeds: Sequence[Hashable]) -> Placed:
        """The arm's one model of each fold at every seed."""
        arm, own = self.arms[name], self.where[name]
        tested = tuple(one for one in arm.tested for _ in seeds)
        where = [Place(place.fold, seed) for place in own for seed in seeds]
        (level,) = self.seeds(name)
        luck = {
            kind: {seed: seed if kind == DRAWS else of[level] for seed in seeds}
            for kind, of in self.luck[name].items()
        }
        return Placed(
            {**self.arms, name: replace(arm, tested=tested)},
            {**self.where, name: where},
            {**self.luck, name: luck},
        )

    def told(self, base: str, name: str) -> str:
        """What a difference is over where not both arms have it all; empty where they do."""
        for one, other in ((base, name), (name, base)):
            if beside := self._beside_pretrainings(one, other):
                return (
                    f"{name} minus {base} is over {count(len(beside), 'run')} of {other}: {one} does not have several pre-trainings and "
                    "stands beside each of them"
                )
        n, of_base, of_name = (
            len(self.pair(base, name).seeds(name)),
            len(self.seeds(base)),
            len(self.seeds(name)),
        )
        if n == max(of_base, of_name):
            return ""
        return (
            f"{name} minus {base} is over the {count(n, 'seed or label draw', 'seeds or label draws')} that both have; "
            f"{base} has {of_base}, {name} {of_name}, and their own figures are over all of these"
        )


def on_shared_folds(placed: Placed) -> tuple[Placed, list[str]]:
    """The runs on folds that every arm has, of seeds that ran in each of these; what is left out is said with counts.

    Raises:
        InputError: no fold is shared by all, or an arm has no seed that ran in all shared ones.
    """
    folds_of = {name: {place.fold for place in own} for name, own in placed.where.items()}
    folds = set.intersection(*folds_of.values())
    if not folds:
        first, other = _apart(folds_of)
        raise InputError(
            f"the arms {first} and {other} share no fold: they were tested on other images; "
            "compare runs of one pack, or give a pack with --data"
        )
    notes: list[str] = []
    kept: dict[str, list[int]] = {}
    for name, own in placed.where.items():
        cells = {(place.fold, place.seed) for place in own}
        seeds = [s for s in placed.seeds(name) if all((fold, s) in cells for fold in folds)]
        if not seeds:
            fold, seed = next(
                (f, s) for s in placed.seeds(name) for f in sorted(folds) if (f, s) not in cells
            )
            raise InputError(
                f"the arm {name} has no seed with a run in each of {count(len(folds), 'shared fold')}: fold {fold}, seed {seed} "
                "is missing; finish that run, or leave its fellows out"
            )
        kept[name] = [i for i, p in enumerate(own) if p.fold in folds and p.seed in seeds]
        lost = len(own) - len(kept[name])
        if lost:
            notes.append(
                f"{count(lost, 'run')} of {len(own)} of {name} left out: figures are over {count(len(folds), 'fold')} that every "
                "arm has, and over seeds that ran in each of them"
            )
    arms = {
        name: replace(arm, tested=tuple(arm.tested[i] for i in kept[name]))
        for name, arm in placed.arms.items()
    }
    where = {name: [own[i] for i in kept[name]] for name, own in placed.where.items()}
    return Placed(arms, where, placed.luck), notes


def _apart(folds: Mapping[str, set[int]]) -> tuple[str, str]:
    """Two arms that share no fold; the first two where each pair shares one."""
    names = list(folds)
    for i, first in enumerate(names):
        for other in names[i + 1 :]:
            if not folds[first] & folds[other]:
                return first, other
    return names[0], names[-1]


def _seeds_told(seeds: Sequence[Hashable]) -> str:
    return ", ".join(map(str, seeds[:6])) + (", ..." if len(seeds) > 6 else "")

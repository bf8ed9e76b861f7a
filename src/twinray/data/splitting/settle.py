"""Which split every packed image belongs to, and what leaks between splits.

The sources' own splits are kept. Those that a source does not have are cut, patient by patient,
with a seed. All of them are cut where it has none; otherwise the missing ones come out of its
training images. Images with identical pixels are kept on one side of a cut even if their patients
differ or are unknown. Images of one single grey value are an exception, as they say nothing of a
patient.

What a cut may not separate is a group (see ``pack_groups``). A group is cut as a whole, once, and only to splits that
every source in it lacks. A group that a source's own validation or test images are in is not cut
but follows them. It follows as a whole if every source of its training images lacks that split.
Otherwise training images stay, and images without a split go to the side of those they are tied to.

What the sources' own splits do wrong is not mended but reported: patients and images that are on several sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from twinray.data.splitting.cut import cut_splits
from twinray.data.splitting.groups import Rows, groups_of, ties_of
from twinray.data.splitting.notes import how_made, on_several_sides, problems
from twinray.data.splitting.record import GivenSplits, SplitRecord, record_splits
from twinray.errors import InputError
from twinray.records import PRESENT, SPLITS, FloatArray, Split
from twinray.words import counted


@dataclass(frozen=True)
class Settled:
    """Splits of all rows, how they were made, what users must know, and the JSON record."""

    splits: list[str]
    method: str
    notes: list[str]
    findings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fold:
    """The test split is fold ``number`` (from 0) of ``of``."""

    number: int
    of: int


def settle(
    rows: Rows,
    names: Sequence[str],
    val: float,
    test: float,
    seed: int,
    fold: Fold | None = None,
    together: Collection[int] = (),
    whole: Collection[int] = (),
) -> Settled:
    """Keep or cut splits.

    Args:
        rows: the packed images.
        names: names of the collections.
        val, test: wanted shares of validation and test images where the source has none of them; 0 for none.
        seed: seed of the cut.
        fold: fold of a cross-validation; ``test`` is then one fold's share.
        together: numbers of collections that are the splits of one data set: what one of them has, none of them lacks.
        whole: numbers of collections whose splits stand for good: they lack none.

    Raises:
        InputError: folds of a source that has a val or test split; fewer patients than splits to
            cut. Also images without a split of their own that patients or identical pixels tie to
            several of the sources' own splits.
    """
    wanted = {split: share for split, share in (("val", val), ("test", test)) if share > 0}
    present = [
        {rows.official[i] or "" for i in np.flatnonzero(rows.collection == k).tolist()} - {""}
        for k in range(len(names))
    ]
    shared = {split for k in together for split in present[k]}
    present = [shared if k in together else own for k, own in enumerate(present)]
    present = [set(SPLITS) if k in whole else own for k, own in enumerate(present)]
    if fold and (
        official := [name for name, own in zip(names, present, strict=True) if own - {"train"}]
    ):
        raise InputError(
            f"splits: expected sources without a val or test split of their own to cut {fold.of} folds, {', '.join(official)} has "
            "one; leave --folds out, or read it without its splits"
        )
    missing = [tuple(split for split in wanted if split not in own) for own in present]
    splits: list[str] = [split or "" for split in rows.official]
    held, pools = _pools(rows, missing, wanted, splits)
    _follow(rows, [i for i in held if not splits[i]], splits)
    cut: list[int] = []
    small: list[tuple[int, InputError]] = []
    for kinds, (pool, groups) in sorted(pools.items()):
        try:
            sides = _cut(rows, pool, groups, {split: wanted[split] for split in kinds}, seed, fold)
            cut += pool if kinds else []
        except InputError as error:
            if fold:
                raise InputError(
                    f"splits: too few patients for {fold.of} folds{' and val images' if val else ''}, got "
                    f"{len({group or i for i, group in enumerate(groups)})}; lower --folds{', or set --val 0' if val else ''}"
                ) from error
            sides = ["train"] * len(pool)
            small.append((len(pool), error))
        for i, side in zip(pool, sides, strict=True):
            splits[i] = side
    if len(set(whole)) < len(names):
        _check_given(rows, splits, wanted, small)
    _check_cut(rows, splits)
    method, notes = how_made(
        rows, names, present, [{s: wanted[s] for s in own} for own in missing], set(held), cut, seed
    )
    method += f" (fold {fold.number} of {fold.of} for testing)" if fold else ""
    notes += [
        f"{counted(n, 'image is of too few patients to cut other splits out of: it is', 'images are of too few patients to cut other splits out of: they are')} for training"
        for n, _ in small
    ]
    found, leaks = problems(rows, splits)
    return Settled(splits, method, leaks + notes, found)


def settle_given(rows: Rows, given: GivenSplits) -> Settled:
    """Every row as the record has it; nothing is cut, and what the record does wrong is reported, not mended."""
    splits = [split or "" for split in rows.official]
    found, leaks = problems(rows, splits, given.name)
    return Settled(splits, given.told, leaks, found)


def describe(
    rows: Rows,
    settled: Settled,
    label_classes: Sequence[str],
    shares: Mapping[str, float],
    seed: int | None,
) -> SplitRecord:
    """The record of the splits that ``splits.json`` holds; a patient on several sides is noted in it, not refused."""
    both = set(on_several_sides(rows.patients, settled.splits))
    told: list[str | None] = [None if patient in both else patient for patient in rows.patients]
    shares = {"train": 1 - sum(shares.values()), **shares} if shares else {}
    fractions = {name: share for name, share in shares.items() if share > 0}
    record = record_splits(
        rows.ids,
        told,
        rows.labels,
        settled.splits,
        label_classes=label_classes,
        method=settled.method,
        seed=None if settled.method == "official" else seed,
        fractions=fractions,
    )
    if not both:
        return record
    of_split: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(rows.patients, settled.splits, strict=True):
        if patient:
            of_split[split].add(patient)
    return replace(
        record,
        patients={name: len(of_split[name]) for name in record.images},
        patients_known=all(rows.patients),
        notes=[note for note in settled.notes if "several splits" in note],
    )


def _pools(
    rows: Rows, missing: Sequence[tuple[str, ...]], wanted: Mapping[str, float], splits: list[str]
) -> tuple[list[int], dict[tuple[str, ...], tuple[list[int], list[str | None]]]]:
    """Rows that follow val or test images of their group; and by splits to cut, rows and their groups.

    Where all of a group can follow, its rows get their place in ``splits``.
    """
    groups = groups_of(rows, range(len(rows.ids)))
    members: dict[str | int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[i if group is None else group].append(i)
    held: list[int] = []
    pools: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for own in members.values():
        anchors = {splits[i] for i in own} - {"", "train"}
        if anchors:
            (side, *others) = sorted(anchors)
            train = [i for i in own if splits[i] == "train"]
            held += [i for i in own if not splits[i]]
            if not others and all(side in missing[rows.collection[i]] for i in train):
                held += train
                for i in own:
                    splits[i] = side
        else:
            pools[
                tuple(s for s in wanted if all(s in missing[rows.collection[i]] for i in own))
            ] += own
    return sorted(held), {
        kinds: (sorted(pool), [groups[i] for i in sorted(pool)]) for kinds, pool in pools.items()
    }


def _follow(rows: Rows, held: Sequence[int], splits: list[str]) -> None:
    """Give rows without a split the one of the images with a split that they are tied to."""
    ties: dict[tuple[str, object], set[str]] = defaultdict(set)
    for i, split in enumerate(rows.official):
        for tie in ties_of(rows, i) if split else ():
            ties[tie].add(split or "")
    parts: dict[str | int, list[int]] = defaultdict(list)
    for i, part in zip(held, groups_of(rows, held), strict=True):
        parts[i if part is None else part].append(i)
    for part_rows in parts.values():
        sides = {side for i in part_rows for tie in ties_of(rows, i) for side in ties.get(tie, ())}
        for i in part_rows:
            splits[i] = max(
                sides, key=lambda side: SPLITS.index(cast(Split, side))
            )  # training stays clean of test


def _cut(
    rows: Rows,
    pool: list[int],
    groups: Sequence[str | None],
    kinds: Mapping[str, float],
    seed: int,
    fold: Fold | None = None,
) -> Sequence[str]:
    """Cut ``kinds`` out of the rows ``pool``, of which the rest is for training."""
    if not kinds:
        return ["train"] * len(pool)
    labels = None if rows.labels is None else rows.labels[pool]
    own = rows.collection[pool]
    sources = np.unique(own)
    if len(sources) > 1:  # every source is to have its share on every side, as if it were a label
        bare = (
            np.ones((len(pool), 0))
            if labels is None
            else ~(labels == PRESENT).any(axis=1, keepdims=True)
        )
        columns = [
            np.zeros((len(pool), 0)) if labels is None else labels,
            bare,
            own[:, None] == sources,
        ]
        labels = np.concatenate(columns, axis=1).astype(np.float32)
    if fold is None:
        return cut_splits(groups, labels, {"train": 1 - sum(kinds.values())} | dict(kinds), seed)
    return _cut_fold(groups, labels, kinds.get("val", 0.0), seed, fold)


def _cut_fold(
    groups: Sequence[str | None], labels: FloatArray | None, val: float, seed: int, fold: Fold
) -> Sequence[str]:
    """All folds first, alike for every fold; then validation images out of those that are not of this fold."""
    dealt = cut_splits(groups, labels, {str(k): 1 / fold.of for k in range(fold.of)}, seed)
    splits = ["test" if name == str(fold.number) else "train" for name in dealt]
    rest = [i for i, split in enumerate(splits) if split == "train"]
    if val:
        inner = val / (1 - 1 / fold.of)
        own = None if labels is None else labels[rest]
        for i, split in zip(
            rest,
            cut_splits([groups[i] for i in rest], own, {"train": 1 - inner, "val": inner}, seed),
            strict=True,
        ):
            splits[i] = split
    return splits


def _check_given(
    rows: Rows,
    splits: Sequence[str],
    wanted: Mapping[str, float],
    small: Sequence[tuple[int, InputError]],
) -> None:
    """Refuse to go on without a split that was asked for, where there are images to cut it out of."""
    lacking = [split for split in wanted if split not in splits]
    if not lacking or "train" not in splits:
        return
    advice = "(--val 0 or --test 0, with --resume to keep what is decoded)"
    if small:
        raise InputError(f"{small[0][1]} {advice}") from small[0][1]
    raise InputError(
        f"splits: expected training images to cut {', '.join(lacking)} out of, got {splits.count('train')} of which every "
        f"one is tied by patient or pixels to the source's own val or test images; ask for fewer splits {advice}"
    )


def _check_cut(rows: Rows, splits: Sequence[str]) -> None:
    """Refuse a patient or identical images on two sides unless the sources' own splits have them there.

    Raises:
        InputError: how many patients and how many groups of identical images.
    """
    sides: dict[tuple[str, object], set[str]] = defaultdict(set)
    own: dict[tuple[str, object], set[str]] = defaultdict(set)
    given: set[tuple[str, object]] = set()
    for i, (official, split) in enumerate(zip(rows.official, splits, strict=True)):
        for tie in ties_of(rows, i):
            sides[tie].add(split)
            if official:
                own[tie].add(official)
            if official != split:
                given.add(tie)
    leaks = Counter(
        kind
        for kind, key in given
        if len(sides[kind, key]) > 1 and len(own.get((kind, key), ())) < 2
    )
    if leaks:
        counts = " and ".join(f"{leaks[kind]} {kind}" for kind in sorted(leaks, reverse=True))
        raise InputError(
            "splits: expected images without a split of their own to be tied to one split by patient and pixels, "
            f"got {counts} on several sides; give those images a split, or leave them out"
        )

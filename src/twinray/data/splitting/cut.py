"""Splits in which no patient is on two sides, and label fractions of a training set.

Both are stratified over several labels at once and grouped by patient.

``cut_splits`` is iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label
data", ECML PKDD 2011. The paper deals out single examples. What is dealt out here is a patient,
with the number of images of each label. Patients are coarser, so single patients then change sides
as long as that brings the shares of labels closer to the wanted ones.

``label_fraction`` takes the head of one seeded ordering of patients, so for one seed every smaller fraction
lies inside every larger one. The ordering starts with patients that together show every label,
rarest label first. Each place then goes to one of a random few patients. It is the one that brings
the shares of labels in the head so far closest to those of the whole.

Conventions: a label is present where its value is 1; 0, -1 (uncertain) and NaN (not stated) are not present. Images
without any label present are stratified as a label of their own. A patient that is None or empty is
unknown, and its image is a group of its own. ``patient_note`` then says that the split cannot be
trusted to be patient-disjoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.records import PRESENT, FloatArray

Index = npt.NDArray[np.int64]
Patients = Sequence[str | None]

MOVES = 200
"""Most patients that change sides after the deal; a few dozen are usual."""
DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
CANDIDATES = 512
"""Patients that compete for a place in the ordering: more follow the whole closer, fewer leave more to the seed."""
FIRST_CANDIDATES = 64
"""The same while the ordering still lacks a label, among patients with that label."""
TOLERANCE = 0.1
"""Relative deviation of a label's share that counts as one unit, where it is more than one patient's images."""


def cut_splits(
    patients: Patients,
    labels: FloatArray | None,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> list[str]:
    """Name a split for every image; all images of a patient get the same one.

    Args:
        patients: (n,) patient ids, None or "" where unknown.
        labels: (n, k) values as in ``records.Sample.labels``, or None to balance numbers of images only.
        fractions: share of images wanted in each split; positive, adding up to 1.
        seed: decides between equals.

    Returns:
        (n,) names from ``fractions``.

    Raises:
        InputError: fractions that do not add up to 1, labels of another length, fewer patients than splits.
    """
    names, wanted = list(fractions), np.array(list(fractions.values()), dtype=np.float64)
    if not names or not np.all(wanted > 0) or abs(wanted.sum() - 1) > 1e-6:
        raise InputError(
            f"splits: expected positive fractions that add up to 1, got {dict(fractions)}"
        )
    group, present = checked_groups(patients, labels)
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < len(names):
        raise InputError(
            f"splits: expected at least {len(names)} patients to cut {', '.join(names)}, got {n_groups};"
            " ask for fewer splits"
        )
    counts = _per_group(group, present, n_groups)
    side = _evened(counts, wanted, _deal(counts, wanted, np.random.default_rng(seed)))
    return [names[s] for s in side[group].tolist()]


def label_fraction(
    patients: Patients, labels: FloatArray | None, fraction: float, seed: int = 0
) -> Index:
    """Choose patients that hold about ``fraction`` of the images; for one seed, nested over fractions.

    Args:
        patients: (n,) patient ids of the training images, None or "" where unknown.
        labels: (n, k) values as in ``records.Sample.labels``, or None.
        fraction: share of images, in (0, 1]. Whole patients are taken, at least one, so the number of images is the
            nearest that the ordering allows.
        seed: seed of the ordering.

    Returns:
        Rows of the chosen images, ascending.

    Raises:
        InputError: a fraction outside (0, 1], no images, labels of another length.
    """
    if not 0 < fraction <= 1:
        raise InputError(
            f"label fraction: expected a share in (0, 1], got {fraction}; 0.01 means one per cent"
        )
    group, present = checked_groups(patients, labels)
    if not len(group):
        raise InputError("label fraction: expected at least one image, got none")
    if fraction == 1:
        return np.arange(len(group), dtype=np.int64)
    counts = _per_group(group, present, int(group.max()) + 1)
    ordering = _ordering(counts, np.random.default_rng(seed))
    reached = np.cumsum(counts[ordering, 0])
    n_groups = int(np.argmin(np.abs(reached - fraction * len(group)))) + 1
    return np.flatnonzero(np.isin(group, ordering[:n_groups])).astype(np.int64)


def checked_groups(
    patients: Patients, labels: FloatArray | None
) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Group (n,) of every image, in order of patients' names, and the labels present (n, k + 1), the last being none."""
    n = len(patients)
    if labels is not None and (labels.ndim != 2 or len(labels) != n):
        raise InputError(
            f"splits: expected labels of shape ({n}, k), one row an image, got {labels.shape}"
        )
    number = {
        name: g for g, name in enumerate(sorted({patient for patient in patients if patient}))
    }
    group = np.zeros(n, dtype=np.int64)
    unknown = len(number)
    for row, patient in enumerate(patients):
        group[row] = number[patient] if patient else unknown
        unknown += not patient
    present = np.zeros((n, 0), dtype=bool) if labels is None else labels == PRESENT
    return group, np.concatenate([present, ~present.any(axis=1, keepdims=True)], axis=1)


def _per_group(group: Index, present: npt.NDArray[np.bool_], n_groups: int) -> FloatArray:
    """Images (g, 1 + columns) of every group: all of them, then those that show each label."""
    columns = [np.bincount(group, minlength=n_groups)]
    columns += [np.bincount(group, column, minlength=n_groups) for column in present.T]
    return np.stack(columns, axis=1).astype(np.float64)


def _deal(counts: FloatArray, wanted: FloatArray, rng: np.random.Generator) -> Index:
    """Iterative stratification of groups.

    counts (g, c) images of a group, column 0 all, the others labels; wanted (s,) shares -> side (g,)
    """
    n_groups = len(counts)
    side = np.full(n_groups, -1, dtype=np.int64)
    lacking = wanted[:, None] * counts.sum(axis=0)  # (s, c) images that each side still wants
    remaining = counts.sum(axis=0)
    shuffled = rng.permutation(n_groups)
    while True:
        labels = 1 + np.flatnonzero(remaining[1:] > 0)
        if not len(labels):
            break
        label = labels[np.argmin(remaining[labels])]
        groups = shuffled[(side[shuffled] < 0) & (counts[shuffled, label] > 0)]
        # Patients with many such images first, so that those with few can even out what they leave.
        groups = groups[np.argsort(-counts[groups, label], kind="stable")]
        for g in groups.tolist():
            # The side that lacks most of the label; then the one that lacks most images; then by chance.
            best = np.flatnonzero(lacking[:, label] >= lacking[:, label].max() - 1e-9)
            best = best[lacking[best, 0] >= lacking[best, 0].max() - 1e-9]
            side[g] = best[0] if len(best) == 1 else rng.choice(best)
            lacking[side[g]] -= counts[g]
        remaining = remaining - counts[groups].sum(axis=0)
    for empty in np.flatnonzero(np.bincount(side, minlength=len(wanted)) == 0):
        sizes = np.bincount(side, minlength=len(wanted))
        donors = np.flatnonzero(side == sizes.argmax())
        side[donors[np.argmin(counts[donors, 0])]] = empty
    return side


def _evened(counts: FloatArray, wanted: FloatArray, side: Index) -> Index:
    """Move single groups, the most useful first, while that evens out the sides.

    counts (g, c), wanted (s,), side (g,) -> side (g,)
    """
    side, total = side.copy(), counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    grain = total / np.count_nonzero(counts, axis=0)
    expected = wanted[:, None] * total
    unit = np.maximum(TOLERANCE * expected, grain)
    off = -expected / unit
    for s in range(len(wanted)):
        off[s] += counts[side == s].sum(axis=0) / unit[s]
    # Moving counts x from side a to b adds |x/u_a|^2 - 2 off_a.x/u_a + |x/u_b|^2 + 2 off_b.x/u_b to the sum of squares.
    square = np.stack([(counts**2) @ (1 / u**2) for u in unit], axis=1)  # (g, s)
    everyone = np.arange(len(counts))
    for _ in range(MOVES):
        along = counts @ (off / unit).T  # (g, s)
        gain = square + 2 * along + (square - 2 * along)[everyone, side][:, None]
        gain[everyone, side] = 0.0
        alone = np.bincount(side, minlength=len(wanted)) == 1
        gain[alone[side]] = 0.0
        g, to = divmod(int(gain.argmin()), len(wanted))
        if gain[g, to] > -1e-9:
            break
        off[side[g]] -= counts[g] / unit[side[g]]
        off[to] += counts[g] / unit[to]
        side[g] = to
    return side


def _ordering(counts: FloatArray, rng: np.random.Generator) -> Index:
    """Order groups so that every head has about the whole's shares of labels.

    counts (g, c) images of a group, column 0 all, the others labels -> (g,) groups
    """
    # The number of patients is kept in proportion too, or patients with few images would crowd to the front.
    features = np.concatenate([counts[:, 1:], np.ones((len(counts), 1))], axis=1)
    share = features.sum(axis=0) / counts[:, 0].sum()
    features, share = features[:, share > 0], share[share > 0]
    grain = features.sum(axis=0) / np.count_nonzero(
        features, axis=0
    )  # images that one patient typically brings
    left = rng.permutation(len(counts))
    head, so_far, n_images = [], np.zeros(len(share)), 0.0
    rarity = np.argsort(share[:-1], kind="stable")
    for place in range(len(counts)):
        pool = np.arange(place, min(place + CANDIDATES, len(left)))
        unseen = rarity[so_far[rarity] == 0]
        if len(unseen):
            pool = place + np.flatnonzero(features[left[place:], unseen[0]] > 0)[:FIRST_CANDIDATES]
        groups = left[pool]
        total = n_images + counts[groups, 0]
        expected = total[:, None] * share
        off = (
            (so_far + features[groups] - expected) / np.maximum(TOLERANCE * expected, grain)
        ) ** 2
        taken = pool[int(np.argmin(off.sum(axis=1)))]
        # The loser at this place moves back to where the winner came from, which keeps what is left in random order.
        left[place], left[taken] = left[taken], left[place]
        head.append(left[place])
        so_far += features[left[place]]
        n_images += counts[left[place], 0]
    return np.array(head, dtype=np.int64)

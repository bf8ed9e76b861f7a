"""The rows of a pack as splits see them, and what no cut may separate.

That is a group: patients and images of identical pixels, followed through all sources of the pack. Images of one single
grey value are tied by their patient alone: their pixels say nothing of who they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet

from twinray.records import FloatArray


@dataclass(frozen=True, eq=False)
class Rows:
    """The packed images, in order: n rows.

    Attributes:
        ids, patients, official: (n,) id, patient or None, the source's own split or None.
        collection: (n,) which collection the image is of.
        labels: (n, k) float32, NaN where not stated; or None where no image has labels.
        twins: (n,) equal numbers for images of identical pixels, and for those that ids say are one.
        blank: (n,) whether all pixels of the image are the same.
        told_by_ids: flag, true if ``twins`` holds images that are one by their ids.
    """

    ids: Sequence[str]
    patients: Sequence[str | None]
    official: Sequence[str | None]
    collection: npt.NDArray[np.int64]
    labels: FloatArray | None
    twins: npt.NDArray[np.int64]
    blank: npt.NDArray[np.bool_]
    told_by_ids: bool = False


def one_number(
    twins: npt.NDArray[np.int64], originals: Sequence[str | None]
) -> npt.NDArray[np.int64]:
    """(n,) numbers of ``twins`` in which images of one name count as identical too; None: no name."""
    sets = DisjointSet(range(int(twins.max(initial=-1)) + 1))
    first: dict[str, int] = {}
    for twin, original in zip(twins.tolist(), originals, strict=True):
        if original is not None:
            sets.merge(first.setdefault(original, twin), twin)
    number = {twin: min(members) for members in sets.subsets() for twin in members}
    return np.array([number[twin] for twin in twins.tolist()], dtype=np.int64)


def groups_of(rows: Rows, among: Sequence[int]) -> list[str | None]:
    """The group of each of the rows ``among``, named alike where no cut may separate them; None: a group of its own.

    It is the patient, with the patients of images of the same pixels.
    """
    keys = [f"p{rows.patients[i]}" if rows.patients[i] else f"i{i}" for i in among]
    sets = DisjointSet(keys)
    first: dict[int, str] = {}
    for i, key in zip(among, keys, strict=True):
        if not rows.blank[i]:
            sets.merge(first.setdefault(int(rows.twins[i]), key), key)
    # the first of a group names it, so that names do not depend on the order of rows
    name = {key: min(members) for members in sets.subsets() if len(members) > 1 for key in members}
    return [name.get(key, None if key[0] == "i" else key) for key in keys]


def ties_of(rows: Rows, i: int) -> list[tuple[str, object]]:
    """What must not be on two sides: the row's patient, and its pixels."""
    patient: list[tuple[str, object]] = [("patients", rows.patients[i])] if rows.patients[i] else []
    return (
        patient if rows.blank[i] else [*patient, ("groups of identical images", int(rows.twins[i]))]
    )

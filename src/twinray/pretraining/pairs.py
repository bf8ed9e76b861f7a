"""Which image gives the second view: the image itself, or another one of the same patient or study.

Two radiographs of one patient share anatomy and differ in day, position and exposure. No augmentation
makes such differences. MedAug (Vu et al. 2021, arXiv:2102.10663) takes positives from one patient, MICLe
(Azizi et al. 2021, arXiv:2101.05224) from one patient's images of one finding.

Partners of a whole epoch are drawn from (seed, epoch) alone. A batch's partners so depend neither on
the rank that embeds it nor on the step that a resumed run begins at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.records import IntArray

_STREAM = 0x9A125  # apart from the order of the epoch, which is drawn from (seed, epoch)

STUDY = ("study_uid", "study_id", "study", "studyinstanceuid", "study instance uid")
"""Attributes that name an image's study, in small letters."""


@dataclass(frozen=True, eq=False)
class Partners:
    """Images that may give each other's second view.

    Attributes:
        groups: (n,) number of each image's patient or study; an image whose own is unknown has a number to itself.
        share: share in 0..1 of the images with a partner whose second view is their partner's.
        seed: seed of the draws.
    """

    groups: IntArray
    share: float
    seed: int

    @property
    def with_partner(self) -> int:
        """Number of images that another image shares its group with."""
        sizes = np.bincount(self.groups)
        return int(sizes[sizes > 1].sum())

    def drawn(self, epoch: int) -> IntArray:
        """(n,) the image that gives the second view of each.

        Of the images with a partner exactly ``round(share * number)`` take another one's, each of
        their group with the same probability. The others take their own.
        """
        rng = np.random.default_rng([self.seed, epoch, _STREAM])
        order = np.argsort(self.groups, kind="stable")
        sorted_groups = self.groups[order]
        first = np.searchsorted(sorted_groups, sorted_groups, side="left")
        size = np.searchsorted(sorted_groups, sorted_groups, side="right") - first
        place = np.arange(len(order)) - first
        # a step of 1 to size - 1 around the group never ends at the image itself
        step = 1 + np.floor(rng.random(len(order)) * np.maximum(size - 1, 1)).astype(np.int64)
        other = order[first + (place + step) % size]
        paired = np.flatnonzero(size > 1)
        taken = rng.permutation(paired)[: round(self.share * len(paired))]
        second = np.arange(len(order), dtype=np.int64)
        second[order[taken]] = other[taken]
        return second

    def told(self) -> str:
        """One line for people."""
        n, whole = self.with_partner, len(self.groups)
        return f"{n:,} of {whole:,} images have a partner; second views of {round(self.share * n):,} are their partner's"


def partners(
    packs: Sequence[Pack],
    rows: Sequence[IntArray],
    pairs: Literal["image", "patient", "study"],
    share: float,
    seed: int,
) -> Partners | None:
    """Partners among the chosen rows of all packs, in the order of the pixel source; None where each image is its own.

    Packs stay apart: an id in one pack and the same id in another may be two people.

    Raises:
        InputError: no image has a partner of that kind, or a pack does not name studies.
    """
    if pairs == "image":
        return None
    keys: list[tuple[object, ...]] = []
    for which, (pack, own) in enumerate(zip(packs, rows, strict=True)):
        studies = _studies(pack) if pairs == "study" else [None] * len(pack)
        for row in own.tolist():
            patient, study = pack.patients[row], studies[row]
            known = patient is not None if pairs == "patient" else study is not None
            keys.append((which, patient, study) if known else (which, "image", row, "alone"))
    numbers: dict[tuple[object, ...], int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    found = Partners(groups, share, seed)
    if not found.with_partner:
        raise InputError(
            f"--pairs {pairs}: expected images that share a {pairs}, got {len(keys)} images of as many; "
            f"pack with {'patient ids (--patient-regex, --table)' if pairs == 'patient' else 'studies'}, or take --pairs image"
        )
    return found


def _studies(pack: Pack) -> list[str | None]:
    """The study of each image.

    Raises:
        InputError: the pack has no attribute that names it.
    """
    name = next((own for own in pack.attributes if own.lower() in STUDY), None)
    if name is None:
        known = ", ".join(pack.attributes) or "none"
        raise InputError(
            f"--pairs study: expected an attribute that names the study ({', '.join(STUDY[:3])}), {pack.path} has: {known}; "
            "take --pairs patient"
        )
    return [value or None for value in pack.attributes[name]]

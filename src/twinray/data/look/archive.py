"""The images of an archive, judged among each other: what is out of the ordinary, and in which way.

Every check is listed in :data:`CHECKS`. Checks that need the others' images (polarity, sides, oddness, clipping) take the majority
for right; an archive of which most images are negatives would have its right ones flagged. ``benchmarks/look.py`` measures each
check by corrupting real radiographs by known amounts; ``docs/look.md`` has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from twinray.data.look.measure import Measures
from twinray.data.look.sides import FEWEST, WAYS, margin_for, mirror_scores, right_scores
from twinray.data.near_copies import NEAR, Words, nearest
from twinray.records import FloatArray, IntArray
from twinray.words import counted

CHECKS: Final[Mapping[str, str]] = {
    "negative": "black and white are the other way round than in most images",
    "turned": "lies on its side or upside down",
    "mirrored": "left and right are swapped",
    "lateral": "the header says that the view is not frontal",
    "odd": "looks like no other image of the archive, whichever way it is turned",
    "blank": "almost all pixels are equal",
    "text": "a line of text is burnt in",
    "copy": "a near copy of an image of another patient, or of an unknown one",
    "few levels": "few grey levels are in use: it was quantised",
    "low contrast": "most pixels lie in a small part of the grey scale",
    "clipped": "much more of it is plain black or white than of most images",
    "border": "plain bars, or a collimator's shadow, take much of its area",
}
"""Name of each check -> what it says of an image."""

WRONG: Final = ("negative", "turned", "mirrored", "lateral", "odd", "blank", "text", "copy")
"""Checks whose images are put on the list to exclude unless other checks are named."""

FALSE_ALARMS: Final = 0.01
"""Share of right images that a check may flag."""

_BLANK, _FEW_LEVELS, _LOW_CONTRAST, _BORDER = 0.02, 0.5, 0.35, 0.2
_CLIPPED_BEYOND, _CLIPPED_LEAST, _CLIPPED_HIGH = 9.0, 0.15, 0.1
_ODD_BEYOND, _USUAL = 2.6, 0.85
_CLEARLY: Final = 0.1
"""How far below 0 a negative or turned image scores, by the usual score's size."""
_MANY_MISSED: Final = 0.05
_BLOCK: Final = 2048


@dataclass(frozen=True, slots=True)
class Found:
    """What the checks found.

    Attributes:
        flags: (n,) for each image, check -> the reason in a few words.
        notes: one-line remarks that users must see.
    """

    flags: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Flags:
    images: Sequence[Measures]
    flags: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    def mark(self, numbers: Sequence[int], check: str, reason: str) -> None:
        for number in numbers:
            self.flags[number].setdefault(check, reason)


def judge(
    images: Sequence[Measures],
    *,
    patients: Sequence[str | None],
    lateral: Sequence[bool],
    seed: int = 0,
) -> Found:
    """Run all checks.

    Args:
        images: the archive's images.
        patients: (n,) patient of each; None where unknown.
        lateral: (n,) whether a header says that the view is not frontal.
        seed: seed of the folds of what is learnt.
    """
    found = _Flags(images, [{} for _ in images])
    for number, is_lateral in enumerate(lateral):
        if is_lateral:
            found.mark([number], "lateral", "its header says so")
    _alone(found)
    sound = [
        k for k, image in enumerate(images) if not lateral[k] and "blank" not in found.flags[k]
    ]
    if len(sound) < FEWEST:
        found.notes.append(
            f"{counted(len(sound), 'frontal image is', 'frontal images are')} too few to learn from which way round images are (at least {FEWEST}): polarity, "
            "sides, oddness and clipping were not checked"
        )
    else:
        _sides(found, sound, seed)
        _clipping(found, sound)
    _copies(found, patients)
    return Found(tuple(found.flags), tuple(found.notes))


def _alone(found: _Flags) -> None:
    """Checks of each image by itself."""
    for number, image in enumerate(found.images):
        if image.contrast < _BLANK or image.border >= 1:
            found.mark([number], "blank", "almost all pixels are equal")
            continue
        if image.text:
            n, (left, top, *_) = len(image.text), image.text[0]
            found.mark(
                [number],
                "text",
                f"{counted(n, 'line, the longest', 'lines, the longest')} at {left},{top}",
            )
        if image.occupancy < _FEW_LEVELS:
            found.mark([number], "few levels", f"{image.occupancy:.0%} of the levels in use")
        if image.contrast < _LOW_CONTRAST:
            found.mark([number], "low contrast", f"{image.contrast:.0%} of the grey scale")
        if image.border > _BORDER:
            found.mark([number], "border", f"{image.border:.0%} of the area")


def _sides(found: _Flags, sound: Sequence[int], seed: int) -> None:
    """Polarity and turns together; then mirroring of what is right in both, and oddness."""
    images = [found.images[k] for k in sound]
    scores = right_scores(images, seed)
    worst = scores.argmin(axis=1)
    least = -_CLEARLY * float(np.median(np.abs(scores)))
    wrong = np.flatnonzero(scores.min(axis=1) < least).tolist()
    for k in wrong:
        way = WAYS[int(worst[k])]
        if way.negative:
            found.mark([sound[k]], "negative", "looks like a negative of the others")
        if way.turn:
            found.mark([sound[k]], "turned", way.turn)
    rest = set(range(len(sound))) - set(wrong)
    upright = [k for k in range(len(sound)) if k in rest]
    if len(upright) < FEWEST:
        return
    kept = [images[k] for k in upright]
    mirrored = _mirrored(found, mirror_scores(kept, seed))
    found.mark([sound[upright[k]] for k in mirrored], "mirrored", "looks mirrored")
    _odd(found, sound, kept)


def _mirrored(found: _Flags, scores: FloatArray) -> list[int]:
    """Images whose score is below the margin that keeps false alarms rare; a note where that costs much."""
    margin, _ = margin_for(scores, FALSE_ALARMS)
    if not math.isfinite(margin):
        found.notes.append(
            "this archive does not tell left from right well enough: mirrored images were not looked for"
        )
        return []
    missed = float((scores[scores > 0] < margin).mean()) if (scores > 0).any() else 0.0
    if missed > _MANY_MISSED:
        found.notes.append(
            f"mirrored images are flagged where that is clear; about {missed:.0%} of them would not be found in this archive"
        )
    return np.flatnonzero((scores < 0) & (scores < -margin)).tolist()


def _odd(found: _Flags, sound: Sequence[int], upright: Sequence[Measures]) -> None:
    """Images that lie far from the mean of the upright ones, whichever way they are turned.

    The mean alone is asked. Principal components would take on a group of images that are odd in one way.
    """
    flat = _unit(np.stack([image.ranks for image in upright]).astype(np.float64))
    mean = flat.mean(axis=0)
    off = np.square(flat - mean).sum(axis=1)
    mean = flat[off <= np.quantile(off, _USUAL)].mean(axis=0)
    ranks = np.stack([found.images[k].ranks for k in sound]).astype(np.float64)
    ways = [
        np.rot90(side, turn, (1, 2)) for side in (ranks, ranks[:, :, ::-1]) for turn in range(4)
    ]
    least = np.min([np.square(_unit(way) - mean).sum(axis=1) for way in ways], axis=0)
    away = np.log(least + 1e-9)
    middle = float(np.median(away))
    spread = max(0.02, 1.4826 * float(np.median(np.abs(away - middle))))
    for k in np.flatnonzero(away > middle + _ODD_BEYOND * spread).tolist():
        times = (away[k] - middle) / spread
        found.mark(
            [sound[k]],
            "odd",
            f"{times:.1f} robust standard deviations from the usual distance to the mean image",
        )


def _unit(ranks: FloatArray) -> FloatArray:
    flat = ranks.reshape(len(ranks), -1)
    unit: FloatArray = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12)
    return unit


def _clipping(found: _Flags, sound: Sequence[int]) -> None:
    for name, floor in (("clipped_low", _CLIPPED_LEAST), ("clipped_high", _CLIPPED_HIGH)):
        shares = np.array([getattr(found.images[k], name) for k in sound])
        middle = float(np.median(shares))
        spread = 1.4826 * float(np.median(np.abs(shares - middle)))
        limit = max(floor, middle + _CLIPPED_BEYOND * spread)
        colour = "black" if name == "clipped_low" else "white"
        for k in np.flatnonzero(shares > limit).tolist():
            if "border" not in found.flags[sound[k]] or name == "clipped_high":
                found.mark([sound[k]], "clipped", f"{shares[k]:.0%} is plain {colour}")


def _copies(found: _Flags, patients: Sequence[str | None]) -> None:
    """Near copies among different patients: all but the first of each group are flagged, with the first that they copy."""
    hashes = [image.hashes for image in found.images]
    of = np.repeat(np.arange(len(hashes)), [len(own) for own in hashes])
    if not len(of):
        return
    words = np.concatenate(hashes)
    same = _codes(patients)
    for start in range(0, len(of), _BLOCK):
        part = slice(start, start + _BLOCK)
        near = _near_pairs(words[part], words[: start + _BLOCK])
        for i, j in near:
            one, other = int(of[start + i]), int(of[j])
            first, second = min(one, other), max(one, other)
            if first != second and (same[first] != same[second] or same[first] < 0):
                found.mark([second], "copy", f"of image {first}")


def _codes(patients: Sequence[str | None]) -> IntArray:
    numbers: dict[str, int] = {}
    return np.array([-1 if p is None else numbers.setdefault(p, len(numbers)) for p in patients])


def _near_pairs(asked: Words, known: Words) -> list[tuple[int, int]]:
    """Pairs of rows that differ in few signs; negatives count as alike."""
    pairs: list[tuple[int, int]] = []
    hits = np.flatnonzero(nearest(asked, known) <= NEAR)
    for i in hits.tolist():
        apart = np.bitwise_count(known ^ asked[i]).sum(axis=1).astype(np.int64)
        apart = np.minimum(apart, 255 - apart)
        pairs += [(i, j) for j in np.flatnonzero(apart <= NEAR).tolist()]
    return pairs

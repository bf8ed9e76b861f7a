"""Areas under the alternative FROC curves: one figure for finding and locating, with images without lesions in it.

Conventions (Chakraborty, Medical Physics 2004 and "Observer Performance Methods for Diagnostic Imaging", 2017; RJafroc's
book states the same formulas)

- A *mark* is a box that a reader or model drew, with a rating. A mark that hits a true box is a lesion
  localisation, any other a non-lesion localisation. Matching comes before this module.
- ``wafroc``: mean over pairs of an image with lesions and one without of the sum over the lesions
  of weight times psi. Psi is 1 where the lesion's rating is above the highest non-lesion rating of the
  image without lesions, 1/2 where both are equal, 0 below. The weights of one image sum to 1, so
  images count alike however many lesions they have.
- ``afroc``: each lesion counts alike, so images with many lesions count more.
- ``wafroc1``, ``afroc1``: the highest non-lesion rating of *all* images, those with lesions included. For test sets
  with hardly any image without lesions. They are other figures, not estimates of the former.
- ``hr_auc``: area under the ROC curve of each image's highest rating; it knows no place.
- What was not marked has the rating minus infinity, and two of these are a tie: 1/2. An observer
  who marks nothing has an ``afroc`` of 1/2. Chance marks in the wrong places have less, down to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from twinray.errors import InputError
from twinray.evaluation.matching import BoxMatches, FlatBoxes
from twinray.records import FloatArray, IntArray

Merit: TypeAlias = Literal["wafroc", "afroc", "wafroc1", "afroc1", "hr_auc"]
MERITS: tuple[Merit, ...] = get_args(Merit)
UNMARKED = -np.inf
_Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ratings:
    """One reader's or model's ratings of a set of images, matched to the lesions.

    Attributes:
        false: (images,) highest rating of a mark that hits no lesion; minus infinity without one.
        lesion_image: (lesions,) position of each lesion's image.
        lesion: (lesions,) rating of the mark that hit it; minus infinity where none did.
        weight: (lesions,) importance; of one image they sum to 1. None weighs the lesions of an
            image alike.

    Raises:
        InputError: a rating that is NaN or plus infinity, or weights that do not sum to 1 (within 1 %).
    """

    false: FloatArray
    lesion_image: IntArray
    lesion: FloatArray
    weight: FloatArray | None = None

    def __post_init__(self) -> None:
        for what, values in (("non-lesion", self.false), ("lesion", self.lesion)):
            bad = np.isnan(values) | (values == np.inf)
            if bad.any():
                raise InputError(
                    f"ratings: expected finite numbers (minus infinity: not marked), {what} rating "
                    f"{int(np.argmax(bad))} is {float(values[bad][0])}; correct or drop it"
                )
        if self.weight is not None:
            if (self.weight < 0).any():
                raise InputError("ratings: expected weights of 0 or more; correct them")
            sums = np.bincount(self.lesion_image, self.weight, len(self.false))
            wrong = self.diseased & (np.abs(sums - 1) > 0.01)
            if wrong.any():
                raise InputError(
                    f"ratings: expected weights of an image's lesions that sum to 1, image "
                    f"{int(np.argmax(wrong))} has {sums[wrong][0]:g}; correct them"
                )

    @property
    def diseased(self) -> npt.NDArray[np.bool_]:
        """(images,) whether the image has a lesion."""
        return np.asarray(np.bincount(self.lesion_image, minlength=len(self.false)) > 0)

    @property
    def highest(self) -> _Array:
        """(images,) highest rating of any mark; minus infinity where nothing was marked."""
        highest = np.array(self.false, dtype=np.float64)
        np.maximum.at(highest, self.lesion_image, self.lesion)
        return highest

    def only(self, images: IntArray) -> Ratings:
        """The same of some images, given by position, each once and in rising order."""
        place = np.full(len(self.false), -1, dtype=np.int64)
        place[images] = np.arange(len(images))
        kept = place[self.lesion_image] >= 0
        weight = None if self.weight is None else self.weight[kept]
        return Ratings(
            self.false[images], place[self.lesion_image[kept]], self.lesion[kept], weight
        )

    def weights(self) -> _Array:
        """(lesions,) weights whose sums over each image are exactly 1."""
        own = np.ones(len(self.lesion)) if self.weight is None else np.asarray(self.weight, float)
        total = np.bincount(self.lesion_image, own, len(self.false))
        return np.asarray(own / total[self.lesion_image])


def ratings_of(
    flat: FlatBoxes, matches: BoxMatches, row: int = 0, *, ignore_repeats: bool = False
) -> Ratings:
    """A detector's, or a reader's, matched boxes as ratings; lesions are true boxes of all classes.

    A box hits a lesion of its own class only. Crowd regions are no lesions, and what they ignore is no mark.

    Args:
        flat: boxes that were matched.
        matches: their matches.
        row: row of ``matches.thresholds``.
        ignore_repeats: whether a further box on a found lesion is nothing rather than a non-lesion mark.
    """
    if matches.true_box is None:
        raise ValueError("matches without the true boxes that were taken")
    real = ~flat.truth_crowd
    number = np.cumsum(real) - 1
    lesion = np.full(int(real.sum()), UNMARKED)
    hit = matches.hit[row]
    np.maximum.at(lesion, number[matches.true_box[row][hit]], matches.score[hit])
    false = np.full(len(flat.ids), UNMARKED)
    wrong = matches.counted(row, ignore_repeats=ignore_repeats) & ~hit
    np.maximum.at(false, matches.image[wrong], matches.score[wrong])
    return Ratings(false, flat.truth_image[real], lesion)


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Lesions with their masses against the images that they are compared with."""

    image: IntArray  # (m,) image of each lesion
    rating: _Array  # (m,)
    mass: _Array  # (m,)
    false: _Array  # (c,) rating of each image compared with
    compared: IntArray  # (c,) its position

    @staticmethod
    def of(ratings: Ratings, merit: Merit) -> _Pairs:
        """Pairs of lesions and images that a figure of merit compares; an unknown one is an InputError."""
        if merit not in MERITS:
            raise InputError(f"figure of merit: expected one of {', '.join(MERITS)}, got {merit!r}")
        diseased = ratings.diseased
        everyone = merit in ("wafroc1", "afroc1")
        compared = np.arange(len(diseased)) if everyone else np.flatnonzero(~diseased)
        false = np.asarray(ratings.false, dtype=np.float64)[compared]
        if merit == "hr_auc":
            image = np.flatnonzero(diseased)
            return _Pairs(image, ratings.highest[image], np.ones(len(image)), false, compared)
        mass = np.ones(len(ratings.lesion)) if merit.startswith("afroc") else ratings.weights()
        return _Pairs(
            ratings.lesion_image, np.asarray(ratings.lesion, float), mass, false, compared
        )

    def below(self, weights: FloatArray) -> _Array:
        """(m, r) weight of the images whose non-lesion rating lies below each lesion's, ties by half."""
        order = np.argsort(self.false, kind="stable")
        ranked = self.false[order]
        total = np.concatenate(
            [np.zeros((1, weights.shape[1])), np.cumsum(weights[self.compared[order]], axis=0)]
        )
        left = np.searchsorted(ranked, self.rating, side="left")
        right = np.searchsorted(ranked, self.rating, side="right")
        return np.asarray((total[left] + total[right]) / 2)


def figure_of_merit(
    ratings: Ratings, merit: Merit = "wafroc", weights: FloatArray | None = None
) -> _Array:
    """An area, for many weightings of the images at once.

    Args:
        ratings: matched ratings.
        merit: name of the area.
        weights: (images, r) how often each image counts, as resamples have it; once each if None.

    Returns:
        (r,) in 0..1; NaN where no image with lesions, or none to compare with, has weight.

    >>> ratings = Ratings(np.array([0.2, -np.inf]), np.array([1]), np.array([0.7]))
    >>> figure_of_merit(ratings).tolist()
    [1.0]
    """
    w = np.ones((len(ratings.false), 1)) if weights is None else np.asarray(weights, float)
    pairs = _Pairs.of(ratings, merit)
    own = w[pairs.image] * pairs.mass[:, None]
    total = own.sum(axis=0) * w[pairs.compared].sum(axis=0)
    found = (own * pairs.below(w)).sum(axis=0)
    return np.asarray(np.divide(found, total, out=np.full(w.shape[1], np.nan), where=total > 0))


def leave_one_out(
    ratings: Ratings, merit: Merit = "wafroc", groups: IntArray | None = None
) -> _Array:
    """The area without each image, or each patient, in turn, for jackknife covariances.

    Args:
        ratings: matched ratings.
        merit: name of the area.
        groups: (images,) numbers of patients from 0 without gaps, where patients have several images: these
            are not independent, so all images of a patient are left out together.

    Returns:
        (images,) or (patients,); NaN where no pair of images is left.
    """
    if groups is not None and len(groups) and len(np.unique(groups)) < len(groups):
        parts = np.array_split(np.arange(int(groups.max()) + 1), max(1, len(groups) // 256))
        kept = ((groups[:, None] != part).astype(np.float64) for part in parts if len(part))
        return np.concatenate([figure_of_merit(ratings, merit, weights) for weights in kept])
    n, pairs = len(ratings.false), _Pairs.of(ratings, merit)
    once = np.ones((n, 1))
    of_lesion = pairs.mass * pairs.below(once)[:, 0]
    rows = np.bincount(pairs.image, of_lesion, n)
    # what each image compared with contributes: mass of the lesions above it, ties by half
    order = np.argsort(pairs.rating, kind="stable")
    ranked = pairs.rating[order]
    above = np.concatenate([np.cumsum(pairs.mass[order][::-1])[::-1], [0.0]])
    left = np.searchsorted(ranked, pairs.false, side="left")
    right = np.searchsorted(ranked, pairs.false, side="right")
    columns = np.zeros(n)
    columns[pairs.compared] = (above[left] + above[right]) / 2
    # an image compared with itself is in both its row and its column
    itself = np.zeros(n)
    compared = np.zeros(n, dtype=bool)
    compared[pairs.compared] = True
    own_false = np.asarray(ratings.false, float)[pairs.image]
    psi = np.where(pairs.rating > own_false, 1.0, np.where(pairs.rating == own_false, 0.5, 0.0))
    np.add.at(itself, pairs.image, np.where(compared[pairs.image], pairs.mass * psi, 0.0))
    mass = np.bincount(pairs.image, pairs.mass, n)
    total = (pairs.mass.sum() - mass) * (len(pairs.compared) - compared)
    left_over = of_lesion.sum() - rows - columns + itself
    return np.asarray(np.divide(left_over, total, out=np.full(n, np.nan), where=total > 1e-12))


def curve(ratings: Ratings, merit: Merit = "wafroc") -> tuple[_Array, _Array]:
    """The curve whose area (by trapezoids) the figure of merit is.

    Returns:
        False positive fraction and (weighted) share of lesions found, each (points,), from (0, 0) over
        every threshold to the straight line's end (1, 1).

    Raises:
        InputError: no lesion, or no image to compare with.
    """
    pairs = _Pairs.of(ratings, merit)
    if not len(pairs.mass) or not len(pairs.compared):
        raise InputError(
            f"{merit} curve: expected images with and without lesions, found one kind; "
            "take wafroc1 where all images have lesions"
        )
    every = np.concatenate([pairs.rating, pairs.false])
    thresholds = np.unique(every[every > UNMARKED])[::-1]
    x = [float(np.mean(pairs.false >= t)) for t in thresholds]
    y = [float(pairs.mass[pairs.rating >= t].sum() / pairs.mass.sum()) for t in thresholds]
    return np.array([0.0, *x, 1.0]), np.array([0.0, *y, 1.0])


def usual_merit(ratings: Sequence[Ratings], fewest: int = 10) -> Merit:
    """``wafroc``; ``wafroc1`` where a set has fewer than ``fewest`` images without lesions.

    The limit is a choice, not from a source.
    """
    return "wafroc" if all((~r.diseased).sum() >= fewest for r in ratings) else "wafroc1"

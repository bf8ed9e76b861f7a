"""The table of a reader study that RJafroc reads: sheets TRUTH, TP and FP.

Layout (RJafroc's quick-start book, FROC data format, read with ``newExcelFileFormat = TRUE``)

- TRUTH: ``CaseID, LesionID, Weight, ReaderID, ModalityID, Paradigm``. One row a lesion, one row (lesion 0, weight 0)
  an image without. Readers and arms stand in every row as whole lists. The first two rows of
  ``Paradigm`` say FROC and FCTRL (crossed), the rest is blank.
- TP: ``ReaderID, ModalityID, CaseID, LesionID, TP_Rating``; FP: ``ReaderID, ModalityID, CaseID, FP_Rating``.
- What was not marked has no row. Weights of one image sum to 1.
- Case ids are whole numbers, here from 1 in the order given.

Names: "TRUTH", "TP" and "FP" are what the reading code and the text agree on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from twinray.errors import InputError
from twinray.evaluation.matching import BoxMatches, FlatBoxes
from twinray.evaluation.readers.afroc import UNMARKED, Ratings
from twinray.records import FloatArray

Sheet: TypeAlias = list[list[int | float | str]]

TRUTH_COLUMNS = ("CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm")
TP_COLUMNS = ("ReaderID", "ModalityID", "CaseID", "LesionID", "TP_Rating")
FP_COLUMNS = ("ReaderID", "ModalityID", "CaseID", "FP_Rating")


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark.

    Attributes:
        image: id of the image.
        rating: finite number, higher for surer.
        lesion: number of the lesion that it hits, from 1; 0 where it hits none.
    """

    image: str
    rating: float
    lesion: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ReaderStudy:
    """What readers marked on the same images in every arm.

    Attributes:
        lesions: image id -> weights of its lesions, in their order; empty for an image without any.
        marks: (arm, reader) -> marks; every pair of an arm and a reader has an entry.

    Raises:
        InputError: a pair that is missing, a mark on an image or lesion that is not there, a lesion marked
            twice, a rating that is not finite, or weights that do not sum to 1 (within 1 %).
    """

    lesions: Mapping[str, Sequence[float]]
    marks: Mapping[tuple[str, str], Sequence[Mark]]

    def __post_init__(self) -> None:
        for image, weights in self.lesions.items():
            if len(weights) and (min(weights) < 0 or abs(math.fsum(weights) - 1) > 0.01):
                raise InputError(
                    f"reader study: expected weights of 0 or more that sum to 1, image {image!r} has {list(weights)}"
                )
        for arm in self.arms:
            for reader in self.readers:
                if (arm, reader) not in self.marks:
                    raise InputError(
                        f"reader study: expected every reader in every arm, reader {reader!r} lacks arm {arm!r}; "
                        "an empty list says that nothing was marked"
                    )
        for (arm, reader), marks in self.marks.items():
            self._check(marks, f"reader {reader!r}, arm {arm!r}")

    def _check(self, marks: Sequence[Mark], where: str) -> None:
        hit: set[tuple[str, int]] = set()
        for mark in marks:
            n = len(self.lesions.get(mark.image, ()))
            if mark.image not in self.lesions or not 0 <= mark.lesion <= n:
                raise InputError(
                    f"reader study: {where} marked lesion {mark.lesion} of image {mark.image!r}, which is not in the truth"
                )
            if not math.isfinite(mark.rating):
                raise InputError(
                    f"reader study: {where} rated image {mark.image!r} {mark.rating}; expected a finite number"
                )
            if mark.lesion and (mark.image, mark.lesion) in hit:
                raise InputError(
                    f"reader study: {where} marked lesion {mark.lesion} of image {mark.image!r} twice; keep the higher rating"
                )
            hit.add((mark.image, mark.lesion))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms (RJafroc's modalities), in the order given."""
        return tuple(dict.fromkeys(arm for arm, _ in self.marks))

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, in the order given."""
        return tuple(dict.fromkeys(reader for _, reader in self.marks))

    def ratings(self, arm: str, reader: str) -> Ratings:
        """One reader's ratings in one arm; images without lesions stand first, as in the sheets."""
        order = self.images()
        place = {image: i for i, image in enumerate(order)}
        first = np.concatenate([[0], np.cumsum([len(self.lesions[image]) for image in order])])
        false = np.full(len(order), UNMARKED)
        lesion = np.full(int(first[-1]), UNMARKED)
        for mark in self.marks[arm, reader]:
            i = place[mark.image]
            if mark.lesion:
                lesion[first[i] + mark.lesion - 1] = mark.rating
            else:
                false[i] = max(false[i], mark.rating)
        weights: FloatArray = np.array([w for image in order for w in self.lesions[image]], float)
        return Ratings(false, np.repeat(np.arange(len(order)), np.diff(first)), lesion, weights)

    def images(self) -> tuple[str, ...]:
        """Image ids in the order of their case numbers: those without lesions first."""
        return tuple(sorted(self.lesions, key=lambda image: len(self.lesions[image]) > 0))


def marks_of(
    flat: FlatBoxes, matches: BoxMatches, row: int = 0, *, ignore_repeats: bool = False
) -> tuple[Mark, ...]:
    """Matched boxes as marks; lesions are numbered as the true boxes of their image stand.

    Args:
        flat, matches, row: boxes, their matches, and a row of the matches' thresholds.
        ignore_repeats: whether a further box on a found lesion is no mark rather than a non-lesion mark.
    """
    if matches.true_box is None:
        raise ValueError("matches without the true boxes that were taken")
    real = ~flat.truth_crowd
    image = flat.truth_image[real]
    number = np.zeros(len(real), dtype=np.int64)
    number[real] = np.arange(len(image)) - np.searchsorted(image, image, side="left") + 1
    counted = np.flatnonzero(matches.counted(row, ignore_repeats=ignore_repeats))
    return tuple(
        Mark(
            str(flat.ids[matches.image[i]]),
            float(matches.score[i]),
            int(number[matches.true_box[row][i]]) if matches.hit[row][i] else 0,
        )
        for i in counted.tolist()
    )


def study_of(
    runs: Mapping[tuple[str, str], tuple[FlatBoxes, BoxMatches]], row: int = 0
) -> ReaderStudy:
    """Arms (or arms by readers) with matched boxes as a reader study; lesions of an image weigh alike.

    Args:
        runs: (arm, reader or seed) -> boxes on the same images with the same truth, and their matches.
        row: row of the matches' thresholds.

    Raises:
        InputError: no run, or runs on other images.
    """
    if not runs:
        raise InputError("reader study: expected at least one arm and reader, found none")
    first = next(iter(runs.values()))[0]
    real = first.truth_image[~first.truth_crowd]
    counts = np.bincount(real, minlength=len(first.ids)).tolist()
    lesions = {
        str(image): [1 / n for _ in range(n)] for image, n in zip(first.ids, counts, strict=True)
    }
    for (arm, reader), (flat, _) in runs.items():
        own = flat.truth_image[~flat.truth_crowd]
        if flat.ids != first.ids or not np.array_equal(own, real):
            raise InputError(
                f"reader study: {reader!r} in arm {arm!r} was matched with other images or true boxes than the first"
            )
    return ReaderStudy(lesions, {place: marks_of(*run, row) for place, run in runs.items()})


def sheets(study: ReaderStudy) -> dict[str, Sheet]:
    """The three sheets, each with its header row; ids of arms, readers and images become numbers from 0 (images from 1).

    A fourth, ``NAMES``, says which number is whose; it is for a file beside, since RJafroc refuses further sheets.
    """
    images = study.images()
    case = {image: i for i, image in enumerate(images, 1)}
    arm = {name: str(i) for i, name in enumerate(study.arms)}
    reader = {name: str(i) for i, name in enumerate(study.readers)}
    whole = (",".join(reader.values()), ",".join(arm.values()))
    truth: Sheet = [list(TRUTH_COLUMNS)]
    for image in images:
        weights = study.lesions[image]
        rows = [(i, float(w)) for i, w in enumerate(weights, 1)] or [(0, 0.0)]
        for lesion, weight in rows:
            paradigm = {1: "FROC", 2: "FCTRL"}.get(len(truth), "")
            truth.append([case[image], lesion, weight, *whole, paradigm])
    hits: Sheet = [list(TP_COLUMNS)]
    wrong: Sheet = [list(FP_COLUMNS)]
    for (a, r), marks in study.marks.items():
        for mark in sorted(marks, key=lambda m: (case[m.image], m.lesion, -m.rating)):
            start: list[int | float | str] = [reader[r], arm[a], case[mark.image]]
            if mark.lesion:
                hits.append([*start, mark.lesion, mark.rating])
            else:
                wrong.append([*start, mark.rating])
    names: Sheet = [["kind", "number", "name"]]
    names += [["arm", number, name] for name, number in arm.items()]
    names += [["reader", number, name] for name, number in reader.items()]
    names += [["image", number, name] for name, number in case.items()]
    return {"TRUTH": truth, "TP": hits, "FP": wrong, "NAMES": names}

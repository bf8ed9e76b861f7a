"""Two detectors on simulated images, whose true figures can be had to any precision; made for ``interval_coverage.py``.

Two models of scores that have little in common, so that an interval that suits one by luck fails on the other:

- ``normal``: an image has a class's finding or not; one that has it has one box and by Poisson's law more. A box is found
  with a chance that depends on the image. Scores of found boxes and of false positives are normal, with a part of their own, a
  part of the image, and a part that both detectors share.
- ``gamma``: how ill a patient is follows a gamma law and multiplies the number of boxes of every class, so that boxes of
  all classes come together. Scores are gamma: bounded below, with a long tail above. False positives crowd in few images.

The second detector of each is a little better than the first. A patient is one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiled_figures import compiled_figures
from twinray.evaluation.accumulate import Weights, mean_over_classes
from twinray.evaluation.levels import BoxSupport, Key
from twinray.evaluation.matching import BoxMatches
from twinray.records import FloatArray

# Boxes of the 14 classes of VinDr-CXR's 4,394 training images with boxes, three readers fused at IoU 0.5.
VINDR = (3386, 230, 745, 2402, 435, 733, 954, 2017, 1867, 1836, 1771, 4058, 131, 3369)
# Boxes of the 8 classes of ChestX-ray14's 880 images with boxes.
NIH = (180, 146, 153, 123, 85, 79, 120, 98)
FREQUENCIES: dict[str, tuple[float, ...]] = {
    "vindr": tuple(n / 4394 for n in VINDR),
    "nih": tuple(n / 880 for n in NIH),
    "five": (0.77, 0.42, 0.17, 0.10, 0.05),
    "one": (0.6,),
    "rare": (0.03,),
}
"""True boxes per image by class."""

GAIN = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """What the models need to know of each class; all (k,).

    Attributes:
        boxes: true boxes per image.
        found: share of them that the first detector finds at any score.
        lift: how far scores of found boxes lie above those of false positives.
        false: false positives per image at any score.
    """

    boxes: FloatArray
    found: FloatArray
    lift: FloatArray
    false: FloatArray

    @staticmethod
    def of(name: str) -> Classes:
        """Classes of a data set; easy and hard ones, frequent and rare ones, in no order."""
        boxes = np.array(FREQUENCIES[name])
        k, i = len(boxes), np.arange(len(boxes))
        if k == 1:
            return Classes(boxes, np.array([0.75]), np.array([1.8]), np.array([2.5]))
        found, lift = 0.45 + 0.4 * ((5 * i) % k) / (k - 1), 1.2 + 1.6 * ((3 * i) % k) / (k - 1)
        return Classes(boxes, found, lift, 0.3 + 0.9 * np.sqrt(boxes))


def _normal(
    n: int, classes: Classes, c: int, image: FloatArray, draw: np.random.Generator
) -> tuple[FloatArray, ...]:
    more = float(np.clip(0.4 * classes.boxes[c], 0.02, 0.6))
    truth = np.where(draw.random(n) < classes.boxes[c] / (1 + more), 1 + draw.poisson(more, n), 0)
    of_box = np.repeat(np.arange(n), truth)
    odds = np.log(classes.found[c] / (1 - classes.found[c])) + 0.5 * image[of_box]
    of_box = of_box[draw.random(len(of_box)) < 1 / (1 + np.exp(-odds))]
    of_false = np.repeat(
        np.arange(n), draw.poisson(classes.false[c] * np.exp(0.5 * draw.normal(size=n) - 0.125))
    )
    of = np.concatenate([of_box, of_false])
    hit = np.arange(len(of)) < len(of_box)
    shared = 0.75 * draw.normal(size=len(of)) + 0.4 * draw.normal(size=n)[of]
    scores = [
        shared + 0.55 * draw.normal(size=len(of)) + (classes.lift[c] + gain) * hit
        for gain in (0.0, GAIN)
    ]
    return truth, of, hit, np.stack(scores)


def _gamma(
    n: int, classes: Classes, c: int, image: FloatArray, draw: np.random.Generator
) -> tuple[FloatArray, ...]:
    truth = np.minimum(draw.poisson(classes.boxes[c] * image), 8)
    of_box = np.repeat(np.arange(n), truth)
    of_false = np.repeat(
        np.arange(n), draw.poisson(classes.false[c] * draw.gamma(1.0, 1.0, size=n))
    )
    of = np.concatenate([of_box, of_false])
    hit = np.arange(len(of)) < len(of_box)
    shared, luck = draw.gamma(1.0, 1.0, size=len(of)), draw.random(len(of))
    scores = []
    for gain, more in ((0.0, 0.0), (GAIN, 0.03)):
        own = 0.7 * shared + 0.3 * draw.gamma(1.0, 1.0, size=len(of))
        missed = hit & (luck > classes.found[c] + more)
        scores.append(
            np.where(missed, -1.0, own * np.where(hit, 1 + 0.7 * (classes.lift[c] + gain), 1.0))
        )
    return truth, of, hit, np.stack(scores)


def detectors(
    model: str, n: int, classes: Classes, draw: np.random.Generator
) -> tuple[BoxMatches, BoxMatches]:
    """Matches of both detectors on ``n`` new images, at IoU 0.5.

    Args:
        model: ``normal`` or ``gamma``.
        n: images.
        classes: of the data set.
        draw: source of chance.
    """
    make = {"normal": _normal, "gamma": _gamma}[model]
    image = draw.normal(size=n) if model == "normal" else draw.gamma(2.0, 0.5, size=n)
    parts = [make(n, classes, c, image, draw) for c in range(len(classes.boxes))]
    truth = np.stack([p[0] for p in parts], axis=1).astype(np.int64)
    label = np.repeat(np.arange(len(parts)), [len(p[1]) for p in parts])
    of, hit = (np.concatenate([p[i] for p in parts]) for i in (1, 2))
    found = []
    for scores in np.concatenate([p[3] for p in parts], axis=1):
        order = np.lexsort((of, -scores, label))
        order = order[scores[order] > -1]
        starts = np.searchsorted(label[order], np.arange(len(parts) + 1))
        hits = hit[order][None]
        found.append(
            BoxMatches(
                n, (0.5,), of[order], label[order], scores[order], hits, np.zeros_like(hits), starts, truth
            )
        )  # fmt: skip
    return found[0], found[1]


def figures(matches: BoxMatches, weights: Weights, shown: tuple[int, ...]) -> dict[Key, FloatArray]:
    """AP of every class, mAP and FROC over all, and FROC of the classes in ``shown``, for (images, r) multiplicities."""
    table, over_all, single = compiled_figures(matches, weights, shown)
    found: dict[Key, FloatArray] = {(c, "ap50"): own for c, own in enumerate(table)}
    found |= {
        (None, "map50"): mean_over_classes(table),
        (None, "froc"): over_all.mean(axis=0),
        (None, "froc@1"): over_all[3],
    }
    return found | {(c, "froc@1"): own for c, own in zip(shown, single, strict=True)}


def support(matches: BoxMatches) -> BoxSupport:
    """What the figures rest on; every image is a patient."""
    return BoxSupport.of(matches.truth_counts, np.arange(matches.n_images))

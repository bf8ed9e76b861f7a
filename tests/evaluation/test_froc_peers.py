"""FROC under the rules of MONAI and picai_eval: their published definitions, written out here, give the same curves.

MONAI 1.4 ``metrics/froc.py`` (from CAMELYON16's evaluation): a prediction is a point; it hits the object whose mask it lies in; an
object has the highest score of its points; points outside all masks are false positives. picai_eval 1.4 ``eval.py``: candidates are
assigned one to one to lesions of IoU 0.1 or more, as many as possible and then with the largest overlap; candidates that overlap
enough without being assigned are left out, or are false positives where asked for.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from twinray.evaluation.accumulate import froc, froc_rows
from twinray.evaluation.matching import flatten, match
from twinray.records import Boxes

SIDE, CELL = 96, 24


def ours(truth, predictions, hit, rates, *, ignore: bool) -> np.ndarray:
    """(rates,) sensitivity at false positives an image."""
    flat = flatten(truth, predictions, ("a",))
    matches = match(flat, hit if isinstance(hit, str) else (hit,))
    rows = froc_rows(matches, hit, np.arange(len(truth)), ignore_repeats=ignore)
    return froc(rows, np.ones((len(truth), 1)), tuple(rates))[:, 0]


def curve(lesions: np.ndarray, false: np.ndarray, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """False positives an image and sensitivity at every threshold; ``lesions`` have 0 where they were missed.

    MONAI's own loop leaves its lowest threshold out, where the curve ends; it is kept here.
    """
    thresholds = sorted({*lesions[lesions > 0].tolist(), *false.tolist()})
    fps = np.array([(false >= t).sum() for t in thresholds] + [0]) / n_images
    tps = np.array([(lesions >= t).sum() for t in thresholds] + [0]) / len(lesions)
    return fps, tps


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) of corners."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    inner = sides.clip(0).prod(axis=2)
    areas = [(c[:, 2:] - c[:, :2]).prod(axis=1) for c in (a, b)]
    return inner / (areas[0][:, None] + areas[1] - inner)


def monai(truth, predictions) -> tuple[np.ndarray, np.ndarray]:
    lesions, false = [], []
    for image, boxes in truth.items():
        mask = np.zeros((SIDE, SIDE), dtype=int)
        for number, (x1, y1, x2, y2) in enumerate(boxes.xyxy.astype(int), 1):
            mask[y1:y2, x1:x2] = number
        found = predictions[image]
        centres = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
        label = mask[centres[:, 1].astype(int), centres[:, 0].astype(int)]
        false += found.scores[label == 0].tolist()
        lesions += [found.scores[label == i].max(initial=0) for i in range(1, len(boxes) + 1)]
    return curve(np.array(lesions), np.array(false), len(truth))


def picai(truth, predictions, *, extra_are_false: bool) -> tuple[np.ndarray, np.ndarray]:
    lesions, false = [], []
    for image, boxes in truth.items():
        found = predictions[image]
        overlap = iou(boxes.xyxy, found.xyxy)
        overlap[overlap < 0.1] = 0
        overlap[overlap > 0] += 1
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        taken = {r: c for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0}
        lesions += [found.scores[taken[i]] if i in taken else 0.0 for i in range(len(boxes))]
        touching = set(np.flatnonzero((overlap > 0).any(axis=0)))
        out = set(taken.values()) if extra_are_false else touching
        false += [found.scores[c] for c in range(len(found)) if c not in out]
    return curve(np.array(lesions), np.array(false), len(truth))


def draw(seed: int, most: int):
    """True boxes in the cells of a grid, none of them touching; up to ``most`` predictions near each, and false ones in free cells."""
    rng = np.random.default_rng(seed)
    truth, predictions = {}, {}
    for image in range(int(rng.integers(1, 5))):
        cells = rng.permutation((SIDE // CELL) ** 2)
        n = int(rng.integers(0, 5)) if image else int(rng.integers(1, 5))
        corners = np.stack([cells % (SIDE // CELL), cells // (SIDE // CELL)], axis=1) * CELL
        boxes = np.concatenate([corners[:n] + 4, corners[:n] + 18], axis=1).astype(float)
        near = [b + rng.integers(-3, 4, 4) for b in boxes for _ in range(rng.integers(0, most + 1))]
        free = corners[n : n + int(rng.integers(0, 6))]
        away = [np.array([*(c + 5), *(c + rng.integers(12, 18, 2))], dtype=float) for c in free]
        found = np.array([*near, *away]).reshape(-1, 4)
        truth[image] = Boxes(boxes, np.zeros(n, dtype=np.int64))
        scores = rng.integers(1, 8, len(found)) / 8  # ties among them
        predictions[image] = Boxes(found, np.zeros(len(found), dtype=np.int64), scores)
    return truth, predictions


def assert_same_curve(fps, tps, own) -> None:
    """At every number of false positives that the peer's curve has, the most that it finds there."""
    rates = np.unique(fps)
    most = [tps[fps == rate].max() for rate in rates]
    np.testing.assert_allclose(own(rates), most, atol=1e-12)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1))
def test_monai(seed):
    truth, predictions = draw(seed, most=3)
    fps, tps = monai(truth, predictions)
    assert_same_curve(
        fps, tps, lambda rates: ours(truth, predictions, "centre", rates, ignore=True)
    )


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), extra_are_false=st.booleans())
def test_picai_eval_where_no_lesion_has_two_candidates(seed, extra_are_false):
    truth, predictions = draw(seed, most=1)
    fps, tps = picai(truth, predictions, extra_are_false=extra_are_false)
    own = lambda rates: ours(truth, predictions, 0.1, rates, ignore=not extra_are_false)  # noqa: E731
    assert_same_curve(fps, tps, own)


@pytest.mark.parametrize("extra_are_false", [False, True])
def test_of_two_candidates_picai_eval_takes_the_larger_overlap_and_we_the_higher_score(
    extra_are_false,
):
    truth = {0: Boxes(np.array([[0.0, 0, 10, 10]]), np.zeros(1, dtype=np.int64))}
    near = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [40, 40, 50, 50]])
    found = {0: Boxes(near, np.zeros(3, dtype=np.int64), np.array([0.5, 0.9, 0.7]))}
    fps, tps = picai(truth, found, extra_are_false=extra_are_false)
    assert tps[fps == 0].max() == 0  # its score is 0.5, below the false positive
    assert ours(truth, found, 0.1, [0.0], ignore=not extra_are_false).tolist() == [1.0]
    n_false = int(fps.max())
    assert n_false == (2 if extra_are_false else 1)
    assert ours(truth, found, 0.1, [n_false], ignore=not extra_are_false).tolist() == [1.0]


def test_monais_score_is_read_between_the_points_and_ours_at_them():
    """The one difference that is left: MONAI reads its curve by straight lines."""
    truth, predictions = draw(7, most=3)
    fps, tps = monai(truth, predictions)
    rates = (0.25, 0.5, 1, 2, 4, 8)
    score = np.mean(np.interp(rates, fps[::-1], tps[::-1]))
    steps = ours(truth, predictions, "centre", rates, ignore=True).mean()
    assert steps <= score
    points = np.unique(fps)
    own = ours(truth, predictions, "centre", points, ignore=True)
    lower = np.array([tps[fps == rate].min() for rate in points])
    between = [np.interp(rates, points, values).mean() for values in (lower, own)]
    assert between[0] - 1e-12 <= score <= between[1] + 1e-12


# ---- the packages themselves, where they are installed -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_the_definition_of_monai_is_what_its_package_does(seed):
    froc = pytest.importorskip("monai.metrics.froc", reason="MONAI is the oracle of its own rule")
    truth, predictions = draw(seed, most=3)
    false, lesions = [], []
    for image, boxes in truth.items():
        mask = np.zeros((SIDE, SIDE), dtype=int)
        for number, (x1, y1, x2, y2) in enumerate(boxes.xyxy.astype(int), 1):
            mask[y1:y2, x1:x2] = number
        found = predictions[image]
        centres = ((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2).astype(int)
        own = froc.compute_fp_tp_probs_nd(found.scores, centres[:, ::-1], mask)
        false.append(own[0])
        lesions.append(own[1])
        assert own[2] == len(boxes)
    false, lesions = np.concatenate(false), np.concatenate(lesions)
    theirs = froc.compute_froc_curve_data(false, lesions, len(lesions), len(truth))
    fps, tps = monai(truth, predictions)
    # its loop leaves its lowest threshold out: 0 where a lesion was missed, else the curve's last point
    whole = 0 if (lesions == 0).any() else 1
    np.testing.assert_allclose(theirs, (fps[whole:], tps[whole:]), atol=1e-12)
    assert_same_curve(*theirs, lambda rates: ours(truth, predictions, "centre", rates, ignore=True))


@pytest.mark.parametrize("extra_are_false", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_definition_of_picai_eval_is_what_its_package_does(seed, extra_are_false):
    peer = pytest.importorskip("picai_eval", reason="picai_eval is the oracle of its own rule")
    truth, predictions = draw(seed, most=1)
    lesions, false = [], []
    for image, boxes in truth.items():
        mask, found = (np.zeros((1, SIDE, SIDE), dtype=np.float32) for _ in range(2))
        for x1, y1, x2, y2 in boxes.xyxy.astype(int):
            mask[0, y1:y2, x1:x2] = 1
        own = predictions[image]
        for (x1, y1, x2, y2), score in zip(own.xyxy.astype(int), own.scores, strict=True):
            found[0, y1:y2, x1:x2] = score
        told = peer.evaluate(
            [found], [mask], num_parallel_calls=1,
            allow_unmatched_candidates_with_minimal_overlap=not extra_are_false,
        ).lesion_results[0]  # fmt: skip
        lesions += [score for is_lesion, score, _ in told if is_lesion]
        false += [score for is_lesion, score, _ in told if not is_lesion]
    theirs = curve(np.array(lesions, dtype=float), np.array(false, dtype=float), len(truth))
    np.testing.assert_allclose(
        theirs, picai(truth, predictions, extra_are_false=extra_are_false), atol=1e-12
    )
    own = lambda rates: ours(truth, predictions, 0.1, rates, ignore=not extra_are_false)  # noqa: E731
    assert_same_curve(*theirs, own)

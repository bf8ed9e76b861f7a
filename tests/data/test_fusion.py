"""Weighted box fusion: the paper's algorithm, ensemble_boxes as oracle, and independence from the order of rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twinray.data.fusion import fuse_table
from twinray.errors import InputError

ensemble_boxes = pytest.importorskip(
    "ensemble_boxes", reason="the oracle ensemble-boxes is not installed"
)

SIDE = 1000
BOX = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(5, 60), st.integers(5, 60)).map(
    lambda b: (b[0] * 8, b[1] * 8, (b[0] + b[2]) * 8, (b[1] + b[3]) * 8)
)
ROW = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(0, 2), BOX, st.sampled_from(["R1", "R2", "R3"])
)
ROWS = st.lists(ROW, max_size=30)


def columns(rows):
    images, classes, boxes, readers = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list(images), list(classes), np.array(boxes, dtype=float).reshape(-1, 4), list(readers)


def iou(a, b):
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def slow_fusion(rows, scores, threshold):
    """The paper's loop for one image and class, best score first; also the smallest distance of an IoU from the threshold."""
    clusters, margin = [], 1.0
    for k in np.argsort([-s for s in scores], kind="stable"):
        box = np.array(rows[k], dtype=float)
        means = [np.average([m for m, _ in c], axis=0, weights=[w for _, w in c]) for c in clusters]
        overlaps = [iou(m, box) for m in means]
        margin = min([margin, *(abs(o - threshold) for o in overlaps)])
        if len(overlaps) > 1:
            top = sorted(overlaps)[-2:]
            margin = min(margin, top[1] - top[0] if top[1] > threshold else 1.0)
        if overlaps and max(overlaps) > threshold:
            clusters[int(np.argmax(overlaps))].append((box, scores[k]))
        else:
            clusters.append([(box, scores[k])])
    return np.array(
        [np.average([m for m, _ in c], axis=0, weights=[w for _, w in c]) for c in clusters]
    ), margin


def lexsorted(boxes):
    return boxes[np.lexsort(np.round(boxes, 2).T[::-1])]


@settings(max_examples=150, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=14), st.floats(0.2, 0.8), st.integers(0, 99))
def test_agrees_with_the_paper_and_with_ensemble_boxes_where_scores_differ(boxes, threshold, seed):
    scores = 0.3 + 0.7 * (1 + np.random.default_rng(seed).permutation(len(boxes))) / len(boxes)
    slow, margin = slow_fusion(boxes, scores, threshold)
    assume(margin > 1e-4)  # the oracle keeps means in single precision
    xyxy = np.array(boxes, dtype=float)
    ours = fuse_table(
        ["i"] * len(boxes), [0] * len(boxes), xyxy, None, scores=scores, iou=threshold
    )
    np.testing.assert_allclose(lexsorted(ours.xyxy), lexsorted(slow), atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, confidence, _ = ensemble_boxes.weighted_boxes_fusion(
            [xyxy / SIDE], [scores], [np.zeros(len(boxes))], iou_thr=threshold, allows_overflow=True
        )
    np.testing.assert_allclose(lexsorted(ours.xyxy), lexsorted(theirs * SIDE), atol=0.05)
    # Its confidence is the mean times the number of members (one model).
    np.testing.assert_allclose(np.sort(ours.scores * ours.n_boxes), np.sort(confidence), atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows, random):
    expected = fuse_table(*columns(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)
    got = fuse_table(*columns(shuffled))
    for name in ("image_ids", "class_ids", "xyxy", "scores", "n_readers", "n_boxes"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes(), name


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_invariants(rows):
    images, classes, boxes, readers = columns(rows)
    fused = fuse_table(images, classes, boxes, readers)
    assert fused.n_boxes.sum() == len(rows)
    assert np.all((fused.n_readers >= 1) & (fused.n_readers <= np.minimum(fused.n_boxes, 3)))
    for image in set(images):
        for label in set(classes):
            ours = fused.xyxy[(fused.image_ids == image) & (fused.class_ids == label)]
            group = boxes[(np.array(images) == image) & (np.array(classes) == label)]
            assert bool(len(ours)) == bool(len(group))
            if len(group):
                assert (ours.min(0) >= group.min(0) - 1e-9).all() and (
                    ours.max(0) <= group.max(0) + 1e-9
                ).all()
    # One image alone gives what the table gives.
    only = [row for row in rows if row[0] == "a"]
    if only:
        _, labels, xyxy, names = columns(only)
        one = fuse_table(["a"] * len(only), labels, xyxy, names)
        np.testing.assert_array_equal(one.xyxy, fused.xyxy[fused.image_ids == "a"])
        np.testing.assert_array_equal(one.n_readers, fused.n_readers[fused.image_ids == "a"])


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([0.25, 0.5, 2.0, 8.0]), st.sampled_from([0.5, 4.0]))
def test_scaling_an_axis_scales_the_result(rows, sx, sy):
    images, classes, boxes, readers = columns(rows)
    scale = np.array([sx, sy, sx, sy])  # powers of two: exact
    expected = fuse_table(images, classes, boxes, readers)
    np.testing.assert_array_equal(
        fuse_table(images, classes, boxes * scale, readers).xyxy, expected.xyxy * scale
    )


def test_duplicates_of_one_reader_count_once():
    boxes = np.array(
        [[0, 0, 100, 100], [0, 0, 100, 100], [2, 0, 102, 100], [500, 500, 600, 600]], dtype=float
    )
    drawn = (["i"] * 4, [1, 1, 1, 1], boxes, ["R1", "R1", "R2", "R1"])
    fused = fuse_table(*drawn)
    np.testing.assert_allclose(fused.xyxy, [[2 / 3, 0, 100 + 2 / 3, 100], [500, 500, 600, 600]])
    assert fused.n_readers.tolist() == [2, 1]
    assert fused.n_boxes.tolist() == [3, 1]
    assert len(fuse_table(*drawn, min_readers=2)) == 1
    assert len(fuse_table(*drawn, min_readers=3)) == 0


def test_iou_equal_to_the_threshold_does_not_fuse():
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 200]], dtype=float)
    assert len(fuse_table(["i"] * 2, [0, 0], boxes, ["R1", "R2"], iou=0.5)) == 2
    assert len(fuse_table(["i"] * 2, [0, 0], boxes, ["R1", "R2"], iou=0.49)) == 1


def test_tie_order_decides_chains_and_travels_with_its_row():
    # The middle box overlaps both ends alike and fuses with the one that is taken first.
    boxes = np.array([[0, 0, 100, 100], [30, 0, 130, 100], [60, 0, 160, 100]], dtype=float)
    rows = (["i"] * 3, [0] * 3, boxes, ["R1", "R2", "R3"])
    right_first = fuse_table(*rows, tie_order=np.array([2, 0, 1]))
    left_first = fuse_table(*rows, tie_order=np.array([0, 2, 1]))
    assert not np.array_equal(right_first.xyxy, left_first.xyxy)
    again = fuse_table(
        ["i"] * 3, [0] * 3, boxes[::-1], ["R3", "R2", "R1"], tie_order=np.array([1, 2, 0])
    )
    np.testing.assert_array_equal(again.xyxy, left_first.xyxy)


def test_empty_and_nameless():
    fused = fuse_table(["i"], [0], np.array([[5.0, 10, 50, 90]]), None)
    np.testing.assert_array_equal(fused.xyxy, [[5, 10, 50, 90]])
    assert fused.n_readers.tolist() == [1]
    empty = fuse_table([], [], np.zeros((0, 4)), None)
    assert len(empty) == 0 and empty.xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyxy": np.array([[0, 0, 10, 10], [5, 5, 5, 9]])}, "row 1"),
        ({"xyxy": np.array([[0, 0, 10, 10], [5, 5, np.nan, 9]])}, "row 1"),
        ({"xyxy": np.zeros((2, 3))}, "shape"),
        ({"class_ids": [0]}, "class_ids"),
        ({"scores": np.array([1.0, 0.0])}, "scores"),
        ({"iou": 1.0}, "IoU"),
        ({"min_readers": 0}, "min_readers"),
        ({"readers": None, "min_readers": 2}, "names"),
        ({"xyxy": np.array([[0, 0, 10, 10], [5, 5, 4, 9]])}, "image b"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    good = {
        "image_ids": ["a", "b"],
        "class_ids": [0, 0],
        "xyxy": np.array([[0, 0, 10, 10], [5, 5, 9, 9]]),
        "readers": ["R1", "R2"],
    }
    with pytest.raises(InputError, match=message) as caught:
        fuse_table(**(good | change))
    assert "\n" not in str(caught.value)

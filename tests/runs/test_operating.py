"""What a threshold means on validation images, against counting by hand and against the thresholds that a run keeps."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.errors import InputError
from twinray.evaluation.thresholds import choose_thresholds
from twinray.records import Boxes
from twinray.runs.operating import operating, operating_on_val


def boxes(rows, scores=None, labels=None):
    n = len(rows)
    labels = np.zeros(n, np.int64) if labels is None else np.array(labels, np.int64)
    return Boxes(
        np.array(rows, float).reshape(n, 4), labels, None if scores is None else np.array(scores, float)
    )  # fmt: skip


A, B, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [70, 70, 90, 90]


def test_counted_by_hand():
    truth = {"x": boxes([A, B]), "y": boxes([]), "z": boxes([A])}
    found = {
        "x": boxes([A, [0, 0, 10, 11], FAR], [0.9, 0.8, 0.35]),  # the second meets a box that the first took
        "y": boxes([FAR], [0.8]),
    }  # fmt: skip
    table = operating(truth, found, ["a"])[""]
    assert (table.n_images, table.n_boxes) == (3, 3)
    assert [(s.score, s.false, s.found) for s in table.steps] == [
        (0.9, 0, 1),
        (0.8, 2, 1),
        (0.35, 3, 1),
    ]
    assert [(b.low, b.high, b.met, b.n) for b in table.bands] == [
        (0.3, 0.4, 0, 1),
        (0.8, 0.9, 1, 2),
        (0.9, 1.0, 1, 1),
    ]
    told = table.as_json()
    assert told["by_threshold"][1]["fp_per_image"] == pytest.approx(2 / 3)
    assert told["by_threshold"][1]["share_found"] == pytest.approx(1 / 3)
    assert told["by_score"][1]["share_met"] == 0.5


def test_nothing_to_divide_by_is_null():
    table = operating({"x": boxes([])}, {"x": boxes([FAR], [1.0])}, ["a"])[""].as_json()
    assert table["by_threshold"][0]["share_found"] is None
    assert table["by_score"] == [
        {"low": 0.9, "high": 1.0, "share_met": 0.0, "n_met": 0, "n": 1}
    ]  # fmt: skip
    assert operating({}, {}, ["a"])[""].as_json()["by_threshold"] == []


@given(st.integers(0, 2**32 - 1))
def test_classes_add_up_and_a_runs_own_thresholds_agree(seed):
    rng = np.random.default_rng(seed)

    def some(n, scored):
        corner = rng.integers(0, 40, (n, 2)).astype(float)
        rows = np.concatenate([corner, corner + rng.integers(5, 30, (n, 2))], axis=1)
        scores = np.round(rng.random(n), 2) if scored else None
        return Boxes(rows, rng.integers(0, 2, n), scores)

    truth = {i: some(rng.integers(0, 4), False) for i in range(25)}
    found = {i: some(rng.integers(0, 6), True) for i in range(25)}
    tables = operating(truth, found, ["a", "b"])
    assert tables[""].n_boxes == tables["a"].n_boxes + tables["b"].n_boxes
    last = [tables[name].steps[-1] for name in ("", "a", "b") if tables[name].steps]
    if len(last) == 3:
        assert last[0].false == last[1].false + last[2].false
        assert last[0].found == last[1].found + last[2].found
    chosen = choose_thresholds(truth, found, ["a", "b"])
    for point in chosen.points:
        for name, own in point.per_class.items():
            step = next((s for s in tables[name].steps if s.score == own.threshold), None)
            if step is not None:
                assert step.false / 25 == own.fp_per_image
    for table in tables.values():
        assert sum(band.n for band in table.bands) == sum(
            1 for one in found.values() for label in one.labels.tolist()
            if table is tables[""] or table is tables["ab"[label]]
        )  # fmt: skip


def test_many_scores_are_thinned_to_steps_that_are_still_exact():
    rng = np.random.default_rng(0)
    truth = {i: boxes([A]) for i in range(50)}
    found = {i: boxes([A, *[FAR] * 20], rng.random(21)) for i in range(50)}
    table = operating(truth, found, ["a"])[""]
    assert len(table.steps) <= 200 and table.steps[-1].found == 50
    for step in table.steps[::20]:
        above = sum(int((one.scores >= step.score).sum()) for one in found.values())
        assert step.false + step.found == above


def test_what_a_run_keeps(detect_run, tmp_path):
    tables = operating_on_val(detect_run, ["blob"])
    kept = json.loads((detect_run / "predictions_val.json").read_text())
    assert sum(band.n for band in tables[""].bands) == len(kept)
    assert operating_on_val(tmp_path, ["blob"]) is None  # of a run that kept nothing
    with pytest.raises(InputError, match="differ"):
        operating_on_val(detect_run, ["other"])
    copy = tmp_path / "copy"
    shutil.copytree(detect_run, copy)
    (copy / "predictions_val.json").write_text("[]")
    with pytest.raises(InputError):
        operating_on_val(copy, ["blob"])

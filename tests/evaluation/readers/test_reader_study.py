"""Figures of a reader study: counted by hand, against RJafroc's documented example, and from its own table."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.boxes import FrocRule
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.readers.afroc import figure_of_merit, leave_one_out
from twinray.evaluation.readers.jafroc import Mark, ReaderStudy
from twinray.evaluation.readers.mrmc import analyse
from twinray.evaluation.readers.reader_study import Reading, study_figures
from twinray.records import Boxes

ARMS = ("without", "with")
FEW = Resampling(200, 0)


def boxes(*places, ratings=None):
    """Boxes of 10 x 10 pixels at these left edges."""
    left = np.array(places, dtype=float).reshape(-1, 1)
    xyxy = np.concatenate([left, np.zeros_like(left), left + 10, np.full_like(left, 10)], 1)
    scores = None if ratings is None else np.array(ratings, dtype=float) / 100
    return Boxes(xyxy, np.zeros(len(places), dtype=np.int64), scores)


TRUTH = {"d1": boxes(0, 20), "d2": boxes(0), "n1": boxes(), "n2": boxes()}


def reading(reader, arm, case, places=(), ratings=(), seconds=10.0):
    return Reading(reader, arm, case, boxes(*places, ratings=ratings), seconds)


# ann finds one of three lesions without boxes and all with; she marks one place on n1 each time, lower with boxes
ANN = [
    reading("ann", "without", "d1", (0,), (80,), 20),
    reading("ann", "without", "d2", (50,), (30,), 40),
    reading("ann", "without", "n1", (70,), (60,), 30),
    reading("ann", "without", "n2", seconds=10),
    reading("ann", "with", "d1", (0, 20), (90, 50), 10),
    reading("ann", "with", "d2", (0, 0.5), (70, 40), 20),
    reading("ann", "with", "n1", (70,), (20,), 15),
    reading("ann", "with", "n2", seconds=5),
]


def test_a_reader_counted_by_hand():
    found = study_figures(ANN, TRUTH, ["x"], ARMS, resampling=FEW)
    assert found.merit == "wafroc1"  # two cases without lesions are hardly any
    first, second = found.by_reader
    assert (first.reader, first.arm, first.n_cases, first.n_lesions, first.n_marks) == ("ann", "without", 4, 3, 3)  # fmt: skip
    assert first.figures["sensitivity"].value == pytest.approx(1 / 3)
    assert first.figures["false_positives"].value == pytest.approx(2 / 4)
    assert second.figures["sensitivity"].value == 1
    assert second.figures["false_positives"].value == pytest.approx(2 / 4)  # the repeat on d2
    assert (first.seconds.value, second.seconds.value) == (20, 10)  # lower medians of 10..40, 5..20
    assert first.figures["sensitivity"].ci95 is not None
    (difference,) = found.differences
    assert difference.figures["sensitivity"].value == pytest.approx(2 / 3)
    assert difference.time_ratio.value == pytest.approx(0.5)
    assert difference.time_ratio.ci95 == pytest.approx((0.5, 0.5))
    assert found.effects == "fixed-readers" and found.complete == ("ann",)


def test_a_repeat_may_count_for_nothing_in_figures_and_table_alike():
    found = study_figures(ANN, TRUTH, ["x"], ARMS, rule=FrocRule(0.5, "ignore"), resampling=FEW)
    assert found.by_reader[1].figures["false_positives"].value == pytest.approx(1 / 4)
    assert len(found.table.marks["with", "ann"]) == 4
    kept = study_figures(ANN, TRUTH, ["x"], ARMS, resampling=FEW)
    assert len(kept.table.marks["with", "ann"]) == 5


def test_the_table_holds_ratings_as_given_and_the_same_areas():
    bob = [replace(one, reader="bob", marks=boxes(0, 40, ratings=(57, 31))) for one in ANN]
    found = study_figures([*ANN, *bob], TRUTH, ["x"], ARMS, resampling=FEW)
    assert found.table.arms == ARMS and found.table.readers == ("ann", "bob")
    assert Mark("d1", 57, 1) in found.table.marks["with", "bob"]
    assert {m.rating for m in found.table.marks["with", "bob"]} == {57, 31}
    for one in found.by_reader:
        area = figure_of_merit(found.table.ratings(one.arm, one.reader), found.merit)[0]
        assert one.figures["area"].value == pytest.approx(area)
    table = found.table
    theta = np.array([[figure_of_merit(table.ratings(a, r), found.merit)[0] for r in table.readers] for a in ARMS])  # fmt: skip
    left = np.array([[leave_one_out(table.ratings(a, r), found.merit) for r in table.readers] for a in ARMS])  # fmt: skip
    ours = found.crossed["area"].differences[0, 1]
    assert ours.value == pytest.approx(analyse(theta, left).differences[0, 1].value)
    assert ours.error == pytest.approx(analyse(theta, left).differences[0, 1].error)


def test_half_a_reader_is_named_and_in_no_mean():
    bob = [replace(one, reader="bob") for one in ANN[:6]]
    found = study_figures([*ANN, *bob], TRUTH, ["x"], ARMS, resampling=FEW)
    assert found.complete == ("ann",) and found.table.readers == ("ann",)
    assert any("bob read 4 without, 2 with of 4 cases" in note for note in found.notes)
    assert [one.n_cases for one in found.by_reader if one.reader == "bob"] == [4, 2]
    of_bob = next(one for one in found.differences if one.reader == "bob")
    assert of_bob.n_cases == 2  # the same cases in both arms
    assert of_bob.figures["sensitivity"].value == pytest.approx(2 / 3)


def test_patients_are_resampled_with_all_their_cases():
    alone = study_figures(ANN, TRUTH, ["x"], ARMS, resampling=FEW)
    one = study_figures(ANN, TRUTH, ["x"], ARMS, dict.fromkeys(TRUTH, "p"), resampling=FEW)
    assert alone.by_reader[0].figures["sensitivity"].n == 4
    figure = one.by_reader[0].figures["sensitivity"]
    assert figure.n == 1 and figure.ci95 is None and figure.value == pytest.approx(1 / 3)


def test_times_that_are_not_known_are_left_out():
    unknown = [replace(one, seconds=math.nan) if one.case != "n2" else one for one in ANN]
    found = study_figures(unknown, TRUTH, ["x"], ARMS, resampling=FEW)
    assert found.by_reader[0].seconds.value == 10
    assert found.differences[0].time_ratio.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        ([], "one reading"),
        ([*ANN, ANN[0]], "read twice"),
        ([replace(ANN[0], arm="third")], "expected the arm"),
        ([replace(ANN[0], case="d9")], "truth does not name"),
        ([replace(ANN[0], marks=boxes(0, ratings=(0,)))], "rating above 0"),
        ([replace(ANN[0], marks=boxes(0))], "rating above 0"),
    ],
)
def test_what_is_no_reading_is_refused(readings, message):
    with pytest.raises(InputError, match=message):
        study_figures(readings, TRUTH, ["x"], ARMS, resampling=FEW)


def test_rjafrocs_documented_example_through_boxes():
    """The toy data of RJafroc's book (empirical FROC measures), drawn as boxes and read as a study.

    Normals: case 1 unmarked; 2: 0.5; 3: 0.7 and 0.6; 4: -0.3. Diseased: d1 finds its lesion at 0.9 and marks 1.5 beside
    it; d2 -0.2; d3 1.6 and misses a second lesion; d4 3 and 2; d5 1, 2.5 and 1. Lesions of a case weigh alike here
    (0.8125 of the book's formula; its own weights give 0.7425, tested in test_afroc). AFROC does not weigh: 0.8472222.
    """
    marks = {
        "n1": [], "n2": [(90, 0.5)], "n3": [(90, 0.7), (80, 0.6)], "n4": [(90, -0.3)],
        "d1": [(0, 0.9), (90, 1.5)], "d2": [(0, -0.2)], "d3": [(0, 1.6)],
        "d4": [(0, 3), (20, 2)], "d5": [(0, 1), (20, 2.5), (40, 1)],
    }  # fmt: skip
    lesions = {"d1": (0,), "d2": (0,), "d3": (0, 20), "d4": (0, 20), "d5": (0, 20, 40)}
    truth = {case: boxes(*lesions.get(case, ())) for case in marks}

    def rated(value):  # any rising map leaves the areas as they are
        return 10 * value + 50

    readings = [
        reading(reader, arm, case, [p for p, _ in own], [rated(z) for _, z in own])
        for arm in ARMS
        for reader in ("a", "b")
        for case, own in marks.items()
    ]
    found = study_figures(readings, truth, ["x"], ARMS, resampling=FEW)
    assert isinstance(found.table, ReaderStudy)
    for arm in ARMS:
        ratings = found.table.ratings(arm, "a")
        assert figure_of_merit(ratings, "wafroc")[0] == pytest.approx(0.8125)
        assert figure_of_merit(ratings, "afroc")[0] == pytest.approx(0.8472222, abs=5e-8)
        assert figure_of_merit(ratings, "afroc1")[0] == pytest.approx(0.8456790, abs=5e-8)
    assert found.crossed["area"].differences[0, 1].value == pytest.approx(0)

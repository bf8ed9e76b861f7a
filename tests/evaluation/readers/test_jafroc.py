"""The table that RJafroc reads: its layout, and that the same figures come out of it."""

from __future__ import annotations

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.matching import flatten, match
from twinray.evaluation.readers.afroc import figure_of_merit, ratings_of
from twinray.evaluation.readers.jafroc import Mark, ReaderStudy, sheets, study_of
from twinray.records import Boxes

LESIONS = {"b": [0.4, 0.6], "a": [], "c": [], "d": [1.0]}
MARKS = {
    ("plain", "ann"): [Mark("b", 3, 1), Mark("b", 1), Mark("a", 2), Mark("a", 1)],
    ("plain", "bob"): [],
    ("with boxes", "ann"): [Mark("b", 4, 2), Mark("d", 5, 1)],
    ("with boxes", "bob"): [Mark("c", 1)],
}


def test_the_layout():
    found = sheets(ReaderStudy(LESIONS, MARKS))
    assert found["TRUTH"] == [
        ["CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"],
        [1, 0, 0.0, "0,1", "0,1", "FROC"],
        [2, 0, 0.0, "0,1", "0,1", "FCTRL"],
        [3, 1, 0.4, "0,1", "0,1", ""],
        [3, 2, 0.6, "0,1", "0,1", ""],
        [4, 1, 1.0, "0,1", "0,1", ""],
    ]
    assert found["TP"][1:] == [["0", "0", 3, 1, 3], ["0", "1", 3, 2, 4], ["0", "1", 4, 1, 5]]
    assert found["FP"][1:] == [
        ["0", "0", 1, 2],
        ["0", "0", 1, 1],
        ["0", "0", 3, 1],
        ["1", "1", 2, 1],
    ]
    assert ["image", 3, "b"] in found["NAMES"] and ["arm", "1", "with boxes"] in found["NAMES"]


def test_ratings_of_a_study():
    ratings = ReaderStudy(LESIONS, MARKS).ratings("plain", "ann")
    np.testing.assert_array_equal(ratings.false, [2, -np.inf, 1, -np.inf])
    np.testing.assert_array_equal(ratings.lesion, [3, -np.inf, -np.inf])
    # b: 0.4 x (above both) + 0.6 x (below 2, tie with none: 1/4); d: missed, 1/4
    assert figure_of_merit(ratings)[0] == pytest.approx((0.4 + 0.6 / 4 + 0.25) / 2)


def test_a_detectors_boxes_as_a_study_have_the_same_area():
    rng = np.random.default_rng(3)

    def some(n, scored):
        corner = rng.uniform(0, 60, (n, 2))
        scores = np.round(rng.uniform(0, 1, n), 1) if scored else None
        return Boxes(np.concatenate([corner, corner + 30], 1), rng.integers(0, 2, n), scores)

    truth = {f"i{i}": some(int(rng.integers(0, 4)), scored=False) for i in range(25)}
    runs = {}
    for seed in ("0", "1"):
        flat = flatten(truth, {k: some(5, scored=True) for k in truth}, ["x", "y"])
        runs["arm", seed] = (flat, match(flat, [0.3]))
    study = study_of(runs)
    for place, (flat, matches) in runs.items():
        for merit in ("wafroc", "afroc", "wafroc1", "hr_auc"):
            assert figure_of_merit(study.ratings(*place), merit)[0] == pytest.approx(
                figure_of_merit(ratings_of(flat, matches), merit)[0]
            )


@pytest.mark.parametrize(
    ("lesions", "marks", "message"),
    [
        (LESIONS, {**MARKS, ("third", "ann"): []}, "reader 'bob' lacks arm 'third'"),
        ({"a": [0.5]}, {}, "sum to 1, image 'a'"),
        ({"a": []}, {("x", "y"): [Mark("a", 1, 1)]}, "lesion 1 of image 'a', which is not"),
        ({"a": [1.0]}, {("x", "y"): [Mark("a", 1, 1), Mark("a", 2, 1)]}, "twice"),
        ({"a": [1.0]}, {("x", "y"): [Mark("a", float("nan"), 1)]}, "finite"),
    ],
)
def test_what_rjafroc_would_refuse_is_refused(lesions, marks, message):
    with pytest.raises(InputError, match=message):
        ReaderStudy(lesions, marks)

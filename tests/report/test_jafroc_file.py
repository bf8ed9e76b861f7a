"""The workbook that RJafroc reads: its sheets, its cells, and the same areas out of them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from twinray.errors import InputError
from twinray.evaluation.readers.afroc import Ratings, figure_of_merit
from twinray.evaluation.readers.jafroc import Mark, ReaderStudy
from twinray.report.jafroc_file import write_jafroc

openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")

STUDY = ReaderStudy(
    {"b": [0.4, 0.6], "a": [], "c": [], "d": [1.0]},
    {
        ("plain", "ann"): [Mark("b", 3, 1), Mark("b", 1), Mark("a", 2)],
        ("plain", "bob"): [],
        ("boxes", "ann"): [Mark("b", 4, 2), Mark("d", 5, 1)],
        ("boxes", "bob"): [Mark("c", 1)],
    },
)


def test_the_same_areas_come_out_of_the_workbook(tmp_path):
    book_path, names_path = write_jafroc(STUDY, tmp_path / "study.xlsx")
    book = openpyxl.load_workbook(book_path)
    assert book.sheetnames == ["TRUTH", "TP", "FP"]
    truth, hits, wrong = (list(book[name].iter_rows(values_only=True)) for name in book.sheetnames)
    assert [row[5] for row in truth[1:]] == ["FROC", "FCTRL", None, None, None]
    assert all(row[3] == "0,1" and row[4] == "0,1" for row in truth[1:])  # text, not numbers
    lesions = defaultdict(dict)
    for case, lesion, weight, *_ in truth[1:]:
        lesions[case].update({lesion: weight} if lesion else {})
    for a, arm in enumerate(STUDY.arms):
        for r, reader in enumerate(STUDY.readers):
            false = np.full(len(lesions), -np.inf)
            for reader_id, arm_id, case, rating in wrong[1:]:
                if (reader_id, arm_id) == (str(r), str(a)):
                    false[case - 1] = max(false[case - 1], rating)
            found = {(row[2], row[3]): row[4] for row in hits[1:] if row[:2] == (str(r), str(a))}
            keys = [(case, n) for case in sorted(lesions) for n in sorted(lesions[case])]
            ratings = Ratings(
                false,
                np.array([case - 1 for case, _ in keys]),
                np.array([found.get(key, -np.inf) for key in keys]),
                np.array([lesions[case][n] for case, n in keys]),
            )
            assert figure_of_merit(ratings) == figure_of_merit(STUDY.ratings(arm, reader))
    names = names_path.read_text().splitlines()
    assert names[0] == "kind,number,name" and "image,3,b" in names and "reader,1,bob" in names


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.xlsx"):
        write_jafroc(STUDY, tmp_path / "study.csv")

"""Readers in a study's report: a point each, beside curves by the same truth, over folds, from a pack of their own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from twinray.evaluation.record import SplitFigures
from twinray.evaluation.result import ArmResult, Evaluation
from twinray.jobs.evaluate.tested import BoxData
from twinray.records import Boxes
from twinray.report.page.document import Picture, Words
from twinray.studies.report import readers
from twinray.studies.report.gather import Key
from twinray.studies.report.readers import ceiling

WHO = "ann;bob;cid"


def boxes(*lefts: float, names=None, scores=None) -> Boxes:
    xyxy = np.array([[x, 0, x + 10, 10] for x in lefts], dtype=float).reshape(-1, 4)
    return Boxes(
        xyxy,
        np.zeros(len(lefts), dtype=np.int64),
        None if scores is None else np.array(scores, dtype=float),
        readers=names,
    )


DRAWN = {
    "a": boxes(0, 1, 40, names=("ann", "bob", "cid")),
    "b": boxes(),
    "c": boxes(20, 21, 22, names=("ann", "bob", "cid")),
    "d": boxes(5, names=("ann",)),
}


class _Pack:
    def __init__(self, readers_too: bool) -> None:
        self.ids = [*DRAWN]
        self.patients = [None, "p", "q", "q"]
        self.attributes = ("readers",) if readers_too else ()

    def attribute(self, name: str) -> list[str]:
        return [WHO] * len(self.ids)

    def boxes(self, row: int) -> Boxes:
        return DRAWN[self.ids[row]]


def model_on(*images: str) -> SimpleNamespace:
    found = {i: boxes(*DRAWN[i].xyxy[:1, 0], scores=[0.9] * min(1, len(DRAWN[i]))) for i in images}
    data = BoxData({i: DRAWN[i] for i in images}, found, dict.fromkeys(images))
    return SimpleNamespace(data=data, images=images)


def study(folds: bool) -> SimpleNamespace:
    arms, results = {}, {}
    for name in ("random", "ours"):
        parts = (
            [model_on("a", "b"), model_on("c", "d")] if folds else [model_on("a", "b", "c", "d")]
        )
        arms[name] = SimpleNamespace(family=name, fraction=1.0, tested=parts)
        results[name] = ArmResult(SplitFigures({}), (), "nothing", {}, name, 1.0)
    result = Evaluation("detector", "", "test", "", ("mass",), 1, (0,), "", results, {})
    task = SimpleNamespace(title="Lesions", kind="detector", arms=("random", "ours"), shares=(1.0,))
    key = Key("lesions", "", 0)
    return SimpleNamespace(
        measured={key: SimpleNamespace(arms=arms, result=result)},
        task=lambda _: task,
        state=SimpleNamespace(plan=SimpleNamespace(readers={})),
    )


@pytest.mark.parametrize("folds", [False, True])
def test_readers_stand_beside_curves_of_their_own_truth(folds, monkeypatch):
    packs = [_Pack(readers_too=True)] * (2 if folds else 1)
    monkeypatch.setattr(readers, "readers_packs", lambda *_: packs)
    found, told = ceiling(study(folds))
    of_readers, chart, against = (one for one in found if isinstance(one, Words | Picture))
    # three readers of four images; false positives a reading: cid's box on a, ann's on d
    everybody = of_readers.table.rows[0]
    assert everybody[:2] == ("all readers", "12") and everybody[3].startswith(f"{2 / 12:.3f}")
    assert "not known" not in str(of_readers.table.rows)
    assert "a reader against the others" in chart.data.decode() and "ours" in chart.data.decode()
    assert [row[0] for row in against.table.rows[::4]] == ["random", "ours"]
    assert told.startswith("At the readers' 0.17 false positives an image, ours finds")


def test_arms_are_compared_on_the_images_that_all_of_them_saw(monkeypatch):
    """An early opening: an arm whose second fold is not done had no box there, as if it had found nothing."""
    monkeypatch.setattr(readers, "readers_packs", lambda *_: [_Pack(readers_too=True)] * 2)
    part = study(folds=True)
    arms = next(iter(part.measured.values())).arms
    arms["ours"].tested = arms["ours"].tested[:1]
    found, _ = ceiling(part)
    of_readers, _, against = (one for one in found if isinstance(one, Words | Picture))
    assert of_readers.table.rows[0][1] == "6"  # three readers of the two images of the first fold
    ours, theirs = ([row[2:] for row in against.table.rows if row[0] == a] for a in arms)
    assert ours == theirs
    part.state.plan.readers["lesions"] = None
    arms["ours"].tested = []
    assert ceiling(part)[0] == ("Lesions: no image was tested by every arm with all labels, so readers have nothing beside them.",)  # fmt: skip


def test_who_drew_nothing_is_not_guessed(monkeypatch):
    monkeypatch.setattr(readers, "readers_packs", lambda *_: [_Pack(readers_too=False)])
    found, _ = ceiling(study(folds=False))
    of_readers = next(one for one in found if isinstance(one, Words))
    assert of_readers.table.rows[0][1] == "6" and "not known" in of_readers.table.rows[0][4]
    assert "false positives are too high" in of_readers.table.note

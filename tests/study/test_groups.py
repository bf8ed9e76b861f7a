"""Groups of patients in a study's report: over all folds, and never the end of the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from twinray.studies.report import gather


def pack(ids: list[str], **columns: list[str]) -> SimpleNamespace:
    return SimpleNamespace(
        ids=np.array(ids),
        attributes=tuple(columns),
        attribute=lambda name: columns[name],
        where=lambda split: np.arange(len(ids)),
    )


@pytest.fixture
def folds(monkeypatch):
    def made(*packs):
        places = {Path(str(i)): one for i, one in enumerate(packs)}
        monkeypatch.setattr(gather, "_opened", lambda paths: places[paths[0]])
        return gather._groups([*places])

    return made


def test_folds_share_their_groups(folds):
    found = folds(
        pack(["a", "b"], sex=["F", "F"], age=["70", "9"]),
        pack(["c"], sex=["M"], age=[""]),
    )
    assert found["sex"] == ({"a": "F", "b": "F", "c": "M"}, ("F", "M"))
    of, order = found["age"]
    assert of["c"] == "unknown" and of["a"] != of["b"] and order[-1] == "unknown"


def test_what_tells_nobody_apart_is_left_out(folds):
    one = pack(
        [*map(str, range(60))], sex=["F"] * 60, view=[*map(str, range(60))], age=["old"] * 60
    )
    assert folds(one) == {}  # one group, more groups than a table holds, no numbers
    assert folds(pack(["a"], sex=["F"]), pack(["b"])) == {}
    assert folds(pack(["a"], sex=["F"]), None) == {}

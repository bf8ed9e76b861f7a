"""Boxes read from Arrow's own arrays are those that its Python objects say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.data.pack import SCHEMA, Pack, PackInfo
from twinray.records import Boxes

box = st.tuples(*[st.floats(0, 100)] * 4)


@st.composite
def box_rows(draw: st.DrawFn) -> dict[str, Any]:
    """One row's four box columns: never annotated, no box, or some; with and without readers."""
    if draw(st.booleans()):
        return {"boxes": None, "box_classes": None, "box_readers": None, "box_n_readers": None}
    boxes = draw(st.lists(box, max_size=3))
    n = len(boxes)
    return {
        "boxes": [list(b) for b in boxes],
        "box_classes": draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)),
        "box_readers": draw(
            st.none() | st.lists(st.sampled_from(["R1", "R2", "é"]), min_size=n, max_size=n)
        ),
        "box_n_readers": draw(st.none() | st.lists(st.integers(1, 3), min_size=n, max_size=n)),
    }


def opened(table: pa.Table) -> Pack:
    info = PackInfo((), (), tuple("abcdef"), "none", 8, 1, "pad", (), (), {}, 0, {}, (), "", {})  # type: ignore[arg-type]
    n, nothing = len(table), np.zeros((0, 0))
    objects = np.empty(n, dtype=object)
    return Pack(Path("x"), info, np.zeros((n, 8, 8), np.uint8), table, objects, objects, objects, nothing.astype(int), nothing, nothing)  # fmt: skip


def said(row: dict[str, Any]) -> Boxes | None:
    if row["boxes"] is None:
        return None
    return Boxes(
        np.asarray(row["boxes"], dtype=np.float64).reshape(-1, 4),
        np.asarray(row["box_classes"], dtype=np.int64),
        readers=None if row["box_readers"] is None else tuple(row["box_readers"]),
        n_readers=None
        if row["box_n_readers"] is None
        else np.asarray(row["box_n_readers"], dtype=np.int64),
    )


@given(st.lists(box_rows(), max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_boxes_are_what_the_table_says(rows: list[dict[str, Any]], cut: int, first: int) -> None:
    fields = [field for field in SCHEMA if field.name.startswith("box")]
    whole = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    for table in (
        whole,
        pa.concat_tables([whole.slice(0, cut), whole.slice(cut)]),
        whole.slice(first),
    ):
        pack = opened(table)
        for i, row in enumerate(table.to_pylist()):
            for found, true in (
                (pack.boxes(i), said(row)),
                (pack.boxes(i - len(table)), said(row)),
            ):
                assert (found is None) == (true is None)
                if found is None or true is None:
                    continue
                for name in ("xyxy", "labels", "n_readers"):
                    one, other = getattr(found, name), getattr(true, name)
                    np.testing.assert_array_equal(one, other)
                    assert one is None or (one.dtype == other.dtype and one.flags.writeable)
                assert found.readers == true.readers
        with pytest.raises(IndexError):
            pack.boxes(len(table))

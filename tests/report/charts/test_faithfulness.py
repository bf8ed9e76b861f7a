from __future__ import annotations

import csv
import io

from PIL import Image

from twinray.report.charts.faithfulness import (
    faithfulness_chart,
    faithfulness_csv,
    faithfulness_table,
)
from twinray.report.pictures.panels import as_png

MEASURES = ("pointing", "energy", "deletion", "insertion")


def figure(value: float | None, ends: list[float] | None) -> dict[str, object]:
    return {"value": value, "ci95": ends, "n": 7}


def of_map(value: float) -> dict[str, object]:
    own = {m: figure(value, [value / 2, min(1.0, value * 2)]) for m in MEASURES}
    return {**own, "n_boxes": 9, "per_class": {"nodule, small": {**own, "n_boxes": 4}}}


FIGURES = {
    "odam": of_map(0.4),
    "box": of_map(0.8),
    "gaussian": {**of_map(0.9), "energy": figure(None, None)},
}


def test_table_and_csv_say_what_the_figures_say() -> None:
    table = faithfulness_table(FIGURES, MEASURES)
    assert [row[0] for row in table.rows] == [
        "odam",
        "floor: box, filled",
        "floor: Gaussian in box",
    ]
    assert table.rows[0][1] == "0.40\n0.20 to 0.80"
    assert table.rows[2][2] == "not defined"
    assert "9 correctly found boxes" in table.caption
    rows = list(csv.DictReader(io.StringIO(faithfulness_csv(FIGURES, MEASURES))))
    assert len(rows) == 3 * 2 * 4
    first = rows[0]
    assert (first["class"], first["map"], first["measure"], first["value"], first["boxes"]) == (
        "", "odam", "pointing", "0.4", "9",
    )  # fmt: skip
    assert {r["class"] for r in rows} == {"", "nodule, small"}
    empty = next(r for r in rows if r["map"] == "gaussian" and r["measure"] == "energy")
    assert (empty["value"], empty["low"]) == ("", "")


def test_the_chart_is_one_png_the_same_twice() -> None:
    draw = [
        as_png(faithfulness_chart(FIGURES, MEASURES, "Heat maps of $run$ " * 12)) for _ in range(2)
    ]
    assert draw[0] == draw[1]
    assert Image.open(io.BytesIO(draw[0])).width > 1200
    two = as_png(faithfulness_chart(FIGURES, MEASURES[:2], "two measures"))
    assert Image.open(io.BytesIO(two)).width < 1200
    sheet = faithfulness_chart(FIGURES, MEASURES, "t")
    assert "not a medical device" in sheet.get_supxlabel()
    assert [axes.get_title("left") for axes in sheet.axes][2] == "Deletion: less is better"

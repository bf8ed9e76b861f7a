from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from twinray.records import Boxes
from twinray.report.fonts import cut_in_middle
from twinray.report.pictures.contact_sheet import contact_sheet
from twinray.report.pictures.panels import Panel, as_png

RNG = np.random.default_rng(0)
TRUE = Boxes(np.array([[5.0, 5, 41, 29], [8.0, 8, 41, 29]]), np.array([0, 1]))
FOUND = Boxes(
    np.array([[4.0, 4, 20, 20], [30, 10, 60, 40]]), np.array([0, 1]), np.array([0.9, 0.1])
)
CLASSES = ("nodule $x$", "effusion")


def row(height: int, width: int, title: str = "an image") -> list[Panel]:
    image = RNG.integers(0, 256, (height, width), dtype=np.uint8)
    heat = np.linspace(0, 1, image.size, dtype=np.float32).reshape(image.shape)
    return [
        Panel(title, image, TRUE, name_truth=True),
        Panel("", image, None, FOUND, heat),
        Panel(
            "no box scored 0.05 or more",
            image,
            None,
            Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)),
        ),
    ]


ROWS = [row(64, 64), row(48, 96, "a-name/that-is-much-too-long" * 4), row(120, 60, "$")]
HEADINGS = [
    "image and true boxes",
    "run_a",
    "a run with a name that is far too long for its column" * 2,
]


def test_a_sheet_is_one_png_the_same_twice_and_every_text_keeps_to_itself() -> None:
    sheet = contact_sheet(ROWS, HEADINGS, [CLASSES] * 3, note="A note. " * 40)
    data = as_png(sheet)
    assert data == as_png(contact_sheet(ROWS, HEADINGS, [CLASSES] * 3, note="A note. " * 40))
    image = Image.open(io.BytesIO(data))
    assert image.size[0] == pytest.approx(3 * 3.2 * 128, abs=2)
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()
    texts = [t for axes in sheet.axes for t in (axes.title, *axes.texts) if t.get_text()]
    assert len(texts) >= 3 + 3 + 3 * 2
    boxes = [t.get_window_extent(renderer) for t in texts]
    headings = [b for t, b in zip(texts, boxes, strict=True) if t.get_fontsize() == 12]
    others = [b for t, b in zip(texts, boxes, strict=True) if t.get_fontsize() == 10.5]
    assert len(headings) == 3
    for i, one in enumerate(headings + others):
        assert one.x0 >= 0 and one.x1 <= image.size[0]
        assert not any(one.overlaps(other) for other in (headings + others)[i + 1 :])


def test_true_boxes_are_named_only_where_asked() -> None:
    sheet = contact_sheet([ROWS[0]], HEADINGS, [CLASSES] * 3)
    named = [[t.get_text() for t in axes.texts] for axes in sheet.axes]
    assert named[0][:2] == [r"nodule \$x\$", "effusion"]
    assert named[1][:2] == [r"nodule \$x\$ 0.90", "effusion 0.10"]


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 2 panels"):
        contact_sheet([ROWS[0]], HEADINGS[:2], [CLASSES] * 2)
    with pytest.raises(ValueError, match="rows of 3 panels"):
        contact_sheet([], HEADINGS, [CLASSES] * 3)


def test_long_names_keep_both_ends() -> None:
    assert cut_in_middle("short", 10) == "short"
    assert cut_in_middle("begin-middle-end", 9) == "begi…-end"
    assert len(cut_in_middle("x" * 100, 20)) == 20


def test_the_last_row_may_be_shorter_and_every_panel_is_drawn() -> None:
    panels = [Panel(f"image {k}\nwhy it is here", np.zeros((20, 20), np.uint8)) for k in range(6)]
    sheet = contact_sheet([panels[:4], panels[4:]], ["check", "", "", ""], [()] * 4, inches=2.4)
    shown = [axes for axes in sheet.axes if axes.images]
    assert len(shown) == 6 and len(sheet.axes) == 8
    assert [axes.get_title() for axes in shown] == [panel.title for panel in panels]
    with pytest.raises(ValueError, match="expected rows of 4 panels"):
        contact_sheet([panels[:2], panels[2:]], ["check", "", "", ""], [()] * 4)

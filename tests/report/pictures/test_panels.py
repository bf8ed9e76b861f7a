from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from twinray.records import Boxes
from twinray.report.pictures.panels import Panel, as_png, best, panel_row, scaled
from twinray.report.pictures.single import box_picture, overlay

GREY = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
FOUND = Boxes(
    np.array([[4.0, 4, 20, 20], [30, 10, 60, 40], [0, 0, 64, 48]]),
    np.array([0, 1, 1]),
    np.array([0.9, 0.9, 0.2]),
)
TRUE = Boxes(np.array([[5.0, 5, 21, 19]]), np.array([0]))
CLASSES = ("nodule $x_1$", "a class with a very long name indeed")


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "PNG"
    return image


def test_a_row_of_panels_is_one_png_the_same_twice() -> None:
    heat = np.linspace(0, 1, GREY.size, dtype=np.float32).reshape(GREY.shape)
    panels = [
        Panel("a", GREY, TRUE, FOUND),
        Panel("b", np.stack([GREY] * 3, axis=2), None, FOUND, heat),
        Panel("c $", GREY),
    ]
    first, second = (as_png(panel_row(panels, CLASSES, note="A note. " * 20)) for _ in range(2))
    assert first == second
    assert opened(first).width > 2 * opened(first).height


def test_true_and_predicted_boxes_have_colours_of_their_own() -> None:
    flat = np.full((64, 64), 128, np.uint8)
    box = Boxes(np.array([[10.0, 10, 50, 50]]), np.array([0]))
    drawn = [
        np.asarray(
            opened(as_png(panel_row([Panel("", flat, *pair)], ("x",)))).convert("RGB")
        ).reshape(-1, 3)
        for pair in ((box, None), (None, Boxes(box.xyxy, box.labels, np.array([0.5]))))
    ]
    for pixels, own, other in (
        (drawn[0], (86, 212, 255), (255, 210, 63)),
        (drawn[1], (255, 210, 63), (86, 212, 255)),
    ):
        assert (pixels == own).all(axis=1).sum() > 50
        assert (pixels == other).all(axis=1).sum() == 0


def test_a_heat_map_must_fit_its_image() -> None:
    with pytest.raises(ValueError, match="heat map of shape"):
        panel_row([Panel("", GREY, heat_map=np.zeros((3, 3)))], CLASSES)
    with pytest.raises(ValueError, match="at least one panel"):
        panel_row([], CLASSES)


def test_best_boxes_come_first_and_ties_keep_their_order() -> None:
    kept = best(FOUND, 2, 0.3)
    np.testing.assert_array_equal(kept.xyxy, FOUND.xyxy[:2])
    assert len(best(FOUND, 3, 0.95)) == 0
    assert best(FOUND, 3, 0.0).scores is not None and len(best(FOUND, 3, 0.0)) == 3


def test_boxes_follow_the_scale_of_the_shown_image() -> None:
    np.testing.assert_allclose(scaled(FOUND, (0.5, 2.0)).xyxy[1], [15, 20, 30, 80])


def test_pictures_of_predict_and_explain() -> None:
    heat = np.zeros(GREY.shape, np.float32)
    one = Boxes(
        FOUND.xyxy[:1], FOUND.labels[:1], FOUND.scores[:1] if FOUND.scores is not None else None
    )
    assert opened(as_png(overlay(GREY, CLASSES, FOUND, TRUE))).width > 400
    assert (
        opened(
            as_png(overlay(GREY, CLASSES, Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))))
        ).width
        > 400
    )
    picture = box_picture(GREY, heat, CLASSES, one, None, (1.0, 1.0), "what it is")
    assert opened(as_png(picture)).width > 800

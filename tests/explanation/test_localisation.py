from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.explanation.faithfulness import energy_inside, pointing_hit
from twinray.explanation.localisation import (
    LOCALISATION_MEASURES,
    elsewhere_floor,
    measure_map,
    middle_floor,
    pieces,
    union,
    whole_floor,
)

BOX = np.array([[10.0, 20.0, 30.0, 40.0]])


def named(heat, boxes):
    return dict(zip(LOCALISATION_MEASURES, measure_map(heat, boxes).tolist(), strict=True))


def filled(x1, y1, x2, y2, size=64):
    heat = np.zeros((size, size), dtype=np.float32)
    heat[y1:y2, x1:x2] = 1
    return heat


def test_a_map_that_is_the_box_is_perfect():
    found = named(filled(10, 20, 30, 40), BOX)
    assert found == {"pointing": 1, "energy": 1, "empty": 0, "localised@0.1": 1, "localised@0.3": 1, "localised@0.5": 1, "iou": 1}  # fmt: skip


def test_half_a_box():
    found = named(filled(10, 20, 20, 40), BOX)
    assert (
        found["iou"] == pytest.approx(0.5) and found["localised@0.5"] == 1 and found["energy"] == 1
    )
    shifted = named(filled(20, 20, 40, 40), BOX)  # IoU 1/3
    assert (
        shifted["localised@0.3"] == 1
        and shifted["localised@0.5"] == 0
        and shifted["energy"] == pytest.approx(0.5)
    )


def test_one_of_several_pieces_and_boxes_is_enough():
    heat = filled(0, 0, 5, 5) + filled(10, 20, 30, 40) * 0.6
    boxes = np.vstack([BOX, [[50, 50, 60, 60]]])
    found = named(heat, boxes)
    assert found["localised@0.5"] == 1 and found["pointing"] == 0  # the peak is in the corner
    faint = named(filled(0, 0, 5, 5) + filled(10, 20, 30, 40) * 0.4, boxes)
    assert faint["localised@0.1"] == 0  # below half of the peak


def test_an_empty_map_has_nothing():
    found = named(np.zeros((64, 64)), BOX)
    assert found["empty"] == 1 and sum(found.values()) == 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_of_one_box_they_are_the_detectors_measures(seed):
    rng = np.random.default_rng(seed)
    heat = rng.random((24, 24)).round(1).astype(np.float32)
    x, y = np.sort(rng.random(2) * 24), np.sort(rng.random(2) * 24)
    box = np.array([x[0], y[0], x[1] + 1, y[1] + 1])
    found = named(heat, box[None])
    assert found["pointing"] == pytest.approx(pointing_hit(heat, box))
    assert found["energy"] == pytest.approx(energy_inside(heat, box), abs=1e-6)


def test_overlapping_boxes_count_once():
    boxes = np.vstack([BOX, BOX + 5])
    assert union(boxes, (64, 64)).max() == 1
    assert named(whole_floor((64, 64)), boxes)["energy"] == pytest.approx((400 + 400 - 225) / 64**2)


def test_floors():
    assert named(whole_floor((64, 64)), BOX)["pointing"] == pytest.approx(400 / 64**2)
    middle = middle_floor((64, 64))
    assert np.unravel_index(middle.argmax(), middle.shape) in {
        (31, 31),
        (31, 32),
        (32, 31),
        (32, 32),
    }
    elsewhere = elsewhere_floor(np.vstack([BOX, BOX, [[0, 0, 20, 30]]]), (64, 64))
    assert (
        elsewhere.max() == 1 and elsewhere[25, 15] == 1 and elsewhere[25, 5] == pytest.approx(1 / 3)
    )
    assert (elsewhere_floor(np.zeros((0, 4)), (8, 8)) == 1).all()


def test_pieces_touch_at_corners():
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[4:, 5] = True
    assert pieces(mask).tolist() == [[0, 0, 2, 2], [5, 4, 6, 6]]

"""The checks of ``twinray look``: what they find in images that were corrupted by known amounts, and that they are exact where they can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from twinray.data.look.archive import CHECKS, WRONG, judge
from twinray.data.look.measure import Measures, measured, mirrored_gradients
from twinray.data.look.sides import margin_for, mirror_scores
from twinray.data.look.text import text_lines
from twinray.data.phantom.images import PhantomConfig, phantom_collection

N = 90


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray]:
    collection = phantom_collection(PhantomConfig(images=N, size=128, seed=3))
    return [collection.load(sample).array for sample in collection.samples]


@pytest.fixture(scope="module")
def clean(pixels: list[np.ndarray]) -> list[Measures]:
    return [measured(image) for image in pixels]


def flags(images: list[Measures], lateral: tuple[int, ...] = ()) -> list[dict[str, str]]:
    names = [str(k) for k in range(len(images))]
    return list(
        judge(images, patients=names, lateral=[k in lateral for k in range(len(images))]).flags
    )


CORRUPTIONS = {
    "negative": lambda image: 255 - image,
    "turned": lambda image: np.rot90(image).copy(),
    "blank": lambda image: np.full_like(image, 80),
    "few levels": lambda image: image // 16 * 16,
    "low contrast": lambda image: image // 5 + 100,
    "border": lambda image: np.pad(image[20:-20, 20:-20], 20),
}


@pytest.mark.parametrize("check", CORRUPTIONS)
def test_corrupted_images_are_found_among_the_others(
    check: str, pixels: list[np.ndarray], clean: list[Measures]
) -> None:
    chosen = (4, 30, 31, 77)
    images = [
        measured(CORRUPTIONS[check](pixels[k])) if k in chosen else clean[k] for k in range(N)
    ]
    found = flags(images)
    assert all(check in found[k] for k in chosen), [found[k] for k in chosen]
    others = [k for k in range(N) if k not in chosen and check in found[k]]
    assert len(others) <= 2, others


def test_every_way_of_turning_is_named(pixels: list[np.ndarray], clean: list[Measures]) -> None:
    done = {"turned by 90 degrees": -1, "turned by 180 degrees": 2, "turned by 270 degrees": 1}
    images = list(clean)
    for k, turns in enumerate(done.values()):
        images[10 * k] = measured(np.rot90(pixels[10 * k], turns).copy())
        images[10 * k + 5] = measured(255 - np.rot90(pixels[10 * k + 5], turns))
    found = flags(images)
    same = {"upside down": "turned by 180 degrees"}  # but for left and right
    told = [found[5 * k].get("turned", "") for k in range(6)]
    assert [same.get(way, way) for way in told] == [way for way in done for _ in range(2)]
    assert ["negative" in found[5 * k] for k in range(6)] == [False, True] * 3


def test_a_copy_names_the_image_that_it_copies_unless_it_is_the_patients_own(
    pixels: list[np.ndarray], clean: list[Measures]
) -> None:
    small = np.asarray(Image.fromarray(pixels[5]).resize((90, 90)))
    images = [*clean[:60], measured(small)]
    patients: list[str | None] = [str(k) for k in range(61)]
    asked = [False] * 61
    assert judge(images, patients=patients, lateral=asked).flags[60]["copy"] == "of image 5"
    patients[60] = "5"
    assert "copy" not in judge(images, patients=patients, lateral=asked).flags[60]
    assert "copy" in judge(images, patients=[None] * 61, lateral=asked).flags[60]


def test_few_images_teach_nothing_and_that_is_said(clean: list[Measures]) -> None:
    found = judge(clean[:20], patients=[None] * 20, lateral=[False] * 20)
    assert "too few to learn from" in found.notes[0]
    assert not any({"negative", "turned", "mirrored"} & own.keys() for own in found.flags)


def test_laterals_are_those_of_the_headers(clean: list[Measures]) -> None:
    found = flags(list(clean), lateral=(2, 50))
    assert [k for k in range(N) if "lateral" in found[k]] == [2, 50]


def test_checks_on_the_list_exist() -> None:
    assert set(WRONG) <= set(CHECKS)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_mirrored_gradients_are_those_of_the_mirrored_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (96, 96)).astype(np.uint8)
    one, other = measured(image), measured(image[:, ::-1].copy())
    assert np.allclose(
        mirrored_gradients(one.gradients.astype(np.float32)), other.gradients, atol=2e-3
    )
    assert np.array_equal(one.ranks[:, ::-1], other.ranks)


@pytest.mark.parametrize("wrong", [0.0, 0.05, 0.2])
def test_the_margin_keeps_false_alarms_without_knowing_which_images_are_wrong(wrong: float) -> None:
    rng = np.random.default_rng(1)
    right = rng.normal(1.2, 0.8, 20_000)
    is_wrong = rng.random(20_000) < wrong
    margin, estimate = margin_for(np.where(is_wrong, -right, right), 0.01)
    truth = float((right < -margin).mean())
    assert margin > 0, "6.7 % of right images score below 0"
    assert truth == pytest.approx(0.01, abs=0.006)
    assert estimate <= 0.01


def test_scores_that_tell_nothing_flag_nothing() -> None:
    rng = np.random.default_rng(0)
    margin, _ = margin_for(rng.normal(0, 1, 2000), 0.01)
    assert margin == float("inf")


def test_the_network_has_a_say_only_in_an_archive_that_it_knows(clean: list[Measures]) -> None:
    """It is asked where three quarters look right to it; elsewhere, as in an archive of hands, its odds change nothing."""
    rng = np.random.default_rng(0)
    nothing = [replace(image, right_way=0.0) for image in clean]
    torn = [
        replace(image, right_way=float(odds))
        for image, odds in zip(clean, rng.normal(0, 9, N), strict=True)
    ]
    assert np.array_equal(mirror_scores(torn), mirror_scores(nothing))

    sure = [replace(image, right_way=-9.0 if k == 5 else 9.0) for k, image in enumerate(clean)]
    assert mirror_scores(sure)[5] < min(0.0, mirror_scores(nothing)[5])

    many = [replace(image, right_way=-9.0 if k % 5 == 0 else 9.0) for k, image in enumerate(clean)]
    assert (mirror_scores(many)[::5] < mirror_scores(nothing)[::5]).all(), "a fifth is mirrored"


@pytest.mark.parametrize("fill", [0, 255])
def test_lines_of_text_are_boxed_and_single_marks_are_not(fill: int) -> None:
    ground = np.tile(np.linspace(60, 180, 400).astype(np.uint8), (300, 1))
    picture = Image.fromarray(ground.copy())
    draw = ImageDraw.Draw(picture)
    draw.text((40, 200), "DOE JANE 1953", font=ImageFont.load_default(size=18), fill=fill)
    draw.text((350, 20), "R", font=ImageFont.load_default(size=24), fill=fill)
    boxes = text_lines(np.asarray(picture))
    assert boxes, "no line was found"
    left, top, right, bottom = boxes[0]
    assert left >= 36 and right <= 200
    assert top >= 196 and bottom <= 226
    assert all(box[1] > 100 for box in boxes), "a single mark is no text"
    assert text_lines(ground) == []

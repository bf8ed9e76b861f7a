"""Windows drawn of linear values: the image's own is what evaluation sees, and nothing else changes with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.backbones.pixels import (
    IMAGENET,
    network_input,
    normalise,
    pixels_to_levels,
    pixels_to_unit,
)
from twinray.classification.transforms import Transforms
from twinray.data.packed_pixels import LevelPixels, shown
from twinray.detection.targets import BoxTargets
from twinray.detection.transforms import TransformOptions, evaluation_batch, training_batch
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.training.loader import PixelSource
from twinray.training.ranks import Ranks
from twinray.training.windows import Windows, in_window

NOTHING = ViewOptions(crop_area=(1.0, 1.0), flip=0, jitter=0, grey=0, blur=0, solarise=0)


def linear(n: int = 6, side: int = 40, seed: int = 0) -> LevelPixels:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 4096, (n, side, side), dtype=np.uint16)
    low = rng.uniform(200, 1200, n)
    return LevelPixels(images, np.stack([low, low + rng.uniform(500, 2500, n)], axis=1))


def source(pixels, n: int) -> PixelSource:
    return PixelSource([pixels], np.stack([np.zeros(n, dtype=np.int64), np.arange(n)], axis=1))


def test_levels_are_the_definition_and_batches_hold_them() -> None:
    pixels = linear()
    batch = source(pixels, 6).gather(np.array([4, 1, 1]))
    assert batch.dtype == torch.float32
    low, high = pixels.windows.T
    expected = (pixels.images.astype(np.float64) - low[:, None, None]) / (high - low)[:, None, None]
    np.testing.assert_allclose(batch.numpy(), expected[[4, 1, 1]], atol=2e-6)
    assert batch.min() < 0 < 1 < batch.max()  # what the window saturates is still there
    unit = pixels_to_unit(batch)
    np.testing.assert_allclose(unit[:, 0].numpy(), expected[[4, 1, 1]].clip(0, 1), atol=2e-6)
    np.testing.assert_array_equal(shown(pixels[4]), np.rint(np.float32(255) * unit[0, 0].numpy()))


def test_display_pixels_go_through_as_before() -> None:
    batch = torch.randint(0, 256, (2, 5, 5), dtype=torch.uint8)
    assert torch.equal(pixels_to_levels(batch), pixels_to_unit(batch))
    assert torch.equal(pixels_to_unit(batch), batch.unsqueeze(1).float() / 255)


@settings(max_examples=50, deadline=None)
@given(width=st.floats(1, 4), shift=st.floats(0, 1), seed=st.integers(0, 99))
def test_windows_stay_in_their_range(width: float, shift: float, seed: int) -> None:
    draws = torch.rand(200, 2, generator=torch.Generator().manual_seed(seed))
    black, drawn = Windows(width, shift).of(draws).unbind(dim=1)
    assert drawn.min() >= 1 / width - 1e-5
    assert drawn.max() <= width + 1e-5
    assert ((black + drawn / 2 - 0.5).abs() <= shift + 1e-5).all()


def test_the_window_of_its_own_is_what_evaluation_sees() -> None:
    """In every way of training, with nothing else switched on, bit for bit."""
    pixels, own = linear(), Windows()
    batch = source(pixels, 6).gather(np.arange(6))
    generator = torch.Generator().manual_seed(0)
    evaluated = network_input(batch, 32, torch.device("cpu"))
    view = ViewMaker(40, dataclasses.replace(NOTHING, windows=own))
    torch.testing.assert_close(
        view(pixels_to_levels(batch), generator), pixels_to_unit(batch), rtol=0, atol=1e-6
    )
    assert torch.equal(Transforms(32, windows=own)(batch, generator), evaluated)
    options = TransformOptions(flip=0.0, windows=own)
    boxes = BoxTargets.from_lists([torch.zeros(0, 4)] * 6, [torch.zeros(0, dtype=torch.int64)] * 6)
    trained, _ = training_batch(batch, boxes, 32, options, generator)
    assert torch.equal(trained, evaluation_batch(batch, 32, "bicubic"))


@pytest.mark.parametrize("part", ["view", "classifier", "detector"])
def test_a_drawn_window_is_the_definition_and_comes_before_all_else(part: str) -> None:
    pixels, windows = linear(), Windows(width=2.0, shift=0.5)
    batch, generator = source(pixels, 6).gather(np.arange(6)), torch.Generator().manual_seed(7)
    if part == "view":
        maker = ViewMaker(40, dataclasses.replace(NOTHING, windows=windows))
        drawn = maker.draw(6, 40, 40, generator)
        found, chosen = maker.apply(pixels_to_levels(batch), drawn), drawn.windows
    elif part == "classifier":
        made = Transforms(40, windows=windows)(batch, generator)
        again = torch.Generator().manual_seed(7)
        torch.rand(6, 3, generator=_after_crops(again))
        chosen = windows.of(torch.rand(6, 2, generator=again))
        found = made
    else:
        options = TransformOptions(flip=0.0, windows=windows)
        boxes = BoxTargets.from_lists(
            [torch.zeros(0, 4)] * 6, [torch.zeros(0, dtype=torch.int64)] * 6
        )
        found, _ = training_batch(batch, boxes, 40, options, generator)
        chosen = windows.of(torch.rand(6, 8, generator=torch.Generator().manual_seed(7))[:, 6:8])
    low, high = (torch.tensor(one).float()[:, None, None] for one in pixels.windows.T)
    black = low + (high - low) * chosen[:, 0, None, None]
    width = (high - low) * chosen[:, 1, None, None]
    values = torch.tensor(pixels.images.astype(np.float32))
    expected = ((values - black) / width).clamp(0, 1).unsqueeze(1)
    if part != "view":
        expected = normalise(expected, IMAGENET)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


def _after_crops(generator: torch.Generator) -> torch.Generator:
    from twinray.training.crops import draw_crops

    draw_crops(6, 40, 40, (1.0, 1.0), (3 / 4, 4 / 3), generator)
    return generator


def test_views_of_display_packs_draw_what_they_always_drew() -> None:
    plain = ViewMaker(32).draw(5, 40, 40, torch.Generator().manual_seed(1))
    linear_ = ViewMaker(32, ViewOptions(windows=Windows(1.5, 0.1))).draw(
        5, 40, 40, torch.Generator().manual_seed(1)
    )
    assert plain.windows.shape == (5, 0)
    for field in dataclasses.fields(plain):
        if field.name != "windows":
            assert torch.equal(getattr(plain, field.name), getattr(linear_, field.name))


def test_two_ranks_share_the_windows_of_one() -> None:
    pixels = linear()
    batch = source(pixels, 6).gather(np.arange(6))
    transforms = Transforms(32, crop_min=0.5, flip=0.5, windows=Windows(2.0, 0.3))
    whole = transforms(batch, torch.Generator().manual_seed(3))
    for rank in range(2):
        ranks = Ranks(rank, 2)
        half = transforms(batch[ranks.share(6)], torch.Generator().manual_seed(3), ranks)
        torch.testing.assert_close(half, whole[ranks.share(6)], rtol=0, atol=1e-6)


def test_windows_on_a_device_are_those_of_the_cpu() -> None:
    levels = torch.randn(4, 1, 8, 8)
    windows = Windows(1.5, 0.1).of(torch.rand(4, 2))
    drawn = ViewMaker(8, dataclasses.replace(NOTHING, windows=Windows(1.5, 0.1))).draw(
        4, 8, 8, torch.Generator().manual_seed(0)
    )
    meta = drawn.to(
        torch.device("meta")
    )  # no device of another kind is at hand: shapes and types alone
    assert (meta.windows.shape, meta.windows.dtype) == ((4, 2), torch.float32)
    assert in_window(levels, windows).shape == levels.shape

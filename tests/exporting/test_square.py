"""What exported loaders make of an image is what the pack made of it."""

from __future__ import annotations

import numpy as np
import pytest

from twinray.data.fit import to_square
from twinray.exporting.files import SQUARE, run_file, write_loader
from twinray.geometry import geometry

SHAPES = [(90, 140), (333, 64), (64, 64), (512, 256), (1, 700), (48, 31)]


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    return run_file(write_loader(SQUARE, tmp_path_factory.mktemp("loader"))).fit


@pytest.mark.parametrize("way", ["squash", "letterbox"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_squares_and_places_are_those_of_the_pack(fit, way, channels, kind, colour, shape):
    rng, side = np.random.default_rng(0), 64
    image = rng.integers(0, np.iinfo(kind).max, (*shape, 3) if colour else shape, dtype=kind)
    found, place = fit(image, {"size": side, "fit": way, "channels": channels})
    wanted = to_square(image, side, way, channels)
    if channels == 3 and not colour:  # grey planes are repeated where they are normalised
        wanted = wanted[..., 0]
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == kind
    boxes = np.array([[3.0, 2.0, 30.5, 41.0], [-5.0, 0.0, 96.0, 96.0]])
    own = geometry(shape[1], shape[0], side, way)
    np.testing.assert_allclose(
        place.to_image(boxes, 96), own.clip(own.to_original(boxes, 96)), rtol=1e-12, atol=1e-9
    )


def test_levels_stay_between_black_and_white(fit):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2, (200, 90, 3)).astype(np.float64)  # cubic weights overshoot here
    found, _ = fit(image, {"size": 64, "fit": "squash", "channels": 1})
    assert found.dtype == np.float32 and found.shape == (64, 64)
    assert found.min() >= 0 and found.max() <= 1 and 0.3 < found.mean() < 0.7
    whole = np.rint(image[..., 0] * 65_535).astype(np.uint16)
    wanted = to_square(whole, 64, "squash", 1) / 65_535
    found, _ = fit(image[..., 0], {"size": 64, "fit": "squash", "channels": 1})
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (5, 6, 4), (5, 6, 1), (2, 5, 6, 3)])
def test_other_shapes_are_no_images(fit, shape):
    with pytest.raises(ValueError, match="expected an image as"):
        fit(np.zeros(shape, np.uint8), {"size": 64, "fit": "squash", "channels": 1})

"""Near copies are found whatever their size, encoding, window or frame; other images are not; the search is exact."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from twinray.data import near_copies
from twinray.data.near_copies import (
    FALSE_ALARMS,
    NEAR,
    are_near,
    more_than_chance,
    nearest,
    perceptual_hashes,
)
from twinray.data.phantom.images import PhantomConfig, phantom_collection


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    drawn = phantom_collection(PhantomConfig(images=24, images_per_patient=1.0))
    return [drawn.load(sample).array for sample in drawn.samples]


def jpeg(image: np.ndarray, side: int, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).resize((side, side)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


COPIES = {
    "smaller, as JPEG": lambda image: jpeg(image, 112, 60),
    "windowed": lambda image: np.clip((image.astype(float) - 25) * 1.25, 0, 255).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255.0) ** 0.7).astype(np.uint8),
    "negative": lambda image: 255 - image,
    "as colour": lambda image: np.repeat(image[..., None], 3, axis=2),
    "in a black frame": lambda image: np.pad(image, len(image) // 16),
    "without a margin": lambda image: image[4:-4, 4:-4],
    "stretched": lambda image: np.asarray(Image.fromarray(image).resize((300, 200))),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_near_and_others_are_not(chests, how):
    known, _ = perceptual_hashes(chests[:12])
    asked, of = perceptual_hashes([COPIES[how](image) for image in chests], asking=True)
    near = set(of[are_near(asked, known)].tolist())
    assert near == set(range(12))


def test_blank_images_say_nothing():
    rng = np.random.default_rng(0)
    faint = (100 + rng.normal(0, 1, (64, 64))).astype(np.uint8)
    words, of = perceptual_hashes([np.zeros((64, 64), np.uint8), faint])
    assert (words.shape, of.shape) == ((0, 4), (0,))
    assert nearest(words, words).shape == (0,)


def test_signs_are_those_of_the_whole_transform():
    """The hash of an image that needs no shrinking, by SciPy's transform in two dimensions."""
    image = np.random.default_rng(3).permutation(1024).reshape(32, 32) // 4
    (words,), _ = perceptual_hashes([image.astype(np.uint8)])
    ranks = np.empty(1024)
    ranks[np.argsort((image.astype(np.uint8)).ravel(), kind="stable")] = np.linspace(-1, 1, 1024)
    expected = dctn(ranks.reshape(32, 32), norm="ortho")[:16, :16].ravel()[1:] > 0
    bits = np.unpackbits(words.astype(">u8").view(np.uint8))[:255].astype(bool)
    assert (bits == expected).mean() > 0.99  # a sign of a frequency near 0 may go either way


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), m=st.integers(1, 40))
def test_nearest_counts_signs(seed, n, m):
    rng = np.random.default_rng(seed)
    bits = rng.random((n + m, 256)) < 0.5
    bits[:, 255] = False
    words = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)
    apart = (bits[:n, None, :] != bits[None, n:, :]).sum(axis=2)
    expected = np.minimum(apart, 255 - apart).min(axis=1)
    assert nearest(words[:n], words[n:]).tolist() == expected.tolist()


@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(0, 2 * NEAR), negative=st.booleans())
def test_the_index_finds_what_a_comparison_of_all_pairs_finds(seed, flips, negative):
    rng = np.random.default_rng(seed)
    bits = rng.random((60, 256)) < 0.5
    bits[:, 255] = False
    asked = bits[:20].copy()
    for row in asked[:10]:
        row[rng.permutation(255)[:flips]] ^= True
    asked[10:] = rng.random((10, 256)) < 0.5
    asked[:, :255] ^= negative
    asked[:, 255] = False
    words, known = (
        np.packbits(each, axis=1).view(">u8").astype(np.uint64) for each in (asked, bits)
    )
    whole = nearest(words, known) <= NEAR
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_copies, "_FEW_PAIRS", 0)
        assert are_near(words, known).tolist() == whole.tolist()
    assert whole[:10].all() == (flips <= NEAR)


def test_few_among_many_are_chance_and_any_among_few_are_not():
    assert more_than_chance(1, 200, 700)
    assert not more_than_chance(0, 200, 700)
    many = 25_000 * 100_000
    assert not more_than_chance(int(many * FALSE_ALARMS), 25_000, 100_000)
    assert more_than_chance(2 * int(many * FALSE_ALARMS), 25_000, 100_000)

"""A perceptual hash of images: it finds copies that were resized, encoded anew, windowed or given a border.

The hash is the sign of the low frequencies of an image's cosine transform, as pHash has it (Zauner, Implementation and
Benchmarking of Perceptual Image Hash Functions, 2010), with three changes for radiographs, which look alike:

- 255 signs (16 x 16 frequencies without the mean) in place of 64. With 64, different patients come as near as copies.
- The 32 x 32 grey values are replaced by their ranks first, so that a window or a gamma changes little.
- Plain borders (black frames, letterbox bars) are cut off for a second hash. An image is as near as its nearest pair of hashes.

Two images are near copies where at most :data:`NEAR` of 255 signs differ, or at least 255 - :data:`NEAR`, as those of a
negative do. ``benchmarks/near_copies.py`` measured what that finds and what it takes for a copy wrongly; ``docs/evaluation.md``
has the table. Crops of 5 % a side and a burnt-in mark of a hundredth of the area are not found.
What training saw is kept by one or two hashes an image; images that are looked up have ten at most, with thin margins cut off
and added.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.stats import poisson

from twinray.data.fit import to_grey
from twinray.records import FloatArray, IntArray

NEAR: Final = 26
"""Most signs of 255 in which near copies differ."""
FALSE_ALARMS: Final = 3e-8
"""Share of pairs of different people's images that are taken for near copies: what is expected of children's radiographs, the
most alike of those measured."""
HASH_BYTES: Final = 32

Words = npt.NDArray[np.uint64]

_SIGNS: Final = 255
_GRID, _SMALL, _KEPT = 128, 32, 16
_PLAIN: Final = 6.0
"""Grey levels between the darkest and the brightest place of a line that still counts as border."""
_LEAST_CONTRAST: Final = 2.0
"""Standard deviation in grey levels below which an image says nothing."""
_MARGINS: Final = (0.0, 0.012, 0.024, -0.012, -0.024)
"""Shares of a side that are cut off, or added, at each edge of an image that is looked up."""
_BLOCK: Final = 1 << 22
_FEW_PAIRS: Final = 1 << 25
_ALL_SIGNS: Final = np.array([0xFFFFFFFFFFFFFFFF] * 3 + [0xFFFFFFFFFFFFFFFE], dtype=np.uint64)


def perceptual_hashes(
    images: Iterable[npt.NDArray[np.uint8]], *, asking: bool = False
) -> tuple[Words, IntArray]:
    """Hashes of images; one or two an image, none of an image that is nearly blank or smaller than 16 pixels.

    Args:
        images: pixels, (h, w) grey or (h, w, 3) RGB, without the bars of a letterbox.
        asking: flag, true for images that are looked up: with further hashes of each, cut or extended a little at all edges,
            so that a copy which lost or gained a margin is found.

    Returns:
        (m, 4) words of 64 signs, and (m,) numbers of the images that they are of.
    """
    signs: list[npt.NDArray[np.bool_]] = []
    of: list[int] = []
    for number, pixels in enumerate(images):
        grey = to_grey(np.asarray(pixels)).astype(np.float32)
        if min(grey.shape) < _KEPT or grey.std() < _LEAST_CONTRAST:
            continue
        grid = _resampled(grey, *(min(_GRID, side) for side in grey.shape))
        inner = _without_border(grid)
        for part in (grid,) if inner is None else (grid, inner):
            for margin in _MARGINS if asking else (0.0,):
                signs.append(_signs(part, margin))
                of.append(number)
    if not signs:
        return np.empty((0, 4), dtype=np.uint64), np.empty(0, dtype=np.int64)
    bits = np.zeros((len(signs), 256), dtype=bool)
    bits[:, :_SIGNS] = signs
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64), np.array(of, dtype=np.int64)


def nearest(asked: Words, known: Words) -> IntArray:
    """(m,) least number of signs in which each hash differs from any of ``known``, negatives counting as alike.

    ``255`` where nothing is known. Every pair is compared.
    """
    least = np.full(len(asked), _SIGNS, dtype=np.int64)
    step = max(1, _BLOCK // max(1, len(known)))
    for start in range(0, len(asked) if len(known) else 0, step):
        part = asked[start : start + step]
        apart = np.zeros((len(part), len(known)), dtype=np.uint16)
        for word in range(part.shape[1]):
            apart += np.bitwise_count(part[:, word, None] ^ known[None, :, word])
        np.minimum(apart, _SIGNS - apart, out=apart)
        least[start : start + step] = apart.min(axis=1)
    return least


def are_near(asked: Words, known: Words) -> npt.NDArray[np.bool_]:
    """(m,) whether each hash is a near copy of any of ``known``.

    Many are looked up in an index (multi-index hashing: Norouzi, Punjani, Fleet, CVPR 2012): of 16 bands of 16 signs, two near
    copies differ in at most one sign in one band at least. Only hashes that agree so are compared in full.
    """
    if len(asked) * len(known) <= _FEW_PAIRS:
        return nearest(asked, known) <= NEAR
    found = np.zeros(len(asked), dtype=bool)
    bands_known = _bands(known)
    flips = np.concatenate([[0], 1 << np.arange(16)]).astype(np.uint16)
    for negative in (False, True):
        looked_up = asked ^ _ALL_SIGNS if negative else asked
        bands = _bands(looked_up)
        for band in range(bands.shape[1]):
            order = np.argsort(bands_known[:, band], kind="stable")
            values = bands_known[order, band]
            left = np.flatnonzero(~found)
            step = max(1, _BLOCK // (len(flips) * max(1, len(known) >> 10)))
            for rows in (left[start : start + step] for start in range(0, len(left), step)):
                probes = bands[rows, band, None] ^ flips
                first = np.searchsorted(values, probes, side="left").ravel()
                n = np.searchsorted(values, probes, side="right").ravel() - first
                which = np.repeat(np.repeat(rows, len(flips)), n)
                places = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(first, n)
                for at in range(0, len(which), _BLOCK):
                    one, other = which[at : at + _BLOCK], order[places[at : at + _BLOCK]]
                    apart = np.bitwise_count(looked_up[one] ^ known[other]).sum(axis=1)
                    found[one[apart <= NEAR]] = True
    return found


def _bands(words: Words) -> npt.NDArray[np.uint16]:
    """(m, 16) the signs in 16 bands, dealt out so that each band has some of every frequency: low ones are alike in most images."""
    bits = np.unpackbits(words.astype(">u8").view(np.uint8), axis=1)
    dealt = bits.reshape(len(words), 16, 16).transpose(0, 2, 1).reshape(len(words), 256)
    shifted = dealt.reshape(len(words), 16, 16)
    for row in range(
        16
    ):  # a column of the transform has one horizontal frequency; a diagonal has all
        shifted[:, :, row] = np.roll(shifted[:, :, row], row, axis=1)
    packed: npt.NDArray[np.uint16] = (
        np.packbits(shifted.reshape(len(words), 256), axis=1).view(">u2").astype(np.uint16)
    )
    return packed


def more_than_chance(found: int, n_asked: int, n_known: int) -> bool:
    """Whether so many near copies are too many to be different people who look alike (Poisson, 99 %)."""
    return found > int(poisson.ppf(0.99, n_asked * n_known * FALSE_ALARMS))


def _signs(grid: FloatArray, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """(255,) signs of the low frequencies of the ranks; a share ``margin`` of each side is cut off, or added where negative."""
    small = _resampled(grid, _SMALL, _SMALL, margin).ravel()
    ranks = np.empty(small.size, dtype=np.float32)
    ranks[np.argsort(small, kind="stable")] = np.linspace(-1, 1, small.size, dtype=np.float32)
    waves = _cosines()
    frequencies = waves @ ranks.reshape(_SMALL, _SMALL) @ waves.T
    return frequencies.ravel()[1:] > 0


def _without_border(grid: FloatArray) -> FloatArray | None:
    """The part inside plain lines at the edges; None where there are none, or where less than half would be left."""
    rows = np.flatnonzero(np.ptp(grid, axis=1) > _PLAIN)
    columns = np.flatnonzero(np.ptp(grid, axis=0) > _PLAIN)
    if not len(rows) or not len(columns):
        return None
    inner = grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if inner.shape == grid.shape or 2 * min(inner.shape) < min(grid.shape):
        return None
    return inner


def _resampled(pixels: FloatArray, height: int, width: int, margin: float = 0.0) -> FloatArray:
    """(height, width) averages over equal areas; what lies outside is as the edge."""
    resampled: FloatArray = (
        _areas(pixels.shape[0], height, margin) @ pixels @ _areas(pixels.shape[1], width, margin).T
    )
    return resampled


@cache
def _areas(n: int, m: int, margin: float) -> npt.NDArray[np.float32]:
    """(m, n) weights of the mean over m equal parts of n pixels less a margin, shares of pixels counted."""
    edges = np.linspace(margin * n, n - margin * n, m + 1)
    starts, ends = np.arange(n, dtype=np.float64), np.arange(1, n + 1, dtype=np.float64)
    starts[0], ends[-1] = min(0.0, edges[0]), max(float(n), edges[-1])
    covered = np.minimum(edges[1:, None], ends) - np.maximum(edges[:-1, None], starts)
    weights = np.clip(covered, 0, None)
    shares: npt.NDArray[np.float32] = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


@cache
def _cosines() -> npt.NDArray[np.float32]:
    """(16, 32) first rows of the orthonormal cosine transform."""
    waves: npt.NDArray[np.float32] = dct(np.eye(_SMALL), axis=0, norm="ortho")[:_KEPT].astype(
        np.float32
    )
    return waves

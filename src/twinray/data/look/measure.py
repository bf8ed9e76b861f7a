"""What is measured of one image before it is judged among those of its archive. NumPy and SciPy; one small network, shipped.

Pixels are replaced by their ranks first, so that windows and exposure change little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.data.fit import to_grey
from twinray.data.look.mirror_net import SIDE, mirror_logit
from twinray.data.look.text import Box, text_lines
from twinray.data.near_copies import Words, perceptual_hashes
from twinray.records import FloatArray

RANKS: Final = 24
"""Side of the image of ranks."""
CELLS, BINS = 12, 8
"""Cells a side, and directions, of the histograms of gradients (Dalal and Triggs, CVPR 2005; signed directions)."""

_CELL: Final = 8
_LONGEST: Final = 1024
"""Longest side at which text is looked for, in pixels: an average over larger ones."""
_PLAIN: Final = 6.0
"""Grey levels between darkest and brightest place of a line that still counts as border."""
_GRID: Final = 128
_FINE: Final = 96
"""Columns among which the body's axis is looked for."""
_ASIDE: Final = 12
"""Columns that it may lie beside the middle, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """One image.

    Attributes:
        width, height: sides in pixels.
        ranks: (24, 24) float16 in -1..1, ranks of the mean values of equal areas.
        gradients: (12, 12, 8) float16, normalised histograms of the directions of gradients, about the body's axis.
        about_axis: (24, 24) float16 in -1..1, ranks as ``ranks``, about the body's axis.
        right_way: log odds that it is a frontal chest radiograph the right way round; of the mirrored image, the same with the other sign.
        hashes: (m, 4) perceptual hashes, none of a blank image.
        contrast: grey levels between the 1st and the 99th percentile, as a share of 255.
        occupancy: share of the grey levels between these that occur.
        clipped_low, clipped_high: share of pixels that have the darkest and the brightest value.
        border: share of the area that plain lines at the edges take.
        text: boxes of lines of text, in pixels.
        thumbnail: (h, w) uint8, longest side 160.
    """

    width: int
    height: int
    ranks: npt.NDArray[np.float16]
    gradients: npt.NDArray[np.float16]
    about_axis: npt.NDArray[np.float16]
    right_way: float
    hashes: Words
    contrast: float
    occupancy: float
    clipped_low: float
    clipped_high: float
    border: float
    text: tuple[Box, ...]
    thumbnail: npt.NDArray[np.uint8]


def measured(pixels: npt.NDArray[np.uint8]) -> Measures:
    """Measure an image.

    Args:
        pixels: (h, w) grey or (h, w, 3) RGB.
    """
    grey = np.ascontiguousarray(to_grey(np.asarray(pixels)))
    height, width = grey.shape
    counts = np.bincount(grey.ravel(), minlength=256)
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(below, share * grey.size)) for share in (0.01, 0.99))
    used = np.flatnonzero(counts)
    hashes, _ = perceptual_hashes([grey])
    large = _resized(grey, _LONGEST)
    scale = width / large.shape[1]
    centred = _about_axis(grey)
    return Measures(
        width=width,
        height=height,
        ranks=_ranks(_square(grey, RANKS)).astype(np.float16),
        gradients=_gradients(centred).astype(np.float16),
        about_axis=_ranks(_square(centred, RANKS)).astype(np.float16),
        right_way=mirror_logit(_ranks(_square(centred, SIDE))),
        hashes=hashes,
        contrast=(high - low) / 255,
        occupancy=float(np.count_nonzero(counts[low : high + 1]) / max(1, high - low + 1)),
        clipped_low=float(counts[used[0]] / grey.size),
        clipped_high=float(counts[used[-1]] / grey.size),
        border=_border(grey),
        text=tuple(_scaled(box, scale) for box in text_lines(large)),
        thumbnail=_resized(grey, 160),
    )


def _scaled(box: Box, scale: float) -> Box:
    left, top, right, bottom = (round(value * scale) for value in box)
    return left, top, right, bottom


def _resized(grey: npt.NDArray[np.uint8], longest: int) -> npt.NDArray[np.uint8]:
    height, width = grey.shape
    share = longest / max(height, width)
    if share >= 1:
        return grey
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _square(grey: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """(side, side) means of equal areas."""
    small = Image.fromarray(grey).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def _ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Ranks in -1..1; equal values share the middle of theirs, so that turning an image turns its ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    span = max(1, values.size - 1)
    ranks: npt.NDArray[np.float32] = (2 * middle / span - 1)[inverse.reshape(values.shape)].astype(
        np.float32
    )
    return ranks


def _about_axis(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The widest part of an image whose middle is the axis about which left and right are most alike.

    A body beside the middle of its image looks lopsided for that alone. The part of a mirrored image is the part mirrored.
    """
    ranks = _ranks(_square(grey, _FINE))
    alike = {}
    for column in range(_FINE // 2 - _ASIDE, _FINE // 2 + _ASIDE + 1):
        half = min(column, _FINE - column)
        part = ranks[:, column - half : column + half]
        part = part - part.mean()
        alike[column] = float((part * part[:, ::-1]).sum() / (np.square(part).sum() + 1e-9))
    axis = max(alike, key=lambda column: (alike[column], -abs(column - _FINE // 2)))
    width = grey.shape[1]
    size = max(1, round(2 * min(axis, _FINE - axis) * width / _FINE))
    return grey[:, :size] if axis <= _FINE // 2 else grey[:, width - size :]


def _gradients(grey: npt.NDArray[np.uint8]) -> FloatArray:
    """(12, 12, 8) histograms of signed directions, each normalised over its 3 x 3 neighbours."""
    side = CELLS * _CELL
    ranks = (_ranks(_square(grey, side)) + 1) / 2
    down, right = np.gradient(ranks)
    weight = np.sqrt(np.hypot(right, down))
    turn = (np.arctan2(down, right) / (2 * np.pi) % 1) * BINS
    first = np.floor(turn).astype(np.int64)
    share = turn - first
    rows, columns = np.mgrid[:side, :side] // _CELL
    cells = np.zeros((CELLS, CELLS, BINS))
    np.add.at(cells, (rows, columns, first % BINS), weight * (1 - share))
    np.add.at(cells, (rows, columns, (first + 1) % BINS), weight * share)
    padded = np.pad(cells, ((1, 1), (1, 1), (0, 0)), mode="edge")
    energy = sum(
        np.square(padded[i : i + CELLS, j : j + CELLS]).sum(axis=-1)
        for i in range(3)
        for j in range(3)
    )
    normalised: FloatArray = cells / np.sqrt(np.asarray(energy) + 1e-3)[..., None]
    return normalised


def mirrored_gradients(gradients: FloatArray) -> FloatArray:
    """(..., 12, 12, 8) histograms of the mirrored image: cells change sides, directions turn to 180 degrees minus theirs."""
    order = (BINS // 2 - np.arange(BINS)) % BINS
    return gradients[..., :, ::-1, :][..., order]


def _border(grey: npt.NDArray[np.uint8]) -> float:
    """Share of the area outside the rectangle that plain rows and columns at the edges leave."""
    grid = _square(grey, min(_GRID, *grey.shape))
    rows = np.flatnonzero(np.ptp(grid, axis=1) > _PLAIN)
    columns = np.flatnonzero(np.ptp(grid, axis=0) > _PLAIN)
    if not len(rows) or not len(columns):
        return 1.0
    inner = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return float(1 - inner / grid.size)

"""Lines of text that are burnt into an image: letters in a row, found by their shape, not read.

A letter is a small connected spot, brighter or darker than all around it. A line is at least :data:`FEWEST` of them side by
side, of one height. So single marks (R, L, arrows) are no text, and words such as PORTABLE are. What the text says is not
known: a person must look.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FEWEST: Final = 5
"""Letters of a line, at least."""

_REACH: Final = 0.045
"""Widest stroke, as a share of the longer side: what is wider counts as ground."""
_CONTRAST: Final = 60
"""Grey levels that a letter stands out by, at least."""
_LOWEST, _LEAST_PX, _HIGHEST = 0.012, 5, 0.08
"""Height of letters: shares of the longer side, and pixels."""
_WIDEST, _NARROWEST, _FILLED = 2.2, 0.06, 0.15
_GAP, _OFF_LINE, _OTHER_HEIGHT = 1.6, 0.25, 0.35
"""Gap between letters, and how far foot and height may differ, by the letters' height."""
_EIGHT = np.ones((3, 3), dtype=np.int64)

Box = tuple[int, int, int, int]


def text_lines(grey: npt.NDArray[np.uint8]) -> list[Box]:
    """Boxes (left, top, right, bottom) around lines of text, in pixels; those of the most letters first.

    Args:
        grey: (h, w) pixels; letters of fewer than 5 pixels in height are not found.
    """
    side = max(grey.shape)
    reach = max(5, round(side * _REACH)) | 1
    found: list[tuple[int, Box]] = []
    for bright in (True, False):
        shown = grey if bright else 255 - grey
        ground = ndimage.grey_opening(shown, size=(reach, reach))
        letters = _letters(shown.astype(np.int16) - ground > _CONTRAST, side)
        found += [(len(line), _around(line)) for line in _lines(letters)]
    return [box for _, box in sorted(found, key=lambda one: (-one[0], one[1]))]


def _letters(marked: npt.NDArray[np.bool_], side: int) -> list[Box]:
    labelled, _ = ndimage.label(marked, structure=_EIGHT)
    letters = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not max(_LEAST_PX, side * _LOWEST) <= height <= side * _HIGHEST:
            continue
        if not _NARROWEST * height <= width <= _WIDEST * height:
            continue
        if (labelled[rows, columns] == number).mean() >= _FILLED:
            letters.append((columns.start, rows.start, columns.stop, rows.stop))
    return sorted(letters)


def _lines(letters: list[Box]) -> list[list[Box]]:
    """Rows of letters, from left to right; each letter in one row at most."""
    taken: set[int] = set()
    lines = []
    for first in range(len(letters)):
        if first in taken:
            continue
        line = [first]
        for other in range(first + 1, len(letters)):
            before, after = letters[line[-1]], letters[other]
            height = max(before[3] - before[1], after[3] - after[1])
            gap = after[0] - before[2]
            if gap > _GAP * height:
                break
            foot = abs(after[3] - before[3])
            unlike = abs((after[3] - after[1]) - (before[3] - before[1]))
            if gap > -2 and foot <= _OFF_LINE * height + 1 and unlike <= _OTHER_HEIGHT * height + 1:
                line.append(other)
        if len(line) >= FEWEST:
            taken |= set(line)
            lines.append([letters[k] for k in line])
    return lines


def _around(line: list[Box]) -> Box:
    corners = np.array(line)
    left, top = corners[:, :2].min(axis=0).tolist()
    right, bottom = corners[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom

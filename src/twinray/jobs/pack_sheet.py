"""A contact sheet of a pack: images drawn at random and the extreme ones, as training sees them, with their boxes.

Faults that no table shows are seen at once: boxes beside their findings, negatives, blank images, other body parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from twinray.about import DISCLAIMER
from twinray.data.pack import Pack
from twinray.files import write_bytes
from twinray.records import PRESENT, IntArray
from twinray.report.pictures.contact_sheet import ROWS, contact_sheet
from twinray.report.pictures.panels import Panel, as_png, scaled
from twinray.words import counted

HEADINGS = ("drawn at random", "drawn at random", "extreme")
_MOST_LABELS = 3
_LOOKED_AT = 20_000
"""Most images whose pixels are looked at for extremes: every n-th of a larger pack."""


def write_sheet(pack: Pack, path: Path, seed: int = 0) -> None:
    """Draw the sheet: eight rows at most, two columns of random images, one of extremes.

    Args:
        pack: the pack.
        path: the picture, a PNG.
        seed: seed of the random choice; images with boxes come first where there are any.

    Raises:
        TwinrayError: the picture cannot be written.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(pack)).tolist()
    boxed = [row for row in shuffled if len(pack.boxes(row) or ())]
    rest = [row for row in shuffled if row not in set(boxed)]
    half = boxed[:ROWS] + rest[: ROWS - len(boxed[:ROWS])]
    other = [row for row in shuffled if row not in set(half)]
    columns = [
        [(row, "") for row in half],
        [(row, "") for row in other[:ROWS]],
        extremes(pack)[:ROWS],
    ]
    n = max(1, min(len(column) for column in columns if column))
    kept = [column[:n] for column in columns if column]
    headings = [h for h, column in zip(HEADINGS, columns, strict=True) if column]
    rows = [[_panel(pack, *column[i]) for column in kept] for i in range(n)]
    note = (
        f"{counted(len(pack), 'image of', 'images of')} {pack.info.size} x {pack.info.size} pixels; pictures are those of the pack, without padding. "
        f"{DISCLAIMER}."
    )
    sheet = contact_sheet(rows, headings, [pack.info.box_classes] * len(kept), note=note)
    write_bytes(path, as_png(sheet), "the contact sheet")


def extremes(pack: Pack) -> list[tuple[int, str]]:
    """Rows of images that are extreme in some way, and in which; each image once, the strangest ways first."""
    rows: IntArray = np.arange(0, len(pack), max(1, -(-len(pack) // _LOOKED_AT)))
    grey = np.array([_moments(pack.shown(row)) for row in rows])
    sizes = np.asarray(pack.sizes, dtype=np.float64)[rows]
    sides = [_box_sides(pack, int(row)) for row in rows]
    with_boxes = [i for i, own in enumerate(sides) if len(own)]
    ways: list[tuple[str, int]] = [
        ("least contrast", int(grey[:, 1].argmin())),
        ("darkest", int(grey[:, 0].argmin())),
        ("brightest", int(grey[:, 0].argmax())),
    ]
    if with_boxes:
        ways += [
            ("smallest box", min(with_boxes, key=lambda i: float(sides[i].min()))),
            ("largest box", max(with_boxes, key=lambda i: float(sides[i].max()))),
            ("most boxes", max(with_boxes, key=lambda i: len(sides[i]))),
        ]
    proportions = sizes[:, 0] / sizes[:, 1]
    ways += [
        ("flattest", int(proportions.argmax())),
        ("tallest", int(proportions.argmin())),
        ("smallest original", int(sizes.prod(axis=1).argmin())),
        ("largest original", int(sizes.prod(axis=1).argmax())),
        ("most contrast", int(grey[:, 1].argmax())),
    ]
    found: dict[int, str] = {}
    for way, i in ways:
        row = int(rows[i])
        found[row] = f"{found[row]}, {way}" if row in found else way
    return list(found.items())


def _moments(pixels: npt.NDArray[np.uint8]) -> tuple[float, float]:
    return float(pixels.mean()), float(pixels.std())


def _box_sides(pack: Pack, row: int) -> npt.NDArray[np.float64]:
    """(n,) longer side of each box, as a share of the image's."""
    boxes = pack.boxes(row)
    if boxes is None or not len(boxes):
        return np.zeros(0)
    shares = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) / np.asarray(pack.sizes[row], dtype=np.float64)
    longest: npt.NDArray[np.float64] = shares.max(axis=1)
    return longest


def _panel(pack: Pack, row: int, way: str) -> Panel:
    place, boxes = pack.place(row), pack.boxes(row)
    image = pack.shown(row)[place.picture]
    height, width = image.shape[:2]
    truth = (
        None
        if boxes is None
        else scaled(boxes, (width / place.original[0], height / place.original[1]))
    )
    title = " - ".join(
        part for part in (way, PurePath(str(pack.ids[row])).name, _labels(pack, row)) if part
    )
    return Panel(title, image, truth, name_truth=True)


def _labels(pack: Pack, row: int) -> str:
    shown: Sequence[str] = [
        name
        for name, value in zip(pack.info.label_classes, pack.labels[row], strict=True)
        if value == PRESENT
    ]
    more = "..." if len(shown) > _MOST_LABELS else ""
    return ", ".join(shown[:_MOST_LABELS]) + more

"""Test images for the page of an evaluation: drawn before any result is looked at, shown with the boxes of every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from twinray.data.pack import Pack
from twinray.jobs.evaluate.arms import Arm
from twinray.jobs.evaluate.tested import BoxData
from twinray.records import Boxes
from twinray.report.page.comparison import Pictured


def pictures(
    arms: Mapping[str, Arm], pack: Pack, split: str, n: int, seed: int
) -> tuple[Pictured, ...]:
    """``n`` images of a split with the boxes of each arm's first model; none for classifiers."""
    firsts = {name: arm.tested[0].data for name, arm in arms.items()}
    boxes = {name: data for name, data in firsts.items() if isinstance(data, BoxData)}
    if not boxes:
        return ()
    row_of = {str(image): row for row, image in enumerate(pack.ids.tolist())}
    shown = []
    for image in choose_images(pack, split, n, seed):
        row = row_of[image]
        pixels, scale = in_pack_pixels(pack, row)
        found = {name: data.found.get(image, Boxes.empty()) for name, data in boxes.items()}
        found = {
            name: b if b.scores is not None else Boxes(b.xyxy, b.labels, np.zeros(len(b)))
            for name, b in found.items()
        }
        shown.append(Pictured(image, pixels, scale, pack.boxes(row), found))
    return tuple(shown)


def in_pack_pixels(pack: Pack, row: int) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
    """The image as the pack holds it, without what pads it, and factors from original pixels to its own."""
    width, height = (float(side) for side in pack.sizes[row])
    scale_x, scale_y, left, top = (float(v) for v in pack.geometry[row])
    x1, y1, x2, y2 = (round(v) for v in (left, top, left + width * scale_x, top + height * scale_y))
    pixels = pack.shown(row)[max(y1, 0) : y2, max(x1, 0) : x2]
    return pixels, (pixels.shape[1] / width, pixels.shape[0] / height)


def choose_images(pack: Pack, split: str, n: int, seed: int) -> list[str]:
    """Ids of ``n`` annotated images of a split: one of each class, then one without boxes, then any."""
    rows = [
        int(r)
        for r in np.random.default_rng(seed).permutation(pack.where(split))
        if pack.boxes(int(r)) is not None
    ]
    labels = {row: set((pack.boxes(row) or Boxes.empty()).labels.tolist()) for row in rows}
    wanted: list[Callable[[set[int]], bool]] = [
        *(
            (lambda found, label=label: label in found)
            for label in range(len(pack.info.box_classes))
        ),
        lambda found: not found,
        *([lambda found: True] * n),
    ]
    chosen: list[int] = []
    for fits in wanted:
        row = next((row for row in labels if row not in chosen and fits(labels[row])), None)
        if row is not None and len(chosen) < n:
            chosen.append(row)
    return [str(pack.ids[row]) for row in chosen]

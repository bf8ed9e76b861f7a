"""Do boxes fit their images? The one place that judges boxes, for every reader and every verb.

A reader hands each box to :class:`BoxAudit`, which judges it alone and remembers it. At the end the audit looks
at all boxes of the source together, since many faults show only there:

- boxes in 0..1 rather than in pixels;
- x and y swapped, corners or centres where left, top, width and height are expected;
- boxes drawn on another resolution of the images;
- annotations that occur twice, as in files that were merged or exported twice;
- outlines (COCO's ``segmentation``) that lie elsewhere than their boxes.

What cannot be right is refused in one line. What is most likely wrong is a note that begins with ``WARNING``.
Repeated annotations are kept once and counted. :func:`size_fault` and :func:`boxes_in_file` are the same judgement
on a file whose size is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from twinray.data.decoding.images import image_size
from twinray.errors import InputError
from twinray.geometry import EDGE_TOLERANCE_PX, corner_iou, place_boxes, to_frame
from twinray.records import Boxes, FloatArray, Sample, Skipped

Size = tuple[int, int]
Form = Literal["xywh", "corners"]
"""How the source writes a box: left, top, width, height; or left, top, right, bottom."""

REPEATED: Final = "repeated"
"""What :meth:`BoxAudit.judge` says of an annotation that the image has already."""

_SAME_PX: Final = 0.01
"""Coordinates that differ by less are one: exports round differently."""
_LOOKED_UP: Final = 200
"""Most files whose size is read where the source does not state sizes: a sample is enough for these checks."""
_FEWEST_OUTSIDE, _SHARE_OUTSIDE, _SHARE_UNEXPLAINED = 3, 0.05, 0.25
_FEWEST_BOXES, _FEWEST_IMAGES = 20, 10
_NEAR_CORNER: Final = 0.5
_OTHER_PLACE_IOU: Final = 0.5
_PROPORTIONS: Final = 0.02
"""Largest relative difference of proportions that rounding to whole pixels explains."""


@dataclass(slots=True)
class BoxAudit:
    """Judges a source's boxes one by one, and at the end all of them.

    Attributes:
        source: name of the source, for messages.
        form: how the source writes a box.
        repeats: number of annotations that an image has already.
        elsewhere: number of boxes whose outline lies elsewhere.
    """

    source: str
    form: Form = "xywh"
    repeats: int = 0
    elsewhere: int = 0
    _first_repeat: str = ""
    _boxes: list[FloatArray] = field(default_factory=list)
    _images: list[str] = field(default_factory=list)
    _frames: list[Size | None] = field(default_factory=list)
    _seen: dict[tuple[str, int, str], list[FloatArray]] = field(default_factory=dict)

    def judge(
        self,
        image: str,
        label: int,
        xyxy: Sequence[float],
        frame: Size | None,
        where: str,
        *,
        reader: str = "",
        outline: FloatArray | None = None,
    ) -> FloatArray | str:
        """Judge one box, and remember it.

        Args:
            image: id of its image.
            label: its class.
            xyxy: left, top, right, bottom, as the source has them.
            frame: (width, height) in pixels that the source states for the image; None where it states none.
            where: place of the annotation, for messages.
            reader: who drew it; boxes of different readers never repeat each other.
            outline: (4,) box around the outline that the source gives beside the box.

        Returns:
            The (4,) box, clipped to its frame; :data:`REPEATED`; or why it is refused.
        """
        box: FloatArray = np.asarray(xyxy, dtype=np.float64)
        clipped, (fault,) = place_boxes(box[None], *(frame or (math.inf, math.inf)))
        if np.isfinite(box).all() and (box[2:] > box[:2]).all():
            self._boxes.append(box)
            self._images.append(image)
            self._frames.append(frame)
        if fault is None and outline is not None and corner_iou(box, outline) < _OTHER_PLACE_IOU:
            self.elsewhere += 1
            left, top, right, bottom = outline
            fault = (
                f"its bbox and its segmentation, which takes {left:g},{top:g} to {right:g},{bottom:g}, "
                "lie in different places"
            )
        if fault is not None:
            return fault
        kept: FloatArray = clipped[0]
        same = self._seen.setdefault((image, label, reader), [])
        if any(np.abs(kept - other).max() < _SAME_PX for other in same):
            self.repeats += 1
            self._first_repeat = self._first_repeat or where
            return REPEATED
        same.append(kept)
        return kept

    def conclude(self, size_of: Callable[[str], Size | None]) -> list[str]:
        """Look at all boxes together, at the end.

        Args:
            size_of: (width, height) of an image's file; None where it cannot be told. It is asked for a
                sample of the images whose size the source does not state.

        Returns:
            Notes for users.

        Raises:
            InputError: the boxes are in 0..1, are written in another order, or belong to another resolution.
        """
        notes = []
        if self.repeats:
            notes.append(
                f"{self.repeats:,} duplicate annotations (same image, class and box) were left out, "
                f"the first is {self._first_repeat}"
            )
        if not self._boxes:
            return notes
        boxes = np.array(self._boxes)
        self._refuse_relative(boxes)
        if self.elsewhere >= _FEWEST_OUTSIDE and self.elsewhere > len(boxes) / 2:
            raise InputError(
                f"{self.source}: {self.elsewhere:,} of {len(boxes):,} boxes lie elsewhere than their segmentation; "
                "boxes are left, top, width, height in pixels: correct them"
            )
        frames = self._known_frames(size_of)
        known = ~np.isnan(frames).any(axis=1)
        if known.any():
            self._refuse_outside(boxes[known], frames[known])
            notes += self._in_one_corner(boxes[known], frames[known], np.array(self._images)[known])
        return notes

    def _refuse_relative(self, boxes: FloatArray) -> None:
        small = ((boxes[:, 2:] - boxes[:, :2]) < 1).all(axis=1)
        if small.mean() > 0.5:
            relative = (boxes[small] <= 1 + 1e-6).all()
            what = "are relative (0..1)" if relative else "are smaller than a pixel"
            raise InputError(
                f"{self.source}: {small.sum():,} of {len(boxes):,} boxes {what}, expected pixels of the image; "
                "multiply them by its width and height"
            )

    def _known_frames(self, size_of: Callable[[str], Size | None]) -> FloatArray:
        """(n, 2) width and height of every box's image; NaN where unknown or not looked up."""
        stateless = dict.fromkeys(
            image for image, frame in zip(self._images, self._frames, strict=True) if frame is None
        )
        step = max(1, len(stateless) // _LOOKED_UP)
        looked_up = {image: size_of(image) for image in list(stateless)[::step]}
        return np.array(
            [
                frame or looked_up.get(image) or (math.nan, math.nan)
                for image, frame in zip(self._images, self._frames, strict=True)
            ]
        )

    def _refuse_outside(self, boxes: FloatArray, frames: FloatArray) -> None:
        n, outside = len(boxes), _outside(boxes, frames)
        if outside < max(_FEWEST_OUTSIDE, _SHARE_OUTSIDE * n):
            return
        told = f"{self.source}: {outside:,} of {n:,} boxes reach beyond their images"
        for what, other in self._other_readings(boxes).items():
            if _outside(other, frames) == 0 and (other[:, 2:] > other[:, :2]).all():
                raise InputError(f"{told}, all would fit {what}; correct their order")
        if outside > _SHARE_UNEXPLAINED * n:
            raise InputError(
                f"{told}: they were most likely drawn on another resolution of the images; give the images that "
                "the annotations were made for, or scale the boxes"
            )

    def _other_readings(self, boxes: FloatArray) -> Mapping[str, FloatArray]:
        """What the same four numbers would be, written in other ways."""
        corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        swapped = {"with x and y swapped": boxes[:, [1, 0, 3, 2]]}
        if self.form == "corners":
            return swapped | {
                "as left, top, width, height": np.concatenate(
                    [corner, corner + boxes[:, 2:]], axis=1
                )
            }
        return swapped | {
            "as left, top, right, bottom": np.concatenate([corner, size], axis=1),
            "as centre, width, height": np.concatenate(
                [corner - size / 2, corner + size / 2], axis=1
            ),
        }

    def _in_one_corner(
        self, boxes: FloatArray, frames: FloatArray, images: npt.NDArray[np.str_]
    ) -> list[str]:
        """A note where all boxes lie near the top left corner: in per cent, or drawn on smaller copies."""
        if len(boxes) < _FEWEST_BOXES or len(set(images.tolist())) < _FEWEST_IMAGES:
            return []
        reach = (boxes[:, 2:] / frames).max()
        if reach >= _NEAR_CORNER:
            return []
        right, bottom = boxes[:, 2:].max(axis=0)
        width, height = np.median(frames, axis=0)
        return [
            f"WARNING: no box reaches beyond the first {reach:.0%} of its image (up to {right:g},{bottom:g} on images of "
            f"{width:g} x {height:g} pixels): are boxes in per cent, or drawn on smaller copies?"
        ]


def _outside(boxes: FloatArray, frames: FloatArray) -> int:
    """Number of boxes that reach over their image's edge by more than is clipped."""
    limit = np.concatenate([frames, frames], axis=1)
    beyond = np.maximum(-boxes, boxes - limit).max(axis=1)
    return int((beyond > EDGE_TOLERANCE_PX).sum())


def size_fault(sample: Sample, width: int, height: int) -> str | None:
    """Why a file of this size is not the one that the annotations were made for; None if it is."""
    if sample.size is None or sample.size == (width, height):
        return None
    return f"the annotations say {sample.size[0]} x {sample.size[1]} pixels, the file has {width} x {height}"


def other_proportions(sample: Sample, width: int, height: int) -> bool:
    """Whether boxes come from a frame of other proportions than the file: it was squashed, padded or cropped."""
    if sample.boxes_frame is None or sample.boxes is None or not len(sample.boxes):
        return False
    of_frame = sample.boxes_frame[0] / sample.boxes_frame[1]
    return abs(math.log(of_frame * height / width)) > _PROPORTIONS


def boxes_in_file(
    sample: Sample, width: int, height: int, *, boxes: Boxes | None = None
) -> tuple[Boxes | None, list[Skipped]]:
    """A sample's boxes in pixels of its file of ``width`` x ``height``, and those that do not fit.

    Args:
        sample: the image.
        width, height: sides of the stored file, in pixels.
        boxes: boxes to place, the sample's own by default.

    Returns:
        None where the image was never annotated, or where no box could be kept. A box is called by its number.
    """
    boxes = sample.boxes if boxes is None else boxes
    if boxes is None or not len(boxes):
        return boxes, []
    frame = sample.boxes_frame or (width, height)
    xyxy, faults = place_boxes(boxes.xyxy, *frame)
    if sample.boxes_frame is not None:
        xyxy = to_frame(xyxy, frame, (width, height))
    aside = [
        Skipped(f"{sample.source} box {j}", f"{fault}; correct the box")
        for j, fault in enumerate(faults)
        if fault is not None
    ]
    keep = [j for j, fault in enumerate(faults) if fault is None]
    if not keep:
        return None, aside
    kept = Boxes(
        xyxy[keep],
        np.asarray(boxes.labels)[keep],
        readers=None if boxes.readers is None else tuple(boxes.readers[j] for j in keep),
        n_readers=None if boxes.n_readers is None else boxes.n_readers[keep],
    )
    return kept, aside


def file_size(path: Path) -> Size | None:
    """(width, height) from an image file's header; None where it is not there or cannot be read."""
    try:
        return image_size(path) if path.is_file() else None
    except InputError:
        return None

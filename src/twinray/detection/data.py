"""Annotated images of a pack as batches for the detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from twinray.data.pack import Pack
from twinray.data.splitting.cut import label_fraction
from twinray.detection.targets import BoxTargets
from twinray.errors import InputError
from twinray.records import FEEDBACK, PRESENT, Boxes, IntArray
from twinray.training.loader import CopyAhead, PixelSource, epoch_order, prefetch
from twinray.training.ranks import Ranks


@dataclass(frozen=True, eq=False)
class DetectionData:
    """Annotated images of one split.

    Attributes:
        pack: where they are.
        rows: (n,) their rows in the pack.
        truth: true boxes of each, in original pixels.
        targets: (boxes (m, 4) float32 in packed pixels, labels (m,) int64) of each.
    """

    pack: Pack
    rows: IntArray
    truth: Sequence[Boxes]
    targets: Sequence[tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_boxes(self) -> int:
        """Number of true boxes."""
        return sum(len(boxes) for boxes in self.truth)

    def boxes_by_class(self) -> dict[str, int]:
        """Number of true boxes of every class of the pack."""
        counts = Counter(label for boxes in self.truth for label in boxes.labels.tolist())
        return {name: counts[k] for k, name in enumerate(self.pack.info.box_classes)}

    def n_too_small(self, size: int) -> int:
        """Number of true boxes that are smaller than a pixel, both ways, in a network's input of this side."""
        scale = size / self.pack.info.size
        return sum(
            int(((boxes[:, 2:] - boxes[:, :2]) * scale < 1).all(dim=1).sum())
            for boxes, _ in self.targets
        )

    def truth_by_id(self) -> dict[str | int, Boxes]:
        """Image id -> true boxes, and the regions that evaluation leaves out, which are marked."""
        return {
            self.pack.ids[row]: _with_regions(boxes, self.pack.regions(int(row)))
            for row, boxes in zip(self.rows, self.truth, strict=True)
        }

    def patients(self) -> list[str | None]:
        """Patient of each image, None where unknown."""
        return list(self.pack.patients[self.rows])

    def codes(self) -> list[str | None]:
        """What stands for each image's patient in results, None where unknown."""
        return list(self.pack.patient_codes[self.rows])

    def part(self, indices: Sequence[int] | IntArray) -> DetectionData:
        """Some of the images, by their places in ``rows``."""
        truth, targets = [self.truth[i] for i in indices], [self.targets[i] for i in indices]
        return DetectionData(
            self.pack, self.rows[np.asarray(indices, dtype=np.int64)], truth, targets
        )

    def with_boxes(self) -> DetectionData:
        """The images that have a box."""
        return self.part([i for i, boxes in enumerate(self.truth) if len(boxes)])

    def pixels(self) -> PixelSource:
        """The images, in the order of ``rows``."""
        return PixelSource(
            [self.pack.pixels], np.stack([np.zeros_like(self.rows), self.rows], axis=1)
        )

    def batches(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        first: int,
        ranks: Ranks | None = None,
        ahead: CopyAhead | None = None,
    ) -> Iterator[tuple[Tensor, BoxTargets]]:
        """Shuffled training batches of one epoch, from number ``first`` on; the last incomplete one is dropped.

        With several ranks, this rank's share of each. Through ``ahead``, of :meth:`ahead`, they are on its device.
        """
        share = (ranks or Ranks()).share
        order = epoch_order(len(self), min(batch_size, len(self)), seed=seed, epoch=epoch)
        own = [batch[share(len(batch))] for batch in order[first:]]
        if ahead is not None:
            return ((pixels, BoxTargets(*boxes)) for pixels, *boxes in ahead.with_more(own))
        source = self.pixels()
        return prefetch(lambda indices: (source.gather(indices), self._targets(indices)), own)

    def ahead(self, device: torch.device) -> CopyAhead:
        """What copies batches to a GPU while the step computes."""

        def beside(indices: IntArray) -> tuple[Tensor, Tensor, Tensor]:
            targets = self._targets(indices)
            return targets.boxes, targets.labels, targets.present

        return CopyAhead(self.pixels(), device, beside=beside)

    def _targets(self, indices: IntArray) -> BoxTargets:
        return BoxTargets.from_lists(*zip(*(self.targets[i] for i in indices), strict=True))


def annotated(
    pack: Pack,
    split: str,
    images: Literal["all", "with_boxes"] = "all",
    *,
    to_learn: bool = False,
) -> DetectionData:
    """The images of a split that were annotated with boxes (an image with none counts: a negative).

    Args:
        pack: where they are.
        split: their split.
        images: whether images without a box are taken.
        to_learn: flag to leave out images of a viewer's store with a box that nobody judged. Training would take it for
            background; figures leave its region out and need no such thing.

    Raises:
        InputError: the pack has no box classes.
    """
    if not pack.info.box_classes:
        raise InputError(
            f"{pack.path} has no boxes: pack a source with boxes (--format coco, for one)"
        )
    rows, truth, targets = [], [], []
    for row in pack.where(split):
        boxes = pack.boxes(int(row))
        if boxes is None or (images == "with_boxes" and len(boxes) == 0):
            continue
        if to_learn and _has_unjudged(pack, int(row)):
            continue
        rows.append(int(row))
        truth.append(boxes)
        packed = torch.from_numpy(pack.place(int(row)).to_square(boxes.xyxy).astype(np.float32))
        targets.append((packed, torch.from_numpy(boxes.labels.astype(np.int64))))
    return DetectionData(pack, np.array(rows, dtype=np.int64), truth, targets)


def labelled_fraction(data: DetectionData, fraction: float, seed: int) -> DetectionData:
    """About this share of the images, whole patients at a time, stratified by the classes of their boxes.

    For one seed smaller fractions are parts of larger ones.

    Raises:
        InputError: a fraction outside (0, 1], or no images.
    """
    if fraction == 1:
        return data
    shown = np.zeros((len(data), len(data.pack.info.box_classes)), dtype=np.float64)
    for row, boxes in zip(shown, data.truth, strict=True):
        row[boxes.labels] = PRESENT
    return data.part(label_fraction(data.patients(), shown, fraction, seed))


def _has_unjudged(pack: Pack, row: int) -> bool:
    """Whether readers left a box of this image unjudged; regions of other sources are crowds, which training has always seen."""
    own = pack.info.names == (FEEDBACK,) or str(pack.ids[row]).startswith(f"{FEEDBACK}/")
    return FEEDBACK in pack.info.names and own and pack.regions(row) is not None


def _with_regions(boxes: Boxes, regions: Boxes | None) -> Boxes:
    if regions is None:
        return boxes
    return Boxes(
        np.concatenate([boxes.xyxy, regions.xyxy]),
        np.concatenate([boxes.labels, regions.labels]),
        crowd=np.arange(len(boxes) + len(regions)) >= len(boxes),
    )

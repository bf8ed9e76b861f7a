"""The true boxes of a batch, padded: as many rows an image as the image with the most boxes has.

A fixed number of rows lets transforms, matching and losses work on all images of a batch at once. No device has to be asked how
many boxes there are. Boxes are xyxy in pixels of the batch's square images; labels are class ids from 0.

Shapes: b batch, m rows an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class BoxTargets:
    """True boxes of ``n_images`` images.

    Attributes:
        boxes: (b, m, 4) float32 xyxy in image pixels.
        labels: (b, m) int64 class ids from 0; the detector alone adds the background.
        present: (b, m) bool: whether the row is a box; a row that is none may hold any finite numbers.
    """

    boxes: Tensor
    labels: Tensor
    present: Tensor

    @property
    def n_images(self) -> int:
        """Images in the batch, those without boxes included."""
        return len(self.boxes)

    @staticmethod
    def from_lists(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> BoxTargets:
        """From one (n_i, 4) and one (n_i,) tensor an image; n_i may be 0.

        Raises:
            ValueError: an image's boxes and labels disagree in number, or there are no images.
        """
        if not boxes or [len(b) for b in boxes] != [len(x) for x in labels]:
            raise ValueError(
                "expected as many labels as boxes for each image, and at least one image"
            )
        most = max(
            1, *(len(b) for b in boxes)
        )  # one row at least: a maximum over none is undefined
        padded = boxes[0].new_zeros((len(boxes), most, 4), dtype=torch.float32)
        classes = labels[0].new_zeros((len(boxes), most), dtype=torch.int64)
        present = torch.zeros_like(classes, dtype=torch.bool)
        for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            padded[i, : len(box)] = box.reshape(-1, 4)
            classes[i, : len(box)] = label.reshape(-1)
            present[i, : len(box)] = True
        return BoxTargets(padded, classes, present)

    def with_boxes(self, boxes: Tensor) -> BoxTargets:
        """The same labels on moved boxes."""
        return BoxTargets(boxes, self.labels, self.present)

    def keep(self, mask: Tensor) -> BoxTargets:
        """Only the boxes where ``mask`` (b, m) is true."""
        return BoxTargets(self.boxes, self.labels, self.present & mask)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> BoxTargets:
        """The same boxes on another device."""
        return BoxTargets(
            *(
                each.to(device, non_blocking=non_blocking)
                for each in (self.boxes, self.labels, self.present)
            )
        )

    def per_image(self) -> list[tuple[Tensor, Tensor]]:
        """(boxes (n_i, 4), labels (n_i,)) of each image in turn; waits for the device."""
        return [
            (boxes[here], labels[here])
            for boxes, labels, here in zip(self.boxes, self.labels, self.present, strict=True)
        ]

"""The true boxes of a batch, flat: one row a box, whatever image it is on.

Flat tensors let the transforms work on all boxes of a batch at once; images without boxes need no
special case. Boxes are xyxy in pixels of the batch's square images; labels are class ids from 0.
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
        boxes: (n, 4) float32 xyxy in image pixels.
        labels: (n,) int64 class ids from 0; the detector alone adds the background.
        image: (n,) int64, ascending: which image of the batch each box is on.
        n_images: images in the batch, those without boxes included.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    n_images: int

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
        counts = torch.tensor([len(b) for b in boxes])
        image = torch.repeat_interleave(torch.arange(len(boxes)), counts).to(boxes[0].device)
        flat = torch.cat([b.reshape(-1, 4).to(torch.float32) for b in boxes])
        return BoxTargets(
            flat, torch.cat([x.reshape(-1).to(torch.int64) for x in labels]), image, len(boxes)
        )

    def with_boxes(self, boxes: Tensor) -> BoxTargets:
        """The same labels on moved boxes."""
        return BoxTargets(boxes, self.labels, self.image, self.n_images)

    def keep(self, mask: Tensor) -> BoxTargets:
        """Only the boxes where ``mask`` (n,) is true."""
        return BoxTargets(self.boxes[mask], self.labels[mask], self.image[mask], self.n_images)

    def to(self, device: torch.device | str) -> BoxTargets:
        """The same boxes on another device."""
        return BoxTargets(
            self.boxes.to(device), self.labels.to(device), self.image.to(device), self.n_images
        )

    def per_image(self) -> list[tuple[Tensor, Tensor]]:
        """(boxes (n_i, 4), labels (n_i,)) of each image in turn."""
        counts = torch.bincount(self.image, minlength=self.n_images).tolist()
        return list(
            zip(torch.split(self.boxes, counts), torch.split(self.labels, counts), strict=True)
        )

"""Occlusion of a detected box's own bins: what is the box's score worth without this part of what it pooled?

Zeiler and Fergus (2014, Visualizing and understanding convolutional networks) cover a patch of the
image and look at the score. Here the patch is a window of bins of the pooled box, all channels set
to zero; a detector's head reads 7 x 7 bins. RoIAlign's output without them is the rest. The first
layer of the head is linear, so its output without a window is what it was minus the window's share.
All 49 windows cost about one pass of that layer. The scores are those of really zeroing the bins
and running the head.

Channels say *what* spoke for a box and are drawn where they happen to be large. A channel that is
negative, or that is large beside the finding too, draws a wrong picture. Bins say *where*, whatever
the channels' signs.

Shapes: n boxes, c channels, s side of the pooled grid, w width of the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from twinray.explanation.scoring import (
    BoxScorer,
    FixedBox,
    HeatMap,
    drop_weights,
    footprint,
    peak_to_one,
    pool_boxes,
)

WINDOW = 3
"""Bins along a side of what is covered at a time: one bin alone is made up for by its neighbours."""
DEFINITION = f"occlusion, fixed box: drop of the score without {WINDOW} x {WINDOW} of the bins that it pools, around each bin"


@torch.no_grad()
def bin_occlusion(
    pyramid: Sequence[Tensor],
    boxes: Sequence[FixedBox],
    scorer: BoxScorer,
    image_size: tuple[int, int],
) -> list[HeatMap]:
    """Heat maps of one image's boxes.

    Args:
        pyramid: the pooled levels' maps of one image, (1, c, h, w) each, finest first.
        boxes: boxes on that image.
        scorer: the detector's box head.
        image_size: (height, width) of the network's input.

    Returns:
        One heat map a box, zero outside its proposal; its ``weights`` are the (s * s,) relative drops, row by row.
    """
    if not boxes:
        return []
    pooled = pool_boxes(pyramid, boxes, scorer)
    maps = []
    for box, score, covered in zip(boxes, *occluded_scores(pooled, boxes, scorer), strict=True):
        drops = drop_weights(score, covered)
        drawn = _drawn(drops.view(pooled.shape[2:]).clamp(min=0), box, image_size)
        maps.append(
            HeatMap(
                peak_to_one(drawn, image_size),
                drops.cpu().numpy(),
                float(score),
                box.level,
                DEFINITION,
            )
        )
    return maps


def occluded_scores(
    pooled: Tensor, boxes: Sequence[FixedBox], scorer: BoxScorer, window: int = WINDOW
) -> tuple[Tensor, Tensor]:
    """Each box's score, and its score without each window of its bins.

    Args:
        pooled: (n, c, s, s) what the boxes pool.
        boxes: whose classes are scored.
        scorer: the detector's box head.
        window: odd number of bins along a side; at the border what lies inside counts.

    Returns:
        (n,) and (n, s * s), by the window's middle, row by row.
    """
    n, c, s, _ = pooled.shape
    hidden = scorer.fc6(pooled.flatten(1))
    weight = scorer.fc6.weight.view(-1, c, s * s).permute(2, 0, 1)
    bins = torch.bmm(
        weight, pooled.flatten(2).permute(2, 1, 0)
    )  # (s * s, w, n): what each bin adds to the first layer
    grid = bins.permute(2, 1, 0).reshape(n, -1, s, s)
    windows = (
        F.avg_pool2d(grid, window, stride=1, padding=window // 2, divisor_override=1)
        .flatten(2)
        .transpose(1, 2)
    )
    scores = [
        scorer.from_fc6(torch.cat([whole[None], whole - without]), box.label)
        for box, whole, without in zip(boxes, hidden, windows, strict=True)
    ]
    together = torch.stack(scores)
    return together[:, 0], together[:, 1:]


def _drawn(drops: Tensor, box: FixedBox, image_size: tuple[int, int]) -> Tensor:
    """(height, width): the bins' values (s, s) laid over the proposal, in straight lines between their middles, 0 elsewhere."""
    x0, y0, x1, y1 = box.proposal.tolist()
    height, width = image_size
    across = (torch.arange(width, device=drops.device) + 0.5 - x0) / max(x1 - x0, 1e-6) * 2 - 1
    down = (torch.arange(height, device=drops.device) + 0.5 - y0) / max(y1 - y0, 1e-6) * 2 - 1
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]
    laid = F.grid_sample(
        drops[None, None], places, mode="bilinear", padding_mode="border", align_corners=False
    )
    return laid[0, 0] * footprint(box, image_size, image_size)

"""Greedy non-maximum suppression of many groups of boxes at once.

On a processor each group goes through torchvision's serial ``nms``, several groups on several threads. On other devices the
same answer comes from rounds over all groups together. A box is kept when no kept box before it overlaps it too much. Each round
applies that rule to what the round before kept. Once nothing changes the answer is the greedy one, which is the only fixed point
(Zheng et al. 2021, Cluster-NMS). The device is asked once in many rounds whether that is so.

Shapes: g groups, n boxes a group.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

ROUNDS = 16
"""Rounds between two questions to the device: more than boxes of detectors were seen to need."""
_BITS = 8
_WORD = 64
_MOST_PAIRS = 1 << 26
"""Pairs of boxes whose overlaps are made together."""


def suppress(boxes: Tensor, valid: Tensor, limit: float, part: Tensor | None = None) -> Tensor:
    """Which boxes stay: (g, n) bool.

    Args:
        boxes: (g, n, 4) xyxy, in falling order of score.
        valid: (g, n) whether the row is a box at all.
        limit: a box falls whose IoU with a better one that stays is above it.
        part: (g, n) integers: only boxes of one part meet. None: all of a group do.
    """
    if boxes.device.type == "cpu":
        return _one_by_one(boxes, valid, limit, part)
    return by_rounds(boxes, valid, limit, part)


def by_rounds(boxes: Tensor, valid: Tensor, limit: float, part: Tensor | None = None) -> Tensor:
    """:func:`suppress` by rounds over all groups together, on any device."""
    n = boxes.shape[1]
    spare = -n % _WORD  # bits go by words
    if spare:
        boxes, valid = F.pad(boxes, (0, 0, 0, spare)), F.pad(valid, (0, spare))
        part = F.pad(part, (0, spare)) if part is not None else None
    each = max(1, _MOST_PAIRS // boxes.shape[1] ** 2)
    some = torch.split(boxes, each)
    parts = torch.split(part, each) if part is not None else [None] * len(some)
    above = torch.cat([_above(*both, limit) for both in zip(some, parts, strict=True)])
    keep = valid
    while True:
        for _ in range(ROUNDS):
            before = keep
            keep = valid & ~(above & _packed(keep).unsqueeze(1)).any(dim=2)
        if bool((keep == before).all()):  # the host waits here, and nowhere else
            return keep[:, :n]


def _above(boxes: Tensor, part: Tensor | None, limit: float) -> Tensor:
    """Which better boxes overlap each box too much: (g, n, n / 64) int64, a bit for each."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]) - low).clamp_(min=0)
    shared = sides[..., 0] * sides[..., 1]
    over = shared / (area[:, :, None] + area[:, None, :] - shared) > limit
    if part is not None:
        over &= part[:, :, None] == part[:, None, :]
    return _packed(over.tril_(-1))


def _packed(flags: Tensor) -> Tensor:
    """(..., n) bool, 64 of them in each of (..., n / 64) int64."""
    place = torch.arange(_BITS, dtype=torch.uint8, device=flags.device)
    bits = flags.reshape(*flags.shape[:-1], -1, _BITS).to(torch.uint8) << place
    packed: Tensor = bits.sum(dim=-1, dtype=torch.uint8).view(torch.int64)
    return packed


def _one_by_one(boxes: Tensor, valid: Tensor, limit: float, part: Tensor | None) -> Tensor:
    order = torch.arange(boxes.shape[1], 0, -1, dtype=boxes.dtype)
    keep = torch.zeros_like(valid)

    def one(group: int) -> None:
        """Suppression of one image's boxes, part by part."""
        with torch.no_grad():  # a thread starts with gradients on
            here = valid[group].nonzero().squeeze(1)
            parts = [here]
            if part is not None:
                own = part[group, here]
                parts = [here[own == which] for which in torch.unique(own)]
            for at in parts:
                keep[group, at[nms(boxes[group, at], order[at], limit)]] = True

    threads = torch.get_num_threads()
    if min(len(boxes), threads) < 2:
        for group in range(len(boxes)):
            one(group)
    else:
        list(_threads(threads).map(one, range(len(boxes))))
    return keep


@lru_cache(maxsize=1)
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="twinray-suppression")

"""The slow way to the same heat maps: really zero each channel and really run everything after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork

from twinray.explanation.scoring import BoxScorer, FixedBox, HeatMap, drop_weights, render


@torch.no_grad()
def ablation_cam_rerun(
    activation: Tensor,
    rescore: Callable[[Tensor], Tensor],
    box: FixedBox,
    image_size: tuple[int, int],
    definition: str,
    batch_size: int = 16,
    seen: Tensor | None = None,
) -> HeatMap:
    """The slow way: really zero each channel and really run everything after it.

    Args:
        activation: (1, c, h, w), whose channels are taken away.
        rescore: scores (b,) of the fixed box on b versions of it, (b, c, h, w); ``rescore_from_level``
            and ``rescore_from_last_stage`` make it.
        box: the box.
        image_size: (height, width) of the network's input.
        definition: what is being computed, in words.
        batch_size: versions run at a time.
        seen: (h, w) what each cell counts in the drawing; None: the same everywhere.
    """
    score = rescore(activation)[0]
    ablated = rerun_channel_scores(activation, rescore, batch_size)
    weights = drop_weights(score, ablated)
    drawn = render(activation[0].float(), weights, image_size, seen)
    return HeatMap(drawn, weights.cpu().numpy(), float(score), box.level, definition)


def rerun_channel_scores(
    activation: Tensor, rescore: Callable[[Tensor], Tensor], batch_size: int = 16
) -> Tensor:
    """(c,) scores with each channel of (1, c, h, w) really zeroed, by ``rescore``."""
    scores = []
    for channels in torch.split(
        torch.arange(activation.shape[1], device=activation.device), batch_size
    ):
        versions = activation.repeat(len(channels), 1, 1, 1)
        versions[torch.arange(len(channels), device=activation.device), channels] = 0
        scores.append(rescore(versions))
    return torch.cat(scores)


def rescore_from_level(box: FixedBox, scorer: BoxScorer) -> Callable[[Tensor], Tensor]:
    """Scores of the box on versions of its level's map: RoIAlign and the box head, run in full."""
    return lambda maps: scorer.score(maps, box)


def rescore_from_last_stage(
    stages: Mapping[str, Tensor], fpn: FeaturePyramidNetwork, box: FixedBox, scorer: BoxScorer
) -> Callable[[Tensor], Tensor]:
    """Scores of the box on versions of the last stage: pyramid, RoIAlign and head, run in full."""
    names = list(stages)

    def rescore(versions: Tensor) -> Tensor:
        again = {name: stages[name].expand(len(versions), -1, -1, -1) for name in names[:-1]}
        pyramid = list(fpn({**again, names[-1]: versions}).values())
        return scorer.score(pyramid[box.level], box)

    return rescore

"""Heat maps of a classifier: where in the image the evidence for a class lies.

The log-odds of the class, log(p / (1 - p)), is what is explained. For exclusive classes it is that
of the class against all others together. For labels that are present or absent each on its own it
is the label's logit. A probability near 1 hardly moves when evidence is taken away; its log-odds
do.

- ``ablation``: each channel of the last feature map set to zero, its drop in log-odds the channel's
  weight (Ablation-CAM: Desai and Ramaswamy 2020). The features are the mean over places and the
  layer after them is linear. The logits without channel c are therefore z - W[:, c] times its mean:
  exact, and all channels at once. For two classes, and for labels on their own, this is CAM (Zhou
  et al. 2016) with each channel's mean in its weight.
- ``grad-cam``: Selvaraju et al. 2017. ``grad-cam++``: Chattopadhay et al. 2018, equation 19.
- ``eigen-cam``: Muhammad and Yeasin 2020; activations alone, alike for all classes.
- ``occlusion``: a grey square moved over the image, its drop in log-odds, each time through the whole network (Zeiler and
  Fergus 2014). It needs nothing of the network's inside.

Shapes: d channels, h w places of the last map, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twinray.explanation.gradient_cams import eigen_cam, grad_cam, grad_cam_plus_plus
from twinray.explanation.scoring import peak_to_one

ClassMethod = Literal["ablation", "grad-cam", "grad-cam++", "eigen-cam", "occlusion"]
CLASS_METHODS: tuple[ClassMethod, ...] = get_args(ClassMethod)
DEFINITIONS: dict[str, str] = {
    "ablation": "drop of the class's log-odds with each channel of the last feature map set to zero, exact",
    "grad-cam": "Grad-CAM of the class's log-odds, channels of the last feature map",
    "grad-cam++": "Grad-CAM++ of the class's log-odds, channels of the last feature map",
    "eigen-cam": "Eigen-CAM, channels of the last feature map (alike for all classes)",
    "occlusion": "drop of the class's log-odds with a grey square over each part of the image",
}
PATCHES = 6
"""Squares of the occlusion along a side of the image; they move by half of their side."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassScorer:
    """What explanations need to know of a classifier.

    Attributes:
        last_map: normalised images (b, 3, s, s) -> (b, d, h, w), whose mean over places are the
            features. None stands for a network that has no such map.
        linear: the layer on the features, (b, d) -> (b, k) logits.
        logits: the whole network, (b, 3, s, s) -> (b, k).
        exclusive: whether an image has exactly one of the classes.
    """

    last_map: Callable[[Tensor], Tensor] | None
    linear: nn.Linear
    logits: Callable[[Tensor], Tensor]
    exclusive: bool


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """Where the evidence for one class lies.

    Attributes:
        map: (s, s) float32 in 0..1 over the network's input, 1 at its strongest place; all zero if nothing speaks for the class.
        weights: (d,) what each channel counted; of the occlusion the drop of each square, row by row.
        log_odds: log-odds of the class on the whole image.
        definition: in words, what was computed.
    """

    map: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    log_odds: float
    definition: str


def log_odds(logits: Tensor, label: int, exclusive: bool) -> Tensor:
    """(b,) log(p / (1 - p)) of a class from (b, k) logits."""
    own = logits[:, label]
    if not exclusive:
        return own
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return own - torch.logsumexp(others, dim=1)


def class_maps(
    method: ClassMethod,
    image: Tensor,
    labels: Sequence[int],
    scorer: ClassScorer,
    *,
    batch_size: int = 16,
) -> list[ClassMap]:
    """Heat maps of some classes on one image.

    Args:
        method: name of the map.
        image: (3, s, s) normalised; 0 is the grey of occlusion.
        labels: class ids.
        scorer: the classifier, in evaluation mode.
        batch_size: occluded versions of the image at once.

    Raises:
        ValueError: an unknown method, or one that needs the last map of a network without.
    """
    if method not in CLASS_METHODS:
        raise ValueError(f"expected method to be one of {', '.join(CLASS_METHODS)}, got {method!r}")
    if method == "occlusion":
        return _occlusion(image, labels, scorer, batch_size)
    if scorer.last_map is None:
        raise ValueError(f"{method} needs a last feature map whose mean are the features")
    size = (image.shape[1], image.shape[2])
    with torch.no_grad():
        feature = scorer.last_map(image[None]).float()
    found = []
    for label in labels:
        raw, weights, value = _raw(method, feature, label, scorer)
        found.append(ClassMap(peak_to_one(raw, size), _numpy(weights), value, DEFINITIONS[method]))
    return found


def _raw(
    method: str, feature: Tensor, label: int, scorer: ClassScorer
) -> tuple[Tensor, Tensor, float]:
    """Raw map (h, w), weights (d,) and the log-odds."""
    if method == "ablation":
        with torch.no_grad():
            whole, without = ablated_log_odds(feature[0], label, scorer.linear, scorer.exclusive)
            weights = whole - without
            return torch.einsum("c,chw->hw", weights, feature[0]), weights, float(whole)
    with torch.enable_grad():
        leaf = feature.detach().requires_grad_(True)
        value = log_odds(scorer.linear(leaf.mean(dim=(2, 3))), label, scorer.exclusive)[0]
        (gradient,) = torch.autograd.grad(value, leaf)
    if method == "eigen-cam":
        raw, weights = eigen_cam(feature[0], centred=True)
    else:
        rule = grad_cam if method == "grad-cam" else grad_cam_plus_plus
        raw, weights = rule(feature[0], gradient[0])
    return raw, weights, float(value.detach())


def ablated_log_odds(
    feature: Tensor, label: int, linear: nn.Linear, exclusive: bool
) -> tuple[Tensor, Tensor]:
    """The log-odds (), and those without each channel (d,), of one image's last map (d, h, w); in closed form."""
    pooled = feature.float().mean(dim=(1, 2))
    logits = linear(pooled)
    without = logits[None] - (linear.weight * pooled).T  # (d, k): row c without what channel c adds
    return log_odds(logits[None], label, exclusive)[0], log_odds(without, label, exclusive)


@torch.no_grad()
def _occlusion(
    image: Tensor, labels: Sequence[int], scorer: ClassScorer, batch_size: int
) -> list[ClassMap]:
    """The mean drop over the squares that cover each pixel; a drop below zero counts as none."""
    size = image.shape[1]
    places = occlusion_places(size)
    logits = []
    versions: list[tuple[int, int, int, int] | None] = [None, *places]
    for start in range(0, len(versions), batch_size):
        batch = image.repeat(len(versions[start : start + batch_size]), 1, 1, 1)
        for one, place in zip(batch, versions[start : start + batch_size], strict=True):
            if place is not None:
                x1, y1, x2, y2 = place
                one[:, y1:y2, x1:x2] = 0
        logits.append(scorer.logits(batch).float())
    table = torch.cat(logits)
    found = []
    for label in labels:
        values = log_odds(table, label, scorer.exclusive).double().cpu()
        drops = (values[0] - values[1:]).numpy()
        total, covered = np.zeros((size, size)), np.zeros((size, size))
        for drop, (x1, y1, x2, y2) in zip(drops, places, strict=True):
            total[y1:y2, x1:x2] += max(float(drop), 0.0)
            covered[y1:y2, x1:x2] += 1
        mean = torch.from_numpy(total / np.maximum(covered, 1))
        found.append(
            ClassMap(
                peak_to_one(mean, (size, size)),
                drops.astype(np.float32),
                float(values[0]),
                DEFINITIONS["occlusion"],
            )
        )
    return found


def occlusion_places(size: int) -> list[tuple[int, int, int, int]]:
    """Squares (x1, y1, x2, y2) over an image of that side, row by row; together they cover all of it."""
    side = max(1, round(size / PATCHES))
    starts = sorted({*range(0, size - side, max(1, side // 2)), size - side})
    return [(x, y, x + side, y + side) for y in starts for x in starts]


def _numpy(values: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found


def last_map_is_pooled(last_map: Tensor, features: Tensor) -> bool:
    """Whether features (b, d) are the means over places of a map (b, d, h, w), to float32 rounding."""
    if last_map.ndim != 4 or last_map.shape[:2] != features.shape:
        return False
    return bool(
        torch.allclose(
            F.adaptive_avg_pool2d(last_map, 1).flatten(1), features, rtol=1e-3, atol=1e-4
        )
    )

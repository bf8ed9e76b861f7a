"""Which parts of a network a surgical fine-tuning should move: relative gradient norms.

The source is Lee, Chen, Tajwar, Kumar, Yao, Liang and Finn, "Surgical fine-tuning improves
adaptation to distribution shifts", ICLR 2023, section 5 (Auto-RGN). A part whose gradient is large
beside its weights has the most to gain. Each part learns at a rate in proportion to ``|g| / |w|``,
the largest at the full rate. As in the authors' code the norms are averaged over the first five
batches and norm layers are left out of both. Unlike there they are taken once, before training, by
part and not by tensor. A run's rates can so be read and drawn.

The gradient needs a linear layer that says something. It is fitted on these very batches, by the convex fit of the
probe, with the norms in the mode that training has.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from twinray.classification.loss import label_loss
from twinray.classification.model import Classifier
from twinray.classification.policies import Learner, Plan, norm_parameters
from twinray.classification.probe import fit_linear
from twinray.records import FloatArray

BATCHES = 5
PENALTY = 0.1
"""Of the linear layer's fit: strong enough for a few batches of labels."""


def relative_gradient_norms(
    classifier: Classifier, norm: str, batches: Sequence[tuple[Tensor, FloatArray]]
) -> dict[str, float]:
    """``|g| / |w|`` of each part of the backbone, mean over batches; the classifier is left as it is.

    Args:
        classifier: network as it is before training; its own linear layer is not used.
        norm: mode of batch norms in training: trainable, eval or frozen.
        batches: (normalised images (b, 3, s, s), labels (b, k) of 1 and 0, any other value counts for nothing).
    """
    learner = _copy(classifier, norm)
    own = learner.classifier
    with torch.no_grad():
        features = np.concatenate(
            [own.backbone(images).float().cpu().numpy() for images, _ in batches]
        )
    labels = np.concatenate([labels for _, labels in batches])
    own.set_head(fit_linear(features, labels, own.task, PENALTY))
    left_out = norm_parameters(own.backbone)
    parameters = dict(own.backbone.named_parameters())
    of_part = {
        part: [parameters[name] for name in names if name not in left_out]
        for part, names in own.backbone.parts().items()
    }
    sums = dict.fromkeys(of_part, 0.0)
    for images, truth in batches:
        own.zero_grad(set_to_none=True)
        known = (truth == 0) | (truth == 1)
        number = len(truth) if own.task == "multiclass" else max(int(known.sum()), 1)
        targets = torch.from_numpy((truth == 1).astype(np.float32)).to(images.device)
        weights = torch.from_numpy((known / number).astype(np.float32)).to(images.device)
        label_loss(own.logits(images), targets, weights, own.task).backward()  # type: ignore[no-untyped-call]
        for part, tensors in of_part.items():
            sums[part] += _relative(tensors)
    return {part: value / len(batches) for part, value in sums.items()}


def tuned_rates(norms: dict[str, float]) -> dict[str, float]:
    """Factors on the backbone's rate: each part's share of the largest relative gradient norm."""
    largest = max(norms.values())
    return {part: value / largest if largest > 0 else 1.0 for part, value in norms.items()}


def _copy(classifier: Classifier, norm: str) -> Learner:
    """Everything learns, but for the norms where these are frozen; in training mode."""
    own = copy.deepcopy(classifier)
    everything = {name: 1.0 for name, _ in own.backbone.named_parameters()}
    learner = Learner(own, Plan({}, everything, norm, 1.0))
    return learner.train()


def _relative(tensors: Sequence[Tensor]) -> float:
    gradients = [t.grad.double().square().sum() for t in tensors if t.grad is not None]
    weights = [t.detach().double().square().sum() for t in tensors if t.grad is not None]
    total = float(sum(weights, torch.zeros(())))
    return (float(sum(gradients, torch.zeros(()))) / total) ** 0.5 if total > 0 else 0.0

"""Which layers of a classifier learn, at which rate, and what their batch norms do.

A :class:`Plan` is made from the options once, and everything else follows from it. It sets which
parameters have gradients, the mode of each norm while training, and the optimiser's groups.
Layer-wise decay follows Clark et al. 2020 (ELECTRA) and Bao et al. 2022 (BEiT). The head has the
full rate, each part before it ``layer_decay`` times the rate of the one after.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from torch import Tensor, nn

from twinray.backbones.contract import Backbone, has_tokens
from twinray.backbones.norm import is_batch_norm, learns, still
from twinray.classification.config import ClassifyConfig
from twinray.classification.model import Classifier
from twinray.classification.protocols import Recipe
from twinray.errors import InputError
from twinray.training.optim import rated_groups

NORMS = "norms"
"""The name under --tune that means every norm layer, whatever part it is in."""
_RANGE = re.compile(r"(?P<of>.*[a-z._])(?P<first>\d{1,4})-(?P<last>\d{1,4})")
TOKENS_DECAY = 0.75
"""Layer-wise decay of networks with position embeddings, where none is given (BEiT's for small ones)."""


@dataclass(frozen=True)
class Plan:
    """Rates of a backbone's parameters, relative to the backbone's peak rate.

    Attributes:
        rates: part -> factor, 0 where the part does not learn; in the order of the network.
        of: parameter of the backbone -> its factor, 0 where it does not learn.
        norm: mode of the batch norms of learning layers: trainable, eval or frozen.
        layer_decay: factor from each part to the one before it, contained in the others.
    """

    rates: Mapping[str, float]
    of: Mapping[str, float]
    norm: str
    layer_decay: float

    @property
    def learning(self) -> tuple[str, ...]:
        """Names of the backbone's parameters that learn."""
        return tuple(name for name, factor in self.of.items() if factor > 0)


def make_plan(
    backbone: Backbone, config: ClassifyConfig, chosen: Recipe, tuned: Mapping[str, float]
) -> Plan:
    """What learns under the policies surgical and full.

    Args:
        backbone: its parts and parameters.
        config: a filled configuration.
        chosen: its recipe.
        tuned: part -> factor under surgical, besides ``norms`` -> 1 for every norm layer; not read under full.

    Raises:
        InputError: nothing of the backbone would learn.
    """
    assert chosen.norm is not None
    parts = backbone.parts()
    decay = chosen.layer_decay if chosen.layer_decay is not None else default_layer_decay(backbone)
    norms = norm_parameters(backbone)
    rates, of = {}, {}
    for place, (part, names) in enumerate(parts.items()):
        own = 1.0 if config.policy == "full" else tuned.get(part, 0.0)
        by_depth = decay ** (len(parts) - place)
        rates[part] = own * by_depth
        for name in names:
            factor = tuned[NORMS] if own == 0 and NORMS in tuned and name in norms else own
            of[name] = 0.0 if chosen.norm == "frozen" and name in norms else factor * by_depth
    if not any(of.values()):
        raise InputError(
            f"--tune {' '.join(config.tune)} with --norm {chosen.norm} leaves nothing of the backbone to learn; use --policy head"
        )
    return Plan(rates, of, chosen.norm, decay)


def default_layer_decay(backbone: Backbone) -> float:
    """0.75 for networks with position embeddings (ViT, Swin, ...), else 1."""
    return TOKENS_DECAY if has_tokens(name for name, _ in backbone.named_parameters()) else 1.0


def named_parts(backbone: Backbone, tune: Sequence[str]) -> dict[str, float]:
    """Factors for the parts that --tune names: 1 each. ``blocks.8-11`` names four blocks.

    Raises:
        InputError: a name that is no part of this backbone.
    """
    known = [*backbone.parts(), NORMS]
    tune = [part for name in tune for part in _one_by_one(name)]
    wrong = [name for name in tune if name not in known]
    if wrong:
        raise InputError(
            f"expected --tune to name parts of {backbone.arch} ({', '.join(known)}), got {wrong[0]!r}"
        )
    return dict.fromkeys(tune, 1.0)


def _one_by_one(name: str) -> list[str]:
    """The parts that a range names (``blocks.8-11``); what is no range names itself."""
    found = _RANGE.fullmatch(name)
    if found is None:
        return [name]
    first, last = int(found["first"]), int(found["last"])
    # a range that runs backwards, or is longer than any network, is answered as a wrong name
    return [f"{found['of']}{i}" for i in range(first, last + 1)] if first <= last < 1000 else [name]


def norm_parameters(backbone: nn.Module) -> frozenset[str]:
    """Names of the parameters of norm layers: batch, layer, group norm and their kin."""
    return frozenset(
        f"{name}.{own}" if name else own
        for name, module in backbone.named_modules()
        if is_batch_norm(module) or "norm" in type(module).__name__.lower()
        for own, _ in module.named_parameters(recurse=False)
    )


@final
class Learner(nn.Module):
    """A classifier in training under a plan; its ``train()`` keeps what does not learn in evaluation mode.

    Attributes:
        classifier: network that is trained, in place.
        plan: choice of its layers that learn.
    """

    def __init__(self, classifier: Classifier, plan: Plan) -> None:
        super().__init__()
        self.classifier = classifier
        self.plan = plan
        for name, parameter in classifier.backbone.named_parameters():
            parameter.requires_grad_(plan.of[name] > 0)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, s, s) normalised images -> (b, k) logits."""
        return self.classifier.logits(x)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; stored statistics and frozen layers stay as they are in both."""
        super().train(mode)
        if mode:
            still(self.classifier.backbone)
            for module in self.classifier.backbone.modules():
                if is_batch_norm(module):
                    module.train(self.plan.norm == "trainable" and learns(module))
        return self

    def groups(self, chosen: Recipe) -> list[dict[str, Any]]:
        """Groups of the optimiser: of one rate and one decay each; the head's come first, with its own rate."""
        lr_backbone = chosen.lr_backbone
        assert lr_backbone is not None

        def rate(name: str) -> tuple[str, float, float]:
            if name.startswith("head."):
                return "head", 1.0, chosen.lr_head
            return "backbone", self.plan.of[name.removeprefix("backbone.")], lr_backbone

        return rated_groups(
            self.classifier,
            rate,
            weight_decay=chosen.weight_decay,
            weight_decay_biases=chosen.weight_decay_biases,
        )


def layers_of(classifier: Classifier) -> dict[str, list[str]]:
    """For a run's record: the parts of the classifier with a parameter that learns, and those without."""
    learning: list[str] = ["head"]
    frozen: list[str] = []
    parameters = dict(classifier.backbone.named_parameters())
    for part, names in classifier.backbone.parts().items():
        (learning if any(parameters[name].requires_grad for name in names) else frozen).append(part)
    return {"learning": learning, "frozen": frozen}

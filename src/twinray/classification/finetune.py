"""The policies head, surgical and full: one label draw's training on the one loop.

Under ``head`` the backbone never changes: the loop trains the linear layer alone, and checkpoints
hold nothing else. Where no transform changes the images, their features are computed once. Under
``surgical`` and ``full`` a :class:`Learner` trains what its plan says.

Shapes: n images, d features, k classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from twinray.backbones.build import Backbone
from twinray.backbones.pixels import network_input
from twinray.classification.config import AUTO, ClassifyConfig
from twinray.classification.data import Batch, LabelledImages
from twinray.classification.draws import Fitted, keep_tuning, kept_tuning
from twinray.classification.features.on_pack import Seen, extract_features, label_scores
from twinray.classification.loss import label_loss
from twinray.classification.model import Classifier, Head, draw_head, probabilities
from twinray.classification.policies import Learner, Plan, layers_of, make_plan, named_parts
from twinray.classification.protocols import Recipe, rate_factor, recipe
from twinray.classification.transforms import Transforms
from twinray.classification.tuning import BATCHES, relative_gradient_norms, tuned_rates
from twinray.data.pack import Pack
from twinray.records import ABSENT, PRESENT, FloatArray, IntArray
from twinray.runs.folder import RunFolder
from twinray.seeds import within
from twinray.training.device import Machine
from twinray.training.engine import Loop, Watch, load_best, train
from twinray.training.loader import PixelSource, epoch_order
from twinray.training.optim import optimizer_of
from twinray.training.ranks import Ranks
from twinray.training.sync_norm import synchronise_norms
from twinray.training.windows import windows_of


@dataclass(frozen=True, eq=False)
class Draw:
    """One label draw.

    Attributes:
        seed: seed of the draw, of the linear layer's initial weights, of order and transforms.
        rows: rows of the pack, to learn from.
        choosing: rows that the epoch is chosen on; none where the last is kept.
        chosen_on: words for what these are.
        folder: folder that its log and checkpoints go to.
    """

    seed: int
    rows: IntArray
    choosing: IntArray
    chosen_on: str
    folder: RunFolder


@dataclass(frozen=True, eq=False)
class Task:
    """What all draws of a run share.

    Attributes:
        config: filled options.
        pack: the images.
        labels: (n, k) labels of all its images as training takes them.
        backbone: network as its initial weights left it; draws train copies.
        val, test: rows of the pack's splits with a label; there may be no val.
        machine: device and precision of training.
        ranks: all processes.
        watch: told at every epoch's end.
    """

    config: ClassifyConfig
    pack: Pack
    labels: FloatArray
    backbone: Backbone
    val: IntArray
    test: IntArray
    machine: Machine
    ranks: Ranks = field(default_factory=Ranks)
    watch: Watch | None = None

    @property
    def exact(self) -> Machine:
        """In full float32: of features that are computed once, and of all final figures."""
        return self.machine.exact

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.pack.info.label_classes)

    def transforms(self, chosen: Recipe) -> Transforms:
        """Of training images."""
        return Transforms(
            self.config.size,
            chosen.crop_min,
            chosen.flip,
            chosen.brightness,
            chosen.contrast,
            self.backbone.normalisation,
            windows_of(self.config),
        )

    def features(self, rows: IntArray) -> FloatArray:
        """(n, d) float32 of frozen layers, without augmentation."""
        return extract_features(
            self.backbone,
            self.pack.pixels,
            rows,
            size=self.config.size,
            batch_size=self.config.batch_size or 256,
            machine=self.exact,
        )

    def scores(
        self, classifier: Classifier, rows: IntArray, machine: Machine, label: str
    ) -> FloatArray:
        """(n, k) probabilities of some rows; the classifier is left in evaluation mode."""
        return label_scores(
            classifier.eval(),
            self.pack.pixels,
            rows,
            self.k,
            seen=Seen(self.config.size, self.backbone.normalisation),
            batch_size=self.config.batch_size or 256,
            machine=machine,
            label=label,
        )

    def pixels(self, rows: IntArray) -> PixelSource:
        """The images of some rows, in their order."""
        return PixelSource([self.pack.pixels], np.stack([np.zeros_like(rows), rows], axis=1))


@dataclass(frozen=True, eq=False)
class Step:
    """The training step: transform, forward, loss, gradient.

    Attributes:
        logits: (b, 3, s, s) normalised images, or (b, d) features that were computed before -> (b, k).
        transforms: transforms of the pixels; None where batches hold features.
        task: values that the run shares.
        seed: seed of the transforms, combined with the step's number.
    """

    logits: Callable[[Tensor], Tensor]
    transforms: Transforms | None
    task: Task
    seed: int

    def __call__(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """This rank's share -> its share of the loss; gradients are left in ``.grad``, to be summed over ranks."""
        device = self.task.machine.device
        inputs = batch.inputs.to(device, non_blocking=True)
        if self.transforms is not None:
            generator = torch.Generator().manual_seed(within(self.seed * 1_000_003 + step))
            inputs = self.transforms(inputs, generator, self.task.ranks)
        with self.task.machine.autocast():
            logits = self.logits(inputs)
        targets, weights = batch.targets.to(device), batch.weights.to(device)
        loss = label_loss(logits, targets, weights, self.task.pack.info.task)
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            "loss": loss.detach() * self.task.ranks.world
        }  # an estimate of the whole batch's, for the log


def train_head(task: Task, draw: Draw, known: KnownFeatures) -> Fitted:
    """Linear evaluation: the linear layer by gradient descent on a frozen backbone.

    Args:
        task: values that the run shares.
        draw: choice of the labels.
        known: features that every draw takes from.

    Raises:
        TwinrayError: the loss left the finite numbers, a signal stopped the run, or the disk refuses.
    """
    chosen, info, device = recipe(task.config), task.pack.info, task.machine.device
    transforms = task.transforms(chosen)
    cached = transforms.none and task.config.cache
    mean = std = None
    if chosen.features == "standardised":
        learnt = torch.from_numpy(known.of(draw.rows)).double()
        mean, std = learnt.mean(dim=0), learnt.std(dim=0, correction=0)
        std = torch.where(std > 1e-12, std, torch.ones_like(std)).float()
        mean = mean.float()
    head = Head(task.backbone.features, task.k, mean, std)
    draw_head(head.linear, draw.seed)
    head = head.to(device)
    frozen = task.backbone.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad():
            features = frozen(images)
        found: Tensor = head(features)
        return found

    features = torch.from_numpy(known.of(draw.rows)) if cached else None
    gather = (
        task.pixels(draw.rows).gather
        if features is None
        else lambda at: features[torch.from_numpy(at)]
    )
    step = (
        Step(head, None, task, draw.seed) if cached else Step(logits, transforms, task, draw.seed)
    )
    groups: list[dict[str, Any]] = [
        {"params": [head.linear.weight], "lr": chosen.lr_head, "weight_decay": chosen.weight_decay},
        {
            "params": [head.linear.bias],
            "lr": chosen.lr_head,
            "weight_decay": chosen.weight_decay_biases,
        },
    ]
    choosing = (
        torch.from_numpy(known.of(draw.choosing))
        if len(draw.choosing)
        else torch.zeros(0, head.mean.numel())
    )

    @torch.no_grad()
    def scores() -> FloatArray:
        found = probabilities(head.eval()(choosing.to(device)).double(), info.task)
        return np.asarray(found.cpu().numpy())

    loop = _loop(task, draw, chosen, head, groups, step, gather, scores)
    state = train(loop, draw.folder)

    def finish() -> Fitted:
        """The head of the kept epoch, folded into a probe, and what its training was."""
        if loop.select is not None:
            load_best(loop, draw.folder)
        # the loop's own strength counts half the square of the weights on the features that it saw
        probe = head.folded(info.task, chosen.weight_decay)
        best = state.best_epoch if loop.select is not None else chosen.epochs - 1
        return Fitted(
            seed=draw.seed,
            training_images=len(draw.rows),
            test=probe.scores(known.of(task.test)),
            val=probe.scores(known.of(task.val)) if len(task.val) else None,
            choosing=probe.scores(known.of(draw.choosing)) if len(draw.choosing) else None,
            choosing_rows=draw.choosing,
            choosing_words=draw.chosen_on,
            head=probe,
            record={
                "best_epoch": best,
                "selected_on": _selected_on(loop, draw),
                "seconds": state.seconds,
                "layers": {"learning": ["head"], "frozen": list(task.backbone.parts())},
            },
        )

    return finish_on_first(task.ranks, finish)


@dataclass(frozen=True, eq=False)
class LayerTraining:
    """A surgical or full fine-tuning, ready to run.

    Attributes:
        loop: the training.
        classifier: network that it trains, in place.
        plan: choice of its layers that learn.
        tuned: part -> factor that --tune gives; empty under full.
        norms: relative gradient norms behind these; empty where parts are named.
    """

    loop: Loop
    classifier: Classifier
    plan: Plan
    tuned: Mapping[str, float]
    norms: Mapping[str, float]


def prepare_layers(task: Task, draw: Draw) -> LayerTraining:
    """Network, plan, optimiser and loop of a surgical or full fine-tuning.

    Raises:
        InputError: --tune names no part of this network.
    """
    config, chosen, info = task.config, recipe(task.config), task.pack.info
    device = task.machine.device
    classifier = Classifier(copy.deepcopy(task.backbone), task.k, info.task)
    draw_head(classifier.head, draw.seed)
    classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    norms: dict[str, float] = {}
    tuned: dict[str, float] = {}
    if config.policy == "surgical" and config.tune == (AUTO,):
        norms = task.ranks.first(lambda: _tuning(task, draw, chosen, classifier))
        tuned = tuned_rates(norms)
    elif config.policy == "surgical":
        tuned = named_parts(classifier.backbone, config.tune)
    plan = make_plan(classifier.backbone, config, chosen, tuned)
    learner = Learner(classifier, plan)
    if task.ranks.world > 1:
        synchronise_norms(learner)
    step = Step(learner, task.transforms(chosen), task, draw.seed)
    gather = task.pixels(draw.rows).gather
    loop = _loop(
        task,
        draw,
        chosen,
        learner,
        learner.groups(chosen),
        step,
        gather,
        lambda: task.scores(classifier, draw.choosing, task.machine, "validation"),
    )
    return LayerTraining(loop, classifier, plan, tuned, norms)


def train_layers(task: Task, draw: Draw) -> Fitted:
    """Surgical and full fine-tuning.

    Raises:
        InputError: --tune names no part of this network.
        TwinrayError: the loss left the finite numbers, a signal stopped the run, or the disk refuses.
    """
    chosen, made = recipe(task.config), prepare_layers(task, draw)
    loop, classifier, plan = made.loop, made.classifier, made.plan
    state = train(loop, draw.folder)

    def finish() -> Fitted:
        """The network of the kept epoch, and what its training was."""
        if loop.select is not None:
            load_best(loop, draw.folder)
        best = state.best_epoch if loop.select is not None else chosen.epochs - 1
        peak = chosen.lr_backbone or 0.0
        record: dict[str, Any] = {
            "best_epoch": best,
            "selected_on": _selected_on(loop, draw),
            "seconds": state.seconds,
            "layers": layers_of(classifier),
            "norm": plan.norm,
            "rates": {
                "head": chosen.lr_head,
                **{part: factor * peak for part, factor in plan.rates.items()},
            },
        }
        if task.config.policy == "surgical":
            record["tune"] = {
                "parts": dict(made.tuned),
                "relative_gradient_norms": dict(made.norms) or None,
            }
        same = len(draw.choosing) == len(task.val) and bool((draw.choosing == task.val).all())
        val = task.scores(classifier, task.val, task.exact, "val split") if len(task.val) else None
        choosing = val if same else None
        if not same and len(draw.choosing):
            choosing = task.scores(classifier, draw.choosing, task.exact, "held out")
        return Fitted(
            seed=draw.seed,
            training_images=len(draw.rows),
            test=task.scores(classifier, task.test, task.exact, "test split"),
            val=val,
            choosing=choosing,
            choosing_rows=draw.choosing,
            choosing_words=draw.chosen_on,
            state={
                name: t.detach().cpu().contiguous() for name, t in classifier.state_dict().items()
            },
            record=record,
        )

    return finish_on_first(task.ranks, finish)


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """Features of the frozen backbone, computed once for all draws.

    Attributes:
        rows: (n,) rows of the pack, ascending. values: (n, d) float32.
    """

    rows: IntArray
    values: FloatArray

    @staticmethod
    def needed(task: Task, draws: list[Draw]) -> KnownFeatures:
        """Of all images whose features do not change from step to step."""
        chosen = recipe(task.config)
        learnt = task.transforms(chosen).none and task.config.cache
        rows = [task.test, task.val, *(draw.choosing for draw in draws)]
        if learnt or chosen.features == "standardised":
            rows += [draw.rows for draw in draws]
        all_rows = np.unique(np.concatenate(rows))
        return KnownFeatures(all_rows, task.features(all_rows))

    def of(self, rows: IntArray) -> FloatArray:
        """(m, d) of some of the rows."""
        found: FloatArray = self.values[np.searchsorted(self.rows, rows)]
        return found


def finish_on_first(ranks: Ranks, finish: Callable[[], Fitted]) -> Fitted:
    """Final figures come from the first process; the others wait and get an empty result."""
    made: list[Fitted] = []

    def call() -> None:
        made.append(finish())

    ranks.first(call)
    return made[0] if made else Fitted.empty()


def _loop(
    task: Task,
    draw: Draw,
    chosen: Recipe,
    model: torch.nn.Module,
    groups: list[dict[str, Any]],
    step: Step,
    gather: Callable[[IntArray], Tensor],
    scores: Callable[[], FloatArray],
) -> Loop:
    config, info, ranks = task.config, task.pack.info, task.ranks
    images = LabelledImages.of(
        gather, task.labels[draw.rows], info.task, balanced=config.class_weights == "balanced"
    )
    batch_size = min(chosen.batch_size, len(images))
    per_pass, passes = images.steps(batch_size, chosen.least_steps)
    steps_per_epoch = per_pass * passes
    optimizer = optimizer_of(chosen.optimizer, groups)
    base = [float(group["lr"]) for group in optimizer.param_groups]
    select = _selects_by(task, draw)
    return Loop(
        label=f"{config.policy}, seed {draw.seed}" if len(config.seeds) > 1 else config.policy,
        model=model,
        optimizer=optimizer,
        step=step,
        batches=lambda epoch, first: images.batches(
            batch_size, chosen.least_steps, seed=draw.seed, epoch=epoch, first=first, ranks=ranks
        ),
        steps_per_epoch=steps_per_epoch,
        epochs=chosen.epochs,
        rates=lambda step: [rate * rate_factor(chosen, step, steps_per_epoch) for rate in base],
        images_per_step=batch_size,
        seed=draw.seed,
        at_epoch_end=None if select is None else lambda epoch: _figures(task, draw, scores()),
        select=select,
        clip_norm=chosen.clip_norm or None,
        checkpoint_every=config.checkpoint_every,
        checkpoint_minutes=config.checkpoint_minutes,
        log_every=config.log_every,
        ranks=ranks,
        watch=task.watch,
    )


def _selects_by(task: Task, draw: Draw) -> str | None:
    """AUC where a class has both kinds of labels among the choosing images, else the loss; None without such images."""
    if not len(draw.choosing):
        return None
    labels = task.labels[draw.choosing]
    both = (labels == PRESENT).any(axis=0) & (labels == ABSENT).any(axis=0)
    return "auc" if both.any() else "minus_loss"


def _figures(task: Task, draw: Draw, scores: FloatArray) -> dict[str, float]:
    """Mean AUC (NaN where it does not exist) and minus the mean loss on the images that the epoch is chosen on."""
    labels = task.labels[draw.choosing]
    present, absent = labels == PRESENT, labels == ABSENT
    safe = scores.clip(1e-12, 1 - 1e-12)
    each = np.log(safe)[present]
    if task.pack.info.task == "multilabel":
        each = np.concatenate([each, np.log(1 - safe)[absent]])
    known = present | absent
    both = np.flatnonzero(present.any(axis=0) & absent.any(axis=0))
    found = [roc_auc_score(present[known[:, i], i], scores[known[:, i], i]) for i in both]
    return {"auc": float(np.mean(found)) if found else math.nan, "minus_loss": float(each.mean())}


def _selected_on(loop: Loop, draw: Draw) -> str:
    if loop.select is None:
        return f"last epoch ({draw.chosen_on})"
    name = {"auc": "AUC", "minus_loss": "loss, since no class there has positives and negatives,"}[
        loop.select
    ]
    return f"{name} on {draw.chosen_on}"


def _tuning(task: Task, draw: Draw, chosen: Recipe, classifier: Classifier) -> dict[str, float]:
    """Relative gradient norms on the first batches of the labelled images; those of an interrupted run where it kept them."""
    kept = kept_tuning(draw.folder)
    if kept is not None:
        return kept
    source = task.pixels(draw.rows)
    order = epoch_order(len(source), min(chosen.batch_size, len(source)), seed=draw.seed, epoch=0)[
        :BATCHES
    ]
    device, by = task.machine.device, task.backbone.normalisation
    batches = [
        (network_input(source.gather(at), task.config.size, device, by), task.labels[draw.rows[at]])
        for at in order
    ]
    assert chosen.norm is not None
    found = relative_gradient_norms(classifier, chosen.norm, batches)
    keep_tuning(draw.folder, found)
    return found

"""Labelled images of a pack: which may be learnt from, what their labels teach, and batches of them.

Shapes: n images, k classes, b images of this rank in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from twinray.data.pack import Pack
from twinray.data.splitting.cut import cut_splits
from twinray.errors import InputError
from twinray.records import ABSENT, PRESENT, UNCERTAIN, FloatArray, IntArray, Task
from twinray.training.loader import epoch_order, prefetch
from twinray.training.ranks import Ranks

HELD_OUT = 0.2
"""Share of the labelled fraction that an epoch is chosen on where the pack has no val images."""


def labelled_rows(pack: Pack, split: str, labels: FloatArray | None = None) -> IntArray:
    """Rows of a split that have a label.

    Args:
        pack: where they are.
        split: train, val or test.
        labels: (n, k) over all rows, in place of the pack's own.

    Raises:
        InputError: the pack has no labels, or the split no labelled image.
    """
    usable = rows_with_labels(pack, split, labels)
    if len(usable) == 0:
        raise InputError(
            f"no labelled image of split {split} in {pack.path}; pack again with a larger share for it"
        )
    return usable


def rows_with_labels(pack: Pack, split: str, labels: FloatArray | None = None) -> IntArray:
    """As :func:`labelled_rows`, but there may be none.

    Raises:
        InputError: the pack has no labels at all.
    """
    if pack.info.task == "none":
        raise InputError(
            f"{pack.path} has no labels: pack a source with class folders, a label table or annotations"
        )
    rows = pack.where(split)
    stated = (pack.labels if labels is None else labels)[rows]
    usable: IntArray = rows[((stated == PRESENT) | (stated == ABSENT)).any(axis=1)]
    return usable


def labels_to_learn(
    pack: Pack, uncertain: Literal["ignore", "zero", "one"], blank: Literal["unknown", "zero"]
) -> FloatArray:
    """(n, k) labels of all images as training takes them: 1, 0, or anything else for one that counts for nothing.

    An image without any label stays without; in multi-class packs there is nothing to decide.

    Args:
        pack: where they are.
        uncertain: value that an uncertain label counts as.
        blank: what a label that is not stated counts as where another label of the image is stated.
    """
    labels: FloatArray = pack.labels
    if pack.info.task != "multilabel" or (uncertain == "ignore" and blank == "unknown"):
        return labels
    labels = labels.copy()
    stated = ~np.isnan(labels).all(axis=1, keepdims=True)
    if uncertain != "ignore":
        labels[labels == UNCERTAIN] = PRESENT if uncertain == "one" else ABSENT
    if blank == "zero":
        labels[np.isnan(labels) & stated] = ABSENT
    return labels


def check_classes(
    pack: Pack, rows: IntArray, labels: FloatArray, fraction: float, seed: int
) -> tuple[str, ...]:
    """Refuse what teaches nothing, before any work is done; name what teaches little.

    Args:
        pack: where the images are.
        rows: those to learn from.
        labels: (n, k) of all the pack's images, as training takes them.
        fraction: fraction of the labels, for messages.
        seed: seed of the fraction, for messages.

    Returns:
        Names of the classes without a positive among the rows.

    Raises:
        InputError: all images are of one class, or no label is known.
    """
    chosen, names = labels[rows], pack.info.label_classes
    missing = tuple(
        name for name, column in zip(names, chosen.T, strict=True) if not (column == PRESENT).any()
    )
    if pack.info.task == "multiclass" and len(missing) >= len(names) - 1:
        name = names[int(chosen[0].argmax())]
        raise InputError(
            f"all {len(rows)} training images of --fraction {fraction} with seed {seed} are {name!r}; raise the fraction, or pack "
            "images of other classes too"
        )
    if len(missing) == len(names):
        raise InputError(
            f"none of the {len(rows)} training images of --fraction {fraction} with seed {seed} shows any class; raise the fraction"
        )
    return missing


def hold_out(
    pack: Pack, rows: IntArray, labels: FloatArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Cut a labelled fraction into what is learnt from and a patient-disjoint fifth that the epoch is chosen on.

    Returns:
        Rows of both, ascending; the second is empty where there are fewer than two patients.
    """
    if len(np.unique(pack.groups[rows].astype(str))) < 2:
        return rows, rows[:0]
    names = np.array(
        cut_splits(
            pack.patients[rows].tolist(),
            labels[rows],
            {"train": 1 - HELD_OUT, "val": HELD_OUT},
            seed=seed,
        )
    )
    return rows[names == "train"], rows[names == "val"]


def label_weights(labels: FloatArray, task: Task, balanced: bool) -> FloatArray:
    """(n, k) weight of each label in the loss, before it is divided by their number; 0 for labels that are not known.

    Balanced, as scikit-learn's ``class_weight``: n / (number of kinds x number of the kind). Multi-class: a kind is a class;
    multi-label: of each class, present and absent.
    """
    known = (labels == PRESENT) | (labels == ABSENT)
    weights: FloatArray = known.astype(np.float64)
    if not balanced:
        return weights
    present = labels == PRESENT
    if task == "multiclass":
        count = present.sum(axis=0)
        of_class = len(labels) / (np.count_nonzero(count) * np.maximum(count, 1))
        return np.asarray(weights * of_class, dtype=np.float64)
    total = known.sum(axis=0)
    for side in (present & known, ~present & known):
        count = side.sum(axis=0)
        both = np.where((count > 0) & (count < total), 2, 1)
        weights = np.where(side, total / (both * np.maximum(count, 1)), weights)
    return weights


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's share of a training batch.

    Attributes:
        inputs: (b, p, p[, 3]) packed pixels, or (b, d) features.
        targets: (b, k) float32, 1 or 0.
        weights: (b, k) float32 weights of the single losses. Over all ranks' shares they sum to the
            masked mean, so a label that is not known counts for nothing.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to learn from.

    Attributes:
        gather: places in ``targets`` -> their pixels or features.
        targets: (n, k) float32 of 1 and 0.
        weights: (n, k) float64, 0 where a label is not known.
        task: multiclass or multilabel.
    """

    gather: Callable[[IntArray], Tensor]
    targets: FloatArray
    weights: FloatArray
    task: Task

    @staticmethod
    def of(
        gather: Callable[[IntArray], Tensor], labels: FloatArray, task: Task, *, balanced: bool
    ) -> LabelledImages:
        """From (n, k) labels as training takes them."""
        targets = (labels == PRESENT).astype(np.float32)
        return LabelledImages(gather, targets, label_weights(labels, task, balanced), task)

    def __len__(self) -> int:
        return len(self.targets)

    def steps(self, batch_size: int, least: int) -> tuple[int, int]:
        """Updates of one pass, and passes of one epoch that has at least so many updates."""
        per_pass = max(len(self) // min(batch_size, len(self)), 1)
        return per_pass, -(-least // per_pass)

    def batches(
        self,
        batch_size: int,
        least: int,
        *,
        seed: int,
        epoch: int,
        first: int,
        ranks: Ranks | None = None,
    ) -> Iterator[Batch]:
        """This rank's shares of one epoch's shuffled batches, from number ``first`` on; incomplete ones are dropped."""
        ranks = ranks or Ranks()
        size = min(batch_size, len(self))
        _, passes = self.steps(batch_size, least)
        order = [
            batch
            for one in range(passes)
            for batch in epoch_order(len(self), size, seed=seed, epoch=epoch * passes + one)
        ]
        share = ranks.share(size)

        def make(indices: IntArray) -> Batch:
            """One rank's share of a batch, each label weighed by the whole batch's number."""
            weights = self.weights[indices]
            # every rank knows the whole batch's labels: nothing has to be asked for
            number = (
                len(indices)
                if self.task == "multiclass"
                else max(int(np.count_nonzero(weights)), 1)
            )
            own = indices[share]
            return Batch(
                self.gather(own),
                torch.from_numpy(self.targets[own]),
                torch.from_numpy((weights[share] / number).astype(np.float32)),
            )

        return prefetch(make, order[first:])

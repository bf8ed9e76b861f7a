"""Can images that a model learned from be told from images of left-out patients?

Two attacks with known definitions, on the processor, with what whoever holds the weights has:

- **loss** (Yeom et al. 2018, Privacy Risk in Machine Learning, section 3.3): an image with a smaller loss is taken for a training
  image. Nothing is fitted. Of a pre-trained backbone, which has no loss of one image, the likeness of the features of crops takes its
  place (Liu et al. 2021, EncoderMI).
- **trained**: a logistic regression on several such numbers (Shokri et al. 2017; Salem et al. 2019, ML-Leaks, adversary 3's
  outputs). It is fitted on one half of the patients and judged on the other, both ways; the AUC is the mean of the two halves,
  and over several ways of halving. What is fitted on one half and judged on the other depends on how they were dealt, so the
  interval is as wide as that of one halving: the mean of five varies about as much (simulated, without a signal: 0.036 to 0.038
  against 0.037; an interval that averaging had narrowed would hold the truth in 80 % of studies).

The AUC is that of telling members from others: 0.5 is no better than chance. Intervals are 95 % over patients. A **control** attack has
the pixels alone: where it tells the two sides apart, they differ in kind, and the other figures say too much.
It is no proof of privacy: shadow models trained at length (Carlini et al. 2022, LiRA) find more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from twinray.backbones.norm import is_batch_norm
from twinray.backbones.pixels import normalise, pixels_to_unit, resize
from twinray.classification.model import Classifier
from twinray.data.pack import Pack
from twinray.detection.model import Detector
from twinray.detection.targets import BoxTargets
from twinray.evaluation.intervals import bootstrap_groups, group_index, percentile_interval
from twinray.evaluation.labels.ranking import Ranking, auc, curve, rank
from twinray.exporting.subject import Subject
from twinray.records import ABSENT, PRESENT, FloatArray, IntArray, Interval
from twinray.runs.seen import Seen

_RESAMPLES = 1000
_FEWEST = 8
"""Patients a side below which no figure is given."""
_HALVINGS = 5
_CROPS = 6
_BYTES = 16


@dataclass(frozen=True)
class Membership:
    """What the attacks found.

    Attributes:
        n_members, n_others: images that training saw, and images of left-out patients.
        patients: of both sides.
        loss, trained, control: AUC of each attack, with its interval over patients.
    """

    n_members: int
    n_others: int
    patients: int
    loss: Interval
    trained: Interval
    control: Interval

    def told(self) -> tuple[str, ...]:
        """Lines for the card."""
        best = max((self.loss, self.trained), key=lambda one: one.value or 0.0)
        told_apart = best.low is not None and best.low > 0.5
        alike = self.control.low is None or self.control.low <= 0.5
        verdict = (
            "Training images can be told from others: treat these weights as data of patients"
            if told_apart
            else "These attacks do not tell training images from others; that is no proof that none can"
        )
        if not alike:
            verdict += ". The two sides differ in their pixels alone, so part of this is not the weights' doing"
        return (
            f"Membership check on {self.n_members:,} training images and {self.n_others:,} images of left-out patients "
            f"({self.patients:,} patients in all); AUC of telling them apart, 0.5 is chance:",
            f"- by the loss (Yeom et al. 2018; of backbones the likeness of crops, Liu et al. 2021): {_shown(self.loss)}",
            f"- by an attack trained on half of the patients, judged on the other half: {_shown(self.trained)}",
            f"- control, by the pixels without the model: {_shown(self.control)}",
            f"{verdict}.",
        )

    def as_json(self) -> dict[str, Any]:
        """For ``membership.json``."""
        return asdict(self)


def _shown(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


@dataclass(frozen=True, eq=False)
class Sides:
    """Rows of a pack: those that training saw, and those of left-out patients."""

    members: IntArray
    others: IntArray


def sides(seen: Seen, pack: Pack, most: int) -> Sides | str:
    """The two sides, at most so many images each; or why there are none, in words.

    Args:
        seen: record of what the run saw: rows count as members by their pixels.
        pack: pack that the run learned from.
        most: images a side.
    """
    own = seen.parts[len(seen.parts) - seen.own :]
    learnt = [part for part in own if part.use == "training"]
    if not learnt:
        return "the run does not record which images it learned from"
    digests = _digests(pack)
    members = np.isin(digests, np.concatenate([part.hashes["pixels"] for part in learnt]))
    known = np.isin(digests, np.concatenate([part.hashes["pixels"] for part in seen.parts]))
    patients = set(pack.patients[members].tolist()) - {None, ""}
    shared = np.array([patient in patients for patient in pack.patients.tolist()])
    others = np.zeros(len(pack), dtype=bool)
    for split in ("test", "val"):
        rows = pack.where(split)
        others[rows] = ~known[rows] & ~shared[rows]
        if others.any():
            break
    found = Sides(_spread(np.flatnonzero(members), most), _spread(np.flatnonzero(others), most))
    groups = pack.groups
    few = min(len(set(groups[rows].tolist())) for rows in (found.members, found.others))
    if few < _FEWEST:
        return f"its pack has too few training or left-out patients ({few}; {_FEWEST} are needed)"
    return found


def membership(subject: Subject, pack: Pack, both: Sides, seed: int = 0) -> Membership:
    """Run the attacks.

    Args:
        subject: the run.
        pack: pack of the rows.
        both: the two sides.
        seed: seed of the halves, of crops and of resamples.
    """
    rows = np.concatenate([both.members, both.others])
    member = np.arange(len(rows)) < len(both.members)
    usable, numbers = _numbers(subject, pack, rows, seed)
    rows, member, numbers = rows[usable], member[usable], numbers[usable]
    groups = group_index(pack.groups[rows], [str(i) for i in pack.ids[rows]])
    every = np.ones(len(rows), dtype=bool)
    halvings = [_halves(groups, member, seed + k) for k in range(_HALVINGS)]
    pixels = np.stack([_look(pack.shown(int(row))) for row in rows])
    return Membership(
        int(member.sum()),
        int((~member).sum()),
        int(groups.max()) + 1,
        _interval([[(-numbers[:, 0], every)]], member, groups, seed),
        _interval([_attack(numbers, member, halves) for halves in halvings], member, groups, seed),
        _interval([_attack(pixels, member, halves) for halves in halvings], member, groups, seed),
    )


def _digests(pack: Pack) -> Any:
    """(n,) the first bytes of the SHA-256 of each image's pixels, as the record of what was seen keeps them."""
    texts = pack.table.column("sha256").to_pylist()
    return np.array([bytes.fromhex(text or "")[:_BYTES] for text in texts], dtype=f"S{_BYTES}")


def _spread(rows: IntArray, most: int) -> IntArray:
    if len(rows) <= most:
        return rows
    chosen: IntArray = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    return chosen


def _halves(groups: IntArray, member: Any, seed: int) -> Any:
    """(n,) which half each image is in: each side's patients are dealt alike."""
    rng, half = np.random.default_rng(seed), np.zeros(int(groups.max()) + 1, dtype=int)
    for side in (True, False):
        own = rng.permutation(np.unique(groups[member == side]))
        half[own] = np.arange(len(own)) % 2
    return half[groups]


def _attack(numbers: FloatArray, member: Any, halves: Any) -> list[tuple[FloatArray, Any]]:
    """Scores of each half by the attack that was fitted on the other, with the half."""
    found: list[tuple[FloatArray, Any]] = []
    for half in (0, 1):
        here = halves == half
        model = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")
        )
        model.fit(numbers[~here], member[~here])
        scores = np.zeros(len(numbers))
        scores[here] = model.decision_function(numbers[here])
        found.append((scores, here))
    return found


def _interval(
    halvings: list[list[tuple[FloatArray, Any]]], member: Any, groups: IntArray, seed: int
) -> Interval:
    """The mean over halvings of the mean of their parts' AUCs; an interval over patients, as wide as that of one halving."""
    n = int(groups.max()) + 1
    drawn = list(bootstrap_groups(groups, _RESAMPLES, seed))
    values, departures = [], []
    for scored in halvings:
        ranked = [rank(scores[here], member[here], groups[here], n) for scores, here in scored]
        own = float(_mean_auc(ranked, np.ones((n, 1)))[0])
        values.append(own)
        departures += [_mean_auc(ranked, weights) - own for weights in drawn]
    value = float(np.mean(values))
    return percentile_interval(value, value + np.concatenate(departures), n)


def _mean_auc(ranked: list[Ranking], weights: FloatArray) -> FloatArray:
    found: FloatArray = np.mean([auc(curve(one, weights)) for one in ranked], axis=0)
    return found


def _look(image: Any) -> FloatArray:
    """What pixels alone say of an image: brightness, contrast, sharpness."""
    grey = image.astype(np.float64)
    grey = grey if grey.ndim == 2 else grey.mean(axis=2)
    edges = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    levels = np.percentile(grey, (1, 25, 50, 75, 99))
    return np.array([grey.mean(), grey.std(), edges, (grey == 0).mean(), *levels])


def _numbers(subject: Subject, pack: Pack, rows: IntArray, seed: int) -> tuple[Any, FloatArray]:
    """(n,) flags of images that have the truth that a loss needs, and (n, d) numbers, the loss first."""
    network = subject.network
    one: Callable[[int], list[float] | None]
    if isinstance(network, Detector):
        one = _OfDetector(subject, network, pack, seed)
    elif isinstance(network, Classifier):
        one = _OfClassifier(subject, network, pack)
    else:
        one = _OfBackbone(subject, pack, seed)
    found = [one(int(row)) for row in rows]
    width = max(len(values) for values in found if values is not None)
    table = np.array([values or [0.0] * width for values in found])
    return np.array([values is not None for values in found]), table


def _pixels(pack: Pack, row: int) -> Tensor:
    return torch.from_numpy(np.array(pack.pixels[row]))[None]


@dataclass(frozen=True, eq=False)
class _OfClassifier:
    """Loss of an image and of its mirror image, highest probability, entropy."""

    subject: Subject
    network: Classifier
    pack: Pack

    @torch.no_grad()
    def __call__(self, row: int) -> list[float] | None:
        """The numbers of a row; None where no label is certain."""
        truth = torch.from_numpy(np.array(self.pack.labels[row], dtype=np.float32))[None]
        known = (truth == PRESENT) | (truth == ABSENT)  # an uncertain label has no loss
        if not known.any():
            return None
        seen = self.subject.network_input(_pixels(self.pack, row))
        logits = self.network.logits(torch.cat([seen, seen.flip(-1)]))
        truth, known = (truth * known).nan_to_num().expand_as(logits), known.expand_as(logits)
        if self.network.task == "multiclass":
            loss = -(logits.log_softmax(1) * truth).sum(1)
        else:
            each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            loss = (each * known).sum(1) / known.sum(1)
        p = (logits[:1].softmax(1) if self.network.task == "multiclass" else logits[:1].sigmoid())[
            0
        ]
        entropy = -(p * p.clamp(min=1e-9).log()).sum()
        return [float(v) for v in (loss[0], loss[1], p.max(), entropy)]


@dataclass(frozen=True, eq=False)
class _OfDetector:
    """Training losses of an image and of its mirror image, best score, sum of scores."""

    subject: Subject
    network: Detector
    pack: Pack
    seed: int

    @torch.no_grad()
    def __call__(self, row: int) -> list[float] | None:
        """The numbers of a row; None where it was never annotated."""
        boxes = self.pack.boxes(row)
        if boxes is None:
            return None
        side = self.subject.size
        xyxy = torch.from_numpy(self.pack.place(row).to_square(boxes.xyxy, side)).float()
        labels = torch.from_numpy(np.array(boxes.labels, dtype=np.int64))
        seen = self.subject.network_input(_pixels(self.pack, row))
        scores = self.network.detect(seen)[0].scores
        mirrored = xyxy.clone()
        mirrored[:, [0, 2]] = side - xyxy[:, [2, 0]]
        losses = []
        self.network.train()
        for module in self.network.modules():
            if is_batch_norm(module):
                module.eval()  # one image has no statistics of its own
        try:
            for image, truth in ((seen, xyxy), (seen.flip(-1), mirrored)):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed)  # samples of anchors and proposals
                    found = self.network(image, BoxTargets.from_lists([truth], [labels]))
                losses.append(float(sum(found.values())))
        finally:
            self.network.eval()
        best = float(scores.max()) if len(scores) else 0.0
        return [*losses, best, float(scores.sum()), float(len(boxes))]


@dataclass(frozen=True, eq=False)
class _OfBackbone:
    """Likeness of the features of crops, negative so that small is a member; its spread; the features' length."""

    subject: Subject
    pack: Pack
    seed: int

    @torch.no_grad()
    def __call__(self, row: int) -> list[float]:
        """The numbers of a row."""
        unit = pixels_to_unit(_pixels(self.pack, row))
        side = unit.shape[-1]
        rng = np.random.default_rng(self.seed)  # the same crops of every image
        crops = []
        for _ in range(_CROPS):
            length = int(side * rng.uniform(0.5, 1.0))
            y, x = rng.integers(0, side - length + 1, 2)
            crop = resize(unit[..., y : y + length, x : x + length], self.subject.size)
            crops.append(crop.flip(-1) if rng.random() < 0.5 else crop)
        seen = normalise(torch.cat(crops), self.subject.normalisation)
        features = self.subject.backbone(seen)
        like = F.normalize(features, dim=1) @ F.normalize(features, dim=1).T
        pairs = like[np.triu_indices(_CROPS, 1)]
        return [-float(pairs.mean()), float(pairs.std()), float(features.norm(dim=1).mean())]

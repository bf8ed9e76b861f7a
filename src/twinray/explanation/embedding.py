"""What features know: maps in two dimensions, nearest neighbours, clusters, and how well they tell labels and attributes.

Conventions

- Features are (n, d) float32. Neighbours are by cosine; an image's neighbours are never of its own patient.
- ``k-NN``: an image's score for a class is the share of its k nearest neighbours that have it
  (Cover and Hart 1967). The number of neighbours is 20, as in Wu et al. 2018. Each image is left
  out of its own neighbours. With many images the votes are those of a seeded choice of images among
  all others.
- ``silhouette`` (Rousseeuw 1987): how much nearer an image is to its own class than to the nearest
  other one. It is by cosine distance, -1..1, averaged over a seeded choice of images.
- ``linear AUC``: ridge regression on standardised features, one class against the rest, the mean
  over folds. Its penalty is chosen on one fold and its AUC taken on another, patients never on both
  sides. It is computed for labels, scanner, view, source and sex alike. Features that tell the
  scanner as well as the finding may be telling the finding by the scanner.
- ``pca``: principal components of the centred features. ``tsne``: van der Maaten and Hinton 2008,
  on the first 50 components, by openTSNE's interpolation (Linderman et al. 2019). It is started
  from the first two components (Kobak and Berens 2019). ``umap``: McInnes et al. 2018. Distances
  between clusters in t-SNE and UMAP mean little; figures are computed on the features.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import scipy.linalg

from twinray.errors import InputError
from twinray.evaluation.bounded import FEW, logit_interval
from twinray.evaluation.intervals import bootstrap_groups
from twinray.evaluation.labels.ranking import auc, curve, rank
from twinray.records import FloatArray, IntArray, Interval
from twinray.seeds import within

MapName: TypeAlias = Literal["pca", "tsne", "umap"]
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
COMPONENTS = 50
"""Principal components that t-SNE and UMAP start from."""
NEIGHBOURS = 20
MOST_VOTES, MOST_SILHOUETTES = 5000, 5000
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties that are tried, as shares of a standardised feature's sum of squares."""
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of features.

    Attributes:
        scores: (n, c) float32, centred.
        explained: (c,) shares of the variance.
    """

    scores: npt.NDArray[np.float32]
    explained: FloatArray


def principal_components(features: FloatArray, most: int = COMPONENTS) -> Components:
    """The first components, exactly, from the (d, d) covariance; signs such that each component's largest weight is positive."""
    n, d = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, 8192):
        part = features[start : start + 8192] - mean
        covariance += part.T @ part
    keep = min(most, d, max(n - 1, 1))
    values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(d - keep, d - 1))
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(keep)])
    total = max(float(np.trace(covariance)), 1e-30)
    scores = np.empty((n, keep), dtype=np.float32)
    for start in range(0, n, 8192):
        scores[start : start + 8192] = (features[start : start + 8192] - mean) @ vectors
    return Components(scores, values / total)


def check_map(name: str) -> None:
    """Refuse a map whose library is not installed, before any work.

    Raises:
        InputError: naming what to install.
    """
    library, extra = {"tsne": ("openTSNE", ""), "umap": ("umap", "umap")}.get(name, ("", ""))
    if library:
        try:
            importlib.import_module(library)
        except ImportError as error:
            how = f"pip install 'twinray[{extra}]'" if extra else "pip install openTSNE"
            raise InputError(
                f"the map {name} needs {library}, which is not installed: {how}"
            ) from error


def two_dimensions(
    name: MapName, components: Components, *, perplexity: float = 30.0, seed: int = 0, jobs: int = 1
) -> npt.NDArray[np.float32]:
    """(n, 2) map.

    Args:
        name: ``pca``, ``tsne`` or ``umap``.
        components: principal components of the features.
        perplexity: perplexity of t-SNE, about how many neighbours count.
        seed: seed of t-SNE's and UMAP's search for neighbours.
        jobs: threads.

    Raises:
        InputError: the map's library is not installed.
    """
    scores = components.scores
    if scores.shape[1] < 2:  # one feature, or two images
        scores = np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))
    if name == "pca":
        return np.asarray(scores[:, :2], dtype=np.float32)
    check_map(name)
    if name == "umap":
        reducer = importlib.import_module("umap").UMAP(
            n_neighbors=max(2, min(15, len(scores) - 1)),
            random_state=within(seed, 31),
            n_jobs=1,
            init=_start(scores),
        )
        return np.asarray(reducer.fit_transform(scores), dtype=np.float32)
    library = importlib.import_module("openTSNE")
    wanted = max(1.0, min(perplexity, (len(scores) - 1) / 3))
    fitted = library.TSNE(
        perplexity=wanted, initialization=_start(scores), negative_gradient_method="fft" if len(scores) > 3000 else "bh",
        random_state=within(seed, 31), n_jobs=jobs,
    ).fit(scores)  # fmt: skip
    return np.asarray(fitted, dtype=np.float32)


def _start(scores: FloatArray) -> npt.NDArray[np.float64]:
    """The first two components, so small that all places can still be reached."""
    first = np.asarray(scores[:, :2], dtype=np.float64)
    spread = float(first[:, 0].std())
    return first / (spread if spread > 0 else 1.0) * 1e-4


def unit(features: FloatArray) -> npt.NDArray[np.float32]:
    """Features of length 1; those of length 0 stay."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Votes:
    """What nearest neighbours say.

    Attributes:
        rows: (m,) images that were asked.
        scores: (m, k) shares of the neighbours whose label is stated that have the class; NaN where none states it.
        neighbours: how many each has at most.
    """

    rows: IntArray
    scores: FloatArray
    neighbours: int


def neighbour_votes(
    features: FloatArray, labels: FloatArray, patients: IntArray, *, neighbours: int = NEIGHBOURS,
    most: int = MOST_VOTES, seed: int = 0,
) -> Votes:  # fmt: skip
    """Votes of the nearest images of other patients.

    Args:
        features: (n, d).
        labels: (n, k) 1 present, 0 absent, anything else not stated.
        patients: (n,) group numbers.
        neighbours: how many vote.
        most: images that are asked; of more a seeded choice.
        seed: seed of that choice.
    """
    known = np.flatnonzero(((labels == 0) | (labels == 1)).any(axis=1))
    rows = (
        known
        if len(known) <= most
        else np.sort(np.random.default_rng([seed, 21]).permutation(known)[:most])
    )
    pool, of_pool = unit(features[known]), patients[known]
    present, stated = labels[known] == 1, (labels[known] == 0) | (labels[known] == 1)
    scores = np.full((len(rows), labels.shape[1]), np.nan)
    for start in range(0, len(rows), _CHUNK):
        own = rows[start : start + _CHUNK]
        near = unit(features[own]) @ pool.T
        near[patients[own][:, None] == of_pool[None, :]] = -np.inf
        k = min(neighbours, len(known))
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        allowed = np.isfinite(np.take_along_axis(near, best, axis=1))[:, :, None]
        told = (stated[best] & allowed).sum(axis=1)
        found = (present[best] & allowed).sum(axis=1)
        scores[start : start + _CHUNK] = np.divide(
            found, told, out=np.full(told.shape, np.nan), where=told > 0
        )
    return Votes(rows, scores, min(neighbours, max(len(known) - 1, 0)))


def nearest(
    features: FloatArray, query: FloatArray, most: int, without: IntArray | None = None
) -> tuple[IntArray, FloatArray]:
    """Rows of the nearest images and their cosine similarity, nearest first.

    Args:
        features: (n, d).
        query: (d,).
        most: how many.
        without: rows that are not to be found.
    """
    near = unit(features) @ unit(query[None])[0]
    if without is not None:
        near[without] = -np.inf
    order = np.argsort(-near, kind="stable")[:most]
    order = order[np.isfinite(near[order])]
    return order, near[order]


def silhouette(
    features: FloatArray, groups: IntArray, *, most: int = MOST_SILHOUETTES, seed: int = 0
) -> tuple[float, int]:
    """Mean silhouette by cosine distance and the number of images it is of; NaN with fewer than two classes.

    Args:
        features: (n, d).
        groups: (n,) class ids; below 0 for images without.
        most: images; of more a seeded choice.
        seed: seed of that choice.
    """
    rows = np.flatnonzero(groups >= 0)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, 22]).permutation(rows)[:most])
    if len(rows) < 3 or not 2 <= len(np.unique(groups[rows])) < len(rows):
        return float("nan"), len(rows)
    from sklearn.metrics import silhouette_samples  # loads for a second, which --help need not wait

    near = unit(features[rows])
    distance = np.maximum(1 - near @ near.T, 0)
    np.fill_diagonal(distance, 0)
    return float(silhouette_samples(distance, groups[rows], metric="precomputed").mean()), len(rows)


@dataclass(frozen=True, eq=False)
class Told:
    """How well features tell one class of something from the rest.

    Attributes:
        area: mean AUC over folds with its interval over patients; NaN where it cannot be taken.
        n_positive, n_negative: images.
        patients: with a positive image.
    """

    area: Interval
    n_positive: int
    n_negative: int
    patients: int


def linear_auc(
    features: FloatArray,
    targets: FloatArray,
    patients: IntArray,
    *,
    folds: int = 5,
    bootstrap: int = 400,
    seed: int = 0,
) -> list[Told]:
    """Cross-validated AUC of ridge regression for each column of targets.

    Args:
        features: (n, d).
        targets: (n, t) 1, 0, or NaN where not stated: those rows are left out of that column.
        patients: (n,) group numbers; a patient is in one fold.
        folds: 3 or more.
        bootstrap: resamples of patients, inside their folds.
        seed: seed of the folds and the resamples.
    """
    fold = _folds(targets, patients, folds, seed)
    # One Gram matrix a set of rows: columns that state the same rows share it.
    stated = ~np.isnan(targets)
    found: dict[int, Told] = {}
    for pattern in np.unique(stated, axis=1).T if targets.shape[1] else ():
        columns = np.flatnonzero((stated == pattern[:, None]).all(axis=0))
        rows = np.flatnonzero(pattern)
        scores = (
            _out_of_fold(features, targets[:, columns], fold, rows, folds)
            if len(rows)
            else np.zeros((0, len(columns)))
        )
        for at, column in enumerate(columns):
            positive = targets[rows, column] == 1
            found[int(column)] = _told(
                scores[:, at], positive, patients[rows], fold[rows], folds, bootstrap, seed
            )
    return [found[column] for column in range(targets.shape[1])]


def _folds(targets: FloatArray, patients: IntArray, folds: int, seed: int) -> IntArray:
    """(n,) fold of each image: whole patients, dealt out by their rarest positive target so that folds are alike."""
    n_patients = int(patients.max()) + 1 if len(patients) else 0
    positive = np.zeros((n_patients, targets.shape[1]), dtype=bool)
    np.logical_or.at(positive, patients, targets == 1)
    rarest = np.argsort(positive.sum(axis=0), kind="stable")
    stratum = np.full(n_patients, targets.shape[1])
    for place in rarest[::-1]:
        stratum[positive[:, place]] = place
    shuffled = np.random.default_rng([seed, 23]).permutation(n_patients)
    order = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    of = np.empty(n_patients, dtype=np.int64)
    of[order] = np.arange(n_patients) % folds
    return of[patients]


def _out_of_fold(
    features: FloatArray, targets: FloatArray, fold: IntArray, rows: IntArray, folds: int
) -> FloatArray:
    """(rows, t) scores, each fold's by ridge regression on the others; each column's penalty chosen on one of those."""
    d, t = features.shape[1], targets.shape[1]
    mean = features[rows].mean(axis=0, dtype=np.float64)
    spread = features[rows].std(axis=0, dtype=np.float64)
    scale = 1 / np.where(spread > 0, spread, np.inf)
    grams, sums = np.zeros((folds, d, d)), np.zeros((folds, d, t))
    for f in range(folds):
        own = rows[fold[rows] == f]
        for start in range(0, len(own), 8192):
            part = (features[own[start : start + 8192]] - mean) * scale
            grams[f] += part.T @ part
            sums[f] += part.T @ targets[own[start : start + 8192]]
    every, products = grams.sum(axis=0), sums.sum(axis=0)
    scores = np.zeros((len(rows), t))
    for f in range(folds):
        test, val = np.flatnonzero(fold[rows] == f), np.flatnonzero(fold[rows] == (f + 1) % folds)
        if not len(test):
            continue
        inner = _weights(every - grams[f] - grams[(f + 1) % folds], products - sums[f] - sums[(f + 1) % folds],
                         len(rows) - len(test) - len(val))  # fmt: skip
        part = (features[rows[val]] - mean) * scale
        areas = np.stack([_areas(part @ weights, targets[rows[val]]) for weights in inner])
        best = np.nan_to_num(areas, nan=-1.0).argmax(axis=0)
        outer = _weights(
            every - grams[f], products - sums[f], len(rows) - len(test), sorted(set(best.tolist()))
        )
        part = (features[rows[test]] - mean) * scale
        for place, weights in zip(sorted(set(best.tolist())), outer, strict=True):
            chosen = best == place
            scores[np.ix_(test, chosen)] = part @ weights[:, chosen]
    return scores


def _weights(
    gram: FloatArray, product: FloatArray, n: int, places: Sequence[int] | None = None
) -> list[FloatArray]:
    """(d, t) ridge weights for each penalty, from one decomposition."""
    values, vectors = scipy.linalg.eigh(gram)
    turned = vectors.T @ product
    places = range(len(PENALTIES)) if places is None else places
    return [
        vectors @ (turned / (values.clip(min=0) + PENALTIES[p] * max(n, 1))[:, None])
        for p in places
    ]


def _areas(scores: FloatArray, targets: FloatArray) -> FloatArray:
    """(t,) AUCs."""
    found = []
    for column in range(scores.shape[1]):
        one = rank(
            scores[:, column], targets[:, column] == 1, np.zeros(len(scores), dtype=np.int64), 1
        )
        found.append(float(auc(curve(one, np.ones((1, 1))))[0]))
    return np.array(found)


def _told(
    scores: FloatArray, positive: npt.NDArray[np.bool_], patients: IntArray, fold: IntArray, folds: int, bootstrap: int, seed: int
) -> Told:  # fmt: skip
    """The mean AUC over folds and its interval; folds with one kind of label only are left out."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    of_positive = len(np.unique(patients[positive]))
    of_negative = len(np.unique(patients[~positive]))
    numbers = np.unique(patients, return_inverse=True)[1] if len(patients) else patients
    n = int(numbers.max()) + 1 if len(numbers) else 0
    values: list[float] = []
    samples: list[FloatArray] = []
    for f in range(folds):
        own = fold == f
        if not positive[own].any() or positive[own].all():
            continue
        groups = np.unique(numbers[own], return_inverse=True)[1]
        one = rank(scores[own], positive[own], groups)
        values.append(float(auc(curve(one, np.ones((int(groups.max()) + 1, 1))))[0]))
        drawn = [auc(curve(one, weights)) for weights in bootstrap_groups(groups, bootstrap, seed)]
        samples.append(np.concatenate([np.zeros(0), *drawn]))
    if not values or min(of_positive, of_negative) < FEW:
        value = float(np.mean(values)) if values else float("nan")
        return Told(
            Interval(value, None, None, n, "too few to say"), n_positive, n_negative, of_positive
        )
    value, table = float(np.mean(values)), np.stack(samples)
    known = table[:, ~np.isnan(table).any(axis=0)].mean(axis=0) if table.size else np.zeros(0)
    ends = logit_interval(value, known, min(of_positive, of_negative) - 1)
    made = Interval(value, None, None, n) if ends is None else Interval(value, *ends, n)
    return Told(made, n_positive, n_negative, of_positive)


def one_hot(values: Sequence[Any], groups: Sequence[str]) -> FloatArray:
    """(n, g) 1 where an image is of the group, 0 where of another, NaN in all where of none of them."""
    place = {name: i for i, name in enumerate(groups)}
    table = np.zeros((len(values), len(groups)))
    for row, value in enumerate(values):
        if value in place:
            table[row, place[value]] = 1
        else:
            table[row] = np.nan
    return table


def mean_area(told: Mapping[str, Told]) -> float:
    """Mean AUC over classes that have one; of two that exclude each other it is the AUC of either."""
    known = [one.area.value for one in told.values() if not np.isnan(one.area.value)]
    return float(np.mean(known)) if known else float("nan")

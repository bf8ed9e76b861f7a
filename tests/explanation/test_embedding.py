"""Maps, neighbours, clusters and linear AUC: against scikit-learn, plain loops and made data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

from twinray.explanation.embedding import (
    PENALTIES,
    linear_auc,
    nearest,
    neighbour_votes,
    one_hot,
    principal_components,
    silhouette,
    two_dimensions,
)


def clusters(seed=0, n=240, d=12, apart=4.0):
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 3, n)
    middles = rng.normal(size=(3, d)) * apart
    return (middles[of] + rng.normal(size=(n, d))).astype(np.float32), of


def test_components_equal_scikit_learns():
    features, _ = clusters()
    found = principal_components(features, 5)
    expected = PCA(5).fit(features)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-5)
    theirs = expected.transform(features)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(theirs), atol=1e-3)
    assert principal_components(features[:3], 5).scores.shape == (3, 2)


@pytest.mark.parametrize(
    "name", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.long)]
)  # it compiles first
def test_maps_keep_clusters_apart(name):
    if name != "pca":
        pytest.importorskip(
            "openTSNE" if name == "tsne" else "umap",
            reason=f"the library of {name} is not installed",
        )
    features, of = clusters()
    points = two_dimensions(name, principal_components(features), seed=0)
    assert points.shape == (240, 2) and np.isfinite(points).all()
    near = (
        NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points, return_distance=False)[:, 1:]
    )
    assert (of[near] == of[:, None]).mean() > 0.95


def test_maps_of_hardly_anything():
    few = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert two_dimensions("tsne", principal_components(few)).shape == (3, 2)
    one = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    assert two_dimensions("pca", principal_components(one)).shape == (20, 2)


def test_votes_equal_a_plain_loop_and_leave_the_patient_out():
    features, of = clusters(1, n=90, apart=0.5)
    patients = np.arange(90) // 3
    labels = np.eye(3)[of]
    labels[5] = np.nan
    labels[7, 1] = -1
    votes = neighbour_votes(features, labels, patients, neighbours=7)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    known = np.flatnonzero(~np.isnan(labels).all(axis=1))
    assert votes.rows.tolist() == known.tolist()
    for at, row in enumerate(votes.rows):
        others = [i for i in known if patients[i] != patients[row]]
        best = sorted(others, key=lambda i: -float(unit[i] @ unit[row]))[:7]
        for c in range(3):
            stated = [labels[i, c] for i in best if labels[i, c] in (0, 1)]
            assert votes.scores[at, c] == pytest.approx(np.mean(stated))


def test_of_many_images_a_seeded_choice_is_asked():
    features, of = clusters(2)
    first = neighbour_votes(features, np.eye(3)[of], np.arange(240), most=50, seed=1)
    assert len(first.rows) == 50
    assert np.array_equal(
        first.rows, neighbour_votes(features, np.eye(3)[of], np.arange(240), most=50, seed=1).rows
    )
    every = neighbour_votes(features, np.eye(3)[of], np.arange(240))
    np.testing.assert_allclose(first.scores, every.scores[first.rows])


def test_nearest():
    features, _ = clusters(3)
    rows, near = nearest(features, features[4] * 3, 5)
    assert rows[0] == 4 and near[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(near) <= 0).all()
    assert 4 not in nearest(features, features[4], 5, np.array([4]))[0]


def test_silhouette_equals_scikit_learns():
    features, of = clusters(4, apart=1.0)
    expected = silhouette_score(features, of, metric="cosine")
    assert silhouette(features, of) == (pytest.approx(expected, abs=1e-5), 240)
    groups = of.copy()
    groups[:40] = -1
    value, n = silhouette(features, groups, most=100, seed=3)
    assert n == 100 and value == pytest.approx(expected, abs=0.15)
    assert np.isnan(silhouette(features, np.zeros(240, dtype=int))[0])


def told_apart(seed, shift, n=600, d=10):
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // 2
    of = np.repeat(rng.integers(0, 2, n // 2), 2)
    features = rng.normal(size=(n, d)) + np.repeat(rng.normal(size=(n // 2, d)), 2, axis=0)
    features[:, 0] += shift * of
    return features.astype(np.float32), of, patients


def test_what_is_in_the_features_is_told_and_what_is_not_is_not():
    features, of, patients = told_apart(0, 3.0)
    chance = np.repeat(np.random.default_rng(5).integers(0, 2, 300), 2)
    table = np.stack([of == 1, chance == 1], axis=1).astype(float)
    table[:50, 1] = np.nan
    there, nothing = linear_auc(features, table, patients, bootstrap=200)
    expected = roc_auc_score(of, features[:, 0])
    assert there.area.value == pytest.approx(expected, abs=0.02)
    assert there.area.low < there.area.value < there.area.high
    # Patients' own features are remembered where their images are on both sides: then chance would be told too.
    assert 0.38 < nothing.area.value < 0.62 and nothing.area.low < 0.5 < nothing.area.high
    assert (nothing.n_positive + nothing.n_negative, there.n_positive) == (550, int(of.sum()))


def test_scores_are_those_of_scikit_learns_ridge():
    from twinray.explanation import embedding

    features, of, patients = told_apart(1, 1.0)
    fold = embedding._folds(of[:, None].astype(float), patients, 5, 0)
    assert all(len(set(fold[patients == p])) == 1 for p in range(300))
    rows = np.arange(600)
    scores = embedding._out_of_fold(features, of[:, None].astype(float), fold, rows, 5)[:, 0]
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    test, val = fold == 2, fold == 3
    areas = []
    for penalty in PENALTIES:
        train = ~test & ~val
        model = Ridge(alpha=penalty * train.sum(), fit_intercept=False).fit(x[train], of[train])
        areas.append(roc_auc_score(of[val], model.predict(x[val])))
    best = PENALTIES[int(np.argmax(areas))]
    model = Ridge(alpha=best * (~test).sum(), fit_intercept=False).fit(x[~test], of[~test])
    np.testing.assert_allclose(scores[test], model.predict(x[test]), atol=1e-4)


def test_few_patients_have_no_interval():
    features, of, patients = told_apart(2, 1.0, n=40)
    of[:] = 0
    of[:4] = 1
    (found,) = linear_auc(features, of[:, None].astype(float), patients)
    assert found.area.low is None and found.patients == 2


def test_one_hot():
    table = one_hot(["b", "a", None, "unknown"], ("a", "b"))
    np.testing.assert_array_equal(table[:2], [[0, 1], [1, 0]])
    assert np.isnan(table[2:]).all()

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from twinray.classification.probe import PENALTIES, fit_linear, fit_probe


def blobs(n=120, d=6, k=3, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    which = rng.integers(0, k, n)
    x = rng.normal(size=(n, d)) + spread * np.eye(k, d)[which]
    return x * np.array([1, 10, 0.1, 1, 5, 1]) + 3, np.eye(k)[which].astype(np.float32), which


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_softmax_probe_is_scikit_learns(penalty):
    x, y, which = blobs()
    mean, std = x.mean(0), x.std(0)
    theirs = LogisticRegression(C=1 / (penalty * len(x)), max_iter=5000, tol=1e-10).fit(
        (x - mean) / std, which
    )
    ours = fit_linear(x, y, "multiclass", penalty)
    np.testing.assert_allclose(ours.scores(x), theirs.predict_proba((x - mean) / std), atol=1e-4)


def test_sigmoid_probe_is_scikit_learns_label_by_label():
    x, y, _ = blobs()
    mean, std = x.mean(0), x.std(0)
    ours = fit_linear(x, y, "multilabel", 0.1).scores(x)
    for label in range(3):
        theirs = LogisticRegression(C=1 / (0.1 * len(x)), max_iter=5000, tol=1e-10).fit(
            (x - mean) / std, y[:, label]
        )
        np.testing.assert_allclose(
            ours[:, label], theirs.predict_proba((x - mean) / std)[:, 1], atol=1e-4
        )


def test_labels_that_are_not_stated_count_for_nothing():
    x, y, _ = blobs()
    y[:20, 0], y[20:30, 0] = np.nan, -1
    with_gaps = fit_linear(x, y, "multilabel", 0.1)
    # leaving out 30 of 120 images divides the mean loss of label 0 by 120 still: the same as a penalty scaled up
    complete = fit_linear(x[30:], y[30:, :1], "multilabel", 0.1 * 120 / 90)
    mean, std = x.mean(0), x.std(0)
    assert np.isfinite(with_gaps.scores(x)).all()
    assert (
        np.corrcoef(with_gaps.weight[0].numpy() * std, complete.weight[0].numpy() * std)[0, 1]
        > 0.99
    )
    assert mean.shape == std.shape


def test_the_penalty_is_chosen_without_looking_outside_and_fits_the_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 50))
    noise = np.eye(2)[rng.integers(0, 2, 80)].astype(np.float32)
    groups = np.repeat(np.arange(40), 2)
    (strong,) = fit_probe(x, noise, groups, "multiclass").penalties
    clear = np.eye(2)[(x[:, 0] > 0).astype(int)].astype(np.float32)
    (weak,) = fit_probe(x, clear, groups, "multiclass").penalties
    assert strong > weak
    assert strong in PENALTIES


def test_each_label_of_many_chooses_its_own_penalty():
    """Labels that nothing tells apart took the strongest for all, and with it what the others had."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 40))
    clear = x @ rng.normal(size=40) > 0
    y = np.stack([clear, *rng.integers(0, 2, (4, 400))], axis=1).astype(np.float32)
    groups = np.repeat(np.arange(200), 2)
    probe = fit_probe(x, y, groups, "multilabel")
    assert len(probe.penalties) == 5 and probe.penalties[0] < min(probe.penalties[1:])
    # a label is fitted, chosen and scored as if it stood alone; folds are cut by all labels, so one in front is kept
    both = np.stack([y.max(axis=1), y[:, 0]], axis=1)
    alone = fit_probe(x, both, groups, "multilabel")
    assert alone.penalties[1] == probe.penalties[0]
    np.testing.assert_allclose(alone.scores(x)[:, 1], probe.scores(x)[:, 0], atol=1e-6)
    np.testing.assert_allclose(alone.held_out[:, 1], probe.held_out[:, 0], atol=1e-6)
    # and each column is scikit-learn's fit of its penalty
    for k, penalty in enumerate(probe.penalties):
        scaled = StandardScaler().fit_transform(x)
        theirs = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=5000)
        theirs.fit(scaled, y[:, k])
        ours = probe.scores(x)[:, k]
        np.testing.assert_allclose(ours, theirs.predict_proba(scaled)[:, 1], atol=1e-4)


def test_a_label_too_rare_for_the_folds_goes_by_all_labels_together():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 20))
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0, np.arange(300) < 3], axis=1).astype(np.float32)
    first, second, rare = fit_probe(x, y, np.arange(300), "multilabel").penalties
    assert first == second == rare < 1
    alone = fit_probe(x, y[:, 2:], np.arange(300), "multilabel")
    assert np.isfinite(alone.weight.numpy()).all()


def test_folds_keep_patients_together():
    """Each patient has two identical images with a random label: only leaking folds could learn from it."""
    rng = np.random.default_rng(1)
    patients = rng.normal(size=(60, 30))
    x = np.repeat(patients, 2, axis=0)
    y = np.repeat(np.eye(2)[rng.integers(0, 2, 60)], 2, axis=0).astype(np.float32)
    assert fit_probe(x, y, np.repeat(np.arange(60), 2), "multiclass").penalties[0] >= 0.3
    assert fit_probe(x, y, np.arange(120), "multiclass").penalties[0] < 0.3


def test_too_few_patients_take_the_safe_side():
    x, y, _ = blobs(n=6, k=2)
    assert fit_probe(x, y, np.zeros(6, dtype=np.int64), "multiclass").penalties == (1.0,)


def test_constant_features_are_no_trouble():
    x, y, _ = blobs()
    x[:, 2] = 4.0
    assert np.isfinite(fit_linear(x, y, "multiclass", 0.1).scores(x)).all()


@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("scale", [1, 100])
def test_a_label_that_all_or_no_images_have_is_said_of_all_or_none(scale, penalty):
    """Its bias has no finite best value; what comes out is a probability all the same, near 1 or near 0."""
    rng = np.random.default_rng(3)
    x = (scale * rng.normal(size=(24, 64))).astype(np.float32)
    y = np.stack([np.ones(24), np.zeros(24), rng.integers(0, 2, 24)], axis=1).astype(np.float32)
    scores = fit_linear(x, y, "multilabel", penalty).scores(x)
    assert (scores[:, 0] > 0.999).all() and (scores[:, 1] < 0.001).all()
    # the others are fitted as without them
    alone = fit_linear(x, y[:, 2:], "multilabel", penalty).scores(x)
    np.testing.assert_allclose(scores[:, 2], alone[:, 0], atol=1e-5)
    np.testing.assert_allclose(
        fit_linear(x, 1 - y, "multilabel", penalty).scores(x), 1 - scores, atol=1e-5
    )


def test_same_input_same_bytes():
    x, y, _ = blobs()
    first, second = (fit_linear(x, y, "multiclass", 0.1) for _ in range(2))
    assert first.weight.numpy().tobytes() == second.weight.numpy().tobytes()


def test_a_penalty_that_rounding_loses_is_refused():
    """The fit ended where it began, with an AUC of 0.5 and no word."""
    rng = np.random.default_rng(0)
    # a few directions hold all features, as those of a briefly pre-trained network
    x = rng.normal(size=(600, 8)) @ rng.normal(size=(8, 400)) + 0.03 * rng.normal(size=(600, 400))
    y = np.eye(2)[(x[:, 0] + rng.normal(size=600) > 0).astype(int)]
    assert np.ptp(fit_linear(x, y, "multiclass", PENALTIES[-1]).scores(x)) > 0.5
    with pytest.raises(ValueError, match="1e-08"):
        fit_linear(x, y, "multiclass", 1e-8)

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from twinray.errors import InputError
from twinray.evaluation.labels.cutoffs import choose_label_thresholds, label_thresholds_from_json


def made(seed, n=120, decimals=None):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 2)) < 0.3).astype(float)
    scores = np.clip(0.3 * truth + 0.7 * rng.random((n, 2)), 0, 1)
    return truth, scores if decimals is None else scores.round(decimals)


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_is_better(seed, decimals):
    truth, scores = made(seed, decimals=decimals)
    chosen = choose_label_thresholds(truth, scores, "ab")
    for c, name in enumerate("ab"):
        own, y, s = chosen.per_class[name], truth[:, c], scores[:, c]
        every = [f1_score(y, s >= t) for t in np.unique(s)]
        assert (
            own.reached["f1"] == pytest.approx(max(every)) == f1_score(y, s >= own.thresholds["f1"])
        )
        false, true, _ = roc_curve(y, s, drop_intermediate=False)
        assert own.reached["youden"] == pytest.approx((true - false).max())
        at = s >= own.thresholds["youden"]
        assert at[y == 1].mean() - at[y == 0].mean() == pytest.approx(own.reached["youden"])
        for rule, least in (("specificity@90", 0.9), ("specificity@95", 0.95)):
            passed = s >= own.thresholds[rule]
            assert 1 - passed[y == 0].mean() >= least - 1e-12
            assert (
                passed[y == 1].mean()
                == own.reached[rule]
                == pytest.approx(true[false <= 1 - least + 1e-12].max())
            )


def test_labels_that_are_not_sure_are_left_out():
    truth, scores = made(3)
    more = np.vstack([truth, np.full((50, 2), -1), np.full((50, 2), np.nan)])
    odd = np.vstack([scores, np.random.default_rng(0).random((100, 2))])
    assert (
        choose_label_thresholds(more, odd, "ab").per_class
        == choose_label_thresholds(truth, scores, "ab").per_class
    )


def test_too_few_of_a_kind_give_none_and_a_reason():
    truth, scores = made(4)
    truth[:, 0] = 0
    truth[:4, 0] = 1
    chosen = choose_label_thresholds(truth, scores, "ab")
    assert chosen.per_class["a"].missing == "4 validation images with it, fewer than 5"
    assert np.isnan(chosen.of("f1")[0]) and not np.isnan(chosen.of("f1")[1])


def test_they_travel_as_json():
    truth, scores = made(5)
    truth[:, 0] = 0
    chosen = choose_label_thresholds(
        truth, scores, "ab", chosen_on="a fifth of the labelled patients"
    )
    raw = json.loads(json.dumps(chosen.as_json(), allow_nan=False))
    read = label_thresholds_from_json(raw, "ab", "model.json")
    assert read.per_class == chosen.per_class and read.chosen_on == chosen.chosen_on
    with pytest.raises(InputError, match="the model's classes are"):
        label_thresholds_from_json(raw, "ba", "model.json")
    raw["per_class"]["b"]["thresholds"]["f1"] = "x"
    with pytest.raises(InputError, match=r"model\.json: the thresholds cannot be read"):
        label_thresholds_from_json(raw, "ab", "model.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda t, s: (t[:5], s), "align them"), (lambda t, s: (t, s * np.nan), "finite scores")],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        choose_label_thresholds(*change(*made(6)), "ab")

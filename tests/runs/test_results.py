"""What runs keep: scores that come back as they were written, figures of both formats, damage in one line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from twinray.errors import InputError
from twinray.records import patient_code
from twinray.runs.results import (
    LabelPredictions,
    read_label_predictions,
    split_figures,
    write_label_predictions,
)


def kept(split: str = "test", n: int = 5, draws=(0, 7)) -> LabelPredictions:
    rng = np.random.default_rng(len(split))
    truth = rng.integers(0, 2, (n, 2)).astype(float)
    truth[0, 1] = np.nan
    images = tuple(f"{split}{i}" for i in range(n))
    patients = tuple(None if i == 2 else patient_code(f"p{i // 2}") for i in range(n))
    return LabelPredictions(
        split, images, patients, ("a", "b|c"), truth, {d: rng.random((n, 2)) for d in draws}
    )


def test_scores_come_back_as_they_were_written_and_pandas_reads_them(tmp_path):
    parts = [kept(), kept("val", 3)]
    write_label_predictions(tmp_path, parts)
    for part in parts:
        found = read_label_predictions(tmp_path, part.split)
        assert (found.images, found.patients, found.classes) == (
            part.images,
            part.patients,
            part.classes,
        )
        np.testing.assert_array_equal(found.truth, part.truth)
        assert list(found.scores) == [0, 7]
        for draw, scores in part.scores.items():
            np.testing.assert_array_equal(found.scores[draw], scores)
    assert read_label_predictions(tmp_path, "train") is None
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(table.columns) == [
        "image",
        "patient",
        "split",
        "seed",
        "truth:a",
        "truth:b|c",
        "score:a",
        "score:b|c",
    ]
    assert (str(table["seed"].dtype), str(table["truth:a"].dtype), str(table["score:a"].dtype)) == (
        "int32", "float32", "float64",
    )  # fmt: skip
    assert len(table) == 2 * (5 + 3)


def test_a_file_of_the_first_format_hides_its_patients_when_it_is_read(tmp_path):
    rows = ["id,patient,seed,true a,true b,score a,score b"]
    rows += [
        f"i{i},{'p1' if i < 2 else ''},{seed},{i % 2},{'' if i == 0 else 0},0.{i + 1},0.5"
        for seed in (3, 4)
        for i in range(3)
    ]
    (tmp_path / "predictions.csv").write_text("\n".join(rows) + "\n")
    found = read_label_predictions(tmp_path)
    assert found.patients == (patient_code("p1"), patient_code("p1"), None)
    assert list(found.scores) == [3, 4]
    np.testing.assert_array_equal(found.truth, [[0, np.nan], [1, 0], [0, 0]])
    assert read_label_predictions(tmp_path, "val") is None


def test_damaged_scores_are_one_line(tmp_path):
    write_label_predictions(tmp_path, [kept()])
    path = tmp_path / "predictions.parquet"
    whole = pd.read_parquet(path)
    for damaged, told in (
        (whole.drop(columns="score:a"), "score:a"),
        (whole.drop(columns=["truth:a", "truth:b|c"]), "truth:CLASS"),
        (whole.assign(image=["x"] * len(whole)), "every image once"),
        (whole.assign(**{"truth:a": np.arange(len(whole)) % 3}), "same images and labels"),
        (whole.iloc[:-1], "same images"),
        (whole.assign(seed="zero"), "numbers"),
    ):
        damaged.to_parquet(path)
        with pytest.raises(InputError, match=told) as caught:
            read_label_predictions(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="as Parquet"):
        read_label_predictions(tmp_path)


def test_figures_of_both_formats_and_none_of_a_later_one(tmp_path):
    figure = {"value": 0.5, "ci95": [0.4, 0.6], "n": 3}
    old = {"test": {"auc": figure, "per_class": {}, "per_seed": [{}], "n_images": 4}, "notes": []}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    read = split_figures(tmp_path)["test"]
    assert (read.get("auc").over, read.get("auc").n, read.counts) == ("seeds", 3, {"n_images": 4})
    new = {"format": 2, "val": {"map50": {**figure, "over": "patients"}, "n_boxes": 2}}
    (tmp_path / "metrics.json").write_text(json.dumps(new))
    assert split_figures(tmp_path)["val"].get("map50").over == "patients"
    for damaged, told in (
        ({"format": 3}, "update twinray"),
        ({"test": []}, "expected figures"),
        ({"test": {"map50": {"value": "much"}}}, "map50"),
        ({"test": {"map50": {**figure, "ci95": [1]}}}, "ci95"),
        ({"test": {"map50": {**figure, "n": 1.5}}}, "whole number"),
        ({"test": {"per_class": []} | {"per_class": {"a": 3}}}, "per_class"),
    ):
        (tmp_path / "metrics.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=told):
            split_figures(tmp_path)

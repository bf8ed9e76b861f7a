"""``evaluate --by``: every measure by group of the pack's images, for classifiers and detectors, through the command line."""

from __future__ import annotations

import csv
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.cli import _gathered
from twinray.data.pack import open_pack
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.labels.report import evaluate_labels
from twinray.inference.model import load_model
from twinray.jobs.embed.config import EmbedConfig
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.fresh import score_rows
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("packs") / "phantom"
    pack(
        PackConfig(
            format="phantom", phantom_images=150, size=64, val=0.1, test=0.6, out=out, workers=1
        )
    )
    return out


@pytest.fixture(scope="module")
def probes(tmp_path_factory, phantom):
    folder = tmp_path_factory.mktemp("runs")
    return [
        classify(
            ClassifyConfig(
                phantom, folder / str(seed), arch="resnet18", size=32, seed=seed, bootstrap=0
            )
        ).path
        for seed in (0, 1)
    ]


def test_classifiers(probes, phantom, tmp_path, cli):
    out = tmp_path / "x"
    status, told, err = cli(
        "evaluate", *probes, "--data", phantom, "--apart", "--by", "scanner", "--out", out, "--bootstrap", 100
    )  # fmt: skip
    assert status == 0, err
    assert "By scanner" in told and "largest gap of AUC by scanner" in told
    record = json.loads((out / "metrics.json").read_text())
    arm = next(iter(record["arms"].values()))["test"]
    opened, model = open_pack(phantom), load_model(probes[0])
    rows = opened.where("test")
    rows = rows[[opened.attribute("scanner")[row] == "S2" for row in rows]]
    scores = score_rows(model, opened, rows, 16, "S2")
    alone = evaluate_labels(
        opened.labels[rows], scores, model.classes, "multilabel", resampling=Resampling(0)
    ).record()
    own = arm["subgroups"]["scanner"]["S2"]
    assert own["n_images"] == len(rows)
    for name, figure in alone.figures.items():
        if figure.value is not None:
            assert own[name]["value"] == pytest.approx(figure.value, abs=1e-6)
    second = list(record["arms"].values())[1]
    assert set(second["difference"]["subgroups"]["scanner"]) == set(arm["subgroups"]["scanner"])
    gaps = list(csv.DictReader((out / "gaps.csv").open()))
    of_auc = next(g for g in gaps if g["measure"] == "auc" and not g["class"])
    assert int(of_auc["comparisons"]) >= 1 and of_auc["high_group"] != of_auc["low_group"]
    assert (out / "figures" / "by scanner.svg").is_file()
    rows_of = [
        row for row in csv.DictReader((out / "metrics.csv").open()) if row["images"] == "scanner=S2"
    ]
    assert rows_of
    assert "By group of patients" in (out / "report.html").read_text()


def with_attributes(blob_pack, out):
    """The pack, with a site and an age for each image."""
    shutil.copytree(blob_pack, out)
    table = pq.read_table(out / "samples.parquet")
    texts = [
        json.dumps({"site": f"site {i % 2}", **({"age": f"0{i % 9}5Y"} if i % 3 else {})})
        for i in range(len(table))
    ]
    at = table.column_names.index("attributes")
    pq.write_table(table.set_column(at, "attributes", pa.array(texts)), out / "samples.parquet")
    return out


def test_detectors_and_several_attributes(detect_run, blob_pack, tmp_path, cli):
    data, out = with_attributes(blob_pack, tmp_path / "pack"), tmp_path / "x"
    status, told, err = cli(
        "evaluate", detect_run, "--data", data, "--by", "site", "--by", "age:0,30,60", "--out", out, "--bootstrap", 50,
        "--allow-edited",
    )  # fmt: skip
    assert status == 0, err
    assert "By site" in told and "By age" in told
    (arm,) = json.loads((out / "metrics.json").read_text())["arms"].values()
    groups = arm["test"]["subgroups"]
    assert list(groups["site"]) == ["site 0", "site 1"]
    assert (
        set(groups["age"]) <= {"0 to <30", "30 to <60", "60 and more", "unknown"}
        and "unknown" in groups["age"]
    )
    for of in groups.values():
        assert sum(own["n_images"] for own in of.values()) == arm["test"]["n_images"]
        assert sum(own["n_boxes"] for own in of.values()) == arm["test"]["n_boxes"]


def test_an_attribute_that_is_not_there(detect_run, blob_pack, cli):
    status, _, err = cli("evaluate", detect_run, "--data", blob_pack, "--by", "sex")
    assert (
        status == 2
        and "no attribute 'sex'; it has: none" in err
        and len(err.strip().splitlines()) == 1
    )


def test_by_needs_a_pack(detect_run, cli):
    status, _, err = cli("evaluate", detect_run, "--by", "sex")
    assert status == 2 and "--by" in err and "--data" in err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            ["RUN", "--by", "sex", "--by", "age:0,40", "--seed", "1"],
            ["RUN", "--by", "sex", "age:0,40", "--seed", "1"],
        ),
        (
            ["--by=sex", "--seed", "1", "--by", "view", "site"],
            ["--by", "sex", "view", "site", "--seed", "1"],
        ),
        (["a", "b", "--by", "sex"], ["a", "b", "--by", "sex"]),
        (["--by", "sex", "-h"], ["--by", "sex", "-h"]),
    ],
)
def test_a_flag_may_be_given_several_times(given, wanted):
    assert _gathered(given, EvaluateConfig) == wanted


def test_maps_of_embed_may_too():
    assert _gathered(["--maps", "pca", "--by", "x", "--maps", "tsne"], EmbedConfig) == [
        "--maps",
        "pca",
        "tsne",
        "--by",
        "x",
    ]

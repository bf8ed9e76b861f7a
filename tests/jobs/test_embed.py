"""``embed`` through the command line: files, maps, page, neighbours, and the shortcut check on made packs."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from twinray.data.pack import open_pack
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack

SMALL = ("--arch", "resnet18", "--size", 32, "--bootstrap", 20)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("packs") / "phantom"
    pack(
        PackConfig(
            format="phantom", phantom_images=80, size=64, val=0.1, test=0.2, out=out, workers=1
        )
    )
    return out


def test_everything_is_written(phantom, tmp_path, cli):
    opened = open_pack(phantom)
    Image.fromarray(np.asarray(opened.images[3])).save(tmp_path / "q.png")
    out = tmp_path / "x"
    status, told, err = cli(
        "embed", "--data", phantom, "--out", out, *SMALL, "--page-images", 50, "--query", tmp_path / "q.png",
        str(opened.ids[5]),
    )  # fmt: skip
    assert status == 0, err
    assert (
        "label: " in told
        and "scanner: S1" in told
        and "k-NN accuracy" in told
        and "silhouette by scanner" in told
    )
    features = pq.read_table(out / "features.parquet")
    assert features.num_rows == 80 and len(features["features"][0]) == 512
    assert features["id"].to_pylist() == opened.ids.tolist()
    places = pq.read_table(out / "embedding.parquet")
    assert places.column_names == ["id", "split", "pca_1", "pca_2", "tsne_1", "tsne_2"]
    assert np.isfinite(np.stack([places[c].to_numpy() for c in places.column_names[2:]])).all()
    record = json.loads((out / "embedding.json").read_text())
    assert record["n_images"] == 80 and record["page_images"] == 50
    assert (
        record["knn"]["n_images"] == 80 and record["knn"]["accuracy"]["n"] == record["n_patients"]
    )
    assert set(record["told"]) == {"label", "scanner"}
    assert record["told"]["scanner"]["per_group"]["S1"]["n_positive"] > 0
    maps = {path.name for path in (out / "maps").iterdir()}
    assert {
        f"{m}-{c}.{e}"
        for m in ("pca", "tsne")
        for c in ("label", "split", "scanner")
        for e in ("svg", "png")
    } == maps
    by_file, by_id = record["queries"]
    assert by_file["neighbours"][0] == {
        "id": str(opened.ids[3]), "similarity": pytest.approx(1, abs=1e-4), "same_patient": False,
    }  # fmt: skip
    assert (
        str(opened.ids[5]) not in [n["id"] for n in by_id["neighbours"]]
        and len(by_id["neighbours"]) == 8
    )
    assert (out / by_id["picture"]).is_file()


def test_the_page_needs_nothing_else(phantom, tmp_path, cli):
    status, _, err = cli(
        "embed", "--data", phantom, "--out", tmp_path / "x", *SMALL, "--maps", "pca", "--split", "train"
    )  # fmt: skip
    assert status == 0, err
    page = (tmp_path / "x" / "embedding.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page.replace(
        "http-equiv", ""
    )
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    data = json.loads(text)
    assert data["n"] == len(open_pack(phantom).where("train")) == len(data["names"])
    assert {"label", "scanner"} <= set(data["colourings"]) and list(data["maps"]) == [
        "Principal components"
    ]
    assert "not a medical device" in page


def test_a_choice_is_of_whole_patients_and_recorded(phantom, tmp_path, cli):
    status, told, err = cli(
        "embed", "--data", phantom, "--out", tmp_path / "x", *SMALL, "--maps", "pca", "--most", 30, "--page-images", 0,
        "--by", "scanner",
    )  # fmt: skip
    assert status == 0, err
    n = json.loads((tmp_path / "x" / "embedding.json").read_text())["n_images"]
    assert 25 <= n <= 30 and f"{n} of 80 images" in told
    kept = set(pq.read_table(tmp_path / "x" / "features.parquet")["id"].to_pylist())
    opened = open_pack(phantom)
    patients = {p for i, p in zip(opened.ids, opened.patients, strict=True) if i in kept}
    assert {i for i, p in zip(opened.ids, opened.patients, strict=True) if p in patients} == kept
    assert not (tmp_path / "x" / "embedding.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "sex"), "no attribute 'sex'"),
        (("--split", "all", "--maps", "som"), "maps"),
        (("--folds", 2), "--folds"),
        (("--query", "nowhere.png"), "nowhere.png is not there"),
        (("--init", "imagenet-v9"), "imagenet-v9"),
    ],
)
def test_bad_input_is_one_line(phantom, tmp_path, cli, arguments, message):
    status, _, err = cli("embed", "--data", phantom, "--out", tmp_path / "x", *SMALL, *arguments)
    assert status == 2 and len(err.strip().splitlines()) == 1 and message in err, err
    assert not (tmp_path / "x").exists()

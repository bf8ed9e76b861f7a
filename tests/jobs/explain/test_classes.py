"""Heat maps of classifiers through the command line: pictures, sheets, weak localisation against true boxes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.explanation.class_maps import CLASS_METHODS
from twinray.explanation.localisation import LOCALISATION_FLOORS, measure_map
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.model import load_model, prepare_row
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    """Images with labels, and boxes of the same names."""
    out = tmp_path_factory.mktemp("packs") / "phantom"
    pack(
        PackConfig(
            format="phantom", phantom_images=60, size=64, val=0.1, test=0.4, out=out, workers=1
        )
    )
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory, phantom) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    return classify(ClassifyConfig(phantom, out, arch="resnet18", size=64, bootstrap=20)).path


@pytest.fixture(scope="module")
def second(tmp_path_factory, first) -> Path:
    return Path(shutil.copytree(first, tmp_path_factory.mktemp("more") / "second"))


@pytest.mark.parametrize("method", CLASS_METHODS)
def test_every_method_draws(first, phantom, tmp_path, cli, method):
    status, out, err = cli(
        "explain", first, "--data", phantom, "--out", tmp_path / "x", "--method", method, "--count", 1, "--boxes", 1,
        "--least-score", 0,
    )  # fmt: skip
    assert status == 0, err
    assert "1 picture of 1 image in" in out
    (record,) = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert Image.open(tmp_path / "x" / record["picture"]).width > 600
    model, opened = load_model(first), open_pack(phantom)
    row = list(opened.ids).index(record["image"])
    scores = model.labels([prepare_row(model, opened, row)])[0]
    assert record["class"] == model.classes[int(scores.argmax())] and record[
        "score"
    ] == pytest.approx(scores.max())


def test_files_and_named_classes(first, phantom, tmp_path, cli):
    opened = open_pack(phantom)
    Image.fromarray(np.asarray(opened.images[0])).save(tmp_path / "a.png")
    names = opened.info.label_classes[:2]
    status, _, err = cli(
        "explain", first, tmp_path / "a.png", "--out", tmp_path / "x", "--classes", *names
    )
    assert status == 0, err
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    assert [r["class"] for r in records] == list(names)
    status, _, err = cli(
        "explain", first, tmp_path / "a.png", "--out", tmp_path / "y", "--classes", "flu"
    )
    assert status == 2 and "expected --classes to be of" in err and not (tmp_path / "y").exists()


def test_side_by_side(first, second, phantom, tmp_path, cli):
    status, out, err = cli(
        "explain", first, "--data", phantom, "--out", tmp_path / "x", "--versus", second, "--count", 2, "--boxes", 2,
        "--least-score", 0,
    )  # fmt: skip
    assert status == 0, err
    assert "1 picture of 2 images in" in out
    records = json.loads((tmp_path / "x" / "explanations.json").read_text())
    by_run = [
        [(r["image"], r["class"]) for r in records if r["run"] == name]
        for name in ("first", "second")
    ]
    assert by_run[0] == by_run[1] and len(by_run[0]) == 4
    assert Image.open(tmp_path / "x" / "contact-sheet-01.png").height > 1500


def test_weak_localisation(first, phantom, tmp_path, cli):
    status, out, err = cli(
        "faithfulness", first, "--data", phantom, "--out", tmp_path / "x", "--methods", "ablation",
        "grad-cam", "--bootstrap", 50, "--curve-points", 3,
    )  # fmt: skip
    assert status == 0, err
    assert "floor:" in out and "17 boxed findings" in out
    record = json.loads((tmp_path / "x" / "localisation.json").read_text())
    opened = open_pack(phantom)
    expected = 0
    for row in opened.where("test"):
        boxes = opened.boxes(int(row))
        expected += len(set(boxes.labels.tolist())) if boxes is not None else 0
    assert record["n_findings"] == expected > 10
    assert set(record["maps"]) == {"ablation", "grad-cam", *LOCALISATION_FLOORS}
    assert set(record["maps"]["ablation"]["over_floor"]) == set(LOCALISATION_FLOORS)
    rows = list(csv.DictReader((tmp_path / "x" / "findings.csv").open()))
    assert len(rows) == expected * 5
    for measure in ("pointing", "energy", "localised@0.1", "iou", "deletion"):
        own = [float(r[measure]) for r in rows if r["map"] == "ablation"]
        assert record["maps"]["ablation"][measure]["value"] == pytest.approx(np.mean(own))
    # One finding by hand.
    model = load_model(first)
    explainer, one = ClassExplainer(model), next(r for r in rows if r["map"] == "ablation")
    row = list(opened.ids).index(one["image"])
    image = prepare_row(model, opened, row)
    (heat,) = explainer.maps(image, [model.classes.index(one["class"])], "ablation")
    boxes = opened.boxes(row)
    own = boxes.xyxy[boxes.labels == opened.info.box_classes.index(one["class"])]
    assert measure_map(heat.map, image.place.to_square(own, 64))[1] == pytest.approx(
        float(one["energy"])
    )


def test_what_does_not_fit_is_one_line(first, detect_run, phantom, class_pack, tmp_path, cli):
    out = tmp_path / "x"
    for arguments, message in (
        ((first, "--data", phantom, "--method", "odam"), "for a classifier, got 'odam'"),
        ((first, "--data", phantom, "--versus", detect_run), "expected a detection run"),
        ((detect_run, "--data", phantom, "--classes", "blob"), "--classes is for classifiers"),
        ((first, "--data", class_pack), "classes of"),
    ):
        status, _, err = cli("explain", *arguments, "--out", out)
        assert status == 2 and len(err.strip().splitlines()) == 1 and message in err, err
        assert not out.exists()

"""A classifier behind the server, alone and beside a detector: scores, rules, heat maps of classes, labels of readers, the pack."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import recall_score
from starlette.testclient import TestClient

from serving_support import LocalCrew, png
from support import twinray
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.inference.active import compact, label_uncertainty
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.label_rule import LabelRule
from twinray.inference.model import load_model
from twinray.records import PRESENT, Pixels
from twinray.runs.results import read_label_predictions
from twinray.serving.app.application import create_app
from twinray.serving.store.images import Scores
from twinray.serving.store.teaching import from_texts


@pytest.fixture
def serve(config):
    """Serve some runs; the clients are closed at the end."""
    clients = []

    def start(*runs, **options):
        folder = f"{config.store}{len(clients)}"
        app = create_app(dataclasses.replace(config, runs=runs, store=folder, **options), token="", work=False)  # fmt: skip
        app.state.service.crew = crew = LocalCrew(app.state.service, runs)
        client = TestClient(app, base_url="http://127.0.0.1")
        client.__enter__()
        client.crew, client.folder = crew, folder
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def flat(level: int, seed: int = 0) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).normal(level, 40, (40, 48)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def send(client, data: bytes, name: str = "a.png") -> str:
    (image,) = client.post("/api/images", files=[("file", (name, data))]).json()["images"]
    client.crew.run()
    return image["id"]


def pixels(data: bytes) -> Pixels:
    return Pixels(np.asarray(Image.open(io.BytesIO(data))), "")


def test_scores_are_the_models_and_what_is_called_is_what_predict_calls(serve, classify_run, tmp_path, cli):  # fmt: skip
    client = serve(classify_run)
    files = {f"{level}.png": flat(level, level) for level in (60, 105, 150)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    told = {name: client.get(f"/api/images/{send(client, data, name)}").json() for name, data in files.items()}  # fmt: skip
    status, _, err = cli("predict", classify_run, *(tmp_path / name for name in files),
                         "--out", tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert status == 0, err
    with (tmp_path / "out" / "predictions.csv").open() as table:
        rows = [*csv.DictReader(table)]
    assert len(rows) == 3
    for row in rows:
        whole = told[Path(row["file"]).name]
        assert (whole["state"], whole["predictions"], whole["width"]) == ("done", [], 48)
        assert [one["class"] for one in whole["labels"]] == ["bright", "dark"]
        assert [one["class"] for one in whole["labels"] if one["called"]] == [row["called"]]
        for one in whole["labels"]:
            assert one["score"] == pytest.approx(float(row[one["class"]]), abs=1e-4)
        assert whole["score"] == pytest.approx(whole["labels"][1]["score"])
    assert told["60.png"]["labels"][1]["score"] > told["150.png"]["labels"][1]["score"]


def test_features_and_doubt_order_images_of_a_classifier_too(serve, classify_run):
    client = serve(classify_run)
    data = flat(100)
    image = send(client, data)
    (analysis,) = client.app.state.service.store.images.analyses(image)
    model = load_model(classify_run, "cpu")
    seen = model.batch([model.prepare(pixels(data), "x")])
    features = model.network.backbone(seen).detach().numpy()
    np.testing.assert_allclose(from_texts([analysis.features]), compact(features), atol=1e-3)
    scores = [*analysis.labels.values()]
    assert sum(scores) == pytest.approx(1)
    assert analysis.doubt == pytest.approx(label_uncertainty(scores, exclusive=True))
    assert client.get("/api/images?order=active").json()["images"][0]["id"] == image


def test_the_rules_tell_sensitivity_and_specificity_on_validation_images(serve, classify_run):
    (model,) = serve(classify_run).get("/api/models").json()["models"]
    assert (model["kind"], model["exclusive"], model["classes"]) == ("classifier", True, ["bright", "dark"])  # fmt: skip
    assert model["heat_maps"] == ["ablation", "occlusion"]
    kept = read_label_predictions(classify_run, "val")
    truth, scores = kept.truth, next(iter(kept.scores.values()))
    assert model["validation"]["n_images"] == len(truth)
    description = json.loads((classify_run / "model.json").read_text())
    chosen = description["thresholds"]["per_class"]["dark"]["thresholds"]
    assert chosen.keys() == model["rules"].keys() or not chosen  # too few images choose nothing
    for name, rule in model["rules"].items():
        least = rule["by_class"]["dark"]["threshold"]
        if chosen:
            assert least == chosen[name]
        dark = scores[:, 1] >= least
        for k, (label, called) in enumerate((("bright", ~dark), ("dark", dark))):
            own, true = rule["by_class"][label], truth[:, k] == PRESENT
            assert own["sensitivity"] == pytest.approx(recall_score(true, called))
            assert own["specificity"] == pytest.approx(recall_score(true, called, pos_label=False))
            assert own["n_with"] + own["n_without"] == len(truth)
            assert own["n_called"] + own["n_false"] == called.sum()
    for k, label in enumerate(("bright", "dark")):
        bands = model["validation"]["by_class"][label]["by_score"]
        assert sum(one["n"] for one in bands) == len(truth)
        assert sum(one["n_with"] for one in bands) == (truth[:, k] == PRESENT).sum()


def test_a_heat_map_of_a_class_is_the_librarys_own_over_the_whole_image(serve, classify_run):
    client = serve(classify_run)
    data = flat(105)
    image = send(client, data)
    model = load_model(classify_run, "cpu")
    prepared = model.prepare(pixels(data), "x")
    asked = f"/api/images/{image}/heat-map"
    for method in ("ablation", "occlusion"):
        for label in (0, 1):
            answer = client.get(f"{asked}?label={label}&method={method}")
            assert answer.headers["content-type"] == "image/png", answer.text
            shown = np.asarray(Image.open(io.BytesIO(answer.content)))
            (heat,) = ClassExplainer(model).maps(prepared, [label], method)
            wanted = prepared.map_to_display(heat.map)
            assert shown.shape == (40, 48, 4)
            np.testing.assert_allclose(shown[..., 3] / 255, wanted, atol=0.51 / 255)
    assert client.get(f"{asked}?label=1").content == client.get(f"{asked}?label=1&method=ablation").content  # fmt: skip
    assert client.get(f"{asked}?label=2").status_code == 404
    for wrong in ("?box=0", "", "?label=0&box=0", "?label=0&method=ablation-rerun"):
        assert client.get(asked + wrong).status_code == 422, wrong


def test_a_network_without_a_pooled_map_has_occlusion_alone(serve, classify_run):
    client = serve(classify_run)
    image = send(client, flat(105))
    (model,) = client.crew.methods
    explainer = client.crew.worker.models._explainer(model)
    explainer.scorer = dataclasses.replace(explainer.scorer, last_map=None)
    client.crew.methods = client.crew.worker.models.methods()
    assert client.get("/api/models").json()["models"][0]["heat_maps"] == ["occlusion"]
    asked = f"/api/images/{image}/heat-map?label=0"
    assert client.get(asked).headers["x-method"] == "occlusion"
    assert client.get(f"{asked}&method=ablation").status_code == 422


def test_a_detector_and_a_classifier_answer_for_one_image(serve, detect_run, classify_run):
    client = serve(detect_run, classify_run)
    image = send(client, png(3))
    detector, classifier = client.get("/api/models").json()["models"]
    assert (detector["kind"], classifier["kind"]) == ("detector", "classifier")
    first = client.get(f"/api/images/{image}").json()
    assert first["predictions"] and first["labels"] == []
    other = client.get(f"/api/images/{image}?model={classifier['model']}").json()
    assert other["predictions"] == [] and len(other["labels"]) == 2
    assert {one["state"] for one in other["models"]} == {"done"}
    assert other["score"] == first["score"] == first["predictions"][0]["score"]
    heat = f"/api/images/{image}/heat-map"
    assert client.get(f"{heat}?label=0").status_code == 422  # the first gives boxes
    assert client.get(f"{heat}?label=0&model={classifier['model']}").status_code == 200
    # served no longer, its scores stay and nothing is called
    again = client.app.state.service
    again.models = {detector["model"]: again.models[detector["model"]]}
    old = client.get(f"/api/images/{image}?model={classifier['model']}").json()["labels"]
    assert [(one["called"], one["threshold"]) for one in old] == [(None, None)] * 2


def test_labels_that_a_reader_accepts_and_rejects_are_in_reading_audit_and_pack(serve, detect_run, classify_run, tmp_path):  # fmt: skip
    client = serve(detect_run, classify_run)
    said = {}
    for n in range(24):
        dark = n % 2 == 0
        image = send(client, flat(60 if dark else 150, n))
        said[image] = {"dark": dark, "bright": not dark}
        body = {"reader": "anna", "labels": said[image]}
        assert client.post(f"/api/images/{image}/marks", json=body).status_code == 201
    (kept,) = client.get(f"/api/images/{image}/readings").json()
    assert kept["labels"] == said[image]
    row = client.app.state.service.store.audit.rows()[-1]
    assert (row.action, row.details["labels"]) == ("reading saved", said[image])
    assert client.get("/api/marks").json()["readings"][-1]["labels"] == said[image]
    done = twinray("pack", client.folder, "--format", "feedback", "--out", tmp_path / "pack", "--size", 64)  # fmt: skip
    assert done.returncode == 0, done.stderr
    pack = open_pack(tmp_path / "pack")
    # a class of a classifier is no class of boxes: nobody was asked for boxes of it
    assert (pack.info.box_classes, pack.info.label_classes) == (("blob",), ("blob", "bright", "dark", "normal"))  # fmt: skip
    for row_number, image in enumerate(pack.ids):
        told = dict(zip(pack.info.label_classes, pack.labels[row_number], strict=True))
        assert (told["dark"], told["bright"]) == (said[image]["dark"], said[image]["bright"])
        assert np.isnan(told["blob"]) and np.isnan(told["normal"])
    # and a classifier learns further from them; images of one grey value may look like copies of those that it learned from
    more = twinray("classify", "--data", tmp_path / "pack", "--init", classify_run, "--arch", "resnet18", "--allow-seen",
                   "--out", tmp_path / "more", "--size", 32, "--bootstrap", 0, "--device", "cpu")  # fmt: skip
    assert more.returncode == 0, more.stderr


def test_what_goes_to_an_archive_or_a_study_needs_boxes(serve, classify_run, tmp_path):
    archive = {"archive": "http://127.0.0.1:1/dicom-web"}
    with pytest.raises(InputError, match="reports hold boxes"):
        serve(classify_run, send_back="always", **archive)
    (tmp_path / "study.yaml").write_text("study: s")
    with pytest.raises(InputError, match="readers of a study are shown boxes"):
        serve(classify_run, study=tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("scores", "exclusive", "highest"),
    [
        ({"Nodule": 0.2, "Mass": 0.7, "No Finding": 0.9}, False, 0.7),
        ({"NORMAL": 0.25, "PNEUMONIA": 0.75}, True, 0.75),
        ({"bacterial": 0.2, "normal": 0.5, "viral": 0.3}, True, 0.5),
        ({"bright": 0.25, "dark": 0.75}, True, 0.75),
        ({"a": 0.2, "b": 0.5, "c": 0.3}, True, None),
        ({"normal": 0.4}, False, None),
    ],
)
def test_suspicious_is_what_says_that_there_is_something(scores, exclusive, highest):
    assert Scores(scores, exclusive).highest == (highest if highest is None else pytest.approx(highest))  # fmt: skip


def test_what_is_called_by_each_kind_of_rule():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    least = np.array([0.5, 0.25, 0.7])
    several = LabelRule(("a", "b", "c"), least, False, False, "", {})
    assert several.calls(scores).tolist() == [[True, True, False], [False, True, False]]
    assert several.called(scores) == ["a|b", "b"]
    highest = LabelRule(("a", "b", "c"), np.zeros(3), True, True, "", {})
    assert highest.called(scores) == ["a", "c"]
    two = LabelRule(("a", "b"), np.array([0.9, 0.3]), False, True, "", {})
    assert two.called(np.array([[0.7, 0.3], [0.8, 0.2]])) == ["b", "a"]

"""The hub's layout: weights that describe themselves, a card, licences, and the way back by twinray.load."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

import twinray
from export_support import made_run
from support import twinray as command
from twinray.backbones.ledger import LEDGER
from twinray.data.pack import open_pack
from twinray.exporting.card.figures import figure_lines
from twinray.exporting.card.page import _hub_id
from twinray.exporting.subject import open_subject
from twinray.inference.model import load_model, prepare_row
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as make_pack
from twinray.runs.description import Ancestor

sys.path.insert(0, __file__.rpartition("/")[0])
from hub_support import Hub


@pytest.fixture
def hub():
    found = Hub()
    yield found
    found.server.shutdown()


def test_what_was_exported_predicts_as_the_run_does(tmp_path, cli, detect_run, blob_pack):
    status, _, said = cli("export", detect_run, "--to", "hub", "--out", tmp_path / "out")
    assert status == 0, said
    assert "the same to the last bit" in said
    loaded = twinray.load(tmp_path / "out")
    pack, model = open_pack(blob_pack), load_model(detect_run, "cpu")
    (wanted,) = model.boxes([prepare_row(model, pack, 0)])
    found = loaded(np.asarray(pack.images[0]))
    assert loaded.kind == "detector" and loaded.classes == ("blob",)
    np.testing.assert_allclose(found.boxes.xyxy, wanted.xyxy, atol=1e-4)
    np.testing.assert_allclose(found.boxes.scores, wanted.scores, atol=1e-6)


def test_the_file_alone_describes_itself_and_nothing_tells_of_the_house(
    tmp_path, cli, detect_run, blob_pack
):
    assert cli("export", detect_run, "--to", "hub", "--out", tmp_path / "out")[0] == 0
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "out" / "model.safetensors", tmp_path / "alone")
    assert twinray.load(tmp_path / "alone").classes == ("blob",)
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["twinray"])["kind"] == "detector"
    for path in (tmp_path / "out").iterdir():
        if path.name != "made_by.json":
            assert str(blob_pack).encode() not in path.read_bytes(), path.name
            assert str(detect_run).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize("kind", ["classifier", "backbone"])
def test_labels_and_features_come_back(tmp_path, cli, class_pack, kind):
    run = made_run(tmp_path / "run", class_pack, kind=kind)
    assert cli("export", run, "--to", "hub", "--out", tmp_path / "out")[0] == 0
    image = np.asarray(open_pack(class_pack).images[0])
    found = twinray.load(tmp_path / "out")(image)
    again = twinray.load(run)(image)
    if kind == "classifier":
        assert found.labels == again.labels and set(found.labels) == {"bright", "dark"}
    else:
        np.testing.assert_array_equal(found.features, again.features)


def test_the_card_is_one_that_the_hub_takes(tmp_path, cli, detect_run):
    cards = pytest.importorskip("huggingface_hub")
    out = tmp_path / "out"
    assert cli("export", detect_run, "--to", "hub", "--license", "apache-2.0", "--out", out)[0] == 0
    card = cards.ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "object-detection"
    assert "map50" in card.data.metrics
    for title in ("What the weights saw", "Licences", "Figures", "Intended use and limits"):
        assert f"## {title}" in card.text
    assert "not a medical device" in card.text
    metrics = json.loads((detect_run / "metrics.json").read_text())["test"]["map50"]
    low, high = metrics["ci95"]
    row = f"| {metrics['value']:.3f} | {low:.3f} to {high:.3f} | {metrics['n']} patients |"
    assert f"| mAP50 | mean average precision over classes, IoU 0.5 or more {row}" in card.text
    of_class = json.loads((detect_run / "metrics.json").read_text())["test"]["per_class"]["blob"]
    assert f"| blob | {of_class['n_boxes']} | AP50 | {of_class['ap50']['value']:.3f} |" in card.text
    assert "(faster-rcnn) on resnet18, 64 pixels" in card.text
    assert "Input: images grey, stretched to 64 pixels a side" in card.text
    assert "flatter" not in card.text and "base_model" not in card.text


def test_a_card_without_test_images_says_that_validation_images_flatter():
    figure = {"value": 0.5, "ci95": [0.25, 0.75], "n": 9, "over": "patients", "note": "too few"}
    told = list(figure_lines({"val": {"n_images": 12, "auc": figure}}, "classifier"))
    assert told[0] == "On 12 val images:" and "flatter" in told[1]
    assert "| 0.500 | 0.250 to 0.750 | 9 patients | too few |" in told[2]
    both = {"test": {"n_images": 3, "auc": figure}, "val": {"n_images": 12, "auc": figure}}
    assert next(figure_lines(both, "classifier")) == "On 3 test images:"
    assert list(figure_lines({}, "detector")) == [
        "None were measured on images that training had not seen."
    ]


def test_weights_of_ones_own_pretraining_from_nothing_have_no_foreign_licence(
    tmp_path, cli, blob_pack
):
    run = made_run(tmp_path / "run", blob_pack)
    content = json.loads((run / "model.json").read_text())
    content["init"] = {"init": "/house/ward-7", "sha256": "0" * 64, "ancestors": []}
    (run / "model.json").write_text(json.dumps(content))
    (run / "checksums.json").unlink()
    status, _, said = cli("export", run, "--to", "hub", "--commercial", "--out", tmp_path / "out")
    assert status == 0, said
    assert "no licence of others" in (tmp_path / "out" / "README.md").read_text()
    for path in (tmp_path / "out").iterdir():
        assert path.name == "made_by.json" or b"ward-7" not in path.read_bytes(), path.name
    # of an older run, which does not say, nobody knows
    del content["init"]["ancestors"]
    (run / "model.json").write_text(json.dumps(content))
    status, _, said = cli("export", run, "--to", "hub", "--commercial", "--out", tmp_path / "no")
    assert status == 2 and "ward-7" in said


def ancestor(run, **facts):
    path = run / "model.json"
    content = json.loads(path.read_text())
    content["init"] = {"init": facts["name"], "sha256": "", "ancestors": [facts]}
    path.write_text(json.dumps(content))
    (run / "checksums.json").unlink()


@pytest.mark.parametrize(
    ("use", "licence", "words"),
    [("non-commercial", "CC-BY-NC 4.0", "forbids it"), ("unknown", "unknown", "nobody can say")],
)
def test_commercial_use_is_refused_where_an_ancestor_forbids_it(
    tmp_path, cli, blob_pack, use, licence, words
):
    run = made_run(tmp_path / "run", blob_pack)
    ancestor(run, name="them", licence=licence, use=use)
    base = ("export", run, "--to", "hub", "--out", tmp_path / "out")
    status, _, said = cli(*base, "--commercial")
    assert status == 2 and "them" in said and words in said
    assert not (tmp_path / "out").exists()
    status, _, said = cli(*base)
    assert status == 0, said
    card = (tmp_path / "out" / "README.md").read_text()
    assert licence in card and "base_model" not in card  # the hub knows no "them"


def test_base_models_are_ids_of_the_hub():
    names = [one.name for one in LEDGER.values() if one.place.value.how == "hub"]
    assert names
    for name in names:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", _hub_id(Ancestor(name)))
    assert _hub_id(Ancestor("ward-7.pth")) == ""


def test_open_ancestors_may_leave_for_commercial_use(tmp_path, cli, blob_pack):
    run = made_run(tmp_path / "run", blob_pack)
    ancestor(run, name="mine", licence="Apache-2.0", use="open")
    status, _, said = cli("export", run, "--to", "hub", "--commercial", "--out", tmp_path / "out")
    assert status == 0, said


def test_a_folder_is_pushed_and_fetched_by_its_id(tmp_path, blob_pack, hub, monkeypatch):
    pytest.importorskip("huggingface_hub")
    run = made_run(tmp_path / "run", blob_pack)
    settings = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_made_up", "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    command(
        "export", run, "--to", "hub", "--out", tmp_path / "out", "--push", "someone/finder", "--private", check=True,
    )  # fmt: skip
    made = hub.made[0]  # older clients say private, newer ones visibility
    assert made.get("private") is True or made.get("visibility") == "private"
    assert set(hub.files["someone/finder"]) >= {"README.md", "model.safetensors", "model.json"}
    assert "made_by.json" not in hub.files["someone/finder"]
    wanted = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hub.files["someone/finder"]["model.safetensors"] == wanted
    code = "import twinray; print(twinray.load('someone/finder').classes)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert done.stdout.strip() == "('blob',)", done.stderr[-2000:]


def test_a_hub_that_refuses_leaves_the_folder(tmp_path, blob_pack, hub, monkeypatch):
    pytest.importorskip("huggingface_hub")
    run = made_run(tmp_path / "run", blob_pack)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    hub.refuse = True
    done = command(
        "export", run, "--to", "hub", "--out", tmp_path / "out", "--push", "someone/finder"
    )
    assert done.returncode == 1 and "could not push" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_is_neither_folder_nor_id_is_one_line(tmp_path):
    with pytest.raises(twinray.InputError, match="neither"):
        twinray.load(tmp_path / "nowhere")


def test_terms_of_images_are_those_of_the_data_sheets():
    import importlib

    from twinray.data.identity import DATA_SETS
    from twinray.exporting.licences import IMAGE_TERMS, image_terms
    from twinray.runs.seen import Origin, Part, Seen

    assert set(IMAGE_TERMS) <= set(DATA_SETS)
    sheets = {
        "nih-cxr14": ("nih", "use unrestricted, with attribution"),
        "rsna-pneumonia": ("rsna", "non-commercial research and education"),
        "chexpert": ("chexpert", "Dataset Research Use Agreement"),
        "mimic-cxr": ("mined.mimic", "PhysioNet's data use agreement"),
        "brax": ("mined.brax", "PhysioNet Credentialed Health Data License 1.5.0"),
        "vindr-cxr": ("vindr.reader", "data use agreement"),
        "dermamnist": ("medmnist", "CC BY-NC 4.0"),
        "pathmnist": ("medmnist", "CC BY 4.0"),
    }
    for key, (module, words) in sheets.items():
        sheet = importlib.import_module(f"twinray.data.readers.{module}").__doc__
        assert words in " ".join(sheet.split()) and words in IMAGE_TERMS[key], key
    origins = tuple(Origin("source", key, (), 3, 3) for key in ("rsna-pneumonia", "covidx"))
    seen = Seen((Part("run", "detect", "training", ("source",), 6, 6, {}, origins),))
    assert image_terms(seen) == (
        "images of covidx: terms unknown here",
        "images of rsna-pneumonia: non-commercial research and education",
        "terms of other images are not known here: ask who provided them",
    )
    assert image_terms(Seen()) == ("terms of the images are not known here: ask who provided them",)


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_a_backbone_sees_of_a_file_what_its_pack_saw(tmp_path, cli, fit):
    rng = np.random.default_rng(0)
    (tmp_path / "files").mkdir()
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 256, (70, 120, 3), dtype=np.uint8))
        image.save(tmp_path / "files" / f"{i}.png")
    options = PackConfig(tmp_path / "files", out=tmp_path / "pack", size=96, fit=fit, workers=1)
    make_pack(options)
    run = made_run(tmp_path / "run", tmp_path / "pack", kind="backbone", size=64)
    out = tmp_path / "out"
    assert cli("export", run, "--to", "hub", "--membership", "off", "--out", out)[0] == 0
    opened, subject = open_pack(tmp_path / "pack"), open_subject(run)
    pixels = torch.from_numpy(opened.pixels[0].copy())[None]
    assert pixels.shape == (1, 96, 96, 3)
    with torch.no_grad():
        wanted = subject.backbone(subject.network_input(pixels))[0].double().numpy()
    file = tmp_path / "files" / opened.table["source"][0].as_py()
    for folder in (run, out):
        np.testing.assert_array_equal(twinray.load(folder)(file).features, wanted)
    how = "stretched" if fit == "squash" else "letterboxed"
    assert f"images RGB, {how} to 96 pixels a side" in (out / "README.md").read_text()

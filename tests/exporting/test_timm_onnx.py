"""Weights in timm's names and ONNX graphs give what the run gives."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from export_support import made_run
from twinray.data.pack import open_pack
from twinray.exporting.files import run_file
from twinray.exporting.parity import Limits, of_boxes
from twinray.inference.model import load_model
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as make_pack
from twinray.records import Boxes, Pixels


def parity(folder):
    return json.loads((folder / "parity.json").read_text())


@pytest.mark.parametrize(
    ("to", "package"),
    [("timm", "timm"), ("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime")],
)
def test_a_missing_extra_is_named_before_any_work(tmp_path, cli, monkeypatch, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    status, _, said = cli("export", tmp_path / "run", "--to", to, "--out", tmp_path / "out")
    assert status == 2 and f"--to {to} needs {package}: pip install 'twinray[{to}]'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["backbone", "classifier", "detector"])
@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto", "timm/test_vit"])
def test_timm_gives_the_same_to_the_last_bit(tmp_path, cli, blob_pack, kind, arch):
    pytest.importorskip("timm")
    run = made_run(tmp_path / "run", blob_pack, kind=kind, arch=arch, size=64)
    status, _, said = cli("export", run, "--to", "timm", "--out", tmp_path / "out")
    assert status == 0, said
    assert parity(tmp_path / "out")["exact"] is True


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_timms_own_transforms_cut_nothing_off(tmp_path, cli, fit):
    timm = pytest.importorskip("timm")
    image = np.zeros((60, 120, 3), np.uint8)
    image[:, :12] = image[:, -12:] = 255
    (tmp_path / "files").mkdir()
    Image.fromarray(image).save(tmp_path / "files" / "x.png")
    options = PackConfig(
        tmp_path / "files", out=tmp_path / "pack", size=64, fit=fit, workers=1, val=0, test=0
    )
    make_pack(options)
    run = made_run(tmp_path / "run", tmp_path / "pack", kind="backbone")
    assert cli("export", run, "--to", "timm", "--out", tmp_path / "out")[0] == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    seen = timm.data.create_transform(**config, is_training=False)(Image.fromarray(image))
    mean, std = (np.array(config[name])[:, None, None] for name in ("mean", "std"))
    found = np.asarray(seen) * std + mean
    inside = slice(None) if fit == "squash" else slice(18, 46)  # padded above and below
    packed = np.asarray(open_pack(tmp_path / "pack").images[0])[inside] / 255
    assert np.abs(found[:, inside] - packed).max() < 0.1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "image.convert('L')" in card
    assert ("timm pads in the mean colour" in card) is (fit == "letterbox")


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
@pytest.mark.parametrize("arch", ["resnet18", "timm/test_vit"])
def test_one_graph_gives_logits_and_features(tmp_path, cli, blob_pack, kind, arch):
    pytest.importorskip("onnxscript")
    run = made_run(tmp_path / "run", blob_pack, kind=kind, arch=arch, size=64)
    status, _, said = cli("export", run, "--to", "onnx", "--out", tmp_path / "out")
    assert status == 0, said
    assert parity(tmp_path / "out")["largest_share"] < 1e-5


@pytest.mark.parametrize(
    ("arch", "detector"),
    [("resnet18", "faster-rcnn"), ("resnet18", "retinanet"), ("timm/test_vit", "fcos")],
)
def test_graphs_and_numpy_find_the_same_boxes_in_original_pixels(
    tmp_path, cli, blob_pack, monkeypatch, arch, detector
):
    pytest.importorskip("onnxscript")
    run = made_run(tmp_path / "run", blob_pack, arch=arch, detector=detector, size=96)
    status, _, said = cli("export", run, "--to", "onnx", "--out", tmp_path / "out")
    assert status == 0, said
    assert parity(tmp_path / "out")["n_values"] > 100
    # from a decoded image of another shape, through Pillow and NumPy alone
    image = np.random.default_rng(0).integers(0, 255, (140, 90), dtype=np.uint8)
    ours = load_model(run, "cpu")
    (wanted,) = ours.boxes([ours.prepare(Pixels(image, "test"), "x")])
    boxes, labels, scores = run_file(tmp_path / "out" / "onnx_model.py").Model(tmp_path / "out")(
        image
    )
    found = of_boxes(
        [wanted],
        [Boxes(boxes, labels, scores)],
        limits=Limits(140, 100, 0.001),
        loader="onnx",
        limit=1e-4,
    )
    assert found.holds, found.told()
    # and as the card says
    Image.fromarray(image).save(tmp_path / "out" / "image.png")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path / "out")
    for name in ("onnx_model", "twinray_square"):
        sys.modules.pop(name, None)
    names = {}
    exec(code, names)
    for one, other in zip(names["found"], (boxes, labels, scores), strict=True):
        np.testing.assert_array_equal(one, other)

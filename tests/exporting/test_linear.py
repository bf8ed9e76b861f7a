"""Weights that learned from linear values (pack --pixels uint16) leave, and come back, with the pixels that they learned from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import twinray
from dicom_support import write_radiograph
from export_support import made_run
from twinray.data.decoding.images import load_image
from twinray.data.decoding.options import Decoding
from twinray.data.pack import open_pack
from twinray.exporting.config import ExportConfig
from twinray.exporting.files import run_file
from twinray.exporting.subject import open_subject
from twinray.inference.model import load_model
from twinray.jobs.pack import PackConfig
from twinray.records import Linear, Pixels

HOSPITAL = "st-elsewhere"


def twelve_bits(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Values between 300 and 2,300 of a detector of 12 bits: a slope with noise that 8 bits do not hold."""
    slope = np.linspace(300, 2300, shape[1])[None] + np.zeros(shape)
    return np.rint(slope + rng.normal(0, 40, shape)).clip(0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """PNG files of 16 bits, 12 of them in use, in two class folders of a hospital."""
    folder, rng = tmp_path_factory.mktemp("source") / HOSPITAL, np.random.default_rng(3)
    for name in ("dark", "bright"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(twelve_bits(rng, (70, 90))).save(folder / name / f"{name}{i}.png")
    return folder


@pytest.fixture(scope="module")
def pack(source: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packs") / "linear"
    twinray.pack(
        PackConfig(source, out=out, size=64, fit="letterbox", workers=1, pixels="uint16", depth=12)
    )
    return out


@pytest.mark.parametrize(
    ("target", "kind"),
    [("torchvision", "detector"), ("torchvision", "classifier"), ("onnx", "backbone"), ("hub", "backbone")],
)  # fmt: skip
def test_every_target_gives_what_the_run_gives_on_levels(tmp_path, cli, pack, target, kind):
    if target == "onnx":
        pytest.importorskip("onnxscript")
    run = made_run(tmp_path / "run", pack, kind=kind)
    status, _, said = cli(
        "export", run, "--to", target, "--membership", "off", "--out", tmp_path / "out"
    )
    assert status == 0, said
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["n_images"] == 12
    assert "linear values of up to 16 bits" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_the_hubs_folder_reads_files_as_the_pack_did(tmp_path, cli, source, pack, kind):
    run = made_run(tmp_path / "run", pack, kind=kind)
    out = tmp_path / "out"
    assert cli("export", run, "--to", "hub", "--membership", "off", "--out", out)[0] == 0
    opened, loaded = open_pack(pack), twinray.load(out)
    file = source / opened.table["source"][0].as_py()
    prepared = loaded._subject.model.prepare(
        load_image(file, decoding=loaded._subject.model.decoding()), "x"
    )
    np.testing.assert_array_equal(prepared.packed, opened.pixels[0])
    found, again = loaded(file), twinray.load(run)(file)
    if kind == "detector":
        np.testing.assert_array_equal(found.boxes.xyxy, again.boxes.xyxy)
    else:
        assert found.labels == again.labels
    # whose values were declared as 12 bits is nobody's business
    for path in out.iterdir():
        if path.name != "made_by.json":
            assert HOSPITAL.encode() not in path.read_bytes(), path.name


def test_a_backbone_sees_levels_of_a_dicom_file(tmp_path, cli, pack):
    run = made_run(tmp_path / "run", pack, kind="backbone")
    out = tmp_path / "out"
    assert cli("export", run, "--to", "hub", "--membership", "off", "--out", out)[0] == 0
    stored = twelve_bits(np.random.default_rng(0), (64, 64))
    deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelData": stored.tobytes()}
    file = write_radiograph(
        tmp_path / "x.dcm", stored, **deep, WindowCenter="1300", WindowWidth="1800"
    )
    pixels = load_image(file, decoding=Decoding(linear=True))
    subject = open_subject(run)
    levels = pixels.linear.levels(pixels.array)
    import torch

    with torch.no_grad():
        wanted = subject.backbone(subject.network_input(torch.from_numpy(levels)[None]))[0]
        plain = load_image(file, decoding=Decoding()).array
        rounded = subject.backbone(subject.network_input(torch.from_numpy(plain.copy())[None]))[0]
    found = twinray.load(out)(file).features
    np.testing.assert_array_equal(found, wanted.double().numpy())
    assert not np.array_equal(found, rounded.double().numpy())
    for path in out.iterdir():
        if path.name != "made_by.json":
            assert HOSPITAL.encode() not in path.read_bytes(), path.name
    array = np.random.default_rng(1).integers(0, 256, (50, 64), dtype=np.uint8)
    assert twinray.load(out)(array).features.shape == found.shape


def test_arrays_of_16_bits_without_a_window_are_refused(tmp_path, pack):
    loaded = twinray.load(made_run(tmp_path / "run", pack))
    with pytest.raises(twinray.InputError, match="make it display-ready"):
        loaded(np.zeros((64, 64), np.uint16))


@pytest.fixture(scope="module")
def graphs(pack, tmp_path_factory) -> tuple[Path, Path]:
    """A detector of linear values and its ONNX folder."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("graphs")
    run = made_run(folder / "run", pack)
    twinray.export(ExportConfig(run, "onnx", folder / "out"))
    return run, folder / "out"


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_graphs_take_16_bits_with_their_window(graphs, bits, colour):
    run, folder = graphs
    image = twelve_bits(np.random.default_rng(1), (140, 90))
    if colour:
        image = np.stack([image, image // 2, image // 3], axis=-1)
    window: tuple[float, float] | None = (400, 2200)
    ours = load_model(run, "cpu")
    if bits == 8:
        image, window = (image // 16).astype(np.uint8), None
        pixels = Pixels(image, "test")
    else:
        pixels = Pixels(image, "test", linear=Linear(*window))
    prepared = ours.prepare(pixels, "x")
    model = run_file(folder / "onnx_model.py").Model(folder)
    seen, place = model.fit(image, window)
    np.testing.assert_allclose(seen, ours.batch([prepared]).numpy(), atol=2e-6)
    corners = np.array([[5.0, 3.0, 40.5, 60.0], [0.0, 0.0, 64.0, 64.0]])
    np.testing.assert_allclose(place(corners), prepared.to_original(corners, 64), atol=1e-6)
    boxes, labels, scores = model(image, window)
    assert len(boxes) == len(labels) == len(scores) > 10


def test_graphs_refuse_pixels_that_they_would_misread(graphs, tmp_path, blob_pack, cli):
    _, folder = graphs
    model = run_file(folder / "onnx_model.py").Model(folder)
    deep = np.zeros((64, 64), np.uint16)
    for image, window in (
        (deep, None),
        (deep, (5, 5)),
        (deep.astype(float), (0, 1)),
        (deep[0], None),
    ):
        with pytest.raises(ValueError, match="expected"):
            model(image, window)
    run = made_run(tmp_path / "run", blob_pack, kind="classifier")
    assert cli("export", run, "--to", "onnx", "--out", tmp_path / "out")[0] == 0
    plain = run_file(tmp_path / "out" / "onnx_model.py").Model(tmp_path / "out")
    with pytest.raises(ValueError, match="display-ready"):
        plain(deep)
    with pytest.raises(ValueError, match="without a window"):
        plain(deep.astype(np.uint8), window=(0, 255))


def test_predict_takes_the_hubs_folder(tmp_path, cli, source, pack):
    run = made_run(tmp_path / "run", pack)
    out = tmp_path / "out"
    assert cli("export", run, "--to", "hub", "--membership", "off", "--out", out)[0] == 0
    tables = []
    for model in (run, out):
        to = tmp_path / f"predicted-{model.name}"
        status, _, said = cli(
            "predict", model, source, "--out", to, "--score-threshold", 0, "--workers", 0, "--no-overlays",
        )  # fmt: skip
        assert status == 0, said
        tables.append(pd.read_csv(to / "predictions.csv"))
    assert len(tables[0]) > 100
    columns = ["file", "x1", "y1", "x2", "y2", "score"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns])

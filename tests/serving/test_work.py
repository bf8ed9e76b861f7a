"""What processes of work make of a file: the same boxes as ``predict``, heat maps of the library, values as stored."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from starlette.testclient import TestClient

import twinray
from dicom_support import write_radiograph
from serving_support import LocalCrew, png
from support import draw_blob
from twinray.data.decoding.options import Decoding
from twinray.data.pack import open_pack
from twinray.inference.active import compact, uncertainty
from twinray.inference.model import load_model, prepare_row
from twinray.jobs.pack import PackConfig
from twinray.serving.app.application import create_app
from twinray.serving.store.teaching import from_texts
from twinray.serving.work.decoding import open_file, pseudonym


@pytest.fixture
def client(config, detect_run):
    app = create_app(config, token="", work=False)
    crew = LocalCrew(app.state.service, [detect_run])
    app.state.service.crew = crew
    with TestClient(app, base_url="http://127.0.0.1") as one:
        one.crew = crew
        yield one


def send(client, name: str, data: bytes) -> str:
    answer = client.post("/api/images", files=[("file", (name, data))]).json()
    assert answer["refused"] == []
    return answer["images"][0]["id"]


def radiograph(tmp_path, **values) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (70, 90)).astype(np.uint16)
    pixels = values.pop("pixels", pixels)
    deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelData": pixels.tobytes()}
    write_radiograph(tmp_path / "x.dcm", pixels, **deep, **values)
    return (tmp_path / "x.dcm").read_bytes()


def test_boxes_are_those_of_the_model_in_original_pixels(client, detect_run, tmp_path):
    data = png(3, side=100)
    image = send(client, "a.png", data)
    client.crew.run()
    whole = client.get(f"/api/images/{image}").json()
    assert (whole["state"], whole["width"], whole["height"]) == ("done", 100, 100)
    model = load_model(detect_run, "cpu")
    from twinray.records import Pixels

    pixels = Pixels(np.asarray(Image.open(io.BytesIO(data))), "")
    (wanted,) = model.boxes([model.prepare(pixels, "x")])
    assert len(wanted) > 0
    np.testing.assert_allclose([one["box"] for one in whole["predictions"]], wanted.xyxy, atol=1e-3)
    np.testing.assert_allclose(
        [one["score"] for one in whole["predictions"]], wanted.scores, atol=1e-5
    )
    # beside them, what orders the worklist by diversity: means of the backbone's last map
    _, features = model.detector.detect_with_features(model.batch([model.prepare(pixels, "x")]))
    pooled = features.stages["c5"].mean(dim=(2, 3)).numpy()
    (analysis,) = client.app.state.service.store.images.analyses(image)
    np.testing.assert_allclose(from_texts([analysis.features]), compact(pooled), atol=1e-3)
    assert analysis.doubt == pytest.approx(uncertainty(wanted.scores), rel=1e-4)


def test_a_heat_map_is_the_librarys_own_over_the_whole_image(client, detect_run):
    from twinray.inference.heat_maps import heat_maps
    from twinray.records import Pixels

    data = png(3, side=100)
    image = send(client, "a.png", data)
    client.crew.run()
    n = len(client.get(f"/api/images/{image}").json()["predictions"])
    model = load_model(detect_run, "cpu")
    prepared = model.prepare(Pixels(np.asarray(Image.open(io.BytesIO(data))), ""), "x")
    detections, features = model.detector.detect_with_features(model.batch([prepared]))
    for method in ("ablation", "occlusion"):
        for box in {0, n - 1}:
            answer = client.get(f"/api/images/{image}/heat-map?box={box}&method={method}")
            assert answer.headers["content-type"] == "image/png"
            shown = np.asarray(Image.open(io.BytesIO(answer.content)))
            assert shown.shape == (100, 100, 4)
            import torch

            with torch.no_grad():
                (heat,) = heat_maps(
                    model.detector, features, detections[0], [box], (64, 64), method
                )
            wanted = prepared.map_to_display(heat.map)
            np.testing.assert_allclose(shown[..., 3] / 255, wanted, atol=0.51 / 255)
    again = client.get(f"/api/images/{image}/heat-map?box=0&method=ablation")
    assert again.content == client.get(f"/api/images/{image}/heat-map?box=0").content
    assert client.get(f"/api/images/{image}/heat-map?box={n}").status_code == 404
    assert (
        client.get(f"/api/images/{image}/heat-map?box=0&method=ablation-rerun").status_code == 422
    )
    assert client.get(f"/api/images/{image}/heat-map?box=0&model=none").status_code == 404
    for kept in client.app.state.service.store.files.cache.iterdir():
        kept.unlink()  # what was kept can be made again
    fresh = client.get(f"/api/images/{image}/heat-map?box=0")
    assert fresh.content == again.content


def shown_by(display: dict, values: np.ndarray) -> np.ndarray:
    """What a viewer shows by the rule that it is given: an own writing of PS3.3 C.11.2.1.2."""
    x = values.astype(np.float64) * display["slope"] + display["intercept"]
    c, w = display["centre"], display["width_of_window"]
    if display["function"] == "LUT":
        lut = np.array(display["lut"])
        grey = lut[np.clip(np.rint(x) - display["low"], 0, len(lut) - 1).astype(int)]
    elif display["function"] == "SIGMOID":
        grey = 255 / (1 + np.exp(-4 * (x - c) / w))
    elif display["function"] == "LINEAR":
        grey = np.clip(((x - (c - 0.5)) / (w - 1) + 0.5) * 255, 0, 255)
    else:
        grey = np.clip((x - (c - w / 2)) / w * 255, 0, 255)
    return 255 - grey if display["inverted"] else grey


@pytest.mark.parametrize(
    "values",
    [
        {"WindowCenter": 2000, "WindowWidth": 1500},
        {"WindowCenter": 2000, "WindowWidth": 1500, "photometric": "MONOCHROME1"},
        {"WindowCenter": -300.5, "WindowWidth": 700, "RescaleSlope": -0.5, "RescaleIntercept": 100},
        {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 0, "WindowWidth": 900, "PixelRepresentation": 1},
        {},
    ],
)
def test_a_viewer_that_follows_the_rule_shows_what_the_model_sees(client, tmp_path, values):
    if values.get("PixelRepresentation"):
        rng = np.random.default_rng(1)
        values = {**values, "pixels": rng.integers(-2048, 2048, (70, 90)).astype(np.int16)}
    data = radiograph(tmp_path, **values)
    image = send(client, "x.dcm", data)
    display = client.get(f"/api/images/{image}/display").json()  # before it was analysed
    answer = client.get(f"/api/images/{image}/pixels")
    sent = np.frombuffer(answer.content, "<u2").reshape(70, 90)
    service = client.app.state.service
    from twinray.data.decoding.images import load_image

    seen = load_image(service.store.files.place(service.store.images.get(image).sha256)).array
    assert np.abs(shown_by(display, sent) - seen).max() <= 0.5 + 1e-6
    header = dcmread(io.BytesIO(data))
    modality = apply_modality_lut(header.pixel_array, header)
    np.testing.assert_allclose(sent * display["slope"] + display["intercept"], modality)
    # under a negative slope pydicom takes the range of outputs upside down
    falling = values.get("RescaleSlope", 1) < 0
    if "WindowCenter" in values and not values.get("VOILUTFunction") and not falling:
        oracle = apply_voi_lut(modality, header)  # pydicom's, which leaves polarity to the caller
        span = oracle.max() - oracle.min()
        plain = shown_by({**display, "inverted": False}, sent)
        np.testing.assert_allclose(plain / 255, (oracle - oracle.min()) / span, atol=2e-3)


def test_deep_files_are_sent_as_stored(client, config):
    values = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    image = send(client, "deep.png", sink.getvalue())
    answer = client.get(f"/api/images/{image}/pixels")
    assert answer.status_code == 422 and "--depth" in answer.json()["detail"]
    client.crew.run()
    whole = client.get(f"/api/images/{image}").json()
    assert whole["state"] == "failed" and "--depth" in whole["reason"]
    assert str(client.app.state.service.store.files.folder) not in whole["reason"]


def test_deep_files_with_a_declared_depth(config, detect_run):
    import dataclasses

    app = create_app(dataclasses.replace(config, depth=12), token="", work=False)
    service = app.state.service
    service.crew = LocalCrew(service, [detect_run])
    values = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        image = send(client, "deep.png", sink.getvalue())
        sent = np.frombuffer(client.get(f"/api/images/{image}/pixels").content, "<u2")
        np.testing.assert_array_equal(sent.reshape(40, 50), values)
        display = client.get(f"/api/images/{image}/display").json()
        assert (display["low"], display["high"]) == (0, 4095)


def test_damaged_and_hostile_files_fail_with_a_reason_and_harm_nothing(client, tmp_path):
    good = send(client, "good.png", png(1))
    bomb = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(bomb, "PNG")
    bad = {
        "cut.png": png(2)[:-200],
        "bomb.png": bomb.getvalue(),
        "cut.dcm": radiograph(tmp_path)[:3000],
        "head.png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    }
    ids = {name: send(client, name, data) for name, data in bad.items()}
    client.crew.run()
    assert client.get(f"/api/images/{good}").json()["state"] == "done"
    for name, image in ids.items():
        whole = client.get(f"/api/images/{image}").json()
        assert whole["state"] == "failed" and len(whole["reason"]) > 10, name
        assert "/" not in whole["reason"].replace("PGM/PPM", ""), name
        assert client.get(f"/api/images/{image}/pixels").status_code == 422


def test_the_patient_is_a_pseudonym_of_this_stores_key(client, tmp_path):
    ids = []
    for uid, (number, date) in enumerate(
        [("4711", "20200101"), ("4711", "20210101"), ("9", "20200601")]
    ):
        data = radiograph(
            tmp_path, PatientID=number, PatientName="DOE^JANE", StudyDate=date, StudyTime="1200", SOPInstanceUID=f"1.2.{uid}"
        )  # fmt: skip
        ids.append(send(client, f"{uid}.dcm", data))
    client.crew.run()
    rows = [client.get(f"/api/images/{one}").json() for one in ids]
    assert rows[0]["patient"] == rows[1]["patient"] != rows[2]["patient"]
    assert "4711" not in json.dumps(rows)
    assert rows[0]["acquired"] == "202001011200"
    priors = client.get(f"/api/images/{ids[1]}/display").json()["priors"]
    assert [one["id"] for one in priors] == [ids[0]]


def test_a_model_of_linear_values_is_served_what_its_pack_holds(config, tmp_path):
    """The boxes of a 12-bit file are those on the levels of the pack that holds it."""
    from export_support import made_run

    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        deep = np.rint(np.linspace(300, 2300, 90) + rng.normal(0, 40, (70, 90))).astype(np.uint16)
        Image.fromarray(deep).save(source / f"{i}.png")
    twinray.pack(PackConfig(source, out=tmp_path / "pack", size=64, workers=1, pixels="uint16", depth=12))  # fmt: skip
    run = made_run(tmp_path / "run", tmp_path / "pack")
    app = create_app(replace(config, runs=(run,)), token="", work=False)
    crew = LocalCrew(app.state.service, [run])
    app.state.service.crew = crew
    pack, model = open_pack(tmp_path / "pack"), load_model(run, "cpu")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        name = pack.table["source"][1].as_py()
        image = send(client, name, (source / name).read_bytes())
        crew.run()
        whole = client.get(f"/api/images/{image}").json()
    (wanted,) = model.boxes([prepare_row(model, pack, 1)])
    assert pack.pixels[1].dtype == np.float32 and len(wanted) > 0
    np.testing.assert_allclose([one["box"] for one in whole["predictions"]], wanted.xyxy, atol=1e-3)
    np.testing.assert_allclose(
        [one["score"] for one in whole["predictions"]], wanted.scores, atol=1e-5
    )


def test_of_two_boxes_in_one_place_the_one_of_the_class_is_explained():
    """One anchor may give boxes of two classes: where rounding exchanges them, the map is still of the class that was asked for."""
    from twinray.serving.work.models import Expected

    boxes = np.array([[1.0, 1, 9, 9], [1, 1, 9, 9], [20, 20, 30, 30]])
    asked = Expected(0, (1.0, 1.2, 9.0, 9.0), "mass")
    assert asked.among(boxes, ["mass", "nodule", "mass"]) == 0
    assert asked.among(boxes, ["nodule", "mass", "mass"]) == 1
    assert asked.among(boxes, ["nodule", "nodule", "mass"]) is None
    assert asked.among(boxes[:0], []) is None


@pytest.mark.parametrize(
    ("number", "known"),
    [("PAT-1", True), ("10", True), ("UNKNOWN", False), ("Anonymous", False), ("000", False), ("0", False), ("", False)],
)  # fmt: skip
def test_images_of_nobody_are_no_earlier_images_of_each_other(tmp_path, number, known):
    path = write_radiograph(
        tmp_path / "a.dcm", draw_blob(np.random.default_rng(0), 40)[0], PatientID=number
    )
    identity = open_file((str(path), Decoding())).identity
    assert (pseudonym(b"k" * 64, identity) is not None) is known


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_what_of_the_cache_is_not_whole_is_made_again(client, cut):
    """A machine that loses power may keep half of a file: it is not sent for ever after."""
    image = send(client, "a.png", png(3, side=100))
    client.crew.run()
    service = client.app.state.service
    asked = [f"/api/images/{image}/pixels", f"/api/images/{image}/display", f"/api/images/{image}/heat-map?box=0"]  # fmt: skip
    whole = [client.get(one).content for one in asked]
    cached = [path for path in service.store.files.cache.iterdir() if path.is_file()]
    assert len(cached) >= 4
    for path in cached:
        path.write_bytes(path.read_bytes()[:cut])
    again = [client.get(one) for one in asked]
    assert [one.status_code for one in again] == [200] * 3
    assert [one.content for one in again] == whole


def test_an_image_that_is_forgotten_while_it_is_analysed_or_shown_leaves_nothing(
    client, monkeypatch
):
    service = client.app.state.service
    store, worker = service.store, client.crew.worker
    image = send(client, "a.png", png(3, side=100))
    decode = worker._decode

    def forgotten_meanwhile(sha256):
        outcome = decode(sha256)
        for gone in store.images.forget(image=image, who="operator"):
            store.files.remove(gone)
        return outcome

    monkeypatch.setattr(worker, "_decode", forgotten_meanwhile)
    assert worker.analyse_next()
    assert [*store.files.cache.iterdir()] == []
    image = send(client, "a.png", png(3, side=100))
    client.get(f"/api/images/{image}/pixels")
    assert [*store.files.cache.iterdir()] == []
    assert client.get(f"/api/images/{image}/pixels").status_code == 404

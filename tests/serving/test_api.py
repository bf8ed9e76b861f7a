"""The HTTP API, by its OpenAPI description and by what readers and their tools do with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving_support import BOX, analysed, png
from twinray.data.readers.coco import read_coco
from twinray.serving.app.application import create_app
from twinray.serving.app.uploads import plain_name
from twinray.serving.store.images import Box, Facts

BASE = "http://127.0.0.1:8000"


@pytest.fixture
def app(config):
    return create_app(config, token="", work=False)


@pytest.fixture
def client(app):
    with TestClient(app, base_url=BASE) as one:
        yield one


def upload(client, *files):
    sent = [("file", (name, data, "application/octet-stream")) for name, data in files]
    return client.post("/api/images", files=sent)


def first_image(client) -> str:
    return upload(client, ("a.png", png())).json()["images"][0]["id"]


def done(client, image: str, boxes=None, facts=None) -> str:
    """The image with an answer of the served model, as a worker writes it."""
    service = client.app.state.service
    model = service.first.model
    claim = service.store.images.claim("w", [model])
    assert claim.id == image
    boxes = [BOX, Box((5.0, 5.0, 20.0, 30.0), "blob", 0.25)] if boxes is None else boxes
    service.store.images.finish(
        claim, "w", facts or Facts(64, 64), {model: boxes}, 0.1, first=model
    )
    return model


def test_good_files_are_taken_and_bad_ones_named_with_a_reason(client):
    answer = upload(
        client,
        ("a.png", png(1)),
        ("../../etc/pass\x01wd.png", png(2)),
        ("C:\\folder\\b.png", png(3)),
        ("notes.txt", b"some words"),
        ("empty.png", b""),
        ("all.zip", b"PK\x03\x04" + bytes(100)),
        ("again.png", png(1)),
    )
    assert answer.status_code == 201
    body = answer.json()
    assert [one["name"] for one in body["images"]] == [
        "a.png", "pass%01wd.png", "b.png", "again.png",
    ]  # fmt: skip
    assert {one["state"] for one in body["images"]} == {"queued"}
    assert body["images"][3]["id"] == body["images"][0]["id"] and body["images"][3]["known"]
    assert [one["name"] for one in body["refused"]] == ["notes.txt", "empty.png", "all.zip"]
    assert "it is empty" in body["refused"][1]["reason"]
    assert "zip archive" in body["refused"][2]["reason"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"a.png", "a.png"), (b"/etc/passwd", "passwd"), (b"..\\..\\x", "x"), (b"", "unnamed"), (b"../", "unnamed"),
        (b"DOE^JOHN\r\nSet-Cookie: x", "DOE^JOHN\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}Set-Cookie: x"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2), ("\u202egnp.exe".encode(), "\N{REPLACEMENT CHARACTER}gnp.exe"),
        (b"a" * 1000, "a" * 200),
    ],
)  # fmt: skip
def test_names_are_kept_without_paths_and_signs_that_steer(given, kept):
    assert plain_name(given) == kept


def test_bodies_that_are_none_are_answered(client):
    head = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/api/images", json={}).status_code == 415
    assert client.post("/api/images", content=b"", headers=head).status_code == 400
    whole = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n'
    cut = (whole % png(5))[:-40]
    answer = client.post("/api/images", content=cut, headers=head)
    assert answer.status_code == 400 and "ended in the middle" in answer.json()["detail"]
    assert answer.json()["images"] == [] and client.get("/api/images").json()["total"] == 0
    other = whole.replace(b'"file"', b'"other"') % b"x"
    assert client.post("/api/images", content=other, headers=head).status_code == 422
    long = whole.replace(b"a.png", b"n" * 30_000 + b".png") % png(6)
    (kept,) = client.post("/api/images", content=long, headers=head).json()["images"]
    assert kept["name"] == "n" * 200
    longer = whole.replace(b"a.png", b"n" * 100_000) % png(6)
    assert client.post("/api/images", content=longer, headers=head).status_code == 400
    service = client.app.state.service
    assert [*service.store.files.incoming.iterdir()] == []


def test_an_image_goes_from_queued_to_done_with_boxes_in_original_pixels(client):
    image = first_image(client)
    waiting = client.get(f"/api/images/{image}").json()
    assert (waiting["state"], waiting["place"], waiting["predictions"]) == ("queued", 0, [])
    model = done(client, image)
    whole = client.get(f"/api/images/{image}").json()
    assert (whole["id"], whole["state"], whole["width"], whole["height"]) == (image, "done", 64, 64)
    assert whole["predictions"][0] == {
        "box": [1.0, 2.0, 11.0, 12.5],
        "class": "blob",
        "score": 0.75,
    }
    assert whole["model"] == model
    assert [(one["model"], one["state"], one["boxes"]) for one in whole["models"]] == [
        (model, "done", 2)
    ]
    assert client.get(f"/api/images/{image}?model=other").json()["predictions"] == []


@pytest.mark.parametrize(
    "path", ["0123456789abcdef", "0123456789abcdef/pixels", "0123456789abcdef/display"]
)
def test_what_is_not_there_is_404(client, path):
    assert client.get(f"/api/images/{path}").status_code == 404
    assert client.get("/api/images/..%2f..%2fkey").status_code in (404, 422)


def test_marks_are_saved_once_and_given_out_with_their_readers(client):
    image = first_image(client)
    model = done(client, image)
    sent = {
        "reader": "anna",
        "key": "one",
        "marks": [
            {"box": [1, 2, 11, 12.5], "class": "blob", "verdict": "accepted"},
            {"box": [5, 5, 20, 30], "class": "blob", "verdict": "rejected"},
            {"box": [30, 30, 40, 40], "class": "blob", "verdict": "added"},
        ],
        "normal": False,
        "text": "<script>alert(1)</script>",
    }
    first = client.post(f"/api/images/{image}/marks", json=sent)
    assert first.status_code == 201
    assert client.post(f"/api/images/{image}/marks", json=sent).json() == first.json()
    assert [mark["prediction"] for mark in first.json()["marks"]] == [0, 1, None]
    assert first.json()["marks"][0]["model"] == model
    client.post(f"/api/images/{image}/marks", json={**sent, "reader": "ben", "marks": []})
    shown = client.get(f"/api/images/{image}").json()["marks"]
    assert [(mark["reader"], mark["verdict"]) for mark in shown] == [
        ("anna", "accepted"), ("anna", "rejected"), ("anna", "added"),
    ]  # fmt: skip
    assert len(client.get(f"/api/images/{image}/readings").json()) == 2
    text = client.get(f"/api/images/{image}/readings").json()[0]["text"]
    assert text == "<script>alert(1)</script>"


def test_all_marks_are_coco_that_our_own_reader_takes(client, tmp_path):
    image = first_image(client)
    done(client, image)
    marks = [
        {"box": [1, 2, 11, 12.5], "class": "blob", "verdict": "accepted"},
        {"box": [5, 5, 20, 30], "class": "blob", "verdict": "rejected"},
    ]
    client.post(f"/api/images/{image}/marks", json={"reader": "anna", "marks": marks})
    coco = client.get("/api/marks").json()
    (box,) = coco["annotations"]  # a rejected box is no finding
    assert (box["bbox"], box["reader"], box["verdict"]) == ([1, 2, 10, 10.5], "anna", "accepted")
    assert [one["verdict"] for one in coco["rejected"]] == ["rejected"]
    assert coco["images"][0]["file_name"] == f"{image}.png"  # not the name that the client gave
    file = tmp_path / "marks.json"
    file.write_text(json.dumps(coco))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{image}.png").write_bytes(png())
    (sample,) = read_coco(file).samples
    assert sample.boxes.xyxy.tolist() == [[1, 2, 11, 12.5]]


@pytest.mark.parametrize(
    "change",
    [
        {"reader": "an na"}, {"reader": ""}, {"marks": [{"box": [1, 2, 3], "class": "blob", "verdict": "added"}]},
        {"marks": [{"box": [3, 2, 1, 4], "class": "blob", "verdict": "added"}]},
        {"marks": [{"box": [0, 0, 900, 4], "class": "blob", "verdict": "added"}]},
        {"marks": [{"box": [0, 0, 9, 4], "class": "no such class", "verdict": "added"}]},
        {"marks": [{"box": [0, 0, 9, 4], "class": "blob", "verdict": "liked"}]},
        {"marks": [{"box": [0, 0, float("inf"), 4], "class": "blob", "verdict": "added"}]},
        {"text": "a\0b"}, {"text": "\ud800"}, {"labels": {"a\0": True}}, {"shown": {"a": ["\udc00"]}}, {"key": "\0"},
        {"labels": {"Canary^Name": True}}, {"text": "x" * 20_001}, {"unknown": 1}, {"normal": "maybe"}, {"key": ""}, {"seconds": -1},
        {"model": "Canary^Name"}, {"marks": [{"box": [0, 0, 9, 4], "class": "blob", "verdict": "accepted", "model": "Canary^Name"}]},
        {"marks": [{"box": [0, 0, 9, 4], "class": "blob", "verdict": "accepted", "prediction": 10**25}]},
        {"shown": {"threshold": float("nan")}}, {"after": "another"},
    ],
)  # fmt: skip
def test_readings_that_are_none_are_refused_and_nothing_is_kept(client, change):
    image = first_image(client)
    done(client, image)
    body = json.dumps({"reader": "anna", "marks": [], **change})
    answer = client.post(
        f"/api/images/{image}/marks", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422 and answer.json()["detail"]
    assert client.get(f"/api/images/{image}/readings").json() == []


def test_what_was_shown_is_kept_as_numbers_and_no_text_of_the_client(client):
    """The audit keeps it for ever, also of a patient who is forgotten."""
    image = first_image(client)
    model = done(client, image)
    told = {
        "seconds": 3.5, "boxes_seconds": 2.0, "threshold": 0.3, "rule": "specificity@90", "view": "models", "models": [model], "boxes": True,
        "read_first": False, "order": "active", "heat_maps": [f"{model}:0 ablation", f"{model}:label:1 ablation-rerun"],
        "revealed": {"after": 1.5, "marks_before": 2}, "view_prior": {"after": 2.0},
    }  # fmt: skip
    body = {"reader": "anna", "shown": {**told, "note": "Canary^Name", "Canary^Name": 1}}
    assert client.post(f"/api/images/{image}/marks", json=body).status_code == 201
    odd = {"rule": "Canary^Name", "revealed": {"after": -1}, "heat_maps": ["Canary^Name"], "threshold": 0.5}  # fmt: skip
    sent = client.post(f"/api/images/{image}/marks", json={"reader": "ben", "shown": odd})
    assert sent.status_code == 201  # no mark is refused for it
    store = client.app.state.service.store
    rows = [one for one in store.audit.rows() if one.action == "reading saved"]
    assert [row.details["shown"] for row in rows] == [told, {"threshold": 0.5}]
    assert store.readings.of_image(image)[0].reading.shown == told


@pytest.mark.parametrize("depth", [900, 5_000, 200_000])
def test_a_body_of_any_depth_is_refused_in_words(client, depth):
    image = first_image(client)
    body = '{"reader": "anna", "shown": {"threshold": ' + "[" * depth + "]" * depth + "}}"
    answer = client.post(
        f"/api/images/{image}/marks", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422) and answer.json()["detail"]


def test_a_save_that_was_overtaken_under_the_same_name_is_told_and_replaces_nothing(client):
    """Two tabs of one reader, or a save that arrives late: neither takes the place of what it did not know of."""
    image = first_image(client)
    done(client, image)

    def save(key, after=None, **more):
        body = {"reader": "anna", "key": key, **({} if after is None else {"after": after}), **more}
        return client.post(f"/api/images/{image}/marks", json=body)

    first = save("one", "", text="first")
    assert first.status_code == 201
    assert save("two", "", text="of another tab").status_code == 409
    assert save("one", "", text="first").json() == first.json()  # repeated, it is the same save
    second = save("three", first.json()["id"], text="second")
    assert second.status_code == 201
    assert save("four", first.json()["id"], text="late").status_code == 409
    (kept,) = client.get(f"/api/images/{image}/readings").json()
    assert kept["text"] == "second"
    assert save("five", text="a tool that does not say").status_code == 201
    other = {"reader": "ben", "key": "one", "after": ""}  # of each reader
    assert client.post(f"/api/images/{image}/marks", json=other).status_code == 201


def test_the_worklist_through_the_api(client):
    for seed in range(3):
        upload(client, (f"n{seed}.png", png(seed)))
    page = client.get("/api/images?size=2&page=2").json()
    assert (page["total"], page["pages"], len(page["images"])) == (3, 2, 1)
    assert client.get("/api/images?q=n1").json()["total"] == 1
    assert client.get("/api/images?state=done,failed").json()["total"] == 0
    asked = {"q": "n1", "size": 2}  # a name that is searched for stands in no address
    by_body = client.post("/api/images/search", json=asked).json()
    assert by_body == client.get("/api/images", params=asked).json() and by_body["total"] == 1
    for wrong in (
        {"q": "a\0b"},
        {"state": "nonsense"},
        {"page": 0},
        {"order": "nonsense"},
        {"x": 1},
    ):
        assert client.post("/api/images/search", json=wrong).status_code == 422, wrong
    for odd in ("q=a%00b", "model=%00", "state=nonsense", "page=0", "size=1000", "order=nonsense"):
        assert client.get(f"/api/images?{odd}").status_code == 422


def test_models_tell_what_a_score_means_with_the_numbers_behind_it(client, detect_run):
    (model,) = client.get("/api/models").json()["models"]
    assert model["classes"] == ["blob"] and model["heat_maps"] == ["ablation", "occlusion"]
    kept = json.loads((detect_run / "predictions_val.json").read_text())
    truth = json.loads((detect_run / "truth_val.json").read_text())
    table = model["validation"]
    assert table["n_images"] == len(truth["images"])
    assert table["n_boxes"] == len(truth["annotations"])
    lowest = table["by_threshold"][-1]
    assert lowest["n_false"] + lowest["n_found"] == len(kept)
    assert sum(band["n"] for band in table["by_score"]) == len(kept)
    score = sorted(one["score"] for one in kept)[len(kept) // 2]
    step = min(table["by_threshold"], key=lambda one: abs(one["score"] - score))
    above = sum(one["score"] >= step["score"] for one in kept)
    assert step["n_false"] + step["n_found"] == above
    assert step["fp_per_image"] == step["n_false"] / table["n_images"]


def test_a_list_of_models_beside_that_an_operator_damaged_stops_no_reader(client, config):
    (Path(config.store) / "beside.json").write_text('{"models": [')
    assert client.get("/api/models").status_code == 200
    assert client.get(f"/api/models/{'0' * 64}/comparison").status_code == 404


def test_pixels_that_are_kept_are_sent_as_16_bit_little_endian(client):
    image = first_image(client)
    service = client.app.state.service
    from twinray.data.decoding.viewing import load_view

    row = service.store.images.get(image)
    view = load_view(service.store.files.place(row.sha256))
    service.cache.keep_view(row.sha256, view)
    answer = client.get(f"/api/images/{image}/pixels")
    values = np.frombuffer(answer.content, "<u2").reshape(64, 64)
    np.testing.assert_array_equal(values, view.pixels.array)
    shown = client.get(f"/api/images/{image}/display").json()
    assert (shown["width"], shown["height"], shown["bits"], shown["priors"]) == (64, 64, 8, [])


def test_the_description_is_openapi_and_names_every_route(client, app):
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    wanted = {
        ("/health", "get"), ("/ready", "get"), ("/metrics", "get"), ("/api/models", "get"),
        ("/api/images", "post"), ("/api/images", "get"), ("/api/images/{id}", "get"),
        ("/api/images/{id}/pixels", "get"), ("/api/images/{id}/display", "get"),
        ("/api/images/{id}/heat-map", "get"), ("/api/images/{id}/marks", "post"),
        ("/api/images/{id}/readings", "get"), ("/api/marks", "get"),
        ("/api/session", "post"), ("/api/session", "get"), ("/api/session", "delete"),
    }  # fmt: skip
    have = {(path, method) for path, item in described["paths"].items() for method in item}
    assert wanted <= have
    added = described["paths"]["/api/images"]["post"]["responses"]["201"]
    assert added["content"]["application/json"]["schema"]["$ref"].endswith("/Uploaded")
    box = described["components"]["schemas"]["PredictedBox"]["properties"]
    assert set(box) == {"box", "class", "score"}
    told = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    assert not [path for path in described["paths"] if path not in told]
    assert client.get("/docs").status_code == 404  # its page would load foreign scripts


def test_metrics_and_readiness(client):
    upload(client, ("a.png", png()), ("b.txt", b"words"))
    text = client.get("/metrics").text
    assert 'twinray_uploads_total{outcome="new"} 1.0' in text
    assert 'twinray_uploads_total{outcome="refused"} 1.0' in text
    assert 'twinray_images{state="queued"} 1.0' in text
    assert 'route="/api/images"' in text
    assert client.get("/health").json() == {"status": "ok", "ready": True}
    assert client.get("/ready").json()["waiting"] == 1


def test_limits_of_size_number_queue_and_disk_are_answered_in_words(config):
    import dataclasses

    small = dataclasses.replace(config, max_file=1, max_files=2, max_queue=2)
    with TestClient(create_app(small, token="", work=False), base_url=BASE) as client:
        big = upload(client, ("big.png", png()[:100] + bytes(2 << 20)), ("ok.png", png(1))).json()
        assert "larger than 1 MiB" in big["refused"][0]["reason"]
        assert [one["name"] for one in big["images"]] == ["ok.png"]
        many = upload(client, *((f"{i}.png", png(i)) for i in range(2, 5))).json()
        assert "more than 2 files" in many["refused"][0]["reason"]
        full = upload(client, ("late.png", png(9)))
        assert full.status_code == 503 and "wait already" in full.json()["detail"]
        assert full.headers["retry-after"]
        huge = client.post("/api/images", content=b"", headers={"content-length": str(1 << 40)})
        assert huge.status_code == 413
        client.app.state.service.store.close()
    full_disk = dataclasses.replace(config, min_free=1 << 40, store=config.store + "2")
    with TestClient(create_app(full_disk, token="", work=False), base_url=BASE) as client:
        answer = upload(client, ("a.png", png()))
        assert answer.status_code == 507 and "free some space" in answer.json()["detail"]
        assert client.get("/api/images").status_code == 200  # what is kept can be read
        assert client.get("/ready").json()["takes_images"] is False


def test_a_disk_that_fills_while_a_file_comes_keeps_what_was_there(client, monkeypatch):
    import errno

    from twinray.serving.store import files

    kept = first_image(client)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    answer = upload(client, ("b.png", png(2)))
    assert answer.status_code == 507 and "disk" in answer.json()["detail"]
    monkeypatch.undo()
    assert [one["id"] for one in client.get("/api/images").json()["images"]] == [kept]
    assert [*client.app.state.service.store.files.incoming.iterdir()] == []


def test_several_models_are_asked_for_by_hash(client):
    image = first_image(client)
    service = client.app.state.service
    analysed(service.store, service.store.images.get(image), models=(service.first.model, "older"))
    models = client.get(f"/api/images/{image}").json()["models"]
    assert [one["model"] for one in models] == [service.first.model, "older"]
    assert len(client.get(f"/api/images/{image}?model=older").json()["predictions"]) == 1


def test_an_image_that_failed_waits_again_and_one_that_did_not_stays(client):
    image = first_image(client)
    assert client.post(f"/api/images/{image}/again").status_code == 409
    service = client.app.state.service
    claim = service.store.images.claim("w", [service.first.model])
    service.store.images.finish(
        claim, "w", None, {}, 0.1, first=service.first.model, reason="its stream ends early"
    )
    assert client.get(f"/api/images/{image}").json()["state"] == "failed"
    answer = client.post(f"/api/images/{image}/again")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert client.post(f"/api/images/{'0' * 16}/again").status_code == 404

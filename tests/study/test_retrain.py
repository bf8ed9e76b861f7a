"""The loop: readings through the API, a pack, a further training, a comparison, and the new model beside the old."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from twinray.errors import InputError
from twinray.runs.beside import read_beside
from twinray.serving.app.application import create_app
from twinray.serving.config import ServeConfig
from twinray.serving.store.images import Box, Facts
from twinray.studies.config import RetrainConfig
from twinray.studies.retrain import run

BASE = "http://127.0.0.1:8000"


def benchmark():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "serve_loop.py"
    spec = importlib.util.spec_from_file_location("serve_loop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_corrections_become_a_model_beside_the_old(detect_run, tmp_path):
    loop = benchmark()
    served = ServeConfig(runs=(detect_run,), store=str(tmp_path / "store"), min_free=1, rate=1e6)
    app = create_app(served, token="", work=False)
    with TestClient(app, base_url=BASE) as client:
        service = app.state.service
        old = service.first.model
        (name,) = service.first.classes
        drawn = {
            key: (png, [(box, name) for box, _ in boxes])
            for key, (png, boxes) in loop.phantoms(30, 64, 3).items()
        }

        def call(method, path, body):
            if isinstance(body, list):
                files = [("file", (n, data, "image/png")) for n, data in body]
                answer = client.post(path, files=files)
                for one in answer.json()["images"]:
                    claim = service.store.images.claim("w", [old])
                    width, height = 64, 64
                    box = Box((4.0, 4.0, 30.0, 30.0), name, 0.6)
                    service.store.images.finish(
                        claim, "w", Facts(width, height), {old: [box]}, 0.1, first=old
                    )
                    assert claim.id == one["id"]
            else:
                answer = client.request(method, path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json()

        assert loop.correct(call, drawn) == 38  # every fourth image by both readers
    config = RetrainConfig(tmp_path / "store", detect_run, tmp_path / "out", epochs=1, val=0.25, test=0.35, bootstrap=20, pictures=0)  # fmt: skip
    made = run(config)
    assert [path.name for path in made.runs] == [f"{detect_run.name}-retrained"]
    assert (made.comparison / "report.html").is_file()
    (beside,) = read_beside(tmp_path / "store")
    assert beside.from_model == old and beside.model != old and Path(beside.run) == made.runs[0]
    app = create_app(served, token="", work=False)
    with TestClient(app, base_url=BASE) as client:
        models = client.get("/api/models").json()["models"]
        page = client.get(f"/api/models/{beside.model}/comparison")
        figures = client.get(f"/api/models/{beside.model}/metrics.csv")
        assert client.get(f"/api/models/{old}/comparison").status_code == 404
        assert client.get(f"/api/models/{beside.model}/report.json").status_code == 422
    assert [one["model"] for one in models] == [old, beside.model]  # the old one stays first
    assert [one["first"] for one in models] == [True, False]
    assert [one["compared_with"] for one in models] == [None, old]
    assert page.text == (made.comparison / "report.html").read_text()
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert figures.text.replace("\r\n", "\n") == (made.comparison / "metrics.csv").read_text()
    # the same command goes on with what is there, and trains nothing again
    before = (made.runs[0] / "model.safetensors").stat().st_mtime_ns
    again = run(config)
    assert again == made and (again.runs[0] / "model.safetensors").stat().st_mtime_ns == before
    told = json.loads((made.comparison / "made_by.json").read_text())
    assert told["verb"] == "evaluate"


def test_a_store_without_readings_is_told(detect_run, tmp_path):
    app = create_app(ServeConfig(runs=(detect_run,), store=str(tmp_path / "store"), min_free=1), token="", work=False)  # fmt: skip
    with TestClient(app, base_url=BASE):
        pass
    with pytest.raises(InputError, match="no finished reading"):
        run(RetrainConfig(tmp_path / "store", detect_run, tmp_path / "out"))
    with pytest.raises(InputError, match="finished detect run"):
        run(RetrainConfig(tmp_path / "store", tmp_path, tmp_path / "out"))

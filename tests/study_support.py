"""A small reader study of the tests: six cases, two readers, a clock that is set by hand."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.testclient import TestClient

from serving_support import png
from twinray.serving.app.application import create_app
from twinray.serving.config import ServeConfig
from twinray.serving.store.images import Box, Facts
from twinray.serving.store.store import open_store

BASE, TOKEN, PASSWORD = (
    "http://127.0.0.1:8000",
    "a-token-of-the-tests-0123456789",
    "long enough, is it",
)
READERS = ("ann", "bob")
LESION = [10.0, 12.0, 20.0, 18.0]  # x, y, width, height
SHOWN = Box((10.0, 12.0, 30.0, 30.0), "blob", 0.75)
FAINT = Box((40.0, 40.0, 60.0, 60.0), "blob", 0.25)
DAY = 86_400.0
START = 1_800_000_000.0


def write_cases(folder: Path, n: int = 6) -> Path:
    """Images, the first half of them with a lesion, and their COCO file."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"Canary^Name {i}.png").write_bytes(png(i))
    annotations = [
        {"id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": LESION} for i in range(n // 2)
    ]
    coco = {
        "images": [
            {"id": i + 1, "file_name": f"Canary^Name {i}.png", "width": 64, "height": 64, "patient_id": f"Canary^Name {i // 2}"}
            for i in range(n)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "blob"}],
    }  # fmt: skip
    path = folder / "cases.json"
    path.write_text(json.dumps(coco))
    return path


def write_study(folder: Path, cases_in_all: int = 6, **options) -> Path:
    """A study file beside its cases."""
    write_cases(folder, cases_in_all)
    content = {
        "study": "small", "cases": "cases.json", "readers": [*READERS], "threshold": 0.5, "seed": 3, "wash_out_days": 28,
        **options,
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def with_practice(folder, n: int = 3, patient: str = "learner") -> dict[str, str]:
    """Options of a study with practice cases, which are written beside its own."""
    (folder / "practice").mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / "practice" / f"{i}.png").write_bytes(png(100 + i))
    coco = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 64, "height": 64, "patient_id": patient} for i in range(n)],
        "annotations": [], "categories": [{"id": 1, "name": "blob"}],
    }  # fmt: skip
    (folder / "practice" / "cases.json").write_text(json.dumps(coco))
    return {"practice": "practice/cases.json"}


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Served:
    """A study that is served in this process."""

    def __init__(self, run: Path, folder: Path, store: str, **options) -> None:
        self.run, self.store = run, store
        self.path = write_study(folder, **options)
        self.users()
        self.clock = Clock()
        self.start()

    def users(self) -> None:
        with_users = open_store(self.store)
        for name in (*READERS, "carla"):
            with_users.people.add(name, PASSWORD)
        with_users.close()

    def start(self) -> None:
        config = ServeConfig(runs=(self.run,), store=self.store, min_free=1, study=self.path)
        self.app = create_app(config, token=TOKEN, work=False)
        self.service = self.app.state.service
        self.service.desk.clock = self.clock
        self.clients: dict[str, TestClient] = {}

    def restart(self) -> None:
        """Stop as a killed server does: nothing is finished or put away but what the system frees."""
        self.service.store.close()
        from twinray.files import folders_freed

        with folders_freed():
            pass
        self.start()

    def answer_all(self, boxes=(SHOWN, FAINT)) -> None:
        """The model answers for all cases."""
        store, model = self.service.store, self.service.first.model
        while (claim := store.images.claim("w", [model])) is not None:
            assert store.images.finish(
                claim, "w", Facts(64, 64), {model: list(boxes)}, 0.1, first=model
            )

    def as_reader(self, name: str) -> TestClient:
        """A browser in which a reader is signed in."""
        if name not in self.clients:
            client = TestClient(self.app, base_url=BASE)
            answer = client.post("/api/session", json={"user": name, "password": PASSWORD})
            assert answer.status_code == 201, answer.text
            client.headers["x-csrf-token"] = answer.json()["csrf"]
            self.clients[name] = client
        return self.clients[name]

    def as_admin(self) -> TestClient:
        client = TestClient(self.app, base_url=BASE)
        client.headers["authorization"] = f"Bearer {TOKEN}"
        return client

    def read(self, name: str, marks=(), **more):
        """Open the next case and submit it; the case and the answer."""
        client = self.as_reader(name)
        case = client.post("/api/study/next").json()
        own = marks(case) if callable(marks) else marks
        return case, self.send(name, case, own, **{"finished": True, **more})

    def send(self, name: str, case, marks=(), key: str | None = None, **more):
        body = {"key": key or f"k{self.clock.now:.0f}", "marks": [*marks], "seconds": 12.5, **more}
        place = f"/api/study/cases/{case['session']}/{case['position']}/marks"
        return self.as_reader(name).post(place, json=body)


def mark(box=(10, 12, 30, 30), rating: int | None = 80, **more):
    return {"box": [*map(float, box)], "class": "blob", "rating": rating, **more}

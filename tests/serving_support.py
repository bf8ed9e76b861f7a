"""What tests of the server share besides fixtures: images and readings put into a store by hand."""

from __future__ import annotations

import io
import socket

import numpy as np
from PIL import Image

from support import draw_blob
from twinray.serving.store.images import Box, Facts
from twinray.serving.store.readings import Marked, Said
from twinray.serving.work.crew import ShownError
from twinray.serving.work.job import Job
from twinray.serving.work.process import Worker

BOX = Box((1.0, 2.0, 11.0, 12.5), "blob", 0.75)


def add(store, data: bytes = b"pixels", name: str = "a.png"):
    with store.files.receive() as incoming:
        incoming.write(data)
        return store.images.add(incoming.keep(), name, "png", who="tester")


def analysed(store, image, boxes=(BOX,), models=("m",), facts=None, features=None):
    store.images.serve([(model, model, ["blob"]) for model in models])
    claim = store.images.claim("w", models)
    assert claim.id == image.id
    answers = {model: list(boxes) for model in claim.models}
    facts = facts or Facts(100, 80)
    features = {} if features is None else dict.fromkeys(models, np.asarray(features, float))
    assert store.images.finish(claim, "w", facts, answers, 0.5, first=models[0], features=features)


def said(image, key="k", reader="anna", **more):
    marks = (Marked(BOX.corners, "blob", "accepted", 0, "m"),)
    return Said(image, reader, key, marks=more.pop("marks", marks), **more)


def png(seed: int = 0, side: int = 64) -> bytes:
    """A small image of its own."""
    sink = io.BytesIO()
    pixels = draw_blob(np.random.default_rng(seed), side)[0]
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


class LocalCrew:
    """The processes of work in this one: the same code behind the same questions, without a second to load torch."""

    ready, why, restarts = True, "", 0

    def __init__(self, service, runs) -> None:
        config, folder = service.config, service.store.files.folder
        job = Job(
            name="local", role="show", store=config.store, folder=str(folder), runs=tuple(map(str, runs)),
            device="cpu", timeout=30.0, memory=1024, depth=config.depth, value_range=None, max_cache=64,
            allow_edited=False, log="", threads=1,
        )  # fmt: skip
        self.worker = Worker(job, socket.socketpair()[0])
        self.alive = {"analyse": 1, "show": 1}
        self.methods = self.worker.models.methods()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.worker.decoder.close()

    def wake(self) -> None:
        pass

    def run(self) -> None:
        """Analyse all that waits."""
        while self.worker.analyse_next():
            pass

    def ask(self, asked):
        answer, data = self.worker.answer(asked)
        if answer.get("refused"):
            raise ShownError(answer["refused"], refused=True)
        assert not answer.get("fault"), asked
        return answer, data

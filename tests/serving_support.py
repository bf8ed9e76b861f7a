"""What tests of the server share besides fixtures: images and readings put into a store by hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from support import draw_blob
from twinray.serving.store.images import Box, Facts
from twinray.serving.store.readings import Marked, Said

BOX = Box((1.0, 2.0, 11.0, 12.5), "blob", 0.75)


def add(store, data: bytes = b"pixels", name: str = "a.png"):
    with store.files.receive() as incoming:
        incoming.write(data)
        return store.images.add(incoming.keep(), name, "png", who="tester")


def analysed(store, image, boxes=(BOX,), models=("m",), facts=None):
    store.images.serve([(model, model, ["blob"]) for model in models])
    claim = store.images.claim("w", models)
    assert claim.id == image.id
    answers = {model: list(boxes) for model in claim.models}
    facts = facts or Facts(100, 80)
    assert store.images.finish(claim, "w", facts, answers, 0.5, first=models[0])


def said(image, key="k", reader="anna", **more):
    marks = (Marked(BOX.corners, "blob", "accepted", 0, "m"),)
    return Said(image, reader, key, marks=more.pop("marks", marks), **more)


def png(seed: int = 0, side: int = 64) -> bytes:
    """A small image of its own."""
    sink = io.BytesIO()
    pixels = draw_blob(np.random.default_rng(seed), side)[0]
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()

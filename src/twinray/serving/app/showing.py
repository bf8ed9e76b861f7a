"""Pixels and heat maps of an image: from what is kept, else from the process that shows."""

from __future__ import annotations

import time
from typing import Any

from fastapi import HTTPException

from twinray.serving.app.service import Service
from twinray.serving.store.images import Box
from twinray.serving.store.models import Image
from twinray.serving.work.crew import ShownError


def display_of(service: Service, image: Image) -> dict[str, Any]:
    """How the values of an image are shown at first; see :class:`twinray.serving.app.forms.DisplayGiven`.

    Raises:
        HTTPException: it cannot be shown, or no process answers.
    """
    return service.cache.display(image.sha256) or _view(service, image)[0]


def pixels_of(service: Service, image: Image) -> tuple[dict[str, Any], bytes]:
    """The same, with the values: unsigned 16-bit, little-endian, row by row.

    Raises:
        HTTPException: it cannot be shown, or no process answers.
    """
    data = service.cache.pixels(image.sha256)
    shown = service.cache.display(image.sha256)
    if data is None or shown is None:
        return _view(service, image)
    return shown, data


def heat_map_of(
    service: Service, image: Image, model: str, place: int, box: Box, method: str
) -> bytes:
    """Heat map of one predicted box as a PNG.

    Args:
        service: server.
        image: image.
        model: hash of a model that is served.
        place: place of the box among the model's.
        box: the box.
        method: kind of heat map, one that the model has.

    Raises:
        HTTPException: it cannot be worked out, or no process answers.
    """
    about = {"box": place, "corners": [*box.corners], "class": box.label}
    return _heat(service, image, model, str(place), method, about)


def label_map_of(service: Service, image: Image, model: str, label: int, method: str) -> bytes:
    """Heat map of one class of a classifier, by its place among the classes; see :func:`heat_map_of`.

    Raises:
        HTTPException: it cannot be worked out, or no process answers.
    """
    return _heat(service, image, model, f"label{label}", method, {"label": label})


def _heat(
    service: Service, image: Image, model: str, what: str, method: str, about: dict[str, Any]
) -> bytes:
    png = service.cache.heat(image.sha256, model, what, method)
    if png is None:
        began = time.monotonic()
        asked = {
            "do": "heat",
            "image": image.id,
            "sha256": image.sha256,
            "size": [image.width, image.height],
            "model": model,
            "what": what,
            "method": method,
            **about,
        }
        _, png = _ask(service, asked)
        service.metrics.heat_seconds.observe(time.monotonic() - began)
    return png


def _view(service: Service, image: Image) -> tuple[dict[str, Any], bytes]:
    answer, data = _ask(service, {"do": "view", "image": image.id, "sha256": image.sha256})
    shown: dict[str, Any] = answer["display"]
    return shown, data


def _ask(service: Service, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    if service.crew is None:
        raise HTTPException(503, "no process that shows", {"retry-after": "5"})
    try:
        return service.crew.ask(asked)
    except ShownError as error:
        if error.refused:
            raise HTTPException(422, str(error)) from None
        raise HTTPException(503, str(error), {"retry-after": "2"}) from None

"""Routes of readings: saved, and given out."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, HTTPException, Request

from twinray.serving.app import forms
from twinray.serving.app.routes_images import ImageId, image_or_404
from twinray.serving.app.service import Service, caller_of, service_of
from twinray.serving.app.telling import marks_as_coco, reading_given
from twinray.serving.store.models import Image
from twinray.serving.store.readings import Marked, OvertakenError, Said

router = APIRouter(tags=["readings"])
_NORMAL = "normal"
_EDGE = 1.0
"""Pixels that a box may stand out of its image: those of a model are clipped to it, a reader's hand is not."""


@router.post(
    "/api/images/{id}/marks",
    status_code=201,
    response_model=forms.ReadingGiven,
    responses={
        403: {"description": "another reader's name"},
        404: {"description": "no such image"},
        409: {"description": "the reader's newest reading is not the one of `after`"},
    },
)
def save_marks(request: Request, id: ImageId, body: forms.ReadingIn) -> Any:  # noqa: A002
    """Save all that a reader says of an image now; it takes the place of what the reader said before, which is kept too.

    The same ``key`` again is the same save: a client that got no answer repeats it without harm.
    """
    service, caller = service_of(request), caller_of(request)
    image = image_or_404(service, id)
    _check_labels(service, body)
    _check_models(service, body)
    if caller.named and body.reader != caller.name:
        raise HTTPException(403, "expected reader to be the name that is signed in")
    said = Said(
        image=id,
        reader=body.reader,
        key=body.key or secrets.token_hex(8),
        marks=_marks(service, image, body),
        normal=body.normal,
        text=body.text,
        labels=body.labels,
        model=body.model,
        shown=body.shown.model_dump(exclude_none=True),
        seconds=body.seconds,
        finished=body.finished,
        after=body.after,
    )
    try:
        whole, new = service.store.readings.save(said, caller.name)
    except KeyError:
        raise HTTPException(404, "there is no such image") from None
    except OvertakenError:
        raise HTTPException(
            409,
            "the image was marked elsewhere under this name meanwhile; look at the newest reading",
        ) from None
    if new:
        service.metrics.marks.inc()
    return reading_given(whole)


@router.get("/api/images/{id}/readings", response_model=list[forms.ReadingGiven])
def readings(request: Request, id: ImageId, every: bool = False) -> Any:  # noqa: A002
    """The newest reading of each reader; with ``every`` all that were ever saved, oldest first."""
    service = service_of(request)
    image_or_404(service, id)
    return [reading_given(one) for one in service.store.readings.of_image(id, every=every)]


@router.get("/api/marks")
def all_marks(request: Request) -> dict[str, Any]:
    """The newest reading of each reader and image as COCO: ``annotations`` with readers, ``rejected`` boxes apart."""
    service = service_of(request)
    found = [*service.store.readings.all()]
    images = service.store.images.some(dict.fromkeys(one.reading.image for one in found))
    here = {image.id for image in images}
    return marks_as_coco(service, [one for one in found if one.reading.image in here], images)


def _marks(service: Service, image: Image, body: forms.ReadingIn) -> tuple[Marked, ...]:
    """Checked boxes; the predicted box that one is about is found where the client does not say."""
    known = _classes(service)
    marks = []
    for place, mark in enumerate(body.marks):
        if mark.label not in known:
            raise HTTPException(
                422,
                f"marks[{place}]: expected class to be one of {', '.join(sorted(known))}, got {mark.label[:60]!r}",
            )
        if image.width and image.height and not _inside(mark.box, image.width, image.height):
            raise HTTPException(
                422,
                f"marks[{place}]: expected a box in original pixels of an image of {image.width} x {image.height}",
            )
        model, prediction = mark.model or body.model, mark.prediction
        if mark.verdict == "added":
            prediction = None
        elif prediction is None and mark.verdict in ("accepted", "rejected"):
            model = model or service.first.model
            prediction = _same_box(service, image.id, model, mark)
        marks.append(Marked(mark.box, mark.label, mark.verdict, prediction, model))
    return tuple(marks)


def _classes(service: Service) -> set[str]:
    """Classes of all models that are or were served."""
    known = {name for one in service.store.images.models() for name in one.classes}
    return known | {name for one in service.models.values() for name in one.classes}


def _check_labels(service: Service, body: forms.ReadingIn) -> None:
    """Refuse labels that are no class: the audit keeps their names, also after a patient is forgotten."""
    known = {*_classes(service), _NORMAL}
    if any(name not in known for name in body.labels):
        raise HTTPException(422, f"labels: expected names of {', '.join(sorted(known))}")


def _check_models(service: Service, body: forms.ReadingIn) -> None:
    """Refuse hashes of no model: they stay in the audit, too, and what a reader judged must be known."""
    named = {body.model, *(mark.model for mark in body.marks)} - {None}
    if named - {one.model for one in service.store.images.models()}:
        raise HTTPException(422, "model: expected the hash of a model that is or was served")


def _inside(box: forms.Corners, width: int, height: int) -> bool:
    return (
        box[0] >= -_EDGE
        and box[1] >= -_EDGE
        and box[2] <= width + _EDGE
        and box[3] <= height + _EDGE
    )


def _same_box(service: Service, image: str, model: str, mark: forms.MarkIn) -> int | None:
    for one in service.store.images.predictions(image, model):
        corners = (one.x0, one.y0, one.x1, one.y1)
        if one.label == mark.label and all(
            abs(a - b) <= 0.5 for a, b in zip(corners, mark.box, strict=True)
        ):
            return one.position
    return None

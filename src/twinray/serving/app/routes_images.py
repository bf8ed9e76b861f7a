"""Routes of images: taken in, listed, looked at."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from twinray.serving.app import forms
from twinray.serving.app.guard import problem
from twinray.serving.app.service import Service, caller_of, service_of
from twinray.serving.app.showing import display_of, heat_map_of, label_map_of, pixels_of
from twinray.serving.app.telling import at, image_row, image_whole
from twinray.serving.app.uploads import receive_files
from twinray.serving.store.files import Kept
from twinray.serving.store.images import Box, Order
from twinray.serving.store.models import Image

router = APIRouter(tags=["images"])
_NO_NUL = r"^[^\x00]*$"  # PostgreSQL keeps none, and searches for none
ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$")]
ModelHash = Annotated[
    str | None, Query(max_length=64, pattern=_NO_NUL, description="hash; default: the first")
]
_STATES = frozenset({"queued", "running", "done", "failed", "read", "unread", ""})
_PROBLEM: dict[int | str, dict[str, Any]] = {404: {"description": "no such image"}}
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    }
}


@router.post(
    "/api/images",
    status_code=201,
    response_model=forms.Uploaded,
    openapi_extra=_UPLOAD_BODY,
    responses={
        400: {"description": "the body is not whole multipart/form-data"},
        413: {"description": "the body is too large"},
        503: {"description": "the queue is full, or the database away; come again"},
        507: {"description": "the disk is full"},
    },
)
async def add_images(request: Request) -> Any:
    """Take image files. A file that is taken is on the disk, and stays there through a crash; a repeated one is the same image."""
    service, who = service_of(request), caller_of(request).name
    if reason := await run_in_threadpool(_why_not, service):
        raise reason
    added: list[forms.ImageAdded] = []

    def taken(kept: Kept, name: str, kind: str) -> None:
        image, new = service.store.images.add(kept, name, kind, who=who)
        added.append(
            forms.ImageAdded(id=image.id, name=name, state=image.state, known=not new)  # type: ignore[arg-type]
        )
        service.metrics.uploads.labels("new" if new else "known").inc()
        service.wake()

    config = service.config
    try:
        received = await receive_files(
            request,
            service.store.files,
            most_bytes=config.max_file << 20,
            most_files=config.max_files,
            refuse=lambda: _low_disk(service),
            taken=taken,
        )
    except ValueError as error:
        raise HTTPException(415, str(error)) from None
    refused = [forms.FileRefused(name=r.name, reason=r.reason) for r in received.refused]
    service.metrics.uploads.labels("refused").inc(len(refused))
    made = forms.Uploaded(images=added, refused=refused)
    if received.broken:
        return problem(400, received.broken, **made.model_dump())
    if not received.files:
        raise HTTPException(422, "expected at least one field named file, got none")
    return made


def _why_not(service: Service) -> HTTPException | None:
    if service.stopping:
        return HTTPException(503, "the server is stopping", {"retry-after": "10"})
    if low := _low_disk(service):
        return HTTPException(507, low)
    if service.store.images.waiting() >= service.config.max_queue:
        return HTTPException(
            503,
            f"{service.config.max_queue:,} images wait already; come again later",
            {"retry-after": "30"},
        )
    return None


def _low_disk(service: Service) -> str:
    if service.store.files.free_bytes() < service.config.min_free << 20:
        return (
            f"less than {service.config.min_free} MiB are free on the store's disk; free some space"
        )
    return ""


@router.get("/api/images", response_model=forms.Worklist)
def list_images(
    request: Request,
    state: Annotated[str, Query(max_length=100)] = "",
    q: Annotated[str, Query(max_length=200, pattern=_NO_NUL)] = "",
    page: Annotated[int, Query(ge=1, le=10_000_000)] = 1,
    size: Annotated[int, Query(ge=1, le=200)] = 50,
    order: Order = "newest",
    model: ModelHash = None,
) -> Any:
    """A page of the worklist: ``state`` takes several with commas, also ``read`` and ``unread``; ``q`` searches names and ids."""
    asked = forms.WorklistAsked(state=state, q=q, page=page, size=size, order=order, model=model)
    return _worklist(service_of(request), asked)


@router.post("/api/images/search", response_model=forms.Worklist)
def search_images(request: Request, body: forms.WorklistAsked) -> Any:
    """The same with all of it in the body: what is searched for may be a name, and addresses end in logs of proxies."""
    return _worklist(service_of(request), body)


@router.get("/api/images/{id}", response_model=forms.ImageWhole, responses=_PROBLEM)
def one_image(request: Request, id: ImageId, model: ModelHash = None) -> Any:  # noqa: A002
    """An image with the boxes or labels of a model and the newest reading of each reader."""
    service = service_of(request)
    image = image_or_404(service, id)
    chosen = model or service.first.model
    images = service.store.images
    return image_whole(
        service,
        image,
        chosen,
        images.analyses(id),
        images.predictions(id, chosen),
        service.store.readings.of_image(id),
        images.place_in_queue(image),
    )


@router.post(
    "/api/images/{id}/again",
    response_model=forms.ImageRow,
    responses=_PROBLEM | {409: {"description": "it did not fail"}},
)
def queue_again(request: Request, id: ImageId) -> Any:  # noqa: A002
    """Let an image that failed wait for its analysis again."""
    service = service_of(request)
    image_or_404(service, id)
    if not service.store.images.again(id, caller_of(request).name):
        raise HTTPException(409, "expected an image that failed; this one did not")
    service.wake()
    return image_row(image_or_404(service, id))


@router.get("/api/images/{id}/display", response_model=forms.DisplayGiven, responses=_PROBLEM)
def display(request: Request, id: ImageId) -> Any:  # noqa: A002
    """How the values of ``pixels`` are shown at first, and earlier images of the same patient."""
    service = service_of(request)
    image = image_or_404(service, id)
    shown = display_of(service, image)
    priors = [
        forms.Prior(
            id=one.id,
            acquired=one.acquired,
            created=at(one.created),
            view=one.view,
            state=one.state,  # type: ignore[arg-type]
        )
        for one in service.store.images.priors(image)
    ]
    return forms.DisplayGiven(**shown, priors=priors)


@router.get(
    "/api/images/{id}/pixels",
    response_class=Response,
    responses={
        **_PROBLEM,
        200: {
            "description": "unsigned 16-bit values, little-endian, row by row; see display",
            "content": {"application/octet-stream": {}},
        },
    },
)
def pixels(request: Request, id: ImageId) -> Response:  # noqa: A002
    """The image's values, sent once and windowed by the viewer."""
    service = service_of(request)
    image = image_or_404(service, id)
    shown, data = pixels_of(service, image)
    return Response(
        data,
        media_type="application/octet-stream",
        headers={"x-width": str(shown["width"]), "x-height": str(shown["height"])},
    )


@router.get(
    "/api/images/{id}/heat-map",
    response_class=Response,
    responses={
        **_PROBLEM,
        200: {
            "description": "PNG over the whole image, heat as colour and as opacity",
            "content": {"image/png": {}},
        },
    },
)
def heat_map(
    request: Request,
    id: ImageId,  # noqa: A002
    box: Annotated[
        int | None, Query(ge=0, le=100_000, description="place among the model's boxes")
    ] = None,
    label: Annotated[
        int | None, Query(ge=0, le=100_000, description="place among a classifier's classes")
    ] = None,
    model: ModelHash = None,
    method: Literal["ablation", "occlusion", "ablation-rerun"] | None = None,
) -> Response:
    """The heat map of one predicted box, or of one class of a classifier, by its place among the model's."""
    service = service_of(request)
    image = image_or_404(service, id)
    served = service.models.get(model or service.first.model)
    if served is None:
        raise HTTPException(404, "this server does not serve that model")
    methods = service.methods(served)
    chosen = method or methods[0]
    if chosen not in methods:
        raise HTTPException(
            422, f"expected method to be {' or '.join(methods)} for this model, got {chosen}"
        )
    asked_for, other = (box, label) if served.gives_boxes else (label, box)
    if asked_for is None or other is not None:
        wanted = "box, for a detector" if served.gives_boxes else "label, for a classifier"
        raise HTTPException(422, f"expected {wanted}, and not the other of both")
    if label is not None:
        if service.store.images.scores(id, served.model) is None:
            raise HTTPException(404, "the model gave no labels of this image")
        if label >= len(served.classes):
            raise HTTPException(404, f"the model has {len(served.classes)} classes, from 0 on")
        png = label_map_of(service, image, served.model, label, chosen)
        return Response(png, media_type="image/png", headers={"x-method": chosen})
    assert box is not None
    boxes = service.store.images.predictions(id, served.model)
    if box >= len(boxes):
        raise HTTPException(404, f"the model found {len(boxes)} boxes, numbered from 0")
    one = boxes[box]
    asked = Box((one.x0, one.y0, one.x1, one.y1), one.label, one.score)
    png = heat_map_of(service, image, served.model, box, asked, chosen)
    return Response(png, media_type="image/png", headers={"x-method": chosen})


def _worklist(service: Service, asked: forms.WorklistAsked) -> forms.Worklist:
    states = [one.strip() for one in asked.state.split(",")]
    if odd := [one for one in states if one not in _STATES]:
        raise HTTPException(
            422, f"expected state to be of {', '.join(sorted(_STATES - {''}))}, got {odd[0][:40]!r}"
        )
    found = service.store.images.page(
        states=[one for one in states if one],
        q=asked.q.strip(),
        order=asked.order,
        model=None if asked.model in (None, service.first.model) else asked.model,
        page=asked.page,
        size=asked.size,
    )
    return forms.Worklist(
        images=[image_row(image) for image in found.images],
        page=asked.page,
        pages=max(1, math.ceil(found.total / asked.size)),
        size=asked.size,
        total=found.total,
        counts=service.store.images.counts_of(asked.q.strip()),
    )


def image_or_404(service: Service, image: str) -> Image:
    """An image by its id.

    Raises:
        HTTPException: there is none.
    """
    found = service.store.images.get(image)
    if found is None:
        raise HTTPException(404, "there is no such image")
    return found

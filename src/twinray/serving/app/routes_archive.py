"""Routes of the archive: what it is asked for, what is fetched, what goes back.

Numbers of patients and studies come in bodies alone, never in addresses, which proxies and browsers keep.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from twinray.serving.app.routes_images import ImageId, image_or_404
from twinray.serving.app.service import Service, caller_of, service_of
from twinray.serving.app.telling import at
from twinray.serving.archive.client import ArchiveError
from twinray.serving.archive.courier import Courier
from twinray.serving.archive.receiver import RefusedError
from twinray.serving.store.models import Send

router = APIRouter(tags=["archive"])
_NONE: dict[int | str, dict[str, Any]] = {
    404: {"description": "no archive was named, or no such image"},
    502: {"description": "the archive does not answer, or refuses"},
}


class Wanted(BaseModel):
    """What to look for; at least one of these."""

    patient_id: Annotated[str, Field(max_length=64)] = ""
    accession: Annotated[str, Field(max_length=16)] = ""
    study: Annotated[str, Field(max_length=64, pattern=r"^[0-9.]*$")] = ""
    date: Annotated[str, Field(pattern=r"^(\d{8}(-\d{8})?)?$")] = ""


class FoundStudy(BaseModel):
    """A study of the archive: its UID is for fetching, and is kept nowhere here."""

    study: str
    date: str
    modalities: list[str]
    objects: int | None


class FoundStudies(BaseModel):
    """Studies that match."""

    studies: list[FoundStudy]


class ToFetch(BaseModel):
    """A study to fetch."""

    study: Annotated[str, Field(max_length=64, pattern=r"^[0-9][0-9.]*$")]


class Fetched(BaseModel):
    """What came of it."""

    new: int
    failed: int


class ToSend(BaseModel):
    """Whose boxes go: a reader's newest finished reading, or the model's own."""

    reader: Annotated[str, Field(max_length=64)] = ""
    model: Annotated[str, Field(max_length=64)] = ""


class SendGiven(BaseModel):
    """What goes, or went."""

    what: Literal["reading", "model"]
    who: str
    state: str
    tries: int
    reason: str
    created: str
    finished: str | None


class Sends(BaseModel):
    """All that goes, or went, of an image."""

    sends: list[SendGiven]


@router.get("/api/archive")
def archive(request: Request) -> dict[str, Any]:
    """How the link to the archive stands."""
    service = service_of(request)
    courier = service.courier
    if courier is None:
        return {"archive": None}
    settings, state = courier.settings, courier.state
    last = state.last_error_at
    return {
        "archive": None if settings.address is None else settings.address.host,
        "peer": None if settings.peer is None else settings.peer.name,
        "dicom_port": courier.port,
        "title": settings.title,
        "send_back": settings.send_back,
        "objects": [*settings.kinds],
        "can_send": courier.can_send,
        "fetched": state.fetched,
        "received": state.received,
        "results": service.store.exchange.counts(),
        "last_answer": None if state.last_ok is None else at(state.last_ok),
        "last_error": state.last_error if last is None or time.time() - last < 86_400 else "",
    }


@router.post("/api/archive/studies", response_model=FoundStudies, responses=_NONE)
def find(request: Request, body: Wanted) -> Any:
    """Studies of the archive that match."""
    courier = _web(service_of(request))
    wanted = {
        "PatientID": body.patient_id,
        "AccessionNumber": body.accession,
        "StudyInstanceUID": body.study,
        "StudyDate": body.date,
    }
    wanted = {name: value for name, value in wanted.items() if value}
    if not wanted or any(c in value for value in wanted.values() for c in "*?\\"):
        raise HTTPException(
            422, "expected a patient's number, an accession number, a study or a date"
        )
    assert courier.web is not None
    try:
        found = courier.web.studies(most=200, **wanted)
    except ArchiveError as error:
        raise HTTPException(502, str(error)) from None
    return FoundStudies(
        studies=[
            FoundStudy(study=s.uid, date=s.date, modalities=[*s.modalities], objects=s.images)
            for s in found
        ]
    )


@router.post("/api/archive/fetch", response_model=Fetched, status_code=201, responses=_NONE)
def fetch(request: Request, body: ToFetch) -> Any:
    """Fetch the radiographs of a study; they wait in the worklist as all others do."""
    service = service_of(request)
    courier, caller = _web(service), caller_of(request)
    try:
        new, failed = courier.fetch_study(body.study, caller.name)
    except ArchiveError as error:
        raise HTTPException(502, str(error)) from None
    except RefusedError as error:
        raise HTTPException(503, str(error), headers={"retry-after": "60"}) from None
    service.store.audit.add(caller.name, "study fetched", details={"new": new, "failed": failed})
    return Fetched(new=new, failed=failed)


@router.post(
    "/api/images/{id}/send",
    response_model=SendGiven,
    status_code=202,
    responses={
        **_NONE,
        403: {"description": "another reader's name"},
        409: {"description": "nothing to send"},
    },
)
def send(request: Request, id: ImageId, body: ToSend) -> Any:  # noqa: A002
    """Send results of an image to the archive that it came from, because somebody asks for it."""
    service, caller = service_of(request), caller_of(request)
    image = image_or_404(service, id)
    courier = service.courier
    if courier is None or not courier.can_send:
        raise HTTPException(404, "no archive was named that results could go to")
    if image.origin != "archive" or image.kind != "dicom":
        raise HTTPException(409, "the image did not come from the archive: nothing goes there")
    if body.reader and caller.named and body.reader != caller.name:
        raise HTTPException(
            403, "expected the reader who is signed in: the report is signed with the name"
        )
    if not body.reader:
        model = body.model or service.first.model
        done = {one.model for one in service.store.images.analyses(id) if one.state == "done"}
        if model not in service.models or model not in done:
            raise HTTPException(409, "the model has not answered")
        if not service.models[model].gives_boxes:
            raise HTTPException(
                409,
                "the model gives labels and no boxes: a report without a box would read as nothing found",
            )
        return _given(service.store.exchange.queue(id, "", model, caller.name))
    finished = [
        one.reading
        for one in service.store.readings.of_image(id, every=True)
        if one.reading.reader == body.reader and one.reading.finished
    ]
    if not finished:
        raise HTTPException(409, "the reader has not finished the image")
    newest = finished[-1]
    return _given(service.store.exchange.queue(id, newest.id, newest.model or "", caller.name))


@router.get("/api/images/{id}/sends", response_model=Sends)
def sends(request: Request, id: ImageId) -> Any:  # noqa: A002
    """What of an image goes, or went, to the archive."""
    service = service_of(request)
    image_or_404(service, id)
    return Sends(sends=[_given(one) for one in service.store.exchange.sends(id)])


def _web(service: Service) -> Courier:
    if service.courier is None or service.courier.web is None:
        raise HTTPException(404, "no archive was named (--archive)")
    return service.courier


def _given(one: Send) -> SendGiven:
    return SendGiven(
        what="reading" if one.reading else "model",
        who=one.who,
        state=one.state,
        tries=one.attempts,
        reason=one.reason,
        created=at(one.created),
        finished=None if one.finished is None else at(one.finished),
    )

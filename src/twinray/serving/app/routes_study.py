"""Routes of a reader study, which stand in place of those of images and readings.

A reader is told of the case that lies open, and of no other. What the model found is part of an answer in the arm with boxes
alone; in the other arm the server does not read it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response

from twinray.evaluation.readers.crossover import SESSIONS
from twinray.serving.app import forms
from twinray.serving.app.service import Caller, Service, caller_of, service_of
from twinray.serving.app.showing import display_of, heat_map_of, pixels_of
from twinray.serving.app.telling import at
from twinray.serving.readings.design import ARMS, PRACTICE
from twinray.serving.readings.desk import Desk, NotNowError
from twinray.serving.store.images import Box
from twinray.serving.store.models import Image, Slot
from twinray.serving.store.readings import Marked, Said, Verdict, Whole
from twinray.serving.store.studies import ClosedError

router = APIRouter(tags=["reader study"])
_EDGE = 1.0
_MOVED_PX = 0.5
"""Pixels that a corner of a box must differ by before the reader has moved it."""
_TOLD = ("boxes_seconds", "boxes", "heat_maps")
Session = Annotated[int, InPath(ge=PRACTICE, le=SESSIONS[-1])]
Position = Annotated[int, InPath(ge=1, le=1_000_000)]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    403: {"description": "not a reader of this study"},
    409: {"description": "another case lies open, or none"},
}
_ON = "/api/study/cases/{session}/{position}"


@router.get("/api/study", response_model=forms.StudyNow, responses={403: _ANSWERS[403]})
def study(request: Request) -> Any:
    """Where the reader stands: session, cases read, when the next session begins."""
    desk, caller = _desk(request), _reader(request)
    now, file = desk.now(caller.name), desk.design.file
    return forms.StudyNow(
        study=desk.name,
        reader=caller.name,
        state=now.state,
        session=now.session,
        sessions=len(SESSIONS),
        done=now.done,
        planned=now.planned,
        until=None if now.until is None else at(now.until),
        why=now.why,
        classes=[*desk.design.classes],
        highest_rating=file.highest_rating,
        scores=file.scores,
        heat_maps=file.heat_maps,
    )


@router.post("/api/study/next", response_model=forms.StudyCase, responses=_ANSWERS)
def next_case(request: Request) -> Any:
    """Open the next case; one that lies open already is given again, with what was saved of it."""
    desk, caller = _desk(request), _reader(request)
    try:
        slot = desk.open(caller.name)
    except NotNowError:
        raise HTTPException(409, "no case can be read now; see GET /api/study") from None
    image = _image(service_of(request), slot)
    saved = desk.store.studies.newest(slot.number)
    return forms.StudyCase(
        session=slot.session,
        position=slot.position,
        arm=slot.arm,  # type: ignore[arg-type]
        width=image.width or 0,
        height=image.height or 0,
        boxes=[
            forms.PredictedBox(
                box=one.corners,
                **{"class": one.label},
                # ranks are all that is left of scores that are not to be seen
                score=one.score if desk.design.file.scores else 1.0,
            )
            for _, one in desk.shown(slot)
        ],
        draft=None if saved is None else _draft(saved, [place for place, _ in desk.shown(slot)]),
    )


@router.get(f"{_ON}/display", response_model=forms.DisplayGiven, responses=_ANSWERS)
def display(request: Request, session: Session, position: Position) -> Any:
    """How the values of the open case are shown at first; earlier images of the patient are not told of."""
    service = service_of(request)
    shown = display_of(service, _image(service, _open_slot(request, session, position)))
    return forms.DisplayGiven(**shown, priors=[])


@router.get(
    f"{_ON}/pixels",
    response_class=Response,
    responses={
        **_ANSWERS,
        200: {
            "description": "unsigned 16-bit values, little-endian, row by row; see display",
            "content": {"application/octet-stream": {}},
        },
    },
)
def pixels(request: Request, session: Session, position: Position) -> Response:
    """The values of the open case."""
    service = service_of(request)
    shown, data = pixels_of(service, _image(service, _open_slot(request, session, position)))
    return Response(
        data,
        media_type="application/octet-stream",
        headers={"x-width": str(shown["width"]), "x-height": str(shown["height"])},
    )


@router.get(
    f"{_ON}/heat-map",
    response_class=Response,
    responses={
        **_ANSWERS,
        404: {"description": "no such box is shown, or the study shows no heat maps"},
        200: {"description": "PNG over the whole image", "content": {"image/png": {}}},
    },
)
def heat_map(
    request: Request,
    session: Session,
    position: Position,
    box: Annotated[int, Query(ge=0, le=100_000)],
) -> Response:
    """Heat map of one of the boxes that are shown of the open case, where the study lets readers see them."""
    service, desk = service_of(request), _desk(request)
    slot = _open_slot(request, session, position)
    found = desk.shown(slot) if desk.design.file.heat_maps else []
    if box >= len(found):
        raise HTTPException(404, "there is no such heat map in this case")
    served = service.models[desk.design.model]
    png = heat_map_of(service, _image(service, slot), served.model, *found[box], served.methods[0])
    return Response(png, media_type="image/png")


@router.post(
    f"{_ON}/marks",
    status_code=201,
    response_model=forms.StudyNow,
    responses={**_ANSWERS, 422: {"description": "a mark without a rating, or not of this case"}},
)
def save_marks(
    request: Request, session: Session, position: Position, body: forms.StudyReadingIn
) -> Any:
    """Save all that the reader marked until now; with ``finished`` for good: nobody goes back to a case.

    The same ``key`` again is the same save: a client that got no answer repeats it without harm.
    """
    service, desk, caller = service_of(request), _desk(request), _reader(request)
    slot = desk.planned_at(caller.name, session, position)
    if slot is None or (slot.submitted is None and not _lies_open(desk, caller, slot)):
        raise HTTPException(409, "another case lies open; see GET /api/study")
    said = Said(
        image=slot.image,
        reader=caller.name,
        key=f"{slot.number}:{body.key}"[:64],
        marks=_marks(service, desk, slot, body),
        normal=(not body.marks) if body.finished else None,
        text=body.text,
        # boxes below the threshold were never on the screen, and in the other arm none was
        model=desk.design.model if slot.arm == ARMS[1] else None,
        shown={
            # what the page tells, and nothing that a client makes up: texts have their own column
            **{key: body.shown[key] for key in _TOLD if key in body.shown},
            "study": desk.name,
            "session": slot.session,
            "arm": slot.arm,
            "threshold": desk.design.file.threshold if slot.arm == ARMS[1] else None,
        },
        seconds=body.seconds,
        finished=body.finished,
    )
    try:
        _, new = desk.save(slot, said, caller.name)
    except ClosedError:
        raise HTTPException(409, "this case was submitted, which is final") from None
    except KeyError:
        raise HTTPException(409, "this case was taken out of the store") from None
    if new and body.finished:
        service.metrics.marks.inc()
    return study(request)


@router.get(
    "/api/study/progress",
    response_model=list[forms.StudyProgress],
    responses={403: {"description": "not an admin"}},
)
def progress(request: Request) -> Any:
    """How far each reader is, for who runs the study: counts and times, no marks."""
    desk = _desk(request)
    if caller_of(request).role != "admin":
        raise HTTPException(403, "expected the token or an admin")
    return [
        forms.StudyProgress(
            reader=one.reader,
            session=one.session,
            submitted=one.submitted,
            planned=one.planned,
            last=None if one.last is None else at(one.last),
        )
        for one in desk.store.studies.progress(desk.name)
    ]


def _desk(request: Request) -> Desk:
    desk = service_of(request).desk
    assert desk is not None  # these routes are those of a study
    return desk


def _reader(request: Request) -> Caller:
    caller = caller_of(request)
    if not caller.named or not _desk(request).reads(caller.name):
        raise HTTPException(403, "expected a reader of this study; sign in as one of them")
    return caller


def _open_slot(request: Request, session: int, position: int) -> Slot:
    try:
        return _desk(request).at(_reader(request).name, session, position)
    except NotNowError:
        raise HTTPException(409, "another case lies open; see GET /api/study") from None


def _lies_open(desk: Desk, caller: Caller, slot: Slot) -> bool:
    try:
        return desk.at(caller.name, slot.session, slot.position).number == slot.number
    except NotNowError:
        return False


def _image(service: Service, slot: Slot) -> Image:
    found = service.store.images.get(slot.image)
    if found is None:
        raise HTTPException(409, "this case was taken out of the store")
    return found


def _marks(
    service: Service, desk: Desk, slot: Slot, body: forms.StudyReadingIn
) -> tuple[Marked, ...]:
    image, shown = _image(service, slot), desk.shown(slot)
    width, height = image.width or 0, image.height or 0
    made = []
    for number, mark in enumerate(body.marks):
        where = f"marks[{number}]"
        if mark.label not in desk.design.classes:
            raise HTTPException(
                422,
                f"{where}: expected class to be one of {', '.join(desk.design.classes)}, got {mark.label[:60]!r}",
            )
        x0, y0, x1, y1 = mark.box
        if x0 < -_EDGE or y0 < -_EDGE or x1 > width + _EDGE or y1 > height + _EDGE:
            raise HTTPException(422, f"{where}: expected a box in an image of {width} x {height}")
        highest = desk.design.file.highest_rating
        if body.finished and mark.rating is None:
            raise HTTPException(422, f"{where}: expected a rating of 1 to {highest} for every mark")
        if mark.rating is not None and mark.rating > highest:
            raise HTTPException(422, f"{where}: expected a rating of 1 to {highest}, got {mark.rating}")  # fmt: skip
        if mark.prediction is not None and mark.prediction >= len(shown):
            raise HTTPException(422, f"{where}: no box of that number is shown in this case")
        place, box = (None, None) if mark.prediction is None else shown[mark.prediction]
        made.append(
            Marked(
                mark.box,
                mark.label,
                _verdict(mark, box),
                place,
                None if place is None else desk.design.model,
                None if mark.rating is None else float(mark.rating),
            )
        )
    return tuple(made)


def _verdict(mark: forms.StudyMarkIn, shown: Box | None) -> Verdict:
    if shown is None:
        return "added"
    same = shown.label == mark.label and all(
        abs(a - b) <= _MOVED_PX for a, b in zip(shown.corners, mark.box, strict=True)
    )
    return "accepted" if same else "moved"


def _draft(saved: Whole, places: list[int]) -> forms.StudyDraft:
    """What was saved, with boxes numbered as the reader sees them."""
    return forms.StudyDraft(
        marks=[
            forms.StudyMark(
                box=(one.x0, one.y0, one.x1, one.y1),
                label=one.label,
                rating=None if one.rating is None else int(one.rating),
                prediction=places.index(one.prediction) if one.prediction in places else None,
            )
            for one in saved.marks
        ],
        text=saved.reading.text,
        seconds=saved.reading.seconds,
    )

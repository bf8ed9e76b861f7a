"""Routes of the server itself: life, readiness, metrics, models, sign-in."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from twinray.errors import TwinrayError
from twinray.runs.beside import Beside, read_beside
from twinray.serving.app import forms
from twinray.serving.app.guard import COOKIE
from twinray.serving.app.service import Service, caller_of, service_of
from twinray.serving.app.telling import at
from twinray.serving.log import error_facts, log
from twinray.serving.store.people import Signed

router = APIRouter(tags=["server"])
models_router = APIRouter(tags=["server"])
"""What is told of models, which a reader study keeps to itself."""
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@router.get("/health", response_model=forms.Health)
def health(request: Request) -> Any:
    """Whether the server lives; open to all, and says nothing else."""
    return forms.Health(status="ok", ready=_readiness(service_of(request)).ready)


@router.get("/ready", response_model=forms.Readiness, responses={503: {"model": forms.Readiness}})
def ready(request: Request) -> Any:
    """Whether the server can work: 200 or 503, and what is missing."""
    found = _readiness(service_of(request))
    return JSONResponse(found.model_dump(), 200 if found.ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
)
def metrics(request: Request) -> Response:
    """Figures for Prometheus; in a reader study not for readers."""
    service = service_of(request)
    if service.desk is not None and caller_of(request).role != "admin":
        raise HTTPException(403, "expected the token or an admin: figures are not for readers")
    return Response(
        service.metrics.text(service.store, service.crew), media_type=CONTENT_TYPE_LATEST
    )


@models_router.get("/api/models")
def models(request: Request) -> dict[str, Any]:
    """The models that are served, with what a score of each means on its validation images.

    ``compared_with``: hash of the model that a retrained one was trained from, where a page compares both.
    """
    service = service_of(request)
    compared = {
        one.model: one.from_model for one in _beside(service) if Path(one.comparison).is_file()
    }
    return {
        "models": [
            {
                **one.about,
                "heat_maps": [*service.methods(one)],
                "compared_with": compared.get(one.model),
            }
            for one in service.models.values()
        ]
    }


@models_router.get(
    "/api/models/{model}/{file}",
    response_class=FileResponse,
    responses={404: {"description": "no page compares this model"}},
)
def comparison(
    request: Request,
    model: Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")],
    file: Literal["comparison", "metrics.csv"],
) -> FileResponse:
    """The page that compares a retrained model with the one before on the same test patients, and its figures as CSV."""
    found = [Path(one.comparison) for one in _beside(service_of(request)) if one.model == model]
    page = found and (found[0] if file == "comparison" else found[0].with_name(file))
    if not page or not page.is_file():
        raise HTTPException(404, "no page compares this model; twinray retrain makes one")
    if file != "comparison":
        return FileResponse(page, media_type="text/csv", filename=file)
    # the page is one file without script; what it brings itself is shown, and nothing else
    return FileResponse(
        page, media_type="text/html", headers={"content-security-policy": _REPORT_POLICY}
    )


@router.post(
    "/api/session",
    status_code=201,
    response_model=forms.SessionGiven,
    responses={401: {"description": "wrong token, name or password"}},
)
def sign_in(request: Request, response: Response, body: forms.SessionIn) -> Any:
    """Sign in by the token or as a user: a new session, its cookie, and the word that changes must carry."""
    service = service_of(request)
    who = _checked(service, body)
    if who is None:
        raise HTTPException(401, "expected the token, or a user's name and password")
    old = request.cookies.get(COOKIE)
    if old:  # never go on with a session that somebody may have planted
        service.store.people.sign_out(old)
    hours = service.config.session_hours
    signed = service.store.people.sign_in(who[0], who[1], hours)  # type: ignore[arg-type]
    response.set_cookie(
        COOKIE,
        signed.secret,
        max_age=int(3600 * hours),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return _session(service, signed)


@router.get("/api/session", response_model=forms.SessionGiven)
def session(request: Request) -> Any:
    """Who is signed in."""
    service, caller = service_of(request), caller_of(request)
    cookie = request.cookies.get(COOKIE)
    signed = service.store.people.signed_in(cookie) if cookie else None
    if signed is not None and request.state.csrf is not None:
        return _session(service, signed)
    return forms.SessionGiven(
        who=caller.name,
        role=caller.role,
        named=caller.named,
        needed=service.closed(),
        csrf=None,
        expires=None,
    )


@router.delete("/api/session", status_code=204)
def sign_out(request: Request, response: Response) -> None:
    """Sign out: the session ends here, not only in the browser."""
    cookie = request.cookies.get(COOKIE)
    if cookie:
        service_of(request).store.people.sign_out(cookie)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def _beside(service: Service) -> tuple[Beside, ...]:
    """Models beside; none where their list was damaged while the server ran (it is edited by hand)."""
    try:
        return read_beside(service.store.files.folder)
    except TwinrayError as error:
        log("list of models beside is damaged", **error_facts(error))
        return ()


def _checked(service: Service, body: forms.SessionIn) -> tuple[str, str] | None:
    """Name and role of who gave the right secret; None of anybody else."""
    if body.token is not None:
        right = bool(service.token) and hmac.compare_digest(
            body.token.encode(), service.token.encode()
        )
        return ("token", "admin") if right else None
    if body.user is None or body.password is None:
        return None
    role = service.store.people.check(body.user, body.password)
    return None if role is None else (body.user, role)


def _session(service: Service, signed: Signed) -> forms.SessionGiven:
    return forms.SessionGiven(
        who=signed.who,
        role=signed.role,
        named=signed.who != "token",
        needed=service.closed(),
        csrf=signed.csrf,
        expires=at(signed.expires),
    )


def _readiness(service: Service) -> forms.Readiness:
    try:
        waiting: int | None = service.store.images.waiting()
    except TwinrayError:
        waiting = None
    free = service.store.files.free_bytes()
    takes = free >= service.config.min_free << 20 and not service.stopping
    crew = service.crew
    at_work = crew is None or crew.ready
    why = [
        *(["the database does not answer"] if waiting is None else []),
        *([crew.why or "models are being loaded"] if crew is not None and not at_work else []),
        *(["the server is stopping"] if service.stopping else []),
    ]
    return forms.Readiness(
        ready=not why,
        database=waiting is not None,
        workers={} if crew is None else crew.alive,
        disk_free_bytes=free,
        takes_images=takes and waiting is not None and waiting < service.config.max_queue,
        waiting=waiting,
        why="; ".join(why),
    )

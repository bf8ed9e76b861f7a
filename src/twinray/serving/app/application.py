"""The app: routes behind the guard, and the processes of work that live and end with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, Response

from twinray.about import DISCLAIMER, own_version
from twinray.errors import InputError
from twinray.runs.beside import read_beside
from twinray.serving import web
from twinray.serving.app import (
    routes_archive,
    routes_images,
    routes_readings,
    routes_server,
    routes_study,
)
from twinray.serving.app.guard import Guard, problem
from twinray.serving.app.link import open_link
from twinray.serving.app.metrics import Metrics
from twinray.serving.app.runs import Served, read_runs
from twinray.serving.app.service import Service
from twinray.serving.config import ServeConfig
from twinray.serving.log import log
from twinray.serving.readings.design import opened
from twinray.serving.readings.desk import Desk
from twinray.serving.store.store import Store, open_store
from twinray.serving.work.cache import Cache
from twinray.serving.work.crew import Crew
from twinray.serving.work.job import Job

TOKEN = "TWINRAY_TOKEN"
_WEB = Path(web.__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


def create_app(config: ServeConfig, *, token: str | None = None, work: bool = True) -> FastAPI:
    """The app of some options, its store open.

    Args:
        config: options of ``twinray serve``.
        token: secret that requests must carry; None for that of ``TWINRAY_TOKEN``, empty for none.
        work: flag to start the processes that analyse and show.

    Raises:
        InputError: runs, store or token that cannot be used.
        TwinrayError: the store cannot be made.
    """
    service = open_service(config, token=token, work=work)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service.crew is not None:
            service.crew.start()
        if service.courier is not None and work:
            await run_in_threadpool(service.courier.start)
        try:
            yield
        finally:
            service.stopping = True
            if service.courier is not None and work:
                await run_in_threadpool(service.courier.stop)
            if service.crew is not None:
                await run_in_threadpool(service.crew.stop)
            service.store.close()
            log("stopped")

    app = FastAPI(
        title="twinray",
        version=own_version(),
        summary=f"{DISCLAIMER}.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.service = service
    if service.desk is None:
        routers = [one.router for one in (routes_images, routes_readings, routes_archive)]
        routers.append(routes_server.models_router)
    else:  # nothing else of the store can be asked for: what is not there cannot leak
        routers = [routes_study.router]
    for router in (*routers, routes_server.router):
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    first = "index.html" if service.desk is None else "study.html"
    app.add_api_route("/", lambda: _page(first), methods=["GET"], include_in_schema=False)
    app.add_api_route("/web/{name:path}", _page, methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, service=service)
    return app


def open_service(config: ServeConfig, *, token: str | None = None, work: bool = True) -> Service:
    """Store, models and processes of some options; see :func:`create_app`."""
    token = os.environ.get(TOKEN, "") if token is None else token
    if token and len(token) < 16:
        raise InputError(
            f"expected {TOKEN} to be 16 characters or more, got {len(token)}; "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    read_runs(config.runs, allow_edited=config.allow_edited)  # before a store is made
    store = open_store(config.store, config.files, lock=True)
    config = _with_beside(config, store.files.folder)
    served = read_runs(config.runs, allow_edited=config.allow_edited)
    store.clean()
    store.files.key()
    desk = _desk(config, store, served[0])
    store.images.release("")  # a server that was killed had them; this one holds the folder now
    waiting = store.images.serve(
        [(one.model, one.name, one.classes) for one in served],
        {one.model for one in served if not one.gives_boxes},
    )
    log("store opened", waiting=waiting, models=len(served))
    crew = Crew(store, _job(config, store.files.folder), config.workers) if work else None
    service = Service(
        config,
        store,
        {one.model: one for one in served},
        crew,
        Cache(store.files, config.max_cache),
        Metrics(),
        token,
    )
    service.desk = desk
    service.courier = open_link(config, store, served, service.wake)
    return service


def _desk(config: ServeConfig, store: Store, first: Served) -> Desk | None:
    """The reader study that is served; a store whose study goes on is served as nothing else."""
    if config.study is not None:
        if not first.gives_boxes:
            raise InputError(
                f"expected a detect run first with --study, {first.run} is a classifier; readers of a study are shown boxes"
            )
        return Desk(store, opened(config.study, store, first.model, first.classes))
    if going_on := store.studies.open_ones():
        name, (done, planned) = next(iter(going_on.items()))
        raise InputError(
            f"the store holds the reader study {name}, in which {done:,} of {planned:,} cases were read, and its readers must not see "
            f"boxes elsewhere; serve it with --study, or end it: twinray store end-study --name {name}"
        )
    return None


def _with_beside(config: ServeConfig, folder: Path) -> ServeConfig:
    """The options with the runs that retraining put beside; those that are gone are told and left out."""
    named = {run.resolve() for run in config.runs}
    beside = [Path(one.run) for one in read_beside(folder) if Path(one.run).resolve() not in named]
    there = [run for run in beside if (run / "model.safetensors").is_file()]
    if len(there) < len(beside):
        log("models beside are gone", missing=len(beside) - len(there))
    return replace(config, runs=(*config.runs, *there))


def _job(config: ServeConfig, folder: Path) -> Job:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Job(
        name="",
        role="analyse",
        store=config.store,
        folder=str(folder),
        runs=tuple(str(run) for run in config.runs),
        device=config.device,
        timeout=config.timeout,
        memory=config.memory,
        depth=config.depth,
        value_range=config.value_range,
        max_cache=config.max_cache,
        allow_edited=config.allow_edited,
        log=str(config.log) if config.log else "",
        threads=max(1, (cores or 1) // config.workers),
    )


async def _invalid(_: Request, error: Exception) -> Response:
    """What of a request is not as expected; what came is not repeated, it may be a name or a text of a reader."""
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in one['loc'])[:100]}: {one['msg']}"
        for one in error.errors()[:5]
    ]
    return problem(422, "; ".join(found))


def _page(name: str = "index.html") -> Response:
    """A file of the page; nothing outside of its folder."""
    if "\0" in name:
        raise HTTPException(404, "there is no such page")
    path = (_WEB / name).resolve()
    kind = _TYPES.get(path.suffix)
    if kind is None or not path.is_relative_to(_WEB) or not path.is_file():
        raise HTTPException(404, "there is no such page")
    fresh = {"cache-control": "no-cache"}
    if path.suffix == ".html":  # the pages share one set of icons
        icons = (_WEB / "icons.html").read_text(encoding="utf-8")
        text = path.read_text(encoding="utf-8").replace("<!-- icons.html -->\n", icons)
        return HTMLResponse(text, headers=fresh)
    return FileResponse(path, media_type=kind, headers=fresh)

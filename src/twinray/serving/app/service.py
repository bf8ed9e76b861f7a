"""What all routes share: the store, the models that are served, the processes of work, the rules of this server."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from fastapi import Request

from twinray.serving.app.metrics import Metrics
from twinray.serving.app.runs import Served
from twinray.serving.archive.courier import Courier
from twinray.serving.config import ServeConfig
from twinray.serving.readings.desk import Desk
from twinray.serving.store.store import Store
from twinray.serving.work.cache import Cache
from twinray.serving.work.crew import Crew

_USERS_S = 5.0


@dataclass(eq=False)
class Service:
    """One server.

    Attributes:
        config: options. store: store. models: hash -> model, the one shown first leading.
        crew: processes of work; None where none are wanted (tests). cache: pixels and heat maps.
        metrics: counters. token: secret of ``TWINRAY_TOKEN``; empty where there is none. stopping: flag, true at the end.
        courier: link to an archive; None where none was named.
        desk: reader study that is served, in place of worklist and viewer; None where none is.
    """

    config: ServeConfig
    store: Store
    models: dict[str, Served]
    crew: Crew | None
    cache: Cache
    metrics: Metrics
    token: str = ""
    stopping: bool = False
    courier: Courier | None = None
    desk: Desk | None = None
    _has_users: tuple[float, bool] = (0.0, False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def first(self) -> Served:
        """The model that is shown unless another is chosen."""
        return next(iter(self.models.values()))

    def methods(self, served: Served) -> tuple[str, ...]:
        """Heat maps of a model; of a classifier those that its network has a use for, once a process has loaded it."""
        known = {} if self.crew is None else self.crew.methods
        return known.get(served.model, served.methods)

    def closed(self) -> bool:
        """Whether requests need a token or a session: one is set, or the store has users."""
        if self.token:
            return True
        asked, known = self._has_users
        if known or time.monotonic() - asked < _USERS_S:
            return known
        with self._lock:
            known = bool(self.store.people.all())
            self._has_users = (time.monotonic(), known)
        return known

    def wake(self) -> None:
        """Tell the processes that an image waits."""
        if self.crew is not None:
            self.crew.wake()


@dataclass(frozen=True)
class Caller:
    """Who makes a request.

    Attributes:
        name: name of the user; ``token`` by the token, ``local`` where nothing is asked for.
        role: ``reader`` or ``admin``. named: flag, true of a user, who reads under no other name.
    """

    name: str
    role: str
    named: bool


def service_of(request: Request) -> Service:
    """The server that a request came to."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Caller:
    """Who made a request; the guard has let it in."""
    caller: Caller = request.state.caller
    return caller

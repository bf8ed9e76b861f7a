"""What stands before every route: whose request it is, from where, how large and how often. What is not let in is refused.

- The host must be one that this server is called by, so that a foreign name that leads here is no way in (DNS rebinding).
- Requests that a foreign page made are refused, by the browser's own ``Origin`` and ``Sec-Fetch-Site``.
- Routes of the API need a token or a session where there is one to need; changes by a cookie need the session's word too.
- Addresses have a rate, bodies a size and a speed.

Answers carry a strict Content-Security-Policy and are kept by no cache. One line of the log tells route, status and time, and
neither address, name nor query.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import Any, final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twinray.errors import TwinrayError
from twinray.serving.app.service import Caller, Service
from twinray.serving.log import error_facts, log
from twinray.serving.store.database import FullError, UnavailableError

COOKIE, CSRF_HEADER = "twinray_session", "x-csrf-token"
OPEN_ROUTES = frozenset({("GET", "/health"), ("HEAD", "/health"), ("POST", "/api/session")})
"""Routes that answer without a token: life, and the way to sign in."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_COMMON_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_API = ("/api/", "/openapi.json", "/metrics", "/ready")
_SMALL_BODY = 4 << 20
_UPLOAD = "/api/images"
_SLOWEST = 16 << 10
"""Bytes a second that a body has at least, after a grace."""
_GRACE_S = 30.0
_LEFT = 499
"""Status in log and metrics of a request whose client left before it was answered."""
_MOST_ADDRESSES = 10_000
_SIGN_IN_RATE = (0.2, 10.0)  # attempts a second on average, and in a burst


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """An error as ``{"detail": ...}``: one line that says what was expected, and what to do."""
    body = json.dumps({"detail": detail, **more}).encode()
    return Response(body, status, dict(headers or {}), "application/json")


@final
class Refusal(HTTPException):
    """A request that is not let in; inside a route it is answered as any other error of HTTP."""

    def __init__(
        self, status: int, why: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.why = why


@final
class Rates:
    """A bucket of allowances an address; it fills with time (token bucket)."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Take one allowance; seconds to wait where there is none, else 0."""
        now = time.monotonic()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._left[address] = (max(left - 1, 0.0) if left >= 1 else left, now)
        while len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate


@final
class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        config = service.config
        self._names = {
            name.lower()
            for name in (
                "localhost",
                config.host,
                *config.names,
                *(
                    (socket.gethostname(), socket.getfqdn())
                    if not _is_loopback(config.host)
                    else ()
                ),
            )
        }
        self._rates = Rates(config.rate, 10 * config.rate)
        self._lives = Rates(config.rate, 10 * config.rate)
        self._sign_ins = Rates(*_SIGN_IN_RATE)
        self._most_upload = (config.max_file << 20) * min(config.max_files, 16) + (1 << 20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        began = time.monotonic()
        own_id = secrets.token_hex(6)
        status = {"code": 0}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                status["code"] = message["status"]
                _add_headers(message, scope["path"], own_id)
            await send(message)

        why = ""
        try:
            await self._let_in(scope)
            await self._app(scope, self._limited(scope, receive), answer)
        except Refusal as refusal:
            why = refusal.why
            if not status["code"]:
                await problem(refusal.status_code, refusal.detail, refusal.headers)(
                    scope, receive, answer
                )
        except (UnavailableError, FullError) as error:
            why = type(error).__name__
            if not status["code"]:
                await problem(*_translated(error))(scope, receive, answer)
        except (
            ClientDisconnect
        ):  # in the middle of its body: nobody is left to be answered, and no fault is here
            why, status["code"] = "client left", status["code"] or _LEFT
        except Exception as error:
            log("fault", request=own_id, **error_facts(error))
            if not status["code"]:
                await problem(500, f"unforeseen; the log tells more of request {own_id}")(
                    scope, receive, answer
                )
        finally:
            self._told(scope, status["code"], time.monotonic() - began, own_id, why)

    # --- who, from where, how often -----------------------------------------------------------------------------------

    async def _let_in(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        method, path = scope["method"], scope["path"]
        self._check_host(headers)
        _check_origin(headers, method, path)
        client = scope.get("client") or ("", 0)
        is_api = path.startswith(_API)
        # the question whether it lives asks the database, and has a rate of its own: others cannot make the answer fail
        rates = self._rates if is_api else self._lives if path == "/health" else None
        if rates is not None and (wait := rates.wait(client[0])):
            raise Refusal(
                429,
                "rate",
                "too many requests from this address; slow down",
                {"retry-after": str(max(1, round(wait)))},
            )
        if (method, path) == ("POST", "/api/session") and (wait := self._sign_ins.wait(client[0])):
            raise Refusal(
                429,
                "sign-in rate",
                "too many attempts to sign in; wait",
                {"retry-after": str(max(1, round(wait)))},
            )
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        # the page itself asks no database, so that it can say that the database is away
        caller, csrf = await run_in_threadpool(self._caller, headers) if is_api else (None, None)
        if caller is None and is_api and (method, path) not in OPEN_ROUTES:
            raise Refusal(
                401,
                "no token",
                "sign in, or send the token as Authorization: Bearer",
                {"www-authenticate": "Bearer"},
            )
        if csrf is not None and method not in _SAFE and (method, path) != ("POST", "/api/session"):
            sent = headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(sent.encode(), csrf.encode()):
                raise Refusal(403, "csrf", "changes need the session's word in X-CSRF-Token")
        state["caller"] = caller
        state["csrf"] = csrf

    def _caller(self, headers: Headers) -> tuple[Caller | None, str | None]:
        """Who it is, None for nobody, and the word that changes must carry where a cookie says who."""
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        token = self._service.token
        if scheme.lower() == "bearer":
            if token and hmac.compare_digest(sent.strip().encode(), token.encode()):
                return Caller("token", "admin", named=False), None
            return (None, None) if self._service.closed() else (_LOCAL, None)
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if cookie:
            signed = self._service.store.people.signed_in(cookie)
            if signed is not None:
                return Caller(signed.who, signed.role, named=signed.who != "token"), signed.csrf
        return (None, None) if self._service.closed() else (_LOCAL, None)

    def _check_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        host = _host_of(given[0]) if len(given) == 1 else ""
        if not host or not (host in self._names or _is_address(host)):
            raise Refusal(
                421, "host", "this server is not called by that name; see twinray serve --names"
            )

    # --- how large, how fast ------------------------------------------------------------------------------------------

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """The body with a limit on its size, and on how slowly it may come."""
        upload = scope["method"] == "POST" and scope["path"] == _UPLOAD
        most = self._most_upload if upload else _SMALL_BODY
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise Refusal(
                413,
                "size",
                f"a body of at most {most >> 20} MiB, got {int(declared) >> 20} MiB; send less at once",
                {"connection": "close"},
            )
        began, size = time.monotonic(), 0

        async def limited() -> Message:
            nonlocal size
            left = _GRACE_S + size / _SLOWEST - (time.monotonic() - began)
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.01))
            except TimeoutError:
                raise Refusal(
                    408, "slow", "the body came too slowly; send it again", {"connection": "close"}
                ) from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:
                    raise Refusal(
                        413,
                        "size",
                        f"a body of at most {most >> 20} MiB, got more; send less at once",
                        {"connection": "close"},
                    )
            return message

        ended = False

        async def whole() -> Message:
            nonlocal ended
            if ended:  # what comes after the body is the client's leaving, which may take its time
                return await receive()
            message = await limited()
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return whole

    def _told(self, scope: Scope, status: int, seconds: float, own_id: str, why: str) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        metrics = self._service.metrics
        method = scope["method"] if scope["method"] in (*_SAFE, "POST", "DELETE") else "other"
        metrics.requests.labels(route, method, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if why:
            metrics.refused.labels(why).inc()
        facts = {"refused": why} if why else {}
        log(
            "request",
            request=own_id,
            method=method,
            route=route,
            status=status,
            ms=round(1000 * seconds, 1),
            **facts,
        )


_LOCAL = Caller("local", "admin", named=False)


def _translated(error: TwinrayError) -> tuple[int, str, dict[str, str]]:
    if isinstance(error, FullError):
        return 507, str(error), {}
    return 503, str(error), {"retry-after": "2"}


def _add_headers(message: Message, path: str, own_id: str) -> None:
    api = path.startswith((*_API, "/health"))
    own = {
        **_COMMON_HEADERS,
        "content-security-policy": API_POLICY if api else PAGE_POLICY,
        "x-request-id": own_id,
        **({"cache-control": "no-store"} if api else {}),
    }
    present = {name.lower() for name, _ in message.get("headers", ())}
    message["headers"] = [
        *(h for h in message.get("headers", ()) if h[0].lower() != b"server"),
        *(
            (name.encode(), value.encode())
            for name, value in own.items()
            if name.encode() not in present
        ),
    ]


def _check_origin(headers: Headers, method: str, path: str) -> None:
    """Refuse what a foreign page asked a browser to send."""
    foreign = Refusal(403, "origin", "requests of other pages are refused")
    site = headers.get("sec-fetch-site", "")
    if site in ("cross-site", "same-site"):
        # following a link to the page itself is no harm; it is empty until the reader signs in
        walked_in = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")
        if path.startswith("/api/") or not walked_in:
            raise foreign
    origin = headers.get("origin")
    if origin is not None:
        _, _, rest = origin.partition("://")
        if not rest or rest.lower() != headers.get("host", "").lower():
            raise foreign


def _host_of(value: str) -> str:
    """The name or address in a Host header, without port; empty where it is none."""
    value = value.strip().lower()
    if value.startswith("["):
        inner, _, port = value[1:].partition("]")
        return inner if not port or (port[0] == ":" and port[1:].isdecimal()) else ""
    name, colon, port = value.partition(":")
    return name.rstrip(".") if not colon or port.isdecimal() else ""


def _is_address(host: str) -> bool:
    """Whether a host is an address: no name of somebody else's can be made to lead here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)

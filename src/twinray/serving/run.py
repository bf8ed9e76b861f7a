"""``twinray serve``: the app behind uvicorn, until a signal asks it to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from twinray.about import DISCLAIMER
from twinray.errors import InputError
from twinray.files import folders_freed
from twinray.serving.config import ServeConfig
from twinray.serving.log import log, log_to


def run(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; requests that are under way are answered, images at work finished or put back.

    Raises:
        InputError: options, runs or a store that cannot be used; an open address without token or users; a port that is
            taken; or the extra ``serve`` is not installed.
        TwinrayError: the store cannot be made.
    """
    try:
        import uvicorn

        from twinray.serving.app.application import TOKEN, create_app
        from twinray.serving.app.protocol import PromptProtocol
    except ImportError as error:
        raise InputError(
            f"twinray serve needs packages that are not installed ({error.name}); pip install 'twinray[serve]'"
        ) from error
    log_to(config.log)
    _quiet_libraries()
    with folders_freed():
        bound = _bound(config.host, config.port)
        app = create_app(config)
        service = app.state.service
        if not service.closed() and not _is_loopback(config.host):
            raise InputError(
                f"expected a token in {TOKEN}, or users in the store, to listen at {config.host}; without them only this machine's "
                "own address 127.0.0.1 is served"
            )
        port = bound.getsockname()[1]
        shown = f"[{config.host}]" if ":" in config.host else config.host
        scheme = "https" if config.certificate else "http"
        print(
            f"twinray serves at {scheme}://{shown}:{port} ({DISCLAIMER.lower()}); Ctrl-C stops it"
        )
        if not config.certificate and not config.names and not _is_loopback(config.host):
            print(
                "WARNING: not encrypted: whoever listens to the network can read images and the token; give --certificate, or put a "
                "proxy with TLS in front and name it by --names"
            )
        sys.stdout.flush()
        log("listening", port=port, closed=service.closed(), workers=config.workers)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=bool(config.names),
                ws="none",
                lifespan="on",
                backlog=512,
                limit_concurrency=1000,
                timeout_keep_alive=20,
                timeout_graceful_shutdown=30,
                h11_max_incomplete_event_size=32 << 10,
                http=PromptProtocol,
                ssl_certfile=None if config.certificate is None else str(config.certificate),
                ssl_keyfile=None if config.certificate_key is None else str(config.certificate_key),
            )
        )
        with _asked_to_stop():
            server.run(sockets=[bound])


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[None]:
    """A signal that asked for the stop ends with it: uvicorn raises it once more when all is done, which is no failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *_: None) for one in asked}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is opened that a taken port would make useless."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(512)  # whoever reads the address may connect at once
    except OSError as error:
        raise InputError(
            f"could not listen at {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error
    os.set_inheritable(bound.fileno(), False)
    return bound


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _NamesOnly(logging.Handler):
    """What libraries log, without their words: these may hold what a request or a file holds."""

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"logger": record.name, "level": record.levelname}
        log("library", **facts, where=f"{record.module}:{record.lineno}")


def _quiet_libraries() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_NamesOnly(logging.WARNING)]

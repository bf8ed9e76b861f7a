"""The real server in processes of its own: started by the command line, killed, stopped, starved and talked to slowly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from serving_support import png
from twinray.serving.store.store import open_store


class Server:
    """``twinray serve`` at a free port."""

    def __init__(self, run: Path, store: Path, *options: object, **environment: str) -> None:
        command = [sys.executable, "-m", "twinray.cli", "serve", run, "--store", store, "--port", 0, "--log", store.parent / "log", "--min-free", 1, *options]  # fmt: skip
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        line = self.process.stdout.readline()
        assert "serves at http://127.0.0.1:" in line, line + self.process.stderr.read()
        self.port = int(line.split("127.0.0.1:")[1].split()[0])

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes, kind: str):
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"content-type": kind}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 201
            return json.load(answer)

    def upload(self, name: str, data: bytes) -> str:
        head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--b--\r\n"
        answer = self.post("/api/images", body, "multipart/form-data; boundary=b")
        return answer["images"][0]["id"]

    def mark(self, image: str, key: str) -> None:
        body = json.dumps({"reader": "anna", "key": key}).encode()
        self.post(f"/api/images/{image}/marks", body, "application/json")

    def until_done(self, images: list[str], limit: float = 120) -> list[dict]:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            rows = [self.get(f"/api/images/{image}") for image in images]
            if all(row["state"] in ("done", "failed") for row in rows):
                return rows
            time.sleep(0.3)
        raise AssertionError(rows)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.fixture
def serve(detect_run, tmp_path):
    started = []

    def start(*options, **environment) -> Server:
        started.append(Server(detect_run, tmp_path / "store", *options, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


def workers(tmp_path) -> list[int]:
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return [line["pid"] for line in lines if line["event"] == "worker ready"]


def test_a_killed_server_loses_nothing_and_a_stopped_one_puts_back_its_work(serve, tmp_path):
    first = serve()
    images = [first.upload(f"{i}.png", png(i)) for i in range(4)]
    first.mark(images[0], "k")
    first.kill()  # before any model was loaded
    second = serve()
    assert {row["state"] for row in second.until_done(images)} == {"done"}
    second.mark(images[0], "k")
    assert len(second.get(f"/api/images/{images[0]}/readings?every=true")) == 1
    assert second.upload("again.png", png(0)) == images[0]
    assert second.get("/api/images")["total"] == 4
    for pid in workers(tmp_path)[-2:]:
        os.kill(pid, signal.SIGKILL)  # both processes of work
    later = second.upload("later.png", png(9))
    (row,) = second.until_done([later])
    assert row["state"] == "done"
    heat = f"http://127.0.0.1:{second.port}/api/images/{later}/heat-map?box=0"
    status, body = fetch(heat)
    for _ in range(100):  # the process that shows was killed too
        if status != 503:
            break
        time.sleep(0.3)
        status, body = fetch(heat)
    assert (status, body[:8]) == (200, b"\x89PNG\r\n\x1a\n")
    started = time.monotonic()
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0
    assert time.monotonic() - started < 40
    out, err = second.process.communicate()
    assert (out, err) == ("", "")
    store = open_store(tmp_path / "store")
    assert store.images.counts()["running"] == 0
    store.close()
    for pid in workers(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert '"stopped"' in (tmp_path / "log").read_text()


def test_a_head_that_comes_drop_by_drop_ends(monkeypatch):
    """In this process, so that the time can be short; the app behind is none of ours."""
    import threading

    import uvicorn

    from twinray.serving.app import protocol

    monkeypatch.setattr(protocol, "HEAD_S", 0.5)

    async def app(scope, receive, send):
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(
        app, port=0, http=protocol.PromptProtocol, lifespan="off", log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    address = bound.getsockname()
    for _ in range(100):
        if server.started:
            break
        time.sleep(0.05)
    try:
        with socket.create_connection(address, timeout=10) as silent:
            assert silent.recv(100) == b""  # closed, though nothing was sent
        with socket.create_connection(address, timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: x")
            assert b"200" not in slow.recv(100)
        with socket.create_connection(address, timeout=10) as good:
            good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in good.recv(1000)
            good.sendall(b"GET / HTTP/1.1\r\nHo")  # a second head on the same connection
            assert b"200" not in good.recv(1000)
    finally:
        server.should_exit = True
        thread.join(10)


def test_a_slow_body_is_answered_and_not_waited_for(config, monkeypatch):
    import anyio

    from twinray.serving.app import guard
    from twinray.serving.app.application import create_app

    monkeypatch.setattr(guard, "_GRACE_S", 0.2)
    app = create_app(config, token="", work=False)
    sent: list[dict] = []

    async def receive():
        await anyio.sleep(30)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b"), (b"content-length", b"1000")]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": "/api/images", "raw_path": b"/api/images", "query_string": b"", "scheme": "http",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "http_version": "1.1", "root_path": "",
        "asgi": {"version": "3.0"},
    }  # fmt: skip

    async def ask():
        with anyio.fail_after(10):
            await app(scope, receive, send)

    anyio.run(ask)
    assert sent[0]["status"] == 408


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_fault(config, capfd):
    """A network that breaks must not look like a failure of the server in its metrics."""
    import anyio

    from twinray.serving.app.application import create_app

    app = create_app(config, token="", work=False)
    came = [
        {"type": "http.request", "body": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x89PNG', "more_body": True},
        {"type": "http.disconnect"},
    ]  # fmt: skip
    sent: list[dict] = []

    async def receive():
        return came.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {
        "type": "http", "method": "POST", "path": "/api/images", "raw_path": b"/api/images", "query_string": b"", "scheme": "http",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "http_version": "1.1", "root_path": "",
        "asgi": {"version": "3.0"},
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    store = app.state.service.store
    told = app.state.service.metrics.text(store, None).decode()
    assert ('status="499"' in told, 'status="500"' in told, sent) == (True, False, [])
    assert '"fault"' not in capfd.readouterr().err
    assert [*store.files.incoming.iterdir()] == []  # nothing of it stays

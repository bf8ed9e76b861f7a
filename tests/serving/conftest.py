"""What tests of the server share: stores of both databases, one app with real workers, small images."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import twinray
from twinray.serving.config import ServeConfig
from twinray.serving.store.store import Store, open_store

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
POSTGRES_UID = 65534  # nobody: the database refuses to run as root


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Postgres:
    """A database server of the tests in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._as_root = os.geteuid() == 0
        folder.mkdir(parents=True)
        if self._as_root:
            os.chown(folder, POSTGRES_UID, POSTGRES_UID)
        self._run("initdb", "-D", str(folder / "data"), "-U", "twinray", "-A", "trust", "-N")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "twinray", "store")

    def _options(self) -> dict[str, object]:
        own = {"user": POSTGRES_UID, "group": POSTGRES_UID, "extra_groups": []}
        return {"cwd": self.folder, **(own if self._as_root else {})}

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(BINARIES / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, **self._options())
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        command = [
            str(BINARIES / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-h", "127.0.0.1", "-k", str(self.folder), "-c", "shared_buffers=16MB",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
            start_new_session=True,
            **self._options(),
        )
        for _ in range(300):
            time.sleep(0.1)
            asked = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(asked).returncode == 0:
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def url(self, name: str = "store") -> str:
        return f"postgresql://twinray@127.0.0.1:{self.port}/{name}"

    def fresh(self) -> None:
        """Drop all that is in the database."""
        self._run(
            "psql", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "twinray", "store", "-c",
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
        )  # fmt: skip


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Postgres]:
    if BINARIES is None or not (BINARIES / "initdb").is_file():
        pytest.skip("no PostgreSQL server on this machine (Debian package postgresql)")
    # a folder that another user can reach: those of pytest are for this user alone
    folder = Path("/tmp") / f"twinray-postgres-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path) -> str:
    """Where a new store may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    server = request.getfixturevalue("postgres")
    server.fresh()
    return server.url()


@pytest.fixture
def store(place, tmp_path) -> Iterator[Store]:
    """A new store in each database."""
    made = open_store(place, tmp_path / "store")
    yield made
    made.close()


@pytest.fixture(scope="session")
def classify_run(tmp_path_factory, class_folder) -> Path:
    """A probe of random weights that tells dark images from bright ones, with enough images to choose thresholds on."""
    folder = tmp_path_factory.mktemp("runs")
    sides = ("--val", 0.3, "--test", 0.3, "--patient-regex", r"((?:dark|bright)\d+)_")
    twinray("pack", class_folder, "--out", folder / "pack", "--size", 64, *sides, check=True)
    twinray("classify", "--data", folder / "pack", "--out", folder / "classifier", "--arch", "resnet18",
            "--size", 32, "--bootstrap", 0, "--device", "cpu", check=True)  # fmt: skip
    return folder / "classifier"


@pytest.fixture
def config(detect_run, tmp_path) -> ServeConfig:
    return ServeConfig(runs=(detect_run,), store=str(tmp_path / "served"), min_free=1)

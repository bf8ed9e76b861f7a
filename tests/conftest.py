"""Fixtures that many tests share; everything is generated, nothing is read from elsewhere."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from support import DETECT, REAL_DATA, twinray, write_coco

# tests do not measure time: a busy machine must not fail a property
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TESTS = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory) -> Iterator[Path]:
    """Where keys are made: a folder of the tests, for this process and for those that it starts."""
    folder = tmp_path_factory.mktemp("configuration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.delenv("TWINRAY_KEY", raising=False)
        yield folder


FIRST = (
    "serving/test_page.py",
    "jobs/test_outputs.py",
    "test_own_files.py",
    "test_benchmarks.py",
    "study/test_report.py",
    "test_resume.py",
    "study/test_demo.py",
    "study/test_study.py",
    "study/test_estimate.py",
    "jobs/test_edited.py",
    "detection/test_plain_transformers.py",
    "detection/test_two_ranks.py",
    "real/test_serving_archive_real.py",
    "serving/test_server.py",
    "real/test_small_cxr_real.py",
)
"""The modules that take longest, in that order. xdist keeps it where it may not sort by the number of tests (see Makefile)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first: one that begins last would keep one worker busy while the others have nothing left to do."""
    places = {TESTS / name: at for at, name in enumerate(FIRST)}
    assert all(path.is_file() for path in places), "FIRST names a module that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images beside the project; tests that need it are skipped without it."""
    if not REAL_DATA.is_dir():
        pytest.skip("real images are not on this machine (../shared/data)")
    return REAL_DATA.resolve()


@pytest.fixture
def cli(capsys):
    """Run a verb in this process: (exit status, standard output, standard error)."""
    from twinray.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


class _OneCore:
    """Module ``os`` of a machine with one core."""

    def __getattr__(self, name: str) -> object:
        return (lambda: 1) if name == "cpu_count" else getattr(os, name)


@pytest.fixture(scope="session", autouse=True)
def one_worker() -> Iterator[None]:
    """Packing in this process starts one worker unless told otherwise: tests run side by side already, and each imports for itself."""
    from twinray.jobs import pack
    from twinray.jobs.look import config

    with pytest.MonkeyPatch.context() as patch:
        for module in (pack, config):
            patch.setattr(module, "os", _OneCore())
        yield


@pytest.fixture
def all_cores(monkeypatch) -> None:
    """The default number of workers is the machine's, for tests of defaults."""
    from twinray.jobs import pack
    from twinray.jobs.look import config

    for module in (pack, config):
        monkeypatch.setattr(module, "os", os)


@pytest.fixture(scope="session")
def _parser():
    from twinray.cli import build_parser

    return functools.cache(build_parser)


@pytest.fixture
def kept_parsers(_parser, monkeypatch) -> None:
    """Thousands of command lines are read by one parser a verb: to make one takes several times as long as to use it."""
    monkeypatch.setattr("twinray.cli.build_parser", _parser)


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> Path:
    """A COCO annotation file with its images."""
    return write_coco(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="session")
def blob_pack(tmp_path_factory, blobs) -> Path:
    """The same, packed at 64 pixels: patients on one side, all three splits."""
    from twinray.jobs.pack import PackConfig
    from twinray.jobs.pack import run as pack

    out = tmp_path_factory.mktemp("packs") / "blobs"
    pack(PackConfig(source=blobs, format="coco", out=out, size=64, val=0.2, test=0.25, workers=1))
    return out


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory) -> Path:
    """One folder per class: dark and bright images, two of each patient."""
    root = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(1)
    for name, level in (("dark", 60), ("bright", 150)):
        (root / name).mkdir()
        for i in range(20):
            pixels = rng.normal(level, 40, (40, 48)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}{i // 2:02d}_{i}.png")
    return root


@pytest.fixture(scope="session")
def class_pack(tmp_path_factory, class_folder) -> Path:
    """The same, packed at 64 pixels."""
    from twinray.jobs.pack import PackConfig
    from twinray.jobs.pack import run as pack

    out = tmp_path_factory.mktemp("packs") / "classes"
    pack(
        PackConfig(
            source=class_folder,
            out=out,
            size=64,
            val=0.1,
            test=0.3,
            workers=1,
            patient_regex=r"((?:dark|bright)\d+)_",
        )
    )
    return out


@pytest.fixture(scope="session")
def detect_run(tmp_path_factory, blob_pack) -> Path:
    """A detector trained for a moment on the blobs, through the real command line."""
    out = tmp_path_factory.mktemp("runs") / "detector"
    twinray(
        "detect",
        "--data",
        blob_pack,
        "--out",
        out,
        "--epochs",
        3,
        "--lr",
        0.001,
        *DETECT,
        check=True,
    )
    return out


@pytest.fixture(scope="module")
def warm_workers() -> Iterator[None]:
    """Workers that a study in this process starts have imported everything; those of its command line start as ever."""
    from twinray.studies.runner import local
    from warm_process import Process

    def start(study: Path, threads: int) -> Process:
        words = ["-m", "twinray.studies.runner.worker", study]
        return Process(words, local.environment(threads))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "start_worker", start)
        yield


@pytest.fixture
def interrupt(monkeypatch):
    """``interrupt(module, name, call)``: that call of the module's function is met by Ctrl-C, those before it work."""

    def install(module, name, call):
        real, calls = getattr(module, name), itertools.count(1)

        def stopped(*arguments, **options):
            if next(calls) == call:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, stopped)

    return install

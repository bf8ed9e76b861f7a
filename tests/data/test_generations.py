"""Packs of earlier versions open, go on where they were cut off, and are made again with the same bytes today."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from twinray.data.pack import verify_pack

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = sorted((ROOT / "tests" / "fixtures" / "generations" / "packs").glob("*.tar.xz"))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_generation_packs", ROOT / "scripts" / "make_generation_packs.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


PACKS = load_script().PACKS


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda path: path.name.split(".tar")[0])
def generation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generation")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def pack(cli, generation: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the verb where the sources lie."""
    monkeypatch.chdir(generation)

    def run(name: str, *more: object) -> None:
        status, _, error = cli("pack", *PACKS[name], "--workers", 1, *more)
        assert status == 0, error

    return run


def assert_same(now: Path, then: Path) -> None:
    """The same files; where another library wrote the table, the same table."""
    about, old = (json.loads((path / "pack.json").read_text()) for path in (now, then))
    same_libraries = about.pop("created_by") == old.pop("created_by")
    assert (now / "images.npy").read_bytes() == (then / "images.npy").read_bytes()
    rows, before = (
        repr(pq.read_table(path / "samples.parquet").to_pylist()) for path in (now, then)
    )
    assert rows == before  # as text: NaN equals NaN
    about.pop("sha256", None)  # of the description itself, which came later
    if not same_libraries:
        about["checksums"].pop("samples.parquet"), old["checksums"].pop("samples.parquet")
    assert about == old
    for name in ("splits.json", "skipped.csv", *(("samples.parquet",) if same_libraries else ())):
        assert (now / name).read_bytes() == (then / name).read_bytes(), name


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_opens_whole(generation: Path, name: str) -> None:
    found = verify_pack(generation / "whole" / name)
    assert len(found) == 12
    assert found.info.channels == (3 if name == "folder" else 1)
    assert (
        sum(len(boxes) for i in range(12) if (boxes := found.boxes(i)) is not None)
        == found.info.counts["boxes"]
    )
    assert np.isin(found.labels[~np.isnan(found.labels)], (0, 1)).all()


@pytest.mark.parametrize("name", PACKS)
def test_the_same_sources_give_the_same_bytes(
    generation: Path, pack, tmp_path: Path, name: str
) -> None:
    pack(name, "--out", tmp_path / "again")
    assert_same(tmp_path / "again", generation / "whole" / name)


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_that_was_cut_off_goes_on(generation: Path, pack, tmp_path: Path, name: str) -> None:
    shutil.copytree(generation / "cut" / name, tmp_path / "cut")
    assert len((tmp_path / "cut" / ".unfinished" / "journal.jsonl").read_text().splitlines()) == 6
    pack(name, "--out", tmp_path / "cut", "--resume")
    assert_same(tmp_path / "cut", generation / "whole" / name)


@pytest.mark.parametrize("name", PACKS)
def test_a_finished_pack_is_known_as_the_same_job(
    generation: Path, pack, tmp_path: Path, name: str
) -> None:
    shutil.copytree(generation / "whole" / name, tmp_path / "whole")
    pack(name, "--out", tmp_path / "whole", "--resume")
    assert_same(tmp_path / "whole", generation / "whole" / name)

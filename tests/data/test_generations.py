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

from twinray.data.keyed import COLUMNS
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
FROM_FILES = [name for name in PACKS if name != "phantom"]
"""The phantom is drawn in another way since: packs of the old one open, and are not gone on with."""


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
    about.pop("created_by"), old.pop("created_by")
    assert (now / "images.npy").read_bytes() == (then / "images.npy").read_bytes()
    table = pq.read_table(now / "samples.parquet")
    assert set(COLUMNS) <= set(table.column_names)  # keyed ids of private sources came later
    rows = repr(table.drop_columns(list(COLUMNS)).to_pylist())
    before = repr(pq.read_table(then / "samples.parquet").to_pylist())
    assert rows == before  # as text: NaN equals NaN
    about.pop("sha256", None)  # of the description itself, which came later
    assert about["extra"].pop("key")
    about["checksums"].pop("samples.parquet"), old["checksums"].pop("samples.parquet")
    assert about == old
    for name in ("splits.json", "skipped.csv"):
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


@pytest.mark.parametrize("name", FROM_FILES)
def test_the_same_sources_give_the_same_bytes(
    generation: Path, pack, tmp_path: Path, name: str
) -> None:
    pack(name, "--out", tmp_path / "again")
    assert_same(tmp_path / "again", generation / "whole" / name)


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_pack_that_was_cut_off_goes_on(generation: Path, pack, tmp_path: Path, name: str) -> None:
    shutil.copytree(generation / "cut" / name, tmp_path / "cut")
    assert len((tmp_path / "cut" / ".unfinished" / "journal.jsonl").read_text().splitlines()) == 6
    pack(name, "--out", tmp_path / "cut", "--resume")
    assert_same(tmp_path / "cut", generation / "whole" / name)


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_finished_pack_is_known_as_the_same_job(
    generation: Path, pack, tmp_path: Path, name: str
) -> None:
    shutil.copytree(generation / "whole" / name, tmp_path / "whole")
    pack(name, "--out", tmp_path / "whole", "--resume")
    for file in (generation / "whole" / name).iterdir():  # left as it was
        assert (tmp_path / "whole" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("state", ["cut", "whole"])
def test_a_phantom_that_was_drawn_otherwise_is_not_gone_on_with(
    cli, generation: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    """Images of two ways of drawing never meet in one pack."""
    monkeypatch.chdir(generation)
    shutil.copytree(generation / state / "phantom", tmp_path / "out")
    status, _, error = cli(
        "pack", *PACKS["phantom"], "--workers", 1, "--out", tmp_path / "out", "--resume"
    )
    assert status == 2 and "of another source or of other options" in error

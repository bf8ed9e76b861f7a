"""The table of formats: options go with what takes them, and a data set is one file and one row."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import twinray
from twinray.checks import options
from twinray.data.readers.formats import FORMATS, SourceOptions, check_format, takers_in_words
from twinray.errors import InputError
from twinray.jobs.pack import PackConfig

OTHER_THAN_DEFAULT = {
    "images": Path("x"),
    "patient_regex": "(a)",
    "patient_column": "who",
    "table": Path("x"),
    "layout": "flat",
    "fusion_iou": 0.3,
    "min_readers": 2,
    "database": "postgresql://x/y",
    "task": "organ",
    "views": "all",
    "uncertain": "one",
    "blank": "zero",
    "no_finding": "alone",
    "phantom_images": 5,
    "phantom_images_per_patient": 3.0,
    "phantom_labelled": 0.5,
}

TOY = '''"""A made-up data set -> Collection: one grey square for every line of a text file."""

from pathlib import Path

import numpy as np

from twinray.records import Collection, Pixels, Sample


def _draw(sample: Sample) -> Pixels:
    return Pixels(np.full((20, 20), int(sample.source), dtype=np.uint8), "toy")


def read_toy(source: Path, *, images: Path | None) -> Collection:
    """Describe the squares."""
    lines = (images or source).read_text().split()
    return Collection("toy", (), (), "none", [Sample(line, line) for line in lines], _draw)
'''
ROW = """    "toy": Format(
        "the list of toys",
        "FILE.txt",
        lambda source, o: read_toy(source, images=o.images),
        takes=frozenset({"images"}),
    ),
"""


@pytest.mark.parametrize("option", OTHER_THAN_DEFAULT)
@pytest.mark.parametrize("name", FORMATS)
def test_an_option_is_refused_unless_the_format_takes_it(name: str, option: str) -> None:
    options = SourceOptions(**{option: OTHER_THAN_DEFAULT[option]})
    if option in FORMATS[name].takes:
        check_format(name, options)
        return
    with pytest.raises(InputError, match=f"not with {name}; leave one of them out") as caught:
        check_format(name, options)
    assert str(caught.value).startswith(f"--{option.replace('_', '-')} goes with --format ")


def test_every_option_of_readers_is_one_of_pack_with_the_same_default_and_is_told_with_its_formats() -> (
    None
):
    of_pack = {field.name: field for field in fields(PackConfig)}
    for option in fields(SourceOptions):
        assert of_pack[option.name].default == option.default, option.name
    for name in OTHER_THAN_DEFAULT:
        words = options(PackConfig)[name].words
        assert words is not None
        assert words.before == f"{takers_in_words(name)}:"
    assert {option.name for option in fields(SourceOptions)} - {
        "strict",
        "size",
        "seed",
        "val",
        "test",
    } == set(OTHER_THAN_DEFAULT)
    assert all(row.takes <= set(OTHER_THAN_DEFAULT) for row in FORMATS.values())


def test_a_new_data_set_is_one_file_and_one_row(tmp_path: Path) -> None:
    root = tmp_path / "src" / "twinray"
    shutil.copytree(
        Path(twinray.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (root / "data" / "readers" / "toy.py").write_text(TOY)
    table = root / "data" / "readers" / "formats.py"
    text = table.read_text()
    text = text.replace(
        "from twinray.errors",
        "from twinray.data.readers.toy import read_toy\nfrom twinray.errors",
        1,
    )
    table.write_text(text.replace('    "phantom": Format(\n', ROW + '    "phantom": Format(\n', 1))
    changed = [path for path in root.rglob("*.py") if before.get(path) != path.read_bytes()]
    assert len(changed) == 2

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path / "src"),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "twinray.cli", "pack", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    told = " ".join(run("--help").stdout.split())
    assert "toy: list of toys" in told
    takers = [name for name, row in FORMATS.items() if "images" in row.takes]
    assert f"Formats {', '.join(takers)} and toy: folder of the images" in told
    assert "expected the list of toys, as in: twinray pack FILE.txt --format toy --out PACK" in (
        run("--format", "toy", "--out", tmp_path / "p").stderr
    )
    assert "--task goes with --format medimeta, not with toy" in (
        run("list.txt", "--format", "toy", "--task", "x", "--out", tmp_path / "p").stderr
    )
    (tmp_path / "list.txt").write_text("\n".join(map(str, range(12))))
    done = run(
        tmp_path / "list.txt",
        "--format",
        "toy",
        "--size",
        16,
        "--workers",
        1,
        "--out",
        tmp_path / "p",
    )
    assert done.returncode == 0, done.stderr
    assert len(twinray.open_pack(tmp_path / "p")) == 12

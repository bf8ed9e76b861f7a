"""The verb pack, as the command line calls it: options, summary, verification."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import docstring_parser
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from twinray.errors import InputError
from twinray.jobs.pack import PackConfig, run
from twinray.jobs.pack_sheet import extremes, write_sheet
from twinray.report.palette import TRUE_BOX


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for i in range(12):
        path = root / ("sick" if i % 3 else "well") / f"person{i // 2}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 20), dtype=np.uint8)).save(
            path
        )
    (root / "sick" / "person9_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def packed(**options: Any) -> tuple[Any, str]:
    text = io.StringIO()
    pack = run(PackConfig(**{"size": 16, "workers": 1} | options), Console(file=text, width=200))
    return pack, text.getvalue()


def test_a_folder_is_packed_and_summed_up(source: Path, tmp_path: Path) -> None:
    pack, text = packed(source=source, out=tmp_path / "p", patient_regex=r"(person\d+)_")
    assert len(pack) == 12
    assert pack.info.counts["patients"] == 6
    assert pack.info.label_classes == ("sick", "well")
    for told in (
        "12 (train",
        "multiclass: sick 8, well 4",
        "set aside",
        "1 (skipped.csv)",
        "16 x 16 grey, squash",
        "by patient",
    ):
        assert told in text


def test_verify_checks_a_pack(source: Path, tmp_path: Path) -> None:
    packed(source=source, out=tmp_path / "p")
    pack, text = packed(source=tmp_path / "p", verify=True)
    assert len(pack) == 12
    assert "match their checksums" in text
    data = bytearray((tmp_path / "p" / "samples.parquet").read_bytes())
    (tmp_path / "p" / "images.npy").write_bytes(
        (tmp_path / "p" / "images.npy").read_bytes()[:-1] + b"\x00"
    )
    with pytest.raises(InputError):
        packed(source=tmp_path / "p", verify=True)
    assert data


def test_the_phantom_needs_no_source(tmp_path: Path) -> None:
    pack, text = packed(format="phantom", out=tmp_path / "p", phantom_images=12)
    assert len(pack) == 12
    assert pack.info.counts["patients"] > 1
    assert pack.info.counts["annotated"] > 0
    assert "boxes" in text
    again, _ = packed(format="phantom", out=tmp_path / "q", phantom_images=12)
    assert pack.info == again.info
    _, text = packed(
        format="phantom", out=tmp_path / "u", phantom_images=4, phantom_labelled=0, val=0, test=0
    )
    assert "no image has any" in text and "no image was annotated" in text
    with pytest.raises(InputError, match="leave it out"):
        packed(format="phantom", source=tmp_path, out=tmp_path / "r")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "--size"),
        ({"val": 1.5}, "--val"),
        ({"val": 0.6, "test": 0.6}, "leave images for training"),
        ({"workers": 0}, "--workers"),
        ({"timeout": 0.0}, "--timeout"),
        ({"memory": 1}, "--memory"),
        ({"phantom_images": 0}, "--phantom-images"),
        ({"images": Path("x")}, "--images goes with --format coco"),
        ({"format": "coco", "table": Path("x")}, "--table goes with --format folder"),
        ({"format": "nih", "layout": "flat"}, "--layout goes with"),
        ({"patient_column": "who"}, "--patient-column names a column of --table"),
        ({"format": "zip"}, "expected --format"),
        ({"source": None}, "expected the folder of images"),
        ({"source": None, "format": "coco"}, "expected the COCO annotation file"),
        ({"source": None, "verify": True}, "the pack to verify"),
        ({"out": None}, "expected --out"),
        ({"source": Path("nowhere")}, "nowhere is not there"),
    ],
)
def test_bad_options_are_one_clear_line(
    source: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        packed(**({"source": source, "out": tmp_path / "p"} | options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "p").exists()


def test_every_option_is_explained() -> None:
    documented = docstring_parser.parse_from_object(PackConfig)
    told = {param.arg_name: param.description for param in documented.params}
    for option in fields(PackConfig):
        assert told.get(option.name), option.name


def test_packing_needs_no_torch() -> None:
    code = "import sys, twinray.jobs.pack; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def box_sides(picture: Path) -> int:
    """Pixels of the colour of true boxes in a picture."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    colour = np.array([int(TRUE_BOX[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels - colour).max(axis=2) < 12).sum())


def test_a_contact_sheet_shows_images_with_their_boxes(blobs: Path, tmp_path: Path) -> None:
    options = {"format": "coco", "out": tmp_path / "p", "size": 64, "workers": 1}
    run(PackConfig((blobs,), sheet=tmp_path / "s.png", **options))
    assert box_sides(tmp_path / "s.png") > 500
    with pytest.raises(InputError, match=r"s\.png is there already; choose another --sheet"):
        run(PackConfig((tmp_path / "p",), verify=True, sheet=tmp_path / "s.png"))
    run(PackConfig((tmp_path / "p",), verify=True, sheet=tmp_path / "again.png"))
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "s.png").read_bytes()


def test_the_sheet_shows_extremes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for k in range(12):
        Image.fromarray(rng.integers(90, 160, (40, 40), dtype=np.uint8)).save(
            tmp_path / "in" / f"{k:02d}.png"
        )
    for name, pixels in {
        "black": np.zeros((40, 40)), "white": rng.integers(250, 256, (40, 40)), "flat": rng.integers(90, 160, (20, 200)),
        "tall": rng.integers(90, 160, (200, 20)), "large": rng.integers(90, 160, (300, 300)),
    }.items():  # fmt: skip
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
    pack = run(PackConfig((tmp_path / "in",), out=tmp_path / "p", size=32, workers=1))
    found = {str(pack.ids[row]): way for row, way in extremes(pack)}
    assert found["black.png"] == "least contrast, darkest"
    assert {k: found[f"{k}.png"] for k in ("white", "flat", "tall", "large")} == {
        "white": "brightest", "flat": "flattest", "tall": "tallest", "large": "largest original",
    }  # fmt: skip
    write_sheet(pack, tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").size[1] > 500

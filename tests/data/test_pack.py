"""Opening and checking packs, their geometry, and that the documentation's snippet runs as printed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.data.fit import fit_pixels, is_grey, to_grey
from twinray.data.pack import open_pack, verify_pack
from twinray.data.packing.journal import npy_header
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.errors import InputError
from twinray.geometry import geometry
from twinray.records import Boxes, Collection, Pixels, Sample

DOC = Path(__file__).parents[2] / "docs" / "pack-format.md"


@dataclass(frozen=True)
class Wide:
    """Makes 40 x 20 images with a white rectangle, without any file."""

    def __call__(self, sample: Sample) -> Pixels:
        array = np.zeros((20, 40), dtype=np.uint8)
        array[5:10, 10 + int(sample.id) : 30] = 255
        return Pixels(array, "made")


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [
        Sample(
            str(i),
            f"{i}.png",
            patient=f"p{i // 2}",
            labels=np.array([i % 2, np.nan], dtype=np.float32),
            boxes=None if i == 0 else Boxes(np.array([[10.0 + i, 5, 30, 10]]), np.array([0]), readers=("R1",)),
        )
        for i in range(8)
    ]
    found = Collection("wide", ("a", "b"), ("box",), "multilabel", samples, Wide())
    out = tmp_path_factory.mktemp("pack") / "pack"
    write_pack([found], out, PackOptions(size=16, fit="letterbox", val=0.25, test=0.25), workers=0)
    return out


@pytest.fixture
def copy(pack_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack_path, tmp_path / "copy"))


def test_a_pack_opens(pack_path: Path) -> None:
    pack = verify_pack(pack_path)
    assert len(pack) == 8
    assert pack.images.shape == (8, 16, 16)
    assert sorted(np.concatenate([pack.where(s) for s in ("train", "val", "test")]).tolist()) == list(range(8))
    assert pack.boxes(0) is None
    boxes = pack.boxes(3)
    assert boxes is not None
    assert boxes.xyxy.tolist() == [[13, 5, 30, 10]]
    assert boxes.readers == ("R1",)
    assert boxes.n_readers is None
    assert pack.labels[1, 0] == 1
    assert np.isnan(pack.labels[1, 1])
    assert pack.groups[2] == "patient p1"
    np.testing.assert_allclose(pack.place(3).to_square(boxes.xyxy), [[13 * 0.4, 4 + 5 * 0.4, 12, 8]])
    np.testing.assert_allclose(pack.place(3).to_original(pack.place(3).to_square(boxes.xyxy)), boxes.xyxy)


def test_a_changed_pack_is_found(copy: Path) -> None:
    images = bytearray((copy / "images.npy").read_bytes())
    images[-1] ^= 1
    (copy / "images.npy").write_bytes(images)
    open_pack(copy)
    with pytest.raises(InputError, match=r"images\.npy does not match"):
        verify_pack(copy)


def test_a_pack_without_its_description_is_unfinished(copy: Path) -> None:
    (copy / "pack.json").unlink()
    with pytest.raises(InputError, match="cut off"):
        open_pack(copy)
    with pytest.raises(InputError, match="is not there"):
        open_pack(copy / "nowhere")


@pytest.mark.parametrize("change", [{"format_version": 99}, {"size": 17}, {"surprise": 1}])
def test_a_description_that_does_not_fit_is_refused(copy: Path, change: dict[str, object]) -> None:
    raw = json.loads((copy / "pack.json").read_text())
    (copy / "pack.json").write_text(json.dumps(raw | change))
    with pytest.raises(InputError, match=r"again|twinray that wrote it"):
        open_pack(copy)


@pytest.mark.parametrize("name", ["images.npy", "samples.parquet"])
def test_damaged_files_are_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="could not open the pack"):
        open_pack(copy)


def test_a_missing_column_is_refused(copy: Path) -> None:
    table = pq.read_table(copy / "samples.parquet").drop_columns(["how"])
    pq.write_table(table, copy / "samples.parquet")
    with pytest.raises(InputError, match="how"):
        open_pack(copy)


def test_the_documented_way_to_open_a_pack_runs(
    pack_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snippets = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert snippets
    assert not any("twinray" in line for snippet in snippets for line in snippet.splitlines() if "import" in line)
    monkeypatch.chdir(pack_path.parent)
    for snippet in snippets:
        exec(compile(snippet, str(DOC), "exec"), {})
    assert "(8, 16, 16)" in capsys.readouterr().out


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(16, 512), st.sampled_from(["squash", "letterbox"]), st.data())
def test_points_go_there_and_back(width: int, height: int, size: int, fit: str, data: st.DataObject) -> None:
    place = geometry(width, height, size, fit)  # type: ignore[arg-type]
    x = data.draw(st.floats(0, width))
    there = x * place.scale_x + place.offset_x
    assert -1e-6 <= there <= size + 1e-6
    assert abs((there - place.offset_x) / place.scale_x - x) <= 1e-6 * max(1, width)
    assert 0 * place.scale_x + place.offset_x == place.offset_x
    assert abs(width * place.scale_x - place.inner[0]) < 1e-6
    assert abs(height * place.scale_y - place.inner[1]) < 1e-6
    assert max(place.inner) == size


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 32), (90, 200), (8, 5)])
def test_pixels_land_where_the_geometry_says(width: int, height: int, fit: str) -> None:
    image = np.zeros((height, width), dtype=np.uint8)
    x1, x2, y1, y2 = width // 4, width - width // 4, height // 4, height - height // 4
    image[y1:y2, x1:x2] = 200
    fitted = fit_pixels(image, 64, fit).astype(float)  # type: ignore[arg-type]
    place = geometry(width, height, 64, fit)  # type: ignore[arg-type]
    assert fitted.shape == (64, 64)
    centres = np.arange(64) + 0.5
    weight = fitted.sum()
    assert abs((fitted.sum(axis=0) * centres).sum() / weight - ((x1 + x2) / 2 * place.scale_x + place.offset_x)) < 0.1
    assert abs((fitted.sum(axis=1) * centres).sum() / weight - ((y1 + y2) / 2 * place.scale_y + place.offset_y)) < 0.1
    area = (x2 - x1) * place.scale_x * (y2 - y1) * place.scale_y
    assert weight / 200 == pytest.approx(area, rel=0.05)


def test_an_image_of_the_packs_size_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_pixels(image, 32, "squash"), image)


def test_grey_is_told_from_colour() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    assert is_grey(grey)
    assert is_grey(rgb)
    np.testing.assert_array_equal(to_grey(rgb), grey)
    rgb[29, 19, 2] ^= 1
    assert not is_grey(rgb)


@given(st.integers(0, 10**9), st.integers(16, 4096), st.sampled_from([1, 3]))
def test_the_header_has_one_length_and_numpy_reads_it(n: int, size: int, channels: int) -> None:
    header = npy_header(n, size, channels)
    assert len(header) == 128
    import io

    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    assert (shape, fortran, dtype) == ((n, size, size) + ((3,) if channels == 3 else ()), False, np.uint8)

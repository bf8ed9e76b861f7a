"""Opening and checking packs, their geometry, and that the documentation's snippet runs as printed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.data.fit import fit_pixels, is_grey, to_grey
from twinray.data.pack import SCHEMA, open_pack, verify_pack
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
            boxes=None
            if i == 0
            else Boxes(np.array([[10.0 + i, 5, 30, 10]]), np.array([0]), readers=("R1",)),
        )
        for i in range(8)
    ]
    found = Collection("wide", ("a", "b"), ("box",), "multilabel", samples, Wide())
    out = tmp_path_factory.mktemp("pack") / "pack"
    options = PackOptions(size=16, fit="letterbox", val=0.25, test=0.25)
    write_pack([found], out, options, workers=0)
    write_pack([found], out.parent / "linear", replace(options, pixels="uint16"), workers=0)
    return out


@pytest.fixture
def copy(pack_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack_path, tmp_path / "copy"))


def test_a_pack_opens(pack_path: Path) -> None:
    pack = verify_pack(pack_path)
    assert len(pack) == 8
    assert pack.images.shape == (8, 16, 16)
    assert sorted(
        np.concatenate([pack.where(s) for s in ("train", "val", "test")]).tolist()
    ) == list(range(8))
    assert pack.boxes(0) is None
    boxes = pack.boxes(3)
    assert boxes is not None
    assert boxes.xyxy.tolist() == [[13, 5, 30, 10]]
    assert boxes.readers == ("R1",)
    assert boxes.n_readers is None
    assert pack.labels[1, 0] == 1
    assert np.isnan(pack.labels[1, 1])
    assert pack.groups[2] == "patient p1"
    np.testing.assert_allclose(
        pack.place(3).to_square(boxes.xyxy), [[13 * 0.4, 4 + 5 * 0.4, 12, 8]]
    )
    np.testing.assert_allclose(
        pack.place(3).to_original(pack.place(3).to_square(boxes.xyxy)), boxes.xyxy
    )


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "16"}, "size: expected `int`, got `str`"),
        ({"size": 0}, "size: expected `int` >= 1"),
        ({"channels": 2}, "channels: invalid enum value 2"),
        ({"fit": "crop"}, "fit: invalid enum value 'crop'"),
        ({"task": None}, "task: expected `str`, got `null`"),
        ({"names": "wide"}, "names: expected `array`, got `str`"),
        ({"label_classes": ["a", 3]}, "label_classes[1]: expected `str`, got `int`"),
        ({"box_classes": [""]}, "box_classes[0]: expected `str` of length >= 1"),
        ({"mean": ["0.5"]}, "mean[0]: expected `float`, got `str`"),
        ({"std": []}, "expected 1 values of mean and std"),
        ({"counts": {"images": -1}}, "counts[...]: expected `int` >= 0"),
        ({"checksums": {"images.npy": 5}}, "checksums[...]: expected `str`, got `int`"),
        ({"notes": [["x"]]}, "notes[0]: expected `str`, got `array`"),
        ({"extra": []}, "extra: expected `object`, got `array`"),
        ({"surprise": 1}, "the key 'surprise' is not one that this version knows"),
    ],
)
def test_an_odd_value_in_the_description_is_one_line_that_names_the_key(
    copy: Path, change: dict[str, object], message: str
) -> None:
    raw = json.loads((copy / "pack.json").read_text())
    (copy / "pack.json").write_text(json.dumps(raw | change))
    with pytest.raises(InputError) as caught:
        open_pack(copy)
    assert message in str(caught.value)
    assert "pack.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_of_the_description_is_needed_or_has_a_rule_for_older_packs(copy: Path) -> None:
    raw = json.loads((copy / "pack.json").read_text())
    raw.pop("sha256")  # as in packs of earlier versions: with it every change is an edit
    for key in raw:
        (copy / "pack.json").write_text(json.dumps({k: v for k, v in raw.items() if k != key}))
        if key in ("created_by", "decoded", "extra"):
            open_pack(copy)
            continue
        with pytest.raises(InputError, match=f"missing required field `{key}`|found None"):
            open_pack(copy)


@pytest.mark.parametrize("name", ["images.npy", "samples.parquet"])
def test_damaged_files_are_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"nonsense")
    with pytest.raises(InputError, match=rf"could not open .*{name}"):
        open_pack(copy)


@pytest.mark.parametrize("name", ["images.npy", "samples.parquet"])
def test_damage_anywhere_opens_or_is_one_line(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    rng = np.random.default_rng(0)
    told = []
    for n in range(150):
        damaged = bytearray(whole)
        # the header of the images; of the table the footer at its end, which says where all else is
        low, high = (
            (0, 128)
            if name == "images.npy"
            else (len(whole) - (4000 if n % 2 else len(whole)), len(whole))
        )
        for at in rng.integers(max(low, 0), high, rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        (copy / name).write_bytes(damaged[: rng.integers(len(whole))] if n % 10 == 0 else damaged)
        try:
            open_pack(copy)
        except InputError as error:
            told.append(str(error))
    assert len(told) > 50
    assert all("\n" not in message and str(copy) in message for message in told)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"size": "a"}, "could not open"),
        ({"order": "F"}, "row by row"),
        ({"dtype": "int8"}, "type uint8"),
    ],
)
def test_images_of_another_kind_are_refused(
    copy: Path, damage: dict[str, str], message: str
) -> None:
    images = np.load(copy / "images.npy")
    if "size" in damage:
        (copy / "images.npy").write_bytes(
            (copy / "images.npy").read_bytes().replace(b"(8, 16", b"('8',16")
        )
    else:
        np.save(
            copy / "images.npy",
            np.asarray(images, order=damage.get("order"), dtype=damage.get("dtype")),
        )
    with pytest.raises(InputError, match=message):
        open_pack(copy)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("split", pa.array([0] * 8), "column split of type string .* found int64"),
        (
            "labels",
            pa.array([[1.0, 0.0]] * 8),
            r"column labels of type list<.*float> .* found list<.*double>",
        ),
        ("boxes", pa.array(["x"] * 8), "column boxes"),
        ("split", pa.array([None] * 8, pa.string()), "expected a split in every row"),
        ("width", pa.array([None] * 8, pa.int32()), "expected a width in every row"),
        ("height", pa.array([0] * 8, pa.int32()), "expected sizes and scales above 0"),
        ("scale_x", pa.array([float("nan")] * 8), "expected sizes and scales above 0"),
    ],
)
def test_a_table_of_another_schema_is_one_line(
    copy: Path, column: str, values: pa.Array, message: str
) -> None:
    table = pq.read_table(copy / "samples.parquet")
    pq.write_table(
        table.set_column(table.column_names.index(column), column, values), copy / "samples.parquet"
    )
    with pytest.raises(InputError, match=message) as caught:
        open_pack(copy)
    assert "samples.parquet" in str(caught.value)


@pytest.mark.parametrize("classes", [[[1]] * 8, [[-1]] * 8, [[0, 0]] * 8, [None] * 8])
def test_boxes_without_a_known_class_each_are_refused(
    copy: Path, classes: list[list[int] | None]
) -> None:
    table = pq.read_table(copy / "samples.parquet")
    at = table.column_names.index("box_classes")
    column = pa.array(classes, SCHEMA.field("box_classes").type)
    pq.write_table(table.set_column(at, "box_classes", column), copy / "samples.parquet")
    pack = open_pack(copy, allow_edited=True)
    with pytest.raises(InputError, match="expected a known class for every box"):
        pack.boxes(3)


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
    assert not any(
        "twinray" in line
        for snippet in snippets
        for line in snippet.splitlines()
        if "import" in line
    )
    monkeypatch.chdir(pack_path.parent)
    for snippet in snippets:
        exec(compile(snippet, str(DOC), "exec"), {})
    assert "(8, 16, 16)" in capsys.readouterr().out


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(16, 512), st.sampled_from(["squash", "letterbox"]), st.data())
def test_points_go_there_and_back(
    width: int, height: int, size: int, fit: str, data: st.DataObject
) -> None:
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
    assert (
        abs(
            (fitted.sum(axis=0) * centres).sum() / weight
            - ((x1 + x2) / 2 * place.scale_x + place.offset_x)
        )
        < 0.1
    )
    assert (
        abs(
            (fitted.sum(axis=1) * centres).sum() / weight
            - ((y1 + y2) / 2 * place.scale_y + place.offset_y)
        )
        < 0.1
    )
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
    assert (shape, fortran, dtype) == (
        (n, size, size) + ((3,) if channels == 3 else ()),
        False,
        np.uint8,
    )


def test_attributes_by_name(tmp_path: Path) -> None:
    samples = [
        Sample(str(i), f"{i}.png", attributes={"Age": str(i), "view": "AP"} if i else {})
        for i in range(4)
    ]
    one = Collection("one", (), (), "none", samples, Wide())
    other = Collection("one/more", (), (), "none", samples[:2], Wide())
    write_pack([one, other], tmp_path / "pack", PackOptions(size=16, val=0, test=0), workers=0)
    pack = open_pack(tmp_path / "pack")
    at = {str(i): n for n, i in enumerate(pack.ids)}
    ages = pack.attribute("age")
    assert [ages[at[f"one/{i}"]] for i in range(4)] == [None, "1", "2", "3"]
    assert pack.attribute("source")[at["one/more/1"]] == "one/more"
    assert pack.attribute("source")[at["one/1"]] == "one"
    with pytest.raises(InputError, match=r"no attribute 'sex'; it has: Age, view, source"):
        pack.attribute("sex")

"""One stored value is one grey level in all images of a source, whatever their brightest pixels."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.decoding.images import UnscaledError, load_image
from twinray.data.decoding.options import Decoded, Decoding
from twinray.data.decoding.scale import Scale, Survey, declared, spread, to_grey_levels
from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
from twinray.errors import InputError, TwinrayError

Values = npt.NDArray[Any]


def ramp(top: int) -> Values:
    return np.linspace(0, top, 64 * 64).astype(np.uint16).reshape(64, 64)


def write_png(path: Path, planes: list[Values], colour_type: int) -> None:
    """A PNG of 16 bits a channel, which Pillow does not write for colour and alpha."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = planes[0].shape
    raw = b"".join(
        b"\0" + row.tobytes() for row in np.stack(planes, -1).astype(">u2").reshape(height, -1)
    )
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_tiff(path: Path, planes: list[Values], compression: int = 1, big: bool = False) -> None:
    """A TIFF of one strip, 16 bits a channel, uncompressed or deflated, in either byte order."""
    order = ">" if big else "<"
    height, width = planes[0].shape
    pixels = np.stack(planes, -1).astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if compression == 8 else pixels
    n = len(planes)
    bits = struct.pack(f"{order}{n}H", *[16] * n)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, n, 8 if n > 2 else None),
        (259, 3, 1, compression),
    ]
    tags += [
        (262, 3, 1, 1 if n < 3 else 2),
        (273, 4, 1, 8 + len(bits)),
        (277, 3, 1, n),
        (278, 4, 1, height),
    ]
    tags += [(279, 4, 1, len(pixels))]
    directory = b""
    for tag, kind, count, value in tags:
        if value is None:
            packed = bits.ljust(4, b"\0")
        else:
            packed = struct.pack(f"{order}H2x" if kind == 3 and count == 1 else f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + packed
    where = 8 + len(bits) + len(pixels)
    head = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, where)
    path.write_bytes(
        head + bits + pixels + struct.pack(f"{order}H", len(tags)) + directory + bytes(4)
    )


def save_grey(path: Path, values: Values) -> None:
    Image.fromarray(values).save(path)


def grey_alpha(path: Path, values: Values) -> None:
    write_png(path, [values, np.full_like(values, 65535)], 4)


def rgb_png(path: Path, values: Values) -> None:
    write_png(path, [values] * 3, 2)


def rgba_png(path: Path, values: Values) -> None:
    write_png(path, [values] * 3 + [np.full_like(values, 65535)], 6)


def rgb_tiff(path: Path, values: Values) -> None:
    write_tiff(path, [values] * 3)


def rgb_tiff_big_endian_deflated(path: Path, values: Values) -> None:
    write_tiff(path, [values] * 3, compression=8, big=True)


def pgm(path: Path, values: Values) -> None:
    height, width = values.shape
    path.write_bytes(
        b"P5\n# a comment\n%d %d\n65535\n" % (width, height) + values.astype(">u2").tobytes()
    )


def plain_ppm(path: Path, values: Values) -> None:
    height, width = values.shape
    text = " ".join(str(v) for v in np.repeat(values.ravel(), 3))
    path.write_bytes(b"P3 %d %d 65535\n" % (width, height) + text.encode())


WAYS: dict[str, tuple[str, Callable[[Path, Values], None]]] = {
    "png": ("png", save_grey),
    "png with alpha": ("png", grey_alpha),
    "png rgb": ("png", rgb_png),
    "png rgba": ("png", rgba_png),
    "tiff": ("tif", save_grey),
    "tiff rgb": ("tif", rgb_tiff),
    "tiff rgb, other byte order": ("tif", rgb_tiff_big_endian_deflated),
    "jpeg 2000": ("jp2", save_grey),
    "pgm": ("pgm", pgm),
    "plain ppm": ("ppm", plain_ppm),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_stored_value_is_one_grey_in_every_image_of_a_source(tmp_path: Path, way: str) -> None:
    suffix, write = WAYS[way]
    source = tmp_path / "source"
    source.mkdir()
    bright = ramp(4032)
    dark = np.minimum(bright, 900)
    marked = bright.copy()
    marked[:4, :4] = 65535
    for name, values in (("a dark", dark), ("bright", bright), ("marked", marked)):
        write(source / f"{name}.{suffix}", values)
    result = write_pack(
        [read_folder(source)], tmp_path / "p", PackOptions(size=64, val=0, test=0), workers=1
    )
    pack = open_pack(tmp_path / "p")
    want = np.rint(bright / 4095 * 255)
    for row, name in enumerate(pack.ids):
        stored = {"a": dark, "b": bright, "m": np.minimum(marked, 4095)}[name[0]]
        np.testing.assert_allclose(pack.images[row], np.rint(stored / 4095 * 255), atol=1)
    assert want.max() == 251
    assert pack.info.decoded.scales["source"].whole == (0, 4095)
    assert any("depth 12 bits" in note for note in result.info.notes)


@pytest.mark.parametrize("depth", [10, 11, 14])
def test_a_declared_depth_counts_whatever_the_source_holds(tmp_path: Path, depth: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_grey(source / "a.png", ramp(700))
    options = PackOptions(size=64, val=0, test=0, depth=depth)
    write_pack([read_folder(source)], tmp_path / "p", options, workers=1)
    want = np.rint(ramp(700) / ((1 << depth) - 1) * 255)
    np.testing.assert_allclose(open_pack(tmp_path / "p").images[0], want, atol=1)


def test_headers_that_declare_a_white_are_believed(tmp_path: Path) -> None:
    dark = ramp(300)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 1000\n" + dark.astype(">u2").tobytes())
    np.testing.assert_allclose(load_image(tmp_path / "a.pgm").array, dark / 1000 * 255, atol=0.51)
    with Image.open(tmp_path / "a.pgm") as image:  # Pillow stretches to 16 bits
        np.testing.assert_allclose(
            load_image(tmp_path / "a.pgm").array, np.asarray(image) / 257, atol=1
        )


@pytest.mark.parametrize("kind", ["i2", "u4", "i4", "f4"])
def test_signed_and_wide_values_never_wrap(tmp_path: Path, kind: str) -> None:
    low, high = {
        "i2": (-1000, 3000),
        "u4": (0, 4_000_000_000),
        "i4": (-2_000_000_000, 7),
        "f4": (-0.5, 4.1),
    }[kind]
    source = tmp_path / "source"
    source.mkdir()
    values = np.linspace(low, high, 64 * 64).astype(kind).reshape(64, 64)
    half = np.minimum(values, (low + high) / 2).astype(kind)
    for name, array in (("whole", values), ("half", half)):
        raw_tiff(source / f"{name}.tif", array)
    write_pack(
        [read_folder(source)], tmp_path / "p", PackOptions(size=64, val=0, test=0), workers=1
    )
    pack = open_pack(tmp_path / "p")
    for row, name in enumerate(pack.ids):
        stored = (half if name.startswith("half") else values).astype(float)
        np.testing.assert_allclose(pack.images[row], (stored - low) / (high - low) * 255, atol=1)


def raw_tiff(path: Path, values: Values) -> None:
    """Any number type, as Pillow cannot write them all."""
    height, width = values.shape
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    pixels = values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = [
        (256, width),
        (257, height),
        (258, 8 * values.itemsize),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
    ]
    entries += [(278, height), (279, len(pixels)), (339, form)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II" + struct.pack("<HI", 42, 8 + len(pixels))
    path.write_bytes(head + pixels + struct.pack("<H", len(entries)) + directory + bytes(4))


def test_signed_8_bits_do_not_wrap(tmp_path: Path) -> None:
    values = np.linspace(-100, 120, 64 * 64).astype(np.int8).reshape(64, 64)
    raw_tiff(tmp_path / "a.tif", values)
    np.testing.assert_allclose(
        load_image(tmp_path / "a.tif").array, (values + 100.0) / 220 * 255, atol=1
    )


def test_optical_density_is_not_black(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", np.linspace(0.1, 3.9, 4096, dtype=np.float32).reshape(64, 64))
    pixels = load_image(tmp_path / "a.tif")
    assert pixels.array.max() == 255
    assert pixels.array.std() > 50
    given = Decoding(declared(None, (0, 4)))
    assert load_image(tmp_path / "a.tif", decoding=given).array.max() == round(3.9 / 4 * 255)


def test_deep_colour_keeps_its_colours(tmp_path: Path) -> None:
    planes = [ramp(4000), ramp(2000), ramp(100)]
    write_png(tmp_path / "a.png", planes, 2)
    np.testing.assert_allclose(
        load_image(tmp_path / "a.png").array, np.stack(planes, -1) / 4095 * 255, atol=1
    )


def test_where_16_bits_are_transparent_the_image_is_black(tmp_path: Path) -> None:
    alpha = np.full((64, 64), 65535, np.uint16)
    alpha[:, :32] = 0
    write_png(tmp_path / "a.png", [ramp(4000), alpha], 4)
    pixels = load_image(tmp_path / "a.png")
    assert not pixels.array[:, :32].any()
    np.testing.assert_allclose(pixels.array[:, 32:], ramp(4000)[:, 32:] / 4095 * 255, atol=1)


def test_a_pack_that_was_cut_off_goes_on_with_the_same_scale(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i, top in enumerate((200, 900, 60, 4000, 700)):
        save_grey(source / f"{i}.png", ramp(top) if i else ramp(200).astype(np.uint8))
    options = PackOptions(size=32, val=0, test=0)
    whole = write_pack([read_folder(source)], tmp_path / "whole", options, workers=1)
    reader = read_folder(source)
    broken = read_folder(source)
    object.__setattr__(broken, "load", _StopsAt(broken.load, "2.png", tmp_path / "go on"))
    with pytest.raises((TwinrayError, KeyboardInterrupt)):
        write_pack([broken], tmp_path / "cut", options, workers=0)
    assert (tmp_path / "cut" / ".unfinished" / "depths-0.jsonl").is_file()
    # a line that was being written when the power went
    with (tmp_path / "cut" / ".unfinished" / "depths-0.jsonl").open("a") as file:
        file.write('[4, "whole", 0')
    resumed = write_pack([reader], tmp_path / "cut", options, workers=1, resume=True)
    assert resumed.info.checksums == whole.info.checksums
    assert resumed.info.notes == whole.info.notes


class _StopsAt:
    """A loader that is interrupted at one image, as by Ctrl-C."""

    def __init__(self, load: Any, name: str, sign: Path) -> None:
        self._load, self._name, self._sign = load, name, sign

    def __call__(self, sample: Any) -> Any:
        if sample.source == self._name:
            raise KeyboardInterrupt
        return self._load(sample)

    def decoding_as(self, decoding: Decoding) -> _StopsAt:
        return _StopsAt(self._load.decoding_as(decoding), self._name, self._sign)

    def spread(self, sample: Any) -> Any:
        return self._load.spread(sample)


def test_a_source_of_8_bits_is_not_looked_at_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        save_grey(source / f"{i}.png", ramp(200).astype(np.uint8))
    monkeypatch.setattr(
        "twinray.data.packing.scales.Scales.find", lambda *_: pytest.fail("looked again")
    )
    result = write_pack(
        [read_folder(source)], tmp_path / "p", PackOptions(size=32, val=0, test=0), workers=0
    )
    assert result.info.decoded == Decoded()


def test_sources_have_scales_of_their_own(tmp_path: Path) -> None:
    for name, top in (("one", 1000), ("two", 16_000)):
        (tmp_path / name).mkdir()
        save_grey(tmp_path / name / "a.png", ramp(top))
    write_pack(
        [read_folder(tmp_path / "one"), read_folder(tmp_path / "two")],
        tmp_path / "p",
        PackOptions(size=64, val=0, test=0),
        workers=1,
    )
    pack = open_pack(tmp_path / "p")
    assert {name: one.whole for name, one in pack.info.decoded.scales.items()} == {
        "one": (0, 1023),
        "two": (0, 16383),
    }
    assert pack.info.decoded.for_new_files(None).scale == Scale()  # which of the two is a guess
    assert pack.info.decoded.for_new_files(Scale((0, 9), None)).scale == Scale((0, 9), None)


def test_new_files_without_a_scale_are_refused_with_the_flag(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", ramp(1000))
    with pytest.raises(UnscaledError, match="--depth"):
        load_image(tmp_path / "a.png", decoding=Decoded().for_new_files(None))
    eight = Decoded().for_new_files(declared(12, None))
    assert load_image(tmp_path / "a.png", decoding=eight).array.max() == round(1000 / 4095 * 255)


def test_a_pack_without_deep_images_says_nothing_of_scales(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    save_grey(tmp_path / "s" / "a.png", ramp(200).astype(np.uint8))
    write_pack(
        [read_folder(tmp_path / "s")],
        tmp_path / "p",
        PackOptions(size=32, val=0, test=0),
        workers=0,
    )
    assert "decoded" not in json.loads((tmp_path / "p" / "pack.json").read_text())
    assert open_pack(tmp_path / "p").info.decoded == Decoded()


@pytest.mark.parametrize(
    ("depth", "value_range"),
    [(7, None), (17, None), (12, (0.0, 1.0)), (None, (1.0, 1.0)), (None, (0.0, float("nan")))],
)
def test_scales_that_cannot_be(depth: int | None, value_range: tuple[float, float] | None) -> None:
    with pytest.raises(InputError, match=r"--(depth|value-range)"):
        declared(depth, value_range)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 65534), min_size=1, max_size=12), st.randoms())
def test_the_order_of_images_makes_no_difference(tops: list[int], random: Any) -> None:
    named = [(f"{i}.png", spread(np.array([0, top], np.uint16))) for i, top in enumerate(tops)]
    scale = Survey.of(named).scale()
    random.shuffle(named)
    assert Survey.of(named).scale() == scale
    assert scale.whole is not None
    assert scale.whole[1] >= max(tops)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 16), st.lists(st.integers(0, 65535), min_size=2, max_size=40))
def test_grey_levels_are_linear_and_never_wrap(depth: int, values: list[int]) -> None:
    top = (1 << depth) - 1
    array = np.array(values, np.uint16)
    want = np.clip(array.astype(float), 0, top) / top * 255
    np.testing.assert_allclose(to_grey_levels(array, (0, top)), want, atol=0.51)
    large = np.tile(array, 70_000 // len(array) + 1)
    np.testing.assert_array_equal(
        to_grey_levels(large, (0, top))[: len(array)], to_grey_levels(array, (0, top))
    )


def test_predictions_take_the_scale_of_the_models_pack(tmp_path: Path) -> None:
    from twinray.runs.description import read_description

    scales = {"s": {"whole": [0, 4095], "real": None}}
    pack = {"size": 64, "fit": "squash", "channels": 1}
    described = {
        "kind": "detector",
        "sha256": "0",
        "arch": "x",
        "classes": ["a"],
        "size": 64,
        "data": [],
        "seed": 0,
    }
    for decoded, scale in (({"decoded": {"scales": scales}}, Scale((0, 4095))), ({}, Scale())):
        text = json.dumps({**described, "options": {}, "pack": {**pack, **decoded}})
        (tmp_path / "model.json").write_text(text)
        found = read_description(tmp_path / "model.json").pack.decoded
        assert found.for_new_files(None).scale == scale

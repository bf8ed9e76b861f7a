"""Every kind of file becomes uint8 grey or RGB, or one line that says why not."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from twinray.data.decoding.images import (
    IMAGE_SUFFIXES,
    file_kind,
    image_size,
    is_image_name,
    load_image,
)
from twinray.errors import InputError

Picture = npt.NDArray[np.uint8]


@pytest.fixture
def ramp() -> Picture:
    return np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)


@pytest.fixture
def colour() -> Picture:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def save(
    path: Path, array: npt.NDArray[np.generic], mode: str | None = None, **options: object
) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)  # type: ignore[arg-type]
    return path


def refusal(path: Path, **options: int) -> str:
    with pytest.raises(InputError) as caught:
        load_image(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "pgm"])
def test_grey_comes_back_exactly(tmp_path: Path, ramp: Picture, suffix: str) -> None:
    pixels = load_image(save(tmp_path / f"a.{suffix}", ramp))
    assert pixels.array.dtype == np.uint8
    np.testing.assert_array_equal(pixels.array, ramp)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "CMYK"])
def test_grey_held_by_a_colour_file_is_grey(tmp_path: Path, ramp: Picture, mode: str) -> None:
    path = save(tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}", ramp, mode)
    pixels = load_image(path)
    assert pixels.array.shape == ramp.shape
    np.testing.assert_array_equal(pixels.array, ramp)
    assert "grey" in pixels.how


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_stays_colour(tmp_path: Path, colour: Picture, mode: str) -> None:
    np.testing.assert_array_equal(load_image(save(tmp_path / "a.png", colour, mode)).array, colour)


def test_one_level_of_colour_in_a_png_is_colour(tmp_path: Path, ramp: Picture) -> None:
    rgb = np.dstack([ramp] * 3)
    rgb[3, 4, 2] ^= 1
    assert load_image(save(tmp_path / "a.png", rgb)).array.shape == (12, 20, 3)


def test_a_palette_of_colours_and_one_of_greys(tmp_path: Path, colour: Picture) -> None:
    image = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    image.save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels.array, np.asarray(image.convert("RGB")))
    assert pixels.how == "png palette"


def test_cmyk_and_ycbcr_become_rgb(tmp_path: Path, colour: Picture) -> None:
    for mode in ("CMYK", "YCbCr"):
        path = tmp_path / f"{mode}.tif"
        image = Image.fromarray(colour).convert(mode)
        image.save(path)
        np.testing.assert_allclose(load_image(path).array, np.asarray(image.convert("RGB")), atol=3)


def test_jpeg_that_holds_grey_as_rgb_is_grey(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:64, 0:96]
    smooth = ((np.sin(rows / 9) + np.cos(columns / 11) + 2) * 63).astype(np.uint8)
    pixels = load_image(save(tmp_path / "a.jpeg", np.dstack([smooth] * 3), quality=90))
    assert pixels.array.shape == (64, 96)
    assert pixels.how == "jpeg rgb holding grey"
    np.testing.assert_allclose(pixels.array.astype(int), smooth, atol=6)
    assert load_image(save(tmp_path / "b.jpg", smooth)).how == "jpeg 8-bit grey"


def test_alpha_is_dropped_if_opaque_and_laid_on_black_if_not(
    tmp_path: Path, colour: Picture, ramp: Picture
) -> None:
    alpha = np.full((12, 20), 255, dtype=np.uint8)
    assert load_image(save(tmp_path / "a.png", np.dstack([colour, alpha]))).how == "png rgba"
    alpha[:, :10] = 0
    pixels = load_image(save(tmp_path / "b.png", np.dstack([colour, alpha])))
    assert pixels.how == "png rgba on black"
    assert not pixels.array[:, :10].any()
    np.testing.assert_array_equal(pixels.array[:, 10:], colour[:, 10:])
    grey = load_image(save(tmp_path / "c.png", np.dstack([ramp, alpha])))
    assert grey.array.shape == (12, 20)
    assert grey.how == "png grey on black"
    np.testing.assert_array_equal(grey.array[:, 10:], ramp[:, 10:])


def test_a_transparent_palette_entry_becomes_black(tmp_path: Path, ramp: Picture) -> None:
    save(tmp_path / "a.png", ramp, "P", transparency=bytes([0] * 128 + [255] * 128))
    pixels = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels.array, np.where(ramp < 128, 0, ramp))


def test_one_bit(tmp_path: Path, ramp: Picture) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(ramp > 100).save(path)
    np.testing.assert_array_equal(load_image(path).array, np.where(ramp > 100, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("bits", "top"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)]
)
def test_deep_grey_is_scaled_from_the_depth_that_holds_it(
    tmp_path: Path, bits: int, top: int, suffix: str
) -> None:
    values = np.linspace(0, top * 0.9, 240).astype(np.uint16).reshape(12, 20)
    pixels = load_image(save(tmp_path / f"a.{suffix}", values))
    np.testing.assert_allclose(pixels.array, values * (255 / top), atol=0.51)
    assert pixels.how == f"{'tiff' if suffix == 'tif' else 'png'} 16-bit grey, 0..{top} scaled"


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=24, max_size=24).filter(lambda b: max(b) >= 64))
def test_an_8_bit_picture_saved_with_16_bits_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    grey = np.frombuffer(data, dtype=np.uint8).reshape(4, 6)
    path = tmp_path_factory.getbasetemp() / "deep.png"
    np.testing.assert_array_equal(load_image(save(path, grey.astype(np.uint16) * 257)).array, grey)


def test_other_number_types(tmp_path: Path) -> None:
    unit = np.linspace(0, 0.5, 240, dtype=np.float32).reshape(12, 20)
    np.testing.assert_allclose(
        load_image(save(tmp_path / "a.tif", unit)).array, unit * 255, atol=0.51
    )
    units = np.linspace(-1000, 3000, 240).astype(np.int32).reshape(12, 20)
    pixels = load_image(save(tmp_path / "b.tif", units))
    np.testing.assert_allclose(pixels.array, (units + 1000) * (255 / 4000), atol=0.51)
    assert "-1000..3000" in pixels.how
    assert not load_image(
        save(tmp_path / "c.tif", np.full((3, 4), 7e9, dtype=np.float32))
    ).array.any()
    assert "not finite" in refusal(
        save(tmp_path / "d.tif", np.array([[1, np.nan]], dtype=np.float32))
    )


def test_tiff_where_white_is_zero_is_inverted_at_every_depth(tmp_path: Path, ramp: Picture) -> None:
    for name, values in (("a", ramp), ("b", ramp.astype(np.uint16) * 257)):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(values).save(path)
        plain = load_image(path).array
        # Turn BlackIsZero into WhiteIsZero in the file's directory: tag 262, type SHORT, one value.
        data = path.read_bytes()
        assert data.count(struct.pack("<HHIH", 262, 3, 1, 1)) == 1
        path.write_bytes(
            data.replace(struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 0))
        )
        np.testing.assert_array_equal(load_image(path).array, 255 - plain)


def test_exif_orientation_is_told_and_not_applied(tmp_path: Path, ramp: Picture) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp).save(path, exif=exif)
    pixels = load_image(path)
    assert pixels.array.shape == (12, 20)
    assert pixels.how.endswith("exif orientation 6 not applied")


def test_several_frames_are_refused(tmp_path: Path, ramp: Picture) -> None:
    frames = [Image.fromarray(ramp), Image.fromarray(255 - ramp)]
    for suffix in ("tif", "gif", "png"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert "got 2 frames" in refusal(path)


def test_size_from_the_header(tmp_path: Path, ramp: Picture) -> None:
    for suffix in ("png", "jpg", "tif", "bmp"):
        assert image_size(save(tmp_path / f"a.{suffix}", ramp)) == (20, 12)


def test_content_not_name_tells_the_kind(tmp_path: Path, ramp: Picture) -> None:
    save(tmp_path / "a.png", ramp).rename(tmp_path / "a.jpg")
    assert file_kind(tmp_path / "a.jpg") == "png"
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg").array, ramp)


def test_image_names() -> None:
    assert all(is_image_name(Path("dir") / f"a{suffix.upper()}") for suffix in IMAGE_SUFFIXES)
    assert not any(
        is_image_name(Path(name)) for name in ("a.txt", "a", "png", ".a.png", "._a.png", "a.csv")
    )


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("hello, I am a text\n" * 20)
    assert "got text" in refusal(text)
    empty = tmp_path / "b.png"
    empty.touch()
    assert "empty file" in refusal(empty)
    junk = tmp_path / "c.png"
    junk.write_bytes(bytes(range(256)))
    assert "unknown content" in refusal(junk)
    dicom = tmp_path / "d.dcm"
    dicom.write_bytes(bytes(range(256)))
    assert "DICM" in refusal(dicom)
    assert "none here" in refusal(tmp_path / "missing.png")
    assert "folder" in refusal(tmp_path)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "pipe" in refusal(pipe)
    for path in (text, empty, tmp_path / "missing.png", tmp_path):
        with pytest.raises(InputError):
            image_size(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path, ramp: Picture) -> None:
    path = save(tmp_path / "a.png", ramp)
    path.chmod(0)
    assert "permission" in refusal(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[: max(16, int(len(data) * share))])
        assert "cannot be decoded" in refusal(path) or "damaged" in refusal(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 4096)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(12_500, 12_500))
    assert "more than the limit of 150000000" in refusal(path)
    path.write_bytes(png_header(60_000, 60_000))
    assert "bomb" in refusal(path)
    assert "more than the limit of 100" in refusal(
        save(path, np.zeros((11, 10), dtype=np.uint8)), max_pixels=100
    )


def test_a_text_chunk_that_inflates_without_end(tmp_path: Path, ramp: Picture) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (64 << 20), zip=True)
    path = tmp_path / "a.png"
    Image.fromarray(ramp).save(path, pnginfo=info)
    assert path.stat().st_size < 1 << 20
    refusal(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp", "jp2"])
def test_mutated_files_give_pixels_or_one_line(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(len(suffix))
    path = save(tmp_path / f"a.{suffix}", rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(40):
        broken = data.copy()
        where = rng.integers(0, min(len(data), 400), size=rng.integers(1, 6))
        broken[where] = rng.integers(0, 256, size=len(where))
        path.write_bytes(broken.tobytes())
        try:
            pixels = load_image(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert pixels.array.dtype == np.uint8
            assert pixels.array.ndim in (2, 3)

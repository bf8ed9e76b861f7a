"""The matrix of file formats: pictures that other programs wrote come back to 1/255, whatever the format and layout.

Writers are ImageMagick, tifffile and OpenJPEG where they are installed, and Pillow. The truth is the array that was written.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from twinray.data.decoding.images import load_image
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import declared
from twinray.errors import InputError

Values = npt.NDArray[Any]
SIDE = (37, 53)
MAGICK = shutil.which("magick") or shutil.which("convert-im6.q16") or shutil.which("convert")


def drawn(channels: int, bits: int) -> Values:
    """(h, w) or (h, w, channels) of all levels, black and white among them; smooth, so that lossy formats come close."""
    rows, columns = np.mgrid[: SIDE[0], : SIDE[1]]
    top = (1 << bits) - 1
    planes = [
        (np.sin(rows / (7 + k)) * np.cos(columns / (9 - k)) / 2 + 0.5) * top
        for k in range(channels)
    ]
    values = np.stack(planes, -1).round().astype(np.uint8 if bits == 8 else np.uint16)
    values[0, 0], values[0, 1] = 0, top
    return values[..., 0] if channels == 1 else values


def levels(values: Values, bits: int) -> Values:
    return values.astype(np.float64) / ((1 << bits) - 1) * 255


def distance(path: Path, wanted: Values, depth: int | None = None) -> float:
    """Largest difference in grey levels; a grey picture in a colour file may come as grey."""
    decoding = Decoding(scale=declared(depth, None)) if depth else Decoding()
    found = load_image(path, decoding=decoding).array.astype(np.float64)
    found = found[..., None] if wanted.ndim == 3 and found.ndim == 2 else found
    return float(np.abs(found - wanted).max())


def by_magick(path: Path, values: Values, bits: int, *options: str) -> None:
    if MAGICK is None:
        pytest.skip("ImageMagick is not installed")
    kind = "gray" if values.ndim == 2 else "rgb"
    raw = values.astype(f"<u{1 if bits == 8 else 2}").tobytes()
    size = ("-size", f"{SIDE[1]}x{SIDE[0]}", "-depth", str(bits), "-endian", "LSB")
    command = [MAGICK, *size, f"{kind}:-", *options, str(path)]
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    if done.returncode or not path.is_file():
        pytest.skip(f"ImageMagick cannot write it here: {done.stderr.decode()[:100]}")


def read_by_magick(path: Path, like: Values, bits: int) -> Values:
    """The file's values, as ImageMagick itself reads them."""
    assert MAGICK is not None
    kind = "gray" if like.ndim == 2 else "rgb"
    command = [MAGICK, str(path), "-depth", str(bits), "-endian", "LSB", f"{kind}:-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, f"<u{1 if bits == 8 else 2}").reshape(like.shape).astype(like.dtype)


LOSSLESS = {
    "png grey": (1, 8, "a.png", ()),
    "png rgb": (3, 8, "a.png", ()),
    "png grey, interlaced": (1, 8, "a.png", ("-interlace", "PNG")),
    "png palette": (1, 8, "a.png", ("-type", "Palette")),
    "png grey 16": (1, 16, "a.png", ()),
    "png rgb 16": (3, 16, "a.png", ()),
    "tiff grey": (1, 8, "a.tif", ("-compress", "None")),
    "tiff lzw": (3, 8, "a.tif", ("-compress", "LZW")),
    "tiff deflate": (1, 8, "a.tif", ("-compress", "Zip")),
    "tiff packbits": (1, 8, "a.tif", ("-compress", "RLE")),
    "tiff grey 16 lzw": (1, 16, "a.tif", ("-compress", "LZW")),
    "tiff rgb 16 deflate": (3, 16, "a.tif", ("-compress", "Zip")),
    "tiff big-endian 16": (1, 16, "a.tif", ("-endian", "MSB", "-compress", "None")),
    "tiff white is zero": (1, 8, "a.tif", ("-define", "quantum:polarity=min-is-white", "-compress", "None")),
    "tiff planes": (3, 8, "a.tif", ("-interlace", "Plane", "-compress", "None")),
    "bmp": (3, 8, "a.bmp", ()),
    "bmp grey": (1, 8, "a.bmp", ()),
    "gif": (1, 8, "a.gif", ()),
    "pgm": (1, 8, "a.pgm", ()),
    "pgm as text": (1, 8, "a.pgm", ("-compress", "None")),
    "pgm 16": (1, 16, "a.pgm", ()),
    "ppm 16": (3, 16, "a.ppm", ()),
    "webp lossless": (3, 8, "a.webp", ("-define", "webp:lossless=true")),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSLESS)
def test_what_imagemagick_writes_comes_back(tmp_path: Path, kind: str) -> None:
    channels, bits, name, options = LOSSLESS[kind]
    values = drawn(channels, bits)
    by_magick(tmp_path / name, values, bits, *options)
    # Palettes hold fewer levels than were asked for, so its own reading is what is compared with.
    held = read_by_magick(tmp_path / name, values, bits)
    assert distance(tmp_path / name, levels(held, bits)) <= 0.5 + 1e-9
    if "palette" not in kind and kind not in ("gif", "tiff white is zero"):
        np.testing.assert_array_equal(held, values)


@pytest.mark.parametrize("quality", [90, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_as_pillow_decodes_it(tmp_path: Path, channels: int, quality: int) -> None:
    path = tmp_path / "a.jpg"
    by_magick(path, drawn(channels, 8), 8, "-quality", str(quality), "-interlace", "JPEG")
    wanted = np.asarray(Image.open(path)).astype(np.float64)
    assert distance(path, wanted) <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", ["strips", "tiles", "big-endian", "BigTIFF", "planes"])
def test_what_tifffile_writes_comes_back(
    tmp_path: Path, channels: int, bits: int, compression: str | None, layout: str
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = drawn(channels, bits)
    options: dict[str, Any] = {
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (16, 16)},
        "big-endian": {"byteorder": ">"},
        "BigTIFF": {"bigtiff": True},
        "planes": {"planarconfig": "separate"} if channels == 3 else {},
    }[layout]
    written = np.moveaxis(values, -1, 0) if layout == "planes" and channels == 3 else values
    kind = "rgb" if channels == 3 else "minisblack"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, written, photometric=kind, compression=compression, **options)
    if layout == "planes" and channels == 3 and bits == 16:
        with pytest.raises(InputError, match="cannot be read without loss"):
            load_image(path)
        return
    assert distance(path, levels(values, bits)) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((), "f8", "1 channel of 64-bit floating point"),
        ((), "f2", "1 channel of 16-bit floating point"),
        ((), "u8", "1 channel of 64-bit whole numbers"),
        ((), "c8", "1 channel of 64-bit complex"),
        ((2,), "u2", "2 channels of 16-bit whole numbers"),
        ((3,), "f4", "3 channels of 32-bit floating point"),
        ((3,), "i2", "3 channels of 16-bit signed whole numbers"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_layouts_of_tiff_that_cannot_be_read_are_named(
    tmp_path: Path, shape: tuple[int, ...], kind: str, words: str, order: str
) -> None:
    """They are whole: nobody should copy them again from their source."""
    tifffile = pytest.importorskip("tifffile")
    values = np.zeros((*SIDE, *shape), kind)
    photometric = "rgb" if shape == (3,) else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if shape == (2,) else {}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, byteorder=order, **extra)
    with pytest.raises(InputError, match=words) as caught:
        load_image(tmp_path / "a.tif")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (1, 12), (1, 16), (3, 8), (3, 12), (3, 16)])
def test_what_openjpeg_writes_comes_back(
    tmp_path: Path, channels: int, bits: int, codec: int
) -> None:
    encode = pytest.importorskip("openjpeg.utils").encode_array
    values = np.ascontiguousarray(drawn(channels, bits))
    colour = {"photometric_interpretation": 1 if channels == 3 else 2, "use_mct": channels == 3}
    path = tmp_path / ("a.j2k", "a.jp2")[codec]
    path.write_bytes(bytes(encode(values, bits_stored=bits, codec_format=codec, **colour)))
    assert distance(path, levels(values, bits)) <= 0.5 + 1e-9


def png(path: Path, values: Values, significant: bytes) -> None:
    """A 16-bit PNG with a chunk that says how many bits mean something."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = 0 if values.ndim == 2 else 2
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"sBIT", significant)
    body += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("place", ["scaled up", "low bits zero", "as they came"])
@pytest.mark.parametrize("channels", [1, 3])
def test_significant_bits_of_png_are_found_where_they_are(
    tmp_path: Path, channels: int, place: str, bits: int
) -> None:
    values = drawn(channels, bits)
    values = values // 3  # dark: no pixel shows the depth
    spare = 16 - bits
    stored = {
        "scaled up": (values << spare) | (values >> (bits - spare)),
        "low bits zero": values << spare,
        "as they came": values,
    }[place]
    png(tmp_path / "a.png", stored, bytes([bits] * channels))
    assert (
        distance(tmp_path / "a.png", levels(values, bits)) <= 0.51
    )  # repeated bits are not quite in proportion

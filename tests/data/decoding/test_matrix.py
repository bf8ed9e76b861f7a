"""The matrix of file formats: pictures that other programs wrote come back to 1/255, whatever the format and layout.

Writers are ImageMagick, tifffile and OpenJPEG where they are installed, and Pillow. The truth is the array that was written.
"""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
import sys
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
    assert distance(path, levels(values, bits)) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((), "f8", "1 channel of 64-bit floating point"),
        ((), "f2", "1 channel of 16-bit floating point"),
        ((), "u8", "1 channel of 64-bit whole numbers"),
        ((), "c8", "1 channel of 64-bit complex"),
        ((2,), "u4", "2 channels of 32-bit whole numbers"),
        ((2,), "i2", "2 channels of 16-bit signed whole numbers"),
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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero_in_either_byte_order(tmp_path: Path, bits: int, order: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = drawn(1, bits)
    top = (1 << bits) - 1
    written = (top - values).astype(values.dtype)
    tifffile.imwrite(tmp_path / "a.tif", written, photometric="miniswhite", byteorder=order)
    assert distance(tmp_path / "a.tif", levels(values, bits)) <= 0.5 + 1e-9


def behind_a_window(bits: int) -> tuple[Values, Values]:
    """(h, w, 2) grey and alpha of a window that is clear, hidden and half seen, and the (h, w) grey levels on black."""
    grey, top = drawn(1, bits), (1 << bits) - 1
    alpha = np.full_like(grey, top)
    alpha[:, :10], alpha[:, 10:20] = 0, round(top * 0.4)
    return np.stack([grey, alpha], -1), levels(grey, bits) * (alpha / top)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "layout",
    ["strips", "tiles", "big-endian", "BigTIFF", "planes", "planes, big-endian", "predictor"],
)
@pytest.mark.parametrize("white", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("second", ["unassalpha", "assocalpha", "unspecified"])
def test_grey_and_a_second_channel_that_tifffile_writes(
    tmp_path: Path, second: str, white: str, layout: str, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    both, on_black = behind_a_window(16)
    options: dict[str, Any] = {
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (16, 16)},
        "big-endian": {"byteorder": ">"},
        "BigTIFF": {"bigtiff": True},
        "planes": {"planarconfig": "separate", "rowsperstrip": 5},
        "planes, big-endian": {"planarconfig": "separate", "byteorder": ">"},
        "predictor": {"predictor": compression is not None},
    }[layout]
    options = {"planarconfig": "contig", **options}
    if second == "assocalpha":
        # what lies on black already: grey times alpha, or in a file where white is 0, that of the picture it means
        seen = np.rint(on_black * 257).astype(np.uint16)
        both[..., 0] = 65535 - seen if white == "miniswhite" else seen
        wanted = on_black
    else:
        shown = levels(both[..., 0], 16)
        wanted = on_black if second == "unassalpha" else shown
        both[..., 0] = 65535 - both[..., 0] if white == "miniswhite" else both[..., 0]
    written = np.moveaxis(both, -1, 0) if "planes" in layout else both
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, written, photometric=white, extrasamples=[second], compression=compression, **options
    )
    assert distance(path, wanted) <= 1
    pixels = load_image(path)
    assert ("channels", "1") in pixels.remarks if second == "unspecified" else not pixels.remarks
    assert pixels.array.ndim == 2


@pytest.mark.parametrize("layout", ["chunky", "planes"])
@pytest.mark.parametrize("second", ["unassalpha", "assocalpha", "unspecified"])
def test_deep_colour_and_a_fourth_channel(tmp_path: Path, second: str, layout: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.concatenate([drawn(3, 16), np.full((*SIDE, 1), 65535, np.uint16)], -1)
    values[:, :10, 3] = 0
    wanted = levels(values[..., :3], 16)
    if second == "assocalpha":
        values[:, :10, :3] = 0
    if second != "unspecified":
        wanted[:, :10] = 0
    written = np.moveaxis(values, -1, 0) if layout == "planes" else values
    tifffile.imwrite(
        tmp_path / "a.tif",
        written,
        photometric="rgb",
        extrasamples=[second],
        planarconfig="separate" if layout == "planes" else "contig",
        compression="zlib",
    )
    assert distance(tmp_path / "a.tif", wanted) <= 0.5 + 1e-9


@pytest.mark.parametrize("name", ["a.tif", "lzw.tif", "a.jp2", "a.j2k"])
def test_grey_and_alpha_that_imagemagick_writes(tmp_path: Path, name: str) -> None:
    if MAGICK is None:
        pytest.skip("ImageMagick is not installed")
    both, on_black = behind_a_window(16)
    png(tmp_path / "a.png", both, b"")
    packed = ["-compress", "LZW"] if "lzw" in name else []
    command = [MAGICK, str(tmp_path / "a.png"), *packed, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not (tmp_path / name).is_file():
        pytest.skip(f"ImageMagick cannot write it here: {done.stderr.decode()[:100]}")
    assert distance(tmp_path / name, on_black) <= 1
    assert "and alpha" in load_image(tmp_path / name).how


TWELVE_BITS_AND_ALPHA = base64.b64decode(
    "/0//UQAsAAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAACCwEBCwEB/1IADAAAAAEABAQEAAH/XAAQQICIiJCIiJCIiJCIiJD/"
    "ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAADlAAH/k8B+wGAIh3/A/kCABYnAD8AKB/gCAARfBGLA/wAo"
    "A/MCgP8AMAGxCdEHL3/AB9oHAfyCgA0CBQs9hRl/wP8AiAfsDwB+wOAHe6qBc33U3w0cCoKZvD8G4Cj8WLR/wAPqBYB+wKAiGghdfwN/3VJO"
    "wP8A+A/kLgD9gkAXESTc1sIhUUCPdyb6Jk8buPYamcLkhg3tLBYBuoxH04LfH8AB84SAPzBQNqGZzz2mNGDPwP8A6A/kMgD9gUAk2dvQ9jEO"
    "NccYGU0j1ykg8OJBKZDKlSrpfyTdZPnf/9k="
)
"""A JPEG 2000 codestream by OpenJPEG of 16 x 16 pixels and two components of 12 bits.

Grey is 16 x (16 x row + column). Alpha is 0 in the left half; in the right, 4095 above and 1638 below.
"""


def jp2(codestream: bytes, *channels: tuple[int, int, int]) -> bytes:
    """A JP2 file (ISO/IEC 15444-1, annex I) with channel definitions: channel, type, colour that it belongs to."""

    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + kind + data

    head = box(b"ihdr", struct.pack(">IIHBBBB", 16, 16, 2, 11, 7, 0, 0))
    head += box(b"colr", struct.pack(">BBBI", 1, 0, 0, 17))
    definitions = b"".join(struct.pack(">HHH", *one) for one in channels)
    head += box(b"cdef", struct.pack(">H", len(channels)) + definitions) if channels else b""
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", head) + box(b"jp2c", codestream)


def with_alpha_of_8_bits(codestream: bytes) -> bytes:
    """The same with another precision of its second component, to which decoders cut its values off: 255 and 0."""
    at = codestream.find(b"\xff\x4f\xff\x51") + 45
    return codestream[:at] + bytes([7]) + codestream[at + 1 :]


STRAIGHT, MULTIPLIED = (1, 1, 0), (1, 2, 0)


@pytest.mark.parametrize(
    ("data", "half"),
    [
        (TWELVE_BITS_AND_ALPHA, 0.4),
        (jp2(TWELVE_BITS_AND_ALPHA), 0.4),
        (jp2(TWELVE_BITS_AND_ALPHA, (0, 0, 1), STRAIGHT), 0.4),
        (with_alpha_of_8_bits(TWELVE_BITS_AND_ALPHA), 0),
    ],
    ids=["codestream", "file", "definitions", "alpha of 8 bits"],
)
def test_grey_of_12_bits_and_alpha_in_jpeg_2000(tmp_path: Path, data: bytes, half: float) -> None:
    pytest.importorskip("openjpeg.utils")
    path = tmp_path / "a.jp2"
    path.write_bytes(data)
    rows, columns = np.mgrid[:16, :16]
    share = np.where(columns < 8, 0, np.where(rows < 8, 1, half))
    wanted = 16 * (16 * rows + columns) / 4095 * 255 * share
    assert distance(path, wanted) <= 1
    assert load_image(path).how.startswith("jpeg 2000 12-bit grey and alpha, 0..4095 scaled")
    linear = load_image(path, decoding=Decoding(linear=True))
    np.testing.assert_allclose(linear.array, 16 * (16 * rows + columns) * share, atol=0.51)


def test_alpha_that_is_multiplied_in_jpeg_2000_is_on_black(tmp_path: Path) -> None:
    pytest.importorskip("openjpeg.utils")
    (tmp_path / "a.jp2").write_bytes(jp2(TWELVE_BITS_AND_ALPHA, (0, 0, 1), MULTIPLIED))
    rows, columns = np.mgrid[:16, :16]
    assert distance(tmp_path / "a.jp2", 16 * (16 * rows + columns) / 4095 * 255) <= 0.51


@pytest.mark.parametrize(
    "channels", [((0, 1, 0), (1, 0, 1)), ((0, 0, 1), (1, 65_535, 65_535)), ((0, 0, 1), (1, 0, 2))]
)
def test_channels_of_jpeg_2000_that_are_no_alpha_are_refused(
    tmp_path: Path, channels: tuple[tuple[int, int, int], ...]
) -> None:
    pytest.importorskip("openjpeg.utils")
    (tmp_path / "a.jp2").write_bytes(jp2(TWELVE_BITS_AND_ALPHA, *channels))
    with pytest.raises(InputError, match="channel definitions say that channel 2 is no alpha"):
        load_image(tmp_path / "a.jp2")


def test_deep_channels_of_jpeg_2000_without_their_decoder_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.j2k").write_bytes(TWELVE_BITS_AND_ALPHA)
    monkeypatch.setitem(sys.modules, "openjpeg", None)
    with pytest.raises(InputError, match=r"twinray\[dicom\]") as caught:
        load_image(tmp_path / "a.j2k")
    assert "copy the file again" not in str(caught.value)


def test_grey_multiplied_by_alpha_is_on_black_at_8_bits_too(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    both, _ = behind_a_window(8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        both,
        photometric="minisblack",
        extrasamples=["assocalpha"],
        planarconfig="contig",
    )
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif").array, both[..., 0])


def png(path: Path, values: Values, significant: bytes) -> None:
    """A 16-bit PNG with a chunk that says how many bits mean something."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = 0 if values.ndim == 2 else {2: 4, 3: 2}[values.shape[2]]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + (chunk(b"sBIT", significant) if significant else b"")
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

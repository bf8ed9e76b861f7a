"""Files that are not whole are refused, or kept and named; whole ones never are, however dark their ends."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from support import REAL_DATA
from twinray.data.decoding.damage import cut_row, hole, packbits_size, png_fault, run_fault
from twinray.data.decoding.images import load_image
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import Scale
from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
from twinray.errors import InputError

Picture = npt.NDArray[np.uint8]
LENIENT = Decoding(lenient=True)


def radiograph(dark_rows: int = 0, side: int = 512) -> Picture:
    y, x = np.mgrid[0:side, 0:side]
    noise = np.random.default_rng(0).normal(0, 6, (side, side))
    picture = (120 + 80 * np.sin(x / 40) * np.cos(y / 55) + noise).clip(0, 255).astype(np.uint8)
    picture[side - dark_rows :] = 0
    return picture


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg-progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "jpeg-restart": ("JPEG", {"quality": 90, "restart_marker_rows": 4}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-packbits": ("TIFF", {"compression": "packbits"}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "webp": ("WEBP", {"quality": 90}),
    "jpeg2000": ("JPEG2000", {}),
    "jpeg2000-lossy": (
        "JPEG2000",
        {"irreversible": True, "quality_mode": "rates", "quality_layers": [8]},
    ),
    "gif": ("GIF", {}),
}


def encoded(name: str, picture: Picture) -> bytes:
    form, options = FORMATS[name]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, form, **options)
    return buffer.getvalue()


def holes(data: bytes) -> dict[str, bytes]:
    h = len(data) // 2
    return {
        "a lost sector": data[:h] + bytes(2048) + data[h + 2048 :],
        "erased flash": data[:h] + b"\xff" * 2048 + data[h + 2048 :],
        "a tail of zeros": data[:h] + bytes(len(data) - h),
        "cut": data[:h],
    }


@pytest.mark.parametrize("dark", [0, 200])
@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_taken_and_holes_are_not(tmp_path: Path, name: str, dark: int) -> None:
    data = encoded(name, radiograph(dark))
    path = tmp_path / "a"
    path.write_bytes(data)
    whole = load_image(path)
    assert not whole.remarks
    for what, broken in holes(data).items():
        path.write_bytes(broken)
        with pytest.raises(InputError) as caught:
            load_image(path)
        told = ("damaged", "cannot be decoded", "frames" if name == "gif" else "damaged")
        assert any(word in str(caught.value) for word in told), what


@pytest.mark.parametrize("name", [n for n in FORMATS if n.startswith("jpeg") and "2000" not in n])
def test_a_jpeg_cut_and_closed_again(tmp_path: Path, name: str) -> None:
    data = encoded(name, radiograph(100))
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
        with pytest.raises(InputError, match="Corrupt JPEG data"):
            load_image(tmp_path / "a.jpg")
        kept = load_image(tmp_path / "a.jpg", decoding=LENIENT)
        assert kept.array.shape == (512, 512)
        assert [kind for kind, _ in kept.remarks] == ["damaged"]
        assert kept.how.endswith("damaged")


@pytest.mark.parametrize("name", ["png", "tiff-deflate"])
def test_every_single_bit_changed_is_seen_where_there_is_a_checksum(
    tmp_path: Path, name: str
) -> None:
    """The documentation promises it of these two formats, and of no other."""
    file_format, options = FORMATS[name]
    path = tmp_path / "a"
    Image.fromarray(radiograph(side=64)).save(path, file_format, **options)
    data = path.read_bytes()
    for at in np.linspace(len(data) * 0.1, len(data) * 0.95, 60).astype(int).tolist():
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        with pytest.raises(InputError, match=r"damaged|cannot be decoded"):
            load_image(path)


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT", b"IEND", b"tEXt"])
def test_a_png_chunk_with_a_wrong_checksum_is_named(tmp_path: Path, chunk: bytes) -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "right lung")
    Image.fromarray(radiograph(0, 64)).save(tmp_path / "a.png", pnginfo=info)
    data = bytearray((tmp_path / "a.png").read_bytes())
    assert png_fault(bytes(data)) is None
    at = data.find(chunk) - 4
    length = int.from_bytes(data[at : at + 4], "big")
    data[at + 8 + length] ^= 1
    fault = png_fault(bytes(data))
    assert fault is not None
    assert chunk.decode() in fault
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError):
        load_image(tmp_path / "a.png")


def test_a_png_whose_stream_is_not_the_one_that_was_written(tmp_path: Path) -> None:
    """Right checksums around a stream whose own checksum is wrong: the picture was damaged before it was wrapped."""
    raw = b"".join(b"\0" + row.tobytes() for row in radiograph(0, 64))
    stream = bytearray(zlib.compress(raw, 0))
    stream[3000] ^= 0xFF

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", bytes(stream)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(body)
    with pytest.raises(InputError, match="cannot be decoded"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["bmp", "tif", "pgm"])
def test_uncompressed_pixels_that_end_in_the_middle_of_a_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    for dark in (0, 100):
        Image.fromarray(radiograph(dark)).save(path)
        data = path.read_bytes()
        assert not load_image(path).remarks
        if suffix == "tif":  # its directory stands at the end: only pixels are lost
            start, rest = 512 * 300 + 131, 512 * 200
            data = data[:start] + bytes(rest) + data[start + rest :]
            if dark == 0:
                continue
        else:
            data = data[: len(data) - 512 * 200 + 131] + bytes(512 * 200 - 131)
        path.write_bytes(data)
        with pytest.raises(InputError, match="in the middle of row"):
            load_image(path)


@pytest.mark.parametrize("suffix", ["bmp", "tif", "pgm", "dcm"])
@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 512 * 120 + 99), (512 * 200 + 77, 512 * 260), (512 * 200, 512 * 260 + 99)],
)
def test_uncompressed_pixels_with_a_hole(
    tmp_path: Path, suffix: str, start: int, stop: int
) -> None:
    """Sectors that a disk lost: at the beginning, in the middle, and from one whole row on."""
    from dicom_support import write_radiograph

    path = tmp_path / f"a.{suffix}"
    picture = np.clip(radiograph(100), 30, 255)
    for lost in (0, 255):
        broken = (picture[::-1] if suffix == "bmp" else picture).copy().ravel()
        broken[start:stop] = lost
        broken = broken.reshape(512, 512)
        broken = broken[::-1] if suffix == "bmp" else broken
        write_radiograph(path, broken) if suffix == "dcm" else Image.fromarray(broken).save(path)
        with pytest.raises(InputError, match="hold one value, and the picture breaks off"):
            load_image(path)
        assert load_image(path, decoding=LENIENT).remarks[0][0] == "damaged"


def test_bands_that_are_no_hole() -> None:
    """Two views on one film, a bar of text, a marker's frame."""
    two = np.concatenate([radiograph()[:250], np.zeros((20, 512), np.uint8), radiograph()[:242]])
    assert hole(two) is None
    barred = radiograph(80)
    barred[200:240] = 0
    barred[210:220, 100:300] = 255
    assert hole(barred) is None
    assert hole(np.zeros((64, 64), np.uint8)) is None


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, 7.0, 45.0])
@pytest.mark.parametrize("value", [0, 255])
def test_collimators_and_letterboxes_are_no_damage(angle: float, value: int) -> None:
    picture = radiograph()
    y, x = np.mgrid[0:512, 0:512]
    edge = 400 - np.tan(np.radians(angle)) * x
    for shape in (picture, picture[:, :40].repeat(13, 1)[:, :512]):
        collimated = np.where(y > edge, value, shape)
        assert cut_row(collimated) is None
        assert (
            hole(collimated[::-1]) is None
            and hole(np.where(y > edge + 90, shape, collimated)) is None
        )
        collimated[:, :60] = collimated[:, 450:] = value
        assert cut_row(collimated) is None
    circle = np.where((y - 230) ** 2 + (x - 256) ** 2 < 200**2, picture, value)
    assert cut_row(circle) is None
    assert cut_row(np.full((64, 64), value, np.uint8)) is None


def test_runs_in_compressed_data() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    assert run_fault(noise) is None
    assert run_fault(noise[:9000] + bytes(200) + noise) is None
    for start in range(9000, 9070, 7):
        fault = run_fault(noise[:start] + bytes(300) + noise)
        assert fault is not None
        assert str(start)[:2] in fault


def test_packbits_sizes_are_those_of_the_rows() -> None:
    assert (
        packbits_size(bytes([0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x80])) == 10
    )  # TIFF 6.0, section 9


def test_dicom_frames_with_holes(tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "dicom_cases", Path(__file__).with_name("test_dicom.py")
    )
    assert spec is not None and spec.loader is not None
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    import pydicom

    pytest.importorskip("gdcm", reason="gdcm encodes JPEG Lossless")
    for syntax in (
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.JPEGBaseline8Bit,
        uid.RLELossless,
    ):
        bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
        ds = cases.radiograph(bits=bits)
        values = radiograph(100).astype("u2" if bits > 8 else "u1") << (bits - 8)
        ds.Rows = ds.Columns = 512
        ds.PixelData = values.astype(f"u{values.itemsize}").tobytes()
        path = cases.compressed(tmp_path / "a.dcm", ds, syntax)
        assert not load_image(path).remarks, syntax
        compressed = pydicom.dcmread(path)
        frame = get_frame(compressed.PixelData, 0, number_of_frames=1)
        for what, broken in (
            holes(frame) | {"closed": holes(frame)["a tail of zeros"][:-4] + frame[-4:]}
        ).items():
            compressed.PixelData = encapsulate([broken])
            compressed["PixelData"].is_undefined_length = True
            compressed.save_as(tmp_path / "b.dcm", enforce_file_format=True)
            try:
                pixels = load_image(tmp_path / "b.dcm")
            except InputError:
                continue
            pytest.fail(f"{syntax.name}, {what}: {pixels.how}")


def test_native_dicom_that_was_cut_and_filled_up(tmp_path: Path) -> None:
    from dicom_support import write_radiograph

    picture = radiograph()
    path = write_radiograph(tmp_path / "a.dcm", picture)
    assert not load_image(path).remarks
    half = picture.ravel().copy()
    half[512 * 300 + 77 :] = 0
    write_radiograph(path, half.reshape(512, 512))
    with pytest.raises(InputError, match="in the middle of row 300"):
        load_image(path)
    assert load_image(path, decoding=LENIENT).remarks[0][0] == "damaged"


def test_lenient_packs_keep_and_count_what_others_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(encoded("jpeg", radiograph(i * 50)))
    data = (source / "0.jpg").read_bytes()
    (source / "broken.jpg").write_bytes(holes(data)["a lost sector"])
    (source / "hopeless.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    options = PackOptions(size=64, val=0, test=0)
    strict = write_pack([read_folder(source)], tmp_path / "a", options, workers=1)
    assert (strict.info.counts["images"], strict.info.skipped) == (3, 2)
    lenient = PackOptions(size=64, val=0, test=0, lenient=True)
    kept = write_pack([read_folder(source)], tmp_path / "b", lenient, workers=1)
    assert (kept.info.counts["images"], kept.info.skipped) == (4, 1)
    assert any(
        note.startswith("WARNING: 1 damaged image was kept") and "broken.jpg" in note
        for note in kept.info.notes
    )
    assert kept.info.extra["remarks"] == {"damaged": 1}
    assert open_pack(tmp_path / "b").info.decoded.lenient


def test_images_of_one_value_and_nearly_blank_ones_are_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nearly = np.full((64, 64), 90, np.uint8)
    nearly[30, 30] = 91
    for name, picture in (
        ("white", np.full((64, 64), 255)),
        ("black", np.zeros((30, 64))),
        ("nearly", nearly),
        ("good", radiograph(0, 64)),
    ):
        Image.fromarray(picture.astype(np.uint8)).save(source / f"{name}.png")
    for fit in ("squash", "letterbox"):
        result = write_pack(
            [read_folder(source)],
            tmp_path / fit,
            PackOptions(size=64, fit=fit, val=0, test=0),
            workers=0,
        )
        notes = "\n".join(result.info.notes)
        assert "2 images have one single grey value: black.png (0), white.png (255)" in notes
        assert "1 image is nearly blank" in notes and "nearly.png" in notes


def test_no_false_alarm_on_real_radiographs() -> None:
    if not REAL_DATA.is_dir():
        pytest.skip("the real images are not here")
    files = [
        p for p in sorted(REAL_DATA.rglob("*")) if p.suffix in (".png", ".jpg", ".jpeg", ".dcm")
    ][::11]
    assert len(files) > 300
    for path in files:
        pixels = load_image(path, decoding=Decoding(Scale()))
        assert all(kind != "damaged" for kind, _ in pixels.remarks), path
        # as if the format had no checksum
        assert cut_row(pixels.array) is None and cut_row(pixels.array[::-1]) is None, path
        assert hole(pixels.array) is None and hole(pixels.array.T) is None, path

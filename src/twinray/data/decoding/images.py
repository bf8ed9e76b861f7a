"""One image file -> display-ready 8-bit pixels: PNG, JPEG, TIFF, BMP, ... through Pillow, and DICOM.

What is decided here, and recorded in ``Pixels.how``:

* The file's content tells its kind, never its name.
* Grey comes back as (h, w), also where a colour file holds it: equal channels, or in a JPEG, whose
  chroma is rounded, channels that differ by at most 2 grey levels. Everything else is (h, w, 3).
* Grey of more than 8 bits is scaled linearly from 0..2^b - 1, where b is the smallest of 8, 10, 12, 14
  and 16 bits (the depths of X-ray detectors and their exports) that holds the brightest pixel: black
  stays black, images of one detector stay comparable, a burnt-in marker does not stretch the rest
  differently, and an 8-bit picture saved with 16 bits comes back as it was. Integers outside 0..65535
  and floating point outside 0..1 and 0..255 are scaled from their own smallest to their largest value.
* Colour of 16 bits a channel is cut to the upper 8 (Pillow).
* Opaque alpha is dropped; where pixels are really transparent the image is laid on black.
* Never rotated or flipped: an EXIF orientation is not applied (``how`` says so), since left and right of
  a radiograph and the coordinates of its boxes belong to the stored pixels.
* Several frames or pages are refused: which one is meant is the user's decision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError

from twinray.data.decoding.bounded_file import first_bytes, one_line, regular_file_size
from twinray.errors import InputError
from twinray.records import Pixels

MAX_PIXELS = 150_000_000
"""Width x height above which a file is refused before it is decoded (Pillow itself stops at 178 million)."""

IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".webp",
        ".pgm",
        ".ppm",
        ".jp2",
        ".dcm",
        ".dicom",
    }
)
"""Lower-case file name endings that a folder scan takes for images."""

JPEG_GREY_TOLERANCE = 2
_DEPTHS = (8, 10, 12, 14, 16)

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"GIF8", "gif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"P2", "pnm"),
    (b"P3", "pnm"),
    (b"P5", "pnm"),
    (b"P6", "pnm"),
)
_PILLOW_FORMATS = {
    "png": ("PNG",),
    "jpeg": ("JPEG",),
    "tiff": ("TIFF",),
    "bmp": ("BMP",),
    "gif": ("GIF",),
    "webp": ("WEBP",),
    "jpeg2000": ("JPEG2000",),
    "pnm": ("PPM",),
}
_NAMES = {"jpeg2000": "jpeg 2000"}
_TIFF_PHOTOMETRIC, _EXIF_ORIENTATION = 262, 274


def is_image_name(path: Path) -> bool:
    """Whether a folder scan should take a file of this name for an image (by its ending; hidden files never)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def file_kind(path: Path) -> str:
    """What a file is by its first bytes: png, jpeg, tiff, bmp, gif, webp, jpeg2000, pnm, dicom or unknown.

    Raises:
        InputError: the file is missing, not a regular file, unreadable or empty.
    """
    head = first_bytes(path, 132)
    if head[128:] == b"DICM":
        return "dicom"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "unknown")


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels as stored, from the header alone.

    Raises:
        InputError: as :func:`load_image`, as far as the header shows it.
    """
    kind = file_kind(path)
    if kind == "dicom":
        from twinray.data.decoding.dicom.header import dicom_attributes  # late, as in load_image

        seen = dicom_attributes(path)
        if seen.width < 1 or seen.height < 1:
            raise InputError(f"{path}: expected a DICOM image, its header states no size; leave the file out")
        return seen.width, seen.height
    with _opened(path, kind) as image:
        width, height = image.size
    return width, height


def load_image(
    path: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    frontal_only: bool = False,
    any_class: bool = False,
) -> Pixels:
    """Decode one image file.

    Args:
        path: the file; what it is is told by its content.
        max_pixels: refuse more than this many pixels before decoding.
        frontal_only: DICOM only, see :func:`twinray.data.decoding.dicom.pixels.load_dicom`; ``any_class`` likewise.

    Returns:
        (h, w) or (h, w, 3) uint8 and the way taken.

    Raises:
        InputError: the file is missing, empty, unreadable, damaged, of no known kind, too large, or holds
            several frames; one line that says what to do.
    """
    kind = file_kind(path)
    if kind == "dicom":
        # pydicom loads for half a second, which every worker that decodes PNG files would wait for
        from twinray.data.decoding.dicom.header import MAX_DICOM_PIXELS
        from twinray.data.decoding.dicom.pixels import load_dicom

        limit = min(max_pixels, MAX_DICOM_PIXELS)
        return load_dicom(path, frontal_only=frontal_only, any_class=any_class, max_pixels=limit)
    with _opened(path, kind) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{path}: claims {width} x {height} pixels, more than the limit of {max_pixels}; leave it out"
            )
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1:
            raise InputError(f"{path}: expected one image, got {frames} frames or pages; save the wanted one as a file")
        turned = _orientation(image)
        image.load()
        name = _NAMES.get(kind, kind)
        array, how = _grey_or_colour(path, image, name)
    return Pixels(array, f"{name} {how}{turned}")


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    """The file opened by Pillow; any fault of opening or of what is done with it inside becomes an InputError."""
    if kind == "unknown":
        known = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PGM/PPM or DICOM"
        raise InputError(f"{path}: expected {known}, {_looks_like(path)}; remove it or convert it")
    advice = "copy the file again from its source or leave it out"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_PILLOW_FORMATS[kind]) as image:
                yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{path}: claims more than {limit} pixels (a decompression bomb?); leave it out") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: begins like {kind} but its header is damaged or unsupported; {advice}") from None
    except MemoryError:
        raise InputError(f"{path}: decoding {kind} needed more memory than allowed; leave it out") from None
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, KeyError, zlib.error, ... on damage.
        reason = one_line(error)
        raise InputError(f"{path}: expected a whole {kind} image, it cannot be decoded ({reason}); {advice}") from None


def _looks_like(path: Path) -> str:
    size = regular_file_size(path)
    head = first_bytes(path, 512)
    if path.suffix.lower() in (".dcm", ".dicom"):
        return "got a file without DICOM's mark 'DICM' at byte 128"
    if all(byte in (9, 10, 13) or byte >= 32 for byte in head):
        return f"got text ({size} bytes)"
    return f"got unknown content ({size} bytes)"


def _orientation(image: Any) -> str:
    """A remark for ``how`` if the file asks to be shown turned or mirrored."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data say nothing about the pixels
        return ""
    return "" if value in (0, 1) else f", exif orientation {value} not applied"


def _grey_or_colour(path: Path, image: Any, name: str) -> tuple[npt.NDArray[np.uint8], str]:
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        array, how = _deep_grey(path, np.asarray(image), "float" if mode == "F" else "16-bit")
        # Pillow inverts "white is zero" TIFFs of up to 8 bits only.
        if image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0:
            return 255 - array, how + ", inverted"
        return array, how
    if mode == "1":
        return np.asarray(image.convert("L")), "1-bit"
    if mode == "L" and "transparency" not in image.info:
        return np.asarray(image), "8-bit grey"
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    what = {"P": "palette", "PA": "palette"}.get(mode, "grey" if mode[0] == "L" else mode.lower())
    if transparent:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
            what += " on black"
    if image.mode != "RGB":
        image = image.convert("RGB")
    if _channel_spread(image) > (JPEG_GREY_TOLERANCE if name == "jpeg" else 0):
        return np.asarray(image), what
    grey = np.asarray(image.convert("L"))
    return grey, what if what.startswith("grey") else f"{what} holding grey"


def _channel_spread(image: Any) -> int:
    """The largest difference between two channels of one pixel of an RGB image, in grey levels."""
    red, green, blue = image.split()
    pairs = ((red, green), (green, blue), (red, blue))
    return max(int(ImageChops.difference(a, b).getextrema()[1]) for a, b in pairs)  # type: ignore[arg-type]


def _deep_grey(path: Path, values: npt.NDArray[Any], depth: str) -> tuple[npt.NDArray[np.uint8], str]:
    """Grey of more than 8 bits -> 8 bits; the rule stands at the top of the module."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{path}: holds pixels that are not finite numbers; write the image again without them")
    is_float = values.dtype.kind == "f"
    if is_float and low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    elif not is_float and low >= 0 and high < 65_536:
        bits = next(bits for bits in _DEPTHS if high < 1 << bits)
        low, high = 0.0, float((1 << bits) - 1)
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8), f"{depth} grey, constant"
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8), f"{depth} grey, {low:g}..{high:g} scaled"

"""One image file -> display-ready 8-bit pixels: PNG, JPEG, TIFF, BMP, ... through Pillow, and DICOM.

What is decided here, and recorded in ``Pixels.how``:

- The file's content tells its kind, never its name.
- Grey comes back as (h, w), also where a colour file holds it. A colour file holds grey if its
  channels are equal. A JPEG, whose chroma is rounded, holds grey if its channels differ by at most
  2 grey levels. Everything else is (h, w, 3).
- More than 8 bits, grey or colour, are scaled linearly by the source's scale
  (:mod:`twinray.data.decoding.scale`). Images of 8 bits stay as they are.
- Opaque alpha is dropped; where pixels are really transparent the image is laid on black.
- Pixels are as stored, also where an EXIF or TIFF orientation asks for them to be turned. Left and
  right of a radiograph and the coordinates of its boxes belong to the stored pixels. Most
  annotation tools and readers of data sets ignore the tag. ``how`` names the tag; ``Decoding.exif``
  = ``apply`` turns them.
- A file that is not whole is refused (:mod:`twinray.data.decoding.damage`); ``Decoding.lenient`` keeps what it gives.
- Several frames or pages are refused: which one is meant is the user's decision. A preview beside
  the picture does not count as one. Of a JPEG with further pictures behind it (MPO) the first is
  taken, as every viewer does (CIPA DC-007). Of a TIFF the one page is taken that is not marked as a
  reduced copy.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from twinray.data.decoding.bounded_file import (
    first_bytes,
    is_dicom_head,
    one_line,
    read_whole,
    regular_file_size,
)
from twinray.data.decoding.damage import (
    jpeg2000_fault,
    jpeg_fault,
    missing_fault,
    png_fault,
    tiff_fault,
    webp_fault,
)
from twinray.data.decoding.deep import (
    Stored,
    UnreadableDepthError,
    as_stored,
    asked_orientation,
    channels_left_out,
    deep_values,
    is_deep,
    tiff_layout,
)
from twinray.data.decoding.options import ALONE, Decoding, Exif
from twinray.data.decoding.scale import TOP_16, Scale, Spread, Survey, spread, to_grey_levels
from twinray.errors import InputError
from twinray.records import Linear, Pixels, Remark

MAX_PIXELS = 150_000_000
"""Width x height above which a file is refused before it is decoded (Pillow itself stops at 178 million)."""

IMAGE_SUFFIXES = frozenset(
    (  # noqa: SIM905 - one suffix a line would be thirty lines
        ".png .jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo .tif .tiff .bmp .dib .gif .webp .pgm .ppm .pbm .pnm "
        ".jp2 .j2k .j2c .jpc .jpf .jpx .dcm .dicom"
    ).split()
)
"""Lower-case file name endings that a folder scan takes for images."""

JPEG_GREY_TOLERANCE = 2
_OPAQUE = 0xFF00 / 0xFFFF
"""Share of a pixel's alpha from which on it hides what lies behind."""
_BYTES_A_PIXEL = 8
_HEAD_BYTES = 1 << 20
"""Enough for the tags of a TIFF file that begin it."""
_SPARE_BYTES = 64 << 20

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
    *((b"P%d" % n, "pnm") for n in range(1, 7)),
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
_TIFF_PHOTOMETRIC, _TIFF_COMPRESSION, _TIFF_SUBFILE = 262, 259, 254
_CHECKED_COMPRESSIONS = (7, 8, 32946)
"""TIFF compressions whose damage the data themselves show: JPEG, deflate."""

ADVICE = "copy the file again from its source or leave it out"


class UnscaledError(InputError):
    """An image of more than 8 bits that the scale of the source does not cover.

    Attributes:
        spread: what it has to say on that scale.
    """

    def __init__(self, path: Path, name: str, found: Spread) -> None:
        super().__init__(
            f"{path}: {name} up to {found.high:g}, and no scale for it: the pack that the model learned from has no such "
            "images, or several scales; give the detector's --depth in bits, or --value-range"
        )
        self.spread = found


def is_image_name(path: Path) -> bool:
    """Whether a folder scan should take a file of this name for an image (by its ending; hidden files never)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def file_kind(path: Path) -> str:
    """What a file is by its first bytes: png, jpeg, tiff, bmp, gif, webp, jpeg2000, pnm, dicom or unknown.

    Raises:
        InputError: the file is missing, not a regular file, unreadable or empty.
    """
    head = first_bytes(path, 132)
    if is_dicom_head(head):
        return "dicom"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "unknown")


def image_size(path: Path, exif: Exif = "ignore") -> tuple[int, int]:
    """(width, height) in pixels of what :func:`load_image` gives, from the header alone.

    Raises:
        InputError: as :func:`load_image`, as far as the header shows it.
    """
    kind = file_kind(path)
    if kind == "dicom":
        from twinray.data.decoding.dicom.header import dicom_attributes  # late, as in load_image

        seen = dicom_attributes(path)
        if seen.width < 1 or seen.height < 1:
            raise InputError(
                f"{path}: expected a DICOM image, its header states no size; leave the file out"
            )
        return seen.width, seen.height
    with _opened(path, kind, path) as image:
        _choose_picture(path, image)
        asked = as_stored(image)
        width, height = image.size
        if exif == "apply":
            asked = asked if kind == "tiff" else asked_orientation(image)
            width, height = (height, width) if asked >= 5 else (width, height)
    return width, height


def load_image(
    path: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    frontal_only: bool = False,
    any_class: bool = False,
    decoding: Decoding = ALONE,
) -> Pixels:
    """Decode one image file.

    Args:
        path: the file; its content decides its kind.
        max_pixels: number of pixels above which a file is refused before decoding.
        frontal_only: DICOM only, see :func:`twinray.data.decoding.dicom.pixels.load_dicom`; ``any_class`` likewise.
        decoding: scale of deep images, orientation, and what becomes of damaged files.

    Returns:
        (h, w) or (h, w, 3) uint8 and the way taken; uint16 with ``linear`` where the decoding asks for it.

    Raises:
        UnscaledError: more than 8 bits, and a scale that does not cover them.
        InputError: the file is missing, empty, unreadable, damaged, of no known kind, too large, or holds
            several frames; one line that says what to do.
    """
    kind = file_kind(path)
    if kind == "dicom":
        # pydicom loads for half a second, which every worker that decodes PNG files would wait for
        from twinray.data.decoding.dicom.header import MAX_DICOM_PIXELS
        from twinray.data.decoding.dicom.pixels import load_dicom

        limit = min(max_pixels, MAX_DICOM_PIXELS)
        return load_dicom(
            path,
            frontal_only=frontal_only,
            any_class=any_class,
            max_pixels=limit,
            lenient=decoding.lenient,
            linear=decoding.linear,
        )
    data = read_whole(path, _BYTES_A_PIXEL * max_pixels + _SPARE_BYTES)
    try:
        return _decoded(path, kind, data, max_pixels, decoding)
    except UnscaledError:
        raise
    except InputError as error:
        if not decoding.lenient:
            raise
        reason = str(error)
    # Pillow has one switch for the whole process; a worker decodes one file at a time
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        pixels = _decoded(path, kind, data, max_pixels, decoding)
    except UnscaledError:
        raise
    except InputError:
        raise InputError(reason) from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    if any(remark[0] == "damaged" for remark in pixels.remarks):
        return pixels
    fault = reason.removeprefix(f"{path}: ")
    remarks = (*pixels.remarks, ("damaged", fault))
    return replace(pixels, how=f"{pixels.how}, damaged", remarks=remarks)


def deep_spread(path: Path, decoding: Decoding) -> Spread | None:
    """What a file has to say on the scale of its source; None for 8 bits, told from the header, and for DICOM.

    Raises:
        InputError: as :func:`load_image`.
    """
    kind = file_kind(path)
    if kind in ("dicom", "unknown", "jpeg", "webp", "gif", "bmp"):
        return None
    with _opened(path, kind, path) as image:
        _choose_picture(path, image)
        if not is_deep(image, first_bytes(path, 1 << 16), kind):
            return None
    try:
        load_image(path, decoding=Decoding(Scale(), decoding.exif, decoding.lenient))
    except UnscaledError as error:
        return error.spread
    return None


def load_deep(
    path: Path, decoding: Decoding = ALONE
) -> tuple[npt.NDArray[Any], float, float, bool] | None:
    """Stored values of a file of more than 8 bits, and how :func:`load_image` makes 8 bits of them; None for 8 bits and DICOM.

    Returns:
        (h, w) or (h, w, 3) values, the value that becomes black, the value that becomes white, and whether they change
        places afterwards.

    Raises:
        InputError: as :func:`load_image`.
    """
    kind = file_kind(path)
    if kind not in ("png", "tiff", "jpeg2000", "pnm"):
        return None
    data = read_whole(path, _BYTES_A_PIXEL * MAX_PIXELS + _SPARE_BYTES)
    with _opened(path, kind, io.BytesIO(data)) as image:
        _choose_picture(path, image)
        asked = as_stored(image)
        deep = deep_values(image, data, kind)
        if deep is None:
            return None
        low, high = _range(path, deep, decoding.scale)
        inverted = image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
        asked = asked if kind == "tiff" else asked_orientation(image)
    values = turned(deep.values, asked) if decoding.exif == "apply" else deep.values
    return values, low, high, inverted


def _decoded(path: Path, kind: str, data: bytes, max_pixels: int, decoding: Decoding) -> Pixels:
    remarks: list[Remark] = []
    array: npt.NDArray[Any]
    linear: Linear | None = None
    with _opened(path, kind, io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{path}: claims {width} x {height} pixels, more than the limit of {max_pixels}; leave it out"
            )
        which = _choose_picture(path, image)
        asked = as_stored(image)
        fault = _fault(kind, data, image)
        if fault and not decoding.lenient:
            raise InputError(
                f"{path}: expected a whole {kind} image, this one is damaged: {fault}; {ADVICE}"
            )
        name, compression = _NAMES.get(kind, kind), _compression(image)
        whole = kind in ("png", "jpeg") or (kind == "tiff" and compression in _CHECKED_COMPRESSIONS)
        deep = None if kind == "jpeg" else deep_values(image, data, kind)
        if deep is not None:
            fault = fault or (
                None if whole else missing_fault(deep.values, bottom_up=kind == "bmp")
            )
            # Pillow inverts "white is zero" TIFFs of up to 8 bits only.
            inverted = image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
            if decoding.linear:
                array, how, linear = _kept(path, deep, decoding.scale, remarks, inverted)
            else:
                array, how = _scaled(path, deep, decoding.scale, remarks, inverted)
        else:
            if kind == "jpeg" and image.mode == "L":
                array, how = _jpeg_pixels(data, "L", decoding.lenient), "8-bit grey"
            elif kind == "jpeg" and image.mode == "RGB":
                array, how = _grey_or_colour(
                    Image.fromarray(_jpeg_pixels(data, "RGB", decoding.lenient)), name
                )
            else:
                image.load()
                array, how = _grey_or_colour(image, name)
            fault = fault or (None if whole else missing_fault(array, bottom_up=kind == "bmp"))
        asked = asked if kind == "tiff" else asked_orientation(image)
        left_out = channels_left_out(image.tag_v2) if kind == "tiff" else 0
    if fault:
        if not decoding.lenient:
            raise InputError(
                f"{path}: expected a whole {kind} image, this one is damaged: {fault}; {ADVICE}"
            )
        remarks.append(("damaged", fault))
        how += ", damaged"
    if left_out:
        remarks.append(("channels", str(left_out)))
    if which:
        remarks.append(("preview", which))
        how += f", {which}"
    if asked != 1:
        done = decoding.exif == "apply"
        remarks.append(("orientation", str(asked)))
        how += f", exif orientation {asked} {'applied' if done else 'not applied'}"
        array = turned(array, asked) if done else array
    pixels = Pixels(array, f"{name} {how}", tuple(remarks), linear)
    return pixels.as_linear() if decoding.linear else pixels


@contextmanager
def _opened(path: Path, kind: str, source: Path | io.BytesIO) -> Iterator[Any]:
    """The file opened by Pillow; any fault of opening or of what is done with it inside becomes an InputError."""
    if kind == "unknown":
        known = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PGM/PPM or DICOM"
        raise InputError(f"{path}: expected {known}, {_looks_like(path)}; remove it or convert it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source, formats=_PILLOW_FORMATS[kind]) as image:
                yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(
            f"{path}: claims more than {limit} pixels (a decompression bomb?); leave it out"
        ) from None
    except UnreadableDepthError as error:
        # the file is whole: nobody should copy it again from its source
        raise InputError(
            f"{path}: a {_NAMES.get(kind, kind)} that cannot be read: {error}; save it as grey or RGB of 8 or 16 bits"
        ) from None
    except UnidentifiedImageError:
        if kind == "tiff" and (layout := tiff_layout(first_bytes(path, _HEAD_BYTES))):
            raise InputError(
                f"{path}: a TIFF of {layout} cannot be read; save it as grey or RGB of 8 or 16 bits, or grey of 32-bit floating point"
            ) from None
        raise InputError(
            f"{path}: begins like {kind} but its header is damaged or unsupported; {ADVICE}"
        ) from None
    except MemoryError:
        raise InputError(
            f"{path}: decoding {kind} needed more memory than allowed; leave it out"
        ) from None
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, KeyError, zlib.error, ... on damage.
        reason = one_line(error)
        raise InputError(
            f"{path}: expected a whole {kind} image, it cannot be decoded ({reason}); {ADVICE}"
        ) from None


def _looks_like(path: Path) -> str:
    size = regular_file_size(path)
    head = first_bytes(path, 512)
    if path.suffix.lower() in (".dcm", ".dicom"):
        return "got a file without DICOM's mark 'DICM' at byte 128"
    if head.startswith(b"PK\x03\x04"):
        return f"got a zip archive ({size} bytes)"
    if all(byte in (9, 10, 13) or byte >= 32 for byte in head):
        return f"got text ({size} bytes)"
    return f"got unknown content ({size} bytes)"


def _choose_picture(path: Path, image: Any) -> str:
    """Stand at the one picture that is meant; what ``how`` says of it where there are others.

    Raises:
        InputError: several pictures that are no previews.
    """
    frames = int(getattr(image, "n_frames", 1))
    if frames <= 1:
        return ""
    if image.format == "MPO":
        image.seek(0)
        return f"the first of {frames} pictures in the file"
    if image.format == "TIFF":
        whole = []
        for frame in range(min(frames, 16)):
            image.seek(frame)
            if not int(image.tag_v2.get(_TIFF_SUBFILE, 0)) & 1:
                whole.append(frame)
        if len(whole) == 1 and frames <= 16:
            image.seek(whole[0])
            return f"page {whole[0] + 1} of {frames}, the others are reduced copies"
    raise InputError(
        f"{path}: expected one image, got {frames} frames or pages; save the wanted one as a file"
    )


def _compression(image: Any) -> int:
    return int(image.tag_v2.get(_TIFF_COMPRESSION, 1)) if image.format == "TIFF" else 0


def _fault(kind: str, data: bytes, image: Any) -> str | None:
    """Why a file is not whole, as far as its bytes tell without decoding; None where nothing speaks against it."""
    if kind == "png":
        return png_fault(data)
    if kind == "tiff":
        return tiff_fault(data, image.tag_v2)
    if kind == "webp":
        return webp_fault(data)
    if kind == "jpeg2000":
        return jpeg2000_fault(data)
    if kind == "jpeg" and image.mode == "CMYK":
        return jpeg_fault(data, "CMYK")
    return None


def _jpeg_pixels(data: bytes, mode: str, lenient: bool) -> npt.NDArray[np.uint8]:
    """(h, w) or (h, w, 3). The same library as Pillow's, but it passes on what the library warns of.

    Raises:
        ValueError: the library's error or, unless ``lenient``, its first warning.
    """
    wanted = "GRAY" if mode == "L" else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(data, wanted, strict=True)
    except ValueError:
        if not lenient or not ImageFile.LOAD_TRUNCATED_IMAGES:
            raise
        pixels = simplejpeg.decode_jpeg(data, wanted, strict=False)
    array: npt.NDArray[np.uint8] = pixels[..., 0] if mode == "L" else pixels
    return array


def turned(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(h, w) or (h, w, 3) as an EXIF orientation of 1 to 8 asks for it to be shown."""
    if orientation >= 5:  # rows and columns change places
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _scaled(
    path: Path, stored: Stored, scale: Scale | None, remarks: list[Remark], inverted: bool
) -> tuple[npt.NDArray[np.uint8], str]:
    """More than 8 bits -> 8 bits by the scale of the source, or of this file if it is a source of its own."""
    values, name = stored.values, stored.name
    found = _spread(path, stored)
    chosen = _range(path, stored, scale)
    how = f"{name}, {chosen[0]:g}..{chosen[1]:g} scaled"
    if found.low < chosen[0] or found.high > chosen[1]:
        remarks.append(("clipped", f"{found.low:g}..{found.high:g}"))
        how += ", clipped"
    if values.dtype == np.uint16 and chosen[1] < TOP_16 and values.max() == TOP_16:
        how += f", {TOP_16} is white"
    levels = to_grey_levels(values, chosen)
    if inverted:  # before transparent pixels become black
        levels, how = 255 - levels, how + ", inverted"
    share = _seen(stored, chosen[1])
    if share is not None:
        levels = np.rint(levels * (share if levels.ndim == 2 else share[..., None])).astype(
            np.uint8
        )
        how += ", on black"
    if levels.ndim == 3 and (values == values[..., :1]).all():
        return np.ascontiguousarray(levels[..., 0]), how + ", holding grey"
    return levels, how


def _kept(
    path: Path, stored: Stored, scale: Scale | None, remarks: list[Remark], inverted: bool
) -> tuple[npt.NDArray[np.uint16], str, Linear]:
    """More than 8 bits -> uint16 that mean them, with the scale as the window.

    Integers are kept: as they are, or 32768 added where some of the source are below 0. Integers that 16 bits do not
    hold and floating point are scaled from the scale's range to 0..65535, to the nearest, and cut off at its ends.
    """
    low, high = _range(path, stored, scale)
    values, found = stored.values, _spread(path, stored)
    kind = values.dtype
    # by the source's range, not the image's, so that one stored value is one pixel value in all of them
    least = -(1 << 15) if kind.kind == "i" and min(low, float(values.min())) < 0 else 0
    how = f"{stored.name}, linear"
    if kind.kind == "f" or values.min() < least or values.max() > least + TOP_16:
        slope = max(high - low, 1e-30) / TOP_16
        units = np.rint(np.clip((values.astype(np.float64) - low) / slope, 0, TOP_16))
        intercept = low
        how += f", {low:g}..{high:g} scaled"
        if found.low < low or found.high > high:
            remarks.append(("clipped", f"{found.low:g}..{found.high:g}"))
            how += ", clipped"
    else:
        slope, intercept = 1.0, float(least)
        units = values.astype(np.float64) - least
        how += f", window {low:g}..{high:g}" + (f", {-least} added" if least else "")
        if kind == np.uint16 and high < TOP_16 and values.max() == TOP_16:
            # a marker that an exporter burned in: white, and no value that resampling may spread
            units[values == TOP_16] = high
            how += f", {TOP_16} is white"
    black, white = (low - intercept) / slope, (high - intercept) / slope
    white = white if white > black else black + 1.0
    if inverted:
        units, black, white = TOP_16 - units, TOP_16 - white, TOP_16 - black
        slope, intercept = -slope, intercept + slope * TOP_16
        how += ", inverted"
    share = _seen(stored, high)
    if share is not None:
        units = black + (units - black) * (share if units.ndim == 2 else share[..., None])
        how += ", on black"
    array = np.rint(units).clip(0, TOP_16).astype(np.uint16)
    meaning = Linear(float(black), float(white), float(slope), float(intercept))
    if array.ndim == 3 and (array == array[..., :1]).all():
        return np.ascontiguousarray(array[..., 0]), how + ", holding grey", meaning
    return array, how, meaning


def _seen(stored: Stored, white: float) -> npt.NDArray[np.float64] | None:
    """(h, w) share of each pixel that alpha shows, 0 to 1; None where there is no alpha, or one that is opaque or even.

    Writers of shallow values in 16 bits fill alpha up to the same depth, or to the top of the container. Where the header
    does not tell which, values above ``white``, the white of the source, do.
    """
    alpha = stored.alpha
    if alpha is None or not np.ptp(alpha):
        return None
    top = stored.opaque or (TOP_16 if alpha.max() > white else white)
    share = np.clip(alpha / top, 0, 1)
    return None if share.min() >= _OPAQUE else share


def _spread(path: Path, stored: Stored) -> Spread:
    try:
        return spread(stored.values, stored.white)
    except ValueError as error:
        raise InputError(f"{path}: {error}; write the image again without them") from None


def _range(path: Path, stored: Stored, scale: Scale | None) -> tuple[float, float]:
    """Stored values that become black and white.

    Raises:
        UnscaledError: the scale does not cover them.
    """
    found = _spread(path, stored)
    chosen = (Survey.of([(path.name, found)]).scale() if scale is None else scale).of(found.numbers)
    if chosen is None:
        raise UnscaledError(path, stored.name, found)
    return chosen


def _grey_or_colour(image: Any, name: str) -> tuple[npt.NDArray[np.uint8], str]:
    mode = image.mode
    if mode == "La":  # multiplied by alpha already: that is on black
        return np.asarray(image)[..., 0], "grey on black"
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

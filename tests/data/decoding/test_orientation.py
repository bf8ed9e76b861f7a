"""One rule for orientation tags in every format: pixels as stored and said, or turned and said; sizes agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from twinray.data.decoding.images import image_size, load_image, turned
from twinray.data.decoding.options import Decoding
from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.coco import read_coco

APPLY = Decoding(exif="apply")
STORED = np.zeros((40, 64), np.uint8)
STORED[5:10, 50:60] = 200
STORED[30, 3] = 90

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiff": ("tif", {"compression": "raw"}),
    "tiff-lzw": ("tif", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("tif", {"compression": "tiff_adobe_deflate"}),
    "tiff-packbits": ("tif", {"compression": "packbits"}),
    "png": ("png", {}),
    "webp": ("webp", {"lossless": True}),
}


def save(path: Path, array: np.ndarray, orientation: int, **options: Any) -> None:
    image = Image.fromarray(array)
    if path.suffix == ".tif":
        image.save(path, tiffinfo={274: orientation}, **options)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["grey", "rgb", "16-bit"])
def test_stored_or_turned_as_the_tag_asks(
    tmp_path: Path, name: str, orientation: int, kind: str
) -> None:
    suffix, options = FORMATS[name]
    if kind == "16-bit" and suffix == "webp":
        pytest.skip("WebP has 8 bits")
    stored = {
        "grey": STORED,
        "rgb": np.dstack([STORED, STORED // 2, STORED]),
        "16-bit": STORED.astype(np.uint16) * 257,
    }[kind]
    path = tmp_path / f"a.{suffix}"
    save(path, stored, orientation, **options)
    eight = STORED if kind == "16-bit" else stored
    pixels = load_image(path)
    np.testing.assert_array_equal(pixels.array, eight)
    assert image_size(path) == (64, 40)
    assert (f"exif orientation {orientation} not applied" in pixels.how) == (orientation != 1)
    shown = load_image(path, decoding=APPLY)
    image = Image.fromarray(eight)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(shown.array, np.asarray(ImageOps.exif_transpose(image)))
    assert image_size(path, "apply") == shown.array.shape[1::-1]


def test_a_jpeg_is_turned_like_the_others(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        save(tmp_path / "a.jpg", STORED, orientation, quality=95)
        as_stored = load_image(tmp_path / "a.jpg").array
        assert as_stored.shape == (40, 64)
        np.testing.assert_array_equal(
            load_image(tmp_path / "a.jpg", decoding=APPLY).array, turned(as_stored, orientation)
        )


def test_a_value_that_is_no_orientation_asks_for_nothing(tmp_path: Path) -> None:
    for value in (0, 9, 65535):
        save(tmp_path / "a.tif", STORED, value)
        np.testing.assert_array_equal(load_image(tmp_path / "a.tif").array, STORED)


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_with_a_turned_picture_are_told(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "a.png", STORED, orientation)
    Image.fromarray(255 - STORED).save(tmp_path / "images" / "b.png")
    shown = turned(STORED, orientation)
    for name, exif, picture in (("as stored", "ignore", STORED), ("as shown", "apply", shown)):
        ys, xs = np.nonzero(picture > 100)
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        height, width = picture.shape
        images = [{"id": 1, "file_name": "a.png", "width": width, "height": height}]
        images.append({"id": 2, "file_name": "b.png", "width": 64, "height": 40})
        annotations = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}]
        truth = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "mark"}],
        }
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        options = PackOptions(size=64, fit="letterbox", val=0, test=0, exif=exif)  # type: ignore[arg-type]
        result = write_pack(
            [read_coco(tmp_path / "truth.json")], tmp_path / name, options, workers=0
        )
        assert any(
            note.startswith("WARNING: 1 image asks to be turned") for note in result.info.notes
        )
        pack = open_pack(tmp_path / name)
        row = pack.ids.tolist().index("1")
        boxes = pack.boxes(row)
        assert boxes is not None
        x1, y1, x2, y2 = pack.place(row).to_square(boxes.xyxy)[0].round().astype(int)
        inside = pack.images[row][y1:y2, x1:x2]
        assert inside.size and inside.min() > 100
        assert pack.info.decoded.exif == exif


def test_a_picture_with_previews_is_the_picture(tmp_path: Path) -> None:
    small = Image.fromarray(STORED[::2, ::2])
    big = Image.fromarray(np.dstack([STORED] * 3))
    big.save(tmp_path / "a.mpo", save_all=True, append_images=[big.resize((16, 10))] * 2)
    (tmp_path / "a.mpo").rename(tmp_path / "a.jfif")
    pixels = load_image(tmp_path / "a.jfif")
    assert pixels.array.shape == (40, 64)
    assert "the first of 3 pictures" in pixels.how
    for order in ((0, 1), (1, 0)):  # the reduced copy may stand before or behind the picture
        pages = [Image.fromarray(STORED), small]
        for page, reduced in zip(pages, (0, 1), strict=True):
            page.encoderinfo = {"tiffinfo": {254: reduced}}
        first, second = (pages[i] for i in order)
        first.save(
            tmp_path / "b.tif",
            save_all=True,
            append_images=[second],
            tiffinfo=first.encoderinfo["tiffinfo"],
        )
        assert image_size(tmp_path / "b.tif") == (64, 40)
        pixels = load_image(tmp_path / "b.tif")
        np.testing.assert_array_equal(pixels.array, STORED)
        assert "reduced copies" in pixels.how

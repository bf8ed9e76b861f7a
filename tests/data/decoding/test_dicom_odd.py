"""DICOM headers as devices really write them: what is good is used, what is not is named, never an error of Python's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_support import write_radiograph
from twinray.data.decoding.dicom.pixels import load_dicom
from twinray.data.decoding.images import file_kind, load_image
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.data.readers.folder import read_folder
from twinray.errors import InputError

RAMP = (np.add.outer(np.arange(64), np.arange(64)) * 32).astype(np.uint16)  # 0..4032, 12 bits


@pytest.fixture(autouse=True, scope="module")
def _writing_what_devices_write() -> Iterator[None]:
    before = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    yield
    pydicom.config.settings.writing_validation_mode = before


def deep(
    path: Path, stored: npt.NDArray[Any], bits: int = 12, signed: bool = False, **values: Any
) -> Path:
    write_radiograph(path, np.zeros(stored.shape, np.uint8))
    ds = pydicom.dcmread(path)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        16,
        bits,
        bits - 1,
        int(signed),
    )
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def raw(path: Path, tag: int, value: bytes) -> Path:
    """Put a text that is no decimal string into a written file."""
    ds = pydicom.dcmread(path)
    ds[Tag(tag)] = RawDataElement(Tag(tag), "DS", len(value), value, 0, False, True)
    ds.save_as(path, enforce_file_format=True)
    return path


def window(values: npt.NDArray[Any], center: float, width: float) -> npt.NDArray[Any]:
    low, high = center - width / 2, center + width / 2 - 1
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255)


def lut(descriptor: list[int], data: bytes) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", descriptor)
    item.add_new(0x00283006, "OW", data)
    return item


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", ["native", "jpeg 2000", "jpeg-ls", "rle"])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_bits_above_bits_stored_are_left_out_and_told(
    tmp_path: Path, syntax: str, bits: int, signed: bool
) -> None:
    values = (
        RAMP.astype(np.int32) * ((1 << bits) - 1) // 4095 - ((1 << (bits - 1)) if signed else 0)
    ).astype(np.int16)
    dirty = values.view(np.uint16) & np.uint16((1 << bits) - 1)
    dirty[10:20, 10:50] |= 0x8000
    center = 0 if signed else 1 << (bits - 1)
    path = deep(tmp_path / "a.dcm", dirty, bits, signed, WindowCenter=center, WindowWidth=1 << bits)
    ds = pydicom.dcmread(path)
    if syntax == "rle":
        ds.compress(uid.RLELossless, generate_instance_uid=False)
    elif syntax != "native":
        if signed:
            pytest.skip("the encoders here take unsigned values of 16 bits")
        if syntax == "jpeg 2000":
            encode = pytest.importorskip("openjpeg.utils", reason="encodes JPEG 2000").encode_array
            frame = bytes(encode(dirty, bits_stored=16, photometric_interpretation=2))
        else:
            frame = bytes(
                pytest.importorskip("jpeg_ls", reason="encodes JPEG-LS").encode_array(dirty)
            )
        ds.file_meta.TransferSyntaxUID = (
            uid.JPEG2000Lossless if syntax == "jpeg 2000" else uid.JPEGLSLossless
        )
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path, enforce_file_format=True)
    pixels = load_dicom(path)
    np.testing.assert_allclose(pixels.array, window(values, center, 1 << bits), atol=1)
    assert f"bits above {bits} left out" in pixels.how
    assert pixels.remarks[0][0] == "high bits"


def test_negative_values_without_their_sign_bits_use_no_high_bits(tmp_path: Path) -> None:
    values = (RAMP.astype(np.int16) - 2048) & 0x0FFF
    path = deep(
        tmp_path / "a.dcm", values.astype(np.uint16), 12, True, WindowCenter=0, WindowWidth=4096
    )
    pixels = load_dicom(path)
    np.testing.assert_allclose(pixels.array, window(RAMP.astype(int) - 2048, 0, 4096), atol=1)
    assert not pixels.remarks


ENTRIES = np.arange(4096, dtype="<u2")


@pytest.mark.parametrize("missing", [1, 2, 40])
@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_lut_that_lacks_its_last_entries_goes_on_with_the_last(
    tmp_path: Path, kind: str, bits: int, missing: int
) -> None:
    data = ENTRIES[:-missing].tobytes()
    more = {} if kind == "VOILUTSequence" else {"WindowCenter": 2048, "WindowWidth": 4096}
    path = deep(tmp_path / "a.dcm", RAMP, **{kind: Sequence([lut([4096, 0, bits], data)])}, **more)
    pixels = load_dicom(path)
    top = 4095 - missing
    want = (
        np.rint(np.minimum(RAMP, top) / top * 255)
        if not more
        else window(np.minimum(RAMP, top), 2048, 4096)
    )
    np.testing.assert_allclose(pixels.array, want, atol=1)
    assert f"{4096 - missing} of 4096 entries" in pixels.how


def test_words_of_an_8_bit_lut_are_not_read_as_bytes(tmp_path: Path) -> None:
    words = (ENTRIES >> 4).astype("<u2")
    path = deep(
        tmp_path / "a.dcm", RAMP, VOILUTSequence=Sequence([lut([4096, 0, 8], words[:-1].tobytes())])
    )
    np.testing.assert_allclose(load_dicom(path).array, np.minimum(RAMP, 4094) >> 4, atol=1)


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_lut_that_lacks_much_is_refused_with_both_counts(tmp_path: Path, kind: str) -> None:
    path = deep(
        tmp_path / "a.dcm", RAMP, **{kind: Sequence([lut([4096, 0, 16], ENTRIES[:2000].tobytes())])}
    )
    with pytest.raises(InputError, match="a LUT of 4096 entries has 2000"):
        load_dicom(path)


def no_descriptor() -> Dataset:
    item = lut([4096, 0, 12], ENTRIES.tobytes())
    del item[0x00283002]
    return item


@pytest.mark.parametrize(
    "items",
    [
        [],
        [Dataset()],
        [lut([4096, 0, 12], b"")],
        [no_descriptor()],
        [lut([4096, 0], ENTRIES.tobytes())],
    ],
    ids=["no item", "bare item", "no data", "no descriptor", "two values"],
)
def test_a_lut_that_holds_nothing_leaves_the_window(tmp_path: Path, items: list[Dataset]) -> None:
    window_too = {"WindowCenter": 2048, "WindowWidth": 4096}
    pixels = load_dicom(
        deep(tmp_path / "a.dcm", RAMP, VOILUTSequence=Sequence(items), **window_too)
    )
    np.testing.assert_allclose(pixels.array, window(RAMP, 2048, 4096), atol=1)
    assert ("VOI LUT 1 ignored" in pixels.how) == bool(items)
    good = lut([4096, 0, 12], ENTRIES.tobytes())
    pixels = load_dicom(
        deep(tmp_path / "b.dcm", RAMP, VOILUTSequence=Sequence([*items, good]), **window_too)
    )
    assert f"VOI LUT {len(items) + 1}" in pixels.how
    np.testing.assert_allclose(pixels.array, np.rint(RAMP / 4095 * 255), atol=1)


def test_an_empty_modality_lut_is_none(tmp_path: Path) -> None:
    path = deep(
        tmp_path / "a.dcm",
        RAMP,
        ModalityLUTSequence=Sequence([Dataset()]),
        WindowCenter=2048,
        WindowWidth=4096,
    )
    pixels = load_dicom(path)
    np.testing.assert_allclose(pixels.array, window(RAMP, 2048, 4096), atol=1)
    assert "empty modality LUT ignored" in pixels.how


@pytest.mark.parametrize(
    ("center", "width"),
    [
        (b"2048,0", b"4096,0"),
        (b"[02048, 00400]", b"[04096, 00400]"),
        (b"(2048)", b"(4096)"),
        (b"2048;400 ", b"4096;400 "),
        (b"2048.0\\\\", b"4096.0\\\\ "),
    ],
)
def test_odd_windows_are_read_and_told(tmp_path: Path, center: bytes, width: bytes) -> None:
    path = raw(raw(deep(tmp_path / "a.dcm", RAMP), 0x00281050, center), 0x00281051, width)
    pixels = load_dicom(path)
    np.testing.assert_allclose(pixels.array, window(RAMP, 2048, 4096), atol=1)
    told = "read as 2048 4096" in pixels.how
    assert told == (b"\\" not in center)
    assert [kind for kind, _ in pixels.remarks] == (["unread"] if told else [])


@pytest.mark.parametrize("text", [b"wide", b"--", b"4096 HU", b"1e999", b"nan "])
def test_a_window_that_is_no_number_is_ignored_and_told(tmp_path: Path, text: bytes) -> None:
    path = raw(deep(tmp_path / "a.dcm", RAMP, WindowCenter=2048), 0x00281051, text)
    pixels = load_dicom(path)
    assert "no VOI: percentiles" in pixels.how
    assert "window ignored" in pixels.how
    assert pixels.array.max() == 255


@pytest.mark.parametrize(
    ("tag", "name"),
    [(0x00281053, "Rescale Slope (0028,1053)"), (0x00281052, "Rescale Intercept (0028,1052)")],
)
@pytest.mark.parametrize("text", [b"1,0 ", b"one ", b"[1] "])
def test_a_slope_that_is_no_number_is_not_guessed(
    tmp_path: Path, tag: int, name: str, text: bytes
) -> None:
    path = raw(deep(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=4096), tag, text)
    with pytest.raises(InputError, match="no number") as caught:
        load_dicom(path)
    assert name in str(caught.value)
    assert text.decode().strip() in str(caught.value)


def without_preamble(path: Path, way: str) -> None:
    data = path.read_bytes()
    assert data[128:132] == b"DICM"
    if way == "mark first":
        path.write_bytes(data[128:])
    elif way == "meta first":
        path.write_bytes(data[132:])
    else:
        ds = pydicom.dcmread(path)
        del ds.SpecificCharacterSet
        implicit = way == "implicit data set"
        pydicom.dcmwrite(
            path,
            ds_without_meta(ds),
            implicit_vr=implicit,
            little_endian=True,
            enforce_file_format=False,
        )


def ds_without_meta(ds: Dataset) -> Dataset:
    plain = Dataset()
    for element in ds:
        plain.add(element)
    return plain


@pytest.mark.parametrize(
    "way", ["mark first", "meta first", "implicit data set", "explicit data set"]
)
def test_files_without_their_preamble(tmp_path: Path, way: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = deep(source / "IM0001", RAMP, WindowCenter=2048, WindowWidth=4096)
    without_preamble(path, way)
    assert path.read_bytes()[128:132] != b"DICM"
    assert file_kind(path) == "dicom"
    np.testing.assert_allclose(load_image(path).array, window(RAMP, 2048, 4096), atol=1)
    assert [s.patient for s in read_dicom_folder(source).samples] == ["p7"]
    assert len(read_folder(source).samples) == 1


@settings(max_examples=150, deadline=None)
@given(
    keyword=st.sampled_from(
        [
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "PhotometricInterpretation",
            "WindowCenter",
            "WindowWidth",
            "RescaleSlope",
            "RescaleIntercept",
            "VOILUTSequence",
            "ModalityLUTSequence",
            "NumberOfFrames",
            "PixelPaddingValue",
        ]
    ),
    value=st.one_of(
        st.none(),
        st.binary(max_size=12),
        st.text("0123456789,.[]\\ -eENaninf", max_size=14).map(str.encode),
    ),
)
def test_any_one_element_gives_pixels_or_a_line_without_pythons_words(
    tmp_path_factory: pytest.TempPathFactory, keyword: str, value: bytes | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.dcm"
    ds = pydicom.dcmread(deep(path, RAMP, WindowCenter=2048, WindowWidth=4096))
    tag = Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag).split()[0]
    if value is None:
        if tag in ds:
            del ds[tag]
    elif vr != "SQ":
        even = value + b" " * (len(value) % 2)
        ds[tag] = RawDataElement(tag, vr, len(even), even, 0, False, True)
    else:
        ds[tag] = pydicom.dataelem.DataElement(
            tag, "SQ", [lut([4096, 0, 12], value + b" " * (len(value) % 2))]
        )
    ds.save_as(path, enforce_file_format=True)
    message = ""
    try:
        assert load_dicom(path).array.dtype == np.uint8
    except InputError as error:
        message = str(error)
    words = ("Error:", "object has no attribute", "could not convert")
    assert not any(word in message for word in words), message

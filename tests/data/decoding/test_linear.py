"""Linear values: what 16-bit packs keep of a file, and the window beside it, against plain definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dicom_support import write_radiograph
from twinray.data.decoding.dicom.display import display_pixels, linear_pixels
from twinray.data.decoding.images import load_image
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import Scale, declared
from twinray.data.decoding.viewing import load_view
from twinray.records import Pixels

LINEAR = Decoding(linear=True)


def header(bits: int, signed: bool, **values) -> pydicom.Dataset:
    found = pydicom.Dataset()
    found.BitsStored, found.PixelRepresentation = bits, int(signed)
    found.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def stored_values(bits: int, signed: bool, seed: int = 0) -> np.ndarray:
    """Values of that many bits with both ends among them."""
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1
    kind = {
        (True, True): np.int8,
        (True, False): np.uint8,
        (False, True): np.int16,
        (False, False): np.uint16,
    }
    values = np.random.default_rng(seed).integers(low, high + 1, (16, 16))
    values[0, :2] = low, high
    return values.astype(kind[bits <= 8, signed])


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(6, 16),
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 0.5, 2.0, -1.0, 0.1]),
    intercept=st.sampled_from([0.0, -1024.0, 37.5]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    share=st.floats(0.05, 1.0),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT"]),
)
def test_no_stored_value_is_lost_and_the_window_shows_what_display_pixels_show(
    bits: int,
    signed: bool,
    slope: float,
    intercept: float,
    photometric: str,
    share: float,
    function: str,
) -> None:
    stored = stored_values(bits, signed)
    modality = stored.astype(np.float64) * slope + intercept
    centre = float(np.median(modality))
    width = max(2.0, share * float(np.ptp(modality)))
    own = header(
        bits, signed, RescaleSlope=str(slope), RescaleIntercept=str(intercept), PhotometricInterpretation=photometric,
        WindowCenter=f"{centre:.3f}", WindowWidth=f"{width:.3f}", VOILUTFunction=function,
    )  # fmt: skip
    units, meaning, _, _, curve = linear_pixels(stored, own)
    assert units.dtype == np.uint16
    assert not curve
    # the value after the modality transform, and through it the stored one, comes back from the pixel
    np.testing.assert_allclose(
        meaning.slope * units + meaning.intercept, modality, rtol=0, atol=1e-6 * max(1, abs(slope))
    )
    assert len(np.unique(units)) == len(np.unique(stored))
    shown, how, _ = display_pixels(stored, own)
    # a level may round the other way where the window's end falls on half a grey level
    assert np.abs(meaning.shown(units).astype(int) - shown.astype(int)).max() <= 1
    assert ("inverted" in how) == (photometric == "MONOCHROME1")


def test_twelve_bits_are_the_stored_values_themselves() -> None:
    stored = stored_values(12, signed=False)
    units, meaning, how, _, _ = linear_pixels(
        stored, header(12, False, WindowCenter="2048", WindowWidth="4096")
    )
    np.testing.assert_array_equal(units, stored)
    assert (meaning.slope, meaning.intercept) == (1.0, 0.0)
    assert (meaning.low, meaning.high) == (0.0, 4095.0)  # PS3.3 C.11.2.1.2.1: half a value inside
    assert how == "dicom linear, window 1 LINEAR"


def test_signed_values_are_moved_and_say_so() -> None:
    stored = stored_values(13, signed=True)
    own = header(
        13, True, RescaleSlope="1", RescaleIntercept="-24", WindowCenter="40", WindowWidth="400"
    )
    units, meaning, _, _, _ = linear_pixels(stored, own)
    np.testing.assert_array_equal(units, stored.astype(int) + 4096)
    assert (meaning.slope, meaning.intercept) == (1.0, -4096.0 - 24)


def test_monochrome1_is_counted_from_the_other_end() -> None:
    stored = stored_values(10, signed=False)
    units, meaning, _, _, _ = linear_pixels(
        stored,
        header(
            10,
            False,
            PhotometricInterpretation="MONOCHROME1",
            WindowCenter="512",
            WindowWidth="1024",
        ),
    )
    np.testing.assert_array_equal(units, 1023 - stored.astype(int))
    assert (meaning.slope, meaning.intercept) == (-1.0, 1023.0)


def test_a_window_of_width_one_stays_a_threshold() -> None:
    stored = np.arange(100, 108, dtype=np.uint16)[None]
    own = header(12, False, WindowCenter="104", WindowWidth="1")
    units, meaning, _, _, _ = linear_pixels(stored, own)
    np.testing.assert_array_equal(meaning.shown(units), display_pixels(stored, own)[0])
    assert set(meaning.shown(units).ravel()) == {0, 255}


@pytest.mark.parametrize("falls", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_lut_keeps_its_range_and_direction(falls: bool, photometric: str) -> None:
    ramp = np.clip(np.arange(4096) - 1000, 0, 2000) * 32
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (ramp[::-1] if falls else ramp).tolist()
    own = header(12, False, PhotometricInterpretation=photometric, VOILUTSequence=[item])
    stored = stored_values(12, signed=False)
    units, meaning, _, _, curve = linear_pixels(stored, own)
    assert not curve  # a straight line is no curve
    assert (
        np.abs(meaning.shown(units).astype(int) - display_pixels(stored, own)[0].astype(int)).max()
        <= 1
    )


def test_a_curve_is_said_and_a_sigmoid_becomes_its_tangent() -> None:
    stored = stored_values(12, signed=False)
    own = header(12, False, WindowCenter="2000", WindowWidth="1000", VOILUTFunction="SIGMOID")
    units, meaning, _, _, curve = linear_pixels(stored, own)
    assert curve == "SIGMOID"
    assert (meaning.low, meaning.high) == (1500.0, 2500.0)
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = (
        np.rint(65535 / (1 + np.exp(-(np.arange(4096) - 2000) / 200))).astype(int).tolist()
    )
    assert linear_pixels(stored, header(12, False, VOILUTSequence=[item]))[4] == "VOI LUT"
    assert units.max() == stored.max()


def test_a_modality_lut_gives_its_output() -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [1024, 0, 16], (np.arange(1024) ** 2 // 17).tolist()
    item.ModalityLUTType = "US"
    stored = stored_values(10, signed=False)
    own = header(10, False, ModalityLUTSequence=[item], WindowCenter="30000", WindowWidth="60000")
    units, meaning, _, _, _ = linear_pixels(stored, own)
    np.testing.assert_array_equal(units, stored.astype(np.int64) ** 2 // 17)
    assert (meaning.slope, meaning.intercept) == (1.0, 0.0)


def test_a_file_of_eight_bits_is_multiplied_by_257(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    write_radiograph(tmp_path / "a.dcm", grey)
    for name in ("a.png", "a.dcm"):
        found = load_image(tmp_path / name, decoding=LINEAR)
        assert found.linear is not None
        np.testing.assert_array_equal(found.array, grey.astype(np.uint16) * 257)
        np.testing.assert_array_equal(found.shown, grey)
        np.testing.assert_allclose(
            found.linear.slope * found.array + found.linear.intercept, grey, atol=1e-9
        )


def tiff(path: Path, values: np.ndarray, **tags) -> Path:
    Image.fromarray(values).save(path, **tags)
    return path


@pytest.mark.parametrize(
    ("values", "scale", "offset", "window"),
    [
        (np.array([[0, 5, 4095]], dtype=np.uint16), declared(12, None), 0, (0, 4095)),
        (
            np.array([[-700, 5, 900]], dtype=np.int16),
            declared(None, (-500, 500)),
            32768,
            (32268, 33268),
        ),
    ],
    ids=["uint16", "int16"],
)
def test_integers_are_kept_whatever_the_scale(
    tmp_path: Path, values: np.ndarray, scale: Scale, offset: int, window: tuple[int, int]
) -> None:
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values)
    found = load_image(path, decoding=Decoding(scale, linear=True))
    assert found.linear is not None
    np.testing.assert_array_equal(found.array.astype(int), values.astype(int) + offset)
    assert (found.linear.low, found.linear.high) == window
    assert found.linear.slope * float(found.array[0, 1]) + found.linear.intercept == 5.0
    assert not [kind for kind, _ in found.remarks if kind == "clipped"]  # nothing is cut off
    plain = load_image(path, decoding=Decoding(scale))
    assert np.abs(found.shown.astype(int) - plain.array.astype(int)).max() <= 1


def test_a_marker_of_65535_is_white_and_no_more(tmp_path: Path) -> None:
    values = np.full((8, 8), 700, dtype=np.uint16)
    values[3, 3] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png", decoding=Decoding(declared(12, None), linear=True))
    assert found.array[3, 3] == 4095
    assert found.array[0, 0] == 700
    assert "65535 is white" in found.how


def test_floating_point_is_scaled_from_the_range_to_all_16_bits(tmp_path: Path) -> None:
    values = np.linspace(-2, 3, 60, dtype=np.float32).reshape(6, 10)
    path = tiff(tmp_path / "a.tif", values)
    scale = Scale(real=(-1.0, 3.0))
    found = load_image(path, decoding=Decoding(scale, linear=True))
    assert found.linear is not None
    assert (found.array.min(), found.array.max()) == (0, 65535)
    inside = values >= -1
    back = found.linear.slope * found.array.astype(np.float64) + found.linear.intercept
    np.testing.assert_allclose(back[inside], values[inside], atol=4 / 65535 / 2 + 1e-6)
    assert ("clipped", "-2..3") in found.remarks


def test_colour_of_16_bits_stays_in_16_bits(tmp_path: Path) -> None:
    import tifffile

    values = np.random.default_rng(1).integers(0, 4096, (5, 6, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = load_image(tmp_path / "a.tif", decoding=Decoding(declared(12, None), linear=True))
    np.testing.assert_array_equal(found.array, values)


def test_a_viewer_is_sent_the_same_for_models_of_either_pixels(tmp_path: Path) -> None:
    stored = stored_values(12, signed=False)
    path = write_radiograph(
        tmp_path / "a.dcm", stored, BitsAllocated=16, BitsStored=12, HighBit=11, WindowCenter="2000", WindowWidth="1500",
        PixelData=stored.astype("<u2").tobytes(),
    )  # fmt: skip
    linear, plain = load_view(path, LINEAR), load_view(path)
    np.testing.assert_array_equal(linear.values, plain.values)
    assert linear.display.as_json() == plain.display.as_json() | {"how": linear.display.how}
    np.testing.assert_array_equal(linear.pixels.array, stored)
    assert plain.pixels.array.dtype == np.uint8


def test_arrays_of_a_reader_become_linear_too() -> None:
    pixels = Pixels(np.array([[0, 1, 255]], dtype=np.uint8), "drawn")
    found = pixels.as_linear()
    assert found.array.tolist() == [[0, 257, 65535]]
    assert found.as_linear() is found

"""DICOM to display pixels against highdicom, refusals, bombs and mutations."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.data
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from twinray.data.decoding.dicom import pixels as dicom
from twinray.data.decoding.dicom.header import dicom_attributes, is_dicom
from twinray.data.decoding.dicom.pixels import load_dicom
from twinray.data.decoding.images import file_kind, image_size, load_image
from twinray.data.decoding.sandbox import map_in_workers
from twinray.errors import InputError

CR = "1.2.840.10008.5.1.4.1.1.1"
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
Change = Callable[[Dataset], None]


def stored_values(bits: int, signed: bool) -> npt.NDArray[Any]:
    """(40, 48) smooth values with some noise that use the whole range of ``bits`` bits."""
    rng = np.random.default_rng(bits)
    rows, columns = np.mgrid[0:40, 0:48]
    unit = np.clip(
        (np.sin(rows / 5) + np.cos(columns / 7) + 2) / 4 + rng.normal(0, 0.02, (40, 48)), 0, 1
    )
    unit.flat[:2] = 0, 1
    values = np.rint(unit * ((1 << bits) - 1)).astype(np.int64) - (
        (1 << (bits - 1)) if signed else 0
    )
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def radiograph(
    *,
    bits: int = 12,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
    shape: str | None = None,
    sop_class: str = CR,
    change: Change | None = None,
) -> Dataset:
    values = stored_values(bits, signed)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid.UID("1.2.3.4")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.PatientID, ds.PatientSex, ds.PatientAge, ds.Modality = "p7", "F", "047Y", "CR"
    ds.PatientName = ds.PatientBirthDate = ds.StudyDate = ds.StudyTime = ds.StudyID = (
        ds.AccessionNumber
    ) = ""
    ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * values.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(signed)
    if shape is not None:
        ds.PresentationLUTShape = shape
    ds.PixelData = values.tobytes()
    ds["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    if change is not None:
        change(ds)
    return ds


def write(path: Path, ds: Dataset) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def lut(first: int, entries: npt.NDArray[Any], signed: bool) -> Dataset:
    item = Dataset()
    bits = 8 * entries.itemsize
    item.add_new(
        0x00283002, "SS" if signed and first < 0 else "US", [len(entries) % 65536, first, bits]
    )
    item.add_new(0x00283006, "OW", entries.tobytes())
    return item


def curve(count: int, top: int) -> npt.NDArray[np.uint16]:
    return np.rint(top / (1 + np.exp(-np.linspace(-5, 5, count)))).astype(np.uint16)


def window(
    center: float,
    width: float,
    function: str | None = None,
    *,
    slope: float = 1,
    intercept: float = 0,
) -> Change:
    def change(ds: Dataset) -> None:
        ds.WindowCenter, ds.WindowWidth = [center, 1.0], [width, 2.0]
        if function is not None:
            ds.VOILUTFunction = function
        if (slope, intercept) != (1, 0):
            ds.RescaleSlope, ds.RescaleIntercept = slope, intercept

    return change


def voi_lut(ds: Dataset) -> None:
    first = -700 if ds.PixelRepresentation else 500
    ds.VOILUTSequence = Sequence([lut(first, curve(1500, 4095), bool(ds.PixelRepresentation))])
    ds.WindowCenter, ds.WindowWidth = 1, 2  # the LUT is preferred


def voi_lut_after_rescale(ds: Dataset) -> None:
    voi_lut(ds)
    ds.RescaleSlope, ds.RescaleIntercept = 1, -30


def modality_lut(ds: Dataset) -> None:
    low = -2048 if ds.PixelRepresentation else 0
    ds.ModalityLUTSequence = Sequence([lut(low, curve(4096, 60000), bool(ds.PixelRepresentation))])


def modality_lut_and_window(ds: Dataset) -> None:
    modality_lut(ds)
    ds.WindowCenter, ds.WindowWidth = 30000, 40000


WAYS: dict[str, Change | None] = {
    "window 1 LINEAR": window(700, 900),
    "window 1 LINEAR_EXACT": window(700, 900, "LINEAR_EXACT"),
    "window 1 SIGMOID": window(700, 900, "SIGMOID"),
    "rescale, window 1 LINEAR": window(100, 1500, intercept=-200),
    "rescale, window 1 LINEAR_EXACT": window(
        100.5, 2000, "LINEAR_EXACT", slope=0.684, intercept=200
    ),
    "VOI LUT 1": voi_lut,
    "rescale, VOI LUT 1": voi_lut_after_rescale,
    "modality LUT, window 1 LINEAR": modality_lut_and_window,
}


def highdicom_display(path: Path, **options: Any) -> npt.NDArray[np.float64]:
    """(h, w) 0..1, or the range of the modality where a file has no VOI."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is the oracle")
    frame: npt.NDArray[np.float64] = highdicom.imread(path).get_frame(
        1, **{"apply_voi_transform": None} | options
    )
    return frame


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_display_pixels_equal_highdicom(
    tmp_path: Path, way: str, shape: str | None, photometric: str, signed: bool
) -> None:
    ds = radiograph(signed=signed, photometric=photometric, shape=shape, change=WAYS[way])
    path = write(tmp_path / "a.dcm", ds)
    pixels = load_dicom(path)
    inverted = shape == "INVERSE" or (shape is None and photometric == "MONOCHROME1")
    assert pixels.how == f"dicom {way}" + (", inverted" if inverted else "")
    np.testing.assert_allclose(pixels.array / 255, highdicom_display(path), atol=1 / 255)
    assert np.ptp(pixels.array) > 100  # the test image shows something


@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_8_bits_without_voi_equal_highdicom(
    tmp_path: Path, shape: str | None, photometric: str, signed: bool
) -> None:
    path = write(
        tmp_path / "a.dcm", radiograph(bits=8, signed=signed, photometric=photometric, shape=shape)
    )
    pixels = load_dicom(path)
    # highdicom leaves the stored range as it is where there is no VOI.
    expected = highdicom_display(path) + (128 if signed else 0)
    if signed and "inverted" in pixels.how:
        expected = 255 - (stored_values(8, True) + 128.0)
    np.testing.assert_allclose(pixels.array, expected, atol=1)
    assert pixels.how.startswith(f"dicom no VOI: 8-bit {'signed ' if signed else ''}range")


@pytest.mark.parametrize("shape", [None, "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("modality", [None, modality_lut, "rescale"])
def test_deep_without_voi_equals_highdicom_with_a_percentile_window(
    tmp_path: Path, shape: str | None, photometric: str, signed: bool, modality: Change | str | None
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is the oracle")
    change = window(0, 0, slope=2, intercept=-50) if modality == "rescale" else modality
    ds = radiograph(signed=signed, photometric=photometric, shape=shape, change=change)  # type: ignore[arg-type]
    if modality == "rescale":
        del ds.WindowCenter, ds.WindowWidth
    path = write(tmp_path / "a.dcm", ds)
    values = highdicom_display(path, apply_presentation_lut=False)
    low, high = np.percentile(values, [0.5, 99.5], method="inverted_cdf")
    voi = highdicom.VOILUTTransformation(
        window_center=(low + high) / 2, window_width=high - low, voi_lut_function="LINEAR_EXACT"
    )
    if modality is None:
        np.testing.assert_allclose(
            load_dicom(path).array / 255, highdicom_window(path, voi), atol=1 / 255
        )
    unit = np.clip((values - low) / (high - low), 0, 1)
    inverted = shape == "INVERSE" or photometric == "MONOCHROME1"
    np.testing.assert_allclose(
        load_dicom(path).array / 255, 1 - unit if inverted else unit, atol=1 / 255
    )


def highdicom_window(path: Path, voi: Any) -> npt.NDArray[np.float64]:
    """highdicom's frame with another VOI; it reads LINEAR whatever the function given, so widen by its one level."""
    voi.WindowWidth = float(voi.WindowWidth) + 1
    voi.WindowCenter = float(voi.WindowCenter) + 0.5
    return highdicom_display(path, apply_voi_transform=True, voi_transform_selector=voi)


def to_jpeg_baseline(ds: Dataset) -> None:
    buffer = io.BytesIO()
    values = np.frombuffer(ds.PixelData, dtype=np.uint8).reshape(ds.Rows, ds.Columns)
    Image.fromarray(values).save(buffer, format="JPEG", quality=95)
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit


def compressed(path: Path, ds: Dataset, syntax: str) -> Path:
    """Write ``ds`` in a transfer syntax with whichever encoder exists; skip without one."""
    if syntax == uid.JPEGBaseline8Bit:
        to_jpeg_baseline(ds)
    elif syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        gdcm = pytest.importorskip("gdcm", reason="gdcm encodes JPEG Lossless")
        reader, change, writer = (
            gdcm.ImageReader(),
            gdcm.ImageChangeTransferSyntax(),
            gdcm.ImageWriter(),
        )
        reader.SetFileName(str(write(path.with_suffix(".raw"), ds)))
        assert reader.Read()
        name = gdcm.TransferSyntax.JPEGLosslessProcess14_1
        if syntax == uid.JPEGLossless:
            name = gdcm.TransferSyntax.JPEGLosslessProcess14
        change.SetTransferSyntax(gdcm.TransferSyntax(name))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return path
    elif syntax == uid.ExplicitVRBigEndian:
        ds.PixelData = (
            np.frombuffer(ds.PixelData, dtype=f"u{ds.BitsAllocated // 8}").byteswap().tobytes()
        )
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
        pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, enforce_file_format=True)
        return path
    elif uid.UID(syntax).is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
        options: dict[str, Any] = {"jls_error": 2} if syntax == uid.JPEGLSNearLossless else {}
        if syntax == uid.JPEG2000:
            options["j2k_cr"] = [2]
        try:
            ds.compress(syntax, generate_instance_uid=False, **options)
        except RuntimeError as error:
            pytest.skip(f"no encoder: {error}")
    else:
        ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    return write(path, ds)


SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG Baseline": uid.JPEGBaseline8Bit,
    "JPEG Lossless": uid.JPEGLossless,
    "JPEG Lossless SV1": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG-LS near": uid.JPEGLSNearLossless,
    "JPEG 2000 lossless": uid.JPEG2000Lossless,
    "JPEG 2000": uid.JPEG2000,
}


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntaxes_equal_highdicom(
    tmp_path: Path, syntax: str, photometric: str, signed: bool, bits: int
) -> None:
    if syntax == "JPEG Baseline" and (bits != 8 or signed):
        pytest.skip("JPEG Baseline holds 8 unsigned bits")
    if syntax.startswith("JPEG-LS near") and signed:
        pytest.skip("near-lossless JPEG-LS of signed values is not defined by DICOM")
    top = 1 << bits
    change = window(top / 2 - (top / 2 if signed else 0), top * 0.7)
    ds = radiograph(bits=bits, signed=signed, photometric=photometric, change=change)
    plain = write(tmp_path / "plain.dcm", ds)
    path = compressed(tmp_path / "a.dcm", ds, SYNTAXES[syntax])
    assert dicom_attributes(path).transfer_syntax == SYNTAXES[syntax]
    # highdicom reads no big endian files: there it judges by the same image in little endian.
    oracle = plain if syntax == "big endian" else path
    np.testing.assert_allclose(
        load_dicom(path).array / 255, highdicom_display(oracle), atol=1 / 255
    )


def test_padding_is_left_out_of_the_percentiles(tmp_path: Path) -> None:
    def pad(ds: Dataset) -> None:
        values = np.frombuffer(ds.PixelData, dtype=ds_dtype(ds)).copy()
        values[: len(values) // 3] = -2000 if ds.PixelRepresentation else 0
        values[len(values) // 3 : len(values) // 2] = -1990 if ds.PixelRepresentation else 10
        ds.PixelData = values.tobytes()
        ds.PixelPaddingValue = -2000 if ds.PixelRepresentation else 0
        ds.PixelPaddingRangeLimit = -1990 if ds.PixelRepresentation else 10

    for signed in (False, True):
        ds = radiograph(signed=signed, change=pad)
        pixels = load_dicom(write(tmp_path / "a.dcm", ds))
        assert pixels.how == "dicom no VOI: percentiles 0.5 to 99.5 without padding"
        kept = np.frombuffer(ds.PixelData, dtype=ds_dtype(ds))
        first, last = (-2000, -1990) if signed else (0, 10)
        low, high = np.percentile(
            kept[(kept < first) | (kept > last)], [0.5, 99.5], method="inverted_cdf"
        )
        expected = np.clip((kept.astype(float) - low) / (high - low), 0, 1).reshape(40, 48) * 255
        np.testing.assert_allclose(pixels.array, expected, atol=1)


def ds_dtype(ds: Dataset) -> str:
    return f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (window(700, 0), "dicom window without width ignored; no VOI: percentiles 0.5 to 99.5"),
        (window(700, -3), "dicom window without width ignored; no VOI: percentiles 0.5 to 99.5"),
        (window(700, 1), "dicom window 1 LINEAR"),
        (window(700, 0.5), "dicom window 1 LINEAR_EXACT"),
        (window(700, 900, "CUBIC"), "dicom window 1 LINEAR (unknown VOI LUT function)"),
        (lambda ds: setattr(ds, "WindowCenter", None), "dicom no VOI: percentiles 0.5 to 99.5"),
        (
            lambda ds: setattr(ds, "VOILUTSequence", Sequence([])),
            "dicom no VOI: percentiles 0.5 to 99.5",
        ),
    ],
)
def test_odd_windows_do_not_crash(tmp_path: Path, change: Change, how: str) -> None:
    pixels = load_dicom(write(tmp_path / "a.dcm", radiograph(change=change)))
    assert pixels.how == how
    assert pixels.array.max() == 255


def test_a_threshold_window(tmp_path: Path) -> None:
    pixels = load_dicom(write(tmp_path / "a.dcm", radiograph(change=window(700, 1))))
    np.testing.assert_array_equal(pixels.array, np.where(stored_values(12, False) > 699.5, 255, 0))


def test_a_constant_image(tmp_path: Path) -> None:
    def flat(ds: Dataset) -> None:
        ds.PixelData = b"\x07\x00" * (40 * 48)

    assert not load_dicom(write(tmp_path / "a.dcm", radiograph(change=flat))).array.any()


def test_bits_above_bits_stored_are_ignored(tmp_path: Path) -> None:
    clean = radiograph(change=window(700, 900))
    dirty = radiograph(change=window(700, 900))
    dirty.PixelData = (np.frombuffer(clean.PixelData, dtype="<u2") | 0xA000).astype("<u2").tobytes()
    expected = load_dicom(write(tmp_path / "a.dcm", clean)).array
    np.testing.assert_array_equal(load_dicom(write(tmp_path / "b.dcm", dirty)).array, expected)


def test_lut_with_8_bit_entries_and_odd_length(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        entries = np.append(np.arange(255, dtype=np.uint8), np.uint8(0))
        ds.VOILUTSequence = Sequence([lut(100, entries, False)])
        ds.VOILUTSequence[0].LUTDescriptor = [255, 100, 8]

    pixels = load_dicom(write(tmp_path / "a.dcm", radiograph(change=change)))
    expected = np.clip(stored_values(12, False).astype(int) - 100, 0, 254) * (255 / 254)
    np.testing.assert_allclose(pixels.array, expected, atol=1)


def test_by_content_and_without_extension(tmp_path: Path) -> None:
    path = write(tmp_path / "IM0001", radiograph(change=window(700, 900)))
    assert is_dicom(path)
    assert file_kind(path) == "dicom"
    assert image_size(path) == (48, 40)
    np.testing.assert_array_equal(load_image(path).array, load_dicom(path).array)


def test_attributes(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.ViewPosition, ds.ImageLaterality, ds.BodyPartExamined = "PA", "U", "CHEST"

    seen = dicom_attributes(write(tmp_path / "a.dcm", radiograph(change=change)))
    assert (seen.patient_id, seen.patient_sex, seen.patient_age) == ("p7", "F", "047Y")
    assert (seen.study_uid, seen.series_uid, seen.sop_uid, seen.sop_class_uid) == (
        "1.2.3",
        "1.2.3.1",
        "1.2.3.4",
        CR,
    )
    assert (seen.view_position, seen.laterality, seen.body_part, seen.modality) == (
        "PA",
        "U",
        "CHEST",
        "CR",
    )
    assert (seen.width, seen.height, seen.frames, seen.photometric) == (48, 40, 1, "MONOCHROME2")
    assert not seen.lateral


def put(**attributes: Any) -> Change:
    def change(ds: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    return change


def drop(*keywords: str) -> Change:
    def change(ds: Dataset) -> None:
        for keyword in keywords:
            delattr(ds, keyword)

    return change


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_dicom(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(PresentationIntentType="FOR PROCESSING"), "FOR PROCESSING"),
        (put(SOPClassUID=uid.CTImageStorage), "CT Image Storage"),
        (put(NumberOfFrames=3), "got 3"),
        (put(PhotometricInterpretation="RGB", SamplesPerPixel=3), "RGB with 3 samples"),
        (put(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
        (drop("PixelData"), "no pixel data"),
        (put(Rows=0), "48 x 0 pixels"),
        (put(Rows=41), "need 3936 bytes, the file has 3840"),
        (put(Rows=65535, Columns=65535), "more than the limit"),
        (put(BitsAllocated=32, BitsStored=32, HighBit=31), "32 stored in 32"),
        (put(HighBit=15), "high bit"),
        (drop("Rows"), "48 x 0 pixels"),
        (drop("BitsStored"), "lacks Bits Stored (0028,0101)"),
        (drop("BitsAllocated"), "lacks Bits Allocated (0028,0100)"),
        (drop("PixelRepresentation"), "lacks Pixel Representation (0028,0103)"),
        (put(BitsStored=None), "lacks Bits Stored (0028,0101)"),
    ],
)
def test_refusals_say_why(tmp_path: Path, change: Change, reason: str) -> None:
    assert reason in refusal(write(tmp_path / "a.dcm", radiograph(change=change)))


def test_a_lut_that_is_too_short_is_refused(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        voi_lut(ds)
        del ds.WindowCenter, ds.WindowWidth
        ds.VOILUTSequence[0].LUTData = b"\0" * 10

    assert "VOI LUT Sequence (0028,3010) cannot be used" in refusal(
        write(tmp_path / "a.dcm", radiograph(change=change))
    )
    assert "LUT of 1500 entries has 5" in refusal(tmp_path / "a.dcm")


def test_any_class_and_frontal_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", radiograph(change=put(SOPClassUID=uid.CTImageStorage)))
    assert load_dicom(path, any_class=True).array.shape == (40, 48)
    view = Dataset()
    view.CodeMeaning = "left lateral"
    for change, lateral in [
        (put(ViewPosition="LL"), True),
        (put(ViewPosition="PA"), False),
        (put(ViewCodeSequence=Sequence([view])), True),
        (put(PatientOrientation=["A", "F"]), True),
        (put(PatientOrientation=["L", "F"]), False),
    ]:
        path = write(tmp_path / "b.dcm", radiograph(change=change))
        assert load_dicom(path).array.shape == (40, 48)
        assert dicom_attributes(path).lateral is lateral
        if lateral:
            assert "frontal" in refusal(path, frontal_only=True)
        else:
            load_dicom(path, frontal_only=True)


def test_a_missing_decoder_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path / "a.dcm", radiograph(), uid.JPEGLSLossless)
    real = dicom._installed_plugin
    monkeypatch.setattr(
        dicom,
        "_installed_plugin",
        lambda path, syntax, bits, _: real(path, syntax, bits, ("pillow",)),
    )
    message = refusal(path)
    assert "JPEG-LS" in message
    assert "twinray[dicom]" in message
    assert load_dicom(write(tmp_path / "b.dcm", radiograph())).array.shape == (40, 48)


def test_a_deflate_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    ds = radiograph()
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = write(tmp_path / "a.dcm", ds).read_bytes()
    head = data[: data.index(b"1.2.840.10008.1.2.1.99")]
    meta_end = 144 + struct.unpack("<I", head[140:144])[0]
    packer = zlib.compressobj(9, wbits=-15)
    zeros = b"\0" * (1 << 24)
    body = b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()
    (tmp_path / "b.dcm").write_bytes(data[:meta_end] + body)
    assert "inflates to more than" in refusal(tmp_path / "b.dcm")


def test_nested_sequences_without_end(tmp_path: Path) -> None:
    data = write(tmp_path / "a.dcm", radiograph()).read_bytes()
    # Explicit VR SQ of undefined length, one item of undefined length, and so on inwards.
    nest = struct.pack(
        "<HH2sHIHHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    for depth in (500, 20_000):
        (tmp_path / "b.dcm").write_bytes(data[:144] + data[144 : 144 + data[140]] + nest * depth)
        refusal(tmp_path / "b.dcm")


def test_millions_of_empty_elements(tmp_path: Path) -> None:
    data = write(tmp_path / "a.dcm", radiograph()).read_bytes()
    start = 144 + struct.unpack("<I", data[140:144])[0]
    empty = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    (tmp_path / "b.dcm").write_bytes(data[:start] + empty * 1_000_000)
    assert "data elements" in refusal(tmp_path / "b.dcm")


@pytest.mark.parametrize("kind", ["RLE", "JPEG Baseline", "JPEG-LS", "JPEG 2000 lossless"])
def test_a_frame_that_claims_another_size_is_not_decoded(tmp_path: Path, kind: str) -> None:
    path = compressed(tmp_path / "a.dcm", radiograph(bits=8), SYNTAXES[kind])
    ds = pydicom.dcmread(path)
    ds.Rows, ds.Columns = 6000, 6000
    message = refusal(write(tmp_path / "b.dcm", ds))
    assert "cannot hold 36000000 pixels" in message or "the compressed frame 48 x 40" in message


def test_an_rle_header_out_of_its_frame(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", radiograph(), uid.RLELossless)
    data = path.read_bytes()
    at = data.index(struct.pack("<II", 2, 64))
    (tmp_path / "b.dcm").write_bytes(data[: at + 8] + b"\xff\xff\xff\x7f" + data[at + 12 :])
    assert "offsets" in refusal(tmp_path / "b.dcm")


def test_jpeg_2000_with_a_million_tiles(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", radiograph(), uid.JPEG2000Lossless)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\x4f\xff\x51")
    data[at + 8 : at + 16] = struct.pack(">II", 2000, 2000)
    data[at + 24 : at + 32] = struct.pack(">II", 1, 1)
    (tmp_path / "b.dcm").write_bytes(data)
    assert "4000000 tiles" in refusal(tmp_path / "b.dcm")


def decode(path: Path) -> tuple[tuple[int, ...], str, str]:
    pixels = load_dicom(path, any_class=True)
    return pixels.array.shape, str(pixels.array.dtype), pixels.how


def check_outcomes(paths: list[Path]) -> int:
    """Decode in workers; every outcome must be pixels or one refusal line that names the file."""
    decoded = 0
    for path, outcome in zip(
        paths, map_in_workers(decode, paths, workers=2, timeout_s=10), strict=True
    ):
        if outcome.error is None:
            shape, dtype, how = outcome.result()
            assert len(shape) == 2
            assert dtype == "uint8"
            assert how.startswith("dicom ")
            decoded += 1
        else:
            assert str(path) in outcome.error, outcome.error
            assert "\n" not in outcome.error
    return decoded


def test_every_file_that_pydicom_ships(tmp_path: Path) -> None:
    folder = PYDICOM_FILES.parent
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
    assert len(paths) > 100
    assert check_outcomes(paths) >= 50


def test_mutations_of_pydicom_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = sorted(p for p in PYDICOM_FILES.glob("*.dcm") if os.path.getsize(p) < 50_000)
    paths = []
    for number in range(100):
        data = np.frombuffer(
            sources[rng.integers(len(sources))].read_bytes(), dtype=np.uint8
        ).copy()
        spots = rng.integers(0, min(len(data), 3000), size=rng.integers(1, 9))
        data[spots] = rng.integers(0, 256, size=len(spots))
        cut = len(data) if rng.random() < 0.8 else int(rng.integers(140, len(data)))
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(data[:cut].tobytes())
        paths.append(path)
    check_outcomes(paths)


@pytest.mark.parametrize(
    ("find", "replace", "reason"),
    [
        (b"\xff\xc3\x00\x0b\x0c", b"\xff\xc3\x00\x0b\xb9", "the compressed frame 185"),
        (b"\xff\xc3\x00\x0b\x10", b"\xff\xc3\x00\x0b\xb9", "the compressed frame 185"),
        (b"\xff\xc4", b"\x00\xc4", "no Huffman table"),
    ],
)
def test_lossless_jpeg_headers_that_crash_decoders_are_refused(
    tmp_path: Path, find: bytes, replace: bytes, reason: str
) -> None:
    data = compressed(tmp_path / "a.dcm", radiograph(), uid.JPEGLosslessSV1).read_bytes()
    if find not in data:
        pytest.skip("the encoder wrote another sample precision")
    path = tmp_path / "b.dcm"
    path.write_bytes(data.replace(find, replace, 1))
    assert reason in refusal(path)

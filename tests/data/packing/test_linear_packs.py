"""Packs of linear uint16 values: their files, resuming, and that they are found as copies of display packs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_support import write_radiograph
from twinray.data.fit import fit_pixels, to_grey, to_square
from twinray.data.pack import LINEAR, PACK, open_pack, verify_pack
from twinray.data.packing import journal as pack_journal
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.dicom_folder import read_dicom_folder
from twinray.errors import InputError
from twinray.jobs.pack import PackConfig, run
from twinray.records import Collection, Linear, Pixels, Sample
from twinray.runs.seen import Seen, check_unseen

OPTIONS = PackOptions(size=16, val=0.2, test=0.2, pixels="uint16")


def radiograph(path: Path, stored: np.ndarray, **values) -> Path:
    own = {
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": "2000",
        "WindowWidth": "1500",
    }
    uid = f"1.2.3.{int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16)}"
    own |= {"SOPInstanceUID": uid, "PixelData": stored.astype("<u2").tobytes()} | values
    return write_radiograph(path, stored, **own)


@dataclass(frozen=True)
class Drawn:
    """Makes linear images without any file; those with ``rgb`` in their id are in colour."""

    side: int = 20

    def __call__(self, sample: Sample) -> Pixels:
        seed = int(hashlib.sha256(sample.source.encode()).hexdigest()[:8], 16)
        rng = np.random.default_rng(seed)
        shape = (self.side, self.side, 3) if "rgb" in sample.id else (self.side, self.side)
        low = float(rng.integers(0, 3000))
        return Pixels(
            rng.integers(0, 1 << 14, shape, dtype=np.uint16), "drawn", (), Linear(low, low + 777.25)
        )


def drawn(ids: list[str]) -> Collection:
    samples = [Sample(i, f"{i}.png", patient=f"p{k}") for k, i in enumerate(ids)]
    return Collection("drawn", (), (), "none", samples, Drawn())


def files_of(pack: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(pack.iterdir())
        if p.is_file()
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "dicom").mkdir()
    for k in range(8):
        radiograph(
            tmp_path / "dicom" / f"{k}.dcm", rng.integers(0, 4096, (32, 32)), PatientID=f"p{k}"
        )
    return tmp_path / "dicom"


def test_twelve_bit_radiographs_round_trip_to_their_stored_values(
    tmp_path: Path, archive: Path
) -> None:
    import pydicom

    for out, pixels in (("linear", "uint16"), ("plain", "uint8")):
        write_pack(
            [read_dicom_folder(archive)],
            tmp_path / out,
            replace(OPTIONS, size=32, pixels=pixels),
            workers=0,
        )
    pack, plain = verify_pack(tmp_path / "linear"), verify_pack(tmp_path / "plain")
    images = np.load(tmp_path / "linear" / "images.npy")
    assert images.dtype == np.uint16
    table = pack.table.to_pydict()
    for row, source in enumerate(table["source"]):
        stored = pydicom.dcmread(archive / source).pixel_array
        np.testing.assert_array_equal(images[row], stored)
        assert table["slope"][row] * 7 + table["intercept"][row] == 7
        assert (table["window_low"][row], table["window_high"][row]) == (1250.0, 2749.0)
        assert table["sha256"][row] == hashlib.sha256(stored.astype("<u2").tobytes()).hexdigest()
        # at its own size nothing is resampled: the window shows the display pack's pixels
        assert np.abs(pack.shown(row).astype(int) - plain.shown(row)).max() <= 1
    told = json.loads((tmp_path / "linear" / PACK).read_text())
    assert told["pixels"] == "uint16"
    assert any("linear uint16" in note for note in told["notes"])
    # mean and deviation are of what is shown, so that packs can be compared
    np.testing.assert_allclose(pack.info.mean, plain.info.mean, atol=2e-3)
    np.testing.assert_allclose(pack.info.std, plain.info.std, atol=2e-3)
    assert pack.check_pixels(np.arange(len(pack))) == ()


def test_a_display_pack_says_nothing_of_it(tmp_path: Path, archive: Path) -> None:
    write_pack(
        [read_dicom_folder(archive)],
        tmp_path / "plain",
        replace(OPTIONS, pixels="uint8"),
        workers=0,
    )
    pack = open_pack(tmp_path / "plain")
    assert "pixels" not in json.loads((tmp_path / "plain" / PACK).read_text())
    assert not set(LINEAR.names) & set(pack.table.column_names)
    assert "pixels" not in pack.info.made()


@pytest.mark.parametrize("at", [0, 3, 7])
def test_resumed_packs_have_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Cut off after ``at`` images, grey ones before colour ones, so that the file turns RGB on the way."""
    ids = [f"i{k}" for k in range(5)] + [f"rgb{k}" for k in range(3)] + ["i9"]
    write_pack([drawn(ids)], tmp_path / "whole", OPTIONS, workers=0)
    add, n = pack_journal.Journal.add, [0]

    def stops(self, *arguments):
        if n[0] == at:
            raise KeyboardInterrupt
        n[0] += 1
        add(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pack_journal.Journal, "add", stops)
        with pytest.raises(KeyboardInterrupt):
            write_pack([drawn(ids)], tmp_path / "cut", OPTIONS, workers=0)
    with pytest.raises(InputError, match="unfinished pack of another source or of other options"):
        write_pack(
            [drawn(ids)], tmp_path / "cut", replace(OPTIONS, pixels="uint8"), workers=0, resume=True
        )
    write_pack([drawn(ids)], tmp_path / "cut", OPTIONS, workers=0, resume=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert np.load(tmp_path / "cut" / "images.npy").shape == (9, 16, 16, 3)


def test_damage_behind_the_journal_is_packed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"i{k}" for k in range(5)] + ["rgb0"]
    write_pack([drawn(ids)], tmp_path / "whole", OPTIONS, workers=0)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("twinray.data.packing.finish.Finish.write", killed)
        with pytest.raises(KeyboardInterrupt):
            write_pack([drawn(ids)], tmp_path / "cut", OPTIONS, workers=0)
    part = tmp_path / "cut" / ".unfinished" / "images.part"
    data = bytearray(part.read_bytes())
    data[128 + 2 * 16 * 16 * 3 * 2 + 7] ^= 1  # an odd byte of the third image
    part.write_bytes(data)
    write_pack([drawn(ids)], tmp_path / "cut", OPTIONS, workers=0, resume=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_pack_whose_pixels_are_not_what_it_says_is_refused(tmp_path: Path) -> None:
    write_pack([drawn([f"i{k}" for k in range(5)])], tmp_path / "p", OPTIONS, workers=0)
    images = np.load(tmp_path / "p" / "images.npy")
    np.save(tmp_path / "p" / "images.npy", (images >> 8).astype(np.uint8))
    with pytest.raises(InputError, match="type uint16"):
        open_pack(tmp_path / "p")


def test_copies_are_found_across_pixels(tmp_path: Path) -> None:
    """The same radiographs under other names and patients, once linear and once as their window shows them."""
    rng = np.random.default_rng(3)
    places = np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1)
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
    for k in range(6):
        centres = rng.uniform(8, 56, (5, 2))
        field = sum(
            np.exp(-((places - c) ** 2).sum(axis=-1) / (2 * s * s))
            for c, s in zip(centres, rng.uniform(4, 14, 5), strict=True)
        )
        stored = np.rint(600 + 2600 * field / field.max()).astype(np.uint16)
        radiograph(
            tmp_path / "a" / f"{k}.dcm",
            stored,
            PatientID=f"p{k}",
            WindowCenter="2000",
            WindowWidth="3000",
        )
        radiograph(
            tmp_path / "b" / f"copy{k}.dcm",
            stored,
            PatientID=f"q{k}",
            WindowCenter="1900",
            WindowWidth="2900",
        )
    packs = {}
    for kind, pixels in (("a", "uint8"), ("b", "uint16")):
        options = replace(OPTIONS, size=64, pixels=pixels)
        write_pack(
            [read_dicom_folder(tmp_path / kind)], tmp_path / f"pack-{kind}", options, workers=0
        )
        packs[kind] = open_pack(tmp_path / f"pack-{kind}")
    for known, asked in (("a", "b"), ("b", "a")):
        seen = Seen().plus(Path("run"), "pretrain", [(packs[known], np.arange(6))])
        with pytest.raises(InputError, match="near copies"):
            check_unseen(seen, packs[asked], {"test": np.arange(6)}, weights="W", allow=False)


@settings(max_examples=25, deadline=None)
@given(
    side=st.integers(8, 70),
    size=st.sampled_from([16, 17]),
    fit=st.sampled_from(["squash", "letterbox"]),
    seed=st.integers(0, 99),
)
def test_resampling_in_16_bits_agrees_with_8_bits_and_has_finer_steps(
    side: int, size: int, fit, seed: int
) -> None:
    """Multiplied by 257 before resampling or afterwards: to the rounding of the 8-bit filter."""
    rng = np.random.default_rng(seed)
    small = rng.integers(80, 176, (side, side + 3), dtype=np.uint8)  # no cut-off overshoot
    fine = fit_pixels(small.astype(np.uint16) * np.uint16(257), size, fit)
    coarse = fit_pixels(small, size, fit)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - coarse).max() <= 2.01  # two passes of Pillow, each rounded


def test_a_shallow_ramp_is_not_banded() -> None:
    """512 stored values over a picture that is halved: 8 bits of the whole range leave 32 steps, 16 bits nearly all."""
    ramp = np.tile(np.linspace(1000, 1511, 512), (512, 1)).astype(np.uint16)
    fitted = fit_pixels(ramp, 200, "squash")
    assert len(np.unique(fitted)) >= 195
    assert (np.diff(fitted[100].astype(int)) >= 0).all()


def test_luma_of_16_bits_is_that_of_8_bits() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    fine = to_grey(colour.astype(np.uint16) * np.uint16(257))
    assert np.abs(fine / 257 - to_grey(colour)).max() <= 0.51
    assert to_square(colour.astype(np.uint16), 16, "squash", 1).shape == (16, 16)


def test_the_verb_takes_the_option_and_shows_it(tmp_path: Path, archive: Path, capsys) -> None:
    pack = run(
        PackConfig(
            (archive,),
            ("dicom",),
            out=tmp_path / "p",
            size=16,
            pixels="uint16",
            workers=1,
            sheet=tmp_path / "s.png",
        )
    )
    assert pack.info.pixels == "uint16"
    assert "grey, uint16" in capsys.readouterr().out
    assert (tmp_path / "s.png").stat().st_size > 1000

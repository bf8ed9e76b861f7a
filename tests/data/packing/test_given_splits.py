"""``pack --splits``: anybody's split used again, with what does not fit it counted and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import Pack, open_pack, verify_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.splitting.record import GivenSplits, SplitRecord
from twinray.errors import InputError
from twinray.records import Collection, Pixels, Sample


def draw(sample: Sample) -> Pixels:
    if sample.attributes.get("broken"):
        raise InputError(f"{sample.source}: broken")
    return Pixels(
        np.random.default_rng(int(sample.id)).integers(0, 256, (20, 20), dtype=np.uint8), "made"
    )


def some(ids: range, name: str = "made", **split: str) -> Collection:
    samples = [
        Sample(str(i), f"{i}.png", patient=f"p{i // 2}", split=split.get(f"i{i}")) for i in ids
    ]
    return Collection(name, (), (), "none", samples, draw)


def record(path: Path, **ids: list[str]) -> Path:
    counts = {name: len(own) for name, own in ids.items()}
    SplitRecord("by hand", None, {}, ids, counts, dict.fromkeys(ids, 0), {}, False, []).write(path)
    return path


def packed(out: Path, given: Path, *collections: Collection, **more: object) -> Pack:
    options = PackOptions(size=16, given=GivenSplits.read(given))
    write_pack(collections, out, options, workers=0, **more)
    return verify_pack(out)


def test_a_pack_has_the_splits_of_another(tmp_path: Path) -> None:
    write_pack([some(range(40))], tmp_path / "first", PackOptions(size=16, seed=3), workers=0)
    first = open_pack(tmp_path / "first")
    second = packed(
        tmp_path / "second",
        tmp_path / "first" / "splits.json",
        some(range(40), i0="test", i1="train"),
    )
    assert dict(zip(second.ids, second.splits, strict=True)) == dict(
        zip(first.ids, first.splits, strict=True)
    )
    assert second.info.split_method == f"as in splits.json ({first.info.split_method})"
    assert second.info.notes == ()
    third = packed(tmp_path / "third", tmp_path / "second" / "splits.json", some(range(40)))
    assert third.splits.tolist() == second.splits.tolist()


def test_what_does_not_fit_is_counted_both_ways(tmp_path: Path) -> None:
    given = record(
        tmp_path / "theirs.json",
        train=["0", "1", "2", "3"],
        val=["4", "90"],
        test=["6", "91", "92"],
    )
    pack = packed(tmp_path / "p", given, some(range(10)))
    assert dict(zip(pack.ids, pack.splits, strict=True)) == {
        **dict.fromkeys("0123", "train"),
        "4": "val",
        "6": "test",
    }
    assert "4 images have no split in theirs.json: set aside" in pack.info.notes
    assert "3 images of theirs.json are not in the source, such as 90" in pack.info.notes
    assert pack.info.skipped == 4
    assert (
        (tmp_path / "p" / "skipped.csv")
        .read_text()
        .splitlines()[1]
        .startswith("5.png,theirs.json names no split")
    )
    with pytest.raises(InputError, match=r"theirs\.json names no split for this image"):
        packed(tmp_path / "q", given, some(range(10)), strict=True)


def test_patients_and_pixels_on_several_sides_are_reported_not_moved(tmp_path: Path) -> None:
    given = record(tmp_path / "theirs.json", train=["0", "2"], test=["1", "3"])
    pack = packed(tmp_path / "p", given, some(range(4)))
    assert pack.splits.tolist() == ["train", "test", "train", "test"]
    (note,) = (note for note in pack.info.notes if note.startswith("WARNING"))
    assert "2 patients (4 images) are in several splits of theirs.json" in note
    assert pack.info.extra["patients_in_several_splits"]["patients"] == 2
    assert not SplitRecord.read(tmp_path / "p" / "splits.json").fractions


def test_several_sources_are_told_apart_and_one_of_them_may_stand_alone(tmp_path: Path) -> None:
    given = record(tmp_path / "s.json", train=["a/0", "b/1"], test=["a/2", "b/3"])
    both = packed(tmp_path / "p", given, some(range(0, 4, 2), "a"), some(range(1, 5, 2), "b"))
    assert dict(zip(both.ids, both.splits, strict=True)) == {
        "a/0": "train",
        "a/2": "test",
        "b/1": "train",
        "b/3": "test",
    }
    alone = packed(tmp_path / "q", given, some(range(0, 4, 2), "a"))
    assert dict(zip(alone.ids, alone.splits, strict=True)) == {"0": "train", "2": "test"}
    assert "2 images of s.json are not in the source, such as b/1" in alone.info.notes


def test_a_cut_off_pack_goes_on_with_the_same_file_and_not_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = record(tmp_path / "s.json", train=list("0123"), test=list("4567"))
    whole = packed(tmp_path / "whole", given, some(range(8)))

    def until_5(sample: Sample) -> Pixels:
        if sample.id == "5":
            raise KeyboardInterrupt
        return draw(sample)

    cut = some(range(8))
    object.__setattr__(cut, "load", until_5)
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path / "cut", given, cut)
    other = record(tmp_path / "other.json", train=list("012345"), test=list("67"))
    with pytest.raises(InputError, match="another source or of other options"):
        packed(tmp_path / "cut", other, some(range(8)), resume=True)
    again = packed(tmp_path / "cut", given, some(range(8)), resume=True)
    assert again.info == whole.info
    with pytest.raises(InputError, match="another source or of other options"):
        packed(tmp_path / "cut", other, some(range(8)), resume=True)


def test_splits_of_something_else_are_refused(tmp_path: Path) -> None:
    given = record(tmp_path / "s.json", train=["x/1.png"], test=[])
    with pytest.raises(
        InputError,
        match=r"s\.json names none of the images \(it has ids such as x/1\.png, the source 0\)",
    ):
        packed(tmp_path / "p", given, some(range(4)))


def test_the_command_line_takes_them(cli, tmp_path: Path) -> None:
    phantom = ("pack", "--format", "phantom", "--phantom-images", 24, "--size", 16, "--workers", 1)
    assert cli(*phantom, "--out", tmp_path / "a", "--val", 0.3)[0] == 0
    splits = tmp_path / "a" / "splits.json"
    status, out, _ = cli(*phantom, "--out", tmp_path / "b", "--splits", splits)
    assert status == 0
    assert "as in splits.json" in out
    assert open_pack(tmp_path / "b").splits.tolist() == open_pack(tmp_path / "a").splits.tolist()
    for more in (("--val", 0.3), ("--test", 0), ("--folds", 4)):
        status, _, error = cli(*phantom, "--out", tmp_path / "c", "--splits", splits, *more)
        assert status == 2
        assert f"{more[0]} cuts splits, --splits gives them; leave one of them out" in error
    splits.write_text(json.dumps({"format": "something else"}))
    status, _, error = cli(*phantom, "--out", tmp_path / "c", "--splits", splits)
    assert status == 2
    assert "give a splits.json" in error

"""Writing packs: what is set aside, splits, leaks, colour, resuming, a full disk."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twinray import files
from twinray.data.pack import open_pack, verify_pack
from twinray.data.packing import write as packing
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.coco import read_coco
from twinray.data.readers.folder import read_folder
from twinray.data.readers.formats import SourceOptions, read_sources
from twinray.data.splitting.record import SplitRecord
from twinray.errors import InputError, TwinrayError
from twinray.records import Boxes, Collection, Pixels, Sample, share_patients

SMALL = PackOptions(size=16, val=0.2, test=0.2)


@dataclass(frozen=True)
class Drawn:
    """Makes images without any file; ids with ``bad`` are refused, those with ``rgb`` are in colour."""

    height: int = 20
    width: int = 30

    def __call__(self, sample: Sample) -> Pixels:
        if "bad" in sample.id:
            raise InputError(f"{sample.source}: expected an image, got nothing; replace it")
        name = sample.source.split("#")[0]
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        shape = (self.height, self.width, 3) if "rgb" in sample.id else (self.height, self.width)
        return Pixels(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), "drawn")


def drawn(ids: list[str], name: str = "drawn", **more: Any) -> Collection:
    samples = [Sample(i, f"{i}.png", patient=f"p{k // 2}") for k, i in enumerate(ids)]
    return replace(Collection(name, (), (), "none", samples, Drawn()), **more)


def some(n: int, prefix: str = "i") -> list[str]:
    return [f"{prefix}{i:03}" for i in range(n)]


def files_of(pack: Path) -> dict[str, str]:
    return {
        str(p.relative_to(pack)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(pack.rglob("*"))
        if p.is_file()
    }


def aside_of(pack: Path) -> list[tuple[str, str]]:
    with (pack / "skipped.csv").open(newline="", encoding="utf-8") as file:
        return [(row["where"], row["reason"]) for row in csv.DictReader(file)]


def test_a_folder_with_bad_files_packs_the_good_ones(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 30), dtype=np.uint8)).save(source / f"{i}.png")
    whole = (source / "0.png").read_bytes()
    Image.fromarray(rng.integers(0, 256, (40, 30), dtype=np.uint8)).save(source / "cut.jpg")
    (source / "cut.jpg").write_bytes((source / "cut.jpg").read_bytes()[:300])
    (source / "text.png").write_text("I am no image")
    (source / "empty.png").write_bytes(b"")
    result = write_pack([read_folder(source)], tmp_path / "pack", SMALL, workers=2)
    pack = verify_pack(tmp_path / "pack")
    assert len(pack) == 6
    assert {where for where, _ in aside_of(tmp_path / "pack")} == {
        "cut.jpg",
        "text.png",
        "empty.png",
    }
    assert all(
        "\n" not in reason and "Traceback" not in reason
        for _, reason in aside_of(tmp_path / "pack")
    )
    assert result.skipped == 3
    assert sum(result.info.skipped_reasons.values()) == 3
    assert pack.sizes[0].tolist() == [30, 40]
    assert (source / "0.png").read_bytes() == whole
    assert not (tmp_path / "pack" / ".unfinished").exists()


def test_nothing_that_can_be_packed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"none of the 2 images could be packed; first: bad1\.png: expected an image",
    ):
        write_pack([drawn(["bad1", "bad2"])], tmp_path / "pack", SMALL, workers=0)
    assert list((tmp_path / "pack").iterdir()) == []


def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bad.png.*--strict"):
        write_pack([drawn([*some(6), "bad"])], tmp_path / "pack", SMALL, workers=0, strict=True)
    with pytest.raises(InputError, match="cut off"):
        open_pack(tmp_path / "pack")
    write_pack([drawn([*some(6), "bad"])], tmp_path / "pack", SMALL, workers=0, resume=True)
    assert len(open_pack(tmp_path / "pack")) == 6


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        write_pack([drawn(some(4))], tmp_path, SMALL, workers=0)
    assert (tmp_path / "mine.txt").read_text() == "x"


@pytest.mark.parametrize(
    "change",
    [
        {"size": 15},
        {"size": 5000},
        {"val": -0.1},
        {"val": 0.5, "test": 0.5},
        {"test": float("nan")},
        {"seed": -1},
        {"fit": "x"},
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected --"):
        write_pack([drawn(some(4))], tmp_path / "p", replace(SMALL, **change))
    assert not (tmp_path / "p").exists()


def test_mean_and_deviation_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    for name, ids, channels in (("grey", some(10), 1), ("rgb", some(10, "rgb"), 3)):
        write_pack([drawn(ids)], tmp_path / name, SMALL, workers=0)
        pack = open_pack(tmp_path / name)
        pixels = pack.images[pack.where("train")].reshape(-1, channels) / 255.0
        np.testing.assert_allclose(pack.info.mean, pixels.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(pack.info.std, pixels.std(axis=0), rtol=1e-12)
        assert pack.table.column("sha256").to_pylist() == [
            hashlib.sha256(x.tobytes()).hexdigest() for x in pack.images
        ]


def test_splits_are_cut_by_patient_and_recorded(tmp_path: Path) -> None:
    write_pack([drawn(some(40))], tmp_path / "a", SMALL, workers=0)
    write_pack([drawn(some(40))], tmp_path / "b", replace(SMALL, seed=1), workers=0)
    a, b = open_pack(tmp_path / "a"), open_pack(tmp_path / "b")
    sides: dict[str, set[str]] = {}
    for patient, split in zip(a.patients, a.splits, strict=True):
        sides.setdefault(patient, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert [len(a.where(s)) for s in ("train", "val", "test")] == [24, 8, 8]
    assert a.splits.tolist() != b.splits.tolist()
    record = SplitRecord.read(tmp_path / "a" / "splits.json")
    assert {i: split for split, ids in record.ids.items() for i in ids} == dict(
        zip(a.ids, a.splits, strict=True)
    )
    assert "by patient" in a.info.split_method
    assert "seed 0" in a.info.split_method


def with_splits(ids: list[str], splits: list[str | None], patients: list[str | None]) -> Collection:
    samples = [
        Sample(i, f"{i}.png", patient=p, split=s)
        for i, s, p in zip(ids, splits, patients, strict=True)
    ]  # type: ignore[arg-type]
    return drawn([], samples=samples)


def test_official_splits_are_kept_and_the_missing_one_is_cut_out_of_train(tmp_path: Path) -> None:
    ids = some(30)
    found = with_splits(ids, ["train"] * 20 + ["test"] * 10, [f"p{i // 2}" for i in range(30)])
    write_pack([found], tmp_path / "p", replace(SMALL, val=0.2), workers=0)
    pack = open_pack(tmp_path / "p")
    assert pack.splits[20:].tolist() == ["test"] * 10
    assert [len(pack.where(s)) for s in ("train", "val", "test")] == [16, 4, 10]
    assert pack.info.split_method.startswith("train, test official; cut out of train by patient")
    write_pack([found], tmp_path / "q", replace(SMALL, val=0.0), workers=0)
    assert open_pack(tmp_path / "q").splits.tolist() == ["train"] * 20 + ["test"] * 10
    assert open_pack(tmp_path / "q").info.split_method == "official"


def test_a_source_with_train_only_is_cut(tmp_path: Path) -> None:
    write_pack(
        [with_splits(some(20), ["train"] * 20, [None] * 20)], tmp_path / "p", SMALL, workers=0
    )
    pack = open_pack(tmp_path / "p")
    assert [len(pack.where(s)) for s in ("train", "val", "test")] == [12, 4, 4]
    assert "no patient ids" in pack.info.split_method


def test_images_without_a_split_follow_their_patient(tmp_path: Path) -> None:
    found = with_splits(["a", "b", "c", "d"], ["train", "test", None, None], ["p", "q", "q", "r"])
    write_pack([found], tmp_path / "p", replace(SMALL, val=0.0), workers=0)
    pack = open_pack(tmp_path / "p")
    assert pack.splits.tolist() == ["train", "test", "test", "train"]
    assert any("2 images without a split" in note for note in pack.info.notes)


def test_leaks_of_official_splits_are_reported_not_mended(tmp_path: Path) -> None:
    found = with_splits(
        ["a", "b", "c", "d"], ["train", "test", "train", "test"], ["p", "p", "q", "r"]
    )
    samples = [
        *found.samples[:2],
        replace(found.samples[2], source="same"),
        replace(found.samples[3], source="same"),
    ]
    result = write_pack(
        [replace(found, samples=samples)], tmp_path / "p", replace(SMALL, val=0.0), workers=0
    )
    assert result.info.extra["patients_in_several_splits"] == {"patients": 1, "first": ["p"]}
    assert result.info.extra["duplicates"]["groups_across_splits"] == 1
    assert result.info.extra["duplicates"]["first"] == [["c", "d"]]
    assert sum(note.startswith("WARNING") for note in result.info.notes) == 2
    record = SplitRecord.read(tmp_path / "p" / "splits.json")
    assert record.patients == {"train": 2, "test": 2}
    assert any("several splits" in note for note in record.notes)


def test_a_cut_keeps_identical_images_together(tmp_path: Path) -> None:
    samples = [Sample(i, f"{k % 10}#{k}", patient=f"p{k}") for k, i in enumerate(some(40))]
    result = write_pack([drawn([], samples=samples)], tmp_path / "p", SMALL, workers=0)
    pack = open_pack(tmp_path / "p")
    assert result.info.extra["duplicates"] | {"first": 0} == {
        "groups": 10,
        "images": 40,
        "groups_across_splits": 0,
        "first": 0,
    }
    assert {pack.splits[k] for k in range(0, 40, 10)} == {pack.splits[0]}
    assert len(set(pack.splits)) == 3
    assert not any(note.startswith("WARNING") for note in pack.info.notes)


@pytest.mark.parametrize("at", [0, 3, 7])
def test_colour_anywhere_makes_the_whole_pack_rgb(tmp_path: Path, at: int) -> None:
    ids = some(8)
    grey_path, mixed_path = tmp_path / "grey", tmp_path / "mixed"
    write_pack([drawn(ids)], grey_path, SMALL, workers=0)
    mixed = drawn(ids)
    samples = list(mixed.samples)
    samples[at] = replace(samples[at], id="rgb")
    write_pack([replace(mixed, samples=samples)], mixed_path, SMALL, workers=0)
    grey, colour = open_pack(grey_path), verify_pack(mixed_path)
    assert (grey.info.channels, colour.info.channels) == (1, 3)
    for i in range(8):
        if i != at:
            np.testing.assert_array_equal(colour.images[i], np.stack([grey.images[i]] * 3, axis=-1))
    assert colour.table.column("sha256").to_pylist() == [
        hashlib.sha256(x.tobytes()).hexdigest() for x in colour.images
    ]
    pixels = colour.images[colour.where("train")].reshape(-1, 3) / 255.0
    np.testing.assert_allclose(colour.info.mean, pixels.mean(axis=0), rtol=1e-12)


def test_channels_can_be_forced(tmp_path: Path) -> None:
    write_pack(
        [drawn(["rgb1", "rgb2", "x", "y", "z"])],
        tmp_path / "g",
        replace(SMALL, channels="grey"),
        workers=0,
    )
    write_pack([drawn(some(5))], tmp_path / "c", replace(SMALL, channels="rgb"), workers=0)
    assert open_pack(tmp_path / "g").images.shape == (5, 16, 16)
    assert verify_pack(tmp_path / "c").images.shape == (5, 16, 16, 3)


def boxed(xyxy: list[list[float]], **more: Any) -> Collection:
    sample = Sample(
        "a",
        "a.png",
        boxes=Boxes(np.array(xyxy, dtype=float), np.zeros(len(xyxy), dtype=np.int64)),
        **more,
    )
    return drawn([], samples=[sample], box_classes=("nodule",))


def test_boxes_in_another_frame_are_scaled_to_the_file(tmp_path: Path) -> None:
    found = boxed([[0, 0, 512, 1024], [100, 100, 2000, 200]], boxes_frame=(1024, 1024))
    write_pack([found], tmp_path / "p", replace(SMALL, val=0, test=0), workers=0)
    boxes = open_pack(tmp_path / "p").boxes(0)
    assert boxes is not None
    assert boxes.xyxy.tolist() == [[0, 0, 15, 20]]
    assert aside_of(tmp_path / "p")[0][0] == "a.png box 1"
    assert open_pack(tmp_path / "p").info.counts["boxes"] == 1


def test_an_image_of_which_no_box_is_left_counts_as_never_annotated(tmp_path: Path) -> None:
    write_pack([boxed([[0, 0, 500, 5]])], tmp_path / "p", replace(SMALL, val=0, test=0), workers=0)
    assert open_pack(tmp_path / "p").boxes(0) is None
    with pytest.raises(InputError, match="--strict"):
        write_pack(
            [boxed([[0, 0, 500, 5]])],
            tmp_path / "q",
            replace(SMALL, val=0, test=0),
            workers=0,
            strict=True,
        )


def test_another_size_than_declared_sets_the_image_aside(tmp_path: Path) -> None:
    samples = [Sample("a", "a.png", size=(30, 20)), Sample("b", "b.png", size=(60, 40))]
    write_pack(
        [drawn([], samples=samples)], tmp_path / "p", replace(SMALL, val=0, test=0), workers=0
    )
    assert open_pack(tmp_path / "p").ids.tolist() == ["a"]
    assert aside_of(tmp_path / "p") == [
        (
            "b.png",
            "the annotations say 60 x 40 pixels, the file has 30 x 20; give the images that the annotations were made for",
        )
    ]


def test_several_sources_in_one_pack(tmp_path: Path) -> None:
    def labelled(name: str, classes: tuple[str, ...]) -> Collection:
        samples = [
            Sample(
                i,
                f"{name}{i}.png",
                patient="p" + i,
                labels=np.eye(len(classes), dtype=np.float32)[k % len(classes)],
                boxes=Boxes(np.array([[1.0, 1, 5, 5]]), np.array([0])),
            )
            for k, i in enumerate(some(10))
        ]
        return drawn(
            [],
            name=name,
            samples=samples,
            label_classes=classes,
            box_classes=(classes[-1],),
            task="multiclass",
        )

    write_pack(
        [labelled("x", ("a", "b")), labelled("y", ("c", "b"))], tmp_path / "p", SMALL, workers=0
    )
    pack = verify_pack(tmp_path / "p")
    assert (pack.info.label_classes, pack.info.task, pack.info.names) == (
        ("a", "b", "c"),
        "multilabel",
        ("x", "y"),
    )
    np.testing.assert_array_equal(pack.labels[0], [1, 0, np.nan])
    np.testing.assert_array_equal(pack.labels[10], [np.nan, 0, 1])
    assert (pack.ids[0], pack.ids[10], pack.patients[10]) == ("x/i000", "y/i000", "y/pi000")
    assert pack.info.box_classes == ("b",)
    write_pack(
        [labelled("x", ("a", "b")), labelled("x", ("a", "b"))], tmp_path / "q", SMALL, workers=0
    )
    again = open_pack(tmp_path / "q")
    assert (again.info.task, again.info.names, again.ids[10]) == (
        "multiclass",
        ("x", "x-2"),
        "x-2/i000",
    )
    assert (again.patients[0], again.patients[10]) == ("x/pi000", "x/pi000")


def sides_of(pack: Any) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for patient, split in zip(pack.patients, pack.splits, strict=True):
        sides.setdefault(patient, set()).add(split)
    return sides


def test_sources_of_one_name_that_share_patients_are_cut_as_one(tmp_path: Path) -> None:
    parts = [drawn(some(60, prefix), name="x") for prefix in "ab"]
    result = write_pack(parts, tmp_path / "p", SMALL, workers=0)
    pack = open_pack(tmp_path / "p")
    assert len(sides_of(pack)) == 30
    assert all(len(sides) == 1 for sides in sides_of(pack).values())
    assert [len(pack.where(split)) for split in ("train", "val", "test")] == [72, 24, 24]
    assert not result.info.notes
    assert SplitRecord.read(tmp_path / "p" / "splits.json").patients == {
        "train": 18,
        "val": 6,
        "test": 6,
    }


def test_parts_of_one_data_set_share_patients_when_told_so(tmp_path: Path) -> None:
    parts = [drawn(some(60, name[-1]), name=name) for name in ("images_001", "images_002", "other")]
    parts[2] = replace(
        parts[2], samples=[replace(sample, patient=None) for sample in parts[2].samples]
    )
    apart = write_pack(parts, tmp_path / "p", SMALL, workers=0)
    assert apart.info.counts["patients"] == 60
    (note,) = apart.info.notes
    assert note.startswith("images_001: 30 patient ids occur in several sources (images_002 too)")
    assert "--shared-patients" in note
    assert "p1" not in note
    one = write_pack(share_patients(parts), tmp_path / "q", SMALL, workers=0)
    assert (one.info.counts["patients"], one.info.notes) == (30, ())
    pack = open_pack(tmp_path / "q")
    assert (pack.ids[60], pack.patients[60]) == ("images_002/2000", "p0")
    assert all(len(sides) == 1 for patient, sides in sides_of(pack).items() if patient)
    with pytest.raises(InputError, match="of another source or of other options"):
        write_pack(parts, tmp_path / "q", SMALL, workers=0, resume=True)


def test_the_option_for_parts_of_one_data_set(tmp_path: Path) -> None:
    sources = tuple(tmp_path / f"images_00{k}" for k in (1, 2))
    for k, source in enumerate(sources):
        source.mkdir()
        for i in range(8):
            pixels = np.random.default_rng(8 * k + i).integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(source / f"p{i}_{k}.png")
    options = SourceOptions(patient_regex=r"(p\d+)_")
    write_pack(
        read_sources("folder", sources, options, shared_patients=True),
        tmp_path / "p",
        SMALL,
        workers=0,
    )
    sides = sides_of(open_pack(tmp_path / "p"))
    assert sorted(sides) == [f"p{i}" for i in range(8)]
    assert all(len(splits) == 1 for splits in sides.values())
    with pytest.raises(InputError, match="--shared-patients goes with several sources, got 1"):
        read_sources("folder", sources[:1], options, shared_patients=True)
    with pytest.raises(
        InputError, match="--shared-patients goes with several sources, the phantom"
    ):
        read_sources("phantom", (), SourceOptions(), shared_patients=True)


def test_a_split_record_is_written_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = SplitRecord(
        "official", None, {"train": 1.0}, {"train": ["a"]}, {"train": 1}, {"train": 1}, {}, True, []
    )
    record.write(tmp_path / "s.json")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TwinrayError, match=r"the split record .* the disk is full"):
        replace(record, method="other").write(tmp_path / "s.json")
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    assert SplitRecord.read(tmp_path / "s.json") == record


def test_a_coco_file_with_bad_rows_packs_the_rest(tmp_path: Path) -> None:
    for i in range(5):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30, "patient_id": i}
        for i in range(6)
    ]
    rows = [(0, [1, 1, 5, 5]), (1, [100, 1, 5, 5]), (2, [1, 1, 0, 5]), (99, [1, 1, 5, 5])]
    annotations = [
        {"id": k, "image_id": i, "category_id": 1, "bbox": b} for k, (i, b) in enumerate(rows)
    ]
    path = tmp_path / "ann.json"
    path.write_text(
        json.dumps(
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "n"}]}
        )
    )
    write_pack([read_coco(path)], tmp_path / "p", SMALL, workers=0)
    pack = open_pack(tmp_path / "p")
    assert pack.ids.tolist() == ["0", "1", "2", "3", "4"]
    assert len(aside_of(tmp_path / "p")) == 4
    assert pack.boxes(1) is None
    assert len(pack.boxes(3) or ()) == 0
    assert pack.info.counts["boxes"] == 1


def test_too_little_space_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Little:
        free = 1000

    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: Little)
    with pytest.raises(TwinrayError, match="free some space"):
        write_pack([drawn(some(8))], tmp_path / "p", SMALL, workers=0)

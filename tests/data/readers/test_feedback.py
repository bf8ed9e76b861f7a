"""A store's readings become a pack: the real store is written, and read through the real command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sqlalchemy", reason="the extra serve is not installed")
pytest.importorskip("alembic", reason="the extra serve is not installed")

from twinray.data.pack import open_pack
from twinray.data.readers.feedback.reader import Sides, read_feedback
from twinray.detection.data import annotated
from twinray.errors import InputError
from twinray.jobs.pack import PackConfig, run
from twinray.records import ABSENT, PRESENT, UNCERTAIN
from twinray.serving.store.images import Box, Facts
from twinray.serving.store.readings import Marked, Said
from twinray.serving.store.store import open_store

MODEL = "a" * 64
BOXES = [Box((10, 10, 30, 30), "mass", 0.9), Box((40, 40, 60, 60), "nodule", 0.6), Box((5, 70, 25, 90), "mass", 0.1)]  # fmt: skip
KEPT = Marked(BOXES[0].corners, "mass", "accepted", 0, MODEL)


class Reading:
    """A store with images that have the three boxes, and readers who say something of them."""

    def __init__(self, folder):
        self.folder = folder
        self.store = open_store(folder)
        self.store.images.serve([(MODEL, "run", ["mass", "nodule"])])
        self.n = 0

    def image(self, patient=None, boxes=BOXES):
        self.n += 1
        path = self.folder.parent / f"{self.n}.png"
        Image.fromarray(np.random.default_rng(self.n).integers(0, 255, (100, 100), np.uint8)).save(path)  # fmt: skip
        with self.store.files.receive() as incoming:
            incoming.write(path.read_bytes())
            kept = incoming.keep()
        image, _ = self.store.images.add(kept, "Canary^Name.png", "png", who="tester")
        claim = self.store.images.claim("w", [MODEL])
        self.store.images.finish(claim, "w", Facts(100, 100, patient), {MODEL: boxes}, 0.1, first=MODEL)  # fmt: skip
        return image.id

    def say(self, image, reader, *marks, **more):
        self.n += 1
        shown = more.pop("shown", {"threshold": 0.3})
        said = Said(image, reader, f"k{self.n}", marks, model=MODEL, shown=shown, **more)
        self.store.readings.save(said, reader)

    def read(self, **options):
        self.store.close()
        return read_feedback(self.folder, **{"sides": Sides()} | options)


@pytest.fixture
def reading(tmp_path):
    return Reading(tmp_path / "store")


def one(collection, image):
    return next(s for s in collection.samples if s.id == image)


def value(collection, image, name):
    return one(collection, image).labels[collection.label_classes.index(name)]


def test_verdicts_become_findings_negatives_and_neither(reading):
    image, normal, refused = reading.image(), reading.image(), reading.image()
    moved = Marked((42, 42, 58, 58), "nodule", "moved", 1, MODEL)
    reading.say(image, "ann", KEPT, moved, Marked((70, 5, 90, 20), "mass", "added"))
    reading.say(normal, "ann", normal=True)
    reading.say(refused, "ann", Marked(BOXES[0].corners, "mass", "rejected", 0, MODEL))
    found = reading.read()
    assert found.box_classes == ("mass", "nodule")
    np.testing.assert_array_equal(
        one(found, image).boxes.xyxy, [[10, 10, 30, 30], [42, 42, 58, 58], [70, 5, 90, 20]]
    )
    assert one(found, image).boxes.readers == ("ann",) * 3 and one(found, image).regions is None
    assert len(one(found, normal).boxes) == 0 and one(found, normal).regions is None
    assert (value(found, normal, "normal"), value(found, normal, "mass")) == (PRESENT, ABSENT)
    assert (value(found, image, "normal"), value(found, image, "mass")) == (ABSENT, PRESENT)
    # the box that was shown (0.6) and not judged is neither; the fainter one (0.1) was not shown
    np.testing.assert_array_equal(one(found, refused).regions.xyxy, [[40, 40, 60, 60]])
    assert len(one(found, refused).boxes) == 0
    assert np.isnan(value(found, refused, "nodule")) and value(found, refused, "mass") == ABSENT
    (hard,) = json.loads(one(found, refused).attributes["rejected"])
    assert hard == {"box": [10, 10, 30, 30], "class": "mass", "score": 0.9, "readers": 1}


def test_a_box_that_another_reader_judged_is_judged(reading):
    image = reading.image()
    reading.say(image, "ann", KEPT)
    reading.say(image, "bob", Marked(BOXES[1].corners, "nodule", "rejected", 1, MODEL))
    assert one(reading.read(), image).regions is None


def test_where_the_threshold_is_not_known_all_but_the_faintest_were_shown(reading):
    image = reading.image()
    reading.say(image, "ann", KEPT, shown={})
    regions = one(reading.read(), image).regions
    np.testing.assert_array_equal(regions.xyxy, [[40, 40, 60, 60], [5, 70, 25, 90]])


def test_a_minimal_client_that_names_no_prediction_has_judged_it(reading):
    image = reading.image()
    reading.say(image, "ann", Marked((10.2, 10, 30, 30), "mass", "accepted"), Marked((44, 44, 62, 62), "nodule", "moved"))  # fmt: skip
    assert one(reading.read(), image).regions is None


def test_the_newest_finished_reading_of_each_reader_counts(reading):
    image, half, odd = reading.image(), reading.image(), reading.image()
    reading.say(image, "ann", KEPT)
    reading.say(image, "ann", Marked((0, 0, 9, 9), "mass", "added"))
    reading.say(image, "bob", normal=True)
    reading.say(half, "ann", KEPT, finished=False)
    reading.say(odd, "ann", KEPT, normal=True)
    found = reading.read(fusion_iou=0)
    assert [s.id for s in found.samples] == [image]
    np.testing.assert_array_equal(one(found, image).boxes.xyxy, [[0, 0, 9, 9]])
    assert value(found, image, "normal") == UNCERTAIN  # readers disagree, and are kept so
    reasons = " ".join(s.reason for s in found.skipped)
    assert "not finished" in reasons and "called normal with 1 findings" in reasons


def test_readers_are_kept_or_fused(reading):
    image = reading.image()
    for reader, shift in (("ann", 0), ("bob", 2)):
        reading.say(image, reader, Marked((10 + shift, 10, 30 + shift, 30), "mass", "moved", 0, MODEL))  # fmt: skip
    reading.store.close()
    kept = read_feedback(reading.folder, fusion_iou=0, sides=Sides())
    assert one(kept, image).boxes.readers == ("ann", "bob")
    fused = one(read_feedback(reading.folder, sides=Sides()), image).boxes
    np.testing.assert_allclose(fused.xyxy, [[11, 10, 31, 30]])
    assert fused.n_readers.tolist() == [2]


def test_one_readers_overlapping_boxes_stay_two(reading):
    image = reading.image()
    reading.say(image, "ann", KEPT, Marked((12, 10, 32, 30), "mass", "added"))
    assert len(one(reading.read(), image).boxes) == 2


def test_nothing_said_of_boxes_is_no_negative(reading):
    image = reading.image()
    reading.say(image, "ann", labels={"device": True})
    found = reading.read()
    assert one(found, image).boxes is None and value(found, image, "device") == PRESENT
    assert np.isnan(value(found, image, "mass"))


def test_a_store_that_grows_moves_no_patient(reading):
    for i in range(40):
        reading.say(reading.image(f"p{i % 20}"), "ann", normal=True)
    first = {s.id: s.split for s in read_feedback(reading.folder, sides=Sides()).samples}
    for i in range(40):
        reading.say(reading.image(f"p{i}"), "ann", normal=True)
    found = reading.read()
    assert {s.id: s.split for s in found.samples if s.id in first} == first
    sides = {}
    for sample in found.samples:
        assert sides.setdefault(sample.patient, sample.split) == sample.split
    assert set(sides.values()) == {"train", "val", "test"}
    with pytest.raises(
        InputError, match=r"--seed 0 --val 0\.1 --test 0\.2 made, and must not move"
    ):
        read_feedback(reading.folder, sides=Sides(test=0.3))


@pytest.mark.parametrize("val", [0.0, 0.2])
def test_shares_are_met_on_average(val):
    found = [Sides(1, val, 0.3).of(f"patient {i}") for i in range(4000)]
    assert found.count("test") / 4000 == pytest.approx(0.3, abs=0.03)
    assert found.count("val") / 4000 == pytest.approx(val, abs=0.03)


def test_the_pack_has_it_all_and_cuts_nothing(reading, tmp_path, capsys):
    images = [reading.image(f"p{i}") for i in range(3)]
    for image in images:
        reading.say(image, "ann", KEPT, text="Mrs Canary, bed 4")
    reading.store.close()
    run(PackConfig(source=(reading.folder,), format=("feedback",), out=tmp_path / "pack", size=64, fusion_iou=0.0))  # fmt: skip
    pack = open_pack(tmp_path / "pack")
    assert sorted(pack.ids) == sorted(images)
    rows = {pack.ids[i]: i for i in range(3)}
    assert pack.boxes(rows[images[0]]).readers == ("ann",)
    assert len(pack.regions(rows[images[0]])) == 1
    for split in ("train", "val", "test"):  # a box that nobody judged is not learnt as background
        assert len(annotated(pack, split, to_learn=True)) == 0
        assert len(annotated(pack, split)) == len(pack.where(split))
    sides = {i: Sides().of(p) for i, p in zip(pack.ids, pack.patients, strict=True)}
    assert {pack.ids[i]: str(pack.splits[i]) for i in range(3)} == sides
    told = capsys.readouterr().out + "".join(
        p.read_text() for p in (tmp_path / "pack").iterdir() if p.suffix in (".json", ".csv")
    )
    assert "Canary" not in told
    assert b"Canary" not in (tmp_path / "pack" / "samples.parquet").read_bytes()


def test_what_is_no_store_is_refused(tmp_path, reading):
    with pytest.raises(InputError, match="no folder images"):
        read_feedback(tmp_path)
    with pytest.raises(InputError, match="no finished reading"):
        reading.read()
    (tmp_path / "other" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"store\.sqlite"):
        read_feedback(tmp_path / "other")
    (tmp_path / "other" / "store.sqlite").write_bytes(b"")
    with pytest.raises(InputError, match="tables of a store"):
        read_feedback(tmp_path / "other")

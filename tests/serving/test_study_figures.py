"""From readings in a store to figures, RJafroc's workbook and a pack, through the real commands."""

from __future__ import annotations

import csv
import json

import pytest
from openpyxl import load_workbook

from serving_support import add, analysed
from support import twinray
from twinray.data.pack import open_pack
from twinray.serving.readings.design import ARMS, Case, Design, StudyFile
from twinray.serving.store.images import Facts
from twinray.serving.store.readings import Marked, Said
from twinray.serving.store.store import open_store
from twinray.serving.store.studies import Planned

# the example of RJafroc's book (Chakraborty, The RJafroc FROC book, chapter on empirical curves), its ratings as ranks of 100:
# -0.3 -0.2 0.5 0.6 0.7 0.9 1 1.5 1.6 2 2.5 3 -> 5 10 ... 60; with equal weights its weighted AFROC area is 0.8125
NORMALS = ([], [15], [25, 20], [5])  # marks beside a lesion
DISEASED = (((30,), [40]), ((10,), []), ((45, None), []), ((60, 50), []), ((35, 55, 35), []))
TIMES = 3  # 12 cases without lesions, from which on the area is not wafroc1; copies change no area
PLACES = [(10.0, 10.0, 40.0, 40.0), (60.0, 10.0, 90.0, 40.0), (110.0, 10.0, 140.0, 40.0)]
BESIDE = [(10.0, 100.0, 40.0, 130.0), (60.0, 100.0, 90.0, 130.0)]


def marks_of(case, arm):
    lesions, beside = case
    if arm == "with":  # with boxes every lesion is found and nothing else
        return [(PLACES[i], 90) for i in range(len(lesions))]
    found = [(PLACES[i], rating) for i, rating in enumerate(lesions) if rating is not None]
    return [*found, *((BESIDE[i], rating) for i, rating in enumerate(beside))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store in which two readers have read the example in both arms."""
    folder = tmp_path_factory.mktemp("figures") / "store"
    store = open_store(folder)
    cases = [((), beside) for beside in NORMALS] * TIMES + [*DISEASED] * TIMES
    images = []
    for number in range(len(cases)):
        image, _ = add(store, f"file {number}".encode())
        analysed(store, image, boxes=(), facts=Facts(200, 200))
        images.append(image.id)
    file = StudyFile("book", "cases.json", ["ann", "bob"], 0.5)
    truth = [
        Case(image, number, tuple((*PLACES[i], 0) for i in range(len(lesions))))
        for number, (image, (lesions, _)) in enumerate(zip(images, cases, strict=True))
    ]
    design = Design(file, "0" * 64, "m", ("blob",), tuple(truth))
    planned = [
        Planned(reader, session, position, image, ARMS[session - 1])
        for reader in file.readers
        for session in (1, 2)
        for position, image in enumerate(images, 1)
    ]
    store.studies.begin("book", design.told(), design.fingerprint(), planned)
    by_image = dict(zip(images, cases, strict=True))
    for slot in store.studies.slots("book"):
        marks = tuple(
            Marked(box, "blob", "added", rating=float(rating))
            for box, rating in marks_of(by_image[slot.image], slot.arm)
        )
        said = Said(slot.image, slot.reader, f"{slot.number}", marks, normal=not marks, seconds=20.0 if slot.arm == "without" else 10.0)  # fmt: skip
        store.studies.save(slot.number, said, slot.reader, 1e9 + slot.number)
    store.close()
    return folder


def test_the_books_example_through_store_and_command(place, tmp_path):
    done = twinray("store", "reader-study", "--store", place, "--name", "book", "--output", tmp_path / "out", check=True)  # fmt: skip
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["area"] == "wafroc"
    by = {(one["reader"], one["arm"]): one for one in figures["by_reader"]}
    for reader in ("ann", "bob"):
        assert by[reader, "without"]["area"]["value"] == pytest.approx(0.8125)
        assert by[reader, "with"]["area"]["value"] == pytest.approx(1.0)
        assert by[reader, "without"]["sensitivity"]["value"] == pytest.approx(8 / 9)
        assert by[reader, "without"]["false_positives"]["value"] == pytest.approx(5 / 9)
        low, high = by[reader, "without"]["area"]["ci95"]
        assert 0.5 < low < 0.8125 < high <= 1
    for one in figures["differences"]:
        assert one["area"]["value"] == pytest.approx(0.1875)
        assert one["time_ratio"]["value"] == pytest.approx(0.5)
    # with minus without, whatever the order of the two in the analysis
    mean = figures["over_readers"]["area"]["difference"]
    assert mean["value"] == pytest.approx(0.1875) and mean["low"] < 0.1875 < mean["high"]
    assert figures["over_readers"]["false_positives"]["difference"]["value"] == pytest.approx(
        -5 / 9
    )
    assert "research software, not a medical device" in done.stdout.lower()
    rows = [*csv.DictReader((tmp_path / "out" / "figures.csv").open())]
    assert {(r["reader"], r["what"]) for r in rows if r["measure"] == "area"} >= {("ann", "with - without"), ("all", "with - without")}  # fmt: skip
    assert len([*csv.DictReader((tmp_path / "out" / "readings.csv").open())]) == 2 * 2 * 27


def test_rjafrocs_workbook_has_the_ratings_as_given(place, tmp_path):
    twinray("store", "reader-study", "--store", place, "--name", "book", "--output", tmp_path / "out", check=True)  # fmt: skip
    book = load_workbook(tmp_path / "out" / "study.xlsx")
    assert sorted(book.sheetnames) == ["FP", "TP", "TRUTH"]
    false = list(book["FP"].iter_rows(min_row=2, values_only=True))
    true = list(book["TP"].iter_rows(min_row=2, values_only=True))
    ratings = [rating for _, beside in DISEASED for rating in beside] + [rating for one in NORMALS for rating in one]  # fmt: skip
    assert sorted(r[-1] for r in false) == sorted(ratings * TIMES * 2)
    assert sorted({r[-1] for r in true}) == [10, 30, 35, 45, 50, 55, 60, 90]
    assert len(true) == 2 * TIMES * (8 + 9)
    truth = list(book["TRUTH"].iter_rows(min_row=2, values_only=True))
    assert len(truth) == TIMES * (4 + 9)


def test_looking_before_the_end_is_said_and_noted(place, tmp_path):
    store = open_store(place)
    # a study of one reading of four
    (image,) = [one.id for one in store.images.page(size=1).images]
    file = StudyFile("early", "cases.json", ["eva", "bob"], 0.5)
    design = Design(file, "0" * 64, "m", ("blob",), (Case(image, 0, ((*PLACES[0], 0),)),))
    planned = [Planned(r, s, 1, image, ARMS[s - 1]) for r in file.readers for s in (1, 2)]
    store.studies.begin("early", design.told(), design.fingerprint(), planned)
    nothing = twinray("store", "reader-study", "--store", place, "--name", "early", "--output", tmp_path / "a")  # fmt: skip
    assert nothing.returncode and "nobody has submitted" in nothing.stderr
    slot = store.studies.slots("early", "eva")[0]
    store.studies.save(slot.number, Said(image, "eva", "early", ()), "eva", 5.0)
    done = twinray("store", "reader-study", "--store", place, "--name", "early", "--output", tmp_path / "b", check=True)  # fmt: skip
    assert "3 of 4 readings are still to come" in done.stdout
    assert not (tmp_path / "b" / "study.xlsx").exists()  # RJafroc needs complete readers
    assert [r.details["study"] for r in store.audit.rows(most=10_000) if r.action == "study figures"][-1] == "early"  # fmt: skip
    store.studies.end("early", "operator")
    store.close()
    unknown = twinray("store", "reader-study", "--store", place, "--name", "none", "--output", tmp_path / "c")  # fmt: skip
    assert unknown.returncode and "book" in unknown.stderr


def test_the_pack_has_the_readings_without_boxes(place, tmp_path):
    from PIL import Image

    store = open_store(place)
    for image in store.images.page(size=200).images:  # pixels, which the figures did not need
        Image.new("L", (200, 200), 90).save(store.files.place(image.sha256), "PNG")
    finals = {(s.reader, s.image): w for s, w in store.studies.submitted("book") if s.arm == "without"}  # fmt: skip
    store.close()
    twinray("pack", place, "--format", "feedback", "--out", tmp_path / "pack", "--fusion-iou", 0, "--val", 0, "--test", 0, check=True)  # fmt: skip
    pack = open_pack(tmp_path / "pack")
    boxes = [pack.boxes(i) for i in range(len(pack))]
    assert sum(len(one) for one in boxes if one is not None) == sum(len(w.marks) for w in finals.values())  # fmt: skip
    assert {reader for one in boxes if one is not None for reader in one.readers or ()} == {"ann", "bob"}  # fmt: skip

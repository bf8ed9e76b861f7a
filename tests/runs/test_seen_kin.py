"""Data sets of one origin, copies that look alike, and ids that differ in form: what the guard makes of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from seen_support import every, make_pack, n_seen, saw
from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.errors import InputError
from twinray.runs.seen import Seen, apart_from, check_unseen, read_seen, write_seen

NIH = ("nih-cxr14",)
RSNA = ("rsna-pneumonia",)
UUID = "91b2ce38-efaf-4476-b77c-4f363d340f{:02d}"


def refusal(seen: Seen, pack) -> str:
    with pytest.raises(InputError) as refused:
        check_unseen(seen, pack, {"test": every(pack)}, weights="W", allow=False)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def nih(numbers: list[int], seed: int = 0):
    return make_pack(
        [f"{n:08d}_000.png" for n in numbers], [str(n) for n in numbers], names=NIH, seed=seed
    )


def rsna(patients: list[str], seed: int = 1):
    ids = [UUID.format(i) for i in range(len(patients))]
    return make_pack(
        ids, [p or i for p, i in zip(patients, ids, strict=True)], names=RSNA, seed=seed
    )


def test_rsna_after_nih_is_decided_by_mapped_patients():
    seen = saw(nih([61, 165, 200]))
    assert n_seen(seen, rsna(["61", "7"])) == 1
    assert "same patient 1" in refusal(seen, rsna(["61", "7"]))
    checked = check_unseen(seen, rsna(["5", "7"]), {"test": np.arange(2)}, weights="W", allow=False)
    assert (dict(checked.marks), checked.notes) == ({}, ())
    assert n_seen(saw(rsna(["61", "7"])), nih([61, 165])) == 1  # and the other way round


def test_rsna_after_nih_without_a_mapping_is_refused_as_a_whole():
    pack = rsna(["", ""])
    told = refusal(saw(nih([61])), pack)
    for word in (
        "2 of 2",
        "rsna-pneumonia",
        "nih-cxr14",
        "Shih",
        "patientId_to_nih.csv",
        "--allow-seen",
    ):
        assert word in told
    assert "2 of 2" in refusal(saw(pack), nih([7, 8]))
    checked = check_unseen(saw(nih([61])), pack, {"test": every(pack)}, weights="W", allow=True)
    assert checked.marks["test"]["seen_in_pretraining"]["value"] == 2
    assert any("no id tells" in note for note in checked.notes)


def test_a_folder_of_nihs_files_is_nihs():
    folder = make_pack(
        ["images/00000061_000.png", "images/00000007_001.png"],
        [None, None],
        names=("my folder",),
        seed=2,
    )
    assert n_seen(saw(nih([61])), folder) == 1


def test_pneumoniamnist_after_kermany_is_refused_and_after_itself_is_not():
    mnist = make_pack(["test/0", "test/1"], [None, None], names=("pneumoniamnist_64",), seed=3)
    kermany = make_pack(
        ["PNEUMONIA/person1_bacteria_1.jpeg"], ["person1"], names=("train",), seed=4
    )
    told = refusal(saw(kermany), mnist)
    assert "kermany-cxr" in told
    assert "Yang" in told
    assert "2 of 2" in refusal(
        saw(mnist), make_pack(["NORMAL/IM-0115-0001.jpeg"] * 2, [None] * 2, names=("x",))
    )
    own = make_pack(["train/0", "train/1"], [None, None], names=("pneumoniamnist",), seed=5)
    assert n_seen(saw(own), mnist) == 0


def test_parts_of_an_origin_are_apart():
    def organs(plane: str, split: str, seed: int):
        return make_pack([f"{split}/0"], [None], names=(f"organ{plane}mnist",), seed=seed)

    seen = saw(organs("a", "train", 1))
    assert n_seen(seen, organs("c", "train", 2)) == 1
    assert n_seen(seen, organs("s", "test", 3)) == 0
    tiles = make_pack(["ADI/a.tif"], [None], names=("NCT-CRC-HE-100K",), seed=4)
    assert n_seen(saw(tiles), make_pack(["test/0"], [None], names=("pathmnist",), seed=5)) == 0
    assert n_seen(saw(tiles), make_pack(["val/0"], [None], names=("pathmnist",), seed=6)) == 1


def test_a_mixed_pack_counts_for_each_of_its_sources():
    mixed = make_pack(
        ["nih-cxr14/00000061_000.png", f"rsna-pneumonia/{UUID.format(0)}"],
        ["nih-cxr14/61", "nih-cxr14/7"],
        names=(*NIH, *RSNA),
    )
    assert n_seen(saw(mixed), nih([7, 8], seed=1)) == 1
    assert n_seen(saw(nih([7], seed=1)), mixed) == 1


def test_the_record_keeps_origins_and_looks(tmp_path):
    write_seen(tmp_path, saw(rsna(["61", ""])))
    (part,) = read_seen(tmp_path).parts
    (origin,) = part.origins
    assert (origin.data_set, origin.n_images, origin.n_settled) == ("rsna-pneumonia", 2, 1)
    assert n_seen(read_seen(tmp_path), nih([8])) == 1


def test_a_record_of_an_older_version_is_known_by_its_sources_names(tmp_path):
    write_seen(tmp_path, saw(nih([61])))
    path = tmp_path / "seen.json"
    content = json.loads(path.read_text())
    for part in content["parts"]:
        del part["origins"], part["looks"], part["hashes"]["loose_patients"]
    path.write_text(json.dumps(content))
    old = read_seen(tmp_path)
    assert n_seen(old, rsna(["7"])) == 1
    assert n_seen(old, nih([7], seed=1)) == 0
    assert n_seen(old, nih([61], seed=1)) == 1


def test_what_cannot_be_kept_apart_is_not_left_out_in_part():
    with pytest.raises(InputError, match=r"cannot be kept apart.*patientId_to_nih"):
        apart_from(nih([7, 8]), np.arange(2), [rsna([""])])
    assert apart_from(nih([7, 8]), np.arange(2), [rsna(["8"])]).tolist() == [0]


@pytest.mark.parametrize(
    ("before", "now", "noted"),
    [("12", "012", True), ("P12", "12", True), ("012", "P12", True), ("P12", "p-0012", True), ("12", "13", False),
     ("person12", "IM-0012", False), ("a12b", "12", False)],
)  # fmt: skip
def test_ids_that_differ_in_form_are_noted(before, now, noted):
    seen = saw(make_pack(["a"], [before]))
    other = make_pack(["b"], [now], seed=1)
    checked = check_unseen(seen, other, {"test": every(other)}, weights="W", allow=False)
    assert not checked.marks
    assert [("differs in form only" in note and now in note) for note in checked.notes] == [
        True
    ] * noted


@pytest.fixture(scope="module")
def chests() -> np.ndarray:
    drawn = phantom_collection(PhantomConfig(images=10, images_per_patient=1.0))
    return np.stack([drawn.load(sample).array for sample in drawn.samples])


def test_resized_copies_under_other_names_are_refused(chests):
    before = make_pack([f"a{i}" for i in range(6)], [None] * 6, pixels=chests[:6])
    small = np.stack([np.asarray(Image.fromarray(image).resize((96, 96))) for image in chests[4:]])
    other = make_pack([f"b{i}" for i in range(6)], [None] * 6, names=("elsewhere",), pixels=small)
    told = refusal(saw(before), other)
    assert "2 of 6 images" in told
    assert "near copies 2" in told
    kept = apart_from(other, every(other), [before])
    assert kept.tolist() == [2, 3, 4, 5]


def test_looks_are_kept(chests, tmp_path):
    write_seen(tmp_path, saw(make_pack(["a", "b"], [None] * 2, pixels=chests[:2])))
    other = make_pack(["c"], [None], names=("elsewhere",), pixels=chests[1:2, ::2, ::2].copy())
    assert n_seen(read_seen(tmp_path), other) == 1


def test_no_more_near_copies_than_chance_brings_are_noted(chests, monkeypatch):
    from twinray.runs import seen as module

    monkeypatch.setattr(module, "more_than_chance", lambda found, asked, known: found > 2)
    before = make_pack([f"a{i}" for i in range(6)], [None] * 6, pixels=chests[:6])
    other = make_pack(
        ["b", "c"], [None] * 2, names=("elsewhere",), pixels=chests[5:7, ::2, ::2].copy()
    )
    checked = check_unseen(saw(before), other, {"test": every(other)}, weights="W", allow=False)
    assert not checked.marks
    (note,) = checked.notes
    assert "1 image of split test" in note
    assert "such as b" in note

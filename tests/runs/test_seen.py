"""What training saw: the same image, id or patient is found again; what only looks alike is not; nobody is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seen_support import SIDE, every, make_pack, n_seen, saw
from twinray.errors import InputError
from twinray.runs.seen import (
    MARK,
    Seen,
    apart_from,
    check_unseen,
    footnote,
    inherited,
    read_seen,
    write_seen,
)

TRAINED = make_pack(["a", "b", "c"], ["7", "8", None])


def test_the_same_pixels_alone_are_seen():
    other = make_pack(
        ["x", "y"], ["70", "80"], names=("elsewhere",), pixels=TRAINED.images[1:].copy()
    )
    assert n_seen(saw(TRAINED), other) == 2
    with pytest.raises(
        InputError,
        match=r"2 of 2 images of split test \(2 patients; same pixels 2, same id 0, same p",
    ):
        check_unseen(saw(TRAINED), other, {"test": every(other)}, weights="W", allow=False)


def test_the_same_id_alone_is_seen():
    other = make_pack(["z", "c"], ["70", "80"], seed=1)  # packed at another size, say
    assert n_seen(saw(TRAINED), other) == 1


def test_the_same_patient_alone_is_seen():
    other = make_pack(["x", "y", "z"], ["8", None, "9"], seed=1)
    assert n_seen(saw(TRAINED), other) == 1


def test_new_images_of_new_patients_pass():
    other = make_pack(["x", "y"], ["9", None], seed=1)
    checked = check_unseen(saw(TRAINED), other, {"test": every(other)}, weights="W", allow=False)
    assert (dict(checked.marks), checked.notes) == ({}, ())


def test_a_bare_number_of_another_source_is_another_patient_but_is_noted():
    other = make_pack(["a", "b", "q"], ["7", "7", "9"], names=("clinic",), seed=1)
    checked = check_unseen(saw(TRAINED), other, {"test": every(other)}, weights="W", allow=False)
    assert not checked.marks
    (note,) = checked.notes
    assert note.startswith("1 patient id of split test")
    assert "archive" in note
    assert "--shared-patients" in note


def test_files_of_one_folder_that_number_their_images_anew_are_told_apart():
    before = make_pack(["1", "2"], [None, None], sources=["images/a.png", "images/b.png"])
    assert (
        n_seen(
            saw(before),
            make_pack(["1", "2"], [None, None], sources=["images/c.png", "images/d.png"], seed=1),
        )
        == 0
    )
    assert (
        n_seen(
            saw(before),
            make_pack(["1", "2"], [None, None], sources=["png/a.dcm", "images/d.png"], seed=1),
        )
        == 1
    )


def test_a_source_is_itself_alone_and_among_others():
    alone = make_pack(["k"], ["7"], names=("x",))
    mixed = make_pack(["x/k", "y/k"], ["x/9", "y/7"], names=("x", "y"), seed=1)
    assert n_seen(saw(alone), mixed) == 1  # x/k
    assert n_seen(saw(mixed), alone) == 1
    assert n_seen(saw(mixed), make_pack(["q"], ["7"], names=("y",), seed=2)) == 1
    assert n_seen(saw(mixed), make_pack(["q"], ["7"], names=("x",), seed=2)) == 0
    twins = make_pack(
        ["x/k", "x-2/m"], ["x/1", "x/2"], names=("x", "x-2"), seed=3
    )  # two folders of one name
    assert n_seen(saw(twins), make_pack(["m"], ["5"], names=("x",), seed=4)) == 1


def test_shared_patients_are_those_of_every_source():
    shared = make_pack(["x/k", "y/m"], ["7", "8"], names=("x", "y"))
    for name in ("x", "y"):
        assert (
            n_seen(saw(shared), make_pack(["p", "q", "r"], ["7", "8", "9"], names=(name,), seed=1))
            == 2
        )
    assert n_seen(saw(shared), make_pack(["p", "q"], ["7", "8"], names=("z",), seed=1)) == 0


def test_sizes_of_one_medmnist_set_are_one_source():
    small = make_pack(
        ["test/0"], [None], names=("chestmnist_64",), sources=["chestmnist_64.npz#test/0"]
    )
    large = make_pack(
        ["test/0"], [None], names=("chestmnist_224",), sources=["chestmnist_224.npz#test/0"], seed=1
    )
    other = make_pack(
        ["test/0"], [None], names=("pathmnist_64",), sources=["pathmnist_64.npz#test/0"], seed=2
    )
    assert n_seen(saw(small), large) == 1
    assert n_seen(saw(small), other) == 0


def test_a_blank_image_tells_nothing():
    black = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
    before = make_pack(["a"], ["1"], pixels=black)
    assert n_seen(saw(before), make_pack(["b"], ["2"], pixels=black)) == 0
    assert n_seen(saw(before), make_pack(["b"], ["1"], pixels=black)) == 1


def test_what_chose_an_epoch_may_choose_another_but_not_test():
    seen = Seen().plus(Path("det"), "detect", [(TRAINED, every(TRAINED))], use="selection")
    assert n_seen(seen, TRAINED, "val") == 0
    assert n_seen(seen, TRAINED, "test") == 3


def test_marked_when_forced():
    other = make_pack(["a", "x", "y"], ["7", "8", "9"], seed=1)
    rows = {"val": np.array([2]), "test": np.array([0, 1])}
    with pytest.raises(InputError) as refused:
        check_unseen(saw(TRAINED), other, rows, weights="runs/pre", allow=False)
    message = str(refused.value)
    assert "\n" not in message
    assert "split val" not in message
    for word in (
        "2 of 2",
        "split test",
        "some-pack",
        "runs/pre",
        "the pretrain run pre",
        "--allow-seen",
        "--splits train",
    ):
        assert word in message
    checked = check_unseen(saw(TRAINED), other, rows, weights="runs/pre", allow=True)
    assert checked.marks == {"test": {MARK: {"value": 2, "ci95": None, "n": 2}}}
    assert "2 of 2 images" in checked.notes[0]
    assert "2 of 2 images" in footnote(checked.marks["test"])
    assert footnote({"map50": {}}) == ""


def test_a_chain_of_runs_hands_on_what_was_seen(tmp_path):
    packs = [make_pack([f"i{k}"], [f"p{k}"], seed=k) for k in range(3)]
    first, second = tmp_path / "first", tmp_path / "second"
    for run in (first, second / "checkpoints"):
        run.mkdir(parents=True)
    write_seen(first, inherited(None).plus(first, "pretrain", [(packs[0], every(packs[0]))]))
    before = inherited(first / "backbone.safetensors")
    write_seen(second, before.plus(second, "pretrain", [(packs[1], every(packs[1]))]))
    for weights in (second / "backbone.safetensors", second / "checkpoints" / "step-000000001.pt"):
        seen = inherited(weights)
        assert [n_seen(seen, pack) for pack in packs] == [1, 1, 0]
        assert (seen.status, seen.own) == ("recorded", 0)
    for pack, run in zip(packs, ("first", "second"), strict=False):
        with pytest.raises(InputError, match=f"by the pretrain run {run}"):
            check_unseen(seen, pack, {"test": every(pack)}, weights="W", allow=False)
    own = read_seen(second)
    assert [part.run for part in own.before.parts] == ["first"]
    assert [part.run for part in own.parts] == ["first", "second"]


def test_weights_without_a_record_are_unknown_for_good(tmp_path):
    foreign = inherited(tmp_path / "downloaded.pth")
    assert (foreign.status, n_seen(foreign, TRAINED)) == ("unknown", 0)
    write_seen(tmp_path, foreign.plus(tmp_path, "pretrain", [(TRAINED, every(TRAINED))]))
    later = inherited(tmp_path / "backbone.safetensors")
    assert (later.status, n_seen(later, TRAINED)) == ("unknown", 3)
    assert later.unknown[0].endswith("downloaded.pth")
    assert inherited(None).status == "nothing"


def test_the_record_names_nobody(tmp_path):
    pack = make_pack(["study-4711", "study-4712"], ["Miller^Anna", "Smith^Bob"])
    write_seen(tmp_path, saw(pack))
    text = (tmp_path / "seen.json").read_text()
    for secret in ("4711", "Miller", "Anna", "Smith", "Bob"):
        assert secret not in text
        assert secret.encode().hex() not in text
    (part,) = json.loads(text)["parts"]
    assert (part["n_images"], part["n_patients"], part["sources"]) == (2, 2, ["archive"])
    assert {kind: len(value) for kind, value in part["hashes"].items()} == dict.fromkeys(
        ("pixels", "ids", "patients", "bare_patients"), 64
    ) | {"loose_patients": 0}


def test_a_damaged_record_is_one_line(tmp_path):
    write_seen(tmp_path, saw(TRAINED))
    path = tmp_path / "seen.json"
    good = json.loads(path.read_text())
    bad: list[object] = [
        [],
        "x",
        {**good, "format": 2},
        {**good, "parts": [{}]},
        {**good, "parts": None},
    ]
    wrong = json.loads(path.read_text())
    wrong["parts"][0]["hashes"]["ids"] = "not hex"
    for key, value in (
        ("use", "fun"),
        ("sources", "archive"),
        ("sources", [1]),
        ("n_images", "2"),
        ("hashes", {}),
    ):
        bad.append({**good, "parts": [{**good["parts"][0], key: value}]})
    bad += [{**good, "own": 7}, {**good, "own": -1}, {**good, "unknown": [3]}, {**good, "more": 1}]
    for content in (*bad, wrong):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"seen\.json") as refused:
            inherited(tmp_path / "backbone.safetensors")
        assert "\n" not in str(refused.value)


def test_an_archive_of_112120_images(tmp_path):
    n = 112_120
    pixels = np.frombuffer(np.arange(n, dtype=np.uint64).tobytes() * 2, dtype=np.uint8).reshape(
        n, SIDE, SIDE
    )
    pack = make_pack(
        [f"{i // 4:08d}_{i % 4:03d}.png" for i in range(n)],
        [str(i // 4) for i in range(n)],
        pixels=pixels,
    )
    write_seen(tmp_path, saw(pack))
    seen = read_seen(tmp_path)
    assert (seen.parts[0].n_images, seen.parts[0].n_patients) == (n, n // 4)
    assert (
        len(seen.parts[0].hashes["ids"]) == 2 * n
    )  # its own, and NIH's: the files are named as NIH's
    assert (tmp_path / "seen.json").stat().st_size < 14e6
    new = make_pack(["x"], [str(n)], seed=5)
    assert (n_seen(seen, pack), n_seen(seen, new)) == (n, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([*"1234", None])),
        unique_by=lambda r: r[0],
    ),
    st.data(),
)
def test_an_image_is_seen_if_and_only_if_its_id_or_patient_was(rows, data):
    """Against sets, for any division of any images; the order of the images changes nothing."""
    pack = make_pack([i for i, _ in rows], [p for _, p in rows])
    trained = np.array(
        data.draw(
            st.lists(st.sampled_from(range(len(rows))), unique=True) if rows else st.just([])
        ),
        int,
    )
    tested = np.setdiff1d(every(pack), trained)
    seen = Seen().plus(Path("r"), "pretrain", [(pack, trained)])
    patients = {rows[i][1] for i in trained} - {None}
    expected = sum(rows[i][1] in patients for i in tested)
    marks = check_unseen(seen, pack, {"test": tested}, weights="W", allow=True).marks
    assert (marks["test"][MARK]["value"] if marks else 0) == expected
    again = Seen().plus(Path("r"), "pretrain", [(pack, trained[::-1])])
    assert [{k: v.tobytes() for k, v in p.hashes.items()} for p in seen.parts] == [
        {k: v.tobytes() for k, v in p.hashes.items()} for p in again.parts
    ]


def test_what_shares_pixels_id_or_patient_is_left_out() -> None:
    archive = make_pack(["a", "b", "c", "d", "e"], ["p1", "p2", "p3", None, "p5"])
    tested = make_pack(
        ["x", "b", "y"],
        ["p1", None, None],
        pixels=np.stack([archive.images[4] + 1, archive.images[0] + 1, archive.images[2]]),
        seed=1,
    )
    rows = np.array([0, 1, 2, 3, 4])
    assert apart_from(archive, rows, [tested]).tolist() == [3, 4]
    assert apart_from(archive, rows[3:], [tested]).tolist() == [3, 4]
    elsewhere = make_pack(["x"], ["p5"], names=("another archive",), seed=2)
    assert apart_from(archive, rows, [tested, elsewhere]).tolist() == [3]

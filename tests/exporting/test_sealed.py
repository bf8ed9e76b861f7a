"""A record that leaves the house: its holder can ask it, nobody can count patient numbers through it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from twinray.data.keyed import Key
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.runs.seen import Seen, _hash, check_unseen, read_seen, sealed, write_seen


@pytest.fixture
def record(tmp_path, blob_pack):
    """A run's record of the training part, as an older version made it: plain hashes of patient numbers."""
    pack = open_pack(blob_pack)
    rows = [(pack, pack.where("train"))]
    return pack, Seen().plus(tmp_path / "run", "detect", rows, under="")


def test_no_patient_number_can_be_counted_through(tmp_path, record):
    pack, seen = record
    guesses = {_hash("patient", f"p{i}") for i in range(100)}
    plain = {one.ljust(16, b"\0") for one in seen.parts[0].hashes["bare_patients"].tolist()}
    assert len(guesses & plain) == len(set(pack.patients[pack.where("train")]))
    hidden = sealed(seen, Key("s" * 32))
    for kind in ("ids", "patients", "bare_patients", "loose_patients"):
        assert not set(hidden.parts[0].hashes[kind].tolist()) & set(
            seen.parts[0].hashes[kind].tolist()
        )
        assert len(hidden.parts[0].hashes[kind]) == len(seen.parts[0].hashes[kind])
    assert not guesses & set(hidden.parts[0].hashes["bare_patients"].tolist())
    assert len(hidden.parts[0].looks) == 0
    (tmp_path / "out").mkdir()
    write_seen(tmp_path / "out", hidden)
    text = (tmp_path / "out" / "seen.json").read_text()
    assert pack.info.names[0] not in text.replace("private", "")
    again = read_seen(tmp_path / "out")
    assert again.parts[0].sealed == Key("s" * 32).mark


def other_pixels(seen):
    """As if the images had been packed anew: only ids can tell."""
    part = seen.parts[0]
    return replace(
        seen, parts=(replace(part, hashes={**part.hashes, "pixels": part.hashes["pixels"][:0]}),)
    )


def test_the_holder_of_the_key_can_ask_and_others_are_told(tmp_path, record, monkeypatch):
    pack, seen = record
    secret = tmp_path / "key"
    secret.write_text("k" * 40)
    hidden = other_pixels(sealed(seen, Key("k" * 40)))
    train = {"train": pack.where("train")}
    monkeypatch.setenv("TWINRAY_KEY", str(secret))
    with pytest.raises(InputError, match="same patient"):
        check_unseen(hidden, pack, train, weights="w", allow=False)
    found = check_unseen(hidden, pack, {"test": pack.where("test")}, weights="w", allow=False)
    assert not found.marks
    monkeypatch.delenv("TWINRAY_KEY")
    told = check_unseen(hidden, pack, train, weights="w", allow=False)
    assert any("made with another key" in note for note in told.notes)
    # pixels tell all the same
    with pytest.raises(InputError, match="same pixels"):
        check_unseen(sealed(seen, Key("k" * 40)), pack, train, weights="w", allow=False)


def test_the_hub_folder_has_the_sealed_record(tmp_path, cli, detect_run):
    out = tmp_path / "out"
    assert cli("export", detect_run, "--to", "hub", "--membership", "off", "--out", out)[0] == 0
    kept = json.loads((out / "seen.json").read_text())
    assert all(part["sealed"] for part in kept["parts"])
    assert np.all([part["looks"] == "" for part in kept["parts"]])

"""Ids of private sources in packs, runs and figures: nobody who gets a run can try numbers through, and packs of one key match."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dicom_support import write_radiograph
from seen_support import every
from support import write_coco
from twinray.data.keyed import COLUMNS
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.runs.seen import Seen, apart_from, check_unseen, read_seen, write_seen

FIRST, N = 84629170, 8


def images(folder: Path, seed: int = 0, *, pattern: str = "{patient}_{i}.png") -> Path:
    """Two images a patient; other pixels for another seed, so that ids alone can tell."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(2 * N):
        pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / pattern.format(patient=FIRST + i // 2, i=i))
    return folder


@pytest.fixture
def pack(cli, tmp_path):
    """Pack a folder through the command line."""

    def run(source: Path, name: str, *options: object, patients: bool = True) -> Pack:
        told = ("--patient-regex", r"(\d{8})_") if patients else ()
        status, _, error = cli(
            "pack", source, "--out", tmp_path / name, "--size", 32, "--workers", 1, *told, *options
        )
        assert status == 0, error
        return open_pack(tmp_path / name)

    return run


@pytest.fixture
def keys(tmp_path) -> dict[str, Path]:
    for name in ("one", "two"):
        (tmp_path / f"{name}.key").write_text(f"the long secret {name}\n")
    return {name: tmp_path / f"{name}.key" for name in ("one", "two")}


def saw(pack: Pack) -> Seen:
    return Seen().plus(Path("pre"), "pretrain", [(pack, every(pack))])


def asked(seen: Seen, pack: Pack) -> tuple[int, str]:
    """How many of the pack's images count as seen, and what is said."""
    found = check_unseen(seen, pack, {"test": every(pack)}, weights="W", allow=True)
    n = found.marks["test"]["seen_in_pretraining"]["value"] if found.marks else 0
    return n, " ".join(found.notes)


def guesses(names: list[str]) -> set[str]:
    """What somebody without the key would try: every number of the archive, in every form that runs have ever hashed."""
    tried = set()
    for number in map(str, range(FIRST - 50, FIRST + 50)):
        texts = [number, f"{number}_0", f"{number}_0.png"]
        tried |= {hashlib.sha256(text.encode()).hexdigest() for text in texts}
        for name in names:
            for what in (
                ("patient", name, number), ("patient", number), ("image", name, f"{number}_0.png"),
                ("image", name, f"{number}_0"), ("loose", name, "none", number),
                ("loose", name, "any", number), ("loose", name, "letters ", number),
            ):  # fmt: skip
                tried.add(hashlib.sha256(repr(what).encode()).hexdigest())
    return {one[:n] for one in tried for n in (16, 32)}


def hexadecimal(text: str) -> set[str]:
    """Every hash in a text, also those that stand in one row without a gap."""
    runs = re.findall(r"[0-9a-f]{16,}", text)
    return {run[i : i + n] for run in runs for n in (16, 32) for i in range(0, len(run), 16)}


def test_guesses_do_not_open_a_run(pack, cli, tmp_path) -> None:
    """Folder, COCO file and DICOM export: no hash in seen.json, truth.json or predictions is that of a number."""
    tried = guesses(["archive", "dicom", "coco", "images", "annotations"])
    plain = pack(images(tmp_path / "archive"), "folder")
    write_seen(tmp_path, saw(plain))
    assert not hexadecimal((tmp_path / "seen.json").read_text()) & tried
    assert not {str(code) for code in plain.patient_codes} & tried
    control = Seen().plus(Path("pre"), "pretrain", [(plain, every(plain))], under="")
    write_seen(tmp_path, control)
    assert (
        len(hexadecimal((tmp_path / "seen.json").read_text()) & tried) > N
    )  # the guesses are right

    coco = write_coco(tmp_path / "coco", n=12)
    data = json.loads(coco.read_text())
    for i, image in enumerate(data["images"]):
        image["patient_id"] = str(FIRST + i // 2)
    coco.write_text(json.dumps(data))
    boxes = pack(coco, "boxes", "--format", "coco", "--val", 0.2, "--test", 0.3, patients=False)
    small = ("--arch", "resnet18", "--epochs", 1, "--size", 64, "--fpn-channels", 32)
    small = (*small, "--box-head-width", 64, "--rois-per-image", 32, "--bootstrap", 0)
    status, _, told = cli("detect", "--data", boxes.path, "--out", tmp_path / "run", *small)
    assert status == 0, told
    for name in ("seen.json", "truth.json"):
        assert not hexadecimal((tmp_path / "run" / name).read_text()) & tried, name
    codes = {image["patient_id"] for image in json.loads((tmp_path / "run" / "truth.json").read_text())["images"]}  # fmt: skip
    assert len(codes - {None}) == len({boxes.patients[row] for row in boxes.where("test")})

    export = tmp_path / "dicom"
    export.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40), dtype=np.uint8)
        write_radiograph(export / f"{i}.dcm", pixels, PatientID=str(FIRST + i // 2))
    write_seen(tmp_path, saw(pack(export, "hospital", "--format", "dicom", patients=False)))
    assert not hexadecimal((tmp_path / "seen.json").read_text()) & tried


def test_the_key_is_made_once_and_packs_of_it_match(pack, cli, tmp_path, own_configuration) -> None:
    first = pack(images(tmp_path / "archive"), "a")
    key = own_configuration / "twinray" / "key"
    assert key.stat().st_mode & 0o077 == 0
    secret = key.read_text().strip()
    assert len(secret) == 64
    later = pack(images(tmp_path / "later" / "archive", seed=1), "b", "--test", 0.5, "--val", 0)
    assert key.read_text().strip() == secret
    assert asked(saw(first), later) == (2 * N, asked(saw(first), later)[1])
    assert "another key" not in asked(saw(first), later)[1]
    write_seen(tmp_path, saw(first))
    assert asked(read_seen(tmp_path), later)[0] == 2 * N
    for path in (first.path, later.path, tmp_path / "seen.json"):
        files = [path] if path.is_file() else [*path.iterdir()]
        assert not any(secret.encode() in file.read_bytes() for file in files)


def test_another_key_is_said_and_never_taken_for_other_people(
    pack, keys, tmp_path, monkeypatch
) -> None:
    source, again = images(tmp_path / "archive"), images(tmp_path / "b" / "archive", seed=1)
    one = pack(source, "one", "--key", keys["one"])
    two = pack(again, "two", "--key", keys["two"])
    hidden = pack(again, "hidden", "--pseudonymise", keys["two"])
    same = pack(again, "same", "--key", keys["one"])
    for other in (two, hidden):
        n, told = asked(saw(one), other)
        assert n == 0 and "made with another key" in told and "TWINRAY_KEY" in told
        assert "the pretrain run pre" in told
    assert asked(saw(one), same) == (2 * N, asked(saw(one), same)[1])
    # the other key at hand: ids that stand in clear are compared under it
    monkeypatch.setenv("TWINRAY_KEY", str(keys["one"]))
    n, told = asked(saw(one), two)
    assert (n, "another key" in told) == (2 * N, False)
    n, told = asked(saw(one), hidden)  # pseudonyms cannot be hashed anew
    assert (n, "another key" in told) == (0, True)
    monkeypatch.delenv("TWINRAY_KEY")
    # the same pixels are found whatever the keys
    copy = pack(source, "copy", "--key", keys["two"])
    assert asked(saw(one), copy)[0] == 2 * N


def test_a_clear_pack_and_a_pseudonymised_one_of_one_key_match(pack, keys, tmp_path) -> None:
    clear = pack(images(tmp_path / "archive"), "clear", "--key", keys["one"])
    again = images(tmp_path / "b" / "archive", seed=1)
    hidden = pack(again, "hidden", "--pseudonymise", keys["one"])
    for seen, pack_asked in ((clear, hidden), (hidden, clear)):
        n, told = asked(saw(seen), pack_asked)
        assert (n, "another key" in told) == (2 * N, False)
    assert set(clear.patient_codes) == set(hidden.patient_codes)
    assert len(set(clear.patient_codes)) == N


def test_numbers_in_another_form_are_still_noted(pack, keys, tmp_path) -> None:
    one = pack(images(tmp_path / "archive"), "one", "--key", keys["one"])
    source = images(tmp_path / "b" / "archive", seed=1, pattern="P00{patient}_{i}.png")
    two = pack(source, "two", "--key", keys["one"], "--patient-regex", r"(P\d+)_", patients=False)
    n, told = asked(saw(one), two)
    assert n == 0 and "differ in form only" in told


def test_runs_and_packs_without_a_key_work_as_before(pack, keys, tmp_path) -> None:
    """Of earlier versions: plain hashes are asked for with ids that stand in clear; a pack without keyed ids with a key at hand."""
    one = pack(images(tmp_path / "archive"), "one", "--key", keys["one"])
    old = Seen().plus(Path("pre"), "pretrain", [(one, every(one))], under="")
    write_seen(tmp_path, old)
    record = json.loads((tmp_path / "seen.json").read_text())
    for part in record["parts"]:
        del part["keys"]
    (tmp_path / "seen.json").write_text(json.dumps(record))
    again = images(tmp_path / "b" / "archive", seed=1)
    two = pack(again, "two", "--key", keys["two"])
    n, told = asked(read_seen(tmp_path), two)
    assert (n, "another key" in told) == (2 * N, False)
    hidden = pack(again, "hidden", "--pseudonymise", keys["two"])
    n, told = asked(read_seen(tmp_path), hidden)
    assert (n, "another key" in told) == (0, True)


def test_what_is_kept_apart_is_compared_or_refused(pack, keys, tmp_path) -> None:
    one = pack(images(tmp_path / "archive"), "one", "--key", keys["one"])
    again = images(tmp_path / "b" / "archive", seed=1)
    two = pack(again, "two", "--key", keys["two"])
    assert len(apart_from(one, every(one), [two])) == 0  # both stand in clear
    same = pack(again, "same", "--pseudonymise", keys["one"])
    assert len(apart_from(one, every(one), [same])) == 0
    hidden = pack(again, "hidden", "--pseudonymise", keys["two"])
    with pytest.raises(InputError, match="made with another key"):
        apart_from(one, every(one), [hidden])


def test_published_sources_have_no_key(pack, cli, tmp_path) -> None:
    """So that the guard works between institutions: a phantom, and a folder that the user says is Kermany's."""
    out = tmp_path / "phantom"
    status, _, told = cli(
        "pack", "--format", "phantom", "--phantom-images", 4, "--out", out, "--size", 32, "--workers", 1
    )  # fmt: skip
    assert status == 0, told
    kermany = pack(images(tmp_path / "copy"), "kermany", "--data-set", "kermany-cxr")
    for one in (open_pack(out), kermany):
        assert not set(COLUMNS) & set(one.table.column_names)
        assert one.key is None
    private = pack(images(tmp_path / "x" / "kermany-cxr"), "own", "--data-set", "none")
    assert private.key is not None


def test_mixed_sources_keep_their_patients_apart(pack, keys, tmp_path) -> None:
    a, b = images(tmp_path / "a"), images(tmp_path / "b", seed=1)
    status_pack = pack(a, "both", "--source", b, "--key", keys["one"])
    assert len(set(status_pack.patient_codes)) == 2 * N
    alone = pack(images(tmp_path / "again" / "b", seed=2), "alone", "--key", keys["one"])
    assert asked(saw(status_pack), alone)[0] == 2 * N
    other = pack(images(tmp_path / "again" / "c", seed=3), "other", "--key", keys["one"])
    n, told = asked(saw(status_pack), other)
    assert n == 0 and "under other source names" in told


def test_a_key_that_cannot_be_had_is_refused_in_one_line(cli, tmp_path, monkeypatch) -> None:
    source = images(tmp_path / "archive")
    words = ("pack", source, "--out", tmp_path / "p", "--size", 32, "--workers", 1)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for bad in (tmp_path / "nowhere", empty, tmp_path):
        status, _, told = cli(*words, "--key", bad)
        assert (status, told.count("\n")) == (2, 1) and "unforeseen" not in told, told
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(blocked))
    status, _, told = cli(*words)
    assert (status, told.count("\n")) == (2, 1) and "--key" in told and "TWINRAY_KEY" in told
    monkeypatch.setenv("TWINRAY_KEY", str(tmp_path / "nowhere"))
    assert cli(*words)[0] == 2
    assert not (tmp_path / "p").exists()


def test_the_keyed_columns_are_read_with_care(pack, tmp_path) -> None:
    one = pack(images(tmp_path / "archive"), "one")
    table = pq.read_table(one.path / "samples.parquet")
    assert set(COLUMNS) <= set(table.column_names)
    copy = tmp_path / "copy"
    shutil.copytree(one.path, copy)
    at = table.column_names.index("keyed_patient")
    wrong = table.set_column(at, "keyed_patient", [[1] * len(table)])
    pq.write_table(wrong, copy / "samples.parquet")
    with pytest.raises(InputError, match="keyed_patient of type"):
        open_pack(copy, allow_edited=True)

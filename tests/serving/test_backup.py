"""Backup and restore by one command each, between both databases; users and forgetting from the command line."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile

import numpy as np
import pytest
import sqlalchemy as sa

from serving_support import add, analysed, png, said
from twinray import cli
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.serving.store.backup import back_up, restore
from twinray.serving.store.images import Facts
from twinray.serving.store.models import Base
from twinray.serving.store.store import open_store


def content(store) -> dict[str, list[str]]:
    with store.database.engine.connect() as one:
        return {
            table.name: sorted(str(row) for row in one.execute(sa.select(table)).all())
            for table in Base.metadata.sorted_tables
            if table.name != "sessions"
        }


def filled(store):
    for i in range(3):
        image, _ = add(store, b"%d" % i, "näme\n'\".png")
        analysed(store, image, features=[1, i])
        store.readings.save(said(image.id, text="ü\N{PILE OF POO}"), "anna")
    store.people.add("anna", "long enough, is it")
    return store.people.sign_in("anna", "reader", 1.0)


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_holds_all_and_comes_back_in_either_database(
    store, place, target, request, tmp_path
):
    signed = filled(store)
    before, key = content(store), store.files.key()
    counts = back_up(store, tmp_path / "backup.tar")
    assert (counts["images"], counts["readings"], counts["lost"]) == (3, 3, 0)
    assert (tmp_path / "backup.tar").stat().st_mode & 0o77 == 0
    store.close()
    new_place = str(tmp_path / "new")
    if target == "postgresql":
        server = request.getfixturevalue("postgres")
        server.fresh()
        new_place = server.url()
    new = open_store(new_place, tmp_path / "new", migrate=False)
    restore(tmp_path / "backup.tar", new)
    assert content(new) == before
    assert new.files.key() == key
    for i in range(3):
        digest = hashlib.sha256(b"%d" % i).hexdigest()
        assert new.files.place(digest).read_bytes() == b"%d" % i
    assert new.people.signed_in(signed.secret) is None  # nobody is signed in by a backup
    image, _ = add(new, b"later")  # numbers go on
    assert new.images.page().images[0].id == image.id
    with pytest.raises(InputError, match="expected a new store"):
        restore(tmp_path / "backup.tar", new)
    new.close()


def test_patients_stay_on_their_sides_and_models_beside_in_a_restored_store(tmp_path):
    store = open_store(tmp_path / "store")
    filled(store)
    for name, text in (("sides.json", '{"seed": 3}'), ("beside.json", '{"models": []}')):
        (tmp_path / "store" / name).write_text(text)
    back_up(store, tmp_path / "backup.tar")
    new = open_store(tmp_path / "new", migrate=False)
    restore(tmp_path / "backup.tar", new)
    assert (tmp_path / "new" / "sides.json").read_text() == '{"seed": 3}'
    assert (tmp_path / "new" / "beside.json").read_text() == '{"models": []}'


def test_tables_of_patients_are_never_written_to_a_folder_that_all_share(tmp_path, monkeypatch):
    store = open_store(tmp_path / "store")
    filled(store)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    assert back_up(store, tmp_path / "backup.tar")["images"] == 3


def test_a_backup_that_is_not_whole_is_refused(tmp_path):
    store = open_store(tmp_path / "store")
    filled(store)
    file = tmp_path / "backup.tar"
    back_up(store, file)
    with pytest.raises(InputError, match="is there already"):
        back_up(store, file)
    data = file.read_bytes()
    for name, damaged in {
        "cut": data[: len(data) // 2],
        "other": b"no tar at all",
        "image": data.replace(b"1" + bytes(511), b"7" + bytes(511), 1),
    }.items():
        (tmp_path / name).write_bytes(damaged)
        new = open_store(tmp_path / f"new-{name}", migrate=False)
        with pytest.raises(InputError):
            restore(tmp_path / name, new)
        new.close()
    assert "1" in [path.read_text() for path in store.files.images.glob("??/*")]


def test_paths_in_a_backup_lead_nowhere_else(tmp_path):
    store = open_store(tmp_path / "store")
    filled(store)
    back_up(store, tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar", "a") as archive:
        info = tarfile.TarInfo("images/../../../escaped")
        archive.addfile(info)
    new = open_store(tmp_path / "new" / "deep", migrate=False)
    restore(tmp_path / "backup.tar", new)
    assert not [*tmp_path.rglob("escaped")]


def test_the_command_line(cli, tmp_path, monkeypatch):
    place = tmp_path / "store"
    assert cli("store", "users", "--store", place)[0] == 2
    store = open_store(place)
    filled(store)
    monkeypatch.setenv("TWINRAY_PASSWORD", "another long word")
    assert cli("store", "add-user", "--store", place, "--name", "ben", "--role", "admin")[0] == 0
    assert store.people.check("ben", "another long word") == "admin"
    assert cli("store", "disable-user", "--store", place, "--name", "ben")[0] == 0
    status, out, _ = cli("store", "users", "--store", place)
    assert (status, out) == (0, "anna reader\nben admin disabled\n")
    status, out, _ = cli("store", "backup", "--store", place, "--file", tmp_path / "b.tar")
    assert status == 0 and "3 images, 3 readings" in out
    status, out, _ = cli(
        "store", "restore", "--store", tmp_path / "r", "--file", tmp_path / "b.tar"
    )
    assert (status, out) == (0, f"{tmp_path / 'r'}: 3 images, 3 readings restored\n")
    assert "3 images, 0 without a file" in cli("store", "check", "--store", tmp_path / "r")[1]
    image = store.images.page().images[0]
    status, out, _ = cli("store", "forget", "--store", place, "--image", image.id)
    assert status == 0 and "1 image forgotten" in out and "backups" in out
    assert not store.files.place(image.sha256).exists()
    assert cli("store", "forget", "--store", place)[0] == 2
    # a server that was killed between file and row has left a file that nobody was told of
    with store.files.receive() as incoming:
        incoming.write(b"of somebody")
        spare = store.files.place(incoming.keep().sha256)
    image = store.images.page().images[1]
    said = cli("store", "forget", "--store", place, "--image", image.id)[1]
    assert "1 file without an image" in said and "twinray store sweep" in said
    assert (
        "1 file without an image (twinray store sweep" in cli("store", "check", "--store", place)[1]
    )
    assert cli("store", "sweep", "--store", place)[:2] == (0, f"{place}: 1 image files without an image were removed\n")  # fmt: skip
    assert not spare.exists() and len([*store.files.images.glob("??/*")]) == 1
    store.files.place(store.images.page().images[0].sha256).write_bytes(b"rotten")
    status, _, err = cli("store", "check", "--store", place)
    assert status == 1 and "1 image of" in err and "restore a backup" in err


def test_feedback_is_the_same_from_both_databases(postgres, tmp_path):
    """A store in PostgreSQL, and its copy in SQLite: packs of both hold the same, by --database and without."""
    postgres.fresh()
    store = open_store(postgres.url(), tmp_path / "files")
    for n in range(4):
        image, _ = add(store, png(n), f"{n}.png")
        analysed(store, image, facts=Facts(64, 64, f"patient{n}"))
        store.readings.save(said(image.id, text="Mrs Canary"), "anna")
        if n % 2:
            store.readings.save(said(image.id, marks=(), reader="ben", normal=True), "ben")
    back_up(store, tmp_path / "backup.tar")
    store.close()
    copy = open_store(tmp_path / "copy", migrate=False)
    restore(tmp_path / "backup.tar", copy)
    copy.close()
    options = ("--format", "feedback", "--size", "32")
    cli.main(["pack", str(tmp_path / "files"), "--database", postgres.url(), *options, "--out", str(tmp_path / "a")])  # fmt: skip
    cli.main(["pack", str(tmp_path / "copy"), *options, "--out", str(tmp_path / "b")])
    one, other = open_pack(tmp_path / "a"), open_pack(tmp_path / "b")
    assert len(one) == 4
    for name in ("ids", "patients", "splits", "images"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for row in range(4):
        np.testing.assert_array_equal(one.boxes(row).xyxy, other.boxes(row).xyxy)
        assert one.boxes(row).readers == other.boxes(row).readers

"""``twinray store``: what an operator does with a store, by one command each."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twinray.errors import InputError, TwinrayError
from twinray.files import check_regular, folders_freed, sha256
from twinray.serving.config import StoreConfig
from twinray.words import counted

if TYPE_CHECKING:
    from twinray.serving.store.store import Store

PASSWORD = "TWINRAY_PASSWORD"
_SWEEP = " (twinray store sweep removes them)"
_NEEDS = {
    "backup": ("file",),
    "restore": ("file",),
    "add-user": ("name",),
    "disable-user": ("name",),
    "reader-study": ("name", "output"),
    "end-study": ("name",),
}


def run(config: StoreConfig) -> None:
    """Do what is asked for, and say what was done.

    Raises:
        InputError: options or a backup that cannot be used, or the extra ``serve`` is not installed.
        TwinrayError: the store differs from its files, or the disk refuses.
    """
    try:
        from twinray.serving.store.store import open_store
    except ImportError as error:
        raise InputError(
            f"twinray store needs packages that are not installed ({error.name}); pip install 'twinray[serve]'"
        ) from error
    for option in _NEEDS.get(config.action, ()):
        if not getattr(config, option):
            raise InputError(f"expected --{option} with {config.action}, got nothing")
    if config.action == "forget" and not (config.patient or config.image or config.patient_file):
        raise InputError("expected --patient, --patient-file or --image with forget, got nothing")
    new = config.action == "restore"
    if not new and "://" not in config.store and not Path(config.store).is_dir():
        raise InputError(f"expected --store to be a store, there is no folder {config.store}")
    with folders_freed():
        alone = new or config.action == "sweep"
        store = open_store(config.store, config.files, lock=alone, migrate=not new)
        try:
            _ACTIONS[config.action](config, store)
        finally:
            store.close()


def _reader_study(config: StoreConfig, store: Store) -> None:
    from twinray.serving.readings.figures import write_study

    assert config.output is not None
    found = write_study(store, config.name, config.output, "operator")
    for line in found.lines:
        print(line)
    print(f"written: {', '.join(map(str, found.files))}")


def _end_study(config: StoreConfig, store: Store) -> None:
    if store.studies.get(config.name) is None:
        raise InputError(f"expected a reader study of this store, there is no {config.name!r}")
    store.studies.end(config.name, "operator")
    print(f"the study {config.name} is ended; what was submitted stays")


def _backup(config: StoreConfig, store: Store) -> None:
    from twinray.serving.store.backup import back_up

    assert config.file is not None
    counts = back_up(store, config.file)
    lost = (
        f"; {counted(counts['lost'], 'image file was', 'image files were')} not there"
        if counts["lost"]
        else ""
    )
    print(
        f"{config.file}: {counted(counts['images'], 'image')}, {counted(counts['readings'], 'reading')}, {counted(counts['audit'], 'row')} of audit{lost}"
    )


def _restore(config: StoreConfig, store: Store) -> None:
    from twinray.serving.store.backup import restore

    assert config.file is not None
    counts = restore(config.file, store)
    print(
        f"{config.store}: {counted(counts['images'], 'image')}, {counted(counts['readings'], 'reading')} restored"
    )


def _check(config: StoreConfig, store: Store) -> None:
    wanted = set(store.images.hashes())
    have = store.files.kept()
    lost = wanted - have.keys()
    damaged = [name for name in wanted & have.keys() if sha256(have[name]) != name]
    spare = have.keys() - wanted
    print(
        f"{config.store}: {counted(len(wanted), 'image')}, {len(lost):,} without a file, {len(damaged):,} with a damaged file, "
        f"{counted(len(spare), 'file without', 'files without')} an image{_SWEEP if spare else ''}"
    )
    if lost or damaged:
        first, n = sorted([*lost, *damaged])[0], len(lost) + len(damaged)
        raise TwinrayError(
            f"{counted(n, 'image')} of {config.store} {'has' if n == 1 else 'have'} no whole file (the first: {first}); restore a backup"
        )


def _forget(config: StoreConfig, store: Store) -> None:
    patients, what = [config.patient], config.patient or config.image
    if config.patient_file is not None:
        patients = store.exchange.pseudonyms_of(_patient_number(config.patient_file))
        what = "the patient of --patient-file"  # the number itself is told nowhere
    gone: list[str] = []
    for one in patients:
        gone += store.images.forget(patient=one, image=config.image, who="operator")
    for sha in gone:
        store.files.remove(sha)
    spare = len(store.spare())
    hint = (
        f"; {counted(spare, 'file without an image is there', 'files without an image are there')}, which may be anybody's{_SWEEP}"
        if spare
        else ""
    )
    if not gone:
        raise InputError(f"no image of {what} in {config.store}{hint}")
    if not store.database.wipe():
        hint += "; the database's log still holds deleted rows: stop the server, and they go"
    print(
        f"{counted(len(gone), 'image forgotten, with its answers', 'images forgotten, with their answers')}, readings and results that wait to be sent; backups, packs, "
        f"comparisons, exports and what the archive holds are not touched{hint}"
    )


def _sweep(config: StoreConfig, store: Store) -> None:
    store.clean()
    spare = store.spare()
    for sha in spare:
        store.files.remove(sha)
    print(f"{config.store}: {len(spare):,} image files without an image were removed")


def _patient_number(path: Path) -> str:
    """The number in a file, or on standard input."""
    check_regular(path, "the file of the patient's number") if str(path) != "-" else None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"could not read --patient-file ({type(error).__name__}); give a text file with the Patient ID alone"
        ) from error
    number = text.strip("\r\n ")
    if not number or "\n" in number:
        raise InputError("expected one Patient ID in --patient-file, found none or several lines")
    return number


def _add_user(config: StoreConfig, store: Store) -> None:
    password = os.environ.get(PASSWORD) or getpass.getpass(f"password of {config.name}: ")
    store.people.add(config.name, password, config.role)
    print(f"{config.name} may sign in as {config.role}")


def _disable_user(config: StoreConfig, store: Store) -> None:
    store.people.disable(config.name)
    print(f"{config.name} may no longer sign in")


def _users(config: StoreConfig, store: Store) -> None:
    for user in store.people.all():
        print(f"{user.name} {user.role}{' disabled' if user.disabled else ''}")


_ACTIONS = {
    "backup": _backup,
    "restore": _restore,
    "check": _check,
    "forget": _forget,
    "sweep": _sweep,
    "add-user": _add_user,
    "disable-user": _disable_user,
    "users": _users,
    "reader-study": _reader_study,
    "end-study": _end_study,
}

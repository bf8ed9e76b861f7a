"""A store: image files in a folder, and a database of what is known of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from twinray.errors import InputError
from twinray.files import clear_disk_errors, lock_folder
from twinray.serving.store.audit import AuditTrail
from twinray.serving.store.database import SQLITE_FILE, Database, is_url
from twinray.serving.store.exchange import Exchange
from twinray.serving.store.files import ImageFiles
from twinray.serving.store.images import Images
from twinray.serving.store.people import People
from twinray.serving.store.readings import Readings
from twinray.serving.store.studies import Studies

DEFAULT_FOLDER = Path("twinray-store")


@final
class Store:
    """An open store.

    Attributes:
        place: folder or URL that it was opened by. files: image files. images, readings, studies, people, audit: tables.
        database: database, for tables of other parts.
    """

    def __init__(self, place: str, folder: Path, database: Database) -> None:
        self.place = place
        self.files = ImageFiles(folder)
        self.database = database
        self.images = Images(database)
        self.readings = Readings(database)
        self.studies = Studies(database)
        self.people = People(database)
        self.audit = AuditTrail(database)

    @property
    def exchange(self) -> Exchange:
        """The tables of the link to an archive."""
        return Exchange(self.database, self.files.key())

    def clean(self) -> None:
        """Remove what a killed process left: uploads that are not whole, and what was made of images that are forgotten."""
        self.files.clean()
        cached = self.files.cached_hashes()
        for sha256 in cached - self.images.known(cached):
            self.files.remove_derived(sha256)

    def spare(self) -> dict[str, Path]:
        """Image files without a row, by their hashes: a process was killed between the two, so nobody was told that it is here."""
        kept = self.files.kept()
        known = self.images.known(kept)
        return {sha256: path for sha256, path in kept.items() if sha256 not in known}

    def close(self) -> None:
        """Close its connections."""
        self.database.close()


def open_store(
    place: str | Path, folder: Path | None = None, *, lock: bool = False, migrate: bool = True
) -> Store:
    """Open a store, which is made where there is none.

    Args:
        place: folder, or URL of a PostgreSQL database.
        folder: folder of the image files where ``place`` is a URL.
        lock: flag to keep other servers out of the folder.
        migrate: flag to bring the tables to the newest form.

    Raises:
        InputError: no such place, one of a later version, or another server works in it.
        TwinrayError: the folder cannot be made.
    """
    place = str(place)
    own = (folder or DEFAULT_FOLDER) if is_url(place) else Path(place)
    if own.exists() and not own.is_dir():
        raise InputError(
            f"expected a folder for the store, {own} is a file; choose another --store"
        )
    ImageFiles(own)  # before the database, which lies in it
    if lock:
        try:
            lock_folder(own, "store")
        except InputError:
            raise InputError(
                f"the store {own} is in use by another process; stop it, or choose another --store"
            ) from None
    if is_url(place):
        return Store(place, own, Database(place, migrate=migrate))
    address = str(own / SQLITE_FILE)
    with clear_disk_errors(own / SQLITE_FILE, "store"):
        # for this user alone; what SQLite makes beside it has the same rights
        os.close(os.open(address, os.O_RDWR | os.O_CREAT, 0o600))
    return Store(place, own, Database(address, migrate=migrate))

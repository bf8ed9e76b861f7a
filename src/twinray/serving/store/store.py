"""A store: image files in a folder, and a database of what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import final

from twinray.files import lock_folder
from twinray.serving.store.audit import AuditTrail
from twinray.serving.store.database import SQLITE_FILE, Database, is_url
from twinray.serving.store.files import ImageFiles
from twinray.serving.store.images import Images
from twinray.serving.store.people import People
from twinray.serving.store.readings import Readings

DEFAULT_FOLDER = Path("twinray-store")


@final
class Store:
    """An open store.

    Attributes:
        place: folder or URL that it was opened by. files: image files. images, readings, people, audit: tables.
        database: database, for tables of other parts.
    """

    def __init__(self, place: str, folder: Path, database: Database) -> None:
        self.place = place
        self.files = ImageFiles(folder)
        self.database = database
        self.images = Images(database)
        self.readings = Readings(database)
        self.people = People(database)
        self.audit = AuditTrail(database)

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
    if lock:
        lock_folder(own, "store")
    ImageFiles(own)  # before the database, which lies in it
    address = place if is_url(place) else str(own / SQLITE_FILE)
    return Store(place, own, Database(address, migrate=migrate))

"""A store as one file, and back: every table as lines of JSON, every image file, the key of the pseudonyms.

The file is a tar archive: ``backup.json`` (form of the tables, counts), ``key``, ``sides.json``, ``beside.json``,
``tables/NAME.jsonl``, ``images/HASH``. Tables
are read in one transaction, so it is a picture of one moment, also while the store is served; image files are written before
their rows and are therefore there. Who is signed in is left out. A backup of SQLite can be restored into PostgreSQL and the
other way round.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import Connection, MetaData, Table, select

from twinray.data.readers.feedback.reader import SIDES
from twinray.errors import InputError
from twinray.files import atomic_writer, clear_disk_errors
from twinray.runs.beside import FILE as BESIDE
from twinray.serving.store.files import KEY_FILE
from twinray.serving.store.store import Store

FORMAT = 1
_ABOUT, _REVISIONS = "backup.json", "alembic_version"
_LEFT_OUT = frozenset({"sessions", _REVISIONS})
_TABLE, _IMAGE = re.compile(r"tables/([a-z_]+)\.jsonl"), re.compile(r"images/([0-9a-f]{64})")
_SETTINGS = (SIDES, BESIDE)
"""Files of the folder without which a restored store would give patients other sides, or show other models."""
_AT_ONCE = 1000


def back_up(store: Store, out: Path) -> dict[str, int]:
    """Write all of a store into a new file.

    Args:
        store: open store.
        out: file to be written.

    Returns:
        Rows by table, and ``images`` without a file under ``lost``.

    Raises:
        InputError: the file is there already.
        TwinrayError: the disk refuses.
    """
    if out.exists():
        raise InputError(f"{out} is there already; choose another --file")
    counts: dict[str, int] = {}
    with atomic_writer(out, "backup") as raw:
        os.fchmod(raw.fileno(), 0o600)
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            options = {} if store.database.sqlite else {"isolation_level": "REPEATABLE READ"}
            with store.database.engine.connect().execution_options(**options) as connection:
                tables = _tables(connection)
                for table in tables:
                    counts[table.name] = _add_table(archive, connection, table, out.parent)
                hashes = connection.scalars(
                    select(next(t for t in tables if t.name == "images").c.sha256)
                ).all()
                revision = _revision(connection)
            _add(archive, KEY_FILE, store.files.key())
            for name in _SETTINGS:
                if (path := store.files.folder / name).is_file():
                    _add(archive, name, path.read_bytes())
            lost = 0
            for sha256 in hashes:
                try:
                    archive.add(store.files.place(sha256), f"images/{sha256}", recursive=False)
                except FileNotFoundError:  # forgotten meanwhile, or lost before
                    lost += 1
            about = {
                "format": FORMAT,
                "tables": revision,
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "rows": counts,
                "files": len(hashes) - lost,
            }
            _add(
                archive, _ABOUT, json.dumps(about).encode()
            )  # last: a file without it is not whole
    return {**counts, "lost": lost}


def restore(file: Path, store: Store) -> dict[str, int]:
    """Fill a new store from a backup.

    Args:
        file: backup.
        store: open store without tables, made with ``migrate=False``.

    Returns:
        Rows by table.

    Raises:
        InputError: not a whole backup, one of a later version, one whose files are damaged, or a store that holds something.
        TwinrayError: the disk refuses.
    """
    about = _about(file)
    if not isinstance(about.get("format"), int) or about["format"] > FORMAT:
        raise InputError(f"{file} is a backup of a later version; update twinray")
    if any(store.files.images.iterdir()) or sa.inspect(store.database.engine).get_table_names():
        raise InputError(f"expected a new store to restore into, {store.place} holds something")
    store.database.migrate(str(about["tables"]))
    rows: dict[str, int] = {}
    files = 0
    with (
        clear_disk_errors(store.files.folder, "store"),
        _opened(file) as archive,
        store.database.engine.begin() as connection,
    ):
        tables = {table.name: table for table in _tables(connection)}
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                continue
            if found := _TABLE.fullmatch(member.name):
                rows[found[1]] = _fill(connection, tables.get(found[1]), content, file)
            elif found := _IMAGE.fullmatch(member.name):
                _fill_image(store, found[1], content, file)
                files += 1
            elif member.name in _SETTINGS:
                _write(store.files.folder / member.name, content.read(1 << 20))
            elif member.name == KEY_FILE:
                _write(store.files.folder / KEY_FILE, content.read(1024))
        if rows != about["rows"] or files != about["files"]:
            raise InputError(f"{file} is not a whole backup; copy it again from its source")
        if not store.database.sqlite:
            _count_on(connection, tables.values())
    store.database.migrate()
    return rows


def _tables(connection: Connection) -> list[Table]:
    """All tables but those that are left out, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name not in _LEFT_OUT]


def _revision(connection: Connection) -> str:
    return str(connection.exec_driver_sql(f"SELECT version_num FROM {_REVISIONS}").scalar_one())


def _add_table(archive: tarfile.TarFile, connection: Connection, table: Table, place: Path) -> int:
    count = 0
    # beside the backup: what it holds has no business in a folder that all share
    with tempfile.TemporaryFile(dir=place) as lines:
        for row in connection.execute(select(table)).mappings():
            lines.write(json.dumps(dict(row)).encode() + b"\n")
            count += 1
        size = lines.tell()
        lines.seek(0)
        info = tarfile.TarInfo(f"tables/{table.name}.jsonl")
        info.size, info.mode = size, 0o600
        archive.addfile(info, lines)
    return count


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    archive.addfile(info, io.BytesIO(data))


def _opened(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file, "r:")
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"expected a backup of twinray store, {file} cannot be read as one ({error!s:.80})"
        ) from error


def _about(file: Path) -> dict[str, Any]:
    with _opened(file) as archive:
        try:
            content = archive.extractfile(_ABOUT)
            about = json.loads(content.read(1 << 20)) if content is not None else None
        except (KeyError, ValueError, tarfile.TarError):
            about = None
    if not isinstance(about, dict) or not {"format", "tables", "rows", "files"} <= about.keys():
        raise InputError(f"{file} is not a whole backup of twinray store; copy it again")
    return about


def _fill(connection: Connection, table: Table | None, lines: IO[bytes], file: Path) -> int:
    if table is None:
        raise InputError(f"{file} is a backup of another version: it has a table that is not known")
    count = 0
    for part in _parts(lines, file):
        connection.execute(sa.insert(table), part)
        count += len(part)
    return count


def _parts(lines: IO[bytes], file: Path) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for line in lines:
        try:
            part.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{file} is damaged; copy it again from its source") from error
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _fill_image(store: Store, sha256: str, content: IO[bytes], file: Path) -> None:
    with store.files.receive() as incoming:
        while piece := content.read(1 << 20):
            incoming.write(piece)
        incoming.flush()
        if hashlib.sha256(incoming.path.read_bytes()).hexdigest() != sha256:
            raise InputError(f"{file} is damaged (an image file); copy it again from its source")
        incoming.keep()


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _count_on(connection: Connection, tables: Any) -> None:
    """Let PostgreSQL number new rows after those that were filled in."""
    for table in tables:
        for column in table.primary_key.columns:
            if column.name == "number":
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'number'), "
                    f"GREATEST((SELECT MAX(number) FROM {table.name}), 1))"
                )

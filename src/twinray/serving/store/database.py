"""The database of a store: SQLite in a folder or PostgreSQL by URL, brought to its newest form when it is opened.

An acknowledged change is on the disk: SQLite runs with a write-ahead log and ``synchronous=FULL``, PostgreSQL as it comes.
Every change is one function of a session, so that it can be done again where the database was away for a moment or another
writer was first. Changes are therefore written so that doing one twice does it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, final

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy.event
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from twinray.errors import InputError, TwinrayError

T = TypeVar("T")

SQLITE_FILE = "store.sqlite"
_PATIENCE_S = 5.0
"""How long a change waits for a database that is away."""
_AWAY = "the database does not answer at the moment; try again"
_MIGRATING = 0x7477696E
"""Number of PostgreSQL's advisory lock under which tables are brought up to date."""


class UnavailableError(TwinrayError):
    """The database does not answer; what was acknowledged is kept, and the same request can be made again."""


class FullError(TwinrayError):
    """The disk is full: nothing new is taken, all that was acknowledged is kept."""


def is_url(place: str) -> bool:
    """Whether a place is a database's URL, not a folder."""
    return "://" in place


@final
class Database:
    """Connections to a store's database.

    Args:
        place: ``sqlite`` file's path or URL of PostgreSQL.
        migrate: flag to bring its tables to the newest form.

    Raises:
        InputError: a URL of another database, one that cannot be reached, or tables of a later version.
    """

    def __init__(self, place: str, *, migrate: bool = True) -> None:
        self.url = _url(place)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {"pool_size": 16, "max_overflow": 64}
            if self.sqlite
            else {
                "pool_pre_ping": True,
                "pool_size": 8,
                "max_overflow": 32,
                "pool_timeout": 10,
                # a database whose machine is gone answers nothing at all: do not wait for it for minutes
                "connect_args": {
                    "connect_timeout": 5,
                    "keepalives_idle": 30,
                    "tcp_user_timeout": 20_000,
                },
            }
        )
        try:
            # values of a statement may be names of patients: no message has them
            self.engine: Engine = create_engine(self.url, hide_parameters=True, **options)
        except (ImportError, NoSuchModuleError) as error:
            raise InputError(
                f"expected a database driver for {self.url.drivername}, it is not installed; pip install 'twinray[serve]'"
            ) from error
        if self.sqlite:
            sqlalchemy.event.listen(self.engine, "connect", _prepare_sqlite)
            sqlalchemy.event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(twinray_writes=True)
        if migrate:
            self.migrate()

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to a form.

        Raises:
            InputError: they, or the form, are of a later version, or the database cannot be reached.
        """
        config = alembic.config.Config()
        config.set_main_option("script_location", "twinray.serving.store:migrations")
        config.set_main_option("path_separator", "os")
        try:
            with self._writing.begin() as connection:
                if not self.sqlite:  # several servers may start at once
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, revision)
        except alembic.util.CommandError as error:
            raise InputError(
                f"the store {self.url.render_as_string()} was written by a later version; update twinray"
            ) from error
        except DBAPIError as error:
            raise InputError(
                f"could not open the store {self.url.render_as_string()}: {_first_line(error)}; check path or URL, and that the "
                "database runs"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads.

        Raises:
            UnavailableError: the database does not answer.
        """
        try:
            with Session(self.engine) as session:
                yield session
        except DBAPIError as error:
            raise _translated(error) from error
        except PoolTimeoutError as error:
            raise UnavailableError(_AWAY) from error

    def write(self, change: Callable[[Session], T]) -> T:
        """Do a change as one transaction, again where the database was away or another writer was first.

        Args:
            change: the change; done twice it does the same as once.

        Raises:
            UnavailableError: the database does not answer.
            FullError: its disk is full.
        """
        until = time.monotonic() + _PATIENCE_S
        wait = 0.02
        while True:
            try:
                with Session(self._writing, expire_on_commit=False) as session:
                    made = change(session)
                    session.commit()
                    return made
            except DBAPIError as error:
                again = isinstance(error, IntegrityError) or _passes(error)
                if not again or time.monotonic() > until:
                    raise _translated(error) from error
            except PoolTimeoutError as error:  # every connection is taken
                raise UnavailableError(_AWAY) from error
            time.sleep(wait)
            wait = min(2 * wait, 0.5)

    def wipe(self) -> bool:
        """Let nothing of deleted rows stay in SQLite's log of changes; false where others kept it busy.

        SQLite overwrites deleted rows in its file. PostgreSQL frees their space and overwrites it when it needs it.
        """
        if not self.sqlite:
            return True
        connection = self.engine.raw_connection()
        try:  # it waits for readers as long as any change does
            busy = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
        return not busy

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _url(place: str) -> URL:
    if not is_url(place):
        return URL.create("sqlite", database=place)
    try:
        url = make_url(place)
    except ArgumentError:
        raise InputError(
            "expected --store to be a folder or a URL as postgresql://user@host/name, got something else"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername != "postgresql+psycopg":
        raise InputError(
            f"expected --store to be a folder or the URL of a PostgreSQL database, got one of {url.drivername}"
        )
    return url


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    for setting in (
        "busy_timeout = 30000",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is overwritten, not only marked as free
    ):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads first and then writes would fail where another one wrote in between
    writes = connection.get_execution_options().get("twinray_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _first_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())[:200]


def _passes(error: DBAPIError) -> bool:
    """Whether the same change may succeed in a moment."""
    said = str(error.orig).lower()
    return error.connection_invalidated or any(
        word in said
        for word in (
            "locked",
            "deadlock",
            "serialize",
            "connection",
            "starting up",
            "shutting down",
            "terminating",
        )
    )


def _translated(error: DBAPIError) -> TwinrayError:
    said = str(error.orig).lower()
    if "full" in said or "no space" in said:
        return FullError("the disk of the database is full; free some space")
    if _passes(error) or "unable to open" in said or "i/o error" in said:
        return UnavailableError(_AWAY)
    raise error

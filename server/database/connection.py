"""How a connection to the ledger's database is opened, SQLite or PostgreSQL, and how a writer has it to itself."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fedmunkey.common.errors import InvalidSetting, ServiceUnavailable, brought_by

SQLITE = "sqlite"
POSTGRESQL = "postgresql"

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_CONNECT_SECONDS = 10
# How long a wait for an announcement goes on after it was stopped.
_STOP_SECONDS = 0.2
_CHANNEL = "fedmunkey_ledger"
_ANNOUNCE = text(f"SELECT pg_notify('{_CHANNEL}', '')")
# Two numbers that name a lock among those of a database: "munkey", and the schema that holds the tables.
_LOCK = text("SELECT pg_advisory_xact_lock(26741, hashtext(current_schema()))")


def ledger_url(database: str | Path) -> URL:
    """Return the URL of a file for SQLite, or of what is a URL already; `postgresql://` is read with psycopg 3.

    Raises `InvalidSetting` if the URL cannot be read, names neither SQLite nor PostgreSQL, or the database would end
    with this process.
    """
    if isinstance(database, Path) or "://" not in database:
        return URL.create(SQLITE, database=str(database))
    try:
        url = make_url(database)
        url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    except ArgumentError:
        raise InvalidSetting(
            "the ledger's URL cannot be read; write a file name or postgresql://user@host/database with --database"
        ) from None
    if url.get_backend_name() not in (SQLITE, POSTGRESQL):
        raise InvalidSetting(
            f"a ledger cannot be kept in {url.get_backend_name()!r}; "
            "name a file for SQLite or postgresql://user@host/database with --database"
        )
    if url.get_backend_name() == SQLITE and url.database in (None, "", ":memory:"):
        raise InvalidSetting(f"a ledger must outlive its process, and {database} does not; name a file with --database")
    return url


def shown(url: URL) -> str:
    """Return what may be printed and logged of a URL: a file's name, or everything but passwords."""
    if url.get_backend_name() == SQLITE:
        return str(url.database)
    kept = {name: "***" if "pass" in name else value for name, value in url.query.items()}
    return url.set(query=kept).render_as_string(hide_password=True)


def without_password(url: URL) -> str:
    """Return a URL that can be opened by whoever has the password from elsewhere, as from ~/.pgpass."""
    kept = {name: value for name, value in url.query.items() if "pass" not in name}
    bare = URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database, kept)
    return bare.render_as_string(hide_password=False)


def open_engine(url: URL) -> Engine:
    """Return an engine, making SQLite's file (readable by its owner only) if there is none."""
    return _open_sqlite(url) if url.get_backend_name() == SQLITE else _open_postgresql(url)


def have_to_itself(connection: Connection) -> None:
    """Begin a transaction that no other process writes beside.

    SQLite has such a lock; on PostgreSQL it is an advisory one. One writer at a time numbers orders without gaps, never
    runs into a deadlock, and commits requests in the order of their numbers, so that a reader of pages misses none.
    """
    if connection.dialect.name == SQLITE:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(_LOCK)


def announce(connection: Connection) -> None:
    """Tell other processes, once the transaction is on disk, that sites may have new orders; only PostgreSQL can."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(_ANNOUNCE)


class Announcements:
    """Waits for what other processes, and this one, announce, or until `stop` is set.

    SQLite announces nothing, and waiting there is nothing but waiting.
    """

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._stop = stop
        self._connection: Connection | None = None
        if engine.dialect.name == POSTGRESQL:
            self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection.execute(text(f"LISTEN {_CHANNEL}"))

    def wait(self, seconds: float) -> None:
        """Wait until something is announced or waiting is stopped, or for some seconds."""
        if self._connection is None:
            self._stop.wait(seconds)
            return
        driver: Any = self._connection.connection.driver_connection
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            if list(driver.notifies(timeout=min(left, _STOP_SECONDS), stop_after=1)):
                return

    def close(self) -> None:
        """Close the connection that listens."""
        if self._connection is not None:
            # It must not go back to the pool: it would go on listening there.
            self._connection.invalidate()
            self._connection.close()


def _open_postgresql(url: URL) -> Engine:
    # A connection that the server closed meanwhile is replaced instead of failing a request.
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
    with brought_by("postgresql", "what reads PostgreSQL"):
        return create_engine(url, pool_pre_ping=True, pool_size=8, connect_args=arguments)


def _place_of(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _open_sqlite(url: URL) -> Engine:
    file = Path(url.database or "")
    file.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its log and index files the permissions of this one.
    file.touch(mode=0o600)
    opened = _place_of(file)
    engine = create_engine(url, pool_size=8)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # Python's driver would begin transactions by itself, later than a writer must.
        connection.isolation_level = None
        for setting in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {setting}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        if _place_of(file) != opened:
            # What is written to a file that has no name any more is gone with the process.
            raise ServiceUnavailable(f"the ledger {file} was replaced while it was open; start the service again")
        # A writer begins by itself, since a transaction that reads before it writes would fail if another process
        # wrote in between.
        if not connection.get_execution_options().get("write", False):
            connection.exec_driver_sql("BEGIN")

    return engine

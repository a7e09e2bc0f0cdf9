"""The ledger of a run: a file in its folder, or a schema of its own in a PostgreSQL, which two services then share."""

from __future__ import annotations

import shutil
import sqlite3
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.server.database.connection import POSTGRESQL, have_to_itself, ledger_url, open_engine
from fedmunkey.server.database.tables import Base
from fedmunkey.server.ledger.ledger import Ledger

FILE = "ledger.sqlite"

_BEGIN_WITH_ROWS = ("ledger_revision", "log_size")
"""Tables that are not empty in a new ledger."""


@dataclass(frozen=True)
class RunLedger:
    """Where the services of a run, so many of them, keep their ledger: the URL that they are given as `--database`.

    The PostgreSQL, and the schema in it that is this run's, are empty for a file.
    """

    url: str
    services: int = 1
    database: str = ""
    schema: str = ""

    @classmethod
    def make(cls, database: str, folder: Path) -> Self:
        """Make an empty one in a PostgreSQL in which schemas may be made, or in a folder if no URL of one is given.

        Raises `InvalidSetting` if the URL names no PostgreSQL that can be reached.
        """
        if not database:
            return cls(str(folder / FILE))
        check_database(database)
        schema = f"faults_{uuid.uuid4().hex}"
        _command(database, f'CREATE SCHEMA "{schema}"')
        url = ledger_url(database)
        given = url.query.get("options", "")
        options = " ".join([given] if isinstance(given, str) else given) + f" -csearch_path={schema}"
        own = url.update_query_dict({"options": options.strip()}).render_as_string(hide_password=False)
        return cls(own, 2, database, schema)

    def remove(self) -> None:
        """Remove the schema; a file goes with the run's folder."""
        if self.schema:
            _command(self.database, f'DROP SCHEMA IF EXISTS "{self.schema}", "{self._copy}" CASCADE')

    def copy(self, file: Path) -> None:
        """Copy the ledger, while it is in use: into a file, or where it is a schema, into another one."""
        if not self.schema:
            with closing(sqlite3.connect(self.url)) as live, closing(sqlite3.connect(file)) as copy:
                live.backup(copy)
            return
        copied = (f'CREATE TABLE "{self._copy}".{name} AS TABLE "{self.schema}".{name}' for name in _tables())
        begun = (f'DROP SCHEMA IF EXISTS "{self._copy}" CASCADE', f'CREATE SCHEMA "{self._copy}"')
        # All tables as they were at one time.
        _command(self.database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", *begun, *copied)

    def put_back(self, file: Path) -> None:
        """Put the copy in the place of the ledger, which nobody may be using."""
        if not self.schema:
            for suffix in ("", "-wal", "-shm"):
                Path(self.url + suffix).unlink(missing_ok=True)
            shutil.copyfile(file, self.url)
            Path(self.url).chmod(0o600)
            return
        # What happened cannot be changed, so the tables are made anew, as by pg_restore.
        _command(self.database, f'DROP SCHEMA "{self.schema}" CASCADE', f'CREATE SCHEMA "{self.schema}"')
        Ledger(self.url).close()
        filled = []
        for name in _tables():
            live, copy = f'"{self.schema}".{name}', f'"{self._copy}".{name}'
            if name in _BEGIN_WITH_ROWS:
                filled.append(f"DELETE FROM {live}")  # noqa: S608 (names of tables)
            filled.append(f"INSERT INTO {live} SELECT * FROM {copy}")  # noqa: S608 (names of tables)
            if (counted := Base.metadata.tables[name].autoincrement_column) is not None:
                sequence = f"pg_get_serial_sequence('{live}', '{counted.name}')"
                filled.append(f"SELECT setval({sequence}, 1 + coalesce(max({counted.name}), 0), false) FROM {live}")  # noqa: S608
        _command(self.database, *filled)

    def log_size(self) -> int:
        """Return how many leaves the log has."""
        engine = open_engine(ledger_url(self.url))
        try:
            with engine.connect() as connection:
                return int(connection.execute(text("SELECT size FROM log_size")).scalar_one())
        finally:
            engine.dispose()

    @property
    def _copy(self) -> str:
        return f"{self.schema}_copy"

    def hold_lock(self, seconds: float) -> None:
        """Keep every service from writing for some seconds, as one that hangs would."""
        engine = open_engine(ledger_url(self.url))
        with closing(engine.connect().execution_options(write=True)) as connection:
            have_to_itself(connection)
            time.sleep(seconds)
            connection.rollback()
        engine.dispose()


def check_database(database: str) -> None:
    """Check that a URL names a PostgreSQL that answers; raises `InvalidSetting` if not."""
    if ledger_url(database).get_backend_name() != POSTGRESQL:
        raise InvalidSetting("--database takes postgresql://user@host/database; without it the ledger is a file")
    _command(database, "SELECT 1")


def _tables() -> list[str]:
    """Return the ledger's tables, each after those that it refers to."""
    return [table.name for table in Base.metadata.sorted_tables]


def _command(database: str, *commands: str) -> None:
    engine = open_engine(ledger_url(database))
    try:
        with engine.begin() as connection:
            for command in commands:
                connection.execute(text(command))
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())
        raise InvalidSetting(f"--database cannot be reached ({reason}); start it, or leave --database out") from None
    finally:
        engine.dispose()

"""The ledger of a run: a file in its folder, or a schema of its own in a PostgreSQL, which two services then share."""

from __future__ import annotations

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

FILE = "ledger.sqlite"


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
            _command(self.database, f'DROP SCHEMA "{self.schema}" CASCADE')

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


def _command(database: str, command: str) -> None:
    engine = open_engine(ledger_url(database))
    try:
        with engine.begin() as connection:
            connection.execute(text(command))
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())
        raise InvalidSetting(f"--database cannot be reached ({reason}); start it, or leave --database out") from None
    finally:
        engine.dispose()

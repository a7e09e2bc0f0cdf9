"""Brings a ledger's tables to the schema of this program, or refuses a database that it does not know."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.server.ledger_database import SQLITE, have_to_itself
from fedmunkey.server.ledger_tables import Base
from fedmunkey.server.migrations import VERSION_TABLE

SCHEMA_REVISION = "0005"
"""Revision of `server/migrations` that `server.ledger_tables` describes."""

_FIRST_REVISION = "0002"
# Before there were migrations, this table held the version's number; ledgers of the first version were never released.
_FORMER_VERSION_TABLE = "ledger_schema"


def bring_up_to_date(connection: Connection, name: str | None) -> None:
    """Make the tables in an empty database, or change those of an older ledger, all or nothing.

    Parameters
    ----------
    connection : Connection
        With the option `write`, outside of a transaction of its own.
    name : str
        The ledger, for messages.

    Raises
    ------
    InvalidSetting
        If the database is no ledger, or one that a later version of this program has written.
    """
    if read_revision(connection, name) == SCHEMA_REVISION:
        return
    connection.rollback()
    have_to_itself(connection)
    # Another process may have done it while this one waited.
    revision = read_revision(connection, name)
    if revision != SCHEMA_REVISION:
        config = configuration()
        config.attributes["connection"] = connection
        if revision is not None and VERSION_TABLE not in inspect(connection).get_table_names():
            command.stamp(config, revision)
        command.upgrade(config, SCHEMA_REVISION)
    connection.commit()


def read_revision(connection: Connection, name: str | None) -> str | None:
    """Return the revision of a ledger's tables, or None for an empty database; raises `InvalidSetting` otherwise."""
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        revision = str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))  # noqa: S608
    elif _FORMER_VERSION_TABLE in tables:
        version = connection.scalar(text(f"SELECT max(version) FROM {_FORMER_VERSION_TABLE}"))  # noqa: S608
        if version != int(_FIRST_REVISION):
            raise InvalidSetting(
                f"the ledger {name} has schema version {version}, which this program cannot bring up to date; "
                "use the version of fedmunkey that wrote it, or name another with --database"
            )
        revision = _FIRST_REVISION
    elif tables & set(Base.metadata.tables) or (tables and connection.dialect.name == SQLITE):
        raise InvalidSetting(f"{name} is a database, but not a ledger; name another with --database")
    else:
        return None
    if revision == SCHEMA_REVISION:
        return revision
    known = {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}
    if revision not in known:
        raise InvalidSetting(
            f"the ledger {name} has schema revision {revision}, this program knows {_FIRST_REVISION} to "
            f"{SCHEMA_REVISION}; use the version of fedmunkey that wrote it, or name another with --database"
        )
    return revision


def configuration() -> Config:
    """Return Alembic's configuration: where the migrations lie, in a checkout as in an installed package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config

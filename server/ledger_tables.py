"""The ledger's tables, how a connection to one is opened, and the version of both.

    sites ──< orders >── requests ──< request_references
                └── acknowledgements                        rounds

Records and subjects appear as references only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.errors import InvalidSetting
from common.references import REFERENCE_BYTES

SCHEMA_VERSION = 2
NAME_CHARACTERS = 100
REQUEST_ID_CHARACTERS = 200
BLOCK = 1000
"""References in one row of `request_references`."""


class _UtcDateTime(TypeDecorator[datetime]):
    """Times with a zone in Python, without one in the database, always UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables of a ledger."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: _UtcDateTime, float: Double}


class SchemaRow(Base):
    """Which version of these tables the database has."""

    __tablename__ = "ledger_schema"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class SiteRow(Base):
    """A site of the federation."""

    __tablename__ = "sites"
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    registered_at: Mapped[datetime]


class RequestRow(Base):
    """A deletion request; `target_kind` says which of the target's columns are filled."""

    __tablename__ = "requests"
    __table_args__ = ({"sqlite_autoincrement": True},)
    number: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(String(REQUEST_ID_CHARACTERS), unique=True)
    requester: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    target_kind: Mapped[str] = mapped_column(String(10))
    target_site: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    subject_reference: Mapped[bytes | None] = mapped_column(LargeBinary(REFERENCE_BYTES))
    reference_count: Mapped[int]
    submitted_at: Mapped[datetime]


class ReferencesRow(Base):
    """Up to `BLOCK` references of records in each row; a row for each would take half a minute for a million."""

    __tablename__ = "request_references"
    request: Mapped[int] = mapped_column(ForeignKey(RequestRow.number), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block: Mapped[bytes] = mapped_column(LargeBinary(BLOCK * REFERENCE_BYTES))


class OrderRow(Base):
    """What one site is sent for one request; a site's orders are numbered from 1 without gaps."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("request", "site"),)
    site: Mapped[str] = mapped_column(ForeignKey(SiteRow.name), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    request: Mapped[int] = mapped_column(ForeignKey(RequestRow.number))


class AcknowledgementRow(Base):
    """A site's answer to one order."""

    __tablename__ = "acknowledgements"
    __table_args__ = (ForeignKeyConstraint(["site", "number"], [OrderRow.site, OrderRow.number]),)
    site: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(20))
    records: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int] = mapped_column(BigInteger)
    guarantee: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    reason: Mapped[str] = mapped_column(Text)
    # Filled where the guarantee is `certified`; a record's loss is that of one record.
    record_epsilon: Mapped[float | None]
    record_delta: Mapped[float | None]
    subject_epsilon: Mapped[float | None]
    subject_delta: Mapped[float | None]
    subject_records: Mapped[int | None] = mapped_column(BigInteger)
    acknowledged_at: Mapped[datetime]


class RoundRow(Base):
    """A round of training that was opened."""

    __tablename__ = "rounds"
    __table_args__ = ({"sqlite_autoincrement": True},)
    # A ledger outlives a run, and every run counts its rounds from 1, so a round's number is no key.
    opening: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    opened_at: Mapped[datetime]


ANSWERS_ORDER = (AcknowledgementRow.site == OrderRow.site) & (AcknowledgementRow.number == OrderRow.number)
"""Joins each order with its answer."""


def ledger_url(database: str | Path) -> URL:
    """Return the URL of a file for SQLite, or of what is a URL already.

    Raises
    ------
    InvalidSetting
        If the URL cannot be read, or the database would end with this process.
    """
    if isinstance(database, Path) or "://" not in database:
        return URL.create("sqlite", database=str(database))
    try:
        url = make_url(database)
    except ArgumentError:
        raise InvalidSetting("the ledger's URL cannot be read; write a file name or an SQLAlchemy URL") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InvalidSetting(f"a ledger must outlive its process, and {database} does not; name a file")
    return url


def open_engine(url: URL) -> Engine:
    """Return an engine, making SQLite's file if there is none; with the option `write`, a transaction locks it."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    file = Path(url.database or "")
    file.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its log and index files the permissions of this one.
    file.touch(mode=0o600)
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # Python's driver would begin transactions by itself, later than `_begin` must.
        connection.isolation_level = None
        for setting in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {setting}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A transaction that reads before it writes would fail if another process wrote in between.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def check_schema(connection: Any, name: str | None) -> None:
    """Make the tables in an empty database; refuse one that is no ledger or has another version's schema."""
    tables = set(inspect(connection).get_table_names())
    if not tables & set(Base.metadata.tables):
        if tables and connection.dialect.name == "sqlite":
            raise InvalidSetting(f"{name} is a database, but not a ledger; name another file with --ledger")
        Base.metadata.create_all(connection)
        connection.execute(insert(SchemaRow).values(version=SCHEMA_VERSION))
        return
    version = connection.scalar(select(func.max(SchemaRow.version))) if SchemaRow.__tablename__ in tables else None
    if version != SCHEMA_VERSION:
        raise InvalidSetting(
            f"the ledger {name} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "use the version of fedmunkey that wrote it, or name another with --ledger"
        )

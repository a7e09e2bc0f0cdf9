"""Makes a ledger's tables in an empty database, brings older ones up to date, and refuses what it does not know.

A change of `server.database.tables` comes with a new revision and a step in `_STEPS` from the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC

import sqlalchemy as sa
from sqlalchemy import Connection, inspect, text

from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.server.database import log_tables  # noqa: F401 (tables of the same database)
from fedmunkey.server.database.connection import SQLITE, have_to_itself
from fedmunkey.server.database.instruction_tables import InstructionRow
from fedmunkey.server.database.member_tables import MemberDutiesRow
from fedmunkey.server.database.tables import AcknowledgementRow, Base, ContributionRow, EventRow, ReleaseRow, RequestRow

SCHEMA_REVISION = "0010"
"""What the tables are that `tables.py`, `log_tables.py` and `member_tables.py` describe."""

_REVISION_TABLE = sa.Table("ledger_revision", Base.metadata, sa.Column("version_num", sa.String(32), primary_key=True))
_AT_ONCE = 1000


def bring_up_to_date(connection: Connection, name: str | None) -> None:
    """Make the tables in an empty database, or change those of an older ledger, all or nothing.

    The connection has the option `write` and is outside of a transaction of its own; the ledger is `name` in messages.
    Raises `InvalidSetting` if the database is no ledger, or one that another version of this program has written.
    """
    if read_revision(connection, name) == SCHEMA_REVISION:
        return
    connection.rollback()
    have_to_itself(connection)
    # Another process may have done it while this one waited.
    revision = read_revision(connection, name)
    if revision is None:
        Base.metadata.create_all(connection)
        connection.execute(_REVISION_TABLE.insert().values(version_num=SCHEMA_REVISION))
    while revision is not None and revision != SCHEMA_REVISION:
        revision, change = _STEPS[revision]
        change(connection)
        connection.execute(_REVISION_TABLE.update().values(version_num=revision))
    connection.commit()


def read_revision(connection: Connection, name: str | None) -> str | None:
    """Return the revision of a ledger's tables, or None for an empty database; raises `InvalidSetting` otherwise."""
    tables = set(inspect(connection).get_table_names())
    if _REVISION_TABLE.name in tables:
        revision = str(connection.scalar(sa.select(_REVISION_TABLE.c.version_num)))
        if revision != SCHEMA_REVISION and revision not in _STEPS:
            raise InvalidSetting(
                f"the ledger {name} has schema revision {revision}, this program knows {min(_STEPS)} to "
                f"{SCHEMA_REVISION}; use the version of fedmunkey that wrote it, or name another with --database"
            )
        return revision
    if tables & set(Base.metadata.tables) or (tables and connection.dialect.name == SQLITE):
        raise InvalidSetting(f"{name} is a database, but not a ledger; name another with --database")
    return None


def _make_documents(connection: Connection) -> None:
    """Turn the columns of answers into one document."""
    connection.execute(text("ALTER TABLE acknowledgements RENAME TO former_acknowledgements"))
    Base.metadata.create_all(connection, [Base.metadata.tables[AcknowledgementRow.__tablename__]])
    former = text(
        "SELECT a.*, r.request_id FROM former_acknowledgements a "
        "JOIN orders o ON o.site = a.site AND o.number = a.number JOIN requests r ON r.number = o.request"
    ).columns(acknowledged_at=sa.DateTime(), receipt=sa.LargeBinary())
    with connection.execute(former, execution_options={"yield_per": _AT_ONCE}) as rows:
        for part in rows.partitions():
            connection.execute(sa.insert(AcknowledgementRow), [_row_of(row) for row in part])
    connection.execute(text("DROP TABLE former_acknowledgements"))


def _make_releases(connection: Connection) -> None:
    """Add what renewals are told by."""
    kind = sa.DateTime().compile(connection.dialect)
    connection.execute(text(f"ALTER TABLE requests ADD COLUMN renew_by {kind}"))
    tables = [Base.metadata.tables[row.__tablename__] for row in (ReleaseRow, ContributionRow)]
    Base.metadata.create_all(connection, tables)


def _make_list_indexes(connection: Connection) -> None:
    """Add the indexes that lists of requests are read by."""
    for row in (RequestRow, EventRow):
        for index in Base.metadata.tables[row.__tablename__].indexes:
            index.create(connection, checkfirst=True)


def _make_given(connection: Connection) -> None:
    """Add when releases were given out; until now a release counted as given when it was written down."""
    releases = Base.metadata.tables[ReleaseRow.__tablename__]
    if "given_at" not in {column["name"] for column in inspect(connection).get_columns(releases.name)}:
        kind = sa.DateTime().compile(connection.dialect)
        connection.execute(text(f"ALTER TABLE releases ADD COLUMN given_at {kind}"))
    connection.execute(sa.update(releases).values(given_at=releases.c.released_at))


def _make_governance(connection: Connection) -> None:
    """Add what members may do, and instructions; whoever is not named there may do what its role may, as before."""
    tables = [Base.metadata.tables[row.__tablename__] for row in (MemberDutiesRow, InstructionRow)]
    Base.metadata.create_all(connection, tables)


def _row_of(former: sa.Row[tuple[object, ...]]) -> dict[str, object]:
    answer = Acknowledgement(
        number=former.number,
        site=former.site,
        request_id=former.request_id,
        state=SiteState(former.state),
        records=former.records,
        entries=former.entries,
        guarantee=Guarantee(former.guarantee),
        seconds=former.seconds,
        reason=former.reason,
        record_loss=_loss(former.record_epsilon, former.record_delta, 1),
        subject_loss=_loss(former.subject_epsilon, former.subject_delta, former.subject_records),
    )
    return {
        "site": answer.site,
        "number": answer.number,
        "document": answer.to_json(),
        "receipt": former.receipt,
        "acknowledged_at": former.acknowledged_at.replace(tzinfo=UTC),
    }


def _loss(epsilon: float | None, delta: float | None, records: int | None) -> PrivacyLoss | None:
    return None if epsilon is None or delta is None or records is None else PrivacyLoss(epsilon, delta, records)


_STEPS: Mapping[str, tuple[str, Callable[[Connection], None]]] = {
    "0005": ("0006", _make_documents),
    "0006": ("0007", _make_releases),
    "0007": ("0008", _make_list_indexes),
    "0008": ("0009", _make_given),
    "0009": ("0010", _make_governance),
}
"""From each older revision, the next one and how it is reached."""

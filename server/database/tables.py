"""The ledger's tables; `server.database.schema` makes them, and brings older ones to this form.

    sites ──< orders >── requests ──< request_references        events
                └── acknowledgements      releases ──< contributions      rounds

Those of the transparency log are in `server.database.log_tables`. Records and subjects appear as references only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.states import OPEN_ORDERS, RequestState, SiteState

NAME_CHARACTERS = 100
REQUEST_ID_CHARACTERS = 200
STATE_CHARACTERS = 20
BLOCK = 1000
"""References in one row of `request_references`."""

RECORDS, SUBJECT, SITE = "records", "subject", "site"
"""Kinds of targets, as the table names them."""


class UtcDateTime(TypeDecorator[datetime]):
    """Times with a zone in Python, without one in the database, always UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Drop the zone, in UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Put the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables of a ledger."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, float: Double}


class SiteRow(Base):
    """A site of the federation, or one that has left it."""

    __tablename__ = "sites"
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    registered_at: Mapped[datetime]
    # Number of the site's last order.
    last_number: Mapped[int] = mapped_column(server_default="0")
    # Both are empty while the site is in the federation; no request after `left_after` has an order for it.
    left_at: Mapped[datetime | None]
    left_after: Mapped[int | None]
    # A connection is renewed while it lasts, so that one whose service was killed runs out by itself.
    seen_at: Mapped[datetime | None]
    connected_until: Mapped[datetime | None]


class RequestRow(Base):
    """A deletion request; `target_kind` says which of the target's columns are filled."""

    __tablename__ = "requests"
    __table_args__ = (
        Index("requests_by_state", "state", "due_at"),
        # What a list filters and sorts by, so that it reads no row that it does not show.
        Index("requests_by_requester", "requester", "state", "due_at", "target_kind"),
        Index("requests_by_submission", "submitted_at", "requester"),
        Index("requests_by_subject", "subject_reference"),
        {"sqlite_autoincrement": True},
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(String(REQUEST_ID_CHARACTERS), unique=True)
    requester: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    target_kind: Mapped[str] = mapped_column(String(10))
    target_site: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    subject_reference: Mapped[bytes | None] = mapped_column(LargeBinary(REFERENCE_BYTES))
    reference_count: Mapped[int]
    submitted_at: Mapped[datetime]
    # Tells whether a second request with the same id is the same request, without reading its references.
    content_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    # The requester's envelope; empty if it did not sign.
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    # Whether it is for every site, whichever these are.
    everyone: Mapped[bool] = mapped_column(server_default=false())
    state: Mapped[str] = mapped_column(String(STATE_CHARACTERS), server_default="received")
    due_at: Mapped[datetime | None]
    extension: Mapped[str] = mapped_column(Text, server_default="")
    # By when the shared weights are to be renewed without what was erased.
    renew_by: Mapped[datetime | None]


class ReferencesRow(Base):
    """Up to `BLOCK` references of records in each row; a row for each would take half a minute for a million."""

    __tablename__ = "request_references"
    request: Mapped[int] = mapped_column(ForeignKey(RequestRow.number), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block: Mapped[bytes] = mapped_column(LargeBinary(BLOCK * REFERENCE_BYTES))


class OrderRow(Base):
    """What one site is sent for one request; a site's orders are numbered from 1 without gaps."""

    __tablename__ = "orders"
    site: Mapped[str] = mapped_column(ForeignKey(SiteRow.name), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    request: Mapped[int] = mapped_column(ForeignKey(RequestRow.number))
    state: Mapped[str] = mapped_column(String(STATE_CHARACTERS), server_default=SiteState.PENDING.value)
    # Why the site is out of reach.
    reason: Mapped[str] = mapped_column(Text, server_default="")


_OPEN = OrderRow.state.in_([state.value for state in OPEN_ORDERS])
OrderRow.__table__.append_constraint(UniqueConstraint("request", "site"))  # type: ignore[attr-defined]
# Few orders are open at a time, so what is pending is found without reading what is done.
Index("orders_open", OrderRow.request, OrderRow.site, sqlite_where=_OPEN, postgresql_where=_OPEN)


class AcknowledgementRow(Base):
    """A site's answer to one order."""

    __tablename__ = "acknowledgements"
    __table_args__ = (ForeignKeyConstraint(["site", "number"], [OrderRow.site, OrderRow.number]),)
    site: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # The answer as JSON, `Acknowledgement.to_json`.
    document: Mapped[str] = mapped_column(Text)
    # The site's envelope; empty if it has no key.
    receipt: Mapped[bytes | None] = mapped_column(LargeBinary)
    acknowledged_at: Mapped[datetime]


class EventRow(Base):
    """A move of a request, of one site's part in it, or of a site; rows are added and never changed or taken away."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)
    event: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    request: Mapped[int | None] = mapped_column(ForeignKey(RequestRow.number), index=True)
    # Empty for a request as a whole.
    site: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    before: Mapped[str] = mapped_column(String(40))
    after: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(Text)


REQUEST_ENDED = (EventRow.site == "") & EventRow.after.in_([state.value for state in RequestState if state.final])
"""Selects events that ended a request."""

Index("events_ended", EventRow.at, EventRow.request, sqlite_where=REQUEST_ENDED, postgresql_where=REQUEST_ENDED)


@event.listens_for(EventRow.__table__, "after_create")
def _protect_events(_table: Any, connection: Connection, **_: Any) -> None:
    fault = "events are added and never changed"
    if connection.dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER events_no_{change.lower()} BEFORE {change} ON events "
                f"BEGIN SELECT RAISE(ABORT, '{fault}'); END"
            )
        return
    connection.exec_driver_sql(
        "CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{fault}'; END $$"
    )
    connection.exec_driver_sql(
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events()"
    )


class ReleaseRow(Base):
    """Shared weights that were solved for; `given_at` is when every site that contributed to them had them."""

    __tablename__ = "releases"
    __table_args__ = ({"sqlite_autoincrement": True},)
    number: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    records: Mapped[int] = mapped_column(BigInteger)
    released_at: Mapped[datetime]
    given_at: Mapped[datetime | None]


class ContributionRow(Base):
    """A site's part in a release: up to which of its orders, and what it signed about that."""

    __tablename__ = "contributions"
    release: Mapped[int] = mapped_column(ForeignKey(ReleaseRow.number), primary_key=True)
    site: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    last_order: Mapped[int]
    statement: Mapped[bytes | None] = mapped_column(LargeBinary)


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

ORDER_IS_OPEN = _OPEN
"""Selects orders whose answer is awaited."""

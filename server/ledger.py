"""The ledger: what was asked for, which orders went out, and what the sites answered.

    sites ──< orders >── requests ──< request_references
                └── acknowledgements                        rounds

A request and its orders are written in one transaction, on disk before `enter` returns, and never changed afterwards.
Records and subjects appear as references only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

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
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from common.deletion import (
    DATA_PROTECTION_OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Records,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    Target,
    WholeSite,
    utc_now,
)
from common.deletion_service import StatusPage
from common.errors import InvalidDeletion, InvalidSetting, ServiceUnavailable
from common.guarantees import Guarantee
from common.references import REFERENCE_BYTES
from common.wire import MAXIMUM_REFERENCES, check_page_size

SCHEMA_VERSION = 1
NAME_CHARACTERS = 100
REQUEST_ID_CHARACTERS = 200
_BLOCK = 1000


class UnknownDeletion(InvalidDeletion):
    """There is no such request, order or site; over gRPC `NOT_FOUND`."""


class DeletionConflict(InvalidDeletion):
    """The ledger says otherwise already; over gRPC `FAILED_PRECONDITION`."""


class DeletionExists(DeletionConflict):
    """The request id stands for another request; over gRPC `ALREADY_EXISTS`."""


@dataclass(frozen=True)
class RegisteredSite:
    """A site of the federation: how many orders it has been sent, and how many of them it has not answered."""

    name: str
    registered_at: datetime
    orders: int
    pending: int


class _UtcDateTime(TypeDecorator[datetime]):
    """Times with a zone in Python, without one in the database, always UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


class _Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: _UtcDateTime, float: Double}


class _Schema(_Base):
    __tablename__ = "ledger_schema"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class _Site(_Base):
    __tablename__ = "sites"
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    registered_at: Mapped[datetime]


class _Request(_Base):
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


class _References(_Base):
    """Up to `_BLOCK` references of records in each row; a row for each would take half a minute for a million."""

    __tablename__ = "request_references"
    request: Mapped[int] = mapped_column(ForeignKey(_Request.number), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block: Mapped[bytes] = mapped_column(LargeBinary(_BLOCK * REFERENCE_BYTES))


class _Order(_Base):
    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("request", "site"),)
    site: Mapped[str] = mapped_column(ForeignKey(_Site.name), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    request: Mapped[int] = mapped_column(ForeignKey(_Request.number))


class _Acknowledgement(_Base):
    __tablename__ = "acknowledgements"
    __table_args__ = (ForeignKeyConstraint(["site", "number"], [_Order.site, _Order.number]),)
    site: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(20))
    records: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int] = mapped_column(BigInteger)
    guarantee: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float]
    reason: Mapped[str] = mapped_column(Text)
    acknowledged_at: Mapped[datetime]


class _Round(_Base):
    __tablename__ = "rounds"
    __table_args__ = ({"sqlite_autoincrement": True},)
    # A ledger outlives a run, and every run counts its rounds from 1, so a round's number is no key.
    opening: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    opened_at: Mapped[datetime]


class Ledger:
    """The coordinator's record of deletions, in an SQL database; safe for threads and for several processes.

    Parameters
    ----------
    database : str or Path
        A file for SQLite, made (readable by its owner only) if there is none, or any SQLAlchemy URL.
    clock : callable
        Returns the time, with a zone.

    Raises
    ------
    InvalidSetting
        If the database cannot be opened, is no ledger, or has the schema of another version.
    """

    def __init__(self, database: str | Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        url = _url(database)
        self.name = url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
        # Within this process, writers wait here instead of in the database, whose patience is limited.
        self._write_lock = threading.Lock()
        try:
            self._engine = _engine(url)
            with self._engine.execution_options(write=True).begin() as connection:
                _check_schema(connection, self.name)
        except (ArgumentError, ImportError, OSError, DBAPIError) as error:
            # The driver's own words: SQLAlchemy would add the statement and a link.
            fault = error.orig if isinstance(error, DBAPIError) else error
            raise InvalidSetting(
                f"the ledger {self.name} cannot be opened ({fault}); name another with --ledger"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection to the database."""
        self._engine.dispose()

    def register(self, site: str) -> None:
        """Add a site to the federation; one that is in it already stays as it is.

        A site receives orders for requests that are entered afterwards, never for older ones: it holds what it held
        when it joined, and whoever wants that forgotten asks again.

        Raises
        ------
        InvalidDeletion
            If the name is empty, too long, not printable, begins or ends with a space, or is that of the
            data-protection officer.
        """
        if not site or len(site) > NAME_CHARACTERS or not site.isprintable() or site != site.strip():
            raise InvalidDeletion(f"{site!r} cannot be a site's name: use 1 to {NAME_CHARACTERS} printable characters")
        if site == DATA_PROTECTION_OFFICER:
            raise InvalidDeletion(f"{site!r} cannot be a site's name: its holder may ask for everything")
        with self._transaction(write=True) as session:
            if session.get(_Site, site) is None:
                session.add(_Site(name=site, registered_at=self._clock()))

    def sites(self) -> tuple[RegisteredSite, ...]:
        """Return the sites of the federation in alphabetical order."""
        with self._transaction() as session:
            rows = session.execute(
                select(_Site.name, _Site.registered_at, func.count(_Order.number), func.count(_Acknowledgement.number))
                .outerjoin(_Order, _Order.site == _Site.name)
                .outerjoin(_Acknowledgement, _ANSWERS_ORDER)
                .group_by(_Site.name, _Site.registered_at)
                .order_by(_Site.name)
            )
            return tuple(RegisteredSite(name, at, orders, orders - answered) for name, at, orders, answered in rows)

    def site_names(self) -> tuple[str, ...]:
        """Return the names of the sites of the federation in alphabetical order."""
        with self._transaction() as session:
            return tuple(session.scalars(select(_Site.name).order_by(_Site.name)))

    def enter(self, request: DeletionRequest, sites: Collection[str]) -> RequestStatus:
        """Write a request and one order for each of the sites, all or nothing.

        If the request is in the ledger already, nothing is written, whatever the sites.

        Raises
        ------
        DeletionExists
            If the request id stands for another request.
        UnknownDeletion
            If a site is not registered.
        """
        with self._transaction(write=True) as session:
            row = session.scalar(select(_Request).where(_Request.request_id == request.request_id))
            if row is None:
                row = self._insert(session, request, sites)
            elif _request(session, row) != request:
                raise DeletionExists(
                    f"request id {request.request_id!r} stands for another request already; choose another id"
                )
            return _statuses(session, [row])[0]

    def status(self, request_id: str) -> RequestStatus:
        """Return one request's status.

        Raises
        ------
        UnknownDeletion
            If there is no such request.
        """
        with self._transaction() as session:
            row = session.scalar(select(_Request).where(_Request.request_id == request_id))
            if row is None:
                raise UnknownDeletion(f"there is no request {request_id!r}; munkey-server requests lists them")
            return _statuses(session, [row])[0]

    def page(self, page: str = "", size: int = 100) -> StatusPage:
        """Return up to `size` requests in the order of their submission.

        A page ends early before it names more than `MAXIMUM_REFERENCES` records, but has one request at least.

        Raises
        ------
        InvalidDeletion
            If `page` is not one that an earlier page named as the next, or the size is out of range.
        """
        check_page_size(size)
        if page and not (page.isdecimal() and page.isascii() and len(page) < 19):
            raise InvalidDeletion(f"{page!r} is not a page; begin with an empty one")
        with self._transaction() as session:
            rows = session.scalars(
                select(_Request).where(_Request.number > int(page or 0)).order_by(_Request.number).limit(size + 1)
            ).all()
            taken = _within_budget(rows[:size])
            next_page = str(taken[-1].number) if len(taken) < len(rows) else ""
            return StatusPage(tuple(_statuses(session, taken)), next_page)

    def last_number(self, site: str) -> int:
        """Return the number of a site's last order, 0 if it has none; raises `UnknownDeletion` for an unknown site."""
        with self._transaction() as session:
            if session.get(_Site, site) is None:
                raise UnknownDeletion(
                    f"site {site!r} is not registered; register it with munkey-server sites --add {site}"
                )
            return session.scalar(select(func.max(_Order.number)).where(_Order.site == site)) or 0

    def order(self, site: str, number: int) -> DeletionOrder | None:
        """Return one order of a site, or None if there is none with that number."""
        with self._transaction() as session:
            row = session.scalar(
                select(_Request)
                .join(_Order, _Order.request == _Request.number)
                .where(_Order.site == site, _Order.number == number)
            )
            return None if row is None else DeletionOrder(number, site, _request(session, row))

    def acknowledge(self, answer: Acknowledgement) -> None:
        """Write a site's answer to an order; the same answer again changes nothing.

        Two answers are the same if they differ in nothing but `seconds`: a site that never heard that its answer had
        arrived may have measured again. The first measurement is kept.

        Raises
        ------
        UnknownDeletion
            If the site has no order with that number and request id.
        DeletionConflict
            If the order was answered differently before.
        """
        with self._transaction(write=True) as session:
            # Serialises answers to one order on databases that know row locks.
            row = session.execute(
                select(_Order.number, _Request.request_id)
                .join(_Request, _Order.request == _Request.number)
                .where(_Order.site == answer.site, _Order.number == answer.number)
                .with_for_update()
            ).one_or_none()
            if row is None or row.request_id != answer.request_id:
                raise UnknownDeletion(
                    f"site {answer.site!r} has no order {answer.number} for request {answer.request_id!r}"
                )
            known = session.get(_Acknowledgement, (answer.site, answer.number))
            if known is None:
                session.add(
                    _Acknowledgement(
                        site=answer.site,
                        number=answer.number,
                        **_claims(answer),
                        seconds=answer.seconds,
                        acknowledged_at=self._clock(),
                    )
                )
            elif any(getattr(known, name) != claim for name, claim in _claims(answer).items()):
                raise DeletionConflict(
                    f"site {answer.site!r} answered order {answer.number} with {known.state!r} "
                    f"({known.records} records) before; an answer cannot be changed"
                )

    def open_round(self, number: int) -> None:
        """Write down that a round of training begins."""
        with self._transaction(write=True) as session:
            session.add(_Round(number=number, opened_at=self._clock()))

    def rounds(self) -> tuple[tuple[int, datetime], ...]:
        """Return the rounds in the order of their opening: number and time."""
        with self._transaction() as session:
            rows = session.execute(select(_Round.number, _Round.opened_at).order_by(_Round.opening))
            return tuple((number, opened_at) for number, opened_at in rows)

    def pending(self) -> int:
        """Return how many orders no site has answered yet."""
        with self._transaction() as session:
            unanswered = select(func.count()).select_from(_Order).outerjoin(_Acknowledgement, _ANSWERS_ORDER)
            return session.scalar(unanswered.where(_Acknowledgement.number.is_(None))) or 0

    def _insert(self, session: Session, request: DeletionRequest, sites: Collection[str]) -> _Request:
        row, references = _row(request, self._clock())
        session.add(row)
        session.flush()
        for first in range(0, len(references), _BLOCK):
            block = b"".join(references[first : first + _BLOCK])
            session.add(_References(request=row.number, first=first, block=block))
        # On databases that know row locks, this is what keeps a site's numbers without gaps and duplicates.
        names = session.scalars(select(_Site.name).where(_Site.name.in_(sites)).order_by(_Site.name).with_for_update())
        registered = names.all()
        if missing := set(sites) - set(registered):
            raise UnknownDeletion(f"site {min(missing)!r} is not registered")
        last = select(_Order.site, func.max(_Order.number)).where(_Order.site.in_(registered)).group_by(_Order.site)
        numbers = {row[0]: row[1] for row in session.execute(last)}
        session.add_all(_Order(site=site, number=numbers.get(site, 0) + 1, request=row.number) for site in registered)
        session.flush()
        return row

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Session]:
        """Open a session that commits at its end; writers have the database to themselves."""
        engine = self._engine.execution_options(write=True) if write else self._engine
        if write:
            self._write_lock.acquire()
        try:
            with Session(engine) as session, session.begin():
                yield session
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None
        finally:
            if write:
                self._write_lock.release()


_ANSWERS_ORDER = (_Acknowledgement.site == _Order.site) & (_Acknowledgement.number == _Order.number)


def _url(database: str | Path) -> URL:
    if isinstance(database, Path) or "://" not in database:
        return URL.create("sqlite", database=str(database))
    try:
        url = make_url(database)
    except ArgumentError:
        raise InvalidSetting("the ledger's URL cannot be read; write a file name or an SQLAlchemy URL") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InvalidSetting(f"a ledger must outlive its process, and {database} does not; name a file")
    return url


def _engine(url: URL) -> Engine:
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


def _check_schema(connection: Any, name: str | None) -> None:
    """Make the tables in an empty database; refuse one that is no ledger or has another version's schema."""
    tables = set(inspect(connection).get_table_names())
    if not tables & set(_Base.metadata.tables):
        if tables and connection.dialect.name == "sqlite":
            raise InvalidSetting(f"{name} is a database, but not a ledger; name another file with --ledger")
        _Base.metadata.create_all(connection)
        connection.execute(insert(_Schema).values(version=SCHEMA_VERSION))
        return
    version = connection.scalar(select(func.max(_Schema.version))) if _Schema.__tablename__ in tables else None
    if version != SCHEMA_VERSION:
        raise InvalidSetting(
            f"the ledger {name} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "use the version of fedmunkey that wrote it, or name another with --ledger"
        )


def _row(request: DeletionRequest, submitted_at: datetime) -> tuple[_Request, Sequence[bytes]]:
    site, subject, references = "", None, list[bytes]()
    match request.target:
        case Records():
            kind, site, references = "records", request.target.site, sorted(request.target.references)
        case Subject():
            kind, subject = "subject", request.target.reference
        case WholeSite():
            kind, site = "site", request.target.site
    row = _Request(
        request_id=request.request_id,
        requester=request.requester,
        target_kind=kind,
        target_site=site,
        subject_reference=subject,
        reference_count=len(references),
        submitted_at=submitted_at,
    )
    return row, references


def _request(session: Session, row: _Request) -> DeletionRequest:
    target: Target
    if row.target_kind == "records":
        blocks = session.scalars(select(_References.block).where(_References.request == row.number))
        target = Records(
            frozenset(
                block[first : first + REFERENCE_BYTES]
                for block in blocks
                for first in range(0, len(block), REFERENCE_BYTES)
            ),
            row.target_site,
        )
    elif row.target_kind == "subject":
        target = Subject(row.subject_reference or b"")
    else:
        target = WholeSite(row.target_site)
    return DeletionRequest(row.request_id, row.requester, target)


def _within_budget(rows: Sequence[_Request]) -> Sequence[_Request]:
    references = 0
    for taken, row in enumerate(rows):
        references += row.reference_count
        if references > MAXIMUM_REFERENCES and taken:
            return rows[:taken]
    return rows


def _statuses(session: Session, rows: Sequence[_Request]) -> list[RequestStatus]:
    request_ids = {row.number: row.request_id for row in rows}
    progress: dict[int, list[SiteProgress]] = {number: [] for number in request_ids}
    found = session.execute(
        select(_Order, _Acknowledgement)
        .outerjoin(_Acknowledgement, _ANSWERS_ORDER)
        .where(_Order.request.in_(request_ids))
        .order_by(_Order.site)
    )
    for order, answer in found:
        progress[order.request].append(_progress(order, answer, request_ids[order.request]))
    return [RequestStatus(_request(session, row), row.submitted_at, tuple(progress[row.number])) for row in rows]


def _progress(order: _Order, answer: _Acknowledgement | None, request_id: str) -> SiteProgress:
    if answer is None:
        return SiteProgress(order.site, order.number, SiteState.PENDING)
    acknowledgement = Acknowledgement(
        number=order.number,
        site=order.site,
        request_id=request_id,
        state=SiteState(answer.state),
        records=answer.records,
        entries=answer.entries,
        guarantee=Guarantee(answer.guarantee),
        seconds=answer.seconds,
        reason=answer.reason,
    )
    return SiteProgress(order.site, order.number, acknowledgement.state, acknowledgement, answer.acknowledged_at)


def _claims(answer: Acknowledgement) -> dict[str, str | int]:
    """Return what an answer says about the deletion, as the table's columns hold it."""
    return {
        "state": answer.state.value,
        "records": answer.records,
        "entries": answer.entries,
        "guarantee": answer.guarantee.value,
        "reason": answer.reason,
    }

"""The ledger: what was asked for, which orders went out, and what the sites answered.

A request and its orders are written in one transaction, on disk before `enter` returns, and never changed afterwards.
Records and subjects appear as references only. The tables are in `server.ledger_tables`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

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
from common.guarantees import Guarantee, PrivacyLoss
from common.references import REFERENCE_BYTES
from common.wire import MAXIMUM_REFERENCES, check_page_size
from server.ledger_tables import (
    ANSWERS_ORDER,
    BLOCK,
    NAME_CHARACTERS,
    REQUEST_ID_CHARACTERS,
    SCHEMA_VERSION,
    AcknowledgementRow,
    OrderRow,
    ReferencesRow,
    RequestRow,
    RoundRow,
    SiteRow,
    check_schema,
    ledger_url,
    open_engine,
)

__all__ = [
    "NAME_CHARACTERS",
    "REQUEST_ID_CHARACTERS",
    "SCHEMA_VERSION",
    "DeletionConflict",
    "DeletionExists",
    "Ledger",
    "RegisteredSite",
    "UnknownDeletion",
]


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
        url = ledger_url(database)
        self.name = url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
        # Within this process, writers wait here instead of in the database, whose patience is limited.
        self._write_lock = threading.Lock()
        try:
            self._engine = open_engine(url)
            with self._engine.execution_options(write=True).begin() as connection:
                check_schema(connection, self.name)
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

    @property
    def engine(self) -> Engine:
        """The ledger's database, where the transparency log has its tables as well."""
        return self._engine

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
            if session.get(SiteRow, site) is None:
                session.add(SiteRow(name=site, registered_at=self._clock()))

    def sites(self) -> tuple[RegisteredSite, ...]:
        """Return the sites of the federation in alphabetical order."""
        with self._transaction() as session:
            rows = session.execute(
                select(
                    SiteRow.name,
                    SiteRow.registered_at,
                    func.count(OrderRow.number),
                    func.count(AcknowledgementRow.number),
                )
                .outerjoin(OrderRow, OrderRow.site == SiteRow.name)
                .outerjoin(AcknowledgementRow, ANSWERS_ORDER)
                .group_by(SiteRow.name, SiteRow.registered_at)
                .order_by(SiteRow.name)
            )
            return tuple(RegisteredSite(name, at, orders, orders - answered) for name, at, orders, answered in rows)

    def site_names(self) -> tuple[str, ...]:
        """Return the names of the sites of the federation in alphabetical order."""
        with self._transaction() as session:
            return tuple(session.scalars(select(SiteRow.name).order_by(SiteRow.name)))

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
            row = session.scalar(select(RequestRow).where(RequestRow.request_id == request.request_id))
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
            row = session.scalar(select(RequestRow).where(RequestRow.request_id == request_id))
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
                select(RequestRow).where(RequestRow.number > int(page or 0)).order_by(RequestRow.number).limit(size + 1)
            ).all()
            taken = _within_budget(rows[:size])
            next_page = str(taken[-1].number) if len(taken) < len(rows) else ""
            return StatusPage(tuple(_statuses(session, taken)), next_page)

    def last_number(self, site: str) -> int:
        """Return the number of a site's last order, 0 if it has none; raises `UnknownDeletion` for an unknown site."""
        with self._transaction() as session:
            if session.get(SiteRow, site) is None:
                raise UnknownDeletion(
                    f"site {site!r} is not registered; register it with munkey-server sites --add {site}"
                )
            return session.scalar(select(func.max(OrderRow.number)).where(OrderRow.site == site)) or 0

    def order(self, site: str, number: int) -> DeletionOrder | None:
        """Return one order of a site, or None if there is none with that number."""
        with self._transaction() as session:
            row = session.scalar(
                select(RequestRow)
                .join(OrderRow, OrderRow.request == RequestRow.number)
                .where(OrderRow.site == site, OrderRow.number == number)
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
                select(OrderRow.number, RequestRow.request_id)
                .join(RequestRow, OrderRow.request == RequestRow.number)
                .where(OrderRow.site == answer.site, OrderRow.number == answer.number)
                .with_for_update()
            ).one_or_none()
            if row is None or row.request_id != answer.request_id:
                raise UnknownDeletion(
                    f"site {answer.site!r} has no order {answer.number} for request {answer.request_id!r}"
                )
            known = session.get(AcknowledgementRow, (answer.site, answer.number))
            if known is None:
                session.add(
                    AcknowledgementRow(
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
            session.add(RoundRow(number=number, opened_at=self._clock()))

    def rounds(self) -> tuple[tuple[int, datetime], ...]:
        """Return the rounds in the order of their opening: number and time."""
        with self._transaction() as session:
            rows = session.execute(select(RoundRow.number, RoundRow.opened_at).order_by(RoundRow.opening))
            return tuple((number, opened_at) for number, opened_at in rows)

    def pending(self) -> int:
        """Return how many orders no site has answered yet."""
        with self._transaction() as session:
            unanswered = select(func.count()).select_from(OrderRow).outerjoin(AcknowledgementRow, ANSWERS_ORDER)
            return session.scalar(unanswered.where(AcknowledgementRow.number.is_(None))) or 0

    def _insert(self, session: Session, request: DeletionRequest, sites: Collection[str]) -> RequestRow:
        row, references = _row(request, self._clock())
        session.add(row)
        session.flush()
        for first in range(0, len(references), BLOCK):
            block = b"".join(references[first : first + BLOCK])
            session.add(ReferencesRow(request=row.number, first=first, block=block))
        # On databases that know row locks, this is what keeps a site's numbers without gaps and duplicates.
        names = session.scalars(
            select(SiteRow.name).where(SiteRow.name.in_(sites)).order_by(SiteRow.name).with_for_update()
        )
        registered = names.all()
        if missing := set(sites) - set(registered):
            raise UnknownDeletion(f"site {min(missing)!r} is not registered")
        last = (
            select(OrderRow.site, func.max(OrderRow.number))
            .where(OrderRow.site.in_(registered))
            .group_by(OrderRow.site)
        )
        numbers = {row[0]: row[1] for row in session.execute(last)}
        session.add_all(OrderRow(site=site, number=numbers.get(site, 0) + 1, request=row.number) for site in registered)
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


def _row(request: DeletionRequest, submitted_at: datetime) -> tuple[RequestRow, Sequence[bytes]]:
    site, subject, references = "", None, list[bytes]()
    match request.target:
        case Records():
            kind, site, references = "records", request.target.site, sorted(request.target.references)
        case Subject():
            kind, subject = "subject", request.target.reference
        case WholeSite():
            kind, site = "site", request.target.site
    row = RequestRow(
        request_id=request.request_id,
        requester=request.requester,
        target_kind=kind,
        target_site=site,
        subject_reference=subject,
        reference_count=len(references),
        submitted_at=submitted_at,
    )
    return row, references


def _request(session: Session, row: RequestRow) -> DeletionRequest:
    target: Target
    if row.target_kind == "records":
        blocks = session.scalars(select(ReferencesRow.block).where(ReferencesRow.request == row.number))
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


def _within_budget(rows: Sequence[RequestRow]) -> Sequence[RequestRow]:
    references = 0
    for taken, row in enumerate(rows):
        references += row.reference_count
        if references > MAXIMUM_REFERENCES and taken:
            return rows[:taken]
    return rows


def _statuses(session: Session, rows: Sequence[RequestRow]) -> list[RequestStatus]:
    request_ids = {row.number: row.request_id for row in rows}
    progress: dict[int, list[SiteProgress]] = {number: [] for number in request_ids}
    found = session.execute(
        select(OrderRow, AcknowledgementRow)
        .outerjoin(AcknowledgementRow, ANSWERS_ORDER)
        .where(OrderRow.request.in_(request_ids))
        .order_by(OrderRow.site)
    )
    for order, answer in found:
        progress[order.request].append(_progress(order, answer, request_ids[order.request]))
    return [RequestStatus(_request(session, row), row.submitted_at, tuple(progress[row.number])) for row in rows]


def _progress(order: OrderRow, answer: AcknowledgementRow | None, request_id: str) -> SiteProgress:
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
        record_loss=_loss(answer.record_epsilon, answer.record_delta, 1),
        subject_loss=_loss(answer.subject_epsilon, answer.subject_delta, answer.subject_records),
    )
    return SiteProgress(order.site, order.number, acknowledgement.state, acknowledgement, answer.acknowledged_at)


def _loss(epsilon: float | None, delta: float | None, records: int | None) -> PrivacyLoss | None:
    return None if epsilon is None or delta is None or records is None else PrivacyLoss(epsilon, delta, records)


def _claims(answer: Acknowledgement) -> dict[str, str | float | None]:
    """Return what an answer says about the deletion, as the table's columns hold it."""
    record, subject = answer.record_loss, answer.subject_loss
    return {
        "state": answer.state.value,
        "records": answer.records,
        "entries": answer.entries,
        "guarantee": answer.guarantee.value,
        "reason": answer.reason,
        "record_epsilon": record.epsilon if record else None,
        "record_delta": record.delta if record else None,
        "subject_epsilon": subject.epsilon if subject else None,
        "subject_delta": subject.delta if subject else None,
        "subject_records": subject.records if subject else None,
    }

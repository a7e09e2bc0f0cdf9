"""Reading the ledger: each method is one look at the database, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.deletions.renewals import RenewalNeed
from fedmunkey.common.deletions.states import OPEN_REQUESTS
from fedmunkey.common.deletions.words import (
    DeletionOrder,
    Move,
    RequestState,
    RequestStatus,
)
from fedmunkey.common.errors import DeletionConflict, InvalidDeletion, ServiceUnavailable, UnknownDeletion
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.service.deletion_service import StatusPage
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES, check_page_size
from fedmunkey.server.database.pairs import PairQuery
from fedmunkey.server.database.tables import (
    ANSWERS_ORDER,
    ORDER_IS_OPEN,
    AcknowledgementRow,
    EventRow,
    OrderRow,
    RequestRow,
    RoundRow,
    SiteRow,
)
from fedmunkey.server.ledger.lost import LostRequest, find_lost
from fedmunkey.server.ledger.renewals import erased_since, find_renewal, read_need, read_owed, release_of
from fedmunkey.server.ledger.request_rows import REQUESTS, answer_of, find_request, read_requests, read_statuses, within
from fedmunkey.server.transparency_log.leaves import read_restored

PAGE_REFERENCES = 100 * MAXIMUM_REFERENCES
"""Records that the requests of one page name in all, so that the page fits into one message."""

_SIGNATURES = PairQuery(
    select(OrderRow.site, OrderRow.number, RequestRow.signature).join(OrderRow, OrderRow.request == RequestRow.number),
    OrderRow.site,
    OrderRow.number,
)


@dataclass(frozen=True)
class RegisteredSite:
    """A site of the federation.

    Attributes
    ----------
    orders, pending : int
        How many orders it has been given, and how many of them it has not answered.
    left_at : datetime, optional
        When it left the federation; None while it is in it.
    seen_at : datetime, optional
        When it was last connected; None if it never was.
    connected : bool
        Whether it follows its orders at the moment.
    """

    name: str
    registered_at: datetime
    orders: int
    pending: int
    left_at: datetime | None = None
    seen_at: datetime | None = None
    connected: bool = False


@dataclass(frozen=True)
class Summary:
    """The counts that tell whether deletions get through.

    Attributes
    ----------
    requests : mapping
        How many are in each state; a request whose time has run out is `overdue`.
    pending_orders : int
        Orders still to be answered by sites that are in the federation.
    oldest_pending : datetime, optional
        When the oldest request with such an order was submitted; None if there is none.
    oldest_seconds : float
        Since then; 0 if there is none.
    connected_sites, sites : int
        Sites that follow their orders at the moment, at any process of the service, of those in the federation.
    renewals_owed : int
        Requests of which a site has erased something that the shared weights still hold.
    renew_by : datetime, optional
        By when the weights must be renewed for the first of them; None if there is none.
    renewal_late_seconds : float
        Since then; 0 while there is time.
    restored : tuple of RestoredLog
        What the log says of itself having been restored from a copy, oldest first.
    lost : tuple of LostRequest
        Requests that sites have answered and this ledger does not have.
    """

    requests: Mapping[RequestState, int]
    pending_orders: int
    oldest_pending: datetime | None
    oldest_seconds: float
    connected_sites: int
    sites: int
    renewals_owed: int = 0
    renew_by: datetime | None = None
    renewal_late_seconds: float = 0.0
    restored: tuple[RestoredLog, ...] = ()
    lost: tuple[LostRequest, ...] = ()


class LedgerView:
    """What can be asked of a ledger, `name` in messages; safe for threads."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], datetime], renew: timedelta) -> None:
        self.name = name
        self._engine = engine
        self._clock = clock
        self._renew = renew

    @property
    def engine(self) -> Engine:
        """The ledger's database, where the transparency log has its tables as well."""
        return self._engine

    def sites(self) -> tuple[RegisteredSite, ...]:
        """Return the sites that are or were in the federation, in alphabetical order."""
        now = self._clock()
        waiting = select(OrderRow.site, func.count()).where(ORDER_IS_OPEN).group_by(OrderRow.site)
        with self._reading() as connection:
            pending: dict[str, int] = {row[0]: row[1] for row in connection.execute(waiting)}
            rows = connection.execute(select(*SiteRow.__table__.columns)).all()
        return tuple(
            RegisteredSite(
                row.name,
                row.registered_at,
                row.last_number,
                pending.get(row.name, 0),
                row.left_at,
                row.seen_at,
                row.connected_until is not None and row.connected_until > now,
            )
            # The database's own order of names depends on its locale.
            for row in sorted(rows, key=lambda row: str(row.name))
        )

    def site_names(self) -> tuple[str, ...]:
        """Return the names of the sites that are in the federation, in alphabetical order."""
        return tuple(sorted(name for name, last in self.positions().items() if last is not None))

    def positions(self) -> dict[str, int | None]:
        """Return the number of each site's last order; None for a site that has left."""
        with self._reading() as connection:
            rows = connection.execute(select(SiteRow.name, SiteRow.last_number, SiteRow.left_at))
            return {row.name: None if row.left_at is not None else row.last_number for row in rows}

    def last_number(self, site: str) -> int:
        """Return the number of a site's last order, 0 if it has none.

        Raises `UnknownDeletion` if the site was never registered, `DeletionConflict` if it has left the federation.
        """
        with self._reading() as connection:
            row = connection.execute(
                select(SiteRow.last_number, SiteRow.left_at).where(SiteRow.name == site)
            ).one_or_none()
        if row is None:
            raise UnknownDeletion(f"site {site!r} is not registered; register it with munkey-server sites --add {site}")
        if row.left_at is not None:
            raise DeletionConflict(
                f"site {site!r} has left the federation; munkey-server sites --add {site} brings it back"
            )
        return int(row.last_number)

    def status(self, request_id: str) -> RequestStatus:
        """Return one request's status; raises `UnknownDeletion` if there is no such request."""
        with self._reading() as connection:
            return read_statuses(connection, [find_request(connection, request_id)], self._clock())[0]

    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first; raises `UnknownDeletion` if there is no such request."""
        with self._reading() as connection:
            rows = connection.execute(
                select(EventRow.at, EventRow.site, EventRow.before, EventRow.after, EventRow.reason)
                .where(EventRow.request == find_request(connection, request_id).number)
                .order_by(EventRow.event)
            )
            return tuple(Move(*row) for row in rows)

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        """Return up to `size` requests in the order of their submission, with `late` only those that are overdue.

        A page ends early before it names more than `PAGE_REFERENCES` records, but has one request at least. Raises
        `InvalidDeletion` if `page` is not one that an earlier page named as the next, or the size is out of range.
        """
        check_page_size(size)
        if page and not (page.isdecimal() and page.isascii() and len(page) < 19):
            raise InvalidDeletion(f"{page!r} is not a page; begin with an empty one")
        now = self._clock()
        statement = REQUESTS.where(RequestRow.number > int(page or 0))
        if late:
            statement = statement.where(
                RequestRow.state.in_([state.value for state in OPEN_REQUESTS]), RequestRow.due_at < now
            )
        with self._reading() as connection:
            rows = connection.execute(statement.order_by(RequestRow.number).limit(size + 1)).all()
            taken = within(rows[:size], PAGE_REFERENCES)
            next_page = str(taken[-1].number) if len(taken) < len(rows) else ""
            return StatusPage(tuple(read_statuses(connection, taken, now)), next_page)

    def orders(self, site: str, after: int, most: int) -> tuple[DeletionOrder, ...]:
        """Return at most `most` orders that follow number `after` at a site, few enough to be held.

        They name at most `MAXIMUM_REFERENCES` records in all; one that names more by itself comes alone.
        """
        statement = (
            select(
                OrderRow.number.label("order_number"),
                AcknowledgementRow.document,
                AcknowledgementRow.receipt,
                *RequestRow.__table__.columns,
            )
            .join(RequestRow, OrderRow.request == RequestRow.number)
            .outerjoin(AcknowledgementRow, ANSWERS_ORDER)
            .where(OrderRow.site == site, OrderRow.number > after)
            .order_by(OrderRow.number)
            .limit(most)
        )
        with self._reading() as connection:
            rows = within(connection.execute(statement).all(), MAXIMUM_REFERENCES)
            requests = read_requests(connection, rows)
        return tuple(
            DeletionOrder(row.order_number, site, request, answer_of(row))
            for row, request in zip(rows, requests, strict=True)
        )

    def order(self, site: str, number: int) -> DeletionOrder | None:
        """Return one order of a site, or None if there is none with that number."""
        return next((order for order in self.orders(site, number - 1, 1) if order.number == number), None)

    def unanswered(self, site: str, until: int) -> tuple[int, ...]:
        """Return the numbers of a site's orders up to one that it has not answered."""
        numbers = select(OrderRow.number).where(OrderRow.site == site, OrderRow.number <= until, ORDER_IS_OPEN)
        with self._reading() as connection:
            return tuple(connection.scalars(numbers.order_by(OrderRow.number)))

    def signatures(self, orders: Collection[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """Return the requesters' signatures of orders by site and number, empty where there is none.

        Orders that are not in the ledger are left out.
        """
        with self._reading() as connection:
            rows = _SIGNATURES.rows(connection, orders)
        return {(row.site, row.number): row.signature or b"" for row in rows}

    def rounds(self) -> tuple[tuple[int, datetime], ...]:
        """Return the rounds in the order of their opening: number and time."""
        with self._reading() as connection:
            rows = connection.execute(select(RoundRow.number, RoundRow.opened_at).order_by(RoundRow.opening))
            return tuple((number, opened_at) for number, opened_at in rows)

    def pending(self) -> int:
        """Return how many orders are still to be answered by sites that are in the federation."""
        with self._reading() as connection:
            return connection.scalar(select(func.count(OrderRow.request)).where(ORDER_IS_OPEN)) or 0

    def renewal_need(self) -> RenewalNeed:
        """Return which erased entries the last released weights were still solved with."""
        with self._reading() as connection:
            return read_need(connection, self._renew)

    def erased_since(self, digest: str) -> tuple[str, ...]:
        """Return the requests, by id, that have erased what released weights, by their digest, were solved with."""
        with self._reading() as connection:
            release = release_of(connection, digest)
            return () if release is None else erased_since(connection, release)

    def renewal_of(self, status: RequestStatus) -> tuple[int, dict[str, bytes]] | None:
        """Return the release, by number, that was solved without what a request erased, and its sites' contributions.

        None where nothing had to be renewed, or nothing has been.
        """
        erased = [
            (progress.site, progress.number)
            for progress in status.sites
            if progress.acknowledgement and progress.acknowledgement.entries
        ]
        if not erased or status.renew_by is None:
            return None
        with self._reading() as connection:
            return find_renewal(connection, erased)

    def summary(self) -> Summary:
        """Return the counts that tell whether deletions get through."""
        now = self._clock()
        counted = select(RequestRow.state, func.count(RequestRow.state)).group_by(RequestRow.state)
        waiting = [state.value for state in OPEN_REQUESTS if state is not RequestState.OVERDUE]
        members = SiteRow.left_at.is_(None)
        with self._reading() as connection:
            requests = dict.fromkeys(RequestState, 0)
            for state, count in connection.execute(counted):
                requests[RequestState(state)] += count
            for state, count in connection.execute(
                counted.where(RequestRow.state.in_(waiting), RequestRow.due_at < now)
            ):
                requests[RequestState(state)] -= count
                requests[RequestState.OVERDUE] += count
            pending, oldest = connection.execute(
                select(func.count(OrderRow.request), func.min(OrderRow.request)).where(ORDER_IS_OPEN)
            ).one()
            since = connection.scalar(select(RequestRow.submitted_at).where(RequestRow.number == oldest))
            connected, sites = connection.execute(
                select(
                    func.count(SiteRow.name).filter(SiteRow.connected_until > now),
                    func.count(SiteRow.name),
                ).where(members)
            ).one()
            restored = tuple(map(RestoredLog.of, read_restored(connection)))
            lost = find_lost(connection)
            owed = list(read_owed(connection))
        renew_by = min((one.due(self._renew) for one in owed), default=None)
        late = max(0.0, (now - renew_by).total_seconds()) if renew_by else 0.0
        renewals = (len({one.request for one in owed}), renew_by, late)
        seconds = 0.0 if since is None else max(0.0, (now - since).total_seconds())
        return Summary(requests, pending, since, seconds, connected, sites, *renewals, restored, lost)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger {self.name} cannot be used: {error.orig}; try again") from None

"""Lists of the ledger's requests and sites as people look at them: each is a few indexed reads, however long it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select
from sqlalchemy.sql.elements import SQLCoreOperations

from fedmunkey.common.deletions.listing import (
    Moved,
    Overview,
    RequestQuery,
    RequestsFound,
    RequestSummary,
    SiteQuery,
    SitesFound,
    SiteSummary,
    Week,
)
from fedmunkey.common.deletions.states import OPEN_ORDERS, OPEN_REQUESTS, RequestState, SiteState
from fedmunkey.common.deletions.words import OFFICER
from fedmunkey.server.database.connection import SQLITE
from fedmunkey.server.database.member_tables import MemberRow
from fedmunkey.server.database.tables import (
    REQUEST_ENDED,
    AcknowledgementRow,
    ContributionRow,
    EventRow,
    OrderRow,
    ReferencesRow,
    ReleaseRow,
    RequestRow,
    SiteRow,
)
from fedmunkey.server.ledger.view import LedgerView

_OPEN = [state.value for state in OPEN_REQUESTS]
_OPEN_ORDERS = [state.value for state in OPEN_ORDERS]
_ENDED = [state.value for state in RequestState if state.final]
_LAST_ANSWERS = 20
_WEEKS = 12
_MOVES_AT_ONCE = 1000
_MOST_WEEKS = 12_000
_SETTLED = timedelta(hours=1)
"""Transactions that began in a week have ended so long after it."""
_LIST_COLUMNS = (
    RequestRow.number,
    RequestRow.request_id,
    RequestRow.requester,
    RequestRow.target_kind,
    RequestRow.target_site,
    RequestRow.reference_count,
    RequestRow.submitted_at,
    RequestRow.due_at,
    RequestRow.state,
    RequestRow.renew_by,
)

_Condition = ColumnElement[bool] | SQLCoreOperations[bool]


class LedgerLists(LedgerView):
    """What a console shows of a ledger."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], datetime], renew: timedelta) -> None:
        super().__init__(engine, name, clock, renew)
        self._weeks: dict[tuple[str, datetime], Week] = {}

    def find(self, query: RequestQuery) -> RequestsFound:
        """Return a page of requests: open ones first, by when they are due, then the newest of those that ended."""
        now = self._clock()
        with self._reading() as connection:
            conditions = _conditions(connection, query, now)
            first = query.size * (query.page - 1)
            is_open, is_over = RequestRow.state.in_(_OPEN), RequestRow.state.in_(_ENDED)
            numbers = select(RequestRow.number).where(*conditions)
            in_progress = _count(connection, is_open, *conditions)
            ended = _count(connection, is_over, *conditions)
            # Numbers alone are read from indexes; a request's row is large, for it holds a signature.
            by_due = numbers.where(is_open).order_by(RequestRow.due_at, RequestRow.number)
            chosen = list(connection.scalars(by_due.offset(first).limit(query.size)))
            if len(chosen) < query.size:
                newest = numbers.where(is_over).order_by(RequestRow.number.desc())
                begin = max(0, first - in_progress)
                chosen += connection.scalars(newest.offset(begin).limit(query.size - len(chosen)))
            return RequestsFound(tuple(_summaries(connection, chosen, now)), in_progress + ended)

    def last_event(self) -> int:
        """Return the number of the last event, 0 before the first."""
        with self._reading() as connection:
            return connection.scalar(select(func.max(EventRow.event))) or 0

    def moves_after(self, reader: str, after: int) -> tuple[Moved, ...]:
        """Return some events after one that moved a reader's requests, oldest first."""
        moved = (
            select(EventRow.event, RequestRow.request_id)
            .join(RequestRow, RequestRow.number == EventRow.request)
            .where(EventRow.event > after, *_seen_by(reader))
            .order_by(EventRow.event)
            .limit(_MOVES_AT_ONCE)
        )
        with self._reading() as connection:
            return tuple(Moved(row.event, row.request_id) for row in connection.execute(moved))

    def site_summaries(self, query: SiteQuery) -> SitesFound:
        """Return a page of the sites, or, for a reader that is one, itself."""
        now = self._clock()
        with self._reading() as connection:
            names = _site_names(connection, query)
            shown = names[query.size * (query.page - 1) :][: query.size] if query.size else names
            figures = {} if query.brief else _site_figures(connection, shown)
            last = connection.scalar(select(func.max(ReleaseRow.number))) or 0
            rows = connection.execute(select(*SiteRow.__table__.columns).where(SiteRow.name.in_(shown))).all()
        found = []
        for row in sorted(rows, key=lambda row: str(row.name)):
            connected = row.connected_until is not None and row.connected_until > now
            known = (row.name, row.registered_at, row.left_at, connected, row.seen_at, row.last_number)
            found.append(SiteSummary(*known, *figures.get(row.name, ())))
        return SitesFound(tuple(found), last, len(names))

    def overview(self, reader: str) -> Overview:
        """Return how many of a reader's requests are in each state, and the last weeks, which begin on Mondays."""
        now = self._clock()
        monday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
        begins = [monday - timedelta(weeks=back) for back in reversed(range(_WEEKS))]
        seen = _seen_by(reader)
        late = and_(RequestRow.state.in_(_OPEN), RequestRow.due_at < now)
        counts = select(RequestRow.state, func.count()).where(*seen).group_by(RequestRow.state)
        states = dict.fromkeys(RequestState, 0)
        with self._reading() as connection:
            for state, count in connection.execute(counts):
                states[RequestState(state)] += count
            for state, count in connection.execute(counts.where(late, RequestRow.state != RequestState.OVERDUE.value)):
                states[RequestState(state)] -= count
                states[RequestState.OVERDUE] += count
            weeks = tuple(self._week(connection, begin, reader, now) for begin in begins)
        return Overview(states, weeks)

    def _week(self, connection: Connection, begins: datetime, reader: str, now: datetime) -> Week:
        """Return a week, once it is over as it was counted first: what ended in it stays ended."""
        kept = self._weeks.get((reader, begins))
        if kept is None:
            kept = _count_week(connection, begins, reader)
            if begins + timedelta(weeks=1) < now - _SETTLED:
                if len(self._weeks) >= _MOST_WEEKS:
                    self._weeks.clear()
                self._weeks[reader, begins] = kept
        return kept


def _seen_by(reader: str, requester: Any = RequestRow.requester) -> tuple[_Condition, ...]:
    if not reader:
        return ()
    own: _Condition = requester == reader
    return (own,) if reader == OFFICER else (or_(own, RequestRow.number.in_(_addressing(reader))),)


def _addressing(site: str) -> Any:
    return select(OrderRow.request).where(OrderRow.site == site)


def _conditions(connection: Connection, query: RequestQuery, now: datetime) -> list[_Condition]:
    conditions = list(_seen_by(query.reader))
    if query.states:
        conditions.append(or_(*(_in_state(state, now) for state in query.states)))
    if query.kinds:
        conditions.append(RequestRow.target_kind.in_(query.kinds))
    if query.site:
        conditions.append(RequestRow.number.in_(_addressing(query.site)))
    if query.beginning:
        conditions.append(RequestRow.request_id.startswith(query.beginning, autoescape=True))
        if connection.dialect.name == SQLITE:
            # SQLite looks nothing up in an index for a pattern; its texts are in the order of their characters.
            near = RequestRow.request_id.between(query.beginning, f"{query.beginning}{chr(0x10FFFF)}")
            conditions.append(RequestRow.number.in_(select(RequestRow.number).where(near)))
    if query.references:
        conditions.append(_naming(connection, query.references))
    return conditions


def _in_state(state: RequestState, now: datetime) -> _Condition:
    """Select a state; a request whose time has run out is overdue, even if nobody has moved it there yet."""
    if state is RequestState.OVERDUE:
        return and_(RequestRow.state.in_(_OPEN), RequestRow.due_at < now)
    if state.final:
        return RequestRow.state == state.value
    return and_(RequestRow.state == state.value, or_(RequestRow.due_at.is_(None), RequestRow.due_at >= now))


def _naming(connection: Connection, references: Sequence[bytes]) -> _Condition:
    """Select requests that name one of some references; no 32 bytes of two neighbours in a block make up a third."""
    blocks = ReferencesRow.block
    if connection.dialect.name == SQLITE:
        within = [func.instr(blocks, reference) > 0 for reference in references]
    else:
        within = [func.strpos(func.encode(blocks, "hex"), reference.hex()) > 0 for reference in references]
    named = select(ReferencesRow.request).where(or_(*within))
    about = select(RequestRow.number).where(RequestRow.subject_reference.in_(references))
    return RequestRow.number.in_(about.union(named))


def _count(connection: Connection, *conditions: _Condition) -> int:
    return connection.scalar(select(func.count(RequestRow.number)).where(*conditions)) or 0


def _summaries(connection: Connection, numbers: list[int], now: datetime) -> Iterable[RequestSummary]:
    counted: dict[int, dict[str, int]] = {number: {} for number in numbers}
    parts = select(OrderRow.request, OrderRow.state, func.count()).where(OrderRow.request.in_(numbers))
    for request, state, count in connection.execute(parts.group_by(OrderRow.request, OrderRow.state)):
        counted[request][state] = count
    rows = {row.number: row for row in connection.execute(select(*_LIST_COLUMNS).where(RequestRow.number.in_(numbers)))}
    for number in numbers:
        row, states = rows[number], counted[number]
        state = RequestState(row.state)
        late = not state.final and row.due_at is not None and row.due_at < now
        yield RequestSummary(
            row.request_id,
            row.requester,
            row.target_kind,
            row.target_site,
            row.reference_count,
            row.submitted_at,
            row.due_at,
            RequestState.OVERDUE if late else state,
            row.renew_by,
            sum(states.values()),
            sum(count for name, count in states.items() if SiteState(name).answered),
            states.get(SiteState.ERASED.value, 0),
            states.get(SiteState.REFUSED.value, 0),
            states.get(SiteState.LEFT.value, 0),
        )


def _site_names(connection: Connection, query: SiteQuery) -> list[str]:
    """Return the names of the sites that a reader may see and looks for; a database's order depends on its locale."""
    own = () if query.reader in ("", OFFICER) else (SiteRow.name == query.reader,)
    names = connection.scalars(select(SiteRow.name).where(*own))
    return sorted(name for name in names if name.startswith(query.beginning))


def _site_figures(connection: Connection, sites: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """Return what a list says of sites beside what is known of them, as `SiteSummary` has it from `pending` on."""
    pending = (
        select(OrderRow.site, func.count())
        .where(OrderRow.state.in_(_OPEN_ORDERS), OrderRow.site.in_(sites))
        .group_by(OrderRow.site)
    )
    ends = select(MemberRow.name, MemberRow.not_after).where(
        MemberRow.name.in_(sites),
        MemberRow.used_at.is_not(None),
        MemberRow.replaced_at.is_(None),
        MemberRow.revoked_at.is_(None),
    )
    releases = (
        select(ContributionRow.site, func.max(ContributionRow.release))
        .where(ContributionRow.site.in_(sites))
        .group_by(ContributionRow.site)
    )
    waiting, certificates, took_part = (
        {row[0]: row[1] for row in connection.execute(query)} for query in (pending, ends, releases)
    )
    answered = _last_answers(connection, sites)
    return {
        site: (
            waiting.get(site, 0),
            *answered.get(site, (None, None)),
            certificates.get(site),
            took_part.get(site, 0),
        )
        for site in sites
    }


def _last_answers(connection: Connection, sites: Collection[str]) -> dict[str, tuple[datetime, float]]:
    """Return, by site, when it answered last, and the median of its last answers in seconds after the request."""
    rows = connection.execute(
        select(AcknowledgementRow.site, AcknowledgementRow.acknowledged_at, RequestRow.submitted_at)
        .join(SiteRow, SiteRow.name == AcknowledgementRow.site)
        .join(OrderRow, and_(OrderRow.site == SiteRow.name, OrderRow.number == AcknowledgementRow.number))
        .join(RequestRow, RequestRow.number == OrderRow.request)
        .where(SiteRow.name.in_(sites), AcknowledgementRow.number > SiteRow.last_number - _LAST_ANSWERS)
    )
    answers: dict[str, list[tuple[datetime, float]]] = {}
    for site, at, asked in rows:
        answers.setdefault(site, []).append((at, (at - asked).total_seconds()))
    return {
        site: (max(at for at, _ in given), median(seconds for _, seconds in given)) for site, given in answers.items()
    }


def _count_week(connection: Connection, begins: datetime, reader: str) -> Week:
    """Count what was asked and what ended in a week; the database counts, for there may be many."""
    # By its own column every request of the reader would be looked up, for one week of them.
    seen = _seen_by(reader, RequestRow.requester.concat(""))
    ends = begins + timedelta(weeks=1)
    in_time = or_(RequestRow.due_at.is_(None), EventRow.at <= RequestRow.due_at)
    ended = (
        select(func.count(), func.count().filter(in_time))
        .select_from(EventRow)
        .join(RequestRow, RequestRow.number == EventRow.request)
        .where(REQUEST_ENDED, EventRow.at >= begins, EventRow.at < ends, *seen)
    )
    asked = _count(connection, RequestRow.submitted_at >= begins, RequestRow.submitted_at < ends, *seen)
    return Week(begins, asked, *connection.execute(ended).one())

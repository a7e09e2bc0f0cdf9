"""Writing what the sites answer, and what follows for their requests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, insert, select, update

from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.deletions.states import RequestState, SiteState
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.errors import DeletionConflict, FedmunkeyError, InvalidDeletion, UnknownDeletion
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.settings.settings import RENEW_DAYS
from fedmunkey.server.database.pairs import PairQuery
from fedmunkey.server.database.tables import ORDER_IS_OPEN, AcknowledgementRow, OrderRow, RequestRow, SiteRow
from fedmunkey.server.ledger.renewals import (
    check_contributions,
    erased_since,
    give_out,
    last_contributions,
    read_owed,
    release_of,
    waiting_requests,
    write_release,
    write_release_again,
)
from fedmunkey.server.ledger.writer import Transaction
from fedmunkey.server.transparency_log.leaves import Leaf, append_leaves, leaf_of_receipt

_ORDERS = PairQuery(
    select(OrderRow.site, OrderRow.number, OrderRow.state, OrderRow.request, RequestRow.request_id).join(
        RequestRow, OrderRow.request == RequestRow.number
    ),
    OrderRow.site,
    OrderRow.number,
)
_PENDING = PairQuery(
    select(OrderRow.site, OrderRow.number, OrderRow.request).where(OrderRow.state == SiteState.PENDING.value),
    OrderRow.site,
    OrderRow.number,
)
_ANSWERS = PairQuery(
    select(AcknowledgementRow.site, AcknowledgementRow.number, AcknowledgementRow.document),
    AcknowledgementRow.site,
    AcknowledgementRow.number,
)
_AMONG: BindParameter[Any] = bindparam("requests", expanding=True)
_IS_OPEN = select(OrderRow.number).where(OrderRow.request == RequestRow.number, ORDER_IS_OPEN).exists()
_SETTLING = select(
    RequestRow.number, RequestRow.state, RequestRow.submitted_at, RequestRow.renew_by, _IS_OPEN.label("is_open")
).where(RequestRow.number.in_(_AMONG))
_STATES = (
    select(OrderRow.request, OrderRow.state)
    .where(OrderRow.request.in_(_AMONG))
    .group_by(OrderRow.request, OrderRow.state)
)
_RENEW_BY = update(RequestRow).where(RequestRow.number == bindparam("of_request")).values(renew_by=bindparam("by"))


@dataclass(frozen=True)
class Delivered:
    """Orders that were sent, by site and number."""

    orders: Collection[tuple[str, int]]


@dataclass(frozen=True)
class GivenOut:
    """Released weights, by their digest, and the sites that have taken them over."""

    digest: str
    sites: Collection[str]


@dataclass(frozen=True)
class Answer:
    """What a site answers; with `logged`, it bears a receipt that was checked and goes into the transparency log.

    `renew` is how long shared weights may still hold what was erased.
    """

    acknowledgement: Acknowledgement
    logged: bool = False
    renew: timedelta = timedelta(days=RENEW_DAYS)


def acknowledge(transaction: Transaction, answers: Sequence[Answer]) -> list[FedmunkeyError | None]:
    """Write answers; the same answer again changes nothing, another one to the same order is refused.

    Two answers are the same if they differ in nothing but `seconds` and the receipt; the first receipt is kept.
    """
    orders = _find_orders(transaction, [item.acknowledgement for item in answers])
    given = _find_answers(transaction, [key for key, row in orders.items() if SiteState(row.state).answered])
    results: list[FedmunkeyError | None] = []
    rows: list[dict[str, Any]] = []
    leaves: list[Leaf] = []
    for item in answers:
        answer = item.acknowledgement
        place = (answer.site, answer.number)
        order = orders.get(place)
        fault = _fault(answer, order, given.get(place))
        results.append(fault)
        if fault is not None or order is None or place in given:
            continue
        given[place] = answer
        rows.append(
            {
                "site": answer.site,
                "number": answer.number,
                "document": answer.to_json(),
                "receipt": answer.receipt or None,
                "acknowledged_at": transaction.at,
            }
        )
        if item.logged:
            leaves.append(leaf_of_receipt(answer.site, answer.number, answer.receipt))
        transaction.move_order(order.request, answer.site, answer.number, SiteState(order.state), answer.state)
    if rows:
        transaction.connection.execute(insert(AcknowledgementRow), rows)
        append_leaves(transaction.connection, leaves)
        settle(transaction, {orders[row["site"], row["number"]].request for row in rows}, renew=answers[0].renew)
        hit(Failpoint.ACKNOWLEDGE_BEFORE_COMMIT)
    return results


def note_delivered(transaction: Transaction, notes: Sequence[Delivered]) -> list[None]:
    """Write that orders were sent; those that have been answered meanwhile stay as they are."""
    sent = [order for note in notes for order in note.orders]
    for row in _PENDING.rows(transaction.connection, sent):
        transaction.move_order(row.request, row.site, row.number, SiteState.PENDING, SiteState.DELIVERED)
    return [None] * len(notes)


def note_releases(transaction: Transaction, releases: Sequence[ReleasedWeights]) -> list[FedmunkeyError | None]:
    """Write releases down, each with its leaf of the log, before any site has them."""
    connection = transaction.connection
    orders = {row.name: row.last_number for row in connection.execute(select(SiteRow.name, SiteRow.last_number))}
    results: list[FedmunkeyError | None] = []
    for released in releases:
        try:
            check_contributions(released, orders, last_contributions(connection))
        except InvalidDeletion as fault:
            results.append(fault)
            continue
        results.append(None)
        append_leaves(connection, [write_release(connection, released, transaction.at)])
    return results


def note_given_out(transaction: Transaction, given: Sequence[GivenOut]) -> list[tuple[str, ...] | FedmunkeyError]:
    """Note which sites have taken releases over, and complete the requests that waited for those that all have.

    Returns for each which of its contributors lack it.
    """
    results: list[tuple[str, ...] | FedmunkeyError] = []
    for one in given:
        lacking = give_out(transaction.connection, one.digest, one.sites, transaction.at)
        if lacking is None:
            results.append(InvalidDeletion(f"the ledger has no release of weights {one.digest[:16]}"))
            continue
        results.append(lacking)
        if not lacking:
            reason = f"the shared weights were renewed: {one.digest[:16]}"
            settle(transaction, waiting_requests(transaction.connection), reason)
    return results


def release_again(transaction: Transaction, digests: Sequence[str]) -> list[FedmunkeyError | None]:
    """Write earlier releases down once more, unless something that they were solved with is gone since."""
    connection = transaction.connection
    results: list[FedmunkeyError | None] = []
    for digest in digests:
        release = release_of(connection, digest)
        gone = () if release is None else erased_since(connection, release)
        if release is None:
            fault = (
                f"the ledger has no release of weights {digest[:16]}, so nobody can tell whether they hold what was "
                "deleted since; solve for new ones with munkey-server run"
            )
        else:
            fault = (
                f"these weights were solved with records that were deleted since, by request {', '.join(gone)}; they "
                "are not brought back: take a run that came later, or solve for new ones with munkey-server run"
            )
        results.append(InvalidDeletion(fault) if release is None or gone else None)
        if release is not None and not gone:
            append_leaves(connection, [write_release_again(connection, release, transaction.at)])
    return results


def settle(
    transaction: Transaction,
    requests: Collection[int],
    reason: str = "",
    *,
    renew: timedelta = timedelta(days=RENEW_DAYS),
) -> None:
    """Move requests to where their sites have brought them, after changes that may still have to be written.

    One whose sites have all erased waits, for so long, until the shared weights are renewed without what was erased;
    where one refused or left, the others' part is due as soon.
    """
    transaction.flush()
    rows = transaction.connection.execute(_SETTLING, {"requests": list(requests)}).all()
    # Of a thousand sites' orders, all are read once, when the last of them is answered, and not at each answer.
    states: dict[int, set[SiteState]] = {row.number: {SiteState.PENDING} for row in rows if row.is_open}
    if ended := [row.number for row in rows if not row.is_open]:
        for found in transaction.connection.execute(_STATES, {"requests": ended}):
            states.setdefault(found.request, set()).add(SiteState(found.state))
    some = (RequestState.COMPLETED, RequestState.PARTIAL)
    done = [row.number for row in rows if RequestState.of(states[row.number]) in some]
    owing: dict[int, datetime] = {}
    for owed in read_owed(transaction.connection, done) if done else ():
        owing[owed.request] = min(owed.at, owing.get(owed.request, owed.at))
    for row in rows:
        before, after = RequestState(row.state), RequestState.of(states[row.number])
        if row.number in owing:
            after = RequestState.ERASED if after is RequestState.COMPLETED else after
            # A site that comes back may owe anew what was renewed before.
            if row.renew_by is None or before is RequestState.DISPATCHED:
                by = {"of_request": row.number, "by": owing[row.number] + renew}
                transaction.connection.execute(_RENEW_BY, by)
        # What is late stays late until it ends.
        if before is after or (before is RequestState.OVERDUE and not after.final):
            continue
        seconds = (transaction.at - row.submitted_at).total_seconds() if after.final else None
        transaction.move_request(row.number, before, after, reason, seconds)


def _find_orders(transaction: Transaction, answers: Sequence[Acknowledgement]) -> dict[tuple[str, int], Row[Any]]:
    rows = _ORDERS.rows(transaction.connection, [(answer.site, answer.number) for answer in answers])
    return {(row.site, row.number): row for row in rows}


def _find_answers(
    transaction: Transaction, keys: Collection[tuple[str, int]]
) -> dict[tuple[str, int], Acknowledgement]:
    rows = _ANSWERS.rows(transaction.connection, keys)
    return {(row.site, row.number): Acknowledgement.from_json(row.document) for row in rows}


def _fault(answer: Acknowledgement, order: Row[Any] | None, known: Acknowledgement | None) -> FedmunkeyError | None:
    if order is None or order.request_id != answer.request_id:
        return UnknownDeletion(f"site {answer.site!r} has no order {answer.number} for request {answer.request_id!r}")
    if order.state == SiteState.LEFT:
        return DeletionConflict(
            f"site {answer.site!r} has left the federation; munkey-server sites --add {answer.site} brings it back"
        )
    if known is not None and known.claims() != answer.claims():
        return DeletionConflict(
            f"site {answer.site!r} answered order {answer.number} with {known.state.value!r} "
            f"({known.records} records) before; an answer cannot be changed"
        )
    return None

"""Writing requests that name many records, without anyone waiting for them.

Such a request is written block after block, each in a transaction of its own with the small writes of others in
between. It is `received` meanwhile, and no site has an order before all of it is there. If it breaks off, the
requester, who has no answer yet, submits it again and it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from fedmunkey.common.deletion import RequestStatus
from fedmunkey.common.deletion_states import RequestState
from fedmunkey.common.errors import FedmunkeyError, InvalidDeletion
from fedmunkey.server.ledger_reading import blocks_of, read_statuses
from fedmunkey.server.ledger_requests import (
    Entry,
    address,
    check_same,
    find_known,
    find_sites,
    insert_blocks,
    insert_heads,
    number_orders,
    sorted_references,
)
from fedmunkey.server.ledger_tables import OrderRow, ReferencesRow
from fedmunkey.server.ledger_transaction import Event, Transaction
from fedmunkey.server.log_leaves import append_leaves, leaf_of_request

BULK = 10_000
"""References above which a request is written block after block."""

BLOCKS_IN_A_WRITE = 10


@dataclass(frozen=True)
class Begun:
    """A large request whose head is in the ledger.

    Attributes
    ----------
    number : int
        The request's number.
    missing : bool
        Whether its blocks and orders are still to be written.
    """

    number: int
    missing: bool


@dataclass(frozen=True)
class Blocks:
    """Some blocks of a large request: each the place of its first reference, and the references."""

    request: int
    blocks: Sequence[tuple[int, bytes]]


def begin(transaction: Transaction, entries: Sequence[Entry]) -> list[Begun | FedmunkeyError]:
    """Write the heads and first blocks of large requests, or find those that are there already."""
    answers: list[Begun | FedmunkeyError] = []
    for entry in entries:
        row = find_known(transaction, [entry.request.request_id]).get(entry.request.request_id)
        try:
            if row is not None:
                check_same(entry.request, row.content_digest)
                answers.append(Begun(row.number, not _has_orders(transaction, row.number)))
                continue
            address(entry, find_sites(transaction, [entry]))
        except InvalidDeletion as error:
            answers.append(error)
            continue
        number = insert_heads(transaction, [entry], RequestState.RECEIVED)[0]
        # With some of its references, so that it can be shown.
        insert_blocks(transaction, number, blocks_of(sorted_references(entry.request))[:BLOCKS_IN_A_WRITE])
        transaction.record(Event(transaction.at, number, "", "", RequestState.RECEIVED.value))
        answers.append(Begun(number, missing=True))
    return answers


def write_blocks(transaction: Transaction, writes: Sequence[Blocks]) -> list[None]:
    """Write blocks of large requests; those that are there already stay."""
    for write in writes:
        places = [first for first, _ in write.blocks]
        there = set(
            transaction.connection.scalars(
                select(ReferencesRow.first).where(
                    ReferencesRow.request == write.request, ReferencesRow.first.in_(places)
                )
            )
        )
        insert_blocks(transaction, write.request, [block for block in write.blocks if block[0] not in there])
    return [None] * len(writes)


def dispatch(transaction: Transaction, entries: Sequence[Entry]) -> list[RequestStatus | FedmunkeyError]:
    """Give the sites their orders for large requests that are there with all their blocks."""
    answers: list[RequestStatus | FedmunkeyError] = []
    for entry in entries:
        row = find_known(transaction, [entry.request.request_id])[entry.request.request_id]
        if not _has_orders(transaction, row.number):
            sites = find_sites(transaction, [entry])
            try:
                addressed = address(entry, sites)
            except InvalidDeletion as error:
                answers.append(error)
                continue
            transaction.move_request(row.number, RequestState(row.state), RequestState.VERIFIED)
            transaction.move_request(row.number, RequestState.VERIFIED, RequestState.DISPATCHED)
            if entry.logged and row.signature:
                # The one that was kept with the references, if the requester has signed again since.
                leaf = leaf_of_request(row.request_id, row.signature, sorted(addressed))
                append_leaves(transaction.connection, [leaf])
            number_orders(transaction, [(row.number, addressed)], sites)
            transaction.flush()
        row = find_known(transaction, [entry.request.request_id])[entry.request.request_id]
        answers += read_statuses(transaction.connection, [row], transaction.at)
    return answers


def _has_orders(transaction: Transaction, request: int) -> bool:
    found = select(func.count()).select_from(OrderRow).where(OrderRow.request == request)
    return bool(transaction.connection.scalar(found))

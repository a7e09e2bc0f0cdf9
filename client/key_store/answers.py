"""What a key store keeps of the orders that it has answered."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState
from fedmunkey.common.privacy.guarantees import Guarantee


def read_answers(connection: sqlite3.Connection, condition: str, *values: str | int) -> list[Acknowledgement]:
    """Return the answers to applied orders that meet a condition in SQL with some values, oldest first."""
    query = f"SELECT document FROM applied_orders WHERE {condition} ORDER BY number"  # noqa: S608 (callers' constants)
    return [Acknowledgement.from_json(document) for (document,) in connection.execute(query, values).fetchall()]


def write_answer(
    connection: sqlite3.Connection,
    answer: Acknowledgement,
    request: bytes,
    last_training: int | None,
    *,
    finished: bool = False,
) -> None:
    """Write an answer down that the order has not had, to a request by its digest, within the caller's transaction."""
    connection.execute(
        "INSERT INTO applied_orders (number, request_id, document, last_training, finished, request) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (answer.number, answer.request_id, answer.to_json(), last_training, finished, request),
    )


def repeat_answer(connection: sqlite3.Connection, order: DeletionOrder, request: bytes) -> bool:
    """Answer an order as its request was answered under another number, within the caller's transaction.

    Returns whether it was: what was refused was not heard, so that a copy of a request burns nothing.
    """
    row = connection.execute(
        "SELECT number, document, last_training, finished FROM applied_orders "
        "WHERE request = ? AND json_extract(document, '$.state') <> ? ORDER BY number DESC LIMIT 1",
        (request, SiteState.REFUSED.value),
    ).fetchone()
    if row is None:
        return False
    number, document, last_training, finished = row
    answer = replace(Acknowledgement.from_json(document), number=order.number)
    write_answer(connection, answer, request, last_training, finished=bool(finished))
    connection.execute(
        "INSERT OR REPLACE INTO fingerprints SELECT ?, content, windows FROM fingerprints WHERE number = ?",
        (order.number, number),
    )
    return True


def write_refusal(connection: sqlite3.Connection, order: DeletionOrder, request: bytes, reason: str) -> None:
    """Write down that an order is refused, for a reason that names nobody, within the caller's transaction.

    The answer claims the weakest guarantee: what the order names is still there.
    """
    answer = Acknowledgement(
        order.number, order.site, order.request.request_id, SiteState.REFUSED, 0, 0, Guarantee.EMPIRICAL, 0.0, reason
    )
    write_answer(connection, answer, request, None, finished=True)


def is_answered(connection: sqlite3.Connection, number: int) -> bool:
    """Return whether an order was carried out or refused."""
    return connection.execute("SELECT 1 FROM applied_orders WHERE number = ?", (number,)).fetchone() is not None

"""Orders that a site refuses: they are answered like any other, and delete nothing."""

from __future__ import annotations

import sqlite3

from client.key_store.schema import writing
from common.deletion import DeletionOrder, SiteState
from common.guarantees import Guarantee


def refuse_order(connection: sqlite3.Connection, order: DeletionOrder, reason: str) -> None:
    """Write down that an order is refused; one that was applied or refused before stays as it is.

    The answer claims the weakest guarantee: what the order names is still there.

    Parameters
    ----------
    connection : sqlite3.Connection
        A key store's connection, outside of a transaction.
    order : DeletionOrder
        The order.
    reason : str
        Why, in one line that names nobody.
    """
    with writing(connection):
        connection.execute(
            "INSERT OR IGNORE INTO applied_orders (number, request_id, state, records, entries, guarantee, seconds, "
            "reason, last_training, subject_records, finished) VALUES (?, ?, ?, 0, 0, ?, 0, ?, 0, 1, 1)",
            (order.number, order.request.request_id, SiteState.REFUSED.value, Guarantee.EMPIRICAL.value, reason),
        )


def find_order(connection: sqlite3.Connection, request_id: str) -> int | None:
    """Return the number of the first order that brought a request; None if none has."""
    query = "SELECT min(number) FROM applied_orders WHERE request_id = ?"
    found: int | None = connection.execute(query, (request_id,)).fetchone()[0]
    return found

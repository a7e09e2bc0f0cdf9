"""Orders that a site refuses: they are answered like any other, and delete nothing."""

from __future__ import annotations

import sqlite3

from fedmunkey.common.deletion import DeletionOrder, SiteState
from fedmunkey.common.guarantees import Guarantee


def write_refusal(connection: sqlite3.Connection, order: DeletionOrder, reason: str) -> None:
    """Write down, within the caller's transaction, that an order is refused; it must not have been answered before.

    The answer claims the weakest guarantee: what the order names is still there.

    Parameters
    ----------
    connection : sqlite3.Connection
        A key store's connection.
    order : DeletionOrder
        The order.
    reason : str
        Why, in one line that names nobody.
    """
    connection.execute(
        "INSERT INTO applied_orders (number, request_id, state, records, entries, guarantee, seconds, "
        "reason, last_training, subject_records, finished) VALUES (?, ?, ?, 0, 0, ?, 0, ?, 0, 1, 1)",
        (order.number, order.request.request_id, SiteState.REFUSED.value, Guarantee.EMPIRICAL.value, reason),
    )


def find_order(connection: sqlite3.Connection, request_id: str) -> int | None:
    """Return the number of the first order that brought a request; None if none has."""
    query = "SELECT min(number) FROM applied_orders WHERE request_id = ?"
    found: int | None = connection.execute(query, (request_id,)).fetchone()[0]
    return found

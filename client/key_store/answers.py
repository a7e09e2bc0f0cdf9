"""What a key store keeps of the orders that it has answered, read back into words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from client.key_store.contents import StoreDescription
from common.deletion import Acknowledgement, DeletionOrder, SiteState
from common.guarantees import Guarantee, PrivacyLoss


def read_acknowledgements(
    connection: sqlite3.Connection, description: StoreDescription, condition: str, *values: str | int
) -> Iterator[Acknowledgement]:
    """Yield the answers to applied orders that meet a condition in SQL with some values, oldest first."""
    columns = (
        "number, request_id, state, records, entries, guarantee, seconds, reason, subject_records, "
        "record_epsilon, subject_epsilon"
    )
    query = f"SELECT {columns} FROM applied_orders WHERE {condition} ORDER BY number"  # noqa: S608 (callers' constants)
    for row in connection.execute(query, values).fetchall():
        number, request_id, state, records, entries, guarantee, seconds, reason, size, record, subject = row
        yield Acknowledgement(
            number=number,
            site=description.site,
            request_id=request_id,
            state=SiteState(state),
            records=records,
            entries=entries,
            guarantee=Guarantee(guarantee),
            seconds=seconds,
            reason=reason,
            record_loss=None if record is None else PrivacyLoss(record, description.delta),
            subject_loss=None if subject is None else PrivacyLoss(subject, description.delta, size),
        )


def is_answered(connection: sqlite3.Connection, number: int) -> bool:
    """Return whether an order was carried out or refused."""
    return connection.execute("SELECT 1 FROM applied_orders WHERE number = ?", (number,)).fetchone() is not None


def find_order(connection: sqlite3.Connection, request_id: str) -> int | None:
    """Return the number of the first order that brought a request; None if none has."""
    query = "SELECT min(number) FROM applied_orders WHERE request_id = ?"
    found: int | None = connection.execute(query, (request_id,)).fetchone()[0]
    return found


def write_refusal(connection: sqlite3.Connection, order: DeletionOrder, reason: str) -> None:
    """Write down, within the caller's transaction, that an order is refused, for a reason that names nobody.

    The answer claims the weakest guarantee: what the order names is still there.
    """
    connection.execute(
        "INSERT INTO applied_orders (number, request_id, state, records, entries, guarantee, seconds, "
        "reason, last_training, subject_records, finished) VALUES (?, ?, ?, 0, 0, ?, 0, ?, 0, 1, 1)",
        (order.number, order.request.request_id, SiteState.REFUSED.value, Guarantee.EMPIRICAL.value, reason),
    )

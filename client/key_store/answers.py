"""What a key store keeps of the orders that it has answered, read back into words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from fedmunkey.client.key_store.contents import StoreDescription
from fedmunkey.common.deletion import Acknowledgement, SiteState
from fedmunkey.common.guarantees import Guarantee, PrivacyLoss


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

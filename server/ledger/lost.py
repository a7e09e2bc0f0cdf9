"""A ledger that goes back to a copy: how a running service sees it, and which requests sites know that it lacks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import signature_digest
from fedmunkey.server.database.tables import EventRow, RequestRow
from fedmunkey.server.transparency_log.leaves import read_recalled


@dataclass(frozen=True)
class LostRequest:
    """A request, known by its digest, that some sites have answered and the ledger does not have."""

    request_id: str
    digest: bytes
    sites: tuple[str, ...]


@dataclass(frozen=True)
class LedgerMark:
    """The last event of a ledger at some time; events are never changed, so it stays unless the ledger is replaced."""

    event: int = 0
    at: datetime | None = None

    @classmethod
    def of(cls, connection: Connection) -> LedgerMark:
        """Return the mark of a ledger as it is."""
        row = connection.execute(
            select(EventRow.event, EventRow.at).order_by(EventRow.event.desc()).limit(1)
        ).one_or_none()
        return cls() if row is None else cls(row.event, row.at)

    def is_in(self, connection: Connection) -> bool:
        """Return whether a ledger still has all that it had when this was its mark."""
        at = connection.scalar(select(EventRow.at).where(EventRow.event == self.event))
        return not self.event or at == self.at


def find_lost(connection: Connection) -> tuple[LostRequest, ...]:
    """Return the requests that sites know and the ledger lacks, by their ids."""
    sites: dict[tuple[str, bytes], set[str]] = defaultdict(set)
    for receipt in map(Receipt.of, read_recalled(connection)):
        sites[receipt.answer.request_id, receipt.request].add(receipt.answer.site)
    ids = sorted({request_id for request_id, _ in sites})
    known: set[tuple[str, bytes | None]] = set()
    for first in range(0, len(ids), _IDS_AT_ONCE):
        rows = connection.execute(
            select(RequestRow.request_id, RequestRow.signature).where(
                RequestRow.request_id.in_(ids[first : first + _IDS_AT_ONCE])
            )
        )
        known |= {(row.request_id, signature_digest(row.signature or b"")) for row in rows}
    return tuple(LostRequest(*key, tuple(sorted(found))) for key, found in sorted(sites.items()) if key not in known)


_IDS_AT_ONCE = 500

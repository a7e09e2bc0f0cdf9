"""The receipts that a site has signed, and what it has seen of the coordinator's log: they lie in its journal."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.signing.statements import write_time


@dataclass(frozen=True)
class Alarm:
    """A fault of the coordinator's log, and when it was first and last seen."""

    fault: str
    first_seen: str
    last_seen: str


class ReceiptBook:
    """What a journal keeps of receipts and of the log; it raises `KeyStoreError` if the journal cannot be used."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def keep_all(self, receipts: Mapping[int, bytes]) -> dict[int, bytes]:
        """Keep orders' receipts, by number, and return them, or those that were kept before."""
        # A receipt that was sent must not be lost to a power failure: its successor would have another time.
        with self._journal.writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO receipts (number, receipt) VALUES (?, ?)", list(receipts.items())
            )
        kept = self.read_all(list(receipts))
        if kept.keys() != receipts.keys():
            raise KeyStoreError(f"{self._journal.path} does not keep what is written to it; check its disk")
        return kept

    def withdraw(self, number: int) -> None:
        """Look for an order's receipt in the log no more: the coordinator keeps another answer of this site."""
        with self._journal.writing() as connection:
            lowest = "(SELECT min(0, min(number)) - 1 FROM receipts)"
            connection.execute(f"UPDATE receipts SET number = {lowest} WHERE number = ?", (number,))  # noqa: S608

    def read_all(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the receipts of some orders by number; those that have none are left out."""
        query = "SELECT number, receipt FROM receipts WHERE number IN (SELECT value FROM json_each(?))"
        return dict(self._journal.query(query, (json.dumps(list(numbers)),)))

    def read_unproven(self, limit: int, *, without: Collection[int] = ()) -> dict[int, bytes]:
        """Return the oldest receipts of which the coordinator has not shown that they are in its log, by number."""
        query = (
            "SELECT number, receipt FROM receipts WHERE included = 0 AND number > 0 "
            "AND number NOT IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT ?"
        )
        return dict(self._journal.query(query, (json.dumps(list(without)), limit)))

    def count(self) -> tuple[int, int]:
        """Return how many receipts there are, and how many of them are known to be in the log."""
        ((signed, included),) = self._journal.query(
            "SELECT count(*), coalesce(sum(included), 0) FROM receipts WHERE number > 0"
        )
        return signed, included

    def head(self) -> WitnessedHead | None:
        """Return the last head that was checked; None if there has been none."""
        rows = self._journal.query("SELECT size, root FROM head WHERE size > 0")
        return WitnessedHead(*rows[0]) if rows else None

    def advance(self, head: WitnessedHead, envelope: bytes, proven: list[int]) -> None:
        """Keep a head that was checked, and which receipts it was shown to hold; a larger head is never replaced."""
        # A head that a power failure loses leaves the one before it, which the log extends as well.
        with self._journal.writing(waiting=False) as connection:
            connection.execute(
                "INSERT INTO head VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "root = excluded.root, envelope = excluded.envelope WHERE excluded.size > size",
                (head.size, head.root, envelope),
            )
            included = [(number,) for number in proven]
            connection.executemany("UPDATE receipts SET included = 1 WHERE number = ?", included)

    def raise_alarm(self, fault: str, at: datetime, evidence: bytes) -> None:
        """Keep a fault of the log for good, with the head that shows it."""
        with self._journal.writing() as connection:
            connection.execute(
                "INSERT INTO alarms (fault, first_seen, last_seen, envelope) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen",
                (fault, write_time(at), write_time(at), evidence),
            )

    def alarms(self) -> list[Alarm]:
        """Return every alarm, oldest first."""
        query = "SELECT fault, first_seen, last_seen FROM alarms ORDER BY id"
        return [Alarm(*row) for row in self._journal.query(query)]

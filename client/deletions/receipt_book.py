"""The receipts that a site has signed, and what it has seen of the coordinator's log: they lie in its journal."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import read_envelope, read_time, write_time


@dataclass(frozen=True)
class Alarm:
    """A fault of the coordinator's log, and when it was first and last seen."""

    fault: str
    first_seen: str
    last_seen: str


_HEAD = "SELECT size, root FROM head WHERE size > 0"


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

    def read_lost(self, limit: int) -> dict[int, bytes]:
        """Return receipts for orders that the ledger has lost, and that are not known to be in its log, by number."""
        query = "SELECT number, receipt FROM receipts WHERE included = 0 AND number < 0 ORDER BY number DESC LIMIT ?"
        return dict(self._journal.query(query, (limit,)))

    def last_before(self, time: datetime) -> int:
        """Return the number of the last order whose receipt was signed before a time; 0 if there is none."""
        numbers = [
            number for (number,) in self._journal.query("SELECT number FROM receipts WHERE number > 0 ORDER BY 1")
        ]

        def signed(number: int) -> datetime:
            return Receipt.of(read_envelope(self.read_all([number])[number])).time

        place = bisect_left(numbers, time, key=signed)
        return int(numbers[place - 1]) if place else 0

    def count(self) -> tuple[int, int]:
        """Return how many receipts there are, and how many of them are known to be in the log."""
        ((signed, included),) = self._journal.query(
            "SELECT count(*), coalesce(sum(included), 0) FROM receipts WHERE number > 0"
        )
        return signed, included

    def head(self) -> WitnessedHead | None:
        """Return the last head that was checked; None if there has been none."""
        rows = self._journal.query(_HEAD)
        return WitnessedHead(*rows[0]) if rows else None

    def head_time(self) -> datetime | None:
        """Return when the last head was seen, by the site's own clock where that was kept; None without a head."""
        rows = self._journal.query(
            "SELECT heads.at, envelope FROM head LEFT JOIN heads ON heads.size = head.size WHERE head.size > 0"
        )
        if not rows:
            return None
        at, envelope = rows[0]
        return LogHead.of(read_envelope(envelope)).time if at is None else read_time(at)

    def head_up_to(self, size: int) -> WitnessedHead | None:
        """Return the largest head of at most so many leaves that was checked; None if none was, or none was kept."""
        rows = self._journal.query(
            "SELECT size, root FROM (SELECT size, root FROM heads UNION SELECT size, root FROM head) "
            "WHERE size BETWEEN 1 AND ? ORDER BY size DESC LIMIT 1",
            (size,),
        )
        return WitnessedHead(*rows[0]) if rows else None

    def follow_restored(
        self,
        note: str,
        at: datetime,
        restored: Envelope,
        kept: int,
        head: WitnessedHead,
        envelope: bytes,
        seen: WitnessedHead,
    ) -> bool:
        """Go on from a head of a log that was restored from a copy of `kept` leaves, all receipts to be shown again.

        The head that was seen last is kept beside the statement, for good, as an alarm is. Returns whether that is
        still `seen`; nothing is done otherwise, as another program has looked meanwhile.
        """
        with self._journal.writing() as connection:
            if _head(connection) != seen:
                return False
            last = connection.execute("SELECT envelope FROM head").fetchone()
            evidence = {
                "restored": restored.to_document(),
                "lost": None if last is None or not last[0] else read_envelope(last[0]).to_document(),
            }
            connection.execute(
                "INSERT OR IGNORE INTO alarms (fault, first_seen, last_seen, envelope) VALUES (?, ?, ?, ?)",
                (note, write_time(at), write_time(at), canonical_json(evidence)),
            )
            connection.execute("DELETE FROM heads WHERE size > ?", (kept,))
            connection.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", (head.size, head.root, write_time(at)))
            connection.execute("UPDATE head SET size = ?, root = ?, envelope = ?", (head.size, head.root, envelope))
            connection.execute("UPDATE receipts SET included = 0")
        return True

    def advance(
        self, head: WitnessedHead, envelope: bytes, proven: list[int], at: datetime, seen: WitnessedHead | None
    ) -> bool:
        """Keep a head that was checked, and which receipts it was shown to hold; a larger head is never replaced.

        Returns whether it was checked against the head that is kept. Where another program has kept one since `seen`,
        nothing is: it may have followed a log that was restored, and this head be one of before.
        """
        # A head that a power failure loses leaves the one before it, which the log extends as well.
        with self._journal.writing(waiting=False) as connection:
            if _head(connection) != seen:
                return False
            connection.execute(
                "INSERT INTO head VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "root = excluded.root, envelope = excluded.envelope WHERE excluded.size > size",
                (head.size, head.root, envelope),
            )
            connection.execute("INSERT OR IGNORE INTO heads VALUES (?, ?, ?)", (head.size, head.root, write_time(at)))
            included = [(number,) for number in proven]
            connection.executemany("UPDATE receipts SET included = 1 WHERE number = ?", included)
        return True

    def raise_alarm(self, fault: str, at: datetime, evidence: bytes, seen: WitnessedHead | None) -> bool:
        """Keep a fault of the log for good, with the head that shows it.

        Returns whether the log was held against the head that is kept; nothing is done where another program has kept
        one since `seen`.
        """
        with self._journal.writing() as connection:
            if _head(connection) != seen:
                return False
            connection.execute(
                "INSERT INTO alarms (fault, first_seen, last_seen, envelope) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen",
                (fault, write_time(at), write_time(at), evidence),
            )
        return True

    def alarms(self) -> list[Alarm]:
        """Return every alarm, oldest first."""
        query = "SELECT fault, first_seen, last_seen FROM alarms ORDER BY id"
        return [Alarm(*row) for row in self._journal.query(query)]


def _head(connection: sqlite3.Connection) -> WitnessedHead | None:
    row = connection.execute(_HEAD).fetchone()
    return None if row is None else WitnessedHead(*row)

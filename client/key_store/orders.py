"""A key store's deletion orders: carrying them out, and what they were answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedmunkey.client.key_store.answers import read_answers
from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.deletion import Hear, apply_orders, finish_interrupted
from fedmunkey.client.key_store.erasure_check import ErasureCheck, check_erasure
from fedmunkey.client.key_store.on_disk.journal import Kept
from fedmunkey.client.key_store.on_disk.schema import not_waiting_for_disk, set_aside
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.key_store.removal import Hearing
from fedmunkey.common.deletions.order_chain import extend_chain
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.proofs.signed_requests import OpenedRequest

_CARRIED_OUT = (
    "SELECT number, request FROM applied_orders WHERE finished = 1 AND request IS NOT NULL "  # noqa: S608 (a state)
    f"AND json_extract(document, '$.state') <> '{SiteState.REFUSED}'"
)

_REQUEST_IDS = "SELECT number, request_id FROM applied_orders WHERE number > ? ORDER BY number"
_FAR = 2**63 - 1
"""Above every number of an order."""


def _hear(order: DeletionOrder) -> Hearing:
    return Hearing(OpenedRequest.of(order.request).digest)


class AppliedOrders:
    """What a site has been told to forget."""

    def __init__(self, database: StoreDatabase, privacy: PrivacyAccount) -> None:
        self._database = database
        self._connection = database.connection
        self._privacy = privacy

    @property
    def last(self) -> int:
        """The number of the last order that this site has applied; 0 before the first."""
        query = "SELECT max(0, coalesce(max(number), 0)) FROM applied_orders"
        return int(self._connection.execute(query).fetchone()[0])

    def chain(self) -> bytes | None:
        """Return the chain of the orders that this site has applied; None if one was applied by an earlier version."""
        chain = b""
        query = "SELECT number, request FROM applied_orders WHERE number > 0 ORDER BY number"
        for number, request in self._connection.execute(query):
            if request is None:
                return None
            chain = extend_chain(chain, number, request)
        return chain

    def apply(self, order: DeletionOrder) -> Acknowledgement:
        """Carry out one order; see `apply_all`."""
        return self.apply_all([order])[0]

    def apply_all(self, orders: Sequence[DeletionOrder], hear: Hear = _hear) -> list[Acknowledgement]:
        """Carry out or refuse several orders, once, which wait for the disk together, and return their answers.

        An order that was answered before keeps its answer, and so does a request that was carried out under another
        number. An answer's guarantee is the site's promise, or less where
        shared weights that left the site may hold more of a deleted record than the promise allows. When this returns,
        neither the database nor its write-ahead log holds the bytes of what was deleted.

        Parameters
        ----------
        orders : sequence of DeletionOrder
            With ascending numbers.
        hear : callable
            Given an order that has no answer yet, says what the site makes of it. It is asked in turn, within the
            transaction; by default every order is carried out.

        Raises
        ------
        KeyStoreError
            If an order is for another site, skips one, or another process keeps the log from being emptied or has set
            answers aside. All of the orders can be applied again; where the transaction failed, none was applied.
        """
        last = self.last
        self._check_turns(orders, last)
        self._make_place(orders, last)
        self._tell_targets(orders, last)
        answers = apply_orders(self._database, self._privacy, orders, hear)
        if [answer.number for answer in answers] != [order.number for order in orders]:
            raise KeyStoreError(
                "another of the site's programs follows a restored ledger meanwhile and has set answers aside; "
                "orders are heard again"
            )
        return answers

    def lacks_targets(self) -> bool:
        """Return whether the journal has lost, or never had, what an order named that this site has carried out.

        It comes to know it when the orders are heard again from the first one.
        """
        kept = {request for (request,) in self._database.journal.query("SELECT request FROM targets")}
        return any(request not in kept for _, request in self._connection.execute(f"{_CARRIED_OUT} AND number > 0"))

    def rectified(self, number: int) -> int:
        """Return how many corrected records took the place of what an order erased."""
        query = "SELECT coalesce(sum(records), 0) FROM rectified WHERE number = ?"
        return int(self._connection.execute(query, (number,)).fetchone()[0])

    def request_of(self, number: int) -> bytes | None:
        """Return the digest of the request that an order brought; None if it was not applied, or that was not kept."""
        row = self._connection.execute("SELECT request FROM applied_orders WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def erased_after(self, number: int) -> int:
        """Return how many records the orders above a number have erased, those of an open transaction as well."""
        query = "SELECT coalesce(sum(json_extract(document, '$.records')), 0) FROM applied_orders WHERE number > ?"
        return int(self._connection.execute(query, (number,)).fetchone()[0])

    def erasing(self, after: int, below: int = -_FAR) -> list[str]:
        """Return the ids of requests whose orders erased bank entries, oldest first, without reading other answers.

        Those are orders with numbers above one or below another: what was set aside has numbers below 0.
        """
        query = (
            "SELECT json_extract(document, '$.requestId') FROM applied_orders WHERE finished = 1 "
            "AND json_extract(document, '$.entries') > 0 AND (number > ? OR number < ?) ORDER BY number"
        )
        return list(dict.fromkeys(request for (request,) in self._connection.execute(query, (after, below))))

    def read_answers(self) -> list[Acknowledgement]:
        """Return the answers to every order that this site has applied, oldest first.

        A deletion whose erasure a crash interrupted has no answer before it is finished.
        """
        return read_answers(self._connection, "finished = 1")

    def read_unacknowledged(self) -> list[Acknowledgement]:
        """Return the answers that the deletion service has not been told yet, oldest first.

        A deletion whose erasure a crash interrupted is finished first.
        """
        finish_interrupted(self._database, self._privacy)
        return read_answers(self._connection, "acknowledged = 0 AND finished = 1")

    def unacknowledged(self) -> list[int]:
        """Return the numbers of the orders whose answers the deletion service has not been told yet."""
        query = "SELECT number FROM applied_orders WHERE acknowledged = 0 ORDER BY number"
        return [number for (number,) in self._connection.execute(query)]

    def mark_acknowledged(self, *numbers: int) -> None:
        """Note that the deletion service has this site's answers to some orders."""
        self._mark(numbers, acknowledged=True)

    def mark_unacknowledged(self, *numbers: int) -> None:
        """Note that the deletion service has lost this site's answers to some orders."""
        self._mark(numbers, acknowledged=False)

    def _mark(self, numbers: Sequence[int], *, acknowledged: bool) -> None:
        with not_waiting_for_disk(self._connection), self._database.writing() as connection:
            query = "UPDATE applied_orders SET acknowledged = ? WHERE number = ?"
            connection.executemany(query, [(acknowledged, number) for number in numbers])

    def request_ids(self) -> dict[int, str]:
        """Return the requests' ids by the numbers under which this site has applied them, set aside ones left out."""
        return dict(self._connection.execute(_REQUEST_IDS, (0,)))

    def set_aside(self, after: int, was: Mapping[int, str]) -> None:
        """Give up the numbers of the orders above one, which a ledger that was restored from a copy gives to others.

        What became of their requests stays known by the requests' digests. `was` is what `request_ids` gave when that
        was found out: where another of the site's programs has set some aside meanwhile and has applied others, it
        knows better, and nothing is given up.
        """
        finish_interrupted(self._database, self._privacy)
        with self._database.writing() as connection:
            above = connection.execute(_REQUEST_IDS, (after,)).fetchall()
            if any(was.get(number) != request_id for number, request_id in above):
                return
            # First: a receipt must never lie where that of another order will be looked for.
            self._database.journal.set_aside(after)
            connection.execute("UPDATE applied_orders SET acknowledged = 1 WHERE number > ?", (after,))
            for table in ("fingerprints", "rectified", "applied_orders"):
                set_aside(connection, table, after)

    def check_erasure(
        self, number: int, folders: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> ErasureCheck:
        """Search all files under some folders for the bytes of what an order deleted, as `erasure_check` says."""
        return check_erasure(self._database, number, folders, progress)

    def _make_place(self, orders: Sequence[DeletionOrder], last: int) -> None:
        """Set aside what was applied under numbers that stand for other requests by now."""
        if orders[0].number > last:
            return
        query = "SELECT request_id, request FROM applied_orders WHERE number = ?"
        was = self.request_ids()
        for order in orders:
            row = self._connection.execute(query, (order.number,)).fetchone()
            if row is None:
                return
            request_id, request = row
            digest = OpenedRequest.of(order.request).digest
            if request is None and request_id == order.request.request_id:
                with self._database.writing() as connection:
                    connection.execute("UPDATE applied_orders SET request = ? WHERE number = ?", (digest, order.number))
            elif request != digest:
                self.set_aside(order.number - 1, was)
                return

    def _tell_targets(self, orders: Sequence[DeletionOrder], last: int) -> None:
        """Tell the journal what orders named that were carried out before, where it was lost or has not been told."""
        hashes = self._database.reference_hashes
        heard = {order.number: OpenedRequest.of(order.request) for order in orders if order.number <= last}
        if not heard:
            return
        named = "request_id IN (SELECT value FROM json_each(?))"
        known = self._database.journal.query(
            f"SELECT request FROM targets WHERE {named}",  # noqa: S608 (a constant)
            (json.dumps([opened.request.request_id for opened in heard.values()]),),
        )
        carried_out = self._connection.execute(
            f"{_CARRIED_OUT} AND number IN (SELECT value FROM json_each(?))",  # noqa: S608 (a constant)
            (json.dumps(list(heard)),),
        )
        rows = [
            (opened.request.request_id, hashes.commitment(opened.request.target), request)
            for number, request in carried_out.fetchall()
            if (opened := heard[number]).genuine and opened.digest == request and (request,) not in known
        ]
        if rows:
            self._database.journal.add(Kept.TARGETS, *rows)

    def _check_turns(self, orders: Sequence[DeletionOrder], last: int) -> None:
        site = self._database.description.site
        expected = last + 1
        for order in orders:
            if order.site != site:
                raise KeyStoreError(f"order {order.number} is for {order.site}, this key store belongs to {site}")
            if order.number > expected:
                raise KeyStoreError(
                    f"order {order.number} came before order {expected}; watch the stream from the start"
                )
            expected = max(expected, order.number + 1)

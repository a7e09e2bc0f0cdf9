"""A key store's deletion orders: carrying them out, what they were answered, and copies that they must reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from client.key_store.answers import read_acknowledgements
from client.key_store.deletion import Objection, apply_orders, finish_interrupted
from client.key_store.erasure_check import ErasureCheck, check_erasure
from client.key_store.journal import BACKUP
from client.key_store.opened import OpenedStore
from client.key_store.refusal import find_order
from client.key_store.restoration import back_up, finish_restoring
from client.key_store.schema import not_waiting_for_disk
from common.deletion import Acknowledgement, DeletionOrder
from common.errors import KeyStoreError


def _none(_order: DeletionOrder) -> str:
    return ""


class AppliedOrders(OpenedStore):
    """What a site has been told to forget."""

    def read_applied(self) -> list[Acknowledgement]:
        """Return the answers to every order that this site has applied, oldest first.

        A deletion whose erasure a crash interrupted has no answer before it is finished.
        """
        return list(read_acknowledgements(self._connection, self.description, "finished = 1"))

    @property
    def last_order(self) -> int:
        """The number of the last order that this site has applied; 0 before the first."""
        return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM applied_orders").fetchone()[0])

    def apply(self, order: DeletionOrder) -> Acknowledgement:
        """Carry out a deletion order, once; a second time it returns the same answer.

        The answer's guarantee is the site's promise, or less where shared weights that left the site may hold more of
        a deleted record than the promise allows.

        When this returns, neither the database nor its write-ahead log holds the bytes of what was deleted.

        Raises
        ------
        KeyStoreError
            If the order is for another site, skips one, or another process keeps the log from being emptied; the order
            can be applied again.
        """
        return self.apply_all([order])[0]

    def apply_all(self, orders: Sequence[DeletionOrder], objection: Objection = _none) -> list[Acknowledgement]:
        """Carry out or refuse several orders, which wait for the disk together, and return their answers.

        Parameters
        ----------
        orders : sequence of DeletionOrder
            With ascending numbers.
        objection : callable
            Given an order that has no answer yet, says why it is to be refused; empty if it is to be carried out. It is
            asked in turn, within the transaction, so that `find_order` knows of the orders before.

        Raises
        ------
        KeyStoreError
            As `apply` does. All of the orders can be applied again; where the transaction failed, none was applied.
        """
        self._check_turns(orders)
        return apply_orders(self._connection, orders, self._around, objection)

    def refuse(self, order: DeletionOrder, reason: str) -> Acknowledgement:
        """Answer an order without carrying it out; nothing is deleted. Raises as `apply` does.

        An order that was answered before keeps its answer.
        """
        return self.apply_all([order], lambda _: reason)[0]

    def find_order(self, request_id: str) -> int | None:
        """Return the number of the first order that brought a request, carried out or refused; None if none has."""
        return find_order(self._connection, request_id)

    def read_unacknowledged(self) -> list[Acknowledgement]:
        """Return the answers that the deletion service has not been told yet, oldest first.

        A deletion whose erasure a crash interrupted is finished first.
        """
        finish_interrupted(self._connection, self._around)
        return list(read_acknowledgements(self._connection, self.description, "acknowledged = 0"))

    def unacknowledged(self) -> list[int]:
        """Return the numbers of the orders whose answers the deletion service has not been told yet."""
        query = "SELECT number FROM applied_orders WHERE acknowledged = 0 ORDER BY number"
        return [number for (number,) in self._connection.execute(query)]

    def finish_restoring(self) -> int:
        """Make a restored store usable after every order since the backup has been applied again.

        Records whose keys were destroyed go, whether an order named them or not, and so do keys without a record.

        Returns
        -------
        int
            Records that no order named, because the coordinator has forgotten it.
        """
        if not self.is_restored:
            return 0
        return finish_restoring(self._connection, self.keys)

    def back_up(self, output: Path, now: datetime) -> int:
        """Copy the store, while it is in use, into a new file; return its size in bytes.

        Raises
        ------
        KeyStoreError
            If the file is there already or cannot be written, or the store itself is restored and not caught up.
        """
        self._check_caught_up()
        size = back_up(self._connection, output)
        try:
            self.journal.add(BACKUP, {"at": now.isoformat(), "last_order": self.last_order})
        except KeyStoreError:
            output.unlink()
            raise
        return size

    def check_erasure(
        self, number: int, folders: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> ErasureCheck:
        """Search all files under some folders for the bytes of what an order deleted, as `erasure_check` says."""
        return check_erasure(self._connection, self.keys, self.hashes.key, number, folders, progress)

    def last_backup(self) -> str | None:
        """Return when the last backup was taken, ISO 8601 in UTC; None before the first."""
        taken = self.journal.read(BACKUP)
        return str(taken[-1]["at"]) if taken else None

    def count_unanswered(self) -> int:
        """Return how many orders were applied whose answers the deletion service does not have yet."""
        query = "SELECT count(*) FROM applied_orders WHERE acknowledged = 0"
        return int(self._connection.execute(query).fetchone()[0])

    def mark_acknowledged(self, *numbers: int) -> None:
        """Note that the deletion service has this site's answers to some orders."""
        with not_waiting_for_disk(self._connection), self._writing() as connection:
            connection.executemany(
                "UPDATE applied_orders SET acknowledged = 1 WHERE number = ?", [(number,) for number in numbers]
            )

    def _check_turns(self, orders: Sequence[DeletionOrder]) -> None:
        site = self.description.site
        expected = self.last_order + 1
        for order in orders:
            if order.site != site:
                raise KeyStoreError(f"order {order.number} is for {order.site}, this key store belongs to {site}")
            if order.number > expected:
                raise KeyStoreError(
                    f"order {order.number} came before order {expected}; watch the stream from the start"
                )
            expected = max(expected, order.number + 1)

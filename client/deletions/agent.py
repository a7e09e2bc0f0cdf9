"""Hearing and carrying out deletion orders: catching up before a round, and the agent that follows the stream."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder
from fedmunkey.common.errors import FedmunkeyError, InvalidDeletion, KeyStoreError, NotAllowed, ServiceUnavailable
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.service.deletion_service import MOST_TOGETHER, DeletionService
from fedmunkey.common.service.waiting import Draw, Wait, jitter, pauses, wait_for_service

logger = logging.getLogger(__name__)


class Answering:
    """Carries out orders and gives the answers to the service; what it does not take stays pending in the store."""

    def __init__(self, store: KeyStore, service: DeletionService, proofs: SiteProofs) -> None:
        self._store = store
        self._service = service
        self._proofs = proofs
        self._refused: set[tuple[int, str]] = set()

    def apply(self, orders: Sequence[DeletionOrder]) -> list[Acknowledgement]:
        """Carry out or refuse orders, and give their answers and every other that the service does not have."""
        last = self._store.orders.last
        acknowledgements = self._carry_out(orders, self.give)
        if lost := [order.number for order in orders if order.number <= last and order.answer is None]:
            self._store.orders.mark_unacknowledged(*lost)
        self.give()
        return acknowledgements

    def apply_from_the_first(self, lists: Iterable[Sequence[DeletionOrder]]) -> list[Acknowledgement]:
        """Apply a ledger's orders from the first one, and give the answers that it lacks; return those that are news.

        What the site has applied under numbers that the ledger does not have, or has given to others, is set aside. A
        request that was carried out under another number is answered as it was.
        """
        known, was = set(self._store.orders.read_answers()), self._store.orders.request_ids()
        answers: list[Acknowledgement] = []
        unanswered: list[int] = []
        for orders in lists:
            answers += self._carry_out(orders)
            unanswered += [order.number for order in orders if order.answer is None]
        self._store.orders.set_aside(answers[-1].number if answers else 0, was)
        self._store.orders.mark_unacknowledged(*unanswered)
        self.give()
        return [answer for answer in answers if answer not in known]

    def _carry_out(
        self, orders: Sequence[DeletionOrder], after_each: Callable[[], None] | None = None
    ) -> list[Acknowledgement]:
        """Carry out or refuse orders.

        All of them are one transaction. Where that fails they are applied one by one, so that those before the one at
        fault do not wait for it.
        """
        for _ in orders:
            hit(Failpoint.APPLY_RECEIVED)
        if orders:
            # A hold that was placed while the orders were on their way keeps what it names.
            self._proofs.hear_instructions(self._service)
            # Before, so that no answer is given while it is there.
            SiteFolder(self._store.path.parent).remove_contact_sheet()
        try:
            return self._proofs.carry_out_all(orders)
        except (FedmunkeyError, sqlite3.Error, OSError):
            if len(orders) == 1:
                raise
            acknowledgements = []
            for order in orders:
                acknowledgements += self._proofs.carry_out_all([order])
                if after_each is not None:
                    after_each()
            return acknowledgements

    def give(self) -> None:
        """Give every answer that the service does not have, some hundred in one call.

        An answer that the service refuses is logged and stays pending, unless the service has another one of this site
        to the same order, and is not given again by this object: the deletion was carried out, and the orders behind it
        must be as well. Raises `ServiceUnavailable` if the service
        cannot be reached. Raises `KeyStoreError` if a receipt is missing, and the service does not send its order again
        as it was.
        """
        pending = [
            answer
            for answer in self._store.orders.read_unacknowledged()
            if (answer.number, answer.request_id) not in self._refused
        ]
        for first in range(0, len(pending), MOST_TOGETHER):
            answers = [self._proofs.answer(self._service, answer) for answer in pending[first : first + MOST_TOGETHER]]
            for _ in answers:
                hit(Failpoint.ANSWER_BEFORE_SEND)
            taken = self._give_together(answers)
            for _ in taken:
                hit(Failpoint.ANSWER_AFTER_SEND)
            if taken:
                self._store.orders.mark_acknowledged(*taken)
            for _ in taken:
                hit(Failpoint.ANSWER_NOTED)

    def _give_together(self, answers: Sequence[Acknowledgement]) -> list[int]:
        """Give answers and return the numbers of those that the service has."""
        if len(answers) > 1:
            try:
                self._service.acknowledge_all(answers)
            except InvalidDeletion:
                # Which of them is refused is not said; the same answer may be given any number of times.
                return [number for answer in answers for number in self._give_together([answer])]
            return [answer.number for answer in answers]
        (answer,) = answers
        try:
            self._service.acknowledge(answer)
        except InvalidDeletion as error:
            if self._proofs.leave_answer(self._service, answer):
                logger.warning(
                    "order %d was answered by this site before, and the service keeps that: %s", answer.number, error
                )
                return [answer.number]
            self._refused.add((answer.number, answer.request_id))
            logger.error(
                "order %d was answered, but the service refuses the answer: %s; it stays pending", answer.number, error
            )
            return []
        return [answer.number]


def catch_up(
    store: KeyStore, service: DeletionService, *, clock: Callable[[], datetime] = utc_now
) -> list[Acknowledgement]:
    """Apply every order that this site has not applied, and give every answer that the service does not have.

    All orders are asked for where the ledger is not the one that the site has followed, as one that was restored from a
    copy, or the site's journal was lost. Returns the answers to the orders that were applied. Requests expire by the
    clock. Raises `ServiceUnavailable` if the service cannot be reached; what was applied stays applied.
    """
    proofs = SiteProofs(store, clock=clock)
    answering = Answering(store, service, proofs)
    site, chain = store.description.site, store.orders.chain()
    lists: Iterator[list[DeletionOrder]] | None = None
    mismatch = ""
    if chain is not None and not store.orders.lacks_targets():
        lists = service.watch_together(site, store.orders.last, chain=chain)
        try:
            lists = itertools.chain([next(lists, [])], lists)
        except NotAllowed:
            raise
        except InvalidDeletion as error:
            mismatch, lists = str(error), None
    if lists is None:
        applied = answering.apply_from_the_first(service.watch_together(site, 0))
        if mismatch:
            # A site that is not served at all hears that as an error, and once.
            logger.warning("%s", mismatch)
    else:
        answering.give()
        applied = [answer for together in lists if together for answer in answering.apply(together)]
    proofs.hear_instructions(service)
    store.finish_restoring()
    proofs.witness(service)
    return applied


def catch_up_patiently(
    store: KeyStore,
    service: DeletionService,
    *,
    patience: float,
    wait: Wait = time.sleep,
    draw: Draw | None = None,
) -> list[Acknowledgement]:
    """Catch up, waiting for a service that cannot be reached, and saying so.

    A site that cannot hear deletions must not go on learning. Raises `ServiceUnavailable` if the service is still out
    of reach after `patience` seconds.
    """
    return wait_for_service(lambda: catch_up(store, service), patience=patience, wait=wait, draw=draw or jitter())


class DeletionAgent:
    """Follows a site's stream of orders and carries each out as it comes, together with those that came meanwhile.

    Several may follow the same site's: each order is applied once, and all give the same answer. It has a connection of
    its own to the key store. `on_order` is called with each answer, after the service has it or has refused it.
    """

    def __init__(
        self,
        store: KeyStore,
        service: DeletionService,
        *,
        draw: Draw | None = None,
        on_order: Callable[[Acknowledgement], None] | None = None,
    ) -> None:
        self._store = store
        self._service = service
        self._on_order = on_order
        self._draw = draw or jitter()
        self._pauses = pauses(self._draw)
        self._refused = ""

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set and the stream ends; what may pass is tried again and again.

        That is a service that cannot be reached, or that refuses this site as one that was revoked, which is said once,
        a key store that others keep busy, and a full disk. Whoever sets `stop` also closes the service, which ends the
        stream. Raises `InvalidDeletion` if the service does not serve this site's orders from where it is. Raises
        `sqlite3.DatabaseError` if the key store is damaged.
        """
        while not stop.is_set():
            try:
                self._follow()
            except BrokenPipeError:
                # Nobody reads what `on_order` prints any more.
                raise
            except NotAllowed as error:
                if str(error) != self._refused:
                    self._refused = str(error)
                    logger.error(
                        "the coordinator refuses this site: %s; no order is heard until it takes the site again, which "
                        "is tried without a further word",
                        error,
                    )
                stop.wait(next(self._pauses))
            except (ServiceUnavailable, KeyStoreError, sqlite3.OperationalError, OSError) as error:
                if stop.is_set():
                    return
                seconds = next(self._pauses)
                logger.warning("%s; trying again in %.1f s", error, seconds)
                stop.wait(seconds)

    def _follow(self) -> None:
        orders = self._store.orders
        if self._store.is_restored or orders.chain() is None or orders.lacks_targets():
            self._tell(catch_up(self._store, self._service))
        try:
            self._follow_on()
        except NotAllowed:
            raise
        except InvalidDeletion:
            # The ledger may be another one; a service that does not serve this site says so again.
            self._tell(catch_up(self._store, self._service))
            self._follow_on()

    def _follow_on(self) -> None:
        proofs = SiteProofs(self._store)
        answering = Answering(self._store, self._service, proofs)
        answering.give()
        proofs.witness(self._service)
        site, last, chain = self._store.description.site, self._store.orders.last, self._store.orders.chain()
        for orders in self._service.watch_together(site, last, follow=True, chain=chain or b""):
            acknowledgements = answering.apply(orders)
            proofs.witness(self._service)
            self._pauses, self._refused = pauses(self._draw), ""
            self._tell(acknowledgements)

    def _tell(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        if self._on_order is not None:
            for acknowledgement in acknowledgements:
                self._on_order(acknowledgement)

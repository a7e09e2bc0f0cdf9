"""Hearing and carrying out deletion orders: catching up before a round, and the agent that follows the stream."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from client.key_store import KeyStore
from common.deletion import Acknowledgement
from common.deletion_service import DeletionService
from common.errors import KeyStoreError, ServiceUnavailable
from common.waiting import Wait, pauses, wait_for_service

logger = logging.getLogger(__name__)


def catch_up(store: KeyStore, service: DeletionService) -> list[Acknowledgement]:
    """Apply every order that this site has not applied, and give every answer that the service does not have.

    Returns
    -------
    list of Acknowledgement
        Answers to the orders that were applied.

    Raises
    ------
    ServiceUnavailable
        If the service cannot be reached; what was applied stays applied.
    """
    _acknowledge(store, service)
    applied = []
    for order in service.watch(store.description.site, store.last_order):
        applied.append(store.apply(order))
        _acknowledge(store, service)
    store.finish_restoring()
    return applied


def catch_up_patiently(
    store: KeyStore,
    service: DeletionService,
    *,
    patience: float,
    wait: Wait = time.sleep,
) -> list[Acknowledgement]:
    """Catch up, waiting for a service that cannot be reached, and saying so.

    Parameters
    ----------
    store, service
        As for `catch_up`.
    patience : float
        Seconds after which to give up: a site that cannot hear deletions must not go on learning.
    wait : callable
        Waits between two attempts.

    Raises
    ------
    ServiceUnavailable
        If the service is still out of reach after `patience` seconds.
    """
    return wait_for_service(lambda: catch_up(store, service), patience=patience, wait=wait)


class DeletionAgent:
    """Follows a site's stream of orders and carries each out as it comes.

    Parameters
    ----------
    store : KeyStore
        The site's key store; the agent has a connection of its own to it.
    service : DeletionService
        Where orders come from.
    on_order : callable, optional
        Called with each answer, after the service has it.
    """

    def __init__(
        self,
        store: KeyStore,
        service: DeletionService,
        *,
        on_order: Callable[[Acknowledgement], None] | None = None,
    ) -> None:
        self._store = store
        self._service = service
        self._on_order = on_order
        self._pauses = pauses()

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set and the stream ends; a service that cannot be reached is tried again and again.

        Whoever sets `stop` also closes the service, which ends the stream.
        """
        while not stop.is_set():
            try:
                self._follow()
            except (ServiceUnavailable, KeyStoreError) as error:
                if stop.is_set():
                    return
                seconds = next(self._pauses)
                logger.warning("%s; trying again in %.1f s", error, seconds)
                stop.wait(seconds)

    def _follow(self) -> None:
        if self._store.is_restored:
            catch_up(self._store, self._service)
        _acknowledge(self._store, self._service)
        for order in self._service.watch(self._store.description.site, self._store.last_order, follow=True):
            acknowledgement = self._store.apply(order)
            _acknowledge(self._store, self._service)
            self._pauses = pauses()
            if self._on_order is not None:
                self._on_order(acknowledgement)


def _acknowledge(store: KeyStore, service: DeletionService) -> None:
    for acknowledgement in store.read_unacknowledged():
        service.acknowledge(acknowledgement)
        store.mark_acknowledged(acknowledgement.number)

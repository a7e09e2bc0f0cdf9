"""The deletion service over the ledger: who may ask is decided by the policy, what was asked is kept by the ledger.

What the service does with signatures is in `server.proofs`. Without that, a requester is whoever it says it is, and the
service must only be reached by those who are trusted.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.deletion import Acknowledgement, DeletionOrder, DeletionRequest, RequestStatus, SiteState
from common.deletion_service import DeletionService, StatusPage
from common.errors import InvalidDeletion
from common.log_heads import LogUpdate
from common.wire import check_fits_into_message
from server.ledger import REQUEST_ID_CHARACTERS, DeletionConflict, Ledger
from server.policy import addressed_sites
from server.proofs import CoordinatorProofs

_REASON_CHARACTERS = 1000
_LARGEST_NUMBER = 2**63 - 1


class LedgerService(DeletionService):
    """The coordinator's deletion service; safe for threads. One service has a ledger to itself while it runs.

    Parameters
    ----------
    ledger : Ledger
        Where requests are kept; it stays open when the service closes.
    on_round : callable, optional
        Called with a round's number after the round was written down and before its pending orders are counted, by one
        thread at a time. It may submit requests and may take its time. If a caller repeats `open_round` because an
        answer was lost, it is called again.
    proofs : CoordinatorProofs, optional
        Checks signatures and keeps the transparency log.
    """

    def __init__(
        self,
        ledger: Ledger,
        on_round: Callable[[int], None] | None = None,
        *,
        proofs: CoordinatorProofs | None = None,
    ) -> None:
        self._ledger = ledger
        self._proofs = proofs
        self._on_round = on_round
        self._round_lock = threading.Lock()
        self._followers: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)
        self._followers_lock = threading.Lock()
        self._closed = threading.Event()

    def submit(self, request: DeletionRequest) -> RequestStatus:
        """Write a request to the ledger, then wake the followers of every site that it addresses.

        Raises
        ------
        InvalidDeletion
            As `DeletionService.submit`, and if the request id is too long or not printable, or the request names more
            records than one message can carry.
        """
        if len(request.request_id) > REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
            raise InvalidDeletion(f"a request id must have 1 to {REQUEST_ID_CHARACTERS} printable characters")
        check_fits_into_message(request)
        sites = addressed_sites(request, self._ledger.site_names())
        if self._proofs is not None:
            self._proofs.check_request(request)
            sites = self._proofs.enter_request(request, sites)
        status = self._ledger.enter(request, sites)
        for progress in status.sites:
            self._wake(progress.site)
        return status

    def get(self, request_id: str) -> RequestStatus:
        """Return one request's status; see `DeletionService.get`."""
        return self._ledger.status(request_id)

    def page(self, page: str = "", size: int = 100) -> StatusPage:
        """Return up to `size` requests, from 1 to 1000; see `DeletionService.page`."""
        return self._ledger.page(page, size)

    def watch(self, site: str, after: int, *, follow: bool = False) -> Iterator[DeletionOrder]:
        """Yield a site's orders with numbers above `after`; see `DeletionService.watch`.

        With `follow`, the iterator ends when the service is closed.

        Raises
        ------
        InvalidDeletion
            At once, as `check_position` does.
        """
        self.check_position(site, after)
        return self._follow(site, after) if follow else self._backlog(site, after)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Write a site's answer to the ledger.

        Raises
        ------
        InvalidDeletion
            As `DeletionService.acknowledge`, and if the answer contradicts itself.
        """
        _check_answer(acknowledgement)
        if self._proofs is None:
            self._ledger.acknowledge(acknowledgement)
            return
        order = self.next_order(acknowledgement.site, acknowledgement.number - 1)
        if order is not None:
            self._proofs.check_receipt(acknowledgement, order.request)
        self._ledger.acknowledge(acknowledgement)
        self._proofs.enter_receipt(acknowledgement)

    def log_update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:
        """Return the log's head with proofs; see `DeletionService.log_update`."""
        return None if self._proofs is None else self._proofs.update(seen_size, leaves)

    def certificate(self, request_id: str) -> bytes:
        """Return a request's certificate; see `DeletionService.certificate`."""
        status = self._ledger.status(request_id)
        return super().certificate(request_id) if self._proofs is None else self._proofs.certificate(status)

    def open_round(self, number: int) -> int:
        """Write down that a round begins, let `on_round` act, and return how many orders are not answered yet."""
        if not 0 <= number <= _LARGEST_NUMBER:
            raise InvalidDeletion(f"round {number} does not exist; rounds are numbered from 0")
        with self._round_lock:
            self._ledger.open_round(number)
            if self._on_round is not None:
                self._on_round(number)
            return self._ledger.pending()

    def check_position(self, site: str, after: int) -> None:
        """Check that a site which has applied orders up to `after` can go on from there.

        Raises
        ------
        InvalidDeletion
            If the site is not registered, `after` is negative, or the ledger has no order with that number: it was
            replaced by an older copy, or the site belongs to another federation, and would skip the next orders.
        """
        last = self._ledger.last_number(site)
        if after < 0:
            raise InvalidDeletion(f"orders are numbered from 1; there is none after {after}")
        if after > last:
            raise DeletionConflict(
                f"site {site!r} has applied order {after}, but this ledger ends at order {last}: "
                "it is another ledger or an older copy; start the service with the ledger that the site has followed"
            )

    def next_order(self, site: str, after: int) -> DeletionOrder | None:
        """Return the order that follows number `after` at a site, or None if there is none yet."""
        order = self._ledger.order(site, after + 1)
        return order if order is None or self._proofs is None else self._proofs.sign_order(order)

    @contextmanager
    def following(self, site: str, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called whenever a site may have new orders, and when the service is closed.

        It is called by other threads, must not block, and is not called once the context has ended.
        """
        with self._followers_lock:
            self._followers[site].add(wake)
        try:
            yield
        finally:
            with self._followers_lock:
                self._followers[site].discard(wake)
                if not self._followers[site]:
                    del self._followers[site]

    @property
    def closed(self) -> bool:
        """Whether the service has been closed."""
        return self._closed.is_set()

    def close(self) -> None:
        """End every stream that is being followed."""
        self._closed.set()
        with self._followers_lock:
            sites = list(self._followers)
        for site in sites:
            self._wake(site)

    def _wake(self, site: str) -> None:
        with self._followers_lock:
            for wake in self._followers.get(site, ()):
                wake()

    def _backlog(self, site: str, after: int) -> Iterator[DeletionOrder]:
        while (order := self.next_order(site, after)) is not None:
            yield order
            after = order.number

    def _follow(self, site: str, after: int) -> Iterator[DeletionOrder]:
        woken = threading.Event()
        with self.following(site, woken.set):
            while not self.closed:
                # Cleared before the ledger is read, so that an order which is written meanwhile is not missed.
                woken.clear()
                for order in self._backlog(site, after):
                    yield order
                    after = order.number
                    if self.closed:
                        return
                if not self.closed:
                    woken.wait()


def _check_answer(answer: Acknowledgement) -> None:
    fault = ""
    if not answer.state.final:
        fault = f"its state is {answer.state.value!r}, which is no answer"
    elif not 0 <= answer.entries <= answer.records <= _LARGEST_NUMBER:
        fault = f"{answer.entries} entries of {answer.records} records are not possible"
    elif answer.state is not SiteState.ERASED and answer.records:
        fault = f"its state is {answer.state.value!r}, yet {answer.records} records were erased"
    elif not (math.isfinite(answer.seconds) and answer.seconds >= 0):
        fault = f"it took {answer.seconds} seconds"
    elif len(answer.reason) > _REASON_CHARACTERS or not answer.reason.isprintable():
        fault = f"its reason is not one line of at most {_REASON_CHARACTERS} printable characters"
    elif not 1 <= answer.number <= _LARGEST_NUMBER:
        fault = "orders are numbered from 1"
    if fault:
        raise InvalidDeletion(f"the answer of site {answer.site!r} to order {answer.number} cannot be kept: {fault}")

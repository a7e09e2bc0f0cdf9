"""The deletion service over the ledger: who may ask is decided by the policy, what was asked is kept by the ledger.

What the service does with signatures is in `server.deletions.coordinator_proofs`. Without that, a requester
is whoever it says it is, and the service must only be reached by those who are trusted.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from fedmunkey.common.deletions.listing import Moved, Overview, RequestQuery, RequestsFound, SiteQuery, SitesFound
from fedmunkey.common.deletions.order_chain import extend_chain
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, DeletionRequest, Move, RequestStatus
from fedmunkey.common.errors import DeletionHeld, InvalidDeletion, ServiceUnavailable
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.proofs.log_heads import LogUpdate
from fedmunkey.common.proofs.signed_requests import OpenedRequest, signature_digest
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.deletion_service import StatusPage
from fedmunkey.common.service.wire import check_size
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.ledger.ledger import REQUEST_ID_CHARACTERS, DeletionConflict, Ledger
from fedmunkey.server.ledger.moves import LedgerMoves

MOST_ORDERS = 256
"""Orders of one site that are held at a time while they are sent."""

_Result = TypeVar("_Result")

_LARGEST_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class News:
    """What the followers of some sites should know.

    `numbers` has each site's newest order. `request` is what these orders are for, where all are for the same;
    otherwise they are in the ledger. Sites in `left` are no longer in the federation. With `replaced`, the ledger is
    another one than before, and everybody begins again.
    """

    numbers: Mapping[str, int]
    request: DeletionRequest | None = None
    left: Collection[str] = field(default=())
    replaced: bool = False


class LedgerService(ConsoleService):
    """The coordinator's deletion service; safe for threads. Several may share a ledger, in one process or more.

    The ledger stays open when the service closes. `on_round` is called with a round's number after the round was
    written down and before its pending orders are counted, by one thread at a time; it may submit requests and may take
    its time. If a caller repeats `open_round` because an answer was lost, it is called again. With proofs, signatures
    are checked, and what passes is entered in the transparency log.
    """

    def __init__(
        self,
        ledger: Ledger,
        on_round: Callable[[int], None] | None = None,
        *,
        proofs: CoordinatorProofs | None = None,
    ) -> None:
        self.ledger = ledger
        self._proofs = proofs
        self._on_round = on_round
        self._round_lock = threading.Lock()
        self._chains: dict[str, list[bytes]] = {}
        self._chains_mark = ledger.mark()
        self._chains_lock = threading.Lock()
        self._moves = LedgerMoves(ledger)
        self._listeners: set[Callable[[News], None]] = set()
        self._listeners_lock = threading.Lock()
        self._closed = threading.Event()

    def submit(self, request: DeletionRequest) -> RequestStatus:
        """Write a request to the ledger, then wake the followers of every site that it addresses.

        Raises `InvalidDeletion` as `DeletionService.submit`, and if the request id is too long or not printable, or the
        request names more records than one message can carry.
        """
        return self.submit_soon(request).result()

    def submit_soon(self, request: DeletionRequest) -> Future[RequestStatus]:
        """Submit a request without waiting until it is on disk; the future is `submit`'s outcome.

        With proofs, its signature is checked before this returns.
        """
        entered = self.ledger.enter_soon(request, logged=self._receive(request))
        return _after(entered, self._spread_entered, lambda error: self._blocked(request, error))

    def instruct(self, document: bytes) -> None:
        """Enter an instruction; see `DeletionService.instruct`."""
        if self._proofs is None:
            super().instruct(document)
        else:
            self._proofs.instruct(document, self.ledger)

    def instructions(self, after: int = 0, digest: bytes = b"") -> Sequence[tuple[int, bytes]]:
        """Return instructions; see `DeletionService.instructions`."""
        return self.ledger.instructions(after, digest)

    def get(self, request_id: str) -> RequestStatus:
        """Return one request's status; see `DeletionService.get`."""
        return self.ledger.status(request_id)

    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first; raises `InvalidDeletion` if there is no such request."""
        return self.ledger.history(request_id)

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        """Return up to `size` requests, from 1 to 1000, with `late` only overdue ones; see `DeletionService.page`."""
        return self.ledger.page(page, size, late=late)

    def find(self, query: RequestQuery) -> RequestsFound:
        """Return a page of requests; see `ConsoleService.find`."""
        return self.ledger.find(query)

    def moves(self, reader: str, after: int = 0) -> Iterator[Moved]:
        """Yield what moves until the service is closed; see `ConsoleService.moves`."""
        return self._moves.follow(reader, after, self._closed)

    def sites(self, query: SiteQuery) -> SitesFound:
        """Return a page of the sites; see `ConsoleService.sites`."""
        return self.ledger.site_summaries(query)

    def overview(self, reader: str) -> Overview:
        """Return counts; see `ConsoleService.overview`."""
        return self.ledger.overview(reader)

    def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
        """Yield a site's orders with numbers above `after`; see `DeletionService.watch`.

        With `follow`, the iterator ends when the service is closed. Raises `InvalidDeletion` at once, as
        `check_position` does.
        """
        self.check_position(site, after, chain)
        orders = self._follow(site, after) if follow else self._backlog(site, after)
        return itertools.chain(self._unanswered(site, after), orders) if chain else orders

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Write a site's answer to the ledger.

        Raises `InvalidDeletion` as `DeletionService.acknowledge`, and if the answer contradicts itself.
        """
        self.acknowledge_all([acknowledgement])

    def acknowledge_all(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        """Write several answers together; see `DeletionService.acknowledge_all`."""
        for future in self.acknowledge_all_soon(acknowledgements):
            future.result()

    def acknowledge_all_soon(self, acknowledgements: Sequence[Acknowledgement]) -> list[Future[None]]:
        """Acknowledge orders without waiting until the answers are on disk; a future is `acknowledge`'s outcome.

        With proofs, receipts are checked before this returns, for which the ledger is read.
        """
        (outcome,) = self.acknowledge_calls_soon([acknowledgements])
        if isinstance(outcome, InvalidDeletion):
            raise outcome
        return outcome

    def acknowledge_calls_soon(
        self, calls: Sequence[Sequence[Acknowledgement]]
    ) -> list[list[Future[None]] | InvalidDeletion]:
        """Acknowledge what several calls bring, as `acknowledge_all_soon` does for each; the ledger is read once.

        A call of which a receipt is not what it should be has that fault for its outcome, and nothing of it is written.
        """
        for _ in itertools.chain.from_iterable(calls):
            hit(Failpoint.ACKNOWLEDGE_RECEIVED)
        digests = self._digests_for(list(itertools.chain.from_iterable(calls)))
        return [self._acknowledge_call(answers, digests) for answers in calls]

    def _acknowledge_call(
        self, answers: Sequence[Acknowledgement], digests: Mapping[tuple[str, int], bytes]
    ) -> list[Future[None]] | InvalidDeletion:
        try:
            logged = [self._check_receipt(answer, digests.get((answer.site, answer.number))) for answer in answers]
        except InvalidDeletion as fault:
            return fault
        written = [
            self.ledger.acknowledge_soon(answer, logged=log) for answer, log in zip(answers, logged, strict=True)
        ]
        return [_after(future, lambda _: hit(Failpoint.ACKNOWLEDGE_AFTER_COMMIT)) for future in written]

    def checks(self, said: DeletionRequest | Acknowledgement) -> bool:
        """Return whether a request's or an answer's signature is checked, which takes longer than an event loop has."""
        return self._proofs is not None and self._proofs.concerns(said)

    def log_update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:
        """Return the log's head with proofs; see `DeletionService.log_update`."""
        return None if self._proofs is None else self._proofs.update(seen_size, leaves)

    def certificate(self, request_id: str) -> bytes:
        """Return a request's certificate; see `DeletionService.certificate`."""
        status = self.ledger.status(request_id)
        if self._proofs is None:
            return super().certificate(request_id)
        return self._proofs.certificate(status, self.ledger.renewal_of(status))

    def recall(self, site: str, receipts: Sequence[bytes]) -> None:
        """Take back receipts for orders that the ledger has lost; see `DeletionService.recall`."""
        if self._proofs is None:
            super().recall(site, receipts)
        else:
            self._proofs.recall(site, receipts)

    def recalled(self, request_id: str, site: str = "") -> Sequence[bytes]:
        """Return the receipts that sites have given back; see `DeletionService.recalled`."""
        return () if self._proofs is None else self._proofs.recalled(request_id, site)

    def open_round(self, number: int) -> int:
        """Write down that a round begins, let `on_round` act, and return how many orders are not answered yet."""
        if not 0 <= number <= _LARGEST_NUMBER:
            raise InvalidDeletion(f"round {number} does not exist; rounds are numbered from 0")
        hit(Failpoint.ROUND_RECEIVED)
        with self._round_lock:
            self.ledger.open_round(number)
            hit(Failpoint.ROUND_AFTER_COMMIT)
            if self._on_round is not None:
                self._on_round(number)
            return self.ledger.pending()

    def note_release(self, released: ReleasedWeights) -> None:
        """Write down which weights were solved for; see `DeletionService.note_release`."""
        if self._proofs is not None:
            self._proofs.check_contributions(released)
        self.ledger.note_release(released)

    def note_given_out(self, digest: str, sites: Collection[str]) -> tuple[str, ...]:
        """Note who has taken a release over; see `DeletionService.note_given_out`."""
        return self.ledger.note_given_out(digest, sites)

    def renewal_need(self) -> RenewalNeed:
        """Return what is owed; see `DeletionService.renewal_need`."""
        return self.ledger.renewal_need()

    def check_position(self, site: str, after: int, chain: bytes = b"") -> None:
        """Check that a site which has applied orders up to `after` can go on from there.

        Raises `InvalidDeletion` if the site is not in the federation, `after` is negative, or the ledger has no order
        with that number, or others up to it than the `chain` of `common.deletions.order_chain` says: it was replaced by
        an older copy, or the site belongs to another federation, and would skip orders.
        """
        last = self.ledger.last_number(site)
        if after < 0:
            raise InvalidDeletion(f"orders are numbered from 1; there is none after {after}")
        if after > last:
            raise DeletionConflict(
                f"site {site!r} has applied order {after}, but this ledger ends at order {last}: "
                "it is another ledger or an older copy; start the service with the ledger that the site has followed"
            )
        if chain and chain != self._chain(site, after, last):
            raise DeletionConflict(
                f"site {site!r} has applied other orders up to order {after} than this ledger has: "
                "it is another ledger or was restored from a copy; the site asks for its orders from the first one"
            )

    @contextmanager
    def listening(self, listener: Callable[[News], None]) -> Iterator[None]:
        """Have a function called whenever sites may have new orders, and with no news when the service is closed.

        It is called by other threads, must not block, and is not called once the context has ended.
        """
        with self._listeners_lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._listeners_lock:
                self._listeners.discard(listener)

    def replaced(self) -> None:
        """Have every follower begin again: the ledger went back to a copy, and streams go on in the old one."""
        self.spread(News({}, replaced=True))

    def spread(self, news: News) -> None:
        """Tell everyone who listens."""
        with self._listeners_lock:
            for listener in self._listeners:
                listener(news)

    @property
    def closed(self) -> bool:
        """Whether the service has been closed."""
        return self._closed.is_set()

    def close(self) -> None:
        """End every stream that is being followed."""
        self._closed.set()
        self.spread(News({}))

    def _receive(self, request: DeletionRequest) -> bool:
        """Check a request; return whether it goes into the transparency log."""
        _check_request(request)
        hit(Failpoint.SUBMIT_RECEIVED)
        return self._proofs is not None and self._proofs.check_request(request)

    def _blocked(self, request: DeletionRequest, error: Exception) -> Exception:
        """Return the error with which a request ends, with the receipt of a block if a hold has kept it out."""
        if not isinstance(error, DeletionHeld) or self._proofs is None:
            return error
        return self._proofs.block(request, error)

    def _spread_entered(self, status: RequestStatus) -> None:
        hit(Failpoint.SUBMIT_AFTER_COMMIT)
        self.spread(_news_of(status))

    def _digests_for(self, answers: Sequence[Acknowledgement]) -> dict[tuple[str, int], bytes]:
        """Return the digests that receipts of answers are checked against; none where none is checked."""
        places = [(answer.site, answer.number) for answer in answers if self.checks(answer)]
        return self._digests(places) if places else {}

    def _check_receipt(self, answer: Acknowledgement, digest: bytes | None) -> bool:
        """Check an answer's receipt; return whether it goes into the transparency log."""
        # Without a digest here, the ledger says that there is no such order.
        return self._proofs is not None and digest is not None and self._proofs.check_receipt(answer, digest)

    def _digests(self, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """Return the digests of what orders, by site and number, are for; those that there are not are left out."""
        signatures = self.ledger.signatures(places)
        by_signature = {signature: signature_digest(signature) for signature in set(signatures.values())}
        digests = {}
        for place, signature in signatures.items():
            digest = by_signature[signature]
            if digest is None:
                order = self.ledger.order(*place)
                digest = b"" if order is None else OpenedRequest.of(order.request).digest
            digests[place] = digest
        return digests

    def _chain(self, site: str, after: int, last: int) -> bytes:
        """Return the chain of a site's orders up to a number, of which the ledger has more or as many."""
        with self._chains_lock:
            # Taken before orders are read: those that come meanwhile are only more.
            mark = self.ledger.mark()
            if not self.ledger.continues(self._chains_mark):
                # It went back to a copy while this service ran, and has other orders under the same numbers.
                self._chains.clear()
            self._chains_mark = mark
            chains = self._chains.setdefault(site, [b""])
            if len(chains) > last + 1:
                raise DeletionConflict("the ledger was replaced just now; ask again")
            while len(chains) <= after:
                numbers = range(len(chains), min(after + 1, len(chains) + MOST_ORDERS))
                digests = self._digests([(site, number) for number in numbers])
                for number in numbers:
                    chains.append(extend_chain(chains[-1], number, digests[site, number]))
            return chains[after]

    def _unanswered(self, site: str, until: int) -> Iterator[DeletionOrder]:
        """Yield the orders that a site has applied and this ledger has no answer to: it may have lost it."""
        found = (self.ledger.order(site, number) for number in self.ledger.unanswered(site, until))
        yield from (order for order in found if order is not None)

    def _backlog(self, site: str, after: int) -> Iterator[DeletionOrder]:
        while orders := self.ledger.orders(site, after, MOST_ORDERS):
            for order in orders:
                yield order
                self.ledger.note_delivered([(site, order.number)])
                after = order.number

    def _follow(self, site: str, after: int) -> Iterator[DeletionOrder]:
        woken, replaced = threading.Event(), threading.Event()

        def wake(news: News) -> None:
            if news.replaced:
                replaced.set()
            if site in news.numbers or site in news.left or news.replaced or self.closed:
                woken.set()

        with self.listening(wake):
            while not self.closed:
                # Cleared before the ledger is read, so that an order which is written meanwhile is not missed.
                woken.clear()
                for order in self._backlog(site, after):
                    yield order
                    after = order.number
                    if self.closed:
                        return
                self.ledger.last_number(site)
                if not self.closed:
                    woken.wait()
                if replaced.is_set():
                    raise ServiceUnavailable("the ledger was replaced by a copy; watch again")


def _after(
    written: Future[_Result],
    then: Callable[[_Result], None],
    explain: Callable[[Exception], Exception] = lambda error: error,
) -> Future[_Result]:
    """Return a future that has the result of a write once something was done with it, or fails as either does.

    `explain` makes of an error the one that the future has.
    """
    outcome: Future[_Result] = Future()
    outcome.set_running_or_notify_cancel()

    def done(ended: Future[_Result]) -> None:
        """Do what follows, and pass the result or the error on."""
        try:
            result = ended.result()
            then(result)
        except Exception as error:
            try:
                outcome.set_exception(explain(error))
            except Exception as fault:
                outcome.set_exception(fault)
        else:
            outcome.set_result(result)

    written.add_done_callback(done)
    return outcome


def _news_of(status: RequestStatus) -> News:
    return News({progress.site: progress.number for progress in status.sites}, status.request)


def _check_request(request: DeletionRequest) -> None:
    if len(request.request_id) > REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
        raise InvalidDeletion(f"a request id must have 1 to {REQUEST_ID_CHARACTERS} printable characters")
    check_size(request)

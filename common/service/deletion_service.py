"""What the deletion service does, as its users see it.

The coordinator implements it over its ledger (`server.deletions.ledger_service`); everyone else reaches that over gRPC
(`common.service.channel`). Tests put in a service that fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, DeletionRequest, Records, RequestStatus
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.proofs.log_heads import LogUpdate

MOST_TOGETHER = 256
"""Orders that a site applies in one transaction, so that others do not wait long for its key store."""

MOST_REFERENCES_TOGETHER = 100_000
"""References after which a list of orders ends."""


@dataclass(frozen=True)
class StatusPage:
    """One page of requests; `next_page` is empty on the last one."""

    statuses: tuple[RequestStatus, ...]
    next_page: str


class DeletionService(ABC):
    """Requests to forget, one numbered stream of orders for each site, and the sites' answers.

    Every method raises `InvalidDeletion` for what the service refuses, and `ServiceUnavailable` if it cannot be
    reached.
    """

    @abstractmethod
    def submit(self, request: DeletionRequest) -> RequestStatus:
        """Enter a request in the ledger, then dispatch one order to each site that it addresses.

        A request id that is known already changes nothing if the request is the same one, and is refused otherwise.
        Raises `InvalidDeletion` if the request names a site that is not registered, the requester may not ask for its
        target, or the request id stands for another request.
        """

    @abstractmethod
    def get(self, request_id: str) -> RequestStatus:
        """Return one request's status.

        Raises `InvalidDeletion` if there is no such request.
        """

    @abstractmethod
    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        """Return up to `size` requests in the order of their submission, from the page that the last answer named.

        With `late`, only requests that are overdue.
        """

    @abstractmethod
    def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
        """Yield a site's orders with numbers above `after`, oldest first.

        `after` is the last number that the site has applied, 0 for none. With `follow`, orders to come are waited for.
        `chain` is the digest over the orders up to `after`, empty if it is not known. With it, those that the ledger
        has no answer to come again first. Raises `InvalidDeletion` if the ledger has others under their numbers.
        """

    def watch_together(
        self, site: str, after: int, *, follow: bool = False, chain: bytes = b""
    ) -> Iterator[list[DeletionOrder]]:
        """Yield a site's orders as `watch` does, but those that are there already in lists, to be applied together.

        A list has at most `MOST_TOGETHER` orders and as few as come, at least one: nobody waits for it to be full.
        """
        orders = self.watch(site, after, follow=follow, chain=chain)
        if follow:
            # Whether another one is there already cannot be told from here.
            yield from ([order] for order in orders)
            return
        together: list[DeletionOrder] = []
        references = 0
        for order in orders:
            together.append(order)
            target = order.request.target
            references += len(target.references) if isinstance(target, Records) else 1
            if len(together) == MOST_TOGETHER or references >= MOST_REFERENCES_TOGETHER:
                yield together
                together, references = [], 0
        if together:
            yield together

    @abstractmethod
    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Record a site's answer to one order; the same answer may be given any number of times.

        Raises `InvalidDeletion` if there is no such order, or it was answered differently before.
        """

    def acknowledge_all(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        """Record several answers; over a network and on a disk this costs little more than one.

        Raises `InvalidDeletion` as `acknowledge`, for the first that is refused; the others are recorded, or all may be
        given again.
        """
        for acknowledgement in acknowledgements:
            self.acknowledge(acknowledgement)

    @abstractmethod
    def open_round(self, number: int) -> int:
        """Announce that a round of training begins; return how many orders no site has acknowledged yet."""

    def note_release(self, released: ReleasedWeights) -> None:  # noqa: ARG002
        """Write down which weights were solved for, before any site has them.

        Raises `RefusedContributions`, with the sites that are to be left out, if they have not signed as they should.
        """
        raise InvalidDeletion("this deletion service keeps no ledger, so nothing can be released")

    def note_given_out(self, digest: str, sites: Collection[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Say which sites have taken released weights over; return those that contributed to them and lack them.

        Until all have, requests wait that need weights without what they erased. Raises `InvalidDeletion` if the
        weights were not released.
        """
        raise InvalidDeletion("this deletion service keeps no ledger, so nothing can be given out")

    def renewal_need(self) -> RenewalNeed:
        """Return which erased entries the last released weights were still solved with."""
        return RenewalNeed(0, None, None)

    def log_update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:  # noqa: ARG002
        """Return the head of the coordinator's log, with proofs for somebody who has seen an earlier one.

        `seen_size` is the number of leaves when the caller last saw the log, 0 for never; `leaves` are hashes of at
        most 100 that should be in it. Nothing in the answer has been checked; it is None if the coordinator keeps no
        log. Raises `InvalidDeletion` if the log is smaller than `seen_size`.
        """
        return None

    def certificate(self, request_id: str) -> bytes:  # noqa: ARG002
        """Return the certificate of a request that every site has answered (`common.proofs.certificate`), unchecked.

        Raises `InvalidDeletion` if there is no such request, it is not signed, or a site has not answered with a
        receipt.
        """
        raise InvalidDeletion("this deletion service keeps no log, so it cannot certify anything")

    def recall(self, site: str, receipts: Sequence[bytes]) -> None:  # noqa: ARG002
        """Give back a site's receipts for orders that the ledger, restored from a copy, has lost; at most 100.

        Raises `InvalidDeletion` if one is not the site's own.
        """
        raise InvalidDeletion("this deletion service keeps no log, so it takes no receipts back")

    def recalled(self, request_id: str, site: str = "") -> Sequence[bytes]:  # noqa: ARG002
        """Return the receipts that sites, or one of them, have given back for a request, unchecked."""
        return ()

    def instruct(self, document: bytes) -> None:  # noqa: ARG002
        """Give a signed instruction (`Instruction.to_bytes`): a hold, an opt-out, or the end of one.

        One that is known changes nothing. Raises `InvalidDeletion` if it is not signed by those who may.
        """
        raise InvalidDeletion("this deletion service checks no signatures, so it takes no instructions")

    def instructions(self, after: int = 0, digest: bytes = b"") -> Sequence[tuple[int, bytes]]:  # noqa: ARG002
        """Return instructions with their numbers, unchecked, oldest first, some at a time.

        They follow the one of the number `after`; all are returned, some at a time, if its digest is another here.
        """
        return ()

    def requests(self, *, late: bool = False) -> Iterator[RequestStatus]:
        """Yield every request, or those that are overdue, in the order of their submission, page after page."""
        page = self.page(late=late)
        yield from page.statuses
        while page.next_page:
            page = self.page(page.next_page, late=late)
            yield from page.statuses

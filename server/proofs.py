"""What the coordinator checks and keeps of signatures: requests and receipts go into its transparency log.

The coordinator's checks keep mistakes and strangers out early. They are not what protects a site: each site checks
requests again by itself, and the log lets everybody see what the coordinator has done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from common.certificate import Certificate, LoggedReceipt, verify_requester
from common.deletion import Acknowledgement, DeletionOrder, DeletionRequest, RequestStatus, utc_now
from common.errors import InvalidDeletion, InvalidProof
from common.log_heads import LogHead, LogUpdate, receipt_leaf, request_leaf
from common.receipts import Receipt
from common.signed_requests import read_signed, request_digest
from common.signing.canonical import parse_canonical, take
from common.signing.dsse import Envelope
from common.signing.statements import envelope_of, read_envelope
from common.trusted_keys import Role, TrustedKeys
from server.ledger import DeletionConflict, DeletionExists
from server.log import Leaf, LeafKind, TransparencyLog
from server.policy import NotAllowed


class CoordinatorProofs:
    """Checks signatures, and writes what was signed to the log.

    Parameters
    ----------
    log : TransparencyLog
        Where requests and receipts go.
    keys : Path, optional
        File of trusted keys, read again at each use. Without it the coordinator checks no signer.
    clock : callable
        Returns the time, with a zone.
    """

    def __init__(
        self, log: TransparencyLog, keys: Path | None = None, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.log = log
        self._keys = keys
        self._clock = clock

    def check_request(self, request: DeletionRequest) -> None:
        """Check a request's signature, its time and that it was not altered.

        Raises
        ------
        NotAllowed
            With the reason. Without trusted keys, a request may be unsigned and its signer is not checked.
        """
        if self._keys is None and not request.signature:
            return
        try:
            envelope, terms = read_signed(request)
            terms.check_time(self._clock())
            if self._keys is not None:
                verify_requester(envelope, terms, TrustedKeys.read(self._keys))
        except InvalidProof as error:
            raise NotAllowed(f"the request is refused: {error}") from None

    def enter_request(self, request: DeletionRequest, sites: Collection[str]) -> tuple[str, ...]:
        """Write a signed request to the log, before the ledger has it and any site can see it.

        Returns
        -------
        tuple of str
            The sites that it addresses: those in the log, if it was there already.

        Raises
        ------
        DeletionExists
            If the request id stands for another request in the log.
        """
        if not request.signature:
            return tuple(sites)
        content = request_leaf(read_envelope(request.signature), sorted(sites))
        held = self.log.append(Leaf(LeafKind.REQUEST, request.request_id, content))
        first, addressed = _read_request_leaf(held)
        try:
            read_signed(replace(request, signature=first.to_bytes()))
        except InvalidProof:
            raise DeletionExists(
                f"request id {request.request_id!r} stands for another request already; choose another id"
            ) from None
        return addressed

    def sign_order(self, order: DeletionOrder) -> DeletionOrder:
        """Return an order with its requester's signature, if it has one."""
        content = self.log.content(LeafKind.REQUEST, order.request.request_id)
        if content is None:
            return order
        envelope, _ = _read_request_leaf(content)
        return replace(order, request=replace(order.request, signature=envelope.to_bytes()))

    def check_receipt(self, answer: Acknowledgement, request: DeletionRequest) -> None:
        """Check that an answer bears the receipt of the site that gives it.

        Parameters
        ----------
        answer : Acknowledgement
            What the site answers.
        request : DeletionRequest
            What it was sent, with its signature.

        Raises
        ------
        InvalidDeletion
            If there is no receipt where keys are trusted, or it is for something else or by somebody else.
        """
        if not answer.receipt and self._keys is None:
            return
        try:
            if not answer.receipt:
                raise InvalidProof("it bears no receipt; give the site a key (munkey-client keys new --site-dir)")
            envelope = read_envelope(answer.receipt)
            receipt = Receipt.of(envelope)
            receipt.check_describes(answer)
            if receipt.request != request_digest(request):
                raise InvalidProof("its receipt is for another request")
            if self._keys is not None:
                TrustedKeys.read(self._keys).verify(envelope, Role.SITE, receipt.time, answer.site)
        except InvalidProof as error:
            raise InvalidDeletion(
                f"the answer of site {answer.site!r} to order {answer.number} is refused: {error}"
            ) from None

    def enter_receipt(self, answer: Acknowledgement) -> None:
        """Write an answer's receipt to the log; the first one for an order stays."""
        if answer.receipt:
            content = receipt_leaf(read_envelope(answer.receipt).to_bytes())
            self.log.append(Leaf(LeafKind.RECEIPT, f"{answer.site}/{answer.number}", content))

    def update(self, seen_size: int, leaves: Sequence[bytes]) -> LogUpdate:
        """Return the log's head with proofs; see `TransparencyLog.update`."""
        return self.log.update(seen_size, leaves)

    def certificate(self, status: RequestStatus) -> bytes:
        """Return the certificate of a request that every site has answered.

        Raises
        ------
        InvalidDeletion
            If the request is not signed, a site has not answered, or one answered without a receipt.
        """
        name = status.request.request_id
        content = self.log.content(LeafKind.REQUEST, name)
        if content is None:
            raise DeletionConflict(f"request {name!r} was not signed, so nothing can be certified; sign the next one")
        if pending := [progress.site for progress in status.sites if not progress.state.final]:
            raise DeletionConflict(f"request {name!r} has no answer from {', '.join(pending)} yet; ask again later")
        envelope, sites = _read_request_leaf(content)
        head = self.log.head()
        size = LogHead.of(head).size
        numbers = {progress.site: progress.number for progress in status.sites}
        receipts = tuple(self._logged_receipt(f"{site}/{numbers.get(site, 0)}", size) for site in sites)
        number = self.log.number(LeafKind.REQUEST, name)
        if number is None:
            raise AssertionError("a leaf that has a content has a number")
        return Certificate(envelope, sites, self.log.prove(number, size), receipts, head).to_bytes()

    def _logged_receipt(self, name: str, size: int) -> LoggedReceipt:
        content = self.log.content(LeafKind.RECEIPT, name)
        number = self.log.number(LeafKind.RECEIPT, name)
        if content is None or number is None:
            site = name.rpartition("/")[0]
            raise DeletionConflict(f"site {site!r} answered without a receipt; give it a key and ask again")
        _, document = take(parse_canonical(content, "a leaf of the log"), "a leaf", kind=str, envelope=dict)
        envelope = envelope_of(document)
        seen = Receipt.of(envelope).witnessed
        consistency = () if seen is None else self.log.prove_extension(seen.size, size)
        return LoggedReceipt(envelope, self.log.prove(number, size), consistency)


def _read_request_leaf(content: bytes) -> tuple[Envelope, tuple[str, ...]]:
    _, document, sites = take(
        parse_canonical(content, "a leaf of the log"), "a leaf", kind=str, envelope=dict, sites=list
    )
    return envelope_of(document), tuple(sites)

"""What the coordinator checks and keeps of signatures: requests and receipts go into its transparency log.

The coordinator's checks keep mistakes and strangers out early. They are not what protects a site: each site checks
requests again by itself, and the log lets everybody see what the coordinator has done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, RequestStatus, SiteState
from fedmunkey.common.errors import DeletionConflict, InvalidDeletion, InvalidProof, NotAllowed
from fedmunkey.common.proofs.certificate import Certificate, FirstHead, LoggedReceipt, verify_requester
from fedmunkey.common.proofs.log_heads import LogHead, LogUpdate
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.canonical import parse_canonical, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of, read_envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.server.transparency_log.leaves import LeafKind, receipt_name
from fedmunkey.server.transparency_log.log import TransparencyLog


class CoordinatorProofs:
    """Checks signatures before anything is entered, and certifies with the log; the ledger writes down what passed.

    The file of trusted keys is read again at each use; without it the coordinator checks no signer.
    """

    def __init__(
        self, log: TransparencyLog, keys: Path | None = None, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.log = log
        self._keys = keys
        self._clock = clock

    def check_request(self, request: DeletionRequest) -> bool:
        """Check a request's signature, its time and that it was not altered.

        Returns whether it bears a signature, and so goes into the log. Raises `NotAllowed` with the reason. Without
        trusted keys, a request may be unsigned and its signer is not checked. A signer's key must be good at this time.
        """
        if not self.concerns(request):
            return False
        try:
            envelope, terms = OpenedRequest.of(request).signed()
            now = self._clock()
            terms.check_time(now)
            if self._keys is not None:
                verify_requester(envelope, terms, TrustedKeys.read(self._keys), heard=now)
        except InvalidProof as error:
            raise NotAllowed(f"the request is refused: {error}") from None
        return True

    def concerns(self, said: DeletionRequest | Acknowledgement) -> bool:
        """Return whether something has to be checked: without trusted keys, what is not signed is taken as it is."""
        signature = said.signature if isinstance(said, DeletionRequest) else said.receipt
        return bool(signature) or self._keys is not None

    def check_receipt(self, answer: Acknowledgement, request: bytes) -> bool:
        """Check that an answer bears the receipt of the site that gives it.

        `request` is the digest of what the site was sent (`OpenedRequest.digest`). Returns whether there is a receipt,
        which then goes into the log. Raises `InvalidDeletion` if there is no receipt where keys are trusted, or it is
        for something else or by somebody else.
        """
        if not self.concerns(answer):
            return False
        try:
            if not answer.receipt:
                raise InvalidProof(
                    "it bears no receipt; give the site a key (munkey-client signing-keys new --site-dir)"
                )
            envelope = read_envelope(answer.receipt)
            receipt = Receipt.of(envelope)
            receipt.check_describes(answer)
            if receipt.request != request:
                raise InvalidProof("its receipt is for another request")
            if self._keys is not None:
                TrustedKeys.read(self._keys).verify(envelope, Role.SITE, receipt.time, answer.site)
        except InvalidProof as error:
            raise InvalidDeletion(
                f"the answer of site {answer.site!r} to order {answer.number} is refused: {error}"
            ) from None
        return True

    def update(self, seen_size: int, leaves: Sequence[bytes]) -> LogUpdate:
        """Return the log's head with proofs; see `TransparencyLog.update`."""
        return self.log.update(seen_size, leaves)

    def certificate(self, status: RequestStatus) -> bytes:
        """Return the certificate of a request that every site has answered, or left the federation without an answer.

        Raises `InvalidDeletion` if the request is not signed, a site has not answered, or one answered without a
        receipt.
        """
        name = status.request.request_id
        content = self.log.content(LeafKind.REQUEST, name)
        if content is None:
            raise DeletionConflict(f"request {name!r} was not signed, so nothing can be certified; sign the next one")
        if pending := [progress.site for progress in status.sites if not progress.state.final]:
            raise DeletionConflict(f"request {name!r} has no answer from {', '.join(pending)} yet; ask again later")
        envelope, sites = _read_request_leaf(content)
        away = {progress.site for progress in status.sites if progress.state is SiteState.LEFT}
        head = self.log.head()
        size = LogHead.of(head).size
        numbers = {progress.site: progress.number for progress in status.sites}
        answered = [site for site in sites if site not in away]
        receipts = tuple(self._logged_receipt(receipt_name(site, numbers.get(site, 0)), size) for site in answered)
        silent = tuple(site for site in sites if site in away)
        number = self.log.number(LeafKind.REQUEST, name)
        if number is None:
            raise AssertionError("a leaf that has a content has a number")
        return Certificate(envelope, sites, self.log.prove(number, size), receipts, head, silent).to_bytes()

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
        first = self.log.first_head(number)
        extended = self.log.prove_extension(LogHead.of(first).size, size)
        return LoggedReceipt(envelope, self.log.prove(number, size), consistency, FirstHead(first, extended))


def _read_request_leaf(content: bytes) -> tuple[Envelope, tuple[str, ...]]:
    _, document, sites = take(
        parse_canonical(content, "a leaf of the log"), "a leaf", kind=str, envelope=dict, sites=list
    )
    return envelope_of(document), tuple(sites)

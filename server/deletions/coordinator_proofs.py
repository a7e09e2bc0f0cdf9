"""What the coordinator checks and keeps of signatures: requests and receipts go into its transparency log.

The coordinator's checks keep mistakes and strangers out early. They are not what protects a site: each site checks
requests again by itself, and the log lets everybody see what the coordinator has done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, RequestStatus, SiteState
from fedmunkey.common.errors import (
    DeletionConflict,
    DeletionHeld,
    InvalidDeletion,
    InvalidProof,
    NotAllowed,
    RefusedContributions,
)
from fedmunkey.common.proofs.certificate import Certificate, FirstHead, LoggedReceipt, LoggedRenewal, LoggedStatement
from fedmunkey.common.proofs.contributions import Contribution, ReleaseNote
from fedmunkey.common.proofs.governance.approvals import check_approved
from fedmunkey.common.proofs.governance.blocks import Block
from fedmunkey.common.proofs.governance.instructions import Instruction
from fedmunkey.common.proofs.governance.standing import check_instruction
from fedmunkey.common.proofs.log_heads import LogHead, LogUpdate
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.canonical import parse_canonical, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of, read_envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys, TrustFile
from fedmunkey.common.proofs.verification import verify_requester
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import (
    LeafKind,
    leaf_of_block,
    leaf_of_recalled,
    leaf_of_restored,
    receipt_name,
)
from fedmunkey.server.transparency_log.log import MAXIMUM_INCLUSIONS, TransparencyLog

FRESH_DAYS = 7
"""How old an instruction may be that the coordinator hears for the first time."""


class CoordinatorProofs:
    """Checks signatures before anything is entered, and certifies with the log; the ledger writes down what passed.

    The file of trusted keys is read again once it has changed; without it the coordinator checks no signer.
    """

    def __init__(
        self, log: TransparencyLog, keys: Path | None = None, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.log = log
        self._keys = None if keys is None else TrustFile(keys)
        self._clock = clock

    def check_request(self, request: DeletionRequest) -> bool:
        """Check a request's signature, its time and that it was not altered.

        Returns whether it bears a signature, and so goes into the log. Raises `NotAllowed` with the reason. Without
        trusted keys, a request may be unsigned and its signer is not checked. A signer's key must be good at this time,
        and signers may ask or approve, and be as many, as the coordinator's file of trusted keys says.
        """
        if not self.concerns(request):
            return False
        try:
            opened = OpenedRequest.of(request)
            opened.signed()
            try:
                self._check_first(opened, heard=self._clock())
            except InvalidProof:
                if not self._was_lost(request.request_id, opened.digest):
                    raise
                # It was heard before the ledger was restored; who has carried it out gives the same answer again.
                self._check_first(opened, heard=None)
        except InvalidProof as error:
            raise NotAllowed(f"the request is refused: {error}") from None
        return True

    def instruct(self, document: bytes, ledger: Ledger) -> None:
        """Check an instruction and have it entered in the ledger and the log; one that is known changes nothing.

        Raises `NotAllowed` if it is not one, is not signed by those who may, or cannot be added to what stands.
        """
        if self._keys is None:
            raise NotAllowed(
                "this coordinator trusts no officer's key, so it takes no instructions; give it trust.json"
            )
        trust, now = self._keys.read(), self._clock()
        try:
            instruction = Instruction.parse(document)
        except InvalidProof as error:
            raise NotAllowed(f"the instruction is refused: {error}") from None
        if instruction.digest in ledger.standing().known:
            return
        if now - instruction.issued > timedelta(days=FRESH_DAYS):
            raise NotAllowed(
                f"the instruction is refused: it was signed more than {FRESH_DAYS} days ago; sign it again"
            )
        ledger.instruct(instruction, lambda one, standing: check_instruction(one, standing, trust, now))

    def block(self, request: DeletionRequest, held: DeletionHeld) -> DeletionHeld:
        """Return why a request was kept out, with the receipt of that, which is in the log by then."""
        block = Block(request.request_id, OpenedRequest.of(request).digest, self._clock(), held.holds)
        envelope = block.sign(self.log.key)
        self.log.extend([leaf_of_block(envelope)])
        return DeletionHeld(held.holds, held.names, envelope.to_bytes())

    def _check_first(self, opened: OpenedRequest, *, heard: datetime | None) -> None:
        envelope, terms = opened.signed()
        if heard is not None:
            terms.check_time(heard)
        if self._keys is not None:
            trust = self._keys.read()
            verify_requester(envelope, terms, trust, heard=heard)
            if heard is not None:
                check_approved(opened, trust, "a site")

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
                self._keys.read().verify(envelope, Role.SITE, receipt.time, answer.site)
        except InvalidProof as error:
            raise InvalidDeletion(
                f"the answer of site {answer.site!r} to order {answer.number} is refused: {error}"
            ) from None
        return True

    def recall(self, site: str, receipts: Sequence[bytes]) -> None:
        """Put a site's receipts for orders that the ledger has lost back into the log.

        Raises `InvalidDeletion` if there are too many, or one is not that site's.
        """
        if len(receipts) > MAXIMUM_INCLUSIONS:
            raise InvalidDeletion(f"{len(receipts)} receipts at once are too many; give at most {MAXIMUM_INCLUSIONS}")
        try:
            for data in receipts:
                envelope = read_envelope(data)
                receipt = Receipt.of(envelope)
                if receipt.answer.site != site:
                    raise InvalidProof("it is another site's")
                if self._keys is not None:
                    self._keys.read().verify(envelope, Role.SITE, receipt.time, site)
        except InvalidProof as error:
            raise InvalidDeletion(f"a receipt that site {site!r} gives back is refused: {error}") from None
        self.log.extend([leaf_of_recalled(data) for data in receipts])

    def recalled(self, request_id: str, site: str = "") -> tuple[bytes, ...]:
        """Return the receipts that sites, or one, have given back for a request."""
        found = [(envelope, Receipt.of(envelope).answer) for envelope in self.log.recalled()]
        return tuple(
            envelope.to_bytes()
            for envelope, answer in found
            if answer.request_id == request_id and site in ("", answer.site)
        )

    def _was_lost(self, request_id: str, digest: bytes) -> bool:
        """Return whether a site has given back a receipt for a request, by its digest: it is no first hearing."""
        given_back = (Receipt.of(read_envelope(data)) for data in self.recalled(request_id))
        return any(receipt.request == digest for receipt in given_back)

    def update(self, seen_size: int, leaves: Sequence[bytes]) -> LogUpdate:
        """Return the log's head with proofs; see `TransparencyLog.update`."""
        return self.log.update(seen_size, leaves)

    def check_contributions(self, released: ReleasedWeights) -> None:
        """Check that each site has signed its part in a release, where keys are trusted.

        Raises `RefusedContributions`, with all that are not.
        """
        trusted = None if self._keys is None else self._keys.read()
        faults = {part.site: fault for part in released.contributions if (fault := contribution_fault(part, trusted))}
        if faults:
            raise RefusedContributions(faults)

    def certificate(self, status: RequestStatus, renewal: tuple[int, dict[str, bytes]] | None = None) -> bytes:
        """Return the certificate of a request that every site has answered, or left the federation without an answer.

        `renewal` is the release, by number, that was solved without what it erased, with the signed contributions of
        the sites that erased something (`LedgerView.renewal_of`). Raises `InvalidDeletion` if the request is not
        signed, a site has not answered, or one answered without a receipt.
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
        receipts = self._logged_receipts([receipt_name(site, numbers.get(site, 0)) for site in answered], size)
        silent = tuple(site for site in sites if site in away)
        number = self.log.number(LeafKind.REQUEST, name)
        if number is None:
            raise AssertionError("a leaf that has a content has a number")
        lost = min(
            (seen.size for receipt in receipts if (seen := self._lost_head(receipt.envelope, size)) is not None),
            default=None,
        )
        restored = () if lost is None else self._restored(lost, size)
        renewed = None if renewal is None else self._logged_renewal(*renewal, size)
        proof = self.log.prove(number, size)
        return Certificate(envelope, sites, proof, receipts, head, silent, restored, renewed).to_bytes()

    def _logged_renewal(self, release: int, statements: Mapping[str, bytes], size: int) -> LoggedRenewal | None:
        """Return the log's leaf of a release with sites' contributions; None where a site has signed none."""
        content = self.log.content(LeafKind.RELEASE, str(release))
        number = self.log.number(LeafKind.RELEASE, str(release))
        if content is None or number is None or number >= size:
            return None
        note = ReleaseNote.from_document(parse_canonical(content, "a leaf of the log"))
        contributions = tuple(read_envelope(statements[site]) for site in sorted(statements))
        return LoggedRenewal(note, self.log.prove(number, size), contributions, _FirstHeads(self.log, size).of(number))

    def _lost_head(self, receipt: Envelope, size: int) -> WitnessedHead | None:
        """Return the head that a receipt names, if the log of so many leaves does not extend it."""
        seen = Receipt.of(receipt).witnessed
        fits = seen is None or (seen.size <= size and self.log.root(seen.size) == seen.root)
        return None if fits else seen

    def _restored(self, lost: int, size: int) -> tuple[LoggedStatement, ...]:
        """Return what the log says of having been restored from copies of fewer leaves than a head that it has lost."""
        found = []
        for envelope in self.log.restored():
            number = self.log.number(LeafKind.RESTORED, leaf_of_restored(envelope).name)
            if RestoredLog.of(envelope).kept.size < lost and number is not None and number < size:
                found.append(LoggedStatement(envelope, self.log.prove(number, size)))
        if not found:
            raise DeletionConflict(
                "a receipt names a head that this log has lost, so nothing is certified yet: the ledger was restored "
                "from a copy; munkey-server restored says so"
            )
        return tuple(found)

    def _logged_receipts(self, names: Sequence[str], size: int) -> tuple[LoggedReceipt, ...]:
        """Return the log's leaves of receipts with their proofs, in their order; of a thousand, few are read alone."""
        leaves = self.log.leaves(LeafKind.RECEIPT, names)
        if missing := next((name for name in names if name not in leaves), None):
            site = missing.rpartition("/")[0]
            raise DeletionConflict(f"site {site!r} answered without a receipt; give it a key and ask again")
        proofs = self.log.prove_all([leaves[name][0] for name in names], size)
        heads = _FirstHeads(self.log, size)
        logged = []
        for name in names:
            number, content = leaves[name]
            _, document = take(parse_canonical(content, "a leaf of the log"), "a leaf", kind=str, envelope=dict)
            envelope = envelope_of(document)
            seen = None if self._lost_head(envelope, size) else Receipt.of(envelope).witnessed
            consistency = () if seen is None else self.log.prove_extension(seen.size, size)
            logged.append(LoggedReceipt(envelope, proofs[number], consistency, heads.of(number)))
        return tuple(logged)


class _FirstHeads:
    """The earliest signed heads that hold leaves, each with the proof that a log of some size extends it."""

    def __init__(self, log: TransparencyLog, size: int) -> None:
        self._log = log
        self._size = size
        self._found: list[tuple[int, int, FirstHead]] = []

    def of(self, number: int) -> FirstHead:
        """Return that of a leaf: the one of a leaf before it, where that already holds both."""
        for least, held, first in self._found:
            if least <= number < held:
                return first
        envelope = self._log.first_head(number)
        held = LogHead.of(envelope).size
        first = FirstHead(envelope, self._log.prove_extension(held, self._size))
        self._found.append((number, held, first))
        return first


def _read_request_leaf(content: bytes) -> tuple[Envelope, tuple[str, ...]]:
    _, document, sites = take(
        parse_canonical(content, "a leaf of the log"), "a leaf", kind=str, envelope=dict, sites=list
    )
    return envelope_of(document), tuple(sites)


def contribution_fault(part: SiteContribution, trusted: TrustedKeys | None) -> str:
    """Return what is wrong with a site's signature of its part in a release, empty if nothing is.

    Without trusted keys nobody need sign.
    """
    if not part.statement:
        return "" if trusted is None else "it is not signed; give the site a key (munkey-client signing-keys new)"
    try:
        envelope = read_envelope(part.statement)
        said = Contribution.of(envelope)
        if (said.site, said.last_order) != (part.site, part.last_order):
            raise InvalidProof("it was signed for something else")
        if trusted is not None:
            trusted.verify(envelope, Role.SITE, said.time, part.site)
    except InvalidProof as error:
        return str(error)
    return ""

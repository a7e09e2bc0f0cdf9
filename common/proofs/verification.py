"""Checking a certificate: everything that its bytes say, against the keys that its reader trusts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmunkey.common.deletions.words import OFFICER, Outcome, SiteState
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.certificate import Certificate, FirstHead
from fedmunkey.common.proofs.contributions import Contribution, contribution_digest
from fedmunkey.common.proofs.ended_keys import Logged, is_in_time
from fedmunkey.common.proofs.log_heads import LogHead, LogProof, receipt_leaf, request_leaf, restored_leaf
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.restored_log import RestoredLog, verify_restored
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys


@dataclass(frozen=True)
class Renewal:
    """What is known of renewed weights: their digest, who contributed after the deletion, and when the last did.

    `changed` records of the federation were others than in the release before.
    """

    release: str
    changed: int
    sites: tuple[str, ...]
    time: datetime


@dataclass(frozen=True)
class Verified:
    """What a certificate proves.

    `requested_by` has the keys that signed the request. Receipts are those of all addressed sites but the `silent`, in
    alphabetical order, and `signed_by` has the key that signed each. `head` is the state of the log that holds them.
    The heads that the receipts of the sites in `lost` name are not in the log any more: it was `restored` from a copy,
    as the keys in `restored_by` have signed. Where the shared weights were solved for anew since, `renewal` says so.
    Nothing shows that the receipts of the `undated` sites were signed before their keys ended: they count for nothing.
    """

    terms: RequestTerms
    requested_by: tuple[TrustedKey, ...]
    receipts: tuple[Receipt, ...]
    signed_by: tuple[TrustedKey, ...]
    head: LogHead
    silent: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    restored: tuple[RestoredLog, ...] = ()
    restored_by: tuple[tuple[TrustedKey, ...], ...] = ()
    renewal: Renewal | None = None
    undated: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[Receipt, ...]:
        """The receipts that count."""
        return tuple(filter(self.counts, self.receipts))

    def counts(self, receipt: Receipt) -> bool:
        """Return whether one of the receipts counts."""
        return receipt.answer.site not in self.undated

    @property
    def erased(self) -> int:
        """Records that the sites say they erased."""
        return sum(receipt.answer.records for receipt in self.counted)

    @property
    def outcome(self) -> Outcome:
        """What became of the request; a site of which no receipt counts is one that has left."""
        states = [receipt.answer.state for receipt in self.counted]
        return Outcome.of([*states, *(SiteState.LEFT for _ in (*self.silent, *self.undated))], self.erased)


def verify_certificate(data: bytes, keys: TrustedKeys) -> Verified:
    """Check everything that a certificate's bytes say against the keys that the reader trusts.

    `keys` are those of whom the reader trusts: the requester, the sites and the log. Raises `InvalidProof` with the
    first thing that does not hold.
    """
    try:
        certificate = Certificate.from_bytes(data)
        head, terms = LogHead.of(certificate.head), read_terms(certificate.request)
        _check_leaf(request_leaf(certificate.request.to_bytes(), certificate.sites), certificate.proof, head)
        restored = _read_restored(certificate, head)
        receipts, lost = _read_receipts(certificate, terms, head, restored)
        contributions = _read_contributions(certificate, receipts, head)
    except InvalidProof as error:
        raise InvalidProof(f"the certificate was changed or cut: {error}") from None
    keys.verify(certificate.head, Role.LOG, head.time)
    requested_by = verify_requester(certificate.request, terms, keys)
    signers = list[TrustedKey]()
    leaves = {"": Logged(certificate.proof.number, terms.issued, requested_by, head.time)}
    for logged, receipt in zip(certificate.receipts, receipts, strict=True):
        signed = keys.verify(logged.envelope, Role.SITE, receipt.time, receipt.answer.site)
        held = head.time if logged.first is None else _held_since(logged.first, keys)
        leaves[receipt.answer.site] = Logged(logged.proof.number, receipt.time, signed, held)
        signers += signed
    undated = tuple(site for site, leaf in leaves.items() if site and not is_in_time(leaf, leaves.values()))
    renewed = _counts(certificate, contributions, keys, leaves.values())
    restored_by = tuple(verify_restored(said.envelope, keys) for said in certificate.restored)
    return Verified(
        terms,
        requested_by,
        tuple(receipts),
        tuple(signers),
        head,
        certificate.silent,
        tuple(lost),
        tuple(restored),
        restored_by,
        _renewal_of(certificate, [said for _, said in contributions]) if renewed else None,
        undated,
    )


def _counts(
    certificate: Certificate,
    contributions: Sequence[tuple[Envelope, Contribution]],
    keys: TrustedKeys,
    others: Iterable[Logged],
) -> bool:
    """Check who signed contributions; return whether the log shows that all were there before their keys ended."""
    renewal = certificate.renewal
    if renewal is None:
        return False
    held, known = _held_since(renewal.first, keys), list(others)
    signed = [(said, keys.verify(envelope, Role.SITE, said.time, said.site)) for envelope, said in contributions]
    return all(is_in_time(Logged(renewal.proof.number, said.time, by, held), known) for said, by in signed)


def _renewal_of(certificate: Certificate, contributions: Sequence[Contribution]) -> Renewal | None:
    if certificate.renewal is None:
        return None
    sites = tuple(said.site for said in contributions)
    return Renewal(
        certificate.renewal.note.release,
        certificate.renewal.note.changed,
        sites,
        max(said.time for said in contributions),
    )


def _read_contributions(
    certificate: Certificate, receipts: Sequence[Receipt], head: LogHead
) -> list[tuple[Envelope, Contribution]]:
    """Return the contributions to renewed weights, one of each site that erased entries; who signed is not checked."""
    renewal = certificate.renewal
    if renewal is None:
        return []
    _check_leaf(renewal.note.leaf(), renewal.proof, head)
    _check_first(renewal.first, renewal.proof.number, head)
    answers = {receipt.answer.site: receipt.answer for receipt in receipts if receipt.answer.entries}
    found = []
    for envelope in renewal.contributions:
        said = Contribution.of(envelope)
        answer = answers.pop(said.site, None)
        if answer is None or said.last_order < answer.number:
            raise InvalidProof("weights are said to be renewed by a site that contributed before it erased")
        if renewal.note.contributions.get(said.site) != contribution_digest(envelope.to_bytes()):
            raise InvalidProof("a contribution is not the one that the log's release was solved with")
        found.append((envelope, said))
    if answers or not found:
        raise InvalidProof("weights are said to be renewed without a contribution of each site that erased")
    return found


def _read_restored(certificate: Certificate, head: LogHead) -> list[RestoredLog]:
    """Return what the log says of having been restored; who signed is not checked."""
    restored = []
    for logged in certificate.restored:
        said = RestoredLog.of(logged.envelope)
        _check_leaf(restored_leaf(logged.envelope.to_bytes()), logged.proof, head)
        if logged.proof.number < said.head.size:
            raise InvalidProof("a statement that the log was restored stands in it before the head that it names")
        restored.append(said)
    return restored


def _read_receipts(
    certificate: Certificate, terms: RequestTerms, head: LogHead, restored: Sequence[RestoredLog]
) -> tuple[list[Receipt], list[str]]:
    """Return the receipts, each of an addressed site, for this request and in the log; who signed is not checked.

    With them come the names of the sites whose receipts name a head that the log has lost.
    """
    digest = hashlib.sha256(certificate.request.payload).digest()
    answered = [site for site in certificate.sites if site not in certificate.silent]
    if len(certificate.receipts) != len(answered) or not set(certificate.silent) <= set(certificate.sites):
        raise InvalidProof("it does not have one receipt for each site that the request addresses")
    receipts, lost = [], []
    for site, logged in zip(answered, certificate.receipts, strict=True):
        receipt = Receipt.of(logged.envelope)
        if receipt.answer.site != site or receipt.request != digest or receipt.answer.request_id != terms.request_id:
            raise InvalidProof("a receipt is for another request, or from another site than the request addresses")
        _check_leaf(receipt_leaf(logged.envelope.to_bytes()), logged.proof, head)
        if _is_lost(receipt, logged.consistency, restored):
            lost.append(site)
        else:
            _check_witnessed(receipt, logged.consistency, head)
        if logged.first is not None:
            _check_first(logged.first, logged.proof.number, head)
        if logged.proof.number <= certificate.proof.number:
            raise InvalidProof("a receipt stands in the log before its request")
        receipts.append(receipt)
    if restored and not lost:
        raise InvalidProof("it says that the log was restored, which none of its receipts needs")
    return receipts, lost


def verify_requester(
    envelope: Envelope, terms: RequestTerms, keys: TrustedKeys, *, heard: datetime | None = None
) -> tuple[TrustedKey, ...]:
    """Check that a request's requester signed it: an officer's key for the officer, otherwise the site's own.

    Who hears a request for the first time says when, by its own clock: the date in a request is its signer's word, and
    with a key that has ended anybody could write an earlier one. Raises `InvalidProof` if it was signed by anybody
    else, or with a key that was not valid when the request was issued, or is not when it is heard.
    """
    role, name = (Role.OFFICER, None) if terms.requester == OFFICER else (Role.SITE, terms.requester)
    signers = keys.verify(envelope, role, terms.issued, name)
    if heard is not None:
        for signer in signers:
            # A requester's clock may be ahead, and its key as old as the request.
            signer.check(max(heard, terms.issued))
    return signers


def _check_leaf(leaf: bytes, proof: LogProof, head: LogHead) -> None:
    check_inclusion(leaf_hash(leaf), proof.number, head.size, proof.path, head.root)


def _check_witnessed(receipt: Receipt, path: Sequence[bytes], head: LogHead) -> None:
    seen = receipt.witnessed
    if seen is not None:
        check_consistency(seen.size, seen.root, head.size, head.root, path)
    elif path:
        raise InvalidProof("a certificate has a consistency proof for a head that no site has seen")


def _is_lost(receipt: Receipt, path: Sequence[bytes], restored: Sequence[RestoredLog]) -> bool:
    """Return whether a receipt, without a proof, names a head from after the copy that the log was restored from."""
    seen = receipt.witnessed
    return seen is not None and not path and any(said.kept.size < seen.size for said in restored)


def _check_first(first: FirstHead, number: int, head: LogHead) -> None:
    """Check that a head holds a leaf of the log and is a state that the log was in; who signed it is not checked."""
    found = LogHead.of(first.head)
    if found.size <= number:
        raise InvalidProof("the first head that should hold a receipt does not")
    check_consistency(found.size, found.root, head.size, head.root, first.consistency)


def _held_since(first: FirstHead, keys: TrustedKeys) -> datetime:
    time = LogHead.of(first.head).time
    keys.verify(first.head, Role.LOG, time)
    return time

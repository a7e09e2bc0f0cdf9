"""Certificates: one file that shows that a request was carried out, and by whom, with nothing but public keys to check.

The file is canonical JSON and everything in it is signed or leads to a signed head, so no byte of it can be changed.
Where a site left the federation without an answer, the certificate is of another type and names it: it holds no receipt
of that site, and proves the less for it.
Where the log was restored from a copy, a receipt may name a head that the log has lost: then what the log, its key and
officers say of that is in the certificate as well.
Checking needs `cryptography` and `rfc8785` and nothing else of this project than what is imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedmunkey.common.deletions.limits import is_line
from fedmunkey.common.deletions.words import OFFICER, Outcome, SiteState
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.log_heads import LogHead, LogProof, receipt_leaf, request_leaf, restored_leaf
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.restored_log import RestoredLog, verify_restored
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

CERTIFICATE_BYTES = 64 * 2**20
_TYPE = "urn:fedmunkey:certificate:v1"
_INCOMPLETE_TYPE = "urn:fedmunkey:incomplete-certificate:v1"


@dataclass(frozen=True)
class LoggedReceipt:
    """A receipt, its place in the log, and the proof that the log extends the head which the site had seen."""

    envelope: Envelope
    proof: LogProof
    consistency: tuple[bytes, ...]


@dataclass(frozen=True)
class LoggedStatement:
    """A statement that the log was restored from a copy, and its place in the log."""

    envelope: Envelope
    proof: LogProof


@dataclass(frozen=True)
class Certificate:
    """A request and what every addressed site answered.

    `sites` are those that were addressed, in alphabetical order, and the log holds the coordinator to it; there is a
    receipt for each but those in `silent`, in their order. `proof` says where the request stands in the log, and all
    proofs lead to `head`. There is something in `restored` only if a receipt names a head that the log has lost.
    """

    request: Envelope
    sites: tuple[str, ...]
    proof: LogProof
    receipts: tuple[LoggedReceipt, ...]
    head: Envelope
    silent: tuple[str, ...] = ()
    restored: tuple[LoggedStatement, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the file's contents."""
        return canonical_json(
            {
                "type": _INCOMPLETE_TYPE if self.silent else _TYPE,
                "request": {
                    "envelope": self.request.to_document(),
                    "sites": list(self.sites),
                    **({"silent": list(self.silent)} if self.silent else {}),
                    **_proof_document(self.proof),
                },
                "receipts": [
                    {
                        "envelope": receipt.envelope.to_document(),
                        "consistency": [node.hex() for node in receipt.consistency],
                        **_proof_document(receipt.proof),
                    }
                    for receipt in self.receipts
                ],
                "head": self.head.to_document(),
                **({"restored": [_statement_document(said) for said in self.restored]} if self.restored else {}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Read a file's contents; raises `InvalidProof` if they are not exactly what `to_bytes` returns."""
        document = parse_canonical(data, "the file", CERTIFICATE_BYTES)
        lost = {"restored": list} if isinstance(document, dict) and document.get("restored") else {}
        kind, request, receipts, head, *restored = take(
            document, "a certificate", type=str, request=dict, receipts=list, head=dict, **lost
        )
        if kind not in (_TYPE, _INCOMPLETE_TYPE):
            raise InvalidProof(f"the file is no certificate of type {_TYPE}")
        optional = {"silent": list} if kind == _INCOMPLETE_TYPE else {}
        envelope, sites, number, path, *silent = take(
            request, "a certificate's request", envelope=dict, sites=list, number=int, inclusion=list, **optional
        )
        for named in (sites, *silent):
            if (
                not named
                or any(type(site) is not str or not is_line(site) for site in named)
                or named != sorted(set(named))
            ):
                raise InvalidProof("a certificate does not name the addressed sites in order")
        return cls(
            envelope_of(envelope),
            tuple(sites),
            LogProof(number, _nodes(path)),
            tuple(map(_read_receipt, receipts)),
            envelope_of(head),
            tuple(silent[0]) if silent else (),
            tuple(map(_read_statement, *restored)) if restored else (),
        )


@dataclass(frozen=True)
class Verified:
    """What a certificate proves.

    `requested_by` has the keys that signed the request. Receipts are those of all addressed sites but the `silent`, in
    alphabetical order, and `signed_by` has the key that signed each. `head` is the state of the log that holds them.
    The heads that the receipts of the sites in `lost` name are not in the log any more: it was `restored` from a copy,
    as the keys in `restored_by` have signed.
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

    @property
    def erased(self) -> int:
        """Records that the sites say they erased."""
        return sum(receipt.answer.records for receipt in self.receipts)

    @property
    def outcome(self) -> Outcome:
        """What became of the request; a site of which there is no receipt counts as one that has left."""
        states = [receipt.answer.state for receipt in self.receipts]
        return Outcome.of([*states, *(SiteState.LEFT for _ in self.silent)], self.erased)


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
    except InvalidProof as error:
        raise InvalidProof(f"the certificate was changed or cut: {error}") from None
    keys.verify(certificate.head, Role.LOG, head.time)
    requested_by = verify_requester(certificate.request, terms, keys)
    signers = list[TrustedKey]()
    for logged, receipt in zip(certificate.receipts, receipts, strict=True):
        signers += keys.verify(logged.envelope, Role.SITE, receipt.time, receipt.answer.site)
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
    )


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


def _statement_document(said: LoggedStatement) -> dict[str, Any]:
    return {"envelope": said.envelope.to_document(), **_proof_document(said.proof)}


def _read_statement(item: Any) -> LoggedStatement:
    envelope, number, path = take(item, "a statement in the log", envelope=dict, number=int, inclusion=list)
    return LoggedStatement(envelope_of(envelope), LogProof(number, _nodes(path)))


def _proof_document(proof: LogProof) -> dict[str, Any]:
    return {"number": proof.number, "inclusion": [node.hex() for node in proof.path]}


def _read_receipt(item: Any) -> LoggedReceipt:
    envelope, consistency, number, path = take(
        item, "a certificate's receipt", envelope=dict, consistency=list, number=int, inclusion=list
    )
    return LoggedReceipt(envelope_of(envelope), LogProof(number, _nodes(path)), _nodes(consistency))


def _nodes(path: Sequence[Any]) -> tuple[bytes, ...]:
    if len(path) > 128 or any(type(node) is not str for node in path):
        raise InvalidProof("a proof in the log is not a list of at most 128 hashes")
    return tuple(read_hex(node, "a hash in a proof") for node in path)

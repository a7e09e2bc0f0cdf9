"""Certificates: one file that shows that a request was carried out, and by whom, with nothing but public keys to check.

The file is canonical JSON and everything in it is signed or leads to a signed head, so no byte of it can be changed.
Where a site left the federation without an answer, the certificate is of another type and names it: it holds no receipt
of that site, and proves the less for it.
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
from fedmunkey.common.proofs.ended_keys import Logged, is_in_time
from fedmunkey.common.proofs.log_heads import LogHead, LogProof, receipt_leaf, request_leaf
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

CERTIFICATE_BYTES = 64 * 2**20
_TYPES = {"urn:fedmunkey:certificate:v1": (1, False), "urn:fedmunkey:incomplete-certificate:v1": (1, True)}
_TYPES |= {"urn:fedmunkey:certificate:v2": (2, False), "urn:fedmunkey:incomplete-certificate:v2": (2, True)}
"""What each type of certificate is: its version, and whether it lacks receipts. Version 1 says of no receipt since when
it is in the log."""


@dataclass(frozen=True)
class FirstHead:
    """The earliest signed head of the log that is known to hold a leaf, and the proof that the log extends it."""

    head: Envelope
    consistency: tuple[bytes, ...]


@dataclass(frozen=True)
class LoggedReceipt:
    """A receipt, its place in the log, and the proof that the log extends the head which the site had seen.

    `first` is None in a certificate of version 1.
    """

    envelope: Envelope
    proof: LogProof
    consistency: tuple[bytes, ...]
    first: FirstHead | None = None


@dataclass(frozen=True)
class Certificate:
    """A request and what every addressed site answered.

    `sites` are those that were addressed, in alphabetical order, and the log holds the coordinator to it; there is a
    receipt for each but those in `silent`, in their order. `proof` says where the request stands in the log, and all
    proofs lead to `head`.
    """

    request: Envelope
    sites: tuple[str, ...]
    proof: LogProof
    receipts: tuple[LoggedReceipt, ...]
    head: Envelope
    silent: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the file's contents."""
        version = 1 if any(receipt.first is None for receipt in self.receipts) else 2
        (kind,) = (kind for kind, found in _TYPES.items() if found == (version, bool(self.silent)))
        return canonical_json(
            {
                "type": kind,
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
                        **_first_document(receipt.first),
                    }
                    for receipt in self.receipts
                ],
                "head": self.head.to_document(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Read a file's contents; raises `InvalidProof` if they are not exactly what `to_bytes` returns."""
        document = parse_canonical(data, "the file", CERTIFICATE_BYTES)
        kind, request, receipts, head = take(
            document, "a certificate", type=str, request=dict, receipts=list, head=dict
        )
        if kind not in _TYPES:
            raise InvalidProof(f"the file is no certificate of one of the types {', '.join(_TYPES)}")
        version, incomplete = _TYPES[kind]
        optional = {"silent": list} if incomplete else {}
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
            tuple(_read_receipt(receipt, version) for receipt in receipts),
            envelope_of(head),
            tuple(silent[0]) if silent else (),
        )


@dataclass(frozen=True)
class Verified:
    """What a certificate proves.

    `requested_by` has the keys that signed the request. Receipts are those of all addressed sites but the `silent`, in
    alphabetical order, and `signed_by` has the key that signed each. `head` is the state of the log that holds them.
    Nothing shows that the receipts of the `undated` sites were signed before their keys ended: they count for nothing.
    """

    terms: RequestTerms
    requested_by: tuple[TrustedKey, ...]
    receipts: tuple[Receipt, ...]
    signed_by: tuple[TrustedKey, ...]
    head: LogHead
    silent: tuple[str, ...] = ()
    undated: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[Receipt, ...]:
        """The receipts that count."""
        return tuple(receipt for receipt in self.receipts if receipt.answer.site not in self.undated)

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
        receipts = _read_receipts(certificate, terms, head)
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
    return Verified(terms, requested_by, tuple(receipts), tuple(signers), head, certificate.silent, undated)


def _read_receipts(certificate: Certificate, terms: RequestTerms, head: LogHead) -> list[Receipt]:
    """Return the receipts, each of an addressed site, for this request and in the log; who signed is not checked."""
    digest = hashlib.sha256(certificate.request.payload).digest()
    answered = [site for site in certificate.sites if site not in certificate.silent]
    if len(certificate.receipts) != len(answered) or not set(certificate.silent) <= set(certificate.sites):
        raise InvalidProof("it does not have one receipt for each site that the request addresses")
    receipts = []
    for site, logged in zip(answered, certificate.receipts, strict=True):
        receipt = Receipt.of(logged.envelope)
        if receipt.answer.site != site or receipt.request != digest or receipt.answer.request_id != terms.request_id:
            raise InvalidProof("a receipt is for another request, or from another site than the request addresses")
        _check_leaf(receipt_leaf(logged.envelope.to_bytes()), logged.proof, head)
        _check_witnessed(receipt, logged.consistency, head)
        if logged.first is not None:
            _check_first(logged.first, logged.proof.number, head)
        if logged.proof.number <= certificate.proof.number:
            raise InvalidProof("a receipt stands in the log before its request")
        receipts.append(receipt)
    return receipts


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


def _first_document(first: FirstHead | None) -> dict[str, Any]:
    if first is None:
        return {}
    return {"first": {"head": first.head.to_document(), "consistency": [node.hex() for node in first.consistency]}}


def _proof_document(proof: LogProof) -> dict[str, Any]:
    return {"number": proof.number, "inclusion": [node.hex() for node in proof.path]}


def _read_receipt(item: Any, version: int) -> LoggedReceipt:
    later = {"first": dict} if version > 1 else {}
    envelope, consistency, number, path, *firsts = take(
        item, "a certificate's receipt", envelope=dict, consistency=list, number=int, inclusion=list, **later
    )
    first = None
    if firsts:
        head, extended = take(firsts[0], "the first head of a receipt", head=dict, consistency=list)
        first = FirstHead(envelope_of(head), _nodes(extended))
    return LoggedReceipt(envelope_of(envelope), LogProof(number, _nodes(path)), _nodes(consistency), first)


def _nodes(path: Sequence[Any]) -> tuple[bytes, ...]:
    if len(path) > 128 or any(type(node) is not str for node in path):
        raise InvalidProof("a proof in the log is not a list of at most 128 hashes")
    return tuple(read_hex(node, "a hash in a proof") for node in path)

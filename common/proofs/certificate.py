"""Certificates: one file that shows that a request was carried out, and by whom, with nothing but public keys to check.

The file is canonical JSON and everything in it is signed or leads to a signed head, so no byte of it can be changed.
Where a site left the federation without an answer, the certificate is of another type and names it: it holds no receipt
of that site, and proves the less for it. So does one whose renewal was taken out: then none is proved.
Where the log was restored from a copy, a receipt may name a head that the log has lost: then what the log, its key and
officers say of that is in the certificate as well.
Checking needs `cryptography` and `rfc8785` and nothing else of this project than what is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedmunkey.common.deletions.limits import is_line
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.contributions import ReleaseNote
from fedmunkey.common.proofs.log_heads import LogProof
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of

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
class LoggedStatement:
    """A statement that the log was restored from a copy, and its place in the log."""

    envelope: Envelope
    proof: LogProof


@dataclass(frozen=True)
class LoggedRenewal:
    """Weights that were solved without what a request erased: the log's leaf of them, and its place in the log.

    `contributions` are the signed ones of the sites that erased something, in alphabetical order.
    """

    note: ReleaseNote
    proof: LogProof
    contributions: tuple[Envelope, ...]
    first: FirstHead


@dataclass(frozen=True)
class Certificate:
    """A request and what every addressed site answered.

    `sites` are those that were addressed, in alphabetical order, and the log holds the coordinator to it; there is a
    receipt for each but those in `silent`, in their order. `proof` says where the request stands in the log, and all
    proofs lead to `head`. There is something in `restored` only if a receipt names a head that the log has lost, and a
    `renewal` only where shared weights had to be solved for anew.
    """

    request: Envelope
    sites: tuple[str, ...]
    proof: LogProof
    receipts: tuple[LoggedReceipt, ...]
    head: Envelope
    silent: tuple[str, ...] = ()
    restored: tuple[LoggedStatement, ...] = ()
    renewal: LoggedRenewal | None = None

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
                **({"restored": [_statement_document(said) for said in self.restored]} if self.restored else {}),
                **({"renewal": _renewal_document(self.renewal)} if self.renewal else {}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Read a file's contents; raises `InvalidProof` if they are not exactly what `to_bytes` returns."""
        document = parse_canonical(data, "the file", CERTIFICATE_BYTES)
        more = {"restored": list, "renewal": dict}
        found = {name: kind for name, kind in more.items() if isinstance(document, dict) and document.get(name)}
        kind, request, receipts, head, *rest = take(
            document, "a certificate", type=str, request=dict, receipts=list, head=dict, **found
        )
        others = dict(zip(found, rest, strict=True))
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
            tuple(map(_read_statement, others.get("restored", ()))),
            _read_renewal(others["renewal"]) if "renewal" in others else None,
        )


def _statement_document(said: LoggedStatement) -> dict[str, Any]:
    return {"envelope": said.envelope.to_document(), **_proof_document(said.proof)}


def _read_statement(item: Any) -> LoggedStatement:
    envelope, number, path = take(item, "a statement in the log", envelope=dict, number=int, inclusion=list)
    return LoggedStatement(envelope_of(envelope), LogProof(number, _nodes(path)))


def _renewal_document(renewal: LoggedRenewal) -> dict[str, Any]:
    return {
        "release": renewal.note.to_document(),
        "contributions": [envelope.to_document() for envelope in renewal.contributions],
        **_first_document(renewal.first),
        **_proof_document(renewal.proof),
    }


def _read_renewal(item: Any) -> LoggedRenewal:
    release, contributions, first, number, path = take(
        item, "a renewal", release=dict, contributions=list, first=dict, number=int, inclusion=list
    )
    note, proof = ReleaseNote.from_document(release), LogProof(number, _nodes(path))
    return LoggedRenewal(note, proof, tuple(map(envelope_of, contributions)), _read_first(first))


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
    first = _read_first(firsts[0]) if firsts else None
    return LoggedReceipt(envelope_of(envelope), LogProof(number, _nodes(path)), _nodes(consistency), first)


def _read_first(item: Any) -> FirstHead:
    head, extended = take(item, "the first head of a leaf", head=dict, consistency=list)
    return FirstHead(envelope_of(head), _nodes(extended))


def _nodes(path: Sequence[Any]) -> tuple[bytes, ...]:
    if len(path) > 128 or any(type(node) is not str for node in path):
        raise InvalidProof("a proof in the log is not a list of at most 128 hashes")
    return tuple(read_hex(node, "a hash in a proof") for node in path)

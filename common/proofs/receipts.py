"""Receipts: what a site signs once it has answered an order. They hold no identity and no reference."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedmunkey.common.deletions.acknowledgement import Acknowledgement
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.proofs.signing.canonical import read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:deletion-receipt:v1"


@dataclass(frozen=True)
class WitnessedHead:
    """The last head of the coordinator's log that a site had checked when it signed."""

    size: int
    root: bytes


@dataclass(frozen=True)
class Receipt:
    """What a site says about one order.

    Attributes
    ----------
    answer : Acknowledgement
        Its `seconds` are not part of the receipt and 0 when one is read.
    request : bytes
        32-byte digest of the request (`common.proofs.signed_requests.OpenedRequest.digest`).
    tombstones : bytes or None
        32-byte commitment to the tombstones that the order left at the site, keyed hashes that only the site can make;
        None where it refused.
    witnessed : WitnessedHead or None
        Ties the receipt to one history of the log: whoever holds receipts of two sites sees if they were shown two.
    asked : tuple of datetime or None
        From when to when the request may be carried out, so that a ledger that lost it can be asked for the same again;
        None where it bore no signature, and in receipts of earlier versions.
    exported : tuple of str
        SHA-256 digests, hexadecimal, of the models that the site has given away, that are in use, and that hold what
        the order erased: they must be replaced. Receipts of sites that have given none away do not have the field.
    rectified : int
        Of the erased records, how many were enrolled anew, corrected, in the same transaction; other receipts do not
        have the field.
    """

    answer: Acknowledgement
    request: bytes
    time: datetime
    tombstones: bytes | None
    witnessed: WitnessedHead | None
    asked: tuple[datetime, datetime] | None = None
    exported: tuple[str, ...] = ()
    rectified: int = 0

    def sign(self, key: SigningKey) -> Envelope:
        """Return the receipt in an envelope that the site's key signs."""
        seen = self.witnessed
        predicate = {
            **self.answer.claims(),
            "time": write_time(self.time),
            "tombstones": None if self.tombstones is None else self.tombstones.hex(),
            "witnessed": None if seen is None else {"size": seen.size, "root": seen.root.hex()},
        }
        if self.asked is not None:
            predicate["asked"] = dict(zip(("issued", "expires"), map(write_time, self.asked), strict=True))
        if self.exported:
            predicate["exported"] = list(self.exported)
        if self.rectified:
            predicate["rectified"] = self.rectified
        return Statement("request", self.request, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> Receipt:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        claims = dict(statement.predicate)
        asked = _read_asked(claims.pop("asked")) if "asked" in claims else None
        exported = _read_exported(claims.pop("exported")) if "exported" in claims else ()
        rectified = claims.pop("rectified", 0)
        time, tombstones, seen = take(
            {name: claims.pop(name) for name in ("time", "tombstones", "witnessed") if name in claims},
            "a receipt",
            time=str,
            tombstones=(str, type(None)),
            witnessed=(dict, type(None)),
        )
        if statement.subject != "request":
            raise InvalidProof("a receipt is not about a request")
        try:
            answer = Acknowledgement.from_document({**claims, "seconds": 0.0})
        except InvalidDeletion as error:
            raise InvalidProof(f"a receipt contradicts itself: {error}") from None
        if type(rectified) is not int or not 0 <= rectified <= answer.records:
            raise InvalidProof("a receipt says that more records were rectified than were erased")
        return cls(
            answer,
            statement.digest,
            read_time(time),
            None if tombstones is None else read_hex(tombstones, "a commitment to tombstones"),
            None if seen is None else _read_witnessed(seen),
            asked,
            exported,
            rectified,
        )

    def check_describes(self, answer: Acknowledgement) -> None:
        """Check that the receipt is for exactly this answer; raises `InvalidProof` if it says something else."""
        mine, theirs = self.answer.claims(), answer.claims()
        for what in mine:
            if mine[what] != theirs[what]:
                raise InvalidProof(f"the receipt and the answer of {answer.site!r} differ in {what}")


def _read_asked(document: Any) -> tuple[datetime, datetime]:
    issued, expires = take(document, "when a request was asked", issued=str, expires=str)
    return read_time(issued), read_time(expires)


def _read_exported(document: Any) -> tuple[str, ...]:
    if type(document) is not list or not document or any(type(digest) is not str for digest in document):
        raise InvalidProof("a receipt does not name exported models by their digests")
    return tuple(read_hex(digest, "the digest of an exported model").hex() for digest in document)


def _read_witnessed(document: Any) -> WitnessedHead:
    size, root = take(document, "a witnessed head", size=int, root=str)
    if size < 1:
        raise InvalidProof("a witnessed head is of an empty log")
    return WitnessedHead(size, read_hex(root, "the root of a witnessed head"))

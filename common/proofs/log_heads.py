"""Signed heads of the transparency log: how many leaves it has, and their root (RFC 6962, section 3.5).

The leaves are requests and receipts as they were signed, with the sites that a request addresses, and statements that
the log was restored from a copy, and versions of the federation card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:log-head:v1"


@dataclass(frozen=True)
class LogHead:
    """One state of the log: how many leaves it had, their 32-byte root, and when it was signed."""

    size: int
    root: bytes
    time: datetime

    def sign(self, key: SigningKey) -> Envelope:
        """Return the head in an envelope that the log's key signs."""
        predicate = {"size": self.size, "time": write_time(self.time)}
        return Statement("log", self.root, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> LogHead:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        size, time = take(statement.predicate, "a log head", size=int, time=str)
        if statement.subject != "log" or size < 0:
            raise InvalidProof("a log head is not one that this version knows")
        return cls(size, statement.digest, read_time(time))


@dataclass(frozen=True)
class LogProof:
    """Where a leaf stands in the log, and the hashes that lead from it to the root, lowest first."""

    number: int
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class LogUpdate:
    """What a coordinator shows of its log to somebody who has seen an earlier state.

    `consistency` proves that the log extends the earlier state, and is empty where there was none or it has not grown.
    Of `inclusions` there is one for each leaf that was asked for, None for one that is not in the log. `restored` has
    what the log says of itself having been restored from a copy (`common.proofs.restored_log`), oldest first.
    """

    head: Envelope
    consistency: tuple[bytes, ...]
    inclusions: tuple[LogProof | None, ...]
    restored: tuple[Envelope, ...] = ()


def request_leaf(envelope: bytes, sites: Sequence[str]) -> bytes:
    """Return the leaf of a request, which also says which sites the coordinator sent it to."""
    # The canonical JSON of an object is made of that of its values: `envelope` comes before `kind`, then `sites`.
    return b'{"envelope":' + envelope + b',"kind":"request","sites":' + canonical_json(list(sites)) + b"}"


def receipt_leaf(envelope: bytes) -> bytes:
    """Return the leaf of a receipt, whose envelope is given as canonical JSON."""
    return b'{"envelope":' + envelope + b',"kind":"receipt"}'


def restored_leaf(envelope: bytes) -> bytes:
    """Return the leaf of a statement that the log was restored, whose envelope is given as canonical JSON."""
    return b'{"envelope":' + envelope + b',"kind":"restored"}'


def instruction_leaf(envelope: bytes) -> bytes:
    """Return the leaf of a standing instruction, whose envelope is given as canonical JSON."""
    return b'{"envelope":' + envelope + b',"kind":"standing"}'


def block_leaf(envelope: bytes) -> bytes:
    """Return the leaf of the receipt of a block, whose envelope is given as canonical JSON."""
    return b'{"envelope":' + envelope + b',"kind":"block"}'


def card_leaf(envelope: bytes) -> bytes:
    """Return the leaf of a version of the federation card, whose envelope is given as canonical JSON."""
    return b'{"envelope":' + envelope + b',"kind":"card"}'

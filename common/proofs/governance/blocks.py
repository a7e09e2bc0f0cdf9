"""The receipt of a block: what the coordinator signs when a legal hold keeps a request out of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_envelope, read_time, write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys

PREDICATE_TYPE = "urn:fedmunkey:block:v1"


@dataclass(frozen=True)
class Block:
    """What was kept out: the request, by its id and digest, when, and the digests of the holds; it names nobody."""

    request_id: str
    request: bytes
    time: datetime
    holds: tuple[bytes, ...]

    def sign(self, key: SigningKey) -> Envelope:
        """Return it in an envelope that the log's key signs."""
        predicate = {
            "requestId": self.request_id,
            "time": write_time(self.time),
            "holds": [digest.hex() for digest in self.holds],
        }
        return Statement("request", self.request, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> Block:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        name, time, holds = take(statement.predicate, "the receipt of a block", requestId=str, time=str, holds=list)
        if statement.subject != "request" or not holds:
            raise InvalidProof("the receipt of a block names no request, or no hold")
        digests = tuple(read_hex(str(digest), "the digest of a hold") for digest in holds)
        return cls(name, statement.digest, read_time(time), digests)


def verify_block(data: bytes, keys: TrustedKeys) -> Block:
    """Check the receipt of a block against the keys that its reader trusts; raises `InvalidProof`."""
    envelope = read_envelope(data)
    block = Block.of(envelope)
    keys.verify(envelope, Role.LOG, block.time)
    return block

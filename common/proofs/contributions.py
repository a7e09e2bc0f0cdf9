"""What a site signs about its part in a round, and what the log holds of the round: by it weights are known as renewed.

A contribution says up to which deletion order it was made. Whoever has it, and the log's leaf of the release that was
solved with it, knows that the released weights were made without what those orders erased at that site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.canonical import canonical_json, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:contribution:v1"


@dataclass(frozen=True)
class Contribution:
    """What a site says about the numbers that it sent.

    Attributes
    ----------
    site, round_id : str
        Whose they are, and of which round.
    last_order : int
        Every order up to this one was carried out before.
    numbers : bytes
        SHA-256 of the masked numbers.
    time : datetime
        When it was signed.
    """

    site: str
    round_id: str
    last_order: int
    numbers: bytes
    time: datetime

    def sign(self, key: SigningKey) -> Envelope:
        """Return the contribution in an envelope that the site's key signs."""
        predicate = {
            "site": self.site,
            "round": self.round_id,
            "lastOrder": self.last_order,
            "time": write_time(self.time),
        }
        return Statement("contribution", self.numbers, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> Contribution:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        site, round_id, last, time = take(
            statement.predicate, "a contribution", site=str, round=str, lastOrder=int, time=str
        )
        if statement.subject != "contribution" or last < 0 or not site:
            raise InvalidProof("a contribution is not one that this version knows")
        return cls(site, round_id, last, statement.digest, read_time(time))


@dataclass(frozen=True)
class ReleaseNote:
    """What the log holds of released weights: their digest, and the digest of each site's signed contribution.

    A site that signed none is in it with nothing. `changed` records were others than in the release before.
    """

    release: str
    changed: int
    contributions: Mapping[str, bytes | None]

    def to_document(self) -> dict[str, Any]:
        """Return the note, JSON-ready."""
        said = {site: None if one is None else one.hex() for site, one in self.contributions.items()}
        return {"changed": self.changed, "contributions": said, "kind": "release", "release": self.release}

    def leaf(self) -> bytes:
        """Return the leaf, canonical JSON."""
        return canonical_json(self.to_document())

    @classmethod
    def from_document(cls, document: Any) -> ReleaseNote:
        """Read what `to_document` returns; raises `InvalidProof` if it is none of a release."""
        changed, said, kind, release = take(document, "a leaf", changed=int, contributions=dict, kind=str, release=str)
        if kind != "release":
            raise InvalidProof("a leaf of the log is not that of a release")
        return cls(release, changed, {site: _digest(one) for site, one in said.items()})


def contribution_digest(envelope: bytes) -> bytes:
    """Return the digest by which a release's leaf names a contribution's envelope, canonical JSON."""
    return hashlib.sha256(envelope).digest()


def _digest(said: Any) -> bytes | None:
    if said is None:
        return None
    if type(said) is not str:
        raise InvalidProof("a release's leaf names a contribution by something else than a digest")
    return read_hex(said, "the digest of a contribution")

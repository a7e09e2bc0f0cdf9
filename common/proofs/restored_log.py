"""What is said of a log that was restored from a copy, and who must sign it before a site follows such a log.

The log's key alone is not enough: whoever takes the coordinator over has it, and could drop what it does not like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.signed_requests import CLOCK_SKEW_SECONDS
from fedmunkey.common.proofs.signing.canonical import read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope, Signature
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement, read_time, write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

PREDICATE_TYPE = "urn:fedmunkey:restored-log:v1"


@dataclass(frozen=True)
class RestoredLog:
    """A statement that a log lacks what it once held, for it was restored from a copy.

    Attributes
    ----------
    kept : WitnessedHead
        The last head of the copy: what the log held up to there it holds still.
    head : WitnessedHead
        The head of the log when this was said, of which everything is to stay from then on.
    """

    kept: WitnessedHead
    head: WitnessedHead
    reason: str
    time: datetime

    def sign(self, key: SigningKey) -> Envelope:
        """Return the statement with the log's signature; raises `InvalidProof` if the reason is no line, or empty."""
        if not self.reason.strip() or not is_line(self.reason):
            raise InvalidProof(
                f"a restored log needs a reason: one printable line of 1 to {LINE_CHARACTERS} characters"
            )
        predicate = {
            "size": self.kept.size,
            "head": {"size": self.head.size, "root": self.head.root.hex()},
            "reason": self.reason,
            "time": write_time(self.time),
        }
        return Statement("log", self.kept.root, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> RestoredLog:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        what = "a statement of a restored log"
        size, head, reason, time = take(statement.predicate, what, size=int, head=dict, reason=str, time=str)
        head_size, root = take(head, "a log's head", size=int, root=str)
        if statement.subject != "log" or not 0 <= size <= head_size or not reason.strip():
            raise InvalidProof(f"{what} contradicts itself")
        said = WitnessedHead(head_size, read_hex(root, "a head's root"))
        return cls(WitnessedHead(size, statement.digest), said, reason, read_time(time))

    @property
    def words(self) -> str:
        """What is said, for people."""
        return f"restored from a copy of {self.kept.size} leaves, as was said on {write_time(self.time)}: {self.reason}"


def verify_restored(envelope: Envelope, keys: TrustedKeys, *, heard: datetime | None = None) -> tuple[TrustedKey, ...]:
    """Check that the log and as many officers as the file of keys asks for have said that a log was restored.

    Returns their keys, which were good when it was said and are not revoked; some may have ended since. Who hears it
    for the first time says when: the statement must not be dated in the future. Raises `InvalidProof`.
    """
    said = RestoredLog.of(envelope)
    logs = {key.key.key_id for key in keys.of(Role.LOG)}
    of_log, of_officers = list[Signature](), list[Signature]()
    for signature in envelope.signatures:
        (of_log if signature.key_id in logs else of_officers).append(signature)
    if not of_log:
        raise InvalidProof("that the log was restored is not signed with the log's key")
    if heard is not None and (said.time - heard).total_seconds() > CLOCK_SKEW_SECONDS:
        raise InvalidProof(f"dated in the future: the log was restored on {write_time(said.time)}; check clocks")
    signers = keys.verify(replace(envelope, signatures=tuple(of_log)), Role.LOG, said.time)
    officers: tuple[TrustedKey, ...] = ()
    if of_officers:
        officers = keys.verify(replace(envelope, signatures=tuple(of_officers)), Role.OFFICER, said.time)
    if len({officer.name for officer in officers}) < keys.officers:
        raise InvalidProof(
            f"that the log was restored must be signed by {keys.officers} officers, and {len(officers)} did; "
            "munkey-client countersign adds a signature"
        )
    return (*signers, *officers)


def signed_by(keys: Sequence[TrustedKey]) -> str:
    """Return who signed a statement, for people."""
    return " and ".join(f"{key.name} (key {key.key.key_id[:16]})" for key in keys)

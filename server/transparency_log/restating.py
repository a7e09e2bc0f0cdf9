"""Saying that the log was restored from a copy: what its key and officers sign, and the log then holds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.restored_log import RestoredLog, verify_restored
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.transparency_log.leaves import leaf_of_restored
from fedmunkey.server.transparency_log.log import TransparencyLog


def state_restored(log: TransparencyLog, key: SigningKey, reason: str, size: int | None, now: datetime) -> Envelope:
    """Return the statement that a log was restored from a copy of so many leaves, by default all that it has now.

    Nothing is written to the log. Raises `InvalidProof` if the reason is no line, or the log has fewer leaves.
    """
    head = LogHead.of(log.head())
    kept = head.size if size is None else size
    if not 0 <= kept <= head.size:
        raise InvalidProof(f"the log has {head.size} leaves, so it was not restored from a copy of {kept}")
    said = RestoredLog(WitnessedHead(kept, log.root(kept)), WitnessedHead(head.size, head.root), reason, now)
    return said.sign(key)


def enter_restored(log: TransparencyLog, key: SigningKey, envelope: Envelope, trust: TrustedKeys | None) -> int:
    """Write a statement that officers have signed into the log, once; return how many leaves the log has then.

    Without trusted keys it is not checked which officers these are: each site does. Raises `InvalidProof` if it is not
    about this log, or not signed by the log and an officer.
    """
    said = RestoredLog.of(envelope)
    size = LogHead.of(log.head()).size
    for head in (said.kept, said.head):
        if head.size > size or log.root(head.size) != head.root:
            raise InvalidProof(
                f"the statement is about another log: this one has no head of {head.size} leaves like it"
            )
    if trust is None:
        envelope_of_log = {signature.key_id for signature in envelope.signatures}
        if key.public.key_id not in envelope_of_log or len(envelope_of_log) < 2:
            raise InvalidProof("the statement is not signed by the log and an officer; munkey-client countersign signs")
    else:
        verify_restored(envelope, _with_log(trust, key))
    log.extend([leaf_of_restored(envelope)])
    return LogHead.of(log.head()).size


def read_statement(path: Path) -> Envelope:
    """Read a statement from a file; raises `InvalidProof`."""
    try:
        return read_envelope(path.read_bytes())
    except OSError as error:
        raise InvalidProof(f"{path} cannot be read ({error.strerror}); munkey-client countersign writes it") from None


def write_statement(path: Path, statement: Envelope) -> None:
    """Write a statement to a new file; raises `InvalidProof` if there is one, or it cannot be written."""
    try:
        write_private(path, statement.to_bytes())
    except OSError as error:
        raise InvalidProof(f"{path} cannot be written ({error.strerror}); name another file with --save") from None


def _with_log(trust: TrustedKeys, key: SigningKey) -> TrustedKeys:
    """Return trusted keys with the log's own, which the coordinator's file need not have."""
    there = any(held.key == key.public for held in trust.keys)
    return trust if there else trust.add(TrustedKey("log", Role.LOG, key.public))

"""How a key store names records and subjects so that nothing readable is left of those it has deleted.

SQLite may leave a copy of a row behind when it moves it. A row of `records` therefore holds no id in the clear: ids are
encrypted under a secret of the entry's own, which a deletion overwrites where it lies, and are found by keyed hashes.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES = 32

# Each secret encrypts one text, once, so the nonce need not differ.
_NONCE = bytes(12)


@dataclass(frozen=True)
class ReferenceHashes:
    """Hashes of references under a key that only one store has; also what its tombstones are made of.

    Attributes
    ----------
    key : bytes
        The store's key.
    """

    key: bytes

    def record(self, reference: bytes) -> bytes:
        """Return the 32-byte hash of a record's reference."""
        return hmac.digest(self.key, b"record" + reference, "sha256")

    def subject(self, reference: bytes) -> bytes:
        """Return the 32-byte hash of a subject's reference."""
        return hmac.digest(self.key, b"subject" + reference, "sha256")


def encrypt_identity(secret: bytes, record_id: str, subject_id: str) -> bytes:
    """Encrypt a record's and its subject's id under the entry's secret (AES-256-GCM)."""
    return AESGCM(secret).encrypt(_NONCE, json.dumps([record_id, subject_id]).encode(), None)


def decrypt_identity(secret: bytes, identity: bytes) -> tuple[str, str]:
    """Return the record's and the subject's id."""
    record_id, subject_id = json.loads(AESGCM(secret).decrypt(_NONCE, identity, None))
    return record_id, subject_id

"""How a record's contents are encrypted: AES-256-GCM under the record's own key, bound to their place in the store."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedmunkey.common.errors import KeyStoreError

_NONCE_BYTES = 12
OVERHEAD = _NONCE_BYTES + 16
"""Bytes by which an encrypted content is longer: nonce and tag."""


def seal(key: bytes, table: str, entry: int, content: bytes) -> bytes:
    """Encrypt a content of an entry: a random nonce, the ciphertext, the tag.

    `key` is the record's 32 bytes. The table and entry say where the content is kept: elsewhere it cannot be decrypted.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, _place(table, entry))


def unseal(key: bytes, table: str, entry: int, sealed: bytes) -> bytes:
    """Decrypt what `seal` made; raises `KeyStoreError` if it was changed, or is of another place or key."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(table, entry))
    except (InvalidTag, ValueError):
        raise KeyStoreError(
            f"entry {entry} of the key store is damaged (table {table}); restore the store from a backup"
        ) from None


def _place(table: str, entry: int) -> bytes:
    # What the ids are bound to has the table's first name, for those that were encrypted then.
    return (b"identities" if table == "ids" else table.encode()) + entry.to_bytes(8, "little")

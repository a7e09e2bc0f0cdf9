"""How alike neighbours are, hidden in a row of four bytes: who has two images and the public encoder could look for it.

A similarity is a float32, of which the bits are combined with four bytes that AES-256 makes of the two entry numbers.
Each pair has its own, and has one similarity for ever: keys do not change, and an entry's number is given once.
"""

from __future__ import annotations

import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray


def mask_key_of(cipher: bytes, sealed_hash_key: bytes) -> bytes:
    """Return a store's 32-byte key of masks, given that of its secrets and its hash key as it is sealed.

    The latter is another one in every store, also where a later store has the same hash key.
    """
    return hmac.digest(cipher, b"similarities" + sealed_hash_key, "sha256")


def mask(
    key: bytes, entries: NDArray[np.int64], neighbours: NDArray[np.int64], similarities: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return what is kept of (n,) similarities of entries and their neighbours."""
    return similarities.astype("<f4").view("<i4") ^ _masks(key, entries, neighbours)


def unmask(
    key: bytes, entries: NDArray[np.int64], neighbours: NDArray[np.int64], masked: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the (n,) similarities that `mask` has hidden."""
    return (masked.astype("<i4") ^ _masks(key, entries, neighbours)).view("<f4").astype(np.float32)


def _masks(key: bytes, entries: NDArray[np.int64], neighbours: NDArray[np.int64]) -> NDArray[np.int32]:
    pairs = np.column_stack((entries, neighbours)).astype("<i8").tobytes()
    # No mode in which messages are encrypted: each block is another pair, and none is ever decrypted.
    made = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(pairs)  # noqa: S305
    return np.frombuffer(made, "<i4").reshape(-1, 4)[:, 0]

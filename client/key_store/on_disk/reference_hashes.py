"""How a key store names records and subjects so that nothing readable is left of those it has deleted.

SQLite may leave a copy of a row behind when it moves it. A row of `records` therefore holds no id: ids lie in a table
whose rows never move, encrypted under the record's key, and are found by keyed hashes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.deletions.words import Records, Subject, Target


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

    def of_target(self, target: Target) -> list[bytes]:
        """Return the sorted hashes of what a target names, whether it is here or not; none for a whole site."""
        if isinstance(target, Records):
            return sorted(map(self.record, target.references))
        return [self.subject(target.reference)] if isinstance(target, Subject) else []

    def commitment(self, target: Target) -> bytes:
        """Return the commitment to the tombstones that an order for a target leaves at a site, as `commitment_to`."""
        return commitment_to(self.of_target(target))

    def image(self, image: NDArray[np.uint8]) -> bytes:
        """Return the 32-byte hash of an image, which is the same whatever record it comes as."""
        shape = "x".join(str(size) for size in image.shape)
        return hmac.digest(self.key, b"image" + shape.encode() + image.tobytes(), "sha256")


def commitment_to(named: Sequence[bytes]) -> bytes:
    """Return the 32-byte commitment to the tombstones of what a target names, by `ReferenceHashes.of_target`.

    Tombstones are hashes under a key that only the store has: the site can show later what it committed to, and nobody
    else can tell whom they stand for.
    """
    return hashlib.sha256(b"fedmunkey tombstones v1\x00" + b"".join(named)).digest()

"""References that stand for patients and records outside a hospital's walls.

The coordinator sees `HMAC-SHA256(federation secret, id)` and never the id itself. The secret is shared by sites and
officers only, so the coordinator cannot try ids out.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.private_files import read_private, write_private

REFERENCE_BYTES = 32
_SECRET_BYTES = 32


class FederationSecret:
    """The key that sites and officers share.

    Parameters
    ----------
    key : bytes
        At least 16 bytes.

    Raises
    ------
    InvalidInput
        If the key is shorter.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise InvalidInput(f"the federation secret has {len(key)} bytes; it must have at least 16")
        self._key = key

    def __repr__(self) -> str:
        return "FederationSecret(...)"

    def reference(self, identifier: str) -> bytes:
        """Return the 32-byte reference of a `subject_id` or a `record_id`."""
        return hmac.digest(self._key, identifier.encode(), "sha256")

    @property
    def federation_id(self) -> str:
        """What signed requests call the federation: 32 hexadecimal digits that only holders of the secret can make."""
        # No identifier begins with this byte, which UTF-8 never has.
        return hmac.digest(self._key, b"\xfffederation", "sha256").hex()[:32]

    @classmethod
    def generate(cls) -> FederationSecret:
        """Make a new random secret."""
        return cls(secrets.token_bytes(_SECRET_BYTES))

    @classmethod
    def read(cls, path: Path) -> FederationSecret:
        """Read a secret that `write` wrote.

        Raises
        ------
        InvalidInput
            If the file cannot be read, can be used by others than its owner or does not hold a secret.
        """
        if not path.is_file():
            raise InvalidInput(f"the federation secret {path} cannot be read; name the file with --secret")
        try:
            return cls(bytes.fromhex(read_private(path, "a federation secret").decode().strip()))
        except ValueError:
            raise InvalidInput(f"{path} does not hold a federation secret (hexadecimal digits)") from None

    def write(self, path: Path) -> None:
        """Write the secret to a new file that only its owner can read.

        Raises
        ------
        FileExistsError
            If the file is there already: a secret is never overwritten.
        """
        write_private(path, f"{self._key.hex()}\n".encode())

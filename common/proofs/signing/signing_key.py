"""Ed25519 keys (RFC 8032) and the files that hold them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.signing.canonical import read_hex

SIGNATURE_BYTES = 64
_KEY_FILE_BYTES = 4096


class PublicKey:
    """What checks signatures.

    `raw` is the 32 bytes of the key. Raises `InvalidProof` if there are more or fewer bytes.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != 32:
            raise InvalidProof(f"an Ed25519 public key has 32 bytes, not {len(raw)}")
        self.raw = raw
        self.key_id = hashlib.sha256(raw).hexdigest()
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.raw.hex()})"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature of a message was made with the private key."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """Return the key as a PEM file (SubjectPublicKeyInfo)."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key as 64 hexadecimal digits; raises `InvalidProof` for anything else."""
        return cls(read_hex(text, "a public key"))

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Read a PEM file; raises `InvalidProof` if it holds no Ed25519 public key."""
        try:
            key = serialization.load_pem_public_key(_read_file(path))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidProof(f"{path} holds no Ed25519 public key; make one with munkey-client signing-keys new")
        return cls(key.public_bytes_raw())


class SigningKey:
    """What signs; its file can be read by its owner only."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id[:16]}...)"

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message; the same message always has the same signature."""
        return self._key.sign(message)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Return the key of a 32-byte secret."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read a key that `write` wrote.

        Raises `InvalidProof` if the file cannot be read, can be read by others than its owner, or holds no Ed25519
        private key.
        """
        data = _read_file(path, private=True)
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidProof(f"{path} holds no Ed25519 private key; make one with munkey-client signing-keys new")
        return cls(key)

    def write(self, path: Path) -> None:
        """Write the key to a PEM file (PKCS 8) that only its owner can read; raises `FileExistsError` if there is one.

        A key is never overwritten.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)

    def write_pair(self, path: Path) -> Path:
        """Write the key as `write` does, and its public part beside it; return the public part's path."""
        self.write(path)
        public = path.with_suffix(".pub")
        public.write_bytes(self.public.pem())
        return public


def _read_file(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            # Of the open file, so that nobody can put another in its place between the check and the reading.
            mode = os.fstat(file.fileno()).st_mode
            if private and stat.S_IMODE(mode) & 0o077:
                raise InvalidProof(
                    f"{path} is a private key that others than its owner can use; run chmod 600 {path}, "
                    "and make another key if somebody may have read it"
                )
            return file.read(_KEY_FILE_BYTES)
    except OSError as error:
        raise InvalidProof(f"the key file {path} cannot be read ({error.strerror}); name another") from None

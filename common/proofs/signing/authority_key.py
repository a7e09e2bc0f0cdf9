"""A federation's authority as a signer of documents: ECDSA P-256 with SHA-256, as it signs certificates.

A signature is the two numbers r and s in 32 bytes each (RFC 7518, section 3.4), not DER, so that in an envelope it has
as many bytes as every other and one spelling.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

_HALF = 32


class AuthorityPublicKey:
    """What checks the authority's signatures; its id is the SHA-256 of its DER form (SubjectPublicKeyInfo)."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.key_id = hashlib.sha256(der).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature of a message was made with the private key."""
        r, s = (int.from_bytes(half) for half in (signature[:_HALF], signature[_HALF:]))
        try:
            self._key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class AuthoritySigningKey:
    """What signs."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = AuthorityPublicKey(key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_HALF) + s.to_bytes(_HALF)

"""A member's ECDSA P-256 key, and the request for a certificate that it signs; the key never leaves its machine."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.member_names import MemberRole, member_uri
from fedmunkey.common.private_files import read_private, write_private

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
"""What `cryptography` raises for bytes that are no certificate or request for one; they have no common ancestor."""


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a key in a file that only its owner can read; one that is there, of an interrupted attempt, is taken.

    Raises `InvalidIdentity` if the file that is there cannot be used.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(path, key_pem(key))
    return read_key(path)[0]


def read_key(path: Path) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return a private key and its file's content.

    Raises `InvalidIdentity` if the file cannot be read, can be used by others than its owner, or holds no ECDSA P-256
    private key.
    """
    data = read_private(path, "a private key", error=InvalidIdentity)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidIdentity(f"{path} holds no ECDSA P-256 private key; put it back from a backup, or join again")
    return key, data


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a PEM file (PKCS 8)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER (SubjectPublicKeyInfo)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def make_signing_request(key: ec.EllipticCurvePrivateKey, role: MemberRole, name: str) -> bytes:
    """Return a certificate signing request (PKCS 10, DER) for a member's key."""
    named = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(member_uri(role, name))])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(named, critical=True)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_signing_request(data: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request; what else it asks for is for the authority to decide.

    Raises `InvalidIdentity` if it is none, was not signed with its key, or the key is no ECDSA P-256 key.
    """
    try:
        request = x509.load_der_x509_csr(data)
        key = request.public_key()
        sound = request.is_signature_valid
    except (*UNREADABLE, InvalidSignature):
        key, sound = None, False
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidIdentity("the request for a certificate does not hold an ECDSA P-256 key and its signature")
    return key

"""Masks that hide one hospital's numbers from whoever adds them, and cancel in the sum.

Every two participants agree on a secret by their identities' keys (ECDH on P-256, NIST SP 800-56A), derive a fresh key
for the round (HKDF-SHA256, RFC 5869), and read one stream of it (ChaCha20, RFC 8439): the one whose name comes first
adds it to its numbers modulo 2^64, the other subtracts it (Bonawitz et al. 2017, section 4). Whoever does not know one
of the secrets sees uniform numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidProof, count_of
from fedmunkey.common.identities.identity import MemberRole, parse_certificate
from fedmunkey.common.identities.member_keys import public_bytes
from fedmunkey.common.identities.member_names import member_of

FEWEST_PARTICIPANTS = 3
"""Of two, each would learn the other's numbers from the sum."""

_KEY_BYTES = 32
_BLOCK = 2**20


@dataclass(frozen=True)
class Participants:
    """The sites of one masked round, each with the public key of its certificate.

    `round_id` is known to all of them and never used again: masks of two rounds with one id would be the same.
    """

    round_id: str
    keys: Mapping[str, ec.EllipticCurvePublicKey]

    @classmethod
    def check(
        cls, round_id: str, certificates: Mapping[str, str], authority: x509.Certificate, *, fewest: int
    ) -> Participants:
        """Take sites' certificates, in PEM by the site's name, for those of a round.

        Raises `InvalidIdentity` if one cannot be read, and `InvalidProof` if one is not that of the site, not signed by
        the federation's authority or not valid now, if two have one key, or if there are fewer than `fewest`.
        """
        if len(certificates) < fewest:
            raise InvalidProof(
                f"{count_of(len(certificates), 'site takes', 'sites take')} part: of fewer than {fewest} each "
                "would learn the others' sums; wait for more sites, or allow it with --insecure-sums"
            )
        keys = {name: _public_key(name, pem, authority) for name, pem in sorted(certificates.items())}
        if len({public_bytes(key) for key in keys.values()}) < len(keys):
            raise InvalidProof("two sites of a round have one key; each needs an identity of its own")
        return cls(round_id, keys)

    def mask(self, name: str, key: ec.EllipticCurvePrivateKey, purpose: str, length: int) -> NDArray[np.uint64]:
        """Return what a site adds to so many numbers, modulo 2^64.

        Numbers of another `purpose` in the same round have other masks. Raises `InvalidProof` if the site or its key is
        not among the participants.
        """
        if name not in self.keys or public_bytes(self.keys[name]) != public_bytes(key.public_key()):
            raise InvalidProof(f"{name} is not among the sites of this round, or not with this key")
        context = hashlib.sha256()
        for other, public in self.keys.items():
            context.update(f"{len(other)} {other}".encode() + public_bytes(public))
        total = np.zeros(length, dtype=np.uint64)
        for other, public in self.keys.items():
            if other == name:
                continue
            seed = HKDF(SHA256(), _KEY_BYTES, self.round_id.encode(), purpose.encode() + context.digest())
            stream = _stream(seed.derive(key.exchange(ec.ECDH(), public)), length)
            if name < other:
                total += stream
            else:
                total -= stream
        return total


def _stream(key: bytes, length: int) -> NDArray[np.uint64]:
    """Return so many numbers of a keystream."""
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    numbers = np.empty(length, dtype="<u8")
    view = numbers.view(np.uint8)
    zeros = bytes(_BLOCK)
    for start in range(0, len(view), _BLOCK):
        size = min(_BLOCK, len(view) - start)
        view[start : start + size] = np.frombuffer(encryptor.update(zeros[:size]), np.uint8)
    return numbers


def _public_key(name: str, pem: str, authority: x509.Certificate) -> ec.EllipticCurvePublicKey:
    certificate = parse_certificate(pem.encode(), f"the certificate of {name!r} in a round")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise InvalidProof(f"the certificate of {name!r} in a round was not signed by the authority") from None
    if member_of(certificate) != (MemberRole.SITE, name):
        raise InvalidProof(f"the certificate of {name!r} in a round is that of somebody else")
    if not certificate.not_valid_before_utc <= utc_now() < certificate.not_valid_after_utc:
        raise InvalidProof(f"the certificate of {name!r} in a round is not valid now")
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 (what was parsed is that)
    return key

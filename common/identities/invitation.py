"""An invitation: a file that lets one member join a federation, once, and tells it whom it is joining."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fedmunkey.common.errors import InvalidIdentity, InvalidProof
from fedmunkey.common.identities.identity import certificate_pem, parse_certificate
from fedmunkey.common.identities.member_names import MemberRole, check_member_name
from fedmunkey.common.private_files import read_private, write_private
from fedmunkey.common.proofs.signing.canonical import parse_json, read_hex, take

TOKEN_BYTES = 32

SIGNING_CONTEXT = b"fedmunkey joining"
"""Before a request for a certificate, what a site signs with the key with which it signs requests and receipts."""


@dataclass(frozen=True)
class Invitation:
    """What the coordinator hands to somebody who is to join, over a way that both trust.

    `federation` is what the coordinator calls it, `address` the `host:port` at which members join. By the authority the
    coordinator is known. The token is `TOKEN_BYTES` random bytes, good once; of it the coordinator keeps a hash only.
    """

    federation: str
    name: str
    role: MemberRole
    address: str
    authority: x509.Certificate
    token: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, hexadecimal."""
        return fingerprint(self.authority)

    def to_bytes(self) -> bytes:
        """Return the invitation's file."""
        document = {
            "federation": self.federation,
            "name": self.name,
            "role": self.role.value,
            "address": self.address,
            "ca_fingerprint": self.fingerprint,
            "ca_certificate": certificate_pem(self.authority).decode(),
            "token": self.token.hex(),
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def write(self, path: Path) -> None:
        """Write the invitation to a new file that only its owner can read; raises `FileExistsError` if there is one."""
        write_private(path, self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> Invitation:
        """Read an invitation.

        Raises `InvalidIdentity` if the file cannot be read, can be read by others than its owner, is no invitation, or
        the certificate in it is not that of its fingerprint.
        """
        what = f"the invitation {path}"
        data = read_private(path, "an invitation", error=InvalidIdentity)
        texts: dict[str, Any] = dict.fromkeys(
            ("federation", "name", "role", "address", "ca_fingerprint", "ca_certificate", "token"), str
        )
        try:
            federation, name, role, address, expected, certificate, token = take(parse_json(data, what), what, **texts)
            secret = read_hex(token, f"the token of {what}", TOKEN_BYTES)
        except InvalidProof as error:
            raise InvalidIdentity(f"{error}; ask for another invitation") from None
        try:
            invited = MemberRole(role)
        except ValueError:
            invited = MemberRole.COORDINATOR
        if invited is MemberRole.COORDINATOR:
            raise InvalidIdentity(f"{what} is for a {role!r}, and only sites and officers join; ask for another")
        check_member_name(name)
        authority = parse_certificate(certificate.encode(), what)
        if fingerprint(authority) != expected:
            raise InvalidIdentity(
                f"{what} was altered: its certificate is not that of its fingerprint; ask for another"
            )
        return cls(federation, name, invited, address, authority, secret)


def new_token() -> bytes:
    """Return a random token."""
    return secrets.token_bytes(TOKEN_BYTES)


def token_hash(token: bytes) -> bytes:
    """Return what the coordinator keeps of a token: SHA-256, which is enough for 32 random bytes."""
    return hashlib.sha256(token).digest()


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()

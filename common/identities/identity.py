"""A member's identity: a folder with its private key, its certificate and that of the authority which signed it.

ca.pem             the authority of the federation
certificate.pem    names the member; written last, so an identity is complete where this is
private-key.pem    ECDSA P-256; for its owner only
next/              the pair that a rotation is about to put in their place
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.member_keys import UNREADABLE, read_key
from fedmunkey.common.identities.member_names import MemberRole, member_of
from fedmunkey.common.private_files import sync_folder

__all__ = ["Identity", "MemberRole"]

IDENTITY_FOLDER = "identity"
"""The folder of a member's identity, in its own folder."""

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "private-key.pem"
NEXT_FOLDER = "next"

_CERTIFICATE_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Identity:
    """What shows others who a member is.

    `not_after` is when the certificate expires.
    """

    folder: Path
    name: str
    role: MemberRole
    not_after: datetime
    certificate: x509.Certificate = field(repr=False)
    _ca: bytes = field(repr=False)
    _key: bytes = field(repr=False)

    @property
    def ca_file(self) -> Path:
        """The certificate of the federation's authority."""
        return self.folder / CA_FILE

    @property
    def certificate_file(self) -> Path:
        """The member's certificate."""
        return self.folder / CERTIFICATE_FILE

    @property
    def key_file(self) -> Path:
        """The member's private key."""
        return self.folder / KEY_FILE

    @property
    def pem(self) -> tuple[bytes, bytes, bytes]:
        """The authority's certificate, the member's, and its private key, as they were read."""
        return self._ca, certificate_pem(self.certificate), self._key

    @classmethod
    def find(cls, folder: Path) -> Identity | None:
        """Return the identity in a folder, or None if there is no such folder; raises as `read`.

        A folder without a whole identity is an error: whoever has one must never be talked to without it.
        """
        return cls.read(folder) if folder.exists() else None

    @classmethod
    def read(cls, folder: Path, *, clock: Callable[[], datetime] = utc_now) -> Identity:
        """Read an identity; where a rotation was interrupted between its two last steps, the last one is made up for.

        Raises `InvalidIdentity` if a file is missing or damaged, the key is not for its owner only, the files do not
        belong together, or the certificate is not valid at this time.
        """
        if not (folder / CERTIFICATE_FILE).exists():
            raise InvalidIdentity(
                f"{folder} holds no identity ({CERTIFICATE_FILE} is missing); run munkey-client join with an "
                "invitation, again if it was interrupted"
            )
        private, key = read_key(folder / KEY_FILE)
        finish_rotation(folder)
        authority = read_certificate(folder / CA_FILE)
        certificate = read_certificate(folder / CERTIFICATE_FILE)
        if certificate.public_key() != private.public_key():
            raise InvalidIdentity(
                f"{folder}: {KEY_FILE} is not the key of {CERTIFICATE_FILE}; put both back, or join again"
            )
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            raise InvalidIdentity(
                f"{folder}: {CERTIFICATE_FILE} was not signed by the authority in {CA_FILE}; join again"
            ) from None
        role, name = member_of(certificate)
        _check_time(certificate, role, name, clock())
        return cls(folder, name, role, certificate.not_valid_after_utc, certificate, certificate_pem(authority), key)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what a connection shows of the member, and by which it knows the coordinator."""
        ca, certificate, key = self.pem
        return grpc.ssl_channel_credentials(ca, key, certificate)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as it is kept in a file."""
    return certificate.public_bytes(Encoding.PEM)


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate of an ECDSA P-256 key; raises `InvalidIdentity` if the file holds none."""
    try:
        with path.open("rb") as file:
            data = file.read(_CERTIFICATE_BYTES)
    except OSError as error:
        raise InvalidIdentity(f"the certificate {path} cannot be read ({error.strerror}); join again") from None
    return parse_certificate(data, str(path))


def parse_certificate(data: bytes, what: str) -> x509.Certificate:
    """Read the contents of such a file; raises `InvalidIdentity`."""
    try:
        certificate = x509.load_pem_x509_certificate(data)
        key = certificate.public_key()
    except UNREADABLE:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidIdentity(f"{what} holds no certificate of an ECDSA P-256 key; get it again, or join again")
    return certificate


def finish_rotation(folder: Path) -> None:
    """Put the certificate beside a key that is in place already, where a rotation was interrupted between the two.

    Raises `InvalidIdentity` if the key cannot be used.
    """
    private, _ = read_key(folder / KEY_FILE)
    follower = folder / NEXT_FOLDER / CERTIFICATE_FILE
    with suppress(InvalidIdentity, OSError):
        if follower.exists() and read_certificate(follower).public_key() == private.public_key():
            follower.replace(folder / CERTIFICATE_FILE)
            sync_folder(folder)


def _check_time(certificate: x509.Certificate, role: MemberRole, name: str, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    who = f"the certificate of {role} {name}"
    if now >= end:
        way = "munkey-server renew" if role is MemberRole.COORDINATOR else "ask for a new invitation and join again"
        raise InvalidIdentity(f"{who} expired on {end:%Y-%m-%d %H:%M} UTC; {way}")
    if now < start:
        raise InvalidIdentity(
            f"{who} is valid only from {start:%Y-%m-%d %H:%M} UTC on; check the date and time of this machine"
        )

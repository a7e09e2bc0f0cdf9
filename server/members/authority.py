"""The federation's certificate authority: an ECDSA P-256 key that signs members' certificates (RFC 5280)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmunkey.common.errors import InvalidIdentity, InvalidSetting
from fedmunkey.common.identities.identity import CA_FILE, KEY_FILE, certificate_pem, read_certificate
from fedmunkey.common.identities.member_keys import key_pem, read_key
from fedmunkey.common.identities.member_names import MemberRole, member_uri
from fedmunkey.common.identities.signed_card import SignedCard
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.private_files import replace_file, write_private

AUTHORITY_YEARS = 10
CERTIFICATE_DAYS = 365
"""How long a member's certificate is valid."""

_SKEW = timedelta(minutes=5)
"""By how much a certificate begins before it was made, for machines whose clocks are late."""

_FEDERATION_CHARACTERS = 64


class CertificateAuthority:
    """What signs certificates.

    Members keep its certificate.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @property
    def federation(self) -> str:
        """What the coordinator calls the federation."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @classmethod
    def make(cls, federation: str, now: datetime, years: int = AUTHORITY_YEARS) -> CertificateAuthority:
        """Make an authority; raises `InvalidSetting` if a certificate cannot hold the federation's name."""
        if not federation.isprintable() or not 1 <= len(federation) <= _FEDERATION_CHARACTERS:
            raise InvalidSetting(
                f"{federation!r} cannot be a federation's name; use 1 to {_FEDERATION_CHARACTERS} printable characters"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, federation)])
        usage = _key_usage(sign_certificates=True)
        certificate = (
            _builder(name, name, key.public_key(), now - _SKEW, now + timedelta(days=365 * years))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def read(cls, folder: Path) -> CertificateAuthority:
        """Read an authority that `write` wrote; raises `InvalidIdentity` if it cannot be used."""
        if not (folder / CA_FILE).exists():
            raise InvalidIdentity(f"{folder} holds no certificate authority; make one with munkey-server init")
        certificate = read_certificate(folder / CA_FILE)
        key, _ = read_key(folder / KEY_FILE)
        if key.public_key() != certificate.public_key():
            raise InvalidIdentity(f"{folder}: {KEY_FILE} is not the key of {CA_FILE}; put both back from one backup")
        return cls(certificate, key)

    def write(self, folder: Path) -> None:
        """Write the key, for its owner only, and the certificate, into a folder that is there."""
        write_private(folder / KEY_FILE, key_pem(self._key))
        replace_file(folder / CA_FILE, certificate_pem(self.certificate))

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        role: MemberRole,
        name: str,
        start: datetime,
        hosts: Sequence[str] = (),
        *,
        days: float = CERTIFICATE_DAYS,
    ) -> x509.Certificate:
        """Sign a certificate.

        It is valid from a few minutes before `start`, and no longer than the authority. `hosts` are names and IP
        addresses at which the member is reached: the coordinator's. A certificate without any is no server's, so that
        no site can pass for the coordinator. Raises `InvalidIdentity` if a certificate cannot hold the name, or the
        authority has expired. Raises `InvalidSetting` if a host is neither a name nor an address.
        """
        end = min(start + timedelta(days=days), self.certificate.not_valid_after_utc)
        if end <= start:
            raise InvalidIdentity("the certificate authority has expired; make another with munkey-server init")
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        names = [x509.UniformResourceIdentifier(member_uri(role, name)), *map(_host, hosts)]
        builder = _builder(x509.Name([]), self.certificate.subject, key, start - _SKEW, end)
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            # Critical, as the subject is empty (RFC 5280, section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    def sign_card(self, card: FederationCard) -> SignedCard:
        """Sign a version of the federation card; raises `InvalidProof` if a text in it is no printable line."""
        return SignedCard.sign(card, self._key)


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses of a coordinator's certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    bare = host.strip("[]")
    try:
        return x509.IPAddress(ipaddress.ip_address(bare))
    except ValueError:
        pass
    labels = bare.split(".")
    if not bare.isascii() or len(bare) > 253 or not all(_is_label(label) for label in labels):
        raise InvalidSetting(f"{host!r} is neither a host's name nor an IP address; write it without a port")
    return x509.DNSName(bare)


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum() and label[0] != "-"

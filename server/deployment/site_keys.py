"""The keys of sites that may take part in training, as the register of members has them."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, select

from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.server.member_tables import MemberRow


def read_site_keys(engine: Engine, now: datetime) -> dict[bytes, str]:
    """Return the public key, in PEM, of each certificate of a site that is good at a time, with the site's name.

    One that waits for its first use counts as well: a site that has rotated its key connects with the fresh one.
    """
    good = select(MemberRow.name, MemberRow.certificate).where(
        MemberRow.role == MemberRole.SITE.value,
        MemberRow.revoked_at.is_(None),
        MemberRow.replaced_at.is_(None),
        MemberRow.not_after > now,
    )
    with engine.connect() as connection:
        return {_key(row.certificate): row.name for row in connection.execute(good)}


def _key(certificate: bytes) -> bytes:
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

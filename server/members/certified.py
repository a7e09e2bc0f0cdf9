"""Whom a certificate that somebody shows names, and by which serial number the register knows it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.member_keys import UNREADABLE
from fedmunkey.common.identities.member_names import member_of
from fedmunkey.server.members.entitlements import Caller
from fedmunkey.server.members.register import serial_of


@dataclass(frozen=True)
class Certified:
    """A certificate of the federation's authority, whether it is good or not: the register says that."""

    serial: str
    caller: Caller


@lru_cache(maxsize=4096)
def certified_by(pem: bytes) -> Certified:
    """Return whom a certificate names; raises `InvalidIdentity` where none is shown, or it names no member."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except UNREADABLE:
        raise InvalidIdentity("the connection shows no certificate; join, and show the identity") from None
    role, name = member_of(certificate)
    return Certified(serial_of(certificate), Caller(role, name))


def certified_by_der(der: bytes) -> Certified:
    """Return the same for a certificate as TLS has it."""
    return certified_by(ssl.DER_cert_to_PEM_cert(der).encode())

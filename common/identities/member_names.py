"""How a certificate names a member: `spiffe://fedmunkey/<role>/<name>` among its alternative names."""

from __future__ import annotations

import re
from enum import StrEnum

from cryptography import x509

from fedmunkey.common.errors import InvalidIdentity

TRUST_DOMAIN = "fedmunkey"
COORDINATOR = "coordinator"
"""The only member with the role of the same name."""

# What a path of a SPIFFE id may hold (SPIFFE-ID, section 2.2), as long as a site's name in the ledger.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class MemberRole(StrEnum):
    """What a member of the federation may do."""

    COORDINATOR = "coordinator"
    """Runs the deletion service, and opens rounds."""
    SITE = "site"
    """Follows its own orders and answers them; asks for what it holds itself."""
    OFFICER = "officer"
    """Asks as the data-protection officer; several people may each be one."""

    @classmethod
    def _missing_(cls, value: object) -> MemberRole | None:
        # As certificates, invitations and registers of earlier versions say it.
        return cls.OFFICER if value == "requester" else None


def check_member_name(name: str) -> None:
    """Check that a certificate can name a member so; raises `InvalidIdentity`."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidIdentity(
            f"{name!r} cannot be a member's name; use at most 100 letters, digits, dots, dashes and underscores"
        )


def member_uri(role: MemberRole, name: str) -> str:
    """Return what names a member in its certificate; raises `InvalidIdentity` for a name that cannot stand there."""
    check_member_name(name)
    return f"spiffe://{TRUST_DOMAIN}/{role.value}/{name}"


def member_of(certificate: x509.Certificate) -> tuple[MemberRole, str]:
    """Return the role and the name that a certificate gives its holder.

    Raises `InvalidIdentity` if it names no member of a federation, or more than one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        scheme, _, path = uri.partition(f"://{TRUST_DOMAIN}/")
        role, _, name = path.partition("/")
        if scheme != "spiffe":
            raise ValueError
        check_member_name(name)
        return MemberRole(role), name
    except (
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        ValueError,
        InvalidIdentity,
    ):
        raise InvalidIdentity(
            "the certificate names no member of a federation; take one that munkey-client join made"
        ) from None

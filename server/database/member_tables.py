"""Tables of the federation's members and of invitations, in the ledger's database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fedmunkey.server.database.tables import NAME_CHARACTERS, Base

SERIAL_CHARACTERS = 40
ROLE_CHARACTERS = 20
DUTIES_CHARACTERS = 40


class MemberRow(Base):
    """A certificate of a member. One of a name is in use at a time, and at most one more is waiting to be."""

    __tablename__ = "members"
    # Hexadecimal.
    serial: Mapped[str] = mapped_column(String(SERIAL_CHARACTERS), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), index=True)
    role: Mapped[str] = mapped_column(String(ROLE_CHARACTERS))
    # SHA-256 of the certificate.
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32))
    # DER.
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    certificate: Mapped[bytes] = mapped_column(LargeBinary)
    joined_at: Mapped[datetime] = mapped_column("enrolled_at")
    not_after: Mapped[datetime]
    # When it came into use; empty while another of the same name is.
    used_at: Mapped[datetime | None]
    # When another took its place.
    replaced_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text, server_default="")


class MemberDutiesRow(Base):
    """What a member may do, where that was ever said; one that is not here may do all that its role may."""

    __tablename__ = "member_duties"
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), primary_key=True)
    # Some of the words of `common.proofs.duties.Duty`, with a space between them.
    may: Mapped[str] = mapped_column(String(DUTIES_CHARACTERS))
    changed_at: Mapped[datetime]


class InvitationRow(Base):
    """An invitation; of its token there is a hash only."""

    __tablename__ = "invitations"
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARACTERS), index=True)
    role: Mapped[str] = mapped_column(String(ROLE_CHARACTERS))
    invited_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    # Serial of the certificate that it was used for.
    used_for: Mapped[str | None] = mapped_column(String(SERIAL_CHARACTERS))

"""The register of members: whose certificate is good, who was invited, and who was shut out and why.

It lies in the ledger's database, so every process of the service sees the same, and is asked at each call. What it
writes is in the coordinator's journal first, so that it does not go back with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.words import OFFICER_NAMES
from fedmunkey.common.errors import InvalidIdentity, ServiceUnavailable
from fedmunkey.common.identities.identity import parse_certificate
from fedmunkey.common.identities.invitation import TOKEN_BYTES, new_token, token_hash
from fedmunkey.common.identities.member_keys import public_bytes
from fedmunkey.common.identities.member_names import COORDINATOR, MemberRole, check_member_name, member_of
from fedmunkey.common.proofs.duties import EVERY_DUTY, Duty, duties_of
from fedmunkey.server.database.connection import have_to_itself
from fedmunkey.server.database.member_tables import InvitationRow, MemberDutiesRow, MemberRow
from fedmunkey.server.database.pairs import AmongQuery
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.member_journal import MemberJournal, changes_between
from fedmunkey.server.members.member_rows import (
    give_back,
    read_changes,
    read_marks,
    read_states,
    row_values,
    with_whole_rows,
)
from fedmunkey.server.members.turned_away import Cause, Refusal

INVITATION_DAYS = 7.0
# Made once: making the statement would take as long as reading the row, at each call and for each order.
_OF_SERIAL = select(MemberRow.__table__).where(MemberRow.serial == bindparam("of_serial"))
_OF_SERIALS = AmongQuery(select(MemberRow.__table__), MemberRow.serial)
_UNKNOWN_INVITATION = "the invitation is unknown, or a later one has taken its place; ask for another"
_UNUSED_KEY = "the invitation was used already, for another key; ask for another, and say that somebody has used it"


@dataclass(frozen=True)
class Member:
    """One certificate of a member.

    Serial and fingerprint are hexadecimal. It is good from `joined_at` to `not_after`, and not `in_use` while it waits
    to take the place of another. `duties` are what the member may do, with any of its certificates.
    """

    name: str
    role: MemberRole
    serial: str
    fingerprint: str
    joined_at: datetime
    not_after: datetime
    in_use: bool
    replaced_at: datetime | None
    revoked_at: datetime | None
    reason: str
    duties: frozenset[Duty] = EVERY_DUTY

    def state(self, now: datetime) -> str:
        """Return what has become of the certificate, in one word."""
        if self.revoked_at is not None:
            return "revoked"
        if self.replaced_at is not None:
            return "replaced"
        if now >= self.not_after:
            return "expired"
        return "in use" if self.in_use else "waiting"


class MemberRegister:
    """Who may be at the other end of a connection; safe for threads and for several processes."""

    def __init__(
        self, engine: Engine, *, clock: Callable[[], datetime] = utc_now, journal: MemberJournal | None = None
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock

    def invite(self, name: str, role: MemberRole, days: float = INVITATION_DAYS) -> bytes:
        """Let somebody join under a name, within some days; return the token, which is kept nowhere.

        An earlier invitation under that name that was not used is good no more. Raises `InvalidIdentity` if the name
        cannot stand in a certificate, is the coordinator's or of the data-protection office as a whole, or is that of a
        member.
        """
        check_member_name(name)
        if role is MemberRole.COORDINATOR or name == COORDINATOR:
            raise InvalidIdentity(f"{name!r} cannot be invited as {role}: there is one coordinator, made by init")
        if name in OFFICER_NAMES and role is MemberRole.SITE:
            raise InvalidIdentity(f"{name!r} asks and holds no records; invite it with --role officer")
        token = new_token()
        with self._writing() as connection:
            now = self._clock()
            self._check_free(connection, name, now)
            _withdraw(connection, name)
            connection.execute(
                insert(InvitationRow).values(
                    token_hash=token_hash(token),
                    name=name,
                    role=role.value,
                    invited_at=now,
                    expires_at=now + timedelta(days=days),
                )
            )
        return token

    def check_invitation(self, token: bytes, name: str, role: MemberRole) -> None:
        """Check that somebody may join, without anything being written; raises `InvalidIdentity` if not."""
        if len(token) != TOKEN_BYTES:
            raise InvalidIdentity(_UNKNOWN_INVITATION)
        with self._reading() as connection:
            _invited(connection, token, name, role, self._clock())

    def join(
        self, token: bytes, name: str, role: MemberRole, key: ec.EllipticCurvePublicKey, authority: CertificateAuthority
    ) -> x509.Certificate:
        """Give the holder of an invitation its first certificate; the same one if the same key asks again.

        Raises `InvalidIdentity` if the invitation is unknown, has expired, was used for another key or is for another
        name or role, or a member has the name.
        """
        with self._writing() as connection:
            now = self._clock()
            invited = _invited(connection, token, name, role, now)
            if invited.used_for is not None:
                return self._again(connection, invited.used_for, key)
            self._check_free(connection, name, now)
            made = authority.issue(key, role, name, now)
            connection.execute(
                update(MemberRow).where(*_unreplaced(name), MemberRow.revoked_at.is_(None)).values(replaced_at=now)
            )
            self._insert(connection, made, now, used=now)
            connection.execute(
                update(InvitationRow)
                .where(InvitationRow.token_hash == invited.token_hash)
                .values(used_for=serial_of(made))
            )
        return made

    def adopt(self, certificate: x509.Certificate) -> None:
        """Enter a certificate that the coordinator made for itself; one that is known stays as it is.

        If another of its name is in use, it takes that one's place when it is first used.
        """
        with self._writing() as connection:
            if _find(connection, serial_of(certificate)) is None:
                now = self._clock()
                _, name = member_of(certificate)
                connection.execute(delete(MemberRow).where(*_unreplaced(name), MemberRow.used_at.is_(None)))
                first = not connection.execute(select(MemberRow.serial).where(*_unreplaced(name))).first()
                self._insert(connection, certificate, now, used=now if first else None)

    def rotate(self, serial: str, key: ec.EllipticCurvePublicKey, authority: CertificateAuthority) -> x509.Certificate:
        """Give a member a certificate for a fresh key, which takes the place of the present one when it is first used.

        The same key again has the same certificate; another one takes the place of one that waits. Raises
        `InvalidIdentity` if the certificate with this serial is not good, or another member has the key.
        """
        if (fault := self.find_fault(serial)) is not None:
            raise InvalidIdentity(fault.reason)
        with self._writing() as connection:
            now = self._clock()
            row = _find(connection, serial)
            if row is None:
                raise InvalidIdentity(_unknown())
            known = connection.execute(
                select(MemberRow.__table__).where(MemberRow.public_key == public_bytes(key))
            ).first()
            if known is not None:
                if known.name != row.name or known.replaced_at is not None or known.revoked_at is not None:
                    raise InvalidIdentity("the key was used before; a rotation needs a fresh one")
                return parse_certificate(known.certificate, "the register of members")
            connection.execute(delete(MemberRow).where(*_unreplaced(row.name), MemberRow.used_at.is_(None)))
            made = authority.issue(key, MemberRole(row.role), row.name, now)
            self._insert(connection, made, now, used=None)
        return made

    def revoke(self, name: str, reason: str) -> int:
        """Shut a member out for good: every certificate of it, and invitations under its name; return how many.

        Raises `InvalidIdentity` if there is no such member, or the reason is no line of text.
        """
        if not reason or not is_line(reason):
            raise InvalidIdentity(f"a reason is one line of at most {LINE_CHARACTERS} characters, and not empty")
        with self._writing() as connection:
            _withdraw(connection, name)
            shut_out = connection.execute(
                update(MemberRow)
                .where(*_unreplaced(name), MemberRow.revoked_at.is_(None))
                .values(revoked_at=self._clock(), reason=reason)
            ).rowcount
            if not shut_out and not connection.execute(select(MemberRow.serial).where(MemberRow.name == name)).first():
                raise InvalidIdentity(f"there is no member {name!r}; munkey-server members lists those that are")
        return shut_out

    def allow(self, name: str, duties: frozenset[Duty]) -> None:
        """Say what a member may do from now on; raises `InvalidIdentity` if there is none, or it is the coordinator."""
        with self._writing() as connection:
            known = connection.execute(select(MemberRow.role).where(MemberRow.name == name)).scalars().all()
            invited = select(InvitationRow.role).where(InvitationRow.name == name)
            known = known or connection.execute(invited).scalars().all()
            if not known:
                raise InvalidIdentity(f"there is no member {name!r}; munkey-server members lists those that are")
            if MemberRole.COORDINATOR in known:
                raise InvalidIdentity(f"{name!r} asks for nothing, so it has no duties; name an officer or a site")
            connection.execute(delete(MemberDutiesRow).where(MemberDutiesRow.name == name))
            may = " ".join(duty for duty in Duty if duty in duties_of(duties))
            connection.execute(insert(MemberDutiesRow).values(name=name, may=may, changed_at=self._clock()))

    def duties(self, name: str) -> frozenset[Duty]:
        """Return what a member may do; everything that its role may, where nothing else was said."""
        with self._reading() as connection:
            may = connection.scalar(select(MemberDutiesRow.may).where(MemberDutiesRow.name == name))
        return _read_duties(may)

    def find_fault(self, serial: str) -> Refusal | None:
        """Return what is wrong with the certificate with a serial, or None if it is good.

        One that waited for its first use takes the place of the one before.
        """
        with self._reading() as connection:
            row = _find(connection, serial)
        if row is not None and row.used_at is None and _fault(row, self._clock()) is None:
            row = self._put_in_use(serial)
        return Refusal(Cause.UNKNOWN, _unknown()) if row is None else _fault(row, self._clock())

    def find_faults(self, serials: Collection[str]) -> dict[str, Refusal | None]:
        """Return what `find_fault` does, by serial, of several at once.

        Those that wait for their first use are left out: that is written, by `find_fault`.
        """
        with self._reading() as connection:
            rows = _OF_SERIALS.rows(connection, serials)
        now = self._clock()
        faults: dict[str, Refusal | None] = dict.fromkeys(serials, Refusal(Cause.UNKNOWN, _unknown()))
        faults |= {row.serial: _fault(row, now) for row in rows}
        for row in rows:
            if row.used_at is None and faults[row.serial] is None:
                del faults[row.serial]
        return faults

    def recover(self) -> dict[str, list[str]]:
        """Bring back what the journal has and the ledger has lost, and the other way; return, by member, what it was.

        Raises `InvalidIdentity` if the journal cannot be read.
        """
        if self._journal is None:
            return {}
        with self._alone() as connection:
            kept = self._journal.read()
            lost = give_back(connection, kept)
            changed = changes_between(kept, read_states(connection), self._clock().isoformat())
            self._journal.append(with_whole_rows(connection, changed, kept))
        return lost

    def good_names(self, role: MemberRole) -> tuple[str, ...]:
        """Return the names of the members with a role whose certificate is good, in order."""
        now = self._clock()
        good = ("in use", "waiting")
        return tuple(sorted({found.name for found in self.list() if found.role is role and found.state(now) in good}))

    def progress(self) -> tuple[int, str]:
        """Return how many certificates were revoked or replaced, and when duties last changed: neither goes back."""
        with self._reading() as connection:
            ended = or_(MemberRow.revoked_at.is_not(None), MemberRow.replaced_at.is_not(None))
            count = connection.scalar(select(func.count()).select_from(MemberRow).where(ended)) or 0
            changed = connection.scalar(select(func.max(MemberDutiesRow.changed_at)))
            return count, "" if changed is None else changed.isoformat()

    def list(self) -> tuple[Member, ...]:
        """Return every certificate, by name and then by age."""
        with self._reading() as connection:
            rows = connection.execute(
                select(MemberRow.__table__).order_by(MemberRow.name, MemberRow.joined_at, MemberRow.serial)
            )
            said = select(MemberDutiesRow.name, MemberDutiesRow.may)
            duties = {row.name: row.may for row in connection.execute(said)}
            return tuple(
                Member(
                    row.name,
                    MemberRole(row.role),
                    row.serial,
                    row.fingerprint.hex(),
                    row.enrolled_at,
                    row.not_after,
                    row.used_at is not None,
                    row.replaced_at,
                    row.revoked_at,
                    row.reason,
                    _read_duties(duties.get(row.name)),
                )
                for row in rows
            )

    def _put_in_use(self, serial: str) -> Row[Any] | None:
        with self._writing() as connection:
            row = _find(connection, serial)
            now = self._clock()
            if row is not None and row.used_at is None and _fault(row, now) is None:
                connection.execute(
                    update(MemberRow)
                    .where(*_unreplaced(row.name), MemberRow.used_at.is_not(None))
                    .values(replaced_at=now)
                )
                connection.execute(update(MemberRow).where(MemberRow.serial == serial).values(used_at=now))
                row = _find(connection, serial)
        return row

    def _again(self, connection: Connection, serial: str, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        row = _find(connection, serial)
        if row is None or row.public_key != public_bytes(key):
            raise InvalidIdentity(_UNUSED_KEY)
        if (fault := _fault(row, self._clock())) is not None:
            raise InvalidIdentity(fault.reason)
        return parse_certificate(row.certificate, "the register of members")

    def _check_free(self, connection: Connection, name: str, now: datetime) -> None:
        rows = connection.execute(select(MemberRow.__table__).where(*_unreplaced(name)))
        if any(_fault(row, now) is None for row in rows):
            raise InvalidIdentity(
                f"{name!r} is a member already; choose another name, or shut that one out first: munkey-server revoke"
            )

    def _insert(
        self, connection: Connection, certificate: x509.Certificate, now: datetime, *, used: datetime | None
    ) -> None:
        row = row_values(serial_of(certificate), certificate, now)
        connection.execute(insert(MemberRow).values(row | {"used_at": used}))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _explained(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._alone() as connection:
            marks = {} if self._journal is None else read_marks(connection)
            yield connection
            if self._journal is not None:
                # The last step before the commit, so that nothing counts that is not there.
                self._journal.append(read_changes(connection, marks, self._clock().isoformat()))

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        writing = self._engine.execution_options(write=True)
        with _explained(), writing.connect() as connection, connection.begin():
            have_to_itself(connection)
            yield connection


def _read_duties(may: str | None) -> frozenset[Duty]:
    """Return the duties that a row names; one that cannot be read leaves its member to look."""
    if may is None:
        return EVERY_DUTY
    return duties_of(Duty(word) for word in may.split() if word in set(Duty))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise ServiceUnavailable(f"the register of members cannot be used: {error.orig}; try again") from None


def serial_of(certificate: x509.Certificate) -> str:
    """Return a certificate's serial number as the register has it."""
    return f"{certificate.serial_number:x}"


def _invited(connection: Connection, token: bytes, name: str, role: MemberRole, now: datetime) -> Row[Any]:
    """Return an invitation that is for a name and a role, used or not; raises `InvalidIdentity`."""
    statement = select(InvitationRow.__table__).where(InvitationRow.token_hash == token_hash(token))
    invited = connection.execute(statement).first()
    if invited is None:
        raise InvalidIdentity(_UNKNOWN_INVITATION)
    if (invited.name, MemberRole(invited.role)) != (name, role):
        raise InvalidIdentity("the invitation was altered: it is for another name or role; ask for another")
    if now >= invited.expires_at:
        raise InvalidIdentity(f"the invitation expired on {_when(invited.expires_at)}; ask for another")
    return invited


def _find(connection: Connection, serial: str) -> Row[Any] | None:
    return connection.execute(_OF_SERIAL, {"of_serial": serial}).first()


def _unreplaced(name: str) -> tuple[Any, ...]:
    return (MemberRow.name == name, MemberRow.replaced_at.is_(None))


def _withdraw(connection: Connection, name: str) -> None:
    """Let invitations under a name that were not used be good no more."""
    connection.execute(delete(InvitationRow).where(InvitationRow.name == name, InvitationRow.used_for.is_(None)))


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _unknown() -> str:
    return "the certificate is in no register of this federation; ask for an invitation and join"


def _fault(row: Row[Any], now: datetime) -> Refusal | None:
    who = f"the certificate of {MemberRole(row.role)} {row.name}"
    if row.revoked_at is not None:
        return Refusal(Cause.REVOKED, f"{who} was revoked on {_when(row.revoked_at)}: {row.reason}")
    if row.replaced_at is not None:
        reason = f"{who} was replaced on {_when(row.replaced_at)}; use the one that took its place"
        return Refusal(Cause.REPLACED, reason)
    if now >= row.not_after:
        return Refusal(Cause.EXPIRED, f"{who} expired on {_when(row.not_after)}; join again")
    return None

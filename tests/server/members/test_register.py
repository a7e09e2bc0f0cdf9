"""The register of members, on SQLite and on PostgreSQL: two of them on one database see the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from fedmunkey.common.deletions.words import FORMER_OFFICER, OFFICER
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import MemberRole
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.register import MemberRegister, serial_of
from fedmunkey.server.members.turned_away import Cause
from tests.coordinator import SITE, fresh_key

NOON = datetime(2025, 5, 17, 12, tzinfo=UTC)


class Registers:
    """Two registers of one federation, as two processes have them, and their clock."""

    def __init__(self, one: Ledger, two: Ledger) -> None:
        self.now = NOON
        self.one = MemberRegister(one.engine, clock=lambda: self.now)
        self.two = MemberRegister(two.engine, clock=lambda: self.now)
        self.authority = CertificateAuthority.make("test", NOON)

    def join(self, name: str = SITE) -> str:
        """Return the serial of a member."""
        token = self.one.invite(name, MemberRole.SITE)
        return serial_of(self.two.join(token, name, MemberRole.SITE, fresh_key(), self.authority))

    def cause(self, serial: str) -> Cause | None:
        """Return what is wrong with a certificate, as each of the two says."""
        faults = [register.find_fault(serial) for register in (self.one, self.two)]
        assert faults[0] == faults[1]
        return None if faults[0] is None else faults[0].cause

    def rotate(self, serial: str) -> str:
        return serial_of(self.one.rotate(serial, fresh_key(), self.authority))


@pytest.fixture
def registers(database: str) -> Iterator[Registers]:
    with Ledger(database) as one, Ledger(database) as two:
        yield Registers(one, two)


def test_member_that_one_process_lets_join_is_known_to_the_other(registers: Registers) -> None:
    serial = registers.join()

    assert registers.cause(serial) is None
    (member,) = registers.one.list()
    assert (member.name, member.role, member.joined_at) == (SITE, MemberRole.SITE, NOON)
    assert member.state(NOON) == "in use"


def test_member_that_one_process_revokes_is_refused_by_the_other(registers: Registers) -> None:
    serial = registers.join()
    ended = registers.two.progress()[0]

    assert registers.one.revoke(SITE, "stolen") == 1

    fault = registers.two.find_fault(serial)
    assert fault is not None
    assert (fault.cause, fault.reason.rpartition(": ")[2]) == (Cause.REVOKED, "stolen")
    assert registers.two.progress()[0] > ended


def test_many_certificates_are_looked_up_at_once_and_each_has_its_own_fault(registers: Registers) -> None:
    good, bad, late = (registers.join(name) for name in ("hospital-1", "hospital-2", "hospital-3"))
    registers.one.revoke("hospital-2", "stolen")
    waiting = registers.rotate(late)

    for _ in range(2):
        faults = registers.two.find_faults([good, bad, late, "unheard-of", waiting])
        causes = {serial: fault and fault.cause for serial, fault in faults.items()}
        # The first use of one that waits has to be written.
        assert causes == {good: None, bad: Cause.REVOKED, late: None, "unheard-of": Cause.UNKNOWN}
    assert registers.two.find_fault(waiting) is None
    assert [fault and fault.cause for fault in registers.one.find_faults([late]).values()] == [Cause.REPLACED]
    assert registers.one.find_faults([]) == {}


def test_revoked_member_may_be_invited_again(registers: Registers) -> None:
    old = registers.join()
    registers.one.revoke(SITE, "stolen")

    new = registers.join()

    assert (registers.cause(new), registers.cause(old)) == (None, Cause.REVOKED)


def test_revocation_withdraws_an_invitation_and_a_rotation_under_way(registers: Registers) -> None:
    serial = registers.join()
    waiting = registers.rotate(serial)
    token = registers.one.invite("hospital-2", MemberRole.SITE)

    registers.one.revoke(SITE, "stolen")
    with pytest.raises(InvalidIdentity, match="no member 'hospital-2'"):
        registers.one.revoke("hospital-2", "a mistake")

    assert registers.cause(waiting) is Cause.REVOKED
    # The refused revocation changed nothing.
    registers.one.join(token, "hospital-2", MemberRole.SITE, fresh_key(), registers.authority)


def test_rotated_certificate_replaces_the_old_one_at_its_first_use_at_any_process(registers: Registers) -> None:
    old = registers.join()
    new = registers.rotate(old)

    assert registers.one.find_fault(old) is None
    assert registers.two.find_fault(new) is None
    assert registers.cause(old) is Cause.REPLACED


def test_rotation_that_was_never_used_gives_way_to_the_next(registers: Registers) -> None:
    serial = registers.join()
    first, second = registers.rotate(serial), registers.rotate(serial)

    assert (registers.cause(first), registers.cause(second)) == (Cause.UNKNOWN, None)


def test_certificate_is_good_until_its_last_moment(registers: Registers) -> None:
    serial = registers.join()
    (member,) = registers.one.list()

    registers.now = member.not_after - timedelta(seconds=1)
    assert registers.cause(serial) is None
    registers.now = member.not_after
    assert registers.cause(serial) is Cause.EXPIRED
    assert registers.join() != serial


@pytest.mark.parametrize(
    ("name", "role", "fault"),
    [
        ("coordinator", MemberRole.SITE, "there is one coordinator"),
        (SITE, MemberRole.COORDINATOR, "there is one coordinator"),
        (OFFICER, MemberRole.SITE, "holds no records"),
        (FORMER_OFFICER, MemberRole.SITE, "holds no records"),
        ("a/b", MemberRole.SITE, "cannot be a member's name"),
    ],
)
def test_name_that_is_not_to_be_had_is_refused(ledger: Ledger, name: str, role: MemberRole, fault: str) -> None:
    register = MemberRegister(ledger.engine)

    with pytest.raises(InvalidIdentity, match=fault):
        register.invite(name, role)
    assert register.list() == ()


def test_register_and_invitation_of_an_earlier_version_say_requester(registers: Registers) -> None:
    token = registers.one.invite("anna", MemberRole.OFFICER)
    with registers.one._engine.execution_options(write=True).begin() as connection:
        connection.execute(text("UPDATE invitations SET role = 'requester'"))
    serial = serial_of(registers.one.join(token, "anna", MemberRole("requester"), fresh_key(), registers.authority))
    with registers.one._engine.execution_options(write=True).begin() as connection:
        connection.execute(text("UPDATE members SET role = 'requester'"))

    rotated = registers.rotate(serial)

    assert [member.role for member in registers.one.list()] == [MemberRole.OFFICER] * 2
    assert registers.two.find_fault(rotated) is None


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 1001])
def test_reason_is_a_line(ledger: Ledger, reason: str) -> None:
    with pytest.raises(InvalidIdentity, match="a reason is one line"):
        MemberRegister(ledger.engine).revoke(SITE, reason)


def test_token_is_kept_nowhere(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        token = MemberRegister(ledger.engine).invite(SITE, MemberRole.SITE)
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert SITE.encode() in kept
    assert token not in kept
    assert token.hex().encode() not in kept

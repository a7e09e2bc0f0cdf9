"""What the journal of members brings back to a ledger, on SQLite and on PostgreSQL, and what a broken one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine, delete, insert, select

from fedmunkey.common.errors import InvalidIdentity, ServiceUnavailable
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.proofs.duties import EVERY_DUTY, Duty
from fedmunkey.server.database.member_tables import InvitationRow, MemberDutiesRow, MemberRow
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.member_journal import CERTIFICATE, Entry, MemberJournal
from fedmunkey.server.members.register import MemberRegister, serial_of
from fedmunkey.server.members.turned_away import Cause
from tests.coordinator import OTHER, SITE, fresh_key

NOON = datetime(2025, 5, 17, 12, tzinfo=UTC)
TABLES = (MemberRow, InvitationRow, MemberDutiesRow)


class Kept:
    """A register whose ledger can go back to a copy, beside another of the same ledger and folder."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.now = NOON
        self.engine = engine
        self.path = path / "members.journal"
        self.one, self.two = self.open(), self.open()
        self.authority = CertificateAuthority.make("test", NOON)
        self._copy: list[tuple[Any, list[dict[str, Any]]]] = []

    def open(self) -> MemberRegister:
        return MemberRegister(self.engine, clock=lambda: self.now, journal=MemberJournal(self.path))

    def join(self, name: str = SITE, token: bytes = b"", key: ec.EllipticCurvePublicKey | None = None) -> str:
        self.now += timedelta(minutes=1)
        token = token or self.one.invite(name, MemberRole.SITE)
        return serial_of(self.two.join(token, name, MemberRole.SITE, key or fresh_key(), self.authority))

    def rotate(self, serial: str) -> str:
        self.now += timedelta(minutes=1)
        return serial_of(self.one.rotate(serial, fresh_key(), self.authority))

    def cause(self, serial: str) -> Cause | None:
        fault = self.one.find_fault(serial)
        return None if fault is None else fault.cause

    def copy(self) -> None:
        with self.engine.connect() as connection:
            self._copy = [
                (table, [dict(row._mapping) for row in connection.execute(select(table.__table__))]) for table in TABLES
            ]

    def put_back(self) -> None:
        with self.engine.execution_options(write=True).connect() as connection, connection.begin():
            for table, rows in self._copy:
                connection.execute(delete(table))
                if rows:
                    connection.execute(insert(table.__table__), rows)


@pytest.fixture
def kept(database: str, tmp_path: Path) -> Iterator[Kept]:
    with Ledger(database) as ledger:
        yield Kept(ledger.engine, tmp_path)


def test_ledger_that_goes_back_again_and_again_has_what_it_had(kept: Kept) -> None:
    kept.copy()
    first, second = kept.join(), kept.join(OTHER)
    fresh = kept.rotate(first)
    assert kept.cause(fresh) is None
    waiting = kept.rotate(second)
    given_up = kept.rotate(fresh)
    in_its_place = kept.rotate(fresh)
    third = kept.join("hospital-3")
    kept.two.revoke("hospital-3", "stolen")
    fourth = kept.join("hospital-3")
    expected = kept.one.list()

    for _ in range(2):
        kept.put_back()
        assert kept.one.list() == ()
        kept.two.recover()
        assert kept.one.list() == expected
    assert kept.two.recover() == {}
    causes = [kept.cause(serial) for serial in (third, fourth, given_up)]
    assert causes == [Cause.REVOKED, None, Cause.UNKNOWN]
    # A rotation under way goes on.
    assert [kept.cause(serial) for serial in (waiting, in_its_place)] == [None, None]
    assert [kept.cause(serial) for serial in (first, second, fresh)] == [Cause.REPLACED] * 3


def test_revocation_holds_for_what_the_copy_has_in_use_and_waiting(kept: Kept) -> None:
    serial = kept.join()
    waiting = kept.rotate(serial)
    kept.copy()
    kept.one.revoke(SITE, "stolen")
    kept.put_back()

    lost = kept.open().recover()

    assert sorted(lost[SITE]) == sorted(f"certificate {each[:16]} is revoked" for each in (serial, waiting))
    assert [kept.cause(each) for each in (serial, waiting)] == [Cause.REVOKED] * 2
    assert {member.reason for member in kept.one.list()} == {"stolen"}


def test_invitations_stay_what_they_became(kept: Kept) -> None:
    used, replaced, withdrawn = (kept.one.invite(name, MemberRole.SITE) for name in (SITE, OTHER, "hospital-3"))
    kept.copy()
    key = fresh_key()
    serial = kept.join(SITE, used, key)
    kept.one.revoke(SITE, "the invitation was stolen")
    good = kept.one.invite(OTHER, MemberRole.SITE)
    member = kept.join("hospital-3", withdrawn)
    later = kept.one.invite("hospital-4", MemberRole.SITE)
    kept.put_back()

    kept.one.recover()

    with pytest.raises(InvalidIdentity, match="was revoked"):
        kept.join(SITE, used, key)
    with pytest.raises(InvalidIdentity, match="was used already"):
        kept.join(SITE, used)
    with pytest.raises(InvalidIdentity, match="a later one has taken its place"):
        kept.join(OTHER, replaced)
    assert [kept.cause(each) for each in (serial, member)] == [Cause.REVOKED, None]
    assert [kept.cause(kept.join(*each)) for each in ((OTHER, good), ("hospital-4", later))] == [None, None]


def test_ledger_from_before_the_journal_is_written_into_it(kept: Kept) -> None:
    kept.copy()
    serial = kept.join()
    kept.one.revoke(SITE, "stolen")
    fresh = kept.join()
    kept.path.unlink()

    assert kept.open().recover() == {}
    assert kept.path.stat().st_mode & 0o777 == 0o600
    kept.put_back()
    kept.one.recover()

    assert [kept.cause(each) for each in (serial, fresh)] == [Cause.REVOKED, None]


def test_older_journal_takes_nothing_back(kept: Kept) -> None:
    serial = kept.join()
    older = kept.path.read_bytes()
    fresh = kept.rotate(serial)
    assert kept.cause(fresh) is None
    kept.one.revoke(SITE, "stolen")
    expected = kept.one.list()
    kept.path.write_bytes(older)

    assert kept.open().recover() == {}
    assert kept.one.list() == expected
    states = MemberJournal(kept.path).read()
    assert "revoked_at" in states[Entry(CERTIFICATE, fresh)]
    assert "replaced_at" in states[Entry(CERTIFICATE, serial)]


def test_what_a_ledger_failed_to_write_gives_way_to_what_was_done_instead(kept: Kept) -> None:
    token, key = kept.one.invite(SITE, MemberRole.SITE), fresh_key()
    kept.copy()
    lost = kept.join(SITE, token, key)
    # As if the commit had failed: the journal has it, the ledger does not, and the site asks again.
    kept.put_back()
    again = kept.join(SITE, token, key)

    kept.one.recover()

    assert (kept.cause(lost), kept.cause(again)) == (Cause.REPLACED, None)


def test_change_that_cannot_be_kept_is_not_made(kept: Kept) -> None:
    serial = kept.join()
    written = kept.path.read_bytes()
    kept.path.unlink()
    kept.path.mkdir()

    with pytest.raises(ServiceUnavailable, match="cannot be written"):
        kept.one.revoke(SITE, "stolen")
    kept.path.rmdir()
    kept.path.write_bytes(written)
    kept.path.chmod(0o600)

    assert kept.cause(serial) is None
    assert kept.one.revoke(SITE, "stolen") == 1


def test_line_that_was_not_written_to_its_end_never_counted(kept: Kept) -> None:
    serial = kept.join()
    written = kept.path.read_bytes()
    kept.one.revoke(SITE, "stolen")
    revocation = kept.path.read_bytes()[len(written) :]
    kept.path.write_bytes(written + revocation[:-20])

    assert "revoked_at" not in MemberJournal(kept.path).read()[Entry(CERTIFICATE, serial)]
    other = kept.join(OTHER)

    states = MemberJournal(kept.path).read()
    assert "pem" in states[Entry(CERTIFICATE, other)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: b"no json\n" + content, "line 1 of .* cannot be read; put the file's copy back"),
        (lambda content: content + b'[{"certificate": "ab", "used_at": "x"}]\n', "line 3 of .* cannot be read"),
        (lambda content: content + b'[{"certificate": 1}]\n', "line 3 of .* cannot be read"),
        (lambda content: content.replace(b'joined_at": "2025', b'joined_at": "noon'), "'noon.*' for a time"),
        (lambda content: content.replace(b'"certificate": "', b'"certificate": "a'), "another certificate under"),
        (lambda content: content.replace(b"BEGIN", b"BEGAN"), "the journal of members"),
    ],
)
def test_journal_that_was_changed_is_named_and_nothing_is_believed(
    kept: Kept, change: Callable[[bytes], bytes], fault: str
) -> None:
    kept.copy()
    kept.join()
    kept.put_back()
    kept.path.write_bytes(change(kept.path.read_bytes()))

    with pytest.raises(InvalidIdentity, match=fault):
        kept.open().recover()
    assert kept.one.list() == ()


def test_journal_that_others_can_read_is_refused(kept: Kept) -> None:
    kept.join()
    kept.path.chmod(0o640)

    with pytest.raises(InvalidIdentity, match="run chmod 600"):
        kept.open().recover()


def test_services_of_one_folder_write_whole_lines_at_the_same_moment(database: str, tmp_path: Path) -> None:
    names = [f"hospital-{number}" for number in range(8)]
    with Ledger(database) as one, Ledger(database) as two, ThreadPoolExecutor(len(names)) as threads:
        services = [Kept(ledger.engine, tmp_path) for ledger in (one, two)]
        joining = [threads.submit(services[number % 2].join, name) for number, name in enumerate(names)]
        serials = {joined.result() for joined in joining}

    states = MemberJournal(tmp_path / "members.journal").read()
    assert {entry.key for entry in states if entry.kind == CERTIFICATE} == serials


def test_what_a_member_may_do_is_as_it_was_last_said(kept: Kept) -> None:
    kept.join()
    assert kept.one.duties(SITE) == EVERY_DUTY
    kept.one.allow(SITE, frozenset({Duty.FILE}))
    kept.copy()
    kept.now += timedelta(minutes=1)
    kept.two.allow(SITE, frozenset({Duty.VIEW}))

    kept.put_back()
    assert kept.one.duties(SITE) == {Duty.FILE, Duty.VIEW}
    assert kept.one.recover() == {SITE: ["it may view"]}

    assert kept.one.duties(SITE) == {Duty.VIEW}
    assert kept.two.recover() == {}


def test_stranger_and_the_coordinator_have_no_duties(kept: Kept) -> None:
    with pytest.raises(InvalidIdentity, match="no member 'nobody'"):
        kept.one.allow("nobody", frozenset({Duty.VIEW}))

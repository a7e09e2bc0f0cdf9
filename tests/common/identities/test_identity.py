from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CERTIFICATE_FILE, KEY_FILE, NEXT_FOLDER
from fedmunkey.common.identities.member_names import check_member_name, member_of
from fedmunkey.server.members.authority import CertificateAuthority
from tests.coordinator import make_identity


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.make("test", utc_now())


def test_identity_says_who_its_holder_is(authority: CertificateAuthority, tmp_path: Path) -> None:
    identity = Identity.read(make_identity(authority, tmp_path / "a", MemberRole.OFFICER, "officer-7"))

    assert (identity.name, identity.role) == ("officer-7", MemberRole.OFFICER)
    assert timedelta(0) < identity.not_after - utc_now() <= timedelta(days=1)
    assert all(file.exists() for file in (identity.ca_file, identity.certificate_file, identity.key_file))
    assert identity.key_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_private_key_that_others_can_use_is_refused(authority: CertificateAuthority, tmp_path: Path, mode: int) -> None:
    folder = make_identity(authority, tmp_path / "a")
    (folder / KEY_FILE).chmod(mode)

    with pytest.raises(InvalidIdentity, match=f"run chmod 600 {folder / KEY_FILE}"):
        Identity.read(folder)


def test_identity_is_read_only_while_its_certificate_is_valid(authority: CertificateAuthority, tmp_path: Path) -> None:
    folder = make_identity(authority, tmp_path / "a")
    now = utc_now()

    with pytest.raises(InvalidIdentity, match=r"site hospital-1 expired on .* join again"):
        Identity.read(folder, clock=lambda: now + timedelta(days=2))
    with pytest.raises(InvalidIdentity, match=r"valid only from .* check the date and time of this machine"):
        Identity.read(folder, clock=lambda: now - timedelta(days=2))


def test_files_that_do_not_belong_together_are_refused(authority: CertificateAuthority, tmp_path: Path) -> None:
    one, two = (make_identity(authority, tmp_path / name) for name in "ab")
    stranger = make_identity(CertificateAuthority.make("test", utc_now()), tmp_path / "c")

    (one / KEY_FILE).write_bytes((two / KEY_FILE).read_bytes())
    (two / "ca.pem").write_bytes((stranger / "ca.pem").read_bytes())

    with pytest.raises(InvalidIdentity, match="is not the key of"):
        Identity.read(one)
    with pytest.raises(InvalidIdentity, match="was not signed by the authority"):
        Identity.read(two)


@pytest.mark.parametrize("missing", ["ca.pem", CERTIFICATE_FILE, KEY_FILE])
def test_incomplete_identity_is_an_error_and_not_none(
    authority: CertificateAuthority, tmp_path: Path, missing: str
) -> None:
    folder = make_identity(authority, tmp_path / "a")
    (folder / missing).unlink()

    with pytest.raises(InvalidIdentity, match=missing):
        Identity.find(folder)
    assert Identity.find(tmp_path / "none") is None


@pytest.mark.parametrize("moved", [True, False])
def test_rotation_that_stopped_between_its_two_files_is_finished_and_no_earlier_one(
    authority: CertificateAuthority, tmp_path: Path, moved: bool
) -> None:
    folder, follower = make_identity(authority, tmp_path / "a"), make_identity(authority, tmp_path / "b")
    follower.rename(folder / NEXT_FOLDER)
    present, waiting = ((at / CERTIFICATE_FILE).read_bytes() for at in (folder, folder / NEXT_FOLDER))
    if moved:
        (folder / NEXT_FOLDER / KEY_FILE).replace(folder / KEY_FILE)

    identity = Identity.read(folder)

    assert (folder / CERTIFICATE_FILE).read_bytes() == (waiting if moved else present)
    assert identity.certificate.not_valid_after_utc == identity.not_after


def test_authority_is_no_member(authority: CertificateAuthority) -> None:
    with pytest.raises(InvalidIdentity, match="names no member"):
        member_of(authority.certificate)


@pytest.mark.parametrize("name", ["", "a/b", "..", "häuser", "a b", "x" * 101, "a\n"])
def test_name_that_a_certificate_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidIdentity, match="cannot be a member's name"):
        check_member_name(name)

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.identity import certificate_pem
from fedmunkey.common.identities.invitation import Invitation, new_token
from fedmunkey.server.members.authority import CertificateAuthority


@pytest.fixture
def invitation(tmp_path: Path) -> Path:
    authority = CertificateAuthority.make("test", utc_now())
    made = Invitation("test", "hospital-1", MemberRole.SITE, "127.0.0.1:9441", authority.certificate, new_token())
    made.write(tmp_path / "a.json")
    assert Invitation.read(tmp_path / "a.json") == made
    return tmp_path / "a.json"


def alter(path: Path, **changes: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_invitation_is_for_its_owner_only(invitation: Path) -> None:
    assert invitation.stat().st_mode & 0o777 == 0o600

    invitation.chmod(0o644)

    with pytest.raises(InvalidIdentity, match="run chmod 600"):
        Invitation.read(invitation)


def test_officer_was_once_invited_as_requester(invitation: Path) -> None:
    alter(invitation, role="requester")

    assert Invitation.read(invitation).role is MemberRole.OFFICER


def test_authority_that_is_not_the_fingerprints_is_refused(invitation: Path) -> None:
    other = CertificateAuthority.make("test", utc_now())
    alter(invitation, ca_certificate=certificate_pem(other.certificate).decode())

    with pytest.raises(InvalidIdentity, match="altered"):
        Invitation.read(invitation)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"role": "coordinator"}, "only sites and officers join"),
        ({"name": "a/b"}, "cannot be a member's name"),
        ({"token": "ff"}, "token"),
        ({"ca_certificate": "none"}, "no certificate"),
        ({"extra": "field"}, "fields"),
    ],
)
def test_file_that_is_no_invitation_is_refused(invitation: Path, changes: dict[str, str], fault: str) -> None:
    alter(invitation, **changes)

    with pytest.raises(InvalidIdentity, match=fault):
        Invitation.read(invitation)

"""Members rotate over real TLS, the coordinator renews beside a running service; both survive an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.client.membership.rotation import rotate
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import DeletionRequest, WholeSite
from fedmunkey.common.errors import InvalidDeletion, InvalidIdentity, ServiceUnavailable
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import KEY_FILE
from fedmunkey.server.members.register import serial_of
from fedmunkey.server.members.renewal import renew
from tests.coordinator import FIRST_OFFICER, OTHER, SITE, Coordinator, killed_at, running_coordinator
from tests.followers import Follower


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path) as running:
        yield running


@pytest.fixture
def site(coordinator: Coordinator) -> Identity:
    return coordinator.member(SITE)


def call(coordinator: Coordinator, identity: Identity) -> None:
    with coordinator.channel(identity) as channel:
        channel.log_update(0)


def states(coordinator: Coordinator, name: str) -> list[str]:
    return sorted(member.state(utc_now()) for member in coordinator.register.list() if member.name == name)


def frozen(identity: Identity, work: Path) -> Identity:
    """Return a copy of an identity in a folder of its own, as a thief has it."""
    return Identity.read(shutil.copytree(identity.folder, work / "copy"))


def test_old_certificate_ends_with_the_rotation(coordinator: Coordinator, site: Identity, tmp_path: Path) -> None:
    stolen = frozen(site, tmp_path)

    fresh = rotate(site.folder, coordinator.address)

    call(coordinator, fresh)
    with pytest.raises(InvalidDeletion, match=f"certificate of site {SITE} was replaced on"):
        call(coordinator, stolen)
    with pytest.raises(InvalidIdentity, match="was replaced"):
        rotate(stolen.folder, coordinator.address)
    assert states(coordinator, SITE) == ["in use", "replaced"]
    assert fresh.key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("failpoint", ["key-made", "issued", "staged", "key-moved", "in-place"])
def test_interrupted_rotation_leaves_an_identity_that_works(
    coordinator: Coordinator, site: Identity, failpoint: str
) -> None:
    with killed_at(f"rotate.{failpoint}"):
        rotate(site.folder, coordinator.address)

    call(coordinator, Identity.read(site.folder))
    fresh = rotate(site.folder, coordinator.address)

    call(coordinator, fresh)
    assert states(coordinator, SITE).count("in use") == 1
    assert "waiting" not in states(coordinator, SITE)
    assert (site.folder / KEY_FILE).read_bytes() == fresh.key_file.read_bytes()


def test_requester_rotates_and_the_coordinator_does_not(coordinator: Coordinator) -> None:
    officer = coordinator.member(FIRST_OFFICER, MemberRole.OFFICER)

    assert rotate(officer.folder, coordinator.address).role is MemberRole.OFFICER
    with pytest.raises(InvalidIdentity, match="munkey-server renew"):
        rotate(coordinator.folder.identity, coordinator.address)


def test_revoked_member_does_not_rotate(coordinator: Coordinator, site: Identity) -> None:
    coordinator.register.revoke(SITE, "stolen")

    with pytest.raises(InvalidIdentity, match=r"was revoked on .*: stolen"):
        rotate(site.folder, coordinator.address)

    assert Identity.read(site.folder).certificate == site.certificate


def test_key_of_another_member_is_not_certified(coordinator: Coordinator, site: Identity) -> None:
    other = coordinator.member(OTHER)
    staged = site.folder / "next" / KEY_FILE
    staged.parent.mkdir(mode=0o700)
    shutil.copy(other.key_file, staged)

    with pytest.raises(InvalidIdentity, match="the key was used before"):
        rotate(site.folder, coordinator.address)

    call(coordinator, other)
    call(coordinator, Identity.read(site.folder))


def test_open_connection_goes_on_and_its_follower_is_told_to_come_back_with_the_fresh_identity(
    coordinator: Coordinator, site: Identity
) -> None:
    with coordinator.channel(site) as channel:
        channel.log_update(0)
        follower = Follower(channel.watch(SITE, 0, follow=True))
        coordinator.service.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
        follower.next()
        rotate(site.folder, coordinator.address)
        told = follower.next()
        again = list(channel.watch(SITE, 0))
        channel.log_update(0)

    assert isinstance(told, ServiceUnavailable)
    assert [order.request.request_id for order in again] == ["request-1"]


def test_renewed_coordinator_is_known_to_members_at_once(
    coordinator: Coordinator, site: Identity, tmp_path: Path
) -> None:
    old = frozen(coordinator.identity, tmp_path)

    fresh = renew(coordinator.folder, coordinator.register, ["127.0.0.1", "coordinator.example.org"])

    call(coordinator, site)
    call(coordinator, fresh)
    with pytest.raises(InvalidDeletion, match="certificate of coordinator coordinator was replaced"):
        call(coordinator, old)
    assert states(coordinator, "coordinator") == ["in use", "replaced"]


@pytest.mark.parametrize("failpoint", ["staged", "key-moved"])
def test_interrupted_renewal_leaves_an_identity_that_works(
    coordinator: Coordinator, site: Identity, failpoint: str
) -> None:
    with killed_at(f"rotate.{failpoint}"):
        renew(coordinator.folder, coordinator.register)

    call(coordinator, coordinator.identity)
    call(coordinator, site)
    fresh = renew(coordinator.folder, coordinator.register)

    call(coordinator, fresh)
    assert coordinator.register.find_fault(serial_of(fresh.certificate)) is None
    assert states(coordinator, "coordinator").count("in use") == 1

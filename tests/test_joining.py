"""Members join over real TLS: a coordinator and what `munkey-client join` does, in one process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.client.membership.joining import Joined, join
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import DeletionRequest, WholeSite
from fedmunkey.common.errors import InvalidIdentity, InvalidProof, ServiceUnavailable
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CERTIFICATE_FILE, KEY_FILE, certificate_pem
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.common.identities.member_keys import make_signing_request
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.secure_connection import Connection
from fedmunkey.protos import membership_pb2
from fedmunkey.protos.membership_pb2_grpc import JoiningStub
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.joining import ATTEMPTS, read_join_request
from tests.coordinator import FIRST_OFFICER, OTHER, SITE, Coordinator, killed_at, make_identity, running_coordinator
from tests.patience import PATIENCE


@dataclass
class Clock:
    """A clock that a test sets."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def coordinator(tmp_path: Path, clock: Clock) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path, clock=clock) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    folder = SiteFolder(tmp_path / SITE)
    folder.path.mkdir()
    return folder


def join_as_site(invitation: Path, site: SiteFolder) -> Joined:
    return join(Invitation.read(invitation), site.identity, site)


def test_site_joins_and_is_known_at_its_first_call(coordinator: Coordinator, site: SiteFolder) -> None:
    TrustedKeys().write(coordinator.folder.trust)

    joined = join_as_site(coordinator.invite(SITE), site)

    with coordinator.channel(site.find_identity()) as channel:
        status = channel.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    assert (joined.identity.name, joined.identity.role) == (SITE, MemberRole.SITE)
    assert [progress.site for progress in status.sites] == [SITE]
    assert coordinator.ledger.site_names() == (SITE,)
    # A coordinator that checks signatures knows the site's key as well.
    known = TrustedKeys.read(coordinator.folder.trust).of(Role.SITE, SITE)
    assert joined.signing_key_trusted
    assert [key.key for key in known] == [SigningKey.read(site.signing_key).public]


def test_private_key_never_leaves_the_site(coordinator: Coordinator, site: SiteFolder) -> None:
    joined = join_as_site(coordinator.invite(SITE), site)

    key = joined.identity.key_file.read_bytes()
    body = key.splitlines()[1]
    assert joined.identity.key_file.stat().st_mode & 0o777 == 0o600
    kept = [file for file in coordinator.folder.path.rglob("*") if file.is_file()]
    assert kept
    assert all(body not in file.read_bytes() for file in kept)


def test_site_trusts_itself_and_the_log_and_no_requester(coordinator: Coordinator, site: SiteFolder) -> None:
    joined = join_as_site(coordinator.invite(SITE), site)

    trusted = TrustedKeys.read(site.trust)
    assert [(key.name, key.role) for key in trusted.keys] == [(SITE, Role.SITE), ("coordinator", Role.LOG)]
    assert trusted.keys[0].key == SigningKey.read(site.signing_key).public
    assert trusted.keys[1].key == SigningKey.read(coordinator.folder.log_key).public
    assert joined.officers == 0


def test_key_that_is_revoked_while_a_site_joins_stays_revoked(coordinator: Coordinator, site: SiteFolder) -> None:
    stolen = TrustedKey("anna", Role.OFFICER, SigningKey.generate().public)
    TrustedKeys().add(stolen).write(coordinator.folder.trust)
    invitation = coordinator.invite(SITE)

    with ThreadPoolExecutor() as threads:
        with TrustedKeys.held(coordinator.folder.trust):
            joining = threads.submit(join_as_site, invitation, site)
            # Long enough for it to read the file, if it did not wait.
            with pytest.raises(TimeoutError):
                joining.result(0.5)
            revoked = TrustedKeys.read(coordinator.folder.trust).revoke("anna", utc_now())
            revoked.write(coordinator.folder.trust)
        joining.result(PATIENCE)

    [officer] = TrustedKeys.read(coordinator.folder.trust).of(Role.OFFICER)
    assert officer.revoked is not None
    assert len(TrustedKeys.read(coordinator.folder.trust).of(Role.SITE, SITE)) == 1


def test_nothing_is_locked_or_computed_for_a_wrong_token(coordinator: Coordinator, site: SiteFolder) -> None:
    invitation = replace(Invitation.read(coordinator.invite(SITE)), token=bytes(32))
    TrustedKeys().write(coordinator.folder.trust)

    # Whoever locked the file first would wait for us.
    with (
        TrustedKeys.held(coordinator.folder.trust),
        pytest.raises(InvalidIdentity, match="the invitation is unknown"),
    ):
        join(invitation, site.identity, site)


def test_attempts_to_join_from_one_address_are_bounded(coordinator: Coordinator, site: SiteFolder) -> None:
    invitation = Invitation.read(coordinator.invite(SITE))
    guess = membership_pb2.JoinRequest(token=bytes(32), name=SITE, role="site")
    credentials = grpc.ssl_channel_credentials(certificate_pem(invitation.authority))
    statuses = []
    with grpc.secure_channel(invitation.address, credentials) as channel:
        stub = JoiningStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(int(ATTEMPTS.at_once) + 5):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Join(guess, timeout=PATIENCE)
            statuses.append(refused.value.code())

    assert statuses[0] is grpc.StatusCode.PERMISSION_DENIED
    assert statuses[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(ServiceUnavailable, match="too many attempts to join from one address; try again in"):
        join(invitation, site.identity, site)


def test_sites_that_join_at_the_same_moment_are_all_known(coordinator: Coordinator, tmp_path: Path) -> None:
    TrustedKeys().write(coordinator.folder.trust)
    names = [f"hospital-{number}" for number in range(8)]
    folders = [SiteFolder(tmp_path / name) for name in names]
    invitations = [coordinator.invite(name) for name in names]

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(join_as_site, invitations, folders))

    assert sorted(key.name for key in TrustedKeys.read(coordinator.folder.trust).keys) == names
    assert coordinator.ledger.site_names() == tuple(names)


def test_signing_key_of_another_site_is_not_taken(coordinator: Coordinator, site: SiteFolder) -> None:
    key = SigningKey.generate()
    key.write(site.signing_key)
    TrustedKeys().add(TrustedKey(OTHER, Role.SITE, key.public)).write(coordinator.folder.trust)

    with pytest.raises(InvalidIdentity, match="trusted already"):
        join_as_site(coordinator.invite(SITE), site)

    assert coordinator.register.list()[0].name == "coordinator"
    assert len(coordinator.register.list()) == 1


def test_log_of_another_coordinator_is_not_taken_for_the_trusted_one(
    coordinator: Coordinator, site: SiteFolder
) -> None:
    TrustedKeys().add(TrustedKey("coordinator", Role.LOG, SigningKey.generate().public)).write(site.trust)

    with pytest.raises(InvalidIdentity, match="trusts another log"):
        join_as_site(coordinator.invite(SITE), site)

    assert not (site.identity / CERTIFICATE_FILE).exists()


def test_requester_joins_without_a_signing_key(coordinator: Coordinator, tmp_path: Path) -> None:
    invitation = Invitation.read(coordinator.invite(FIRST_OFFICER, MemberRole.OFFICER))

    joined = join(invitation, tmp_path / "mine", None)

    assert joined.identity.role is MemberRole.OFFICER
    assert coordinator.ledger.site_names() == ()


def test_used_invitation_is_refused(coordinator: Coordinator, site: SiteFolder, tmp_path: Path) -> None:
    invitation = coordinator.invite(SITE)
    join_as_site(invitation, site)
    thief = SiteFolder(tmp_path / "thief")
    thief.path.mkdir()

    with pytest.raises(InvalidIdentity, match="was used already"):
        join_as_site(invitation, thief)

    assert not (thief.identity / CERTIFICATE_FILE).exists()


def test_expired_earlier_and_altered_invitations_are_refused(
    coordinator: Coordinator, site: SiteFolder, clock: Clock
) -> None:
    expired, earlier, later = coordinator.invite(OTHER), coordinator.invite(SITE), coordinator.invite(SITE, days=3)
    document = json.loads(later.read_text())

    def refuses(fault: str, invitation: Path) -> None:
        with pytest.raises(InvalidIdentity, match=fault):
            join_as_site(invitation, site)

    refuses("a later one has taken its place", earlier)
    clock.ahead = timedelta(days=1)
    refuses("the invitation expired on", expired)
    later.write_text(json.dumps({**document, "name": OTHER}))
    refuses("altered: it is for another name or role", later)
    later.write_text(json.dumps({**document, "token": "00" * 32}))
    refuses("the invitation is unknown", later)
    clock.ahead = timedelta(0)
    later.write_text(json.dumps(document))
    assert join_as_site(later, site).identity.name == SITE


@pytest.mark.parametrize(
    ("role", "fault"), [("king", "for another name or role"), ("site", "does not hold the signing key that it sends")]
)
def test_request_to_join_that_cannot_be_is_refused(role: str, fault: str) -> None:
    key, signing = ec.generate_private_key(ec.SECP256R1()), SigningKey.generate()
    asked = make_signing_request(key, MemberRole.SITE, SITE)
    message = membership_pb2.JoinRequest(signing_request=asked, role=role, signing_key=signing.public.raw)

    with pytest.raises((InvalidIdentity, InvalidProof), match=fault):
        read_join_request(message)


def test_second_member_of_a_name_is_refused(coordinator: Coordinator, site: SiteFolder) -> None:
    join_as_site(coordinator.invite(SITE), site)

    with pytest.raises(InvalidIdentity, match=f"'{SITE}' is a member already"):
        coordinator.invite(SITE)
    with pytest.raises(InvalidIdentity, match="is a member already"):
        coordinator.invite(SITE, MemberRole.OFFICER)


def test_coordinator_of_another_authority_hears_nothing(coordinator: Coordinator, site: SiteFolder) -> None:
    invitation = Invitation.read(coordinator.invite(SITE))
    other = CertificateAuthority.make("another", utc_now())

    with pytest.raises(InvalidIdentity, match="not the coordinator that made this invitation"):
        join(replace(invitation, authority=other.certificate), site.identity, site)

    assert len(coordinator.register.list()) == 1


def test_joining_service_in_plain_text_hears_nothing(coordinator: Coordinator, site: SiteFolder) -> None:
    invitation = Invitation.read(coordinator.invite(SITE))

    with (
        DeletionServer(coordinator.service) as plain,
        pytest.raises(ServiceUnavailable, match="does not speak TLS"),
    ):
        join(replace(invitation, address=plain.address), site.identity, site)


def test_identity_is_never_overwritten(coordinator: Coordinator, site: SiteFolder) -> None:
    join_as_site(coordinator.invite(SITE), site)
    key = (site.identity / KEY_FILE).read_bytes()

    with pytest.raises(InvalidIdentity, match="never overwritten"):
        join_as_site(coordinator.invite(OTHER), site)

    assert (site.identity / KEY_FILE).read_bytes() == key


@pytest.mark.parametrize("failpoint", ["join.key-made", "join.issued"])
def test_interrupted_join_is_made_up_for_with_the_same_invitation(
    coordinator: Coordinator, site: SiteFolder, failpoint: str
) -> None:
    invitation = coordinator.invite(SITE)
    with killed_at(failpoint):
        join_as_site(invitation, site)

    with pytest.raises(InvalidIdentity, match="again if it was interrupted"):
        site.find_identity()
    joined = join_as_site(invitation, site)

    assert [member.name for member in coordinator.register.list()] == ["coordinator", SITE]
    assert Identity.read(site.identity) == joined.identity


def test_connection_without_an_identity_is_told_to_show_one(coordinator: Coordinator) -> None:
    with coordinator.channel(None) as channel, pytest.raises(InvalidIdentity, match="speaks TLS only"):
        channel.get("request-1")


def test_identity_is_never_shown_in_plain_text(coordinator: Coordinator) -> None:
    identity = coordinator.member(SITE)

    with (
        DeletionServer(coordinator.service) as plain,
        DeletionChannel(plain.address, identity=identity) as channel,
        pytest.raises(InvalidIdentity, match="does not speak TLS"),
    ):
        channel.get("request-1")


def test_certificate_of_another_authority_is_not_let_in(coordinator: Coordinator, tmp_path: Path) -> None:
    stranger = Identity.read(make_identity(CertificateAuthority.make("another", utc_now()), tmp_path / "stranger"))
    masked = tmp_path / "masked"
    (tmp_path / "stranger").rename(masked)
    # It knows the coordinator's authority, and hopes not to be asked for its own.
    shown = replace(stranger, _ca=(coordinator.folder.identity / "ca.pem").read_bytes(), folder=masked)

    with coordinator.channel(shown) as channel, pytest.raises(ServiceUnavailable, match="another authority signed it"):
        channel.get("request-1")


@pytest.mark.processes
def test_coordinator_of_another_authority_is_one_line(coordinator: Coordinator, tmp_path: Path) -> None:
    stranger = make_identity(CertificateAuthority.make("another", utc_now()), tmp_path / "stranger")
    words = ["certificate", "request-1", "--identity", str(stranger), "--service", coordinator.address]
    output = ["--output", str(tmp_path / "certificate.json")]

    asked = subprocess.run(  # noqa: S603
        own_program("fedmunkey.client.cli", *words, *output), capture_output=True, text=True
    )

    assert asked.returncode == 2
    (line,) = asked.stderr.splitlines()
    assert "is not this federation's coordinator" in line


@pytest.mark.parametrize(("start", "days"), [(-3, 1.0), (1, 1.0)])
def test_certificate_outside_of_its_time_is_not_let_in(
    coordinator: Coordinator, tmp_path: Path, start: int, days: float
) -> None:
    begin = utc_now() + timedelta(days=start)
    folder = make_identity(coordinator.authority, tmp_path / "late", start=begin, days=days)
    at = begin + timedelta(hours=1)

    with (
        coordinator.channel(Identity.read(folder, clock=lambda: at)) as channel,
        pytest.raises(ServiceUnavailable, match="does not take the certificate of site"),
    ):
        channel.get("request-1")


@pytest.mark.parametrize("details", ["failed to connect; Connection reset by peer", "Socket closed", "Broken pipe"])
def test_who_is_turned_away_is_found_whatever_grpc_says_of_it(
    coordinator: Coordinator, tmp_path: Path, details: str
) -> None:
    begin = utc_now() - timedelta(days=3)
    folder = make_identity(coordinator.authority, tmp_path / "late", start=begin, days=1.0)
    late = Identity.read(folder, clock=lambda: begin)

    def fault(identity: Identity | None) -> str:
        return Connection(coordinator.address, [], identity, lambda channel: channel).fault(details)

    assert "does not take the certificate of site" in fault(late)
    assert fault(coordinator.member(SITE)) == ""
    with pytest.raises(InvalidIdentity, match="speaks TLS only"):
        fault(None)


def test_site_cannot_pass_for_the_coordinator(coordinator: Coordinator) -> None:
    identity = coordinator.member(SITE)

    with (
        DeletionServer(coordinator.service, identity=identity, register=coordinator.register) as false,
        DeletionChannel(false.address, identity=coordinator.member(OTHER)) as channel,
        pytest.raises(InvalidIdentity, match="is not this federation's coordinator"),
    ):
        channel.get("request-1")


def test_wrong_signing_key_is_refused(coordinator: Coordinator, site: SiteFolder) -> None:
    site.signing_key.write_text("no key")
    site.signing_key.chmod(0o600)

    with pytest.raises(InvalidProof, match="holds no Ed25519 private key"):
        join_as_site(coordinator.invite(SITE), site)

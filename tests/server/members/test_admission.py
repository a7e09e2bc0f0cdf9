"""Who may call what, over real mutual TLS, with a register that is asked at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.listing import Moved, RequestQuery, SiteQuery
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution, StillHeld
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.duties import Duty
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.protos import deletion_pb2
from fedmunkey.server.members.entitlements import Caller, may_call
from fedmunkey.server.members.turned_away import Cause
from tests.coordinator import FIRST_OFFICER, OTHER, SITE, Coordinator, make_identity, running_coordinator
from tests.followers import Follower
from tests.patience import PATIENCE

ANSWER = Acknowledgement(1, OTHER, "request-1", SiteState.ERASED, 1, 1, Guarantee.EMPIRICAL, 0.1)


@dataclass
class Federation:
    """A coordinator with two sites and an officer, and a clock for its register."""

    coordinator: Coordinator
    site: Identity
    other: Identity
    officer: Identity
    ahead: list[timedelta] = field(default_factory=lambda: [timedelta(0)])

    @contextmanager
    def refused(self, identity: Identity, reason: str, cause: Cause) -> Iterator[DeletionChannel]:
        """Give a member's connection for one call, which must be refused for a reason and counted."""
        before = self.coordinator.server.refusals.count(cause)
        with self.coordinator.channel(identity) as channel, pytest.raises(InvalidDeletion, match=reason):
            yield channel
        assert self.coordinator.server.refusals.count(cause) == before + 1


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    ahead = [timedelta(0)]

    def clock() -> datetime:
        return utc_now() + ahead[0]

    with running_coordinator(tmp_path, clock=clock) as running:
        officer = running.member(FIRST_OFFICER, MemberRole.OFFICER)
        yield Federation(running, running.member(SITE), running.member(OTHER), officer, ahead)


def test_site_asks_answers_and_reads_for_itself_only(federation: Federation) -> None:
    of_other = DeletionRequest("request-1", OTHER, WholeSite(OTHER))
    with federation.coordinator.channel(federation.other) as channel:
        channel.submit(of_other)

    ask_as_officer = DeletionRequest("request-2", OFFICER, WholeSite(OTHER))
    calls: list[tuple[str, Callable[[DeletionChannel], object]]] = [
        ("ask in another's name", lambda channel: channel.submit(replace(of_other, request_id="request-2"))),
        ("ask in another's name", lambda channel: channel.submit(ask_as_officer)),
        ("follow the orders of another site", lambda channel: list(channel.watch(OTHER, 0))),
        ("answer for another site", lambda channel: channel.acknowledge(ANSWER)),
        ("answer for another site", lambda channel: channel.acknowledge_all([ANSWER])),
        ("give back receipts of another site", lambda channel: channel.recall(OTHER, [b""])),
        ("read the receipts of another site", lambda channel: channel.recalled("request-1", OTHER)),
        ("read the receipts of another site", lambda channel: channel.recalled("request-1")),
    ]
    for what, call in calls:
        with federation.refused(federation.site, f"may not {what}", Cause.NAME) as channel:
            call(channel)
    reads: list[Callable[[DeletionChannel, str], object]] = [
        DeletionChannel.get,
        DeletionChannel.history,
        DeletionChannel.certificate,
    ]
    for read in reads:
        with federation.refused(federation.site, "neither asked for this request nor", Cause.NAME) as channel:
            read(channel, "request-1")
    with federation.coordinator.channel(federation.other) as channel:
        assert [order.request.request_id for order in channel.watch(OTHER, 0)] == ["request-1"]
        channel.acknowledge(ANSWER)
        assert channel.get("request-1").state.final
        assert channel.history("request-1")


def test_officers_request_is_read_by_the_sites_that_it_addresses(federation: Federation) -> None:
    with federation.coordinator.channel(federation.officer) as channel:
        channel.submit(DeletionRequest("request-1", OFFICER, Subject(bytes(32))))
        channel.submit(DeletionRequest("request-2", OFFICER, WholeSite(OTHER)))
        assert channel.get("request-1").request.requester == OFFICER

    with federation.coordinator.channel(federation.site) as channel:
        assert channel.get("request-1").request.request_id == "request-1"
    with federation.refused(federation.site, "neither asked", Cause.NAME) as channel:
        channel.get("request-2")


@pytest.mark.parametrize(("name", "asking"), [(FIRST_OFFICER, OFFICER), (SITE, SITE)])
def test_member_that_may_only_look_asks_for_nothing_from_its_next_call_on(
    federation: Federation, name: str, asking: str
) -> None:
    identity = federation.officer if name == FIRST_OFFICER else federation.site
    wanted = DeletionRequest("request-1", asking, Subject(bytes(32)))
    with federation.coordinator.channel(identity) as channel:
        channel.submit(wanted)
    federation.coordinator.register.allow(name, frozenset({Duty.VIEW}))

    with federation.refused(identity, "may only view and asks for nothing", Cause.DUTY) as channel:
        channel.submit(replace(wanted, request_id="request-2"))
    with federation.coordinator.channel(identity) as channel:
        assert [found.request_id for found in channel.find(RequestQuery(asking)).requests] == ["request-1"]
        if asking == SITE:
            assert [order.request.request_id for order in channel.watch(SITE, 0)] == ["request-1"]
    federation.coordinator.register.allow(name, frozenset({Duty.APPROVE}))
    with federation.coordinator.channel(identity) as channel:
        channel.submit(replace(wanted, request_id="request-2"))


def test_everybody_lists_and_follows_what_is_theirs_to_read(federation: Federation) -> None:
    with federation.coordinator.channel(federation.officer) as channel:
        channel.submit(DeletionRequest("request-1", OFFICER, Subject(bytes(32))))
        channel.submit(DeletionRequest("request-2", OFFICER, WholeSite(OTHER)))
    with federation.coordinator.channel(federation.other) as channel:
        channel.submit(DeletionRequest("request-3", OTHER, Subject(bytes(32))))
    coordinator = federation.coordinator.identity
    for identity, reader, seen in (
        (federation.officer, OFFICER, ["request-1", "request-2"]),
        (federation.site, SITE, ["request-1"]),
        (federation.other, OTHER, ["request-1", "request-2", "request-3"]),
        (coordinator, "", ["request-1", "request-2", "request-3"]),
    ):
        with federation.coordinator.channel(identity) as channel:
            assert [found.request_id for found in channel.find(RequestQuery(reader)).requests] == seen
            assert channel.overview(reader).open == len(seen)
            assert len(channel.sites(SiteQuery(reader)).sites) == (1 if reader in (SITE, OTHER) else 2)
            moves = channel.moves(reader, 1)
            assert next(moves) == Moved(1)
            assert next(moves).request_id == "request-1"
    calls: list[Callable[[DeletionChannel, str], object]] = [
        lambda channel, reader: channel.find(RequestQuery(reader)),
        lambda channel, reader: next(channel.moves(reader)),
        lambda channel, reader: channel.sites(SiteQuery(reader)),
        DeletionChannel.overview,
    ]
    for identity, reader in ((federation.officer, ""), (federation.site, OTHER), (federation.site, OFFICER)):
        for call in calls:
            with federation.refused(identity, "may not read what", Cause.NAME) as channel:
                call(channel, reader)


def test_requester_asks_in_no_sites_name(federation: Federation) -> None:
    with federation.refused(federation.officer, "may not ask in another's name", Cause.NAME) as channel:
        channel.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
    with federation.refused(federation.officer, "officers may not call Watch", Cause.ROLE) as channel:
        list(channel.watch(SITE, 0))


def test_coordinator_asks_for_nothing_and_opens_rounds(federation: Federation) -> None:
    coordinator = federation.coordinator.identity

    with federation.coordinator.channel(coordinator) as channel:
        assert channel.open_round(1) == 0
        assert list(channel.requests()) == []
    with federation.refused(coordinator, "coordinators may not call Submit", Cause.ROLE) as channel:
        channel.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))


@pytest.mark.parametrize("member", ["site", "officer"])
def test_members_neither_list_all_requests_nor_open_rounds(federation: Federation, member: str) -> None:
    identity: Identity = getattr(federation, member)

    with federation.refused(identity, "may not call List; only coordinators may", Cause.ROLE) as channel:
        channel.page()
    with federation.refused(identity, "may not call OpenRound; only coordinators may", Cause.ROLE) as channel:
        channel.open_round(1)
    with federation.refused(identity, "may not call NoteRelease; only coordinators may", Cause.ROLE) as channel:
        channel.note_release(ReleasedWeights("ab" * 32, 10, 10, ()))
    with federation.refused(identity, "may not call NoteGivenOut; only coordinators may", Cause.ROLE) as channel:
        channel.note_given_out("ab" * 32, [SITE])
    with federation.refused(identity, "may not call GetRenewal; only coordinators may", Cause.ROLE) as channel:
        channel.renewal_need()
    with federation.coordinator.channel(identity) as channel:
        assert channel.log_update(0) is not None
    with federation.coordinator.channel(federation.coordinator.identity) as channel:
        assert channel.renewal_need().records is None
        channel.note_release(ReleasedWeights("ab" * 32, 10, 10, (SiteContribution(SITE, 0, b""),)))
        need = channel.renewal_need()
        assert need.solved_at is not None
        assert need == RenewalNeed(0, None, None, (StillHeld(0, 10),), need.solved_at)
        assert channel.note_given_out("ab" * 32, []) == (SITE,)
        assert channel.note_given_out("ab" * 32, [SITE]) == ()
        assert channel.renewal_need() == RenewalNeed(0, None, 10)


def test_certificate_that_is_in_no_register_is_refused(federation: Federation, tmp_path: Path) -> None:
    # The authority signed it, but nobody was invited: a register that was put back from an old copy, for example.
    unknown = Identity.read(make_identity(federation.coordinator.authority, tmp_path / "unknown"))

    with federation.refused(unknown, "in no register of this federation", Cause.UNKNOWN) as channel:
        channel.log_update(0)


def test_certificate_that_expires_on_an_open_connection_is_refused(federation: Federation) -> None:
    with federation.coordinator.channel(federation.site) as channel:
        channel.log_update(0)
        federation.ahead[0] = timedelta(days=2)
        with pytest.raises(InvalidDeletion, match=f"certificate of site {SITE} expired on"):
            channel.log_update(0)

    assert federation.coordinator.server.refusals.count(Cause.EXPIRED) == 1


def test_revoked_member_is_told_why_at_its_next_call(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    with federation.coordinator.channel(federation.site) as channel:
        channel.log_update(0)
        federation.coordinator.register.revoke(SITE, "its server was stolen")
        with pytest.raises(InvalidDeletion, match=r"was revoked on .*: its server was stolen"):
            channel.log_update(0)

    assert f"refused GetLogHead to site {SITE}: revoked" in caplog.text
    assert "stolen" not in caplog.text


def test_site_that_is_revoked_hears_no_further_order(federation: Federation) -> None:
    coordinator = federation.coordinator
    with coordinator.channel(federation.site) as channel:
        follower = Follower(channel.watch(SITE, 0, follow=True))
        coordinator.service.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
        heard = follower.next()
        coordinator.register.revoke(SITE, "its server was stolen")
        coordinator.service.submit(DeletionRequest("request-2", SITE, WholeSite(SITE)))
        refusal = follower.next()
        follower.join()

    assert isinstance(heard, DeletionOrder)
    assert isinstance(refusal, InvalidDeletion)
    assert "was revoked" in str(refusal)
    assert "its server was stolen" in str(refusal)


def test_stream_without_orders_ends_when_its_site_is_revoked(federation: Federation) -> None:
    coordinator = federation.coordinator
    with coordinator.channel(federation.site) as channel, coordinator.channel(federation.other) as others:
        follower = Follower(channel.watch(SITE, 0, follow=True))
        bystander = Follower(others.watch(OTHER, 0, follow=True))
        for site in (SITE, OTHER):
            coordinator.service.submit(DeletionRequest(f"request-{site}", site, WholeSite(site)))
        first = follower.next(), bystander.next()
        coordinator.register.revoke(SITE, "it has left")
        refusal = follower.next()
        coordinator.service.submit(DeletionRequest("later", OTHER, WholeSite(OTHER)))
        later = bystander.next()

    assert all(isinstance(order, DeletionOrder) for order in first)
    assert "it has left" in str(refusal)
    assert isinstance(later, DeletionOrder)


def test_site_that_is_gone_follows_no_stream_any_more(federation: Federation) -> None:
    with federation.coordinator.channel(federation.site) as channel:
        follower = Follower(channel.watch(SITE, 0, follow=True))
        federation.coordinator.service.submit(DeletionRequest("request-1", SITE, WholeSite(SITE)))
        follower.next()
    follower.join()

    federation.coordinator.server.stop()

    (site,) = [site for site in federation.coordinator.ledger.sites() if site.name == SITE]
    assert not site.connected


def test_health_is_open_and_reflection_is_off(federation: Federation) -> None:
    federation.coordinator.register.revoke(SITE, "gone")
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    with grpc.secure_channel(federation.coordinator.address, federation.site.channel_credentials()) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            list(reflection.ServerReflectionInfo(iter([question]), timeout=PATIENCE))

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_method_of_the_service_is_in_the_table() -> None:
    for method in deletion_pb2.DESCRIPTOR.services_by_name["Deletion"].methods:
        message = getattr(deletion_pb2, method.input_type.name)()
        refusals = [may_call(method.name, message, Caller(role, "x"), lambda *_: None) for role in MemberRole]
        assert not all(refusal is not None and refusal.cause is Cause.ROLE for refusal in refusals), method.name


def test_method_that_nobody_thought_of_is_refused() -> None:
    refusal = may_call("Forge", None, Caller(MemberRole.COORDINATOR, "coordinator"), lambda *_: None)

    assert refusal is not None
    assert refusal.reason == "coordinators may not call Forge; nobody may"

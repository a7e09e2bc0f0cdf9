"""What each member gets of the deletion service, over real mutual TLS."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject, WholeSite
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.service.budgets import Allowance
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES, request_to_wire
from fedmunkey.protos import deletion_pb2
from fedmunkey.protos.deletion_pb2_grpc import DeletionStub
from fedmunkey.server.members import rations
from tests.coordinator import FIRST_OFFICER, OTHER, SITE, Coordinator, running_coordinator
from tests.patience import PATIENCE


@pytest.fixture
def coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    monkeypatch.setattr(rations, "CALLS", Allowance(at_once=20, a_second=20))
    monkeypatch.setattr(rations, "RECORDS", Allowance(at_once=MAXIMUM_REFERENCES, a_second=2 * MAXIMUM_REFERENCES))
    with running_coordinator(tmp_path) as running:
        yield running


def stub_of(coordinator: Coordinator, identity: Identity) -> tuple[grpc.Channel, Any]:
    """Return a connection as a member may make one itself, without what our client does about a refusal."""
    ca, certificate, key = identity.pem
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    channel = grpc.secure_channel(coordinator.address, credentials)
    return channel, DeletionStub(channel)  # type: ignore[no-untyped-call]


def submit(stub: Any, number: int, references: int = 1) -> None:
    named = frozenset(position.to_bytes(32) for position in range(number << 20, (number << 20) + references))
    request = DeletionRequest(f"request-{number}", SITE, Records(named, SITE))
    stub.Submit(deletion_pb2.SubmitRequest(request=request_to_wire(request)), timeout=PATIENCE)


def flood(stub: Any) -> None:
    for _ in range(100):
        stub.GetLogHead(deletion_pb2.GetLogHeadRequest(), timeout=PATIENCE)


def test_member_with_too_many_calls_is_told_when_to_come_back_and_others_go_on(coordinator: Coordinator) -> None:
    flooding, other = coordinator.member(SITE), coordinator.member(OTHER)
    channel, stub = stub_of(coordinator, flooding)
    with channel, pytest.raises(grpc.RpcError) as refused:
        flood(stub)

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "asked for more than its share; try again in" in refused.value.details()
    with coordinator.channel(other) as calm:
        assert calm.log_update(0) is not None


def test_records_that_are_named_count(coordinator: Coordinator) -> None:
    channel, stub = stub_of(coordinator, coordinator.member(SITE))
    with channel:
        submit(stub, 1, MAXIMUM_REFERENCES)
        with pytest.raises(grpc.RpcError) as refused:
            submit(stub, 2, MAXIMUM_REFERENCES)

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_at_the_same_time_are_few_and_others_do_not_wait_for_them(coordinator: Coordinator) -> None:
    flooding, other = coordinator.member(SITE), coordinator.member(OTHER)
    channel, stub = stub_of(coordinator, flooding)
    with channel, closing(sqlite3.connect(coordinator.folder.ledger, isolation_level=None)) as writer:
        # Whoever writes to the ledger waits for this one.
        writer.execute("BEGIN IMMEDIATE")
        calls = [
            stub.Submit.future(
                deletion_pb2.SubmitRequest(request=request_to_wire(whole_site(number))), timeout=PATIENCE
            )
            for number in range(rations.CALLS_AT_ONCE + 1)
        ]
        while not any(call.done() for call in calls):
            time.sleep(0.01)
        with coordinator.channel(other) as calm, pytest.raises(InvalidDeletion, match="none"):
            calm.get("none")
        writer.execute("ROLLBACK")
        codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == rations.CALLS_AT_ONCE
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 1


def whole_site(number: int) -> DeletionRequest:
    return DeletionRequest(f"request-{number}", SITE, WholeSite(SITE))


def test_our_client_comes_back_by_itself(coordinator: Coordinator) -> None:
    site = coordinator.member(SITE)
    named = [frozenset((number << 20 | at).to_bytes(32) for at in range(MAXIMUM_REFERENCES)) for number in range(2)]

    with coordinator.channel(site) as channel:
        for number, references in enumerate(named):
            channel.submit(DeletionRequest(f"request-{number}", SITE, Records(references, SITE)))
        assert channel.get("request-1").request.request_id == "request-1"


def test_message_too_large_for_its_method_is_not_read(coordinator: Coordinator) -> None:
    channel, stub = stub_of(coordinator, coordinator.member(SITE))
    # Two bytes each in the message, sixteen once it is read.
    request = deletion_pb2.DeletionRequest(request_id="request-1", requester=SITE)
    request.records.references.extend([b""] * 3_600_000)
    with channel, pytest.raises(grpc.RpcError) as refused:
        stub.Submit(deletion_pb2.SubmitRequest(request=request), timeout=PATIENCE)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Submit takes at most" in refused.value.details()


def test_message_that_is_none_is_refused_in_words(coordinator: Coordinator) -> None:
    channel, _ = stub_of(coordinator, coordinator.member(SITE))
    with channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/fedmunkey.deletion.v1.Deletion/Get")(b"\xff\xff", timeout=PATIENCE)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is no message of Get" in refused.value.details()


def test_streams_of_one_member_are_few(coordinator: Coordinator) -> None:
    site, other = coordinator.member(SITE), coordinator.member(OTHER)
    with coordinator.channel(coordinator.member(FIRST_OFFICER, MemberRole.OFFICER)) as office:
        office.submit(DeletionRequest("request-1", OFFICER, Subject(bytes(32))))
    channel, stub = stub_of(coordinator, site)
    message = deletion_pb2.WatchRequest(site=SITE, follow=True)
    with channel:
        streams = [stub.Watch(message) for _ in range(rations.STREAMS)]
        for stream in streams:
            assert next(stream).order.request.request_id == "request-1"
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.Watch(message))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with coordinator.channel(other) as calm:
            assert next(calm.watch(OTHER, 0, follow=True)).request.request_id == "request-1"
        # One that ends makes room.
        streams.pop().cancel()
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(first_order_in_time, stub, message).result(PATIENCE) == "request-1"


def first_order_in_time(stub: Any, message: deletion_pb2.WatchRequest) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return str(next(stub.Watch(message)).order.request.request_id)
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_health_is_watched_whatever_a_member_has_spent(coordinator: Coordinator) -> None:
    channel, stub = stub_of(coordinator, coordinator.member(SITE))
    with channel:
        with pytest.raises(grpc.RpcError):
            flood(stub)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()

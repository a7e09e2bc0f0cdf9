"""The deletion service as a server: addresses, health, reflection, stopping and starting again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion, InvalidSetting, ServiceUnavailable
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.service import channel as deletion_channel
from fedmunkey.common.service import wire
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.waiting import wait_for_service
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES, request_to_wire
from fedmunkey.protos import deletion_pb2, deletion_pb2_grpc
from fedmunkey.server.deletions import calls as deletion_servicer
from fedmunkey.server.deletions import listener as deletion_server
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import SERVICE_NAME, DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from tests.followers import Follower
from tests.patience import PATIENCE
from tests.server.ledger.ledger_contract import own_site, references

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def server(ledger: Ledger) -> Iterator[DeletionServer]:
    with DeletionServer(LedgerService(ledger)) as server:
        yield server


@pytest.fixture
def raw(server: DeletionServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(raw: grpc.Channel) -> Any:
    return deletion_pb2_grpc.DeletionStub(raw)  # type: ignore[no-untyped-call]


@pytest.fixture
def channel(server: DeletionServer) -> Iterator[DeletionChannel]:
    with DeletionChannel(server.address, timeout=PATIENCE) as channel:
        yield channel


@pytest.mark.parametrize("name", ["", SERVICE_NAME])
def test_health_is_serving(raw: grpc.Channel, name: str) -> None:
    answer = health_pb2_grpc.HealthStub(raw).Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)

    assert answer.status == SERVING


def test_reflection_lists_the_services(raw: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(raw)
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    (answer,) = stub.ServerReflectionInfo(iter([question]), timeout=PATIENCE)

    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


def submit(request_id: str, requester: str, site: str) -> deletion_pb2.SubmitRequest:
    request = deletion_pb2.DeletionRequest(request_id=request_id, requester=requester, site=site)
    return deletion_pb2.SubmitRequest(request=request)


@pytest.mark.parametrize(
    ("method", "message", "status"),
    [
        ("Get", deletion_pb2.GetRequest(request_id="request-9"), grpc.StatusCode.NOT_FOUND),
        ("Submit", deletion_pb2.SubmitRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("Acknowledge", deletion_pb2.AcknowledgeRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("List", deletion_pb2.ListRequest(page_size=1001), grpc.StatusCode.INVALID_ARGUMENT),
        ("Watch", deletion_pb2.WatchRequest(site="hospital-1", after=9), grpc.StatusCode.FAILED_PRECONDITION),
        ("Submit", submit("request-1", "hospital-9", "hospital-9"), grpc.StatusCode.PERMISSION_DENIED),
        ("Submit", submit("known", OFFICER, "hospital-1"), grpc.StatusCode.ALREADY_EXISTS),
    ],
)
def test_refusal_has_the_status_that_other_languages_expect(
    ledger: Ledger, stub: Any, method: str, message: object, status: grpc.StatusCode
) -> None:
    ledger.enter(own_site("known"), ["hospital-1"])

    with pytest.raises(grpc.RpcError) as caught:
        list(getattr(stub, method)(message, timeout=PATIENCE))

    assert caught.value.code() is status


def test_page_size_is_optional(ledger: Ledger, stub: Any) -> None:
    ledger.enter(own_site("request-1"), ["hospital-1"])

    assert len(stub.List(deletion_pb2.ListRequest(), timeout=PATIENCE).statuses) == 1


@pytest.mark.parametrize("at_the_last_moment", [False, True])
def test_address_in_use_is_refused(
    server: DeletionServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, at_the_last_moment: bool
) -> None:
    if at_the_last_moment:
        monkeypatch.setattr(deletion_server, "check_free", lambda *_: None)

    with pytest.raises(InvalidSetting, match=f"{server.address} .*in use.*--address"):
        DeletionServer(LedgerService(ledger), server.address).start()


def test_host_of_another_machine_is_refused(ledger: Ledger) -> None:
    # 192.0.2.0/24 is kept for documentation: no machine has such an address.
    with pytest.raises(InvalidSetting, match=r"192\.0\.2\.1:0"):
        DeletionServer(LedgerService(ledger), "192.0.2.1:0").start()


def test_server_can_be_stopped_twice_and_started_again(ledger: Ledger) -> None:
    server = DeletionServer(LedgerService(ledger))
    server.stop()
    first = server.start()
    server.stop()
    server.stop()

    again = server.start()

    with DeletionChannel(server.address) as channel:
        assert channel.open_round(1) == 0
    server.stop()
    assert again == first


def test_channel_finds_a_service_that_was_started_again(ledger: Ledger) -> None:
    server = DeletionServer(LedgerService(ledger))
    server.start()
    with DeletionChannel(server.address, timeout=PATIENCE) as channel:
        channel.submit(own_site("request-1"))
        server.stop()
        with pytest.raises(ServiceUnavailable):
            channel.get("request-1")
        with server:
            found = wait_for_service(lambda: channel.get("request-1").request, patience=PATIENCE)

    assert found == own_site("request-1")


def test_stopping_ends_streams_that_are_followed(ledger: Ledger) -> None:
    server = DeletionServer(LedgerService(ledger))
    server.start()
    with DeletionChannel(server.address) as channel:
        channel.submit(own_site("request-1"))
        follower = Follower(channel.watch("hospital-1", 0, follow=True))
        assert isinstance(follower.next(), DeletionOrder)

        server.stop(grace=PATIENCE)

        assert isinstance(follower.next(), ServiceUnavailable)
        follower.join()
    assert not [thread for thread in threading.enumerate() if thread.name == "deletion-server"]


def test_many_sites_follow_at_once(ledger: Ledger) -> None:
    sites = [f"site-{number}" for number in range(100)]
    for site in sites:
        ledger.register(site)
    with DeletionServer(LedgerService(ledger)) as server, DeletionChannel(server.address, timeout=PATIENCE) as channel:
        streams = [channel.watch(site, 0, follow=True) for site in sites]
        for site in sites:
            channel.submit(DeletionRequest(f"request-{site}", site, WholeSite(site)))

        assert [next(stream).request.requester for stream in streams] == sites


def test_page_that_is_too_large_for_a_message_is_split(
    channel: DeletionChannel, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion_servicer, "MESSAGE_BYTES", 3000)
    for number in range(5):
        ledger.enter(large(f"request-{number}", 40))

    assert len(channel.page().statuses) == 2
    assert [status.request.request_id for status in channel.requests()] == [f"request-{n}" for n in range(5)]


def test_order_of_an_older_ledger_that_is_larger_than_grpcs_usual_limit_is_carried(
    channel: DeletionChannel, ledger: Ledger
) -> None:
    request = large("request-1", 150_000)
    assert wire.request_to_wire(request).ByteSize() > 4 * 2**20

    ledger.enter(request)
    (order,) = channel.watch("hospital-1", 0)
    status = channel.get("request-1")

    assert order.request == status.request == request


def test_refusal_of_the_round_hook_reaches_the_caller(ledger: Ledger) -> None:
    def refuse(number: int) -> None:
        raise InvalidDeletion(f"round {number} cannot be planned")

    with (
        DeletionServer(LedgerService(ledger, refuse)) as server,
        DeletionChannel(server.address) as channel,
        pytest.raises(InvalidDeletion, match="round 7 cannot be planned"),
    ):
        channel.open_round(7)


def test_fault_inside_the_service_is_logged_and_not_told(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("a private detail")

    with (
        caplog.at_level(logging.ERROR, logger="fedmunkey.common.service.call_errors"),
        DeletionServer(LedgerService(ledger, fail)) as server,
        DeletionChannel(server.address) as channel,
        pytest.raises(ServiceUnavailable, match="its log says why") as caught,
    ):
        channel.open_round(1)

    assert "a private detail" not in str(caught.value)
    assert "a private detail" in caplog.text


def large(request_id: str, count: int) -> DeletionRequest:
    return DeletionRequest(request_id, "hospital-1", Records(references(count), "hospital-1"))


def test_request_with_too_many_records_is_refused_by_either_side(server: DeletionServer, stub: Any) -> None:
    request = large("large", MAXIMUM_REFERENCES + 1)
    with DeletionChannel(server.address) as channel:
        with pytest.raises(InvalidDeletion, match="split it into requests of at most 10000"):
            channel.submit(request)
        channel.submit(large("largest", MAXIMUM_REFERENCES))
        (order,) = channel.watch("hospital-1", 0)

    assert order.request == large("largest", MAXIMUM_REFERENCES)
    with pytest.raises(grpc.RpcError, match="split it into requests"):
        stub.Submit(deletion_pb2.SubmitRequest(request=request_to_wire(request)), timeout=PATIENCE)


def test_slow_reader_does_not_make_the_service_read_ahead(ledger: Ledger, stub: Any) -> None:
    orders = 300
    entered = [ledger.enter_soon(large(f"request-{number:03}", 1000)) for number in range(orders)]
    for future in entered:
        future.result(PATIENCE)
    read: list[int] = []
    find = ledger.orders

    def count(site: str, after: int, most: int) -> tuple[DeletionOrder, ...]:
        found = find(site, after, most)
        read.append(len(found))
        return found

    ledger.orders = count  # type: ignore[method-assign]
    stream = stub.Watch(deletion_pb2.WatchRequest(site="hospital-1"), timeout=3 * PATIENCE)
    next(stream)
    settled = wait_until_still(lambda: sum(read))
    rest = sum(1 for _ in stream)

    # 10 MB are waiting; a few hundred kB of them have been read.
    assert settled < orders / 2
    assert max(read) <= 10
    assert rest == orders - 1


def wait_until_still(value: Callable[[], int]) -> int:
    """Return a number once it has not changed for a while."""
    never = threading.Event()
    last, same = -1, 0
    for _ in range(200):
        same = same + 1 if value() == last else 0
        last = value()
        if same == 5:
            return last
        never.wait(0.05)
    raise AssertionError("it never stood still")


def test_reader_is_handed_a_backlog_some_orders_at_a_time(
    channel: DeletionChannel, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion_channel, "_ORDERS_AT_ONCE", 3)
    for number in range(8):
        ledger.enter(own_site(f"request-{number}"), ["hospital-1"])

    assert [order.number for order in channel.watch("hospital-1", 1)] == list(range(2, 9))


def test_orders_that_were_sent_are_delivered_until_they_are_answered(server: DeletionServer, ledger: Ledger) -> None:
    ledger.enter(own_site("request-1"), ["hospital-1"])
    with DeletionChannel(server.address, timeout=PATIENCE) as channel:
        list(channel.watch("hospital-1", 0))
    server.stop()
    ledger.close()

    with Ledger(str(ledger.name)) as again:
        assert again.status("request-1").sites[0].state is SiteState.DELIVERED
        assert again.pending() == 1


def test_answers_are_taken_together_and_a_refused_one_does_not_undo_the_others(
    channel: DeletionChannel, ledger: Ledger
) -> None:
    for number in range(3):
        ledger.enter(own_site(f"request-{number}"), ["hospital-1"])
    answers = [
        Acknowledgement(number + 1, "hospital-1", f"request-{number}", SiteState.ERASED, 1, 1, Guarantee.EXACT, 0.1)
        for number in range(3)
    ]

    with pytest.raises(InvalidDeletion, match="no order 2"):
        channel.acknowledge_all([answers[0], replace(answers[1], request_id="other"), answers[2]])
    states = [channel.get(f"request-{number}").state for number in range(3)]
    channel.acknowledge_all(answers)

    assert states == [RequestState.COMPLETED, RequestState.DISPATCHED, RequestState.COMPLETED]
    assert channel.get("request-1").state is RequestState.COMPLETED


def test_history_and_late_requests_travel(channel: DeletionChannel, ledger: Ledger) -> None:
    ledger.enter(own_site("request-1"), ["hospital-1"])

    assert channel.history("request-1") == ledger.history("request-1")
    assert list(channel.requests(late=True)) == []
    with pytest.raises(InvalidDeletion, match="no request"):
        channel.history("request-9")

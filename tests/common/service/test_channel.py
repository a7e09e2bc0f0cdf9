"""What a user of the deletion service sees when something is wrong on the way to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import grpc
import pytest

from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, WholeSite
from fedmunkey.common.errors import InvalidDeletion, InvalidSetting, ServiceUnavailable
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.deletion_service import MOST_TOGETHER
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.protos import deletion_pb2
from fedmunkey.protos.deletion_pb2_grpc import DeletionServicer, add_DeletionServicer_to_server
from tests.closed_port import closed_port
from tests.followers import Follower
from tests.patience import PATIENCE

REQUEST = DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1"))


class FaultyService(DeletionServicer):
    """Fails as it is told: with a status, by never answering, or by ending a stream early."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.details = ""
        self.sent = 0
        self.left = threading.Event()
        self.released = threading.Event()

    def Get(self, _message: deletion_pb2.GetRequest, context: Any) -> deletion_pb2.GetResponse:  # noqa: N802
        if self.status is not None:
            context.abort(self.status, self.details)
        self.released.wait(PATIENCE)
        return deletion_pb2.GetResponse()

    def Watch(  # noqa: N802
        self, message: deletion_pb2.WatchRequest, context: Any
    ) -> Iterator[deletion_pb2.WatchResponse]:
        if message.site.startswith("never-ends"):
            yield from self._endless(message, context)
            return
        order = deletion_pb2.DeletionOrder(number=1, site=message.site)
        order.request.request_id, order.request.requester, order.request.site = "request-1", "officer", message.site
        waits = message.site == "waits"
        if waits:
            # Before the first order: a reader that leaves with it keeps gRPC from coming back for the rest.
            context.add_callback(self.released.set)
        yield deletion_pb2.WatchResponse(order=order)
        if self.status is not None:
            context.abort(self.status, self.details)
        if waits:
            self.released.wait(PATIENCE)

    def _endless(self, message: deletion_pb2.WatchRequest, context: Any) -> Iterator[deletion_pb2.WatchResponse]:
        large = [bytes([row % 256]) * 32 for row in range(40_000)] if message.site.endswith("large") else [bytes(32)]
        number = message.after
        context.add_callback(self.left.set)
        while context.is_active():
            number += 1
            order = deletion_pb2.DeletionOrder(number=number, site=message.site)
            order.request.request_id, order.request.requester = f"request-{number}", "officer"
            order.request.records.references.extend(large)
            self.sent = max(self.sent, number)
            yield deletion_pb2.WatchResponse(order=order)


@pytest.fixture
def faulty() -> FaultyService:
    return FaultyService()


@pytest.fixture
def address(faulty: FaultyService) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        add_DeletionServicer_to_server(faulty, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        faulty.released.set()
        server.stop(None).wait()


@pytest.fixture
def channel(address: str) -> Iterator[DeletionChannel]:
    with DeletionChannel(address, timeout=PATIENCE) as channel:
        yield channel


REFUSALS = ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED", "ALREADY_EXISTS"]
FAILURES = ["UNAVAILABLE", "INTERNAL", "CANCELLED"]


@pytest.mark.parametrize("status", [grpc.StatusCode[name] for name in REFUSALS])
def test_refusal_says_what_the_service_said(
    channel: DeletionChannel, faulty: FaultyService, status: grpc.StatusCode
) -> None:
    faulty.status, faulty.details = status, "no such\nrequest"

    with pytest.raises(InvalidDeletion, match=r"^no such request$"):
        channel.get("request-1")


@pytest.mark.parametrize("status", [grpc.StatusCode[name] for name in FAILURES])
def test_failure_names_the_address_and_the_way_out(
    channel: DeletionChannel, faulty: FaultyService, address: str, status: grpc.StatusCode
) -> None:
    faulty.status = status

    with pytest.raises(ServiceUnavailable, match=f"{address} .*munkey-server serve.*deletion-service") as caught:
        channel.get("request-1")

    assert "\n" not in str(caught.value)


def test_service_that_does_not_know_a_call_is_to_be_upgraded(channel: DeletionChannel, faulty: FaultyService) -> None:
    faulty.status = grpc.StatusCode.UNIMPLEMENTED

    with pytest.raises(InvalidDeletion, match="earlier version that does not know this call; ask the coordinator"):
        channel.get("request-1")


def test_service_that_has_had_too_much_says_so_itself(channel: DeletionChannel, faulty: FaultyService) -> None:
    faulty.status, faulty.details = grpc.StatusCode.RESOURCE_EXHAUSTED, "eight\x1b[2Jstreams"

    with pytest.raises(ServiceUnavailable, match=r"refused the call: eight\\x1b\[2Jstreams$"):
        channel.get("request-1")


def test_unreachable_service_is_not_waited_for() -> None:
    with (
        closed_port() as port,
        DeletionChannel(f"127.0.0.1:{port}", timeout=PATIENCE) as channel,
        pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port} cannot be reached"),
    ):
        channel.submit(REQUEST)


def test_service_that_does_not_answer_is_given_up(address: str) -> None:
    with (
        DeletionChannel(address, timeout=0.1) as channel,
        pytest.raises(ServiceUnavailable, match=r"did not answer within 0\.1 seconds"),
    ):
        channel.get("request-1")


def test_backlog_survives_a_slow_reader(address: str) -> None:
    with DeletionChannel(address, timeout=PATIENCE) as channel:
        orders = channel.watch("hospital-1", 0)
        first = next(orders)

    # The connection is closed by here: the orders had been read before the first was handed out.
    assert first.number == 1
    assert list(orders) == []


def test_backlog_without_end_is_read_in_parts(channel: DeletionChannel, faulty: FaultyService) -> None:
    orders = channel.watch("never-ends", 0)

    read = [order.number for order in islice(orders, 600)]

    assert read == list(range(1, 601))
    # The reader holds a part and has ended the call; how many small orders were on their way is for gRPC to say.
    assert faulty.left.wait(PATIENCE)


def test_backlog_of_large_orders_is_read_in_parts(channel: DeletionChannel, faulty: FaultyService) -> None:
    orders = channel.watch("never-ends-and-large", 0)

    assert [order.number for order in islice(orders, 8)] == list(range(1, 9))

    assert faulty.sent < 30


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("status", "fault"), [(grpc.StatusCode.UNAVAILABLE, "cannot be reached"), (None, "ended a stream")]
)
def test_what_ends_a_stream_is_raised_after_the_orders_that_came_before(
    channel: DeletionChannel, faulty: FaultyService, status: grpc.StatusCode | None, fault: str, together: bool
) -> None:
    faulty.status = status
    watch = channel.watch_together if together else channel.watch
    orders: Iterator[object] = watch("hospital-1", 0, follow=True)

    next(orders)
    with pytest.raises(ServiceUnavailable, match=fault):
        next(orders)


def test_closing_from_another_thread_ends_a_stream(channel: DeletionChannel) -> None:
    follower = Follower(channel.watch("waits", 0, follow=True))
    assert isinstance(follower.next(), DeletionOrder)

    channel.close()

    assert follower.next() is None
    follower.join()


def test_reader_that_leaves_a_stream_ends_it_at_the_service(channel: DeletionChannel, faulty: FaultyService) -> None:
    orders = channel.watch("waits", 0, follow=True)
    next(orders)

    orders.close()  # type: ignore[attr-defined]

    assert faulty.released.wait(PATIENCE)


def test_closed_channel_answers_no_call(channel: DeletionChannel) -> None:
    channel.close()
    channel.close()

    with pytest.raises(ServiceUnavailable, match="closed"):
        channel.get("request-1")
    for follow in (False, True):
        with pytest.raises(ServiceUnavailable, match="closed"):
            list(channel.watch("hospital-1", 0, follow=follow))


def test_what_no_message_can_carry_is_refused(channel: DeletionChannel) -> None:
    with pytest.raises(InvalidDeletion):
        channel.watch("hospital-1", -1)
    with pytest.raises(InvalidDeletion):
        channel.get("\udcff")


def test_orders_that_came_meanwhile_are_taken_together(channel: DeletionChannel, faulty: FaultyService) -> None:
    lists = channel.watch_together("never-ends", 0, follow=True)

    numbers: list[int] = []
    for orders in lists:
        numbers += [order.number for order in orders]
        assert len(orders) <= MOST_TOGETHER
        if len(orders) > 1:
            break
    lists.close()  # type: ignore[attr-defined]

    assert numbers == list(range(1, len(numbers) + 1))
    assert faulty.left.wait(PATIENCE)


def test_reader_of_lists_ends_quietly_when_the_channel_is_closed(channel: DeletionChannel) -> None:
    lists = channel.watch_together("waits", 0, follow=True)
    assert len(next(lists)) == 1

    channel.close()

    assert list(lists) == []


@pytest.mark.parametrize("address", ["", "localhost", ":9440", "localhost:", "localhost:port", "localhost:65536"])
def test_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidSetting, match="host:port"):
        DeletionChannel(address)


def test_address_is_split_at_its_last_colon_and_only_this_machine_is_loopback() -> None:
    assert split_address("[::1]:9440") == ("[::1]", 9440)
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "[::1]"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "[::]", "example.org"))  # noqa: S104

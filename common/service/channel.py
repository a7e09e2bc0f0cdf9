"""The deletion service over gRPC, as sites and officers use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from fedmunkey.common.deletions.listing import Moved, Overview, RequestQuery, RequestsFound, SiteQuery, SitesFound
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, DeletionRequest, Move, RequestStatus
from fedmunkey.common.errors import (
    DeletionHeld,
    FedmunkeyError,
    InvalidDeletion,
    RefusedContributions,
    ServiceUnavailable,
)
from fedmunkey.common.identities import Identity
from fedmunkey.common.proofs.log_heads import LogUpdate
from fedmunkey.common.service.call_errors import explain, status_of
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.deletion_service import StatusPage
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.service.listing_wire import (
    found_from_wire,
    moved_from_wire,
    overview_from_wire,
    query_to_wire,
    site_query_to_wire,
    sites_from_wire,
)
from fedmunkey.common.service.order_reader import OrderReader
from fedmunkey.common.service.secure_connection import Connection
from fedmunkey.common.service.wire import (
    MESSAGE_BYTES,
    RETRY_AFTER,
    acknowledgement_to_wire,
    check_page_size,
    check_size,
    log_update_from_wire,
    move_from_wire,
    need_from_wire,
    order_from_wire,
    release_to_wire,
    request_to_wire,
    status_from_wire,
    writing,
)
from fedmunkey.protos import deletion_pb2
from fedmunkey.protos.deletion_pb2_grpc import DeletionStub

KEEPALIVE_SECONDS = 30
"""A peer on an open stream that answers no ping for this long, and a third of it more, is taken for dead."""

_SIZE_OPTIONS = [
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
]


def _keepalive_options(seconds: float) -> list[tuple[str, int]]:
    return [
        ("grpc.keepalive_time_ms", round(seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(seconds * 1000 / 3)),
        # gRPC waits for the answer to a ping as long as this says, a minute by default, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", round(seconds * 1000 / 3)),
        # Without this, a stream on which no order comes would be pinged twice and then no more.
        ("grpc.http2.max_pings_without_data", 0),
    ]


MESSAGE_OPTIONS = [*_SIZE_OPTIONS, *_keepalive_options(KEEPALIVE_SECONDS)]
"""Options that the service and its users must agree on."""

_CHANNEL_OPTIONS = [
    *_SIZE_OPTIONS,
    # A service that was down is tried again within seconds, not minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Channels to one address would otherwise share a connection and its waiting time after a failure.
    ("grpc.use_local_subchannel_pool", 1),
]

_ORDERS_AT_ONCE = 1000
_BYTES_AT_ONCE = 16 * 2**20

_Answer = TypeVar("_Answer")


_PATIENCE_SECONDS = 300.0
"""How long a call is made again to a service that has had too much of this caller."""


class _TooMuch(ServiceUnavailable):
    """The service has had too much of this caller; after some seconds, it may call again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class DeletionChannel(ConsoleService):
    """A connection to the deletion service; one may be shared by several threads.

    Nothing is sent before the first call, and a lost connection is made again by the next one.

    One call may take `timeout` seconds; following a stream of orders has no such limit. After `keepalive` seconds a
    silent peer is asked whether it is there; the service takes those who ask more often than it expects for attackers.
    The identity is shown to the service over mutual TLS, and by it the service is known; the files of its folder are
    followed, so that a rotation needs no restart. Without it, the connection is neither encrypted nor authenticated.
    Raises `InvalidSetting` if the address is not of the form `host:port`.
    """

    def __init__(
        self,
        address: str,
        timeout: float = 30.0,
        *,
        keepalive: float = KEEPALIVE_SECONDS,
        identity: Identity | None = None,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._closed = threading.Event()
        options = [*_CHANNEL_OPTIONS, *_keepalive_options(keepalive)]
        self._connection = Connection(address, options, identity, DeletionStub)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, from any thread.

        Streams that are being read in other threads end without an error, calls under way raise `ServiceUnavailable`,
        and so does every later call.
        """
        self._closed.set()
        self._connection.close()

    @property
    def _stub(self) -> Any:
        return self._connection.stub()

    def submit(self, request: DeletionRequest) -> RequestStatus:
        """Submit a request; see `DeletionService.submit`."""
        check_size(request)
        message = deletion_pb2.SubmitRequest(request=request_to_wire(request))
        answer = self._call(self._stub.Submit, message)
        if answer.holds:
            names = [printable(name) for name in answer.hold_names]
            raise DeletionHeld(tuple(answer.holds), names, bytes(answer.blocked))
        return status_from_wire(answer.status)

    def instruct(self, document: bytes) -> None:
        """Give an instruction; see `DeletionService.instruct`."""
        self._call(self._stub.Instruct, deletion_pb2.InstructRequest(document=document))

    def instructions(self, after: int = 0, digest: bytes = b"") -> Sequence[tuple[int, bytes]]:
        """Return instructions; see `DeletionService.instructions`."""
        with writing("a question about instructions"):
            message = deletion_pb2.GetInstructionsRequest(after=after, digest=digest)
        found = self._call(self._stub.GetInstructions, message).instructions
        return tuple((int(one.number), bytes(one.document)) for one in found)

    def get(self, request_id: str) -> RequestStatus:
        """Return one request's status; see `DeletionService.get`."""
        with writing("a request id"):
            message = deletion_pb2.GetRequest(request_id=request_id)
        return status_from_wire(self._call(self._stub.Get, message).status)

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:
        """Return up to `size` requests, fewer if they would not fit into one message; see `DeletionService.page`."""
        check_page_size(size)
        with writing("a page"):
            message = deletion_pb2.ListRequest(page_size=size, page_token=page, late=late)
        answer = self._call(self._stub.List, message)
        return StatusPage(tuple(status_from_wire(status) for status in answer.statuses), answer.next_page_token)

    def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:
        """Yield a site's orders with numbers above `after`; see `DeletionService.watch`.

        The call is made when the first order is asked for. Without `follow`, orders are read some at a time, each time
        within the timeout and before the first of them is handed out, so that the time taken to carry one out does not
        count and the memory does not grow with what was missed. With `follow`, the iterator ends only after
        `close`; a service that stops, or is lost, raises `ServiceUnavailable`, and the reader may watch again from the
        last number it has applied.
        """
        with writing("a request for orders"):
            message = deletion_pb2.WatchRequest(site=site, after=after, follow=follow, chain=chain)
        return self._follow(message) if follow else self._backlog(message)

    def watch_together(
        self, site: str, after: int, *, follow: bool = False, chain: bytes = b""
    ) -> Iterator[list[DeletionOrder]]:
        """Yield a site's orders in lists; see `DeletionService.watch_together`.

        With `follow`, another thread reads what comes while those of the last list are applied.
        """
        if not follow:
            return super().watch_together(site, after, chain=chain)
        with writing("a request for orders"):
            message = deletion_pb2.WatchRequest(site=site, after=after, follow=True, chain=chain)
        return self._follow_together(message)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Give a site's answer to one order; see `DeletionService.acknowledge`."""
        message = deletion_pb2.AcknowledgeRequest(acknowledgement=acknowledgement_to_wire(acknowledgement))
        self._call(self._stub.Acknowledge, message)

    def acknowledge_all(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        """Give several answers at once; see `DeletionService.acknowledge_all`."""
        message = deletion_pb2.AcknowledgeAllRequest(
            acknowledgements=[acknowledgement_to_wire(acknowledgement) for acknowledgement in acknowledgements]
        )
        self._call(self._stub.AcknowledgeAll, message)

    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first; raises `InvalidDeletion` if there is no such request."""
        with writing("a request id"):
            message = deletion_pb2.HistoryRequest(request_id=request_id)
        return tuple(move_from_wire(move) for move in self._call(self._stub.History, message).moves)

    def open_round(self, number: int) -> int:
        """Announce a round; see `DeletionService.open_round`."""
        with writing("a round"):
            message = deletion_pb2.OpenRoundRequest(round=number)
        return int(self._call(self._stub.OpenRound, message).pending_orders)

    def note_release(self, released: ReleasedWeights) -> None:
        """Say what was solved for; see `DeletionService.note_release`."""
        if faults := self._call(self._stub.NoteRelease, release_to_wire(released)).refused:
            raise RefusedContributions({name: printable(why) for name, why in faults.items()})

    def note_given_out(self, digest: str, sites: Collection[str]) -> tuple[str, ...]:
        """Say who has taken a release over; see `DeletionService.note_given_out`."""
        with writing("a release"):
            message = deletion_pb2.NoteGivenOutRequest(digest=digest, sites=sorted(sites))
        return tuple(printable(site) for site in self._call(self._stub.NoteGivenOut, message).lacking)

    def renewal_need(self) -> RenewalNeed:
        """Return what is owed; see `DeletionService.renewal_need`."""
        return need_from_wire(self._call(self._stub.GetRenewal, deletion_pb2.GetRenewalRequest()))

    def log_update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:
        """Return the log's head with proofs; see `DeletionService.log_update`."""
        with writing("a question about the log"):
            message = deletion_pb2.GetLogHeadRequest(seen_size=seen_size, leaves=leaves)
        return log_update_from_wire(self._call(self._stub.GetLogHead, message))

    def certificate(self, request_id: str) -> bytes:
        """Return a request's certificate; see `DeletionService.certificate`."""
        with writing("a request id"):
            message = deletion_pb2.GetCertificateRequest(request_id=request_id)
        return bytes(self._call(self._stub.GetCertificate, message).certificate)

    def recall(self, site: str, receipts: Sequence[bytes]) -> None:
        """Give back receipts for orders that the ledger has lost; see `DeletionService.recall`."""
        self._call(self._stub.Recall, deletion_pb2.RecallRequest(site=site, receipts=receipts))

    def recalled(self, request_id: str, site: str = "") -> Sequence[bytes]:
        """Return the receipts that sites have given back for a request; see `DeletionService.recalled`."""
        with writing("a request id"):
            message = deletion_pb2.GetRecalledRequest(request_id=request_id, site=site)
        return tuple(self._call(self._stub.GetRecalled, message).receipts)

    def find(self, query: RequestQuery) -> RequestsFound:
        """Return a page of requests; see `ConsoleService.find`."""
        return found_from_wire(self._call(self._stub.Find, query_to_wire(query)))

    def moves(self, reader: str, after: int = 0) -> Iterator[Moved]:
        """Yield which requests move, until `close`; see `ConsoleService.moves`.

        A service that stops, or is lost, raises `ServiceUnavailable`.
        """
        with writing("a request for what moves"):
            message = deletion_pb2.FollowRequest(reader=reader, after=after)
        return self._follow_moves(message)

    def sites(self, query: SiteQuery) -> SitesFound:
        """Return a page of the sites; see `ConsoleService.sites`."""
        return sites_from_wire(self._call(self._stub.ListSites, site_query_to_wire(query)))

    def overview(self, reader: str) -> Overview:
        """Return counts; see `ConsoleService.overview`."""
        with writing("a reader"):
            message = deletion_pb2.GetOverviewRequest(reader=reader)
        return overview_from_wire(self._call(self._stub.GetOverview, message))

    def _follow_moves(self, message: deletion_pb2.FollowRequest) -> Iterator[Moved]:
        with self._stream(self._stub.Follow, message) as stream:
            yield from map(moved_from_wire, stream)

    def _backlog(self, message: deletion_pb2.WatchRequest) -> Iterator[DeletionOrder]:
        def read(message: deletion_pb2.WatchRequest, timeout: float) -> tuple[list[DeletionOrder], bool]:
            """Return some orders, and whether these were all."""
            orders: list[DeletionOrder] = []
            size = 0
            stream = self._stub.Watch(message, timeout=timeout)
            try:
                for order, taken in _sized(stream):
                    orders.append(order)
                    size += taken
                    if len(orders) >= _ORDERS_AT_ONCE or size >= _BYTES_AT_ONCE:
                        return orders, False
            finally:
                stream.cancel()
            return orders, True

        ended = False
        while not ended:
            orders, ended = self._call(read, message)
            yield from orders
            if orders:
                message = deletion_pb2.WatchRequest(site=message.site, after=orders[-1].number)

    def _follow(self, message: deletion_pb2.WatchRequest) -> Iterator[DeletionOrder]:
        with self._stream(self._stub.Watch, message) as stream:
            for order, _ in _sized(stream):
                yield order

    def _follow_together(self, message: deletion_pb2.WatchRequest) -> Iterator[list[DeletionOrder]]:
        with self._stream(self._stub.Watch, message) as stream:
            reader = OrderReader(_sized(stream))
            try:
                while orders := reader.take():
                    yield orders
            finally:
                stream.cancel()
                reader.close()

    @contextmanager
    def _stream(self, method: Callable[..., Any], message: Any) -> Iterator[Any]:
        """Give a stream that is followed until this connection is closed; an end by itself is an error."""
        try:
            stream = method(message)
        except ValueError:
            raise self._is_closed() from None
        try:
            yield stream
        except grpc.RpcError as error:
            if self._closed.is_set():
                return
            raise self._explain(error) from None
        finally:
            stream.cancel()
        raise ServiceUnavailable(
            f"the deletion service at {self._address} ended a stream that was followed; follow it again"
        )

    def _call(self, method: Callable[..., _Answer], message: Any) -> _Answer:
        """Make a call; one that the service has had too many of is made again when it says, for a while."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._call_once(method, message)
            except _TooMuch as error:
                if time.monotonic() + error.seconds > until or self._closed.wait(error.seconds):
                    raise ServiceUnavailable(str(error)) from None

    def _call_once(self, method: Callable[..., _Answer], message: Any) -> _Answer:
        try:
            return method(message, timeout=self._timeout)
        except grpc.RpcError as error:
            raise (self._is_closed() if self._closed.is_set() else self._explain(error)) from None
        except ValueError:
            # gRPC's answer to a call on a channel that is closed.
            raise self._is_closed() from None

    def _is_closed(self) -> FedmunkeyError:
        return ServiceUnavailable(f"the connection to the deletion service at {self._address} is closed; open another")

    def _explain(self, error: Any) -> FedmunkeyError:
        """Turn gRPC's status into the next step of the person at the keyboard."""
        status, details = status_of(error)
        if (seconds := retry_after(error)) is not None:
            return _TooMuch(f"the deletion service at {self._address} takes no more calls for now: {details}", seconds)
        if status in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.CANCELLED) and self._connection.is_replaced():
            return ServiceUnavailable("this member's certificate was replaced meanwhile; try again")
        return explain(
            error,
            f"the deletion service at {self._address}",
            "start it with munkey-server serve, or name another with --service (deletion-service in a file of "
            "settings)",
            refused=InvalidDeletion,
            seconds=self._timeout,
            find_fault=self._connection.fault,
            nobody=f"the deletion service at {self._address} is of an earlier version that does not know this call; "
            "ask the coordinator to upgrade it",
        )


def retry_after(error: Any) -> float | None:
    """Return after how many seconds a call that was turned away may be made again; None if nobody says."""
    if status_of(error)[0] is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    said = dict(error.trailing_metadata() or ()).get(RETRY_AFTER, "")
    return int(said) / 1000 if isinstance(said, str) and said.isascii() and said.isdigit() else None


def _sized(stream: Iterable[deletion_pb2.WatchResponse]) -> Iterator[tuple[DeletionOrder, int]]:
    """Read the orders of a stream, each with the bytes that it took; raises `InvalidDeletion`."""
    for answer in stream:
        yield order_from_wire(answer.order), answer.ByteSize()

"""The deletion service on the network: gRPC, with health checks and reflection.

One event loop in one thread serves every connection, so a thousand sites may follow their orders at once; whatever
touches the ledger runs in other threads.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.deletion_channel import KEEPALIVE_SECONDS, MESSAGE_OPTIONS, split_address
from common.deletion_service import StatusPage
from common.errors import FedmunkeyError, InvalidSetting, ServiceUnavailable
from common.wire import (
    MESSAGE_BYTES,
    acknowledgement_from_wire,
    log_update_to_wire,
    order_to_wire,
    request_from_wire,
    status_to_wire,
)
from protos import deletion_pb2, deletion_pb2_grpc
from server.deletion_service import LedgerService
from server.ledger import DeletionConflict, DeletionExists, UnknownDeletion
from server.policy import NotAllowed

SERVICE_NAME = deletion_pb2.DESCRIPTOR.services_by_name["Deletion"].full_name
DEFAULT_PAGE = 100

_SERVER_OPTIONS = [
    *MESSAGE_OPTIONS,
    # Linux would let a second server share the port and take half of the connections.
    ("grpc.so_reuseport", 0),
    # A site that pings as often as it should must not be taken for an attacker.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 500),
]

_CODES: tuple[tuple[type[FedmunkeyError], grpc.StatusCode], ...] = (
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (UnknownDeletion, grpc.StatusCode.NOT_FOUND),
    (DeletionExists, grpc.StatusCode.ALREADY_EXISTS),
    (DeletionConflict, grpc.StatusCode.FAILED_PRECONDITION),
    (ServiceUnavailable, grpc.StatusCode.UNAVAILABLE),
    (FedmunkeyError, grpc.StatusCode.INVALID_ARGUMENT),
)

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class DeletionServer:
    """Serves a deletion service at an address until it is stopped.

    The connection is neither encrypted nor authenticated.

    Parameters
    ----------
    service : LedgerService
        What is served; it stays open when the server stops.
    address : str
        `host:port` to listen on; port 0 takes one that is free.

    Raises
    ------
    InvalidSetting
        If the address is not of the form `host:port`.
    """

    def __init__(self, service: LedgerService, address: str = "127.0.0.1:0") -> None:
        self._host, self._port = split_address(address)
        self._service = service
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[float] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port`, with the port that was chosen once the server has started."""
        return f"{self._host}:{self._port}"

    def start(self) -> int:
        """Listen, and serve in a thread of its own; return the port.

        Raises
        ------
        InvalidSetting
            If the address is in use or not this machine's.
        """
        if self._thread is not None:
            raise RuntimeError("the server was started already")
        _check_free(self._host, self._port)
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="deletion-server", daemon=True
        )
        self._thread.start()
        try:
            self._port = started.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self._port

    def stop(self, grace: float = 5.0) -> None:
        """Stop serving and wait until that is done; a server that is not running stays as it is.

        New calls are refused at once and streams of orders end with `UNAVAILABLE`. Calls under way have `grace`
        seconds to end; what they had begun to write to the ledger is written, and a round's hook is waited for.
        """
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set_result, grace)
        self._thread.join()
        self._thread = None

    async def _serve(self, started: Future[int]) -> None:
        try:
            server = grpc.aio.server(options=_SERVER_OPTIONS)
            servicer = _Servicer(self._service)
            deletion_pb2_grpc.add_DeletionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            checks = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(checks, server)
            reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
            try:
                port = server.add_insecure_port(self.address)
            except RuntimeError:
                raise InvalidSetting(_cannot_listen(self.address, "it is in use")) from None
            await server.start()
            for name in ("", SERVICE_NAME):
                await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
            self._loop = asyncio.get_running_loop()
            self._stop = self._loop.create_future()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(port)
        grace = await self._stop
        await checks.enter_graceful_shutdown()
        servicer.stop()
        await server.stop(grace)


class _Servicer(deletion_pb2_grpc.DeletionServicer):
    """Between gRPC's messages and the service; runs in the event loop."""

    def __init__(self, service: LedgerService) -> None:
        self._service = service
        self._stopping = False
        self._woken: set[asyncio.Event] = set()

    def stop(self) -> None:
        """End every stream that is being followed."""
        self._stopping = True
        for woken in self._woken:
            woken.set()

    async def Submit(self, message: deletion_pb2.SubmitRequest, context: Any) -> Any:  # noqa: N802
        def submit() -> deletion_pb2.SubmitResponse:
            status = self._service.submit(request_from_wire(message.request))
            return deletion_pb2.SubmitResponse(status=status_to_wire(status))

        return await _answer(context, submit)

    async def Get(self, message: deletion_pb2.GetRequest, context: Any) -> Any:  # noqa: N802
        def get() -> deletion_pb2.GetResponse:
            return deletion_pb2.GetResponse(status=status_to_wire(self._service.get(message.request_id)))

        return await _answer(context, get)

    async def List(self, message: deletion_pb2.ListRequest, context: Any) -> Any:  # noqa: N802
        return await _answer(
            context, lambda: _list(self._service.page, message.page_token, message.page_size or DEFAULT_PAGE)
        )

    async def Acknowledge(self, message: deletion_pb2.AcknowledgeRequest, context: Any) -> Any:  # noqa: N802
        def acknowledge() -> deletion_pb2.AcknowledgeResponse:
            self._service.acknowledge(acknowledgement_from_wire(message.acknowledgement))
            return deletion_pb2.AcknowledgeResponse()

        return await _answer(context, acknowledge)

    async def OpenRound(self, message: deletion_pb2.OpenRoundRequest, context: Any) -> Any:  # noqa: N802
        def open_round() -> deletion_pb2.OpenRoundResponse:
            return deletion_pb2.OpenRoundResponse(pending_orders=self._service.open_round(message.round))

        return await _answer(context, open_round)

    async def GetLogHead(self, message: deletion_pb2.GetLogHeadRequest, context: Any) -> Any:  # noqa: N802
        def show() -> deletion_pb2.GetLogHeadResponse:
            return log_update_to_wire(self._service.log_update(message.seen_size, message.leaves))

        return await _answer(context, show)

    async def GetCertificate(self, message: deletion_pb2.GetCertificateRequest, context: Any) -> Any:  # noqa: N802
        def certify() -> deletion_pb2.GetCertificateResponse:
            return deletion_pb2.GetCertificateResponse(certificate=self._service.certificate(message.request_id))

        return await _answer(context, certify)

    async def Watch(  # noqa: N802
        self, message: deletion_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[deletion_pb2.WatchResponse]:
        site, after = message.site, message.after
        await _answer(context, partial(self._service.check_position, site, after))
        async with self._following(site) as woken:
            while True:
                # Cleared before the ledger is read, so that an order which is written meanwhile is not missed.
                woken.clear()
                while (answer := await _answer(context, partial(self._order, site, after))) is not None:
                    yield answer
                    after = answer.order.number
                if not message.follow:
                    return
                if self._stopping or self._service.closed:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the deletion service is stopping")
                await woken.wait()

    def _order(self, site: str, after: int) -> deletion_pb2.WatchResponse | None:
        order = self._service.next_order(site, after)
        return None if order is None else deletion_pb2.WatchResponse(order=order_to_wire(order))

    @asynccontextmanager
    async def _following(self, site: str) -> AsyncIterator[asyncio.Event]:
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        self._woken.add(woken)
        try:
            with self._service.following(site, wake):
                yield woken
        finally:
            self._woken.discard(woken)


async def _answer(context: Any, call: Callable[[], _Result]) -> _Result:
    """Run a call in another thread; end the RPC with a status and one line if it fails."""
    try:
        return await asyncio.to_thread(call)
    except FedmunkeyError as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        await context.abort(code, str(error))
    except Exception:
        # The caller learns nothing of what went wrong inside; whoever runs the service does.
        _log.exception("a call to the deletion service failed")
        await context.abort(grpc.StatusCode.INTERNAL, "the deletion service failed; its log says why")
    raise AssertionError("abort raises")


def _list(page: Callable[[str, int], StatusPage], token: str, size: int) -> deletion_pb2.ListResponse:
    """Make a page of at most `size` requests that fits into one message."""
    while True:
        found = page(token, size)
        answer = deletion_pb2.ListResponse(
            statuses=[status_to_wire(status) for status in found.statuses], next_page_token=found.next_page
        )
        if answer.ByteSize() <= MESSAGE_BYTES or len(found.statuses) == 1:
            return answer
        size = len(found.statuses) // 2


def _check_free(host: str, port: int) -> None:
    """Raise `InvalidSetting` if nothing can listen there; gRPC itself would not say why, and write to stderr."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        raise InvalidSetting(_cannot_listen(f"{host}:{port}", error.strerror or str(error))) from None


def _cannot_listen(address: str, fault: str) -> str:
    return f"cannot listen on {address} ({fault.lower()}); choose another address with --address"

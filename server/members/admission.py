"""Who may call what: a certificate's name and role decide, and the register of members is asked at each call.

An interceptor stands before every method of the deletion service, so none can be reached without it. On a stream of
orders the register is asked again before each order, and as soon as a certificate was revoked or replaced. Callers that
come at the same moment are looked up together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import grpc

from fedmunkey.common.errors import FedmunkeyError, InvalidIdentity, ServiceUnavailable
from fedmunkey.common.service.call_errors import ending
from fedmunkey.server.connections.together import Together
from fedmunkey.server.members.certified import Certified, certified_by
from fedmunkey.server.members.entitlements import ASKING, Caller, may_ask, may_call, reads_ledger
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.server.members.turned_away import Cause, Refusal, Refusals

POLL_SECONDS = 1.0
"""A stream on which no order comes hears at the latest after so long that its certificate is good no more."""

_THREADS = 8

_log = logging.getLogger(__name__)
_Handler = Any


class Admission(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before the services of members; made and used within one event loop.

    `addressed` takes a request id and a site's name; it returns the request's requester and whether it is addressed to
    the site, or None if there is no such request. `services` are the full names of those that it stands before; others,
    such as health checks, are open. `refusals` is told of everybody who was turned away, and
    `introduce` whose a connection is, by what gRPC calls its other end.
    """

    def __init__(
        self,
        register: MemberRegister,
        addressed: Callable[[str, str], tuple[str, bool] | None],
        services: tuple[str, ...],
        refusals: Refusals,
        introduce: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._register = register
        self._addressed = addressed
        self._prefixes = tuple(f"/{name}/" for name in services)
        self._refusals = refusals
        self._introduce = introduce
        self._threads = ThreadPoolExecutor(_THREADS, "admission")
        self._faults = Together(self._threads, self._find_faults)
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[_Handler]], handler_call_details: Any
    ) -> _Handler:
        """Put the checks before a method's handler."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or not path.startswith(self._prefixes):
            return handler
        method = path.rpartition("/")[2]
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(method, handler.unary_stream), **codecs)
        return grpc.unary_unary_rpc_method_handler(self._guard(method, handler.unary_unary), **codecs)

    async def start(self) -> None:
        """Begin to look for certificates that are good no more."""
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End; no call may come any more."""
        self._stopped.set()
        if self._looking is not None:
            await self._looking

    def close(self) -> None:
        """Wait for what is under way in threads."""
        self._threads.shutdown()

    def _guard(self, method: str, act: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def guarded(message: Any, context: Any) -> Any:
            """Answer a call of somebody who may make it."""
            await self._admit(method, message, context)
            return await act(message, context)

        return guarded

    def _guard_stream(
        self, method: str, act: Callable[[Any, Any], AsyncIterator[Any]]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def guarded(message: Any, context: Any) -> AsyncIterator[Any]:
            """Stream answers while the caller may have them, which is looked up for each and when members change."""
            await self._admit(method, message, context)
            responses = act(message, context)
            coming = asyncio.ensure_future(anext(responses))
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                while True:
                    await asyncio.wait({coming, changed}, return_when=asyncio.FIRST_COMPLETED)
                    if changed.done():
                        changed = asyncio.ensure_future(self._changed.wait())
                    await self._admit(method, message, context)
                    if not coming.done():
                        continue
                    try:
                        response = coming.result()
                    except StopAsyncIteration:
                        return
                    yield response
                    coming = asyncio.ensure_future(anext(responses))
            finally:
                changed.cancel()
                coming.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await coming
                await responses.aclose()  # type: ignore[attr-defined]

        return guarded

    async def _admit(self, method: str, message: Any, context: Any) -> None:
        """End the RPC unless its caller may make it."""
        try:
            certified = certified_by(context.auth_context().get("x509_pem_cert", [b""])[0])
        except InvalidIdentity as error:
            await self._refuse(context, method, None, Refusal(Cause.UNKNOWN, str(error)))
            return
        try:
            refusal = await self._find_refusal(method, message, certified)
        except ServiceUnavailable as error:
            await context.abort(*ending(error, "deletion service"))
            return
        if refusal is not None:
            await self._refuse(context, method, certified.caller, refusal)
        else:
            self._introduce(context.peer(), f"{certified.caller.role} {certified.caller.name}")

    async def _find_refusal(self, method: str, message: Any, certified: Certified) -> Refusal | None:
        loop, serial = asyncio.get_running_loop(), certified.serial
        faults = await self._faults.of(serial)
        if serial in faults:
            fault = faults[serial]
        else:
            fault = await loop.run_in_executor(self._threads, self._register.find_fault, serial)
        if fault is not None:
            return fault
        judge = partial(self._judge, method, message, certified.caller)
        reads = reads_ledger(method) or method in ASKING
        return await loop.run_in_executor(self._threads, judge) if reads else judge()

    def _judge(self, method: str, message: Any, caller: Caller) -> Refusal | None:
        return may_call(method, message, caller, self._addressed) or may_ask(method, caller, self._register.duties)

    def _find_faults(self, serials: Sequence[str]) -> list[Mapping[str, Refusal | None]]:
        return [self._register.find_faults(frozenset(serials))] * len(serials)

    async def _refuse(self, context: Any, method: str, caller: Caller | None, refusal: Refusal) -> None:
        self._refusals.add(refusal.cause)
        # Neither the message nor the reason for a revocation, which people write: either may hold a patient's name.
        who = "nobody known" if caller is None else f"{caller.role} {caller.name}"
        _log.warning("refused %s to %s: %s", method, who, refusal.cause)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal.reason)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        seen: tuple[int, str] | None = None
        while not self._stopped.is_set():
            try:
                ended = await loop.run_in_executor(self._threads, self._register.progress)
            except ServiceUnavailable as error:
                _log.warning("%s", error)
            else:
                if seen is not None and (ended[0] < seen[0] or ended[1] < seen[1]):
                    # The ledger went back to a copy.
                    await self._recover()
                if seen is not None and ended != seen:
                    self._changed.set()
                    # Whoever waited for it asks the register by itself.
                    self._changed = asyncio.Event()
                seen = ended
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), POLL_SECONDS)

    async def _recover(self) -> None:
        try:
            lost = await asyncio.get_running_loop().run_in_executor(self._threads, self._register.recover)
        except FedmunkeyError as error:
            _log.error("what the ledger has lost of its members cannot be brought back: %s", error)
        else:
            _log.warning("the ledger went back to a copy, and had lost what became of %s", ", ".join(lost) or "nobody")


def caller_of(context: Any) -> Caller:
    """Return whom the certificate at the other end names, whether it is good or not.

    Raises `InvalidIdentity` if there is none.
    """
    return certified_by(context.auth_context().get("x509_pem_cert", [b""])[0]).caller


def serial_of_caller(context: Any) -> str:
    """Return the serial of the certificate at the other end; raises `InvalidIdentity` if there is none."""
    return certified_by(context.auth_context().get("x509_pem_cert", [b""])[0]).serial

"""How much of the deletion service each member gets, so that one member's flood leaves the others alone.

An interceptor stands before all methods, and before it is known what is asked: a message is counted by its size before
it is read, and what is too large for its method, or more than its sender may have, is not read at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.service.budgets import Allowance, Budgets
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES, RETRY_AFTER
from fedmunkey.server.members.admission import caller_of

CALLS = Allowance(at_once=500, a_second=50)
"""Calls of one member."""

RECORDS = Allowance(at_once=10 * MAXIMUM_REFERENCES, a_second=MAXIMUM_REFERENCES)
"""Records that requests of one member name: ten of the largest at once, and one in each second."""

CALLS_AT_ONCE = 4
"""Calls of one member that are answered at the same time; half of the service's readers are left to others."""

LARGE_AT_ONCE = 1
"""Calls of one member with a large message: reading one keeps others from what they do."""

_LARGE = 256 * 2**10
STREAMS = 8
"""Streams of orders that one member may follow at the same time; its agent needs one."""

_REFERENCE_BYTES = 34
_SMALL = 64 * 2**10
_LARGEST = {
    # The references of the largest request, and a signature.
    "Submit": MAXIMUM_REFERENCES * _REFERENCE_BYTES + 2**20 + _SMALL,
    "Acknowledge": 2 * 2**20,
    "AcknowledgeAll": 16 * 2**20,
    "GetLogHead": 2**20,
}
"""Bytes of the largest message of a method; others take `_SMALL` ones."""

LARGEST_MESSAGE = max(_LARGEST.values())
"""Bytes of the largest message that is taken at all."""

_Handler = Any
_Act = Callable[[Any, Any], Awaitable[Any]]
_Flow = Callable[[Any, Any], AsyncIterator[Any]]


class Rations(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before the services with some full names, before every other interceptor; used within one event loop.

    Callers without a certificate, where none is asked for, are bounded by the size of their messages alone.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._prefixes = tuple(f"/{name}/" for name in services)
        self._calls, self._records = Budgets(CALLS), Budgets(RECORDS)
        self._under_way: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[_Handler]], handler_call_details: Any
    ) -> _Handler:
        """Put the counting before a method's handler, which is given what it has read."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefixes):
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        read = handler.request_deserializer
        write = handler.response_serializer
        if handler.response_streaming:
            flow = self._flow(method, read, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(flow, response_serializer=write)
        return grpc.unary_unary_rpc_method_handler(
            self._call(method, read, handler.unary_unary), response_serializer=write
        )

    def _call(self, method: str, read: Callable[[bytes], Any], act: _Act) -> _Act:
        async def counted(data: bytes, context: Any) -> Any:
            """Answer a call, or send it away while as many of its member's are under way as may be."""
            who = _member(context)
            if who and self._under_way[who] >= CALLS_AT_ONCE:
                await _send_away(context, f"at most {CALLS_AT_ONCE} calls of one member are answered at once", 1.0)
            large = f"{who}, large" if who and len(data) > _LARGE else ""
            if large and self._under_way[large] >= LARGE_AT_ONCE:
                await _send_away(context, "large requests of one member are answered one after the other", 1.0)
            with _counted(self._under_way, who), _counted(self._under_way, large):
                return await act(await self._take(method, read, data, who, context), context)

        return counted

    def _flow(self, method: str, read: Callable[[bytes], Any], flow: _Flow) -> _Flow:
        async def counted(data: bytes, context: Any) -> AsyncIterator[Any]:
            """Follow a stream, or send it away while its member follows as many as it may."""
            who = _member(context)
            if who and self._streams[who] >= STREAMS:
                await _send_away(context, f"one member follows at most {STREAMS} streams of orders; end some", None)
            with _counted(self._streams, who):
                responses = flow(await self._take(method, read, data, who, context), context)
                try:
                    async for response in responses:
                        yield response
                finally:
                    await responses.aclose()  # type: ignore[attr-defined]

        return counted

    async def _take(self, method: str, read: Callable[[bytes], Any] | None, data: bytes, who: str, context: Any) -> Any:
        """Return a message once it is known to be small enough and paid for; end the RPC otherwise."""
        most = _LARGEST.get(method, _SMALL)
        if len(data) > most:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"a message of {len(data)} bytes; {method} takes at most {most}"
            )
        if who:
            wait = self._calls.spend(who)
            if not wait and method == "Submit":
                wait = self._records.spend(who, len(data) / _REFERENCE_BYTES)
            if wait:
                await _send_away(context, "this member has asked for more than its share", wait)
        if read is None:
            return data
        try:
            return read(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"what was sent is no message of {method}")


def _member(context: Any) -> str:
    try:
        caller = caller_of(context)
    except InvalidIdentity:
        # Whether that is allowed is decided by whoever stands behind.
        return ""
    return f"{caller.role} {caller.name}"


@contextmanager
def _counted(counts: Counter[str], who: str) -> Iterator[None]:
    counts[who] += 1
    try:
        yield
    finally:
        counts[who] -= 1
        if not counts[who]:
            del counts[who]


async def _send_away(context: Any, why: str, seconds: float | None) -> None:
    when = "" if seconds is None else f"; try again in {seconds:.1f} seconds"
    if seconds is not None:
        context.set_trailing_metadata(((RETRY_AFTER, f"{1000 * seconds:.0f}"),))
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{why}{when}")

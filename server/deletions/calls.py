"""Between gRPC's messages and the deletion service: one method for each call, all in the event loop of a server.

What touches the ledger never blocks the loop: writes go to the ledger's own thread, reads and large messages to others.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from fedmunkey.common.deletions.listing import Moved
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, DeletionRequest
from fedmunkey.common.errors import DeletionHeld, InvalidDeletion, RefusedContributions, ServiceUnavailable
from fedmunkey.common.failpoints import Failpoint, hit, is_armed
from fedmunkey.common.service.call_errors import ending
from fedmunkey.common.service.listing_wire import (
    found_to_wire,
    overview_to_wire,
    query_from_wire,
    site_query_from_wire,
    sites_to_wire,
)
from fedmunkey.common.service.wire import (
    MESSAGE_BYTES,
    acknowledgement_from_wire,
    acknowledgement_to_wire,
    held_to_wire,
    log_update_to_wire,
    move_to_wire,
    need_to_wire,
    order_to_wire,
    release_from_wire,
    request_from_wire,
    status_to_wire,
    writing,
)
from fedmunkey.protos import deletion_pb2, deletion_pb2_grpc
from fedmunkey.server.connections.together import Together
from fedmunkey.server.deletions.completions import Completions
from fedmunkey.server.deletions.ledger_service import MOST_ORDERS, LedgerService, News
from fedmunkey.server.deletions.move_streams import MoveStreams
from fedmunkey.server.deletions.order_streams import OrderStream, OrderStreams
from fedmunkey.server.deletions.presence import Presence

DEFAULT_PAGE = 100

_LARGE_MESSAGE_BYTES = 256 * 2**10
_READERS = 8
# Few, so that requests with many records leave the machine to those with few.
_LARGE_AT_ONCE = 2
_NOTE_SECONDS = 0.5
_FEW_ANSWERS = 4
"""A call with more answers is not checked together with others, which would wait for it."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class DeletionServicer(deletion_pb2_grpc.DeletionServicer):
    """Answers calls; made, used and stopped within one event loop."""

    def __init__(self, service: LedgerService, presence: Presence) -> None:
        self._service = service
        self._presence = presence
        self._streams = OrderStreams()
        self._moves = MoveStreams(self._last_event)
        self._completions = Completions()
        self._stopping = False
        self._delivered: list[tuple[str, int]] = []
        self._written = _Written()
        self._readers = ThreadPoolExecutor(_READERS, "ledger-reader")
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, "large-request")
        # A round's hook may take long and call the service itself.
        self._rounds = ThreadPoolExecutor(thread_name_prefix="round")
        self._acknowledging = Together(self._readers, service.acknowledge_calls_soon)

    def hear(self, news: News) -> None:
        """Tell the streams that it concerns, and all of them if the service is closed."""
        self._streams.spread(news)
        if self._service.closed:
            self._streams.wake_all()

    def stop(self) -> None:
        """End every stream that is being followed."""
        self._stopping = True
        self._moves.stop()
        self._streams.wake_all()

    def close(self) -> None:
        """Wait for what is under way in threads; no call may come any more."""
        for executor in (self._readers, self._large, self._rounds):
            executor.shutdown()
        self._write_notes()

    async def Submit(self, message: deletion_pb2.SubmitRequest, context: Any) -> Any:  # noqa: N802
        """Write a request to the ledger."""
        if message.ByteSize() > _LARGE_MESSAGE_BYTES:

            def submit() -> deletion_pb2.SubmitResponse:
                try:
                    status = self._service.submit(request_from_wire(message.request))
                except DeletionHeld as held:
                    return held_to_wire(held)
                return deletion_pb2.SubmitResponse(status=status_to_wire(status))

            return await self._in_thread(context, self._large, submit)

        async def submit_soon() -> deletion_pb2.SubmitResponse:
            request = request_from_wire(message.request)
            begun = await self._begin([request], lambda: self._service.submit_soon(request))
            try:
                status = await self._completions.of(begun)
            except DeletionHeld as held:
                return held_to_wire(held)
            return deletion_pb2.SubmitResponse(status=status_to_wire(status))

        return await _answer(context, submit_soon)

    async def Get(self, message: deletion_pb2.GetRequest, context: Any) -> Any:  # noqa: N802
        """Tell one request's status."""
        status = await self._in_thread(
            context, self._readers, lambda: status_to_wire(self._service.get(message.request_id))
        )
        return deletion_pb2.GetResponse(status=status)

    async def Instruct(self, message: deletion_pb2.InstructRequest, context: Any) -> Any:  # noqa: N802
        """Enter an instruction."""
        await self._in_thread(context, self._readers, lambda: self._service.instruct(message.document))
        return deletion_pb2.InstructResponse()

    async def GetInstructions(self, message: deletion_pb2.GetInstructionsRequest, context: Any) -> Any:  # noqa: N802
        """Tell instructions."""
        found = await self._in_thread(
            context, self._readers, lambda: self._service.instructions(message.after, message.digest)
        )
        return deletion_pb2.GetInstructionsResponse(
            instructions=[
                deletion_pb2.NumberedInstruction(number=number, document=document) for number, document in found
            ]
        )

    async def List(self, message: deletion_pb2.ListRequest, context: Any) -> Any:  # noqa: N802
        """Tell a page of requests."""
        return await self._in_thread(context, self._readers, lambda: _list(self._service, message))

    async def History(self, message: deletion_pb2.HistoryRequest, context: Any) -> Any:  # noqa: N802
        """Tell what happened to a request."""
        moves = await self._in_thread(
            context, self._readers, lambda: [move_to_wire(move) for move in self._service.history(message.request_id)]
        )
        return deletion_pb2.HistoryResponse(moves=moves)

    async def Find(self, message: deletion_pb2.FindRequest, context: Any) -> Any:  # noqa: N802
        """Tell a page of a list of requests."""
        return await self._in_thread(
            context, self._readers, lambda: found_to_wire(self._service.find(query_from_wire(message)))
        )

    async def ListSites(self, message: deletion_pb2.ListSitesRequest, context: Any) -> Any:  # noqa: N802
        """Tell a page of the sites."""
        return await self._in_thread(
            context, self._readers, lambda: sites_to_wire(self._service.sites(site_query_from_wire(message)))
        )

    async def GetOverview(self, message: deletion_pb2.GetOverviewRequest, context: Any) -> Any:  # noqa: N802
        """Tell counts."""
        return await self._in_thread(
            context, self._readers, lambda: overview_to_wire(self._service.overview(message.reader))
        )

    async def Follow(  # noqa: N802
        self, message: deletion_pb2.FollowRequest, context: Any
    ) -> AsyncIterator[deletion_pb2.FollowResponse]:
        """Send what moves."""
        ledger = self._service.ledger

        async def read(after: int) -> tuple[Moved, ...]:
            return await self._in_thread(context, self._readers, lambda: ledger.moves_after(message.reader, after))

        try:
            async for moved in self._moves.follow(message.after, read):
                yield deletion_pb2.FollowResponse(event=moved.event, request_id=moved.request_id)
        except ServiceUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the deletion service is stopping")

    async def Acknowledge(self, message: deletion_pb2.AcknowledgeRequest, context: Any) -> Any:  # noqa: N802
        """Write a site's answer."""
        await self._acknowledge([message.acknowledgement], context)
        return deletion_pb2.AcknowledgeResponse()

    async def AcknowledgeAll(self, message: deletion_pb2.AcknowledgeAllRequest, context: Any) -> Any:  # noqa: N802
        """Write several answers together."""
        await self._acknowledge(message.acknowledgements, context)
        return deletion_pb2.AcknowledgeAllResponse()

    async def OpenRound(self, message: deletion_pb2.OpenRoundRequest, context: Any) -> Any:  # noqa: N802
        """Begin a round."""
        pending = await self._in_thread(context, self._rounds, lambda: self._service.open_round(message.round))
        return deletion_pb2.OpenRoundResponse(pending_orders=pending)

    async def NoteRelease(self, message: deletion_pb2.NoteReleaseRequest, context: Any) -> Any:  # noqa: N802
        """Write down what was solved for."""
        released = release_from_wire(message)

        def note() -> Mapping[str, str]:
            try:
                self._service.note_release(released)
            except RefusedContributions as refused:
                return refused.faults
            return {}

        return deletion_pb2.NoteReleaseResponse(refused=await self._in_thread(context, self._rounds, note))

    async def NoteGivenOut(self, message: deletion_pb2.NoteGivenOutRequest, context: Any) -> Any:  # noqa: N802
        """Note who has taken a release over."""
        lacking = await self._in_thread(
            context, self._rounds, lambda: self._service.note_given_out(message.digest, tuple(message.sites))
        )
        return deletion_pb2.NoteGivenOutResponse(lacking=lacking)

    async def GetRenewal(self, message: deletion_pb2.GetRenewalRequest, context: Any) -> Any:  # noqa: ARG002, N802
        """Tell what is owed."""
        return await self._in_thread(context, self._readers, lambda: need_to_wire(self._service.renewal_need()))

    async def GetLogHead(self, message: deletion_pb2.GetLogHeadRequest, context: Any) -> Any:  # noqa: N802
        """Show the head of the transparency log."""
        return await self._in_thread(
            context,
            self._readers,
            lambda: log_update_to_wire(self._service.log_update(message.seen_size, message.leaves)),
        )

    async def GetCertificate(self, message: deletion_pb2.GetCertificateRequest, context: Any) -> Any:  # noqa: N802
        """Give a request's certificate."""
        made = await self._in_thread(context, self._readers, lambda: self._service.certificate(message.request_id))
        return deletion_pb2.GetCertificateResponse(certificate=made)

    async def Recall(self, message: deletion_pb2.RecallRequest, context: Any) -> Any:  # noqa: N802
        """Take back a site's receipts."""
        await self._in_thread(context, self._readers, lambda: self._service.recall(message.site, message.receipts))
        return deletion_pb2.RecallResponse()

    async def GetRecalled(self, message: deletion_pb2.GetRecalledRequest, context: Any) -> Any:  # noqa: N802
        """Tell what sites have given back for a request."""
        receipts = await self._in_thread(
            context, self._readers, lambda: self._service.recalled(message.request_id, message.site)
        )
        return deletion_pb2.GetRecalledResponse(receipts=receipts)

    async def Watch(  # noqa: N802
        self, message: deletion_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[deletion_pb2.WatchResponse]:
        """Send a site's orders."""
        site = message.site
        await self._in_thread(
            context, self._readers, lambda: self._service.check_position(site, message.after, message.chain)
        )
        with self._streams.following(site) as stream:
            if message.follow:
                self._presence.connect(site)
            try:
                async for response in self._send(message, stream, context):
                    yield response
            finally:
                if message.follow:
                    self._presence.disconnect(site)

    async def _last_event(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._service.ledger.last_event)

    async def _send(
        self, message: deletion_pb2.WatchRequest, stream: OrderStream, context: Any
    ) -> AsyncIterator[deletion_pb2.WatchResponse]:
        site, after = message.site, message.after
        for number in await self._unanswered(message, context):
            read = functools.partial(self._service.ledger.order, site, number)
            order = await self._in_thread(context, self._readers, read)
            if order is not None:
                yield self._written.response(order)
        behind = True
        while True:
            # Read from the ledger until there is no more. What is written from then on is offered to the stream.
            orders = stream.take(site, after) if not behind else await self._read(context, site, after)
            for order in orders:
                if is_armed():
                    await self._in_thread(context, self._readers, lambda: hit(Failpoint.DISPATCH_BEFORE_SEND))
                yield self._written.response(order)
                after = order.number
                self._note(site, after)
            behind = bool(orders) if behind else stream.is_behind(after)
            if behind:
                continue
            if not message.follow:
                return
            if self._stopping or self._service.closed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the deletion service is stopping")
            await self._wait(stream, site, context)

    async def _wait(self, stream: OrderStream, site: str, context: Any) -> None:
        """Wait for an order, or end the stream if the site has left or the ledger is another one."""
        await stream.wait()
        if stream.replaced:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger was replaced by a copy; connect again")
        if stream.left:
            stream.left = False
            await self._in_thread(context, self._readers, lambda: self._service.check_position(site, 0))

    async def _unanswered(self, message: deletion_pb2.WatchRequest, context: Any) -> Sequence[int]:
        """Return the orders that the site has applied and the ledger has no answer to: it may have lost it."""
        if not message.chain:
            return ()
        ledger = self._service.ledger
        return await self._in_thread(context, self._readers, lambda: ledger.unanswered(message.site, message.after))

    async def _read(self, context: Any, site: str, after: int) -> Sequence[DeletionOrder]:
        def read() -> Sequence[DeletionOrder]:
            hit(Failpoint.DISPATCH_BEFORE_READ)
            return self._service.ledger.orders(site, after, MOST_ORDERS)

        return await self._in_thread(context, self._readers, read)

    async def _acknowledge(self, messages: Iterable[deletion_pb2.Acknowledgement], context: Any) -> None:
        async def acknowledge() -> None:
            answers = [acknowledgement_from_wire(message) for message in messages]
            futures = await self._begin_writing(answers)
            outcomes = list(map(self._completions.of, futures))
            if len(outcomes) > 1:
                # Whatever becomes of one, the others are waited for.
                await asyncio.wait(outcomes)
            for outcome in outcomes:
                await outcome

        await _answer(context, acknowledge)

    async def _begin_writing(self, answers: Sequence[Acknowledgement]) -> list[Future[None]]:
        """Begin to write a call's answers; receipts of calls that come at the same moment are checked together."""
        if len(answers) > _FEW_ANSWERS:
            return await self._begin(answers, lambda: self._service.acknowledge_all_soon(answers))
        if not any(map(self._service.checks, answers)):
            return self._service.acknowledge_all_soon(answers)
        outcome = await self._acknowledging.of(answers)
        if isinstance(outcome, InvalidDeletion):
            raise outcome
        return outcome

    def _note(self, site: str, number: int) -> None:
        """Have it written, with what else was sent within a moment, that an order is on its way."""
        if not self._delivered:
            asyncio.get_running_loop().call_later(_NOTE_SECONDS, self._write_notes)
        self._delivered.append((site, number))

    def _write_notes(self) -> None:
        notes, self._delivered = self._delivered, []
        if not notes:
            return
        try:
            self._service.ledger.note_delivered(notes)
        except ServiceUnavailable as error:
            # The orders are pending still; that they were sent is lost, as it is when a process is killed.
            _log.warning("%s", error)

    async def _begin(self, said: Sequence[DeletionRequest | Acknowledgement], call: Callable[[], _Result]) -> _Result:
        """Begin a write, in a thread if signatures are checked first."""
        if not any(map(self._service.checks, said)):
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def _in_thread(self, context: Any, executor: Executor, call: Callable[[], _Result]) -> _Result:
        return await _answer(context, lambda: asyncio.get_running_loop().run_in_executor(executor, call))


class _Written:
    """Writes orders; that of the last request is kept, for the same goes out to every site."""

    def __init__(self) -> None:
        self._request: DeletionRequest | None = None
        self._order = deletion_pb2.DeletionOrder()

    def response(self, order: DeletionOrder) -> deletion_pb2.WatchResponse:
        """Return an order as one message of a stream."""
        if order.request is not self._request:
            self._request, self._order = order.request, order_to_wire(order)
        with writing("an order"):
            self._order.number, self._order.site = order.number, order.site
        self._order.ClearField("answer")
        if order.answer is not None:
            self._order.answer.CopyFrom(acknowledgement_to_wire(order.answer))
        return deletion_pb2.WatchResponse(order=self._order)


async def _answer(context: Any, call: Callable[[], Awaitable[_Result]]) -> _Result:
    """Await a call; end the RPC with a status and one line if it fails."""
    try:
        return await call()
    except Exception as error:
        await context.abort(*ending(error, "deletion service"))
    raise AssertionError("abort raises")


def _list(service: LedgerService, message: deletion_pb2.ListRequest) -> deletion_pb2.ListResponse:
    """Make a page of as many requests as were asked for, or fewer so that it fits into one message."""
    size = message.page_size or DEFAULT_PAGE
    while True:
        found = service.page(message.page_token, size, late=message.late)
        answer = deletion_pb2.ListResponse(
            statuses=[status_to_wire(status) for status in found.statuses], next_page_token=found.next_page
        )
        if answer.ByteSize() <= MESSAGE_BYTES or len(found.statuses) == 1:
            return answer
        size = len(found.statuses) // 2

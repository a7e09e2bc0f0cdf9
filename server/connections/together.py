"""What many calls ask for at the same moment, done together: one look at the database, not one for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

MOST_TOGETHER = 128
"""Calls that are answered together, so that the first of them does not wait for long."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Together(Generic[_Item, _Result]):
    """Has a function act on what calls bring, in one thread at a time; used within one event loop.

    A call that comes alone is acted on at once. What comes while the function is at work waits and is acted on
    together, at most `MOST_TOGETHER` at a time, in the order in which it came: nothing that was true before a call came
    is told to it. `act` returns a result for each item, in their order.
    """

    def __init__(self, executor: Executor, act: Callable[[Sequence[_Item]], Sequence[_Result]]) -> None:
        self._executor = executor
        self._act = act
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._at_work = False

    async def of(self, item: _Item) -> _Result:
        """Return what the function makes of an item; raises what it raises."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Result] = loop.create_future()
        self._waiting.append((item, outcome))
        if not self._at_work:
            self._at_work = True
            # After all that the loop has to do by now, which may bring more.
            loop.call_soon(self._begin)
        return await outcome

    def _begin(self) -> None:
        taken, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        outcomes = [outcome for _, outcome in taken]
        try:
            working = asyncio.get_running_loop().run_in_executor(self._executor, self._act, [item for item, _ in taken])
        except RuntimeError as error:
            # No call comes any more.
            self._fail(outcomes, error)
            self._go_on()
        else:
            working.add_done_callback(partial(self._end, outcomes))

    def _end(self, outcomes: Sequence[asyncio.Future[_Result]], working: asyncio.Future[Sequence[_Result]]) -> None:
        if (error := working.exception()) is not None:
            self._fail(outcomes, error)
        else:
            for outcome, result in zip(outcomes, working.result(), strict=True):
                # Who has gone meanwhile, hears nothing.
                if not outcome.done():
                    outcome.set_result(result)
        self._go_on()

    def _fail(self, outcomes: Sequence[asyncio.Future[_Result]], error: BaseException) -> None:
        for outcome in outcomes:
            if not outcome.done():
                outcome.set_exception(error)

    def _go_on(self) -> None:
        self._at_work = bool(self._waiting)
        if self._at_work:
            self._begin()

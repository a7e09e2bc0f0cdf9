"""Calls that come at the same moment are acted on together, and each hears what became of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedmunkey.server.connections.together import MOST_TOGETHER, Together


def test_what_comes_while_others_are_acted_on_is_acted_on_together_and_in_order() -> None:
    acted: list[list[int]] = []
    first, going_on = threading.Event(), threading.Event()

    def double(items: Sequence[int]) -> list[int]:
        acted.append(list(items))
        if len(acted) == 1:
            first.set()
            going_on.wait(30)
        return [2 * item for item in items]

    async def ask() -> list[int]:
        together = Together(pool, double)
        alone = asyncio.create_task(together.of(0))
        await asyncio.to_thread(first.wait, 30)
        others = [asyncio.create_task(together.of(item)) for item in range(1, 2 * MOST_TOGETHER)]
        await asyncio.sleep(0)
        going_on.set()
        return list(await asyncio.gather(alone, *others))

    with ThreadPoolExecutor(2) as pool:
        found = asyncio.run(ask())

    assert found == [2 * item for item in range(2 * MOST_TOGETHER)]
    assert acted == [[0], list(range(1, MOST_TOGETHER + 1)), list(range(MOST_TOGETHER + 1, 2 * MOST_TOGETHER))]


def test_a_fault_is_told_to_everybody_whom_it_concerns_and_to_nobody_after_them() -> None:
    faults = [ValueError("the ledger is away")]

    def act(items: Sequence[str]) -> Sequence[str]:
        if faults:
            raise faults.pop()
        return items

    async def ask() -> tuple[list[object], str]:
        together = Together(pool, act)
        failed = await asyncio.gather(*map(together.of, "ab"), return_exceptions=True)
        return list(failed), await together.of("c")

    with ThreadPoolExecutor(1) as pool:
        failed, after = asyncio.run(ask())

    assert [str(error) for error in failed] == ["the ledger is away"] * 2
    assert after == "c"


def test_who_gives_up_waiting_keeps_nobody_else_waiting() -> None:
    async def ask() -> list[int]:
        together: Together[int, int] = Together(pool, lambda items: items)
        gone = asyncio.create_task(together.of(1))
        there = asyncio.create_task(together.of(2))
        await asyncio.sleep(0)
        gone.cancel()
        return [await there, await together.of(3)]

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(ask()) == [2, 3]


def test_nobody_waits_for_threads_that_are_gone() -> None:
    async def ask() -> None:
        together: Together[int, int] = Together(pool, lambda items: items)
        pool.shutdown()
        with pytest.raises(RuntimeError):
            await together.of(1)

    pool = ThreadPoolExecutor(1)
    asyncio.run(ask())

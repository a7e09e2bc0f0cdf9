"""Orders that come while others are applied are taken together, and no more of them than can be held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, WholeSite
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.service.deletion_service import MOST_TOGETHER
from fedmunkey.common.service.order_reader import OrderReader
from tests.patience import PATIENCE


def order(number: int) -> DeletionOrder:
    return DeletionOrder(number, "site", DeletionRequest(f"request-{number}", "site", WholeSite("site")))


class Stream:
    """Gives orders without end once it may; `asked` has the number of each that was asked for."""

    def __init__(self, size: int = 1, last: int = 10**6, fault: Exception | None = None) -> None:
        self.asked: SimpleQueue[int] = SimpleQueue()
        self._size, self._last, self._fault = size, last, fault

    def __iter__(self) -> Iterator[tuple[DeletionOrder, int]]:
        for number in range(1, self._last + 1):
            self.asked.put(number)
            yield order(number), self._size
        if self._fault is not None:
            raise self._fault

    def wait_for(self, number: int) -> None:
        while self.asked.get(timeout=PATIENCE) < number:
            pass


def test_all_that_has_come_is_taken_together() -> None:
    stream = Stream()
    reader = OrderReader(iter(stream))
    # The reader asks for one more, which it cannot hold.
    stream.wait_for(MOST_TOGETHER + 1)

    assert [found.number for found in reader.take()] == list(range(1, MOST_TOGETHER + 1))
    stream.wait_for(2 * MOST_TOGETHER + 1)
    assert [found.number for found in reader.take()] == list(range(MOST_TOGETHER + 1, 2 * MOST_TOGETHER + 1))
    reader.close()


def test_large_orders_are_held_by_their_bytes() -> None:
    stream = Stream(size=3 * 2**20)
    reader = OrderReader(iter(stream))
    stream.wait_for(3)

    assert [found.number for found in reader.take()] == [1, 2]
    reader.close()


def taken_of(reader: OrderReader) -> Iterator[int]:
    while taken := reader.take():
        yield from (found.number for found in taken)


def test_end_comes_after_all_orders() -> None:
    reader = OrderReader(iter(Stream(last=3)))

    assert list(taken_of(reader)) == [1, 2, 3]
    assert reader.take() == []
    reader.close()


def test_fault_comes_after_all_orders() -> None:
    reader = OrderReader(iter(Stream(last=2, fault=InvalidDeletion("a part is missing"))))
    numbers = taken_of(reader)

    assert [next(numbers), next(numbers)] == [1, 2]
    with pytest.raises(InvalidDeletion, match="a part is missing"):
        next(numbers)
    reader.close()


def test_reader_that_is_closed_leaves_no_thread() -> None:
    before = threading.active_count()
    stream = Stream()
    reader = OrderReader(iter(stream))
    stream.wait_for(MOST_TOGETHER + 1)

    reader.close()

    assert threading.active_count() == before

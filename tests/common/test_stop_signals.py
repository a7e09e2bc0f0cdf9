"""A program that waits hears that it is to stop, whichever of its threads the signal comes to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.service.order_reader import OrderReader
from fedmunkey.common.stop_signals import StopAsked, stopped_by_signals


@pytest.fixture
def signalled() -> Iterator[Callable[[signal.Signals], None]]:
    """Send a signal to a thread that is not the main one, whose waiting is then not interrupted."""
    threads: list[threading.Thread] = []

    def send(number: signal.Signals) -> None:
        thread = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), number))
        threads.append(thread)
        thread.start()

    yield send
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_program_hears_a_signal_to_another_thread(
    signalled: Callable[[signal.Signals], None], number: signal.Signals
) -> None:
    asked = StopAsked()

    with stopped_by_signals(asked.ask):
        signalled(number)
        asked.wait()


def test_reader_of_orders_hears_a_signal_to_another_thread(signalled: Callable[[signal.Signals], None]) -> None:
    ended = threading.Event()

    def stream() -> Iterator[tuple[DeletionOrder, int]]:
        ended.wait()
        yield from ()

    with stopped_by_signals(ended.set):
        reader = OrderReader(stream())
        signalled(signal.SIGTERM)

        assert reader.take() == []

    reader.close()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with stopped_by_signals(StopAsked().ask):
        pass

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

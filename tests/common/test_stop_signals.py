"""A program that waits hears that it is to stop, whichever of its threads the signal comes to."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.service.order_reader import OrderReader
from fedmunkey.common.stop_signals import StopAsked, stop_event, stopped_by_signals


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


def test_event_is_set_by_a_signal_that_comes_while_the_main_thread_holds_its_lock() -> None:
    ended: list[bool] = []

    with stop_event(lambda: ended.append(True)) as stop:
        # What `wait` holds while it looks; a handler that set the event itself would wait for it for ever.
        with stop._cond:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)

    assert ended == [True]


def test_event_is_waited_for_as_long_as_was_asked() -> None:
    with stop_event() as stop:
        assert not stop.wait(0.01)
        assert not stop.is_set()
    assert stop.is_set()


def test_no_program_sets_an_event_in_a_handler() -> None:
    root = Path(__file__).parents[2]
    sources = [file for part in ("client", "common", "server", "simulations") for file in (root / part).rglob("*.py")]

    assert len(sources) > 100
    assert [file.name for file in sources if re.search(r"stopped_by_signals\([\w.]+\.set\)", file.read_text())] == []

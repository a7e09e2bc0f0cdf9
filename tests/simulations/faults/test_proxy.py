from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults.proxy import CLEAR, Conditions, Proxy
from tests.closed_port import closed_port
from tests.patience import PATIENCE

SITE = "hospital-1"


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a service that sends back what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=[connection], daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@pytest.fixture
def proxy(echo: str) -> Iterator[Proxy]:
    with Proxy(echo) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(split_address(proxy.address), timeout=PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def exchange(connection: socket.socket, sent: bytes) -> bytes:
    connection.sendall(sent)
    received = b""
    while len(received) < len(sent) and (more := connection.recv(65_536)):
        received += more
    return received


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other end closes a connection, in order or not, instead of sending anything."""
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


def test_what_is_sent_arrives_unchanged_both_ways(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 1000

    with connect(proxy) as one, connect(proxy) as other:
        assert exchange(one, sent) == sent
        assert exchange(other, b"another") == b"another"


def test_end_of_what_is_sent_is_passed_on(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"the last")
        connection.shutdown(socket.SHUT_WR)

        assert connection.recv(100) == b"the last"
        assert connection.recv(100) == b""


def test_cut_resets_open_connections_and_lets_others_be_made(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        exchange(connection, b"hello")
        proxy.cut()

        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    with connect(proxy) as again:
        assert exchange(again, b"hello") == b"hello"


def test_connection_that_has_just_ended_keeps_no_other_from_being_cut(proxy: Proxy) -> None:
    ended = socket.socket()
    ended.close()
    with connect(proxy) as connection:
        exchange(connection, b"hello")
        proxy._writers.add(Mock(get_extra_info=lambda _: ended))

        proxy.cut()

        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_black_hole_holds_back_what_is_sent_until_it_ends(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        exchange(connection, b"before")
        proxy.set(Conditions(black_hole=True))
        connection.sendall(b"in it")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)

        proxy.set(CLEAR)

        connection.settimeout(PATIENCE)
        assert connection.recv(100) == b"in it"


def test_delay_and_throttle_take_their_time(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.set(Conditions(delay=0.05))
        began = time.monotonic()
        exchange(connection, b"hello")
        delayed = time.monotonic() - began
        proxy.set(Conditions(bytes_per_second=100_000))
        began = time.monotonic()
        exchange(connection, bytes(20_000))
        throttled = time.monotonic() - began

    assert delayed >= 0.1
    assert throttled >= 0.2


def test_refusing_proxy_closes_connections_at_once(proxy: Proxy) -> None:
    proxy.set(Conditions(refusing=True))

    with connect(proxy) as connection:
        assert is_closed(connection)


def test_connection_to_a_service_that_is_down_is_closed() -> None:
    with closed_port() as port, Proxy(f"127.0.0.1:{port}") as proxy, connect(proxy) as connection:
        assert is_closed(connection)


def test_silent_peer_is_given_up_after_the_keepalive(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        DeletionServer(LedgerService(ledger)) as server,
        Proxy(server.address) as proxy,
        DeletionChannel(proxy.address, keepalive=0.5) as channel,
    ):
        ledger.register(SITE)
        assert channel.open_round(1) == 0
        swallow = threading.Timer(0.3, lambda: proxy.set(Conditions(black_hole=True)))
        swallow.start()

        with pytest.raises(ServiceUnavailable, match="cannot be reached"):
            next(channel.watch(SITE, 0, follow=True))

        swallow.join()

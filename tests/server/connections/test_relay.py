"""Connections before a gRPC server: few strangers at once, none for long, and members as long as they like."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import grpc
import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.server.connections.listening import listen
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.relay import Relay
from tests.patience import PATIENCE

_METHOD = "/test.Echo/Say"


class Echo:
    """A gRPC server behind a relay, which says whose a connection is where the caller says that it is a member."""

    def __init__(self, places: Places) -> None:
        self.relay = Relay(listen("127.0.0.1", 0), places)
        self.origins: list[str] = []
        self.threads = ThreadPoolExecutor(4)
        self.server = grpc.server(self.threads, options=[("grpc.max_receive_message_length", 32 * 2**20)])
        handlers = {"Say": grpc.unary_unary_rpc_method_handler(self.say)}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.relay.port}"

    def say(self, message: bytes, context: Any) -> bytes:
        self.origins.append(self.relay.origin(context.peer()))
        if message.startswith(b"member"):
            self.relay.introduce(context.peer(), "hospital-1")
        return message

    def call(self, channel: grpc.Channel, message: bytes) -> bytes:
        return bytes(channel.unary_unary(_METHOD)(message, timeout=PATIENCE))


@contextmanager
def echo(places: Places) -> Iterator[Echo]:
    running = Echo(places)
    running.server.start()
    running.relay.start(running.port)
    try:
        yield running
    finally:
        running.server.stop(0).wait()
        running.relay.stop()
        running.threads.shutdown()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(connection: socket.socket) -> bool:
    """Say whether the other side has ended a connection that heard nothing."""
    connection.settimeout(0.0)
    with suppress(BlockingIOError):
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
    return False


def test_what_is_said_is_handed_on_whole_and_its_origin_is_known() -> None:
    message = bytes(range(256)) * 40_000
    with (
        echo(Places()) as running,
        grpc.insecure_channel(running.address, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        assert running.call(channel, message) == message
        assert running.origins == ["127.0.0.1"]


def test_strangers_go_and_a_member_stays() -> None:
    places = Places(strangers=4, each=4, seconds=60.0)
    with echo(places) as running, ExitStack() as stack, grpc.insecure_channel(running.address) as channel:
        running.call(channel, b"member")
        address = ("127.0.0.1", running.relay.port)
        held = [stack.enter_context(socket.create_connection(address)) for _ in range(30)]
        for connection in held[::2]:
            connection.sendall(b"half of something")
        wait_until(lambda: sum(map(gone, held)) >= 26)
        assert len(places) <= 5
        assert running.call(channel, b"again") == b"again"


def test_stranger_that_does_not_say_who_it_is_goes_after_its_time() -> None:
    places = Places(seconds=0.2)
    with echo(places) as running, socket.create_connection(("127.0.0.1", running.relay.port)) as connection:
        wait_until(lambda: gone(connection))
        wait_until(lambda: len(places) == 0)


def test_nothing_reaches_the_server_before_somebody_says_something() -> None:
    taken = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as behind:
        relay = Relay(listen("127.0.0.1", 0), Places(seconds=60.0))
        relay.start(behind.getsockname()[1])
        behind.settimeout(PATIENCE)

        def accept() -> None:
            behind.accept()[0].close()
            taken.set()

        accepting = threading.Thread(target=accept)
        accepting.start()
        with socket.create_connection(("127.0.0.1", relay.port)) as silent:
            with socket.create_connection(("127.0.0.1", relay.port)) as talking:
                # The silent one came first, and would have been taken first.
                assert not taken.is_set()
                talking.sendall(b"hello")
                assert taken.wait(PATIENCE)
                wait_until(lambda: gone(talking))
            assert not gone(silent)
        accepting.join()
        relay.stop()


def test_connections_end_with_the_relay() -> None:
    with echo(Places(seconds=60.0)) as running:
        with socket.create_connection(("127.0.0.1", running.relay.port)) as connection:
            running.relay.stop()
            wait_until(lambda: gone(connection))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.relay.port))


def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=f"127.0.0.1:{port} .*in use.*--joining-address"):
            listen("127.0.0.1", port, "--joining-address")

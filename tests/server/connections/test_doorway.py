from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from fedmunkey.common.identities import Identity
from fedmunkey.server.connections.doorway import Doorway
from fedmunkey.server.connections.places import Places
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder


class Ended:
    """Which connections were ended."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    def of(self, port: int) -> Callable[[], None]:
        return lambda: self.ports.append(port)


def test_oldest_stranger_of_an_address_goes_first() -> None:
    async def scene() -> list[int]:
        places, ended = Places(strangers=10, each=2), Ended()
        for port in range(4):
            places.take(("192.0.2.1", port), ended.of(port))
        places.take(("192.0.2.2", 9), ended.of(9))
        assert len(places) == 3
        return ended.ports

    assert asyncio.run(scene()) == [0, 1]


def test_strangers_of_many_addresses_are_few_as_well() -> None:
    async def scene() -> list[int]:
        places, ended = Places(strangers=3, each=2), Ended()
        for port in range(5):
            places.take((f"192.0.2.{port}", port), ended.of(port))
        return ended.ports

    assert asyncio.run(scene()) == [0, 1]


def test_strangers_time_ends_and_that_of_a_site_does_not() -> None:
    async def scene() -> list[int]:
        places, ended = Places(seconds=0.05), Ended()
        for port in range(3):
            places.take(("192.0.2.1", port), ended.of(port))
        places.introduce(("192.0.2.1", 1), "hospital-1")
        places.leave(("192.0.2.1", 2))
        while not ended.ports:
            await asyncio.sleep(0.01)
        assert len(places) == 1
        return ended.ports

    assert asyncio.run(scene()) == [0]


def test_flood_of_strangers_ends_no_connection_of_a_site() -> None:
    async def scene() -> list[int]:
        places, ended = Places(strangers=4, each=4, member=2), Ended()
        for port in range(3):
            places.take(("192.0.2.1", port), ended.of(port))
            places.introduce(("192.0.2.1", port), "hospital-1")
        for port in range(100, 200):
            places.take(("192.0.2.1", port), ended.of(port))
        return ended.ports

    ended = asyncio.run(scene())
    # The site's third connection took the place of its first.
    assert ended[0] == 0
    assert ended[1:] == list(range(100, 196))


class Greeting(asyncio.Protocol):
    """Says a word to whoever has got through the handshake."""

    def __init__(self, left: Callable[[], None]) -> None:
        self._left = left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"welcome")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._left()


def with_doorway(tmp_path: Path, places: Places, scene: Callable[[int, ssl.SSLContext], Awaitable[None]]) -> None:
    """Run a scene before a doorway whose port it is given, with how its certificate is known."""
    folder = CoordinatorFolder(tmp_path / "coordinator")
    folder.create("test federation", ["127.0.0.1"])
    identity = Identity.read(folder.identity)

    async def run() -> None:
        encryption = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        encryption.load_cert_chain(identity.certificate_file, identity.key_file)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            doorway = Doorway(listening, encryption, Greeting, places)
            doorway.open()
            await scene(listening.getsockname()[1], ssl.create_default_context(cafile=identity.ca_file))
            doorway.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_site_gets_in_while_strangers_hold_all_places(tmp_path: Path) -> None:
    places = Places(strangers=8, each=8, seconds=0.5)

    async def scene(port: int, known: ssl.SSLContext) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=known)
        assert await reader.readexactly(7) == b"welcome"
        assert len(places) <= 8
        # All of it is freed although nobody goes by itself.
        while len(places):
            await asyncio.sleep(0.05)
        for _, other in [*held, (reader, writer)]:
            other.transport.abort()

    with_doorway(tmp_path, places, scene)


def test_what_is_no_handshake_frees_its_place(tmp_path: Path) -> None:
    places = Places(seconds=60.0)

    async def scene(port: int, known: ssl.SSLContext) -> None:
        del known
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await reader.read()
        while len(places):
            await asyncio.sleep(0.01)
        writer.close()

    with_doorway(tmp_path, places, scene)

"""What strangers can make a coordinator spend: bodies, connections and guesses of somebody whom nobody has invited."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import grpc
import numpy as np

from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.words import DeletionRequest, Records
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.protos import membership_pb2
from fedmunkey.protos.membership_pb2_grpc import JoiningStub
from fedmunkey.simulations.bench.coordinator_processes import SITE, RunningCoordinator, running_coordinator
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most

_PORTS = {"superlink": "SuperLink", "joining": "joining", "deletions": "deletion service"}
_FLOOD = {
    "superlink": "1 GiB, 500 half-open connections, 500 half headers",
    "joining": "1 GiB, 500 half-open connections, 10,000 wrong tokens",
    "deletions": "1 GiB, 500 half-open connections",
}


@dataclass(frozen=True)
class _PortFigures:
    """What is measured of one port while strangers flood it."""

    growth: Figure
    held: Figure
    times: tuple[Figure, ...]
    slower: Figure

    @classmethod
    def of(cls, port: str) -> _PortFigures:
        """Return the figures of a port by its name."""
        name, flood = _PORTS[port], _FLOOD[port]

        def milliseconds(key: str, quantile: str, when: str) -> Figure:
            return Figure(f"strangers-{port}-{key}", f"{name}: {quantile} of a deletion's time, {when}", "ms")

        return cls(
            Figure(f"strangers-{port}-memory", f"{name}: {flood}: growth of the process", "MiB", at_most(20.0)),
            Figure(f"strangers-{port}-held", f"{name}: connections still held 10 s later", "", at_most(0.0)),
            (
                milliseconds("p50-alone", "median", "alone"),
                milliseconds("p50", "median", "meanwhile"),
                milliseconds("p99-alone", "99th percentile", "alone"),
                milliseconds("p99", "99th percentile", "meanwhile"),
            ),
            Figure(f"strangers-{port}-slower", f"{name}: 99th percentile meanwhile, of that alone", "x", at_most(2.0)),
        )

    def all(self) -> tuple[Figure, ...]:
        """Return them in the order of the table."""
        return (self.growth, self.held, *self.times, self.slower)


_FIGURES = {port: _PortFigures.of(port) for port in _PORTS}

_MIB = 2**20
_PAUSE = 0.01
_FREED_SECONDS = 10.0
_PATIENCE_SECONDS = 120.0
"""How long one deletion may take on a machine that has much else to do."""

_THREADS = 8
_HELLO = bytes.fromhex("16030100ff")
"""How a TLS handshake begins that does not go on."""

_POST = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True)
class _Sizes:
    body: int = 2**30
    connections: int = 500
    tokens: int = 10_000
    calm_seconds: float = 15.0
    freed_seconds: float = _FREED_SECONDS


@dataclass
class _Watched:
    """Deletions that a site asks for meanwhile, and what each process has at most."""

    coordinator: RunningCoordinator
    seconds: list[float] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Ask for one deletion after the other."""
        with DeletionChannel(self.coordinator.deletions, identity=self.coordinator.site) as channel:
            for number in range(10**9):
                target = Records(frozenset([number.to_bytes(REFERENCE_BYTES, "big")]), SITE)
                start = time.perf_counter()
                channel.submit(DeletionRequest(f"request-{number}", SITE, target))
                self.seconds.append(time.perf_counter() - start)
                if self._stop.wait(_PAUSE):
                    return

    def look(self) -> None:
        """Look at the memory of each process."""
        while not self._stop.wait(_PAUSE):
            for name, taken in self.coordinator.memory().items():
                self.most[name] = max(taken, self.most.get(name, 0))

    def count(self, at_least: int) -> int:
        """Return how many deletions there are by now, once there are so many and the memory was looked at."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while (len(self.seconds) < at_least or not self.most) and time.monotonic() < end:
            time.sleep(_PAUSE)
        return len(self.seconds)

    def stop(self) -> None:
        """End both."""
        self._stop.set()


Attack = Callable[[ExitStack], None]


def attacks(coordinator: RunningCoordinator, sizes: _Sizes) -> dict[str, dict[str, Attack]]:
    """Return what strangers do, by port and name; connections that they leave half-open are closed with the stack."""
    addresses = {
        "superlink": coordinator.superlink,
        "joining": coordinator.joining,
        "deletions": coordinator.deletions,
    }
    found = {port: _at(address, sizes) for port, address in addresses.items()}
    found["superlink"]["half a header"] = lambda stack: _hold_encrypted(stack, coordinator.superlink, sizes.connections)
    found["joining"]["tokens"] = lambda _: _guess(coordinator, sizes.tokens)
    return found


def _at(address: str, sizes: _Sizes) -> dict[str, Attack]:
    return {
        "body": lambda _: _send(address, sizes.body),
        "silent": lambda stack: _hold(stack, address, sizes.connections, None),
        "half a handshake": lambda stack: _hold(stack, address, sizes.connections, _HELLO),
    }


def _send(address: str, size: int) -> None:
    """Send a body over TLS for as long as somebody reads it."""
    with suppress(OSError), _encrypted(address) as connection:
        connection.sendall(_POST % size)
        for _ in range(size // _MIB):
            connection.sendall(bytes(_MIB))


def _hold(stack: ExitStack, address: str, count: int, said: bytes | None) -> None:
    for _ in range(count):
        with suppress(OSError):
            connection = stack.enter_context(socket.create_connection(split_address(address), timeout=5.0))
            if said is not None:
                connection.sendall(said)


def _hold_encrypted(stack: ExitStack, address: str, count: int) -> None:
    for _ in range(count):
        with suppress(OSError):
            stack.enter_context(_encrypted(address)).sendall(_POST[:40])


def _encrypted(address: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A stranger does not mind whom it talks to.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(split_address(address), timeout=5.0))


def _guess(coordinator: RunningCoordinator, tokens: int) -> None:
    """Try to join with tokens that are none, over some connections at once."""
    credentials = grpc.ssl_channel_credentials(coordinator.site.ca_file.read_bytes())

    def guess() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(coordinator.joining, credentials, options=options) as channel:
            stub = JoiningStub(channel)  # type: ignore[no-untyped-call]
            for _ in range(tokens // _THREADS):
                with suppress(grpc.RpcError):
                    stub.Join(membership_pb2.JoinRequest(token=os.urandom(32), name="x", role="site"), timeout=20.0)

    threads = [threading.Thread(target=guess) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _measure(bench: Bench) -> Iterator[Measured]:
    sizes = _Sizes(16 * _MIB, 50, 200, calm_seconds=0.5, freed_seconds=0.2) if bench.quick else _Sizes()
    with bench.folder() as folder, running_coordinator(folder) as coordinator:
        watched = _Watched(coordinator)
        threads = [threading.Thread(target=work, daemon=True) for work in (watched.ask, watched.look)]
        for thread in threads:
            thread.start()
        # Once each for nothing: what is loaded and allocated the first time is no growth.
        for at_port in attacks(coordinator, _Sizes(_MIB, 20, 40)).values():
            for attack in at_port.values():
                with ExitStack() as stack:
                    attack(stack)
        time.sleep(sizes.freed_seconds)
        planned = attacks(coordinator, sizes)
        with bench.progress.counting("strangers", sum(map(len, planned.values()))) as count:
            seen = {port: _endure(watched, of_port, sizes, count) for port, of_port in planned.items()}
        watched.stop()
        for thread in threads:
            thread.join()
    for port, found in seen.items():
        yield from _results(bench, _FIGURES[port], found)


@dataclass
class _Seen:
    """Seconds of deletions without and with strangers; by attack, MiB and sockets beyond those of before."""

    calm: list[float]
    during: list[float] = field(default_factory=list)
    grown: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


def _endure(watched: _Watched, planned: dict[str, Attack], sizes: _Sizes, count: Callable[[int], object]) -> _Seen:
    coordinator = watched.coordinator
    watched.seconds.clear()
    time.sleep(sizes.calm_seconds)
    seen = _Seen(calm=watched.seconds[: watched.count(1)])
    before, open_before = coordinator.memory(), coordinator.connections()
    for name, attack in planned.items():
        watched.most.clear()
        first = len(watched.seconds)
        with ExitStack() as stack:
            attack(stack)
            # Strangers still hold their ends.
            time.sleep(sizes.freed_seconds)
            seen.during += watched.seconds[first : watched.count(first + 1)]
            seen.held[name] = coordinator.connections() - open_before
        seen.grown[name] = max(most - before[process] for process, most in watched.most.items()) / _MIB
        count(1)
    return seen


def _results(bench: Bench, figures: _PortFigures, seen: _Seen) -> Iterator[Measured]:
    worst = max(seen.grown, key=lambda name: seen.grown[name])
    yield bench.result(figures.growth, seen.grown[worst], f"most by {worst}", growth_mib=seen.grown)
    if bench.quick:
        yield Measured.missing(figures.held, "strangers have 8 s, and are not waited for here")
    else:
        yield bench.result(figures.held, max(seen.held.values()), held=seen.held)
    times = [
        1000 * float(np.quantile(seconds, quantile)) for quantile in (0.5, 0.99) for seconds in (seen.calm, seen.during)
    ]
    for figure, value, seconds in zip(figures.times, times, [seen.calm, seen.during] * 2, strict=True):
        yield bench.result(figure, value, f"{len(seconds)} deletions")
    yield bench.result(figures.slower, times[3] / times[2])


GROUP = Group("strangers", tuple(figure for port in _PORTS for figure in _FIGURES[port].all()), _measure)

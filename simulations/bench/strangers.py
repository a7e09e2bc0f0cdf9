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

_GROWTH = Figure(
    "strangers-memory",
    "1 GiB, 500 half-open connections and 10,000 wrong tokens of strangers: growth of the process that grows most",
    "MiB",
    at_most(20.0),
)
_SLOWER = Figure("strangers-p99", "the same: 99th percentile of a deletion's time, of that before", "x", at_most(2.0))
_HELD = Figure("strangers-held", "the same, 10 s after each: connections that are still held", "", at_most(0.0))

_MIB = 2**20
_PAUSE = 0.01
_FREED_SECONDS = 10.0
_PATIENCE_SECONDS = 120.0
_THREADS = 8
_HELLO = bytes.fromhex("16030100ff")
"""How a TLS handshake begins that does not go on."""

_POST = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True)
class _Sizes:
    body: int = 2**30
    connections: int = 500
    tokens: int = 10_000
    calm_seconds: float = 20.0
    during_seconds: float = 1.0
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

    def count(self, at_least: int = 1) -> int:
        """Return how many deletions there are by now, once there are some: the machine may have much else to do."""
        _wait_until(lambda: len(self.seconds) >= at_least)
        return len(self.seconds)

    def stop(self) -> None:
        """End both."""
        self._stop.set()


def attacks(coordinator: RunningCoordinator, sizes: _Sizes) -> dict[str, Callable[[ExitStack], None]]:
    """Return what strangers do, by name; connections that they leave half-open are closed with the stack."""
    ports = {
        "superlink": coordinator.superlink,
        "joining": coordinator.joining,
        "deletions": coordinator.deletions,
    }
    found: dict[str, Callable[[ExitStack], None]] = {}
    for name, address in ports.items():
        found[f"body to {name}"] = lambda _, at=address: _send(at, sizes.body)  # type: ignore[misc]
        for how, words in (("silent", None), ("half a handshake", _HELLO)):
            found[f"{how} at {name}"] = lambda stack, at=address, say=words: _hold(  # type: ignore[misc]
                stack, at, sizes.connections, say
            )
    found["half a header at superlink"] = lambda stack: _hold_encrypted(stack, coordinator.superlink, sizes.connections)
    found["tokens"] = lambda _: _guess(coordinator, sizes.tokens)
    return found


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
    sizes = _Sizes(16 * _MIB, 50, 200, 1.0, 0.1, 0.1) if bench.quick else _Sizes()
    with bench.folder() as folder, running_coordinator(folder) as coordinator:
        watched = _Watched(coordinator)
        threads = [threading.Thread(target=work, daemon=True) for work in (watched.ask, watched.look)]
        for thread in threads:
            thread.start()
        # Once each for nothing: what is loaded and allocated the first time is no growth.
        for attack in attacks(coordinator, _Sizes(_MIB, 20, 40)).values():
            with ExitStack() as stack:
                attack(stack)
        time.sleep(sizes.freed_seconds)
        seen = _endure(bench, watched, sizes)
        watched.stop()
        for thread in threads:
            thread.join()
    worst = max(seen.grown, key=lambda name: seen.grown[name])
    calm, tail = (float(np.quantile(seconds, 0.99)) for seconds in (seen.calm, seen.during))
    note = f"{1000 * calm:.0f} to {1000 * tail:.0f} ms, {len(seen.during)} deletions"
    yield bench.result(_GROWTH, seen.grown[worst], f"most by {worst}", growth_mib=seen.grown)
    yield bench.result(_SLOWER, tail / calm, note)
    yield bench.result(_HELD, max(seen.held.values()), held=seen.held)


@dataclass
class _Seen:
    """Seconds of deletions without and with strangers; by attack, MiB and sockets beyond those of before."""

    calm: list[float]
    during: list[float] = field(default_factory=list)
    grown: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


def _endure(bench: Bench, watched: _Watched, sizes: _Sizes) -> _Seen:
    coordinator, planned = watched.coordinator, attacks(watched.coordinator, sizes)
    watched.seconds.clear()
    time.sleep(sizes.calm_seconds)
    seen = _Seen(calm=watched.seconds[: watched.count()])
    before, open_before = coordinator.memory(), coordinator.connections()
    with bench.progress.counting("strangers", len(planned)) as count:
        for name, attack in planned.items():
            watched.most.clear()
            first = len(watched.seconds)
            with ExitStack() as stack:
                attack(stack)
                time.sleep(sizes.during_seconds)
                seen.during += watched.seconds[first : watched.count(first + 1)]
                time.sleep(sizes.freed_seconds - sizes.during_seconds)
                _wait_until(lambda: bool(watched.most))
                if not bench.quick:
                    # Strangers still hold their ends.
                    seen.held[name] = coordinator.connections() - open_before
            seen.grown[name] = max(most - before[process] for process, most in watched.most.items()) / _MIB
            count(1)
    if bench.quick:
        _wait_until(lambda: coordinator.connections() <= open_before)
        seen.held["all of them"] = coordinator.connections() - open_before
    return seen


def _wait_until(so: Callable[[], bool]) -> None:
    """Wait until something is so, but not for good."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while not so() and time.monotonic() < end:
        time.sleep(_PAUSE)


GROUP = Group("strangers", (_GROWTH, _SLOWER, _HELD), _measure)

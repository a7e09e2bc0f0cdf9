"""How long each screen of each console takes in front of a large ledger, and whether memory stays over many clicks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from fedmunkey.simulations.bench.consoles.faces import EVIDENCE, FaceUnderLoad, running_faces
from fedmunkey.simulations.bench.consoles.large_federation import LargeFederation, Size
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most, below

_TITLE = "100,000 requests and 1,000 sites: the median of a screen, the slowest of"
_FACES = {
    "operator": Figure("console-operator", f"{_TITLE} the coordinator's console", "ms", below(300.0)),
    "member": Figure("console-member", f"{_TITLE} what an officer sees there over mutual TLS", "ms", below(300.0)),
    "officer": Figure("console-officer", f"{_TITLE} the officer's own console", "ms", below(300.0)),
}
_FIRST_LOOK = Figure(
    "console-first-evidence",
    "a certificate with 1,000 receipts, looked at for the first time: made, checked and shown, the slowest face",
    "s",
)
_SERVER_MEMORY = Figure(
    "console-memory",
    "an hour of clicks in a minute: memory of the coordinator's console at the end, of that after a sixth",
    "x",
    at_most(1.1),
)
_CLIENT_MEMORY = Figure("console-memory-officer", "the same: the officer's own console", "x", at_most(1.1))

_CLICKS = 1200
"""One each three seconds, for an hour."""

_MINUTE = 60.0


def _measure(bench: Bench) -> Iterator[Measured]:
    size = Size(300, 20) if bench.quick else Size(100_000, 1000)
    times = 3 if bench.quick else 15
    with bench.folder() as folder:
        with bench.progress.counting("filling the ledger", size.requests) as count:
            federation = LargeFederation.make(folder, size, count)
        with running_faces(federation, folder) as faces:
            screens = sum(len(face.screens) for face in faces)
            with bench.progress.counting("screens", screens * times) as count:
                # Before anything is kept of it.
                first = {face.name: face.click(face.screens[EVIDENCE]) for face in faces}
                for face in faces:
                    yield _measure_screens(bench, face, times, count)
            yield bench.result(_FIRST_LOOK, max(first.values()), "it is kept for a minute then", seconds=first)
            clicks = _CLICKS // 20 if bench.quick else _CLICKS
            with bench.progress.counting("clicks", 2 * clicks) as count:
                yield _measure_memory(bench, _SERVER_MEMORY, faces[:2], clicks, count)
                yield _measure_memory(bench, _CLIENT_MEMORY, faces[2:], clicks, count)


def _measure_screens(bench: Bench, face: FaceUnderLoad, times: int, count: Callable[[int], None]) -> Measured:
    medians = {}
    for name, path in face.screens.items():
        # What is read once and kept, such as templates, weeks that are over and a certificate, is read before.
        face.click(path)
        medians[name] = 1000 * float(np.median([face.click(path) for _ in range(times)]))
        count(times)
    slowest = max(medians, key=lambda name: medians[name])
    others = ", ".join(f"{name} {medians[name]:.0f}" for name in sorted(medians, key=lambda name: -medians[name])[1:4])
    note = f"{slowest}; then {others}; {len(medians)} screens, {times} times each"
    return bench.result(_FACES[face.name], medians[slowest], note, medians_ms=medians)


def _measure_memory(
    bench: Bench, figure: Figure, faces: Sequence[FaceUnderLoad], clicks: int, count: Callable[[int], None]
) -> Measured:
    """Click through all screens of some faces of one process, one after the other, at an even pace."""
    paths = cycle([(face, path) for face in faces for path in face.screens.values()])
    begun, memory = time.perf_counter(), []
    for number, (face, path) in enumerate(islice(paths, clicks)):
        face.click(path)
        memory.append(face.memory())
        count(1)
        time.sleep(max(0.0, begun + (number + 1) * _MINUTE / _CLICKS - time.perf_counter()))
    early, late = memory[len(memory) // 6], memory[-1]
    seconds = time.perf_counter() - begun
    note = f"{early / 2**20:.0f} to {late / 2**20:.0f} MiB, {clicks} clicks in {seconds:.0f} s"
    return bench.result(figure, late / early, note, memory_bytes=memory[:: max(1, clicks // 60)])


GROUP = Group("console", (*_FACES.values(), _FIRST_LOOK, _SERVER_MEMORY, _CLIENT_MEMORY), _measure)

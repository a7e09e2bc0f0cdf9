"""Deletions from a site that holds a million entries: the commit, the erasure, the memory that they take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.failpoints import Armed, Failpoint, FailpointPlan, arm
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.memory import resident_memory
from fedmunkey.simulations.bench.synthetic_store import SyntheticStore, delete_subject

_COMMIT = Figure(
    "million-entries-commit",
    "one subject of a site with 1,000,000 entries: until its deletion is committed",
    "ms",
    at_most(5.0),
)
_ERASED = Figure(
    "million-entries-erased", "the same: until no file of the site holds the bytes, the slowest", "s", at_most(2.0)
)
_RESIDUE = Figure(
    "million-entries-residue", "the same: subjects of whom bytes were found in a search of all files", "", at_most(0.0)
)
_MEMORY = Figure(
    "million-entries-memory",
    "the same: memory of the process after the deletions, of that after the first",
    "x",
    at_most(1.1),
)

_RECORDS_OF_A_SUBJECT = 5
_KEY_SIZE, _EXEMPLAR_SIZE = 64, 32


class _Stopwatch(Armed):
    """Looks at the clock when a deletion comes by its commit; a failpoint does nothing else here."""

    def __init__(self) -> None:
        super().__init__(FailpointPlan())
        self.started = self.to_commit = 0.0

    def hit(self, point: Failpoint) -> None:
        """Note the seconds since the deletion was started."""
        if point is Failpoint.APPLY_AFTER_COMMIT:
            self.to_commit = time.perf_counter() - self.started


def _measure(bench: Bench) -> Iterator[Measured]:
    size, deletions, searched = (400, 3, 1) if bench.quick else (1_000_000, 51, 3)
    secret = FederationSecret.generate()
    with bench.folder() as folder:
        path = folder / "keystore.sqlite"
        filled = SyntheticStore.of_patches(
            size, key_size=_KEY_SIZE, records_of_a_subject=_RECORDS_OF_A_SUBJECT, exemplar_size=_EXEMPLAR_SIZE
        )
        with bench.progress.counting("filling the key store", size) as count:
            filled.write(path, secret, count)
        # What the filling has still to write must not make the deletions wait.
        os.sync()
        with KeyStore.open(path) as store, _timed() as watch:
            seconds = np.empty((deletions, 2))
            memory: list[int] = []
            with bench.progress.counting("deleting subjects", deletions) as count:
                for row in range(deletions):
                    watch.started = time.perf_counter()
                    to_answer = delete_subject(store, row + 1, secret, _RECORDS_OF_A_SUBJECT)
                    seconds[row] = watch.to_commit, to_answer
                    memory.append(resident_memory(os.getpid()))
                    count(1)
            with bench.progress.counting("searching all files", searched) as count:
                found = 0
                for row in range(searched):
                    found += not store.orders.check_erasure(deletions - row, [folder]).erased
                    count(1)
        size_on_disk = sum(file.stat().st_size for file in folder.iterdir())
    # The first deletion reads what the others find in memory.
    commit, erased = 1000 * seconds[1:, 0], seconds[1:, 1]
    about = f"{size:,} entries of keys of {_KEY_SIZE} and tokens of {_EXEMPLAR_SIZE} numbers, encrypted"
    note = f"median of {len(commit)} subjects with {_RECORDS_OF_A_SUBJECT} records; {about}"
    slowest = {"slowest": float(commit.max()), "p95": float(np.quantile(commit, 0.95))}
    yield bench.result(_COMMIT, float(np.median(commit)), note, bytes_on_disk=size_on_disk, **slowest)
    erasure = f"median {np.median(erased):.3f} s; keys destroyed, pages overwritten, log emptied, answer signed off"
    yield bench.result(_ERASED, float(erased.max()), erasure)
    yield bench.result(_RESIDUE, found, f"{searched} subjects, {size_on_disk / 2**20:,.0f} MiB searched for each")
    spent = f"{memory[0] / 2**20:.0f} to {memory[-1] / 2**20:.0f} MiB"
    yield bench.result(_MEMORY, memory[-1] / memory[0], spent, memory_bytes=memory)


@contextmanager
def _timed() -> Iterator[_Stopwatch]:
    watch = _Stopwatch()
    arm(watch)
    try:
        yield watch
    finally:
        arm(None)


GROUP = Group("million-entries", (_COMMIT, _ERASED, _RESIDUE, _MEMORY), _measure)

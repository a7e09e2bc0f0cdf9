"""Deletions from a site that holds a million entries: the commit, the erasure, the memory that they take."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from client.key_store import KeyStore
from common.deletion import DATA_PROTECTION_OFFICER, DeletionOrder, DeletionRequest, Subject
from common.failpoints import Armed, Failpoint, Plan, arm
from common.references import FederationSecret
from simulations.bench.figure import Bench, Figure, Group, Relation, Result, Target
from simulations.bench.memory import resident_memory
from simulations.bench.synthetic_store import SITE, SyntheticStore, subject_name

_COMMIT = Figure(
    "million-entries-commit",
    "one subject of a site with 1,000,000 entries: until its deletion is committed",
    "ms",
    Target(Relation.AT_MOST, 5.0),
)
_ERASED = Figure(
    "million-entries-erased",
    "the same: until no file of the site holds the bytes, the slowest",
    "s",
    Target(Relation.AT_MOST, 2.0),
)
_RESIDUE = Figure(
    "million-entries-residue",
    "the same: subjects of whom bytes were found in a search of all files",
    "",
    Target(Relation.AT_MOST, 0.0),
)
_MEMORY = Figure(
    "million-entries-memory",
    "the same: memory of the process after the deletions, of that after the first",
    "x",
    Target(Relation.AT_MOST, 1.1),
)

_RECORDS_OF_A_SUBJECT = 5
_KEY_SIZE, _EXEMPLAR_SIZE = 64, 32


class _Stopwatch(Armed):
    """Looks at the clock when a deletion comes by its commit; a failpoint does nothing else here."""

    def __init__(self) -> None:
        super().__init__(Plan())
        self.committed = 0.0

    def hit(self, point: Failpoint) -> None:
        """Note the time."""
        if point is Failpoint.APPLY_AFTER_COMMIT:
            self.committed = time.perf_counter()


def _measure(bench: Bench) -> Iterator[Result]:
    size, deletions, searched = (400, 3, 1) if bench.quick else (1_000_000, 51, 3)
    secret = FederationSecret.generate()
    with tempfile.TemporaryDirectory(prefix="fedmunkey-bench-") as folder:
        path = Path(folder) / "keystore.sqlite"
        with bench.progress.counting("filling the key store", size) as count:
            _synthetic(size).write(path, secret, count)
        # What the filling has still to write must not make the deletions wait.
        os.sync()
        with KeyStore.open(path) as store, _timed() as watch:
            seconds = np.empty((deletions, 2))
            memory: list[int] = []
            with bench.progress.counting("deleting subjects", deletions) as count:
                for row in range(deletions):
                    seconds[row] = _delete(store, row + 1, secret, watch)
                    memory.append(resident_memory(os.getpid()))
                    count(1)
            with bench.progress.counting("searching all files", searched) as count:
                found = sum(_holds_bytes(store, deletions - row, path.parent, count) for row in range(searched))
        size_on_disk = sum(file.stat().st_size for file in path.parent.iterdir())
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


def _delete(store: KeyStore, number: int, secret: FederationSecret, watch: _Stopwatch) -> tuple[float, float]:
    """Delete a subject; return the seconds until the commit, and until the answer may be given."""
    target = Subject(secret.reference(subject_name(number)))
    order = DeletionOrder(number, SITE, DeletionRequest(f"bench-{number}", DATA_PROTECTION_OFFICER, target))
    start = time.perf_counter()
    answer = store.orders.apply(order)
    end = time.perf_counter()
    if answer.entries != _RECORDS_OF_A_SUBJECT:
        raise AssertionError(f"{answer.entries} entries were deleted")
    return watch.committed - start, end - start


def _holds_bytes(store: KeyStore, number: int, folder: Path, count: Callable[[int], None]) -> bool:
    check = store.orders.check_erasure(number, [folder])
    count(1)
    return not check.erased


def _synthetic(records: int) -> SyntheticStore:
    return SyntheticStore.of_patches(
        records, key_size=_KEY_SIZE, records_of_a_subject=_RECORDS_OF_A_SUBJECT, exemplar_size=_EXEMPLAR_SIZE
    )


GROUP = Group("million-entries", (_COMMIT, _ERASED, _RESIDUE, _MEMORY), _measure)

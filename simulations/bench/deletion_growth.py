"""How the time to delete a subject's records grows with the size of the key store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from client.key_store import KeyStore
from common.deletion import DATA_PROTECTION_OFFICER, DeletionOrder, DeletionRequest, Subject
from common.references import FederationSecret
from simulations.bench.figure import Bench, Figure, Group, Relation, Result, Target
from simulations.bench.synthetic_store import SITE, SyntheticStore, subject_name

_GROWTH = Figure(
    "deletion-growth",
    "deletion of a subject's 5 records: slowest over fastest of key stores with 1,000 to 1,000,000 entries",
    "x",
    Target(Relation.BELOW, 2.0),
)
_SECONDS = Figure("deletion-seconds", "deletion of a subject's 5 records from the largest of these key stores", "s")

_RECORDS_OF_A_SUBJECT = 5
_KEY_SIZE = 64
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_QUICK_SIZES = (200, 400)


def _measure(bench: Bench) -> Iterator[Result]:
    """Delete one subject after another, from each of the stores in turn."""
    sizes, subjects = (_QUICK_SIZES, 4) if bench.quick else (_SIZES, 21)
    secret = FederationSecret.generate()
    with tempfile.TemporaryDirectory(prefix="fedmunkey-bench-") as folder, ExitStack() as stack:
        stores = []
        with bench.progress.counting("filling key stores", sum(sizes)) as count:
            for size in sizes:
                path = Path(folder) / f"{size}.sqlite"
                _synthetic(size).write(path, secret, count)
                stores.append(stack.enter_context(KeyStore.open(path)))
        with bench.progress.counting("deleting subjects", subjects) as count:
            seconds: list[list[float]] = []
            for number in range(1, subjects + 1):
                seconds.append(_delete(stores, number, secret))
                count(1)
    medians = np.median(seconds[1:], axis=0)
    note = (
        f"median of {subjects - 1} subjects, key stores in turn, log emptied; neighbours are random entries, "
        "because an exact search over the largest would take hours"
    )
    by_size = {str(size): float(median) for size, median in zip(sizes, medians, strict=True)}
    yield bench.result(_GROWTH, medians.max() / medians.min(), note, median_seconds=by_size)
    yield bench.result(_SECONDS, medians[-1], f"{sizes[-1]:,} entries", key_size=_KEY_SIZE)


def _synthetic(records: int) -> SyntheticStore:
    return SyntheticStore.of_patches(records, key_size=_KEY_SIZE, records_of_a_subject=_RECORDS_OF_A_SUBJECT)


def _delete(stores: Sequence[KeyStore], number: int, secret: FederationSecret) -> list[float]:
    """Delete a subject from every store and return the seconds that each took, emptying of its log included."""
    request = DeletionRequest(
        f"bench-{number}", DATA_PROTECTION_OFFICER, Subject(secret.reference(subject_name(number)))
    )
    seconds = []
    for store in stores:
        order = DeletionOrder(number, SITE, request)
        start = time.perf_counter()
        answer = store.orders.apply(order)
        seconds.append(time.perf_counter() - start)
        if answer.entries != _RECORDS_OF_A_SUBJECT:
            raise AssertionError(f"{answer.entries} entries were deleted")
    return seconds


GROUP = Group("deletion-growth", (_GROWTH, _SECONDS), _measure)

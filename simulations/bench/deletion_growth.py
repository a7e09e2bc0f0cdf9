"""How the time to delete a subject's records grows with the size of the key store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, below
from fedmunkey.simulations.bench.synthetic_store import SyntheticStore, delete_subject

_GROWTH = Figure(
    "deletion-growth",
    "deletion of a subject's 5 records: slowest over fastest of key stores with 1,000 to 1,000,000 entries",
    "x",
    below(2.0),
)
_SECONDS = Figure("deletion-seconds", "deletion of a subject's 5 records from the largest of these key stores", "s")

_RECORDS_OF_A_SUBJECT = 5
_KEY_SIZE = 64
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_QUICK_SIZES = (200, 400)


def _measure(bench: Bench) -> Iterator[Measured]:
    """Delete one subject after another, from each of the stores in turn."""
    sizes, subjects = (_QUICK_SIZES, 4) if bench.quick else (_SIZES, 21)
    secret = FederationSecret.generate()
    with bench.folder() as folder, ExitStack() as stack:
        stores = []
        with bench.progress.counting("filling key stores", sum(sizes)) as count:
            for size in sizes:
                path = folder / f"{size}.sqlite"
                filled = SyntheticStore.of_patches(size, key_size=_KEY_SIZE, records_of_a_subject=_RECORDS_OF_A_SUBJECT)
                filled.write(path, secret, count)
                stores.append(stack.enter_context(KeyStore.open(path)))
        with bench.progress.counting("deleting subjects", subjects) as count:
            seconds: list[list[float]] = []
            for number in range(1, subjects + 1):
                seconds.append([delete_subject(store, number, secret, _RECORDS_OF_A_SUBJECT) for store in stores])
                count(1)
    medians = np.median(seconds[1:], axis=0)
    note = (
        f"median of {subjects - 1} subjects, key stores in turn, log emptied; neighbours are random entries, "
        "because an exact search over the largest would take hours"
    )
    by_size = {str(size): float(median) for size, median in zip(sizes, medians, strict=True)}
    yield bench.result(_GROWTH, medians.max() / medians.min(), note, median_seconds=by_size)
    yield bench.result(_SECONDS, medians[-1], f"{sizes[-1]:,} entries", key_size=_KEY_SIZE)


GROUP = Group("deletion-growth", (_GROWTH, _SECONDS), _measure)

"""Memory of a site by the number of its records, on the frozen path."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_least, at_most
from fedmunkey.simulations.bench.memory import in_child
from fedmunkey.simulations.bench.site_process import STEPS, build_lists, train_site
from fedmunkey.simulations.bench.synthetic_store import SyntheticStore

_RECORD = Figure("site-memory", "memory of a site while it trains, frozen path, with each further record", "bytes")
_LINEAR = Figure(
    "site-memory-linear",
    "the same for 12,500 to 100,000 records: share of the variance that a straight line explains",
    "",
    at_least(0.99),
)
_PEAK = Figure("site-memory-peak", "memory of a site while it trains, frozen path, at the most records", "GiB")
_LISTS = Figure(
    "list-memory", "memory for building the neighbour lists of 100,000 records, keys included", "GiB", at_most(1.0)
)

_FEATURES = (2, 512)
_SIZES = (12_500, 25_000, 50_000, 100_000)
_QUICK_SIZES = (100, 200)


def _measure(bench: Bench) -> Iterator[Measured]:
    """Let a child process be the site, for each size; another one builds the lists of the largest."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    secret = FederationSecret.generate()
    peaks, stored = [], []
    with bench.folder() as folder:
        with bench.progress.counting("memory of a site", 2 * sum(sizes)) as count:
            for size in sizes:
                path = folder / f"{size}.sqlite"
                SyntheticStore.of_features(size, _FEATURES, lists=True).write(path, secret, count)
                peaks.append(in_child(train_site, path, count))
                stored.append(path.stat().st_size)
                path.unlink()
                count(size)
        with bench.progress.counting("building neighbour lists", 2 * sizes[-1]) as count:
            path = folder / "unlisted.sqlite"
            SyntheticStore.of_features(sizes[-1], _FEATURES, lists=False).write(path, secret, count)
            lists = in_child(build_lists, path, count)
    slope, constant = np.polyfit(sizes, peaks, 1)
    unexplained = np.var(np.array(peaks) - (slope * np.array(sizes) + constant)) / np.var(peaks)
    yield bench.result(
        _RECORD,
        slope,
        f"peak of a child process: bank read, {STEPS} steps, tokens written",
        peak_bytes=dict(zip(map(str, sizes), peaks, strict=True)),
        key_store_bytes=dict(zip(map(str, sizes), stored, strict=True)),
    )
    yield bench.result(_LINEAR, 1 - unexplained, f"{constant / 2**20:,.0f} MiB without any record")
    yield bench.result(_PEAK, peaks[-1] / 2**30, f"{sizes[-1]:,} records")
    note = "peak of a child process over its memory before; inputs and tokens are not read meanwhile"
    yield bench.result(_LISTS, lists / 2**30, note, keys_bytes=sizes[-1] * 4 * _FEATURES[0] * _FEATURES[1])


GROUP = Group("site-memory", (_RECORD, _LINEAR, _PEAK, _LISTS), _measure)

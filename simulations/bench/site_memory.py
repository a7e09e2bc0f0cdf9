"""Memory of a site by the number of its records, on the frozen path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from client.key_store import StoreDescription
from client.neighbour_index import SLACK
from common.references import FederationSecret
from common.settings import ImagePath, Settings
from simulations.bench.figure import Bench, Figure, Goal, Group, Relation, Result
from simulations.bench.memory import in_child
from simulations.bench.site_process import STEPS, build_lists, train_site
from simulations.bench.synthetic_store import SITE, SyntheticStore

_RECORD = Figure("site-memory", "memory of a site while it trains, frozen path, with each further record", "bytes")
_LINEAR = Figure(
    "site-memory-linear",
    "the same for 12,500 to 100,000 records: share of the variance that a straight line explains",
    "",
    Goal(Relation.AT_LEAST, 0.99),
)
_PEAK = Figure("site-memory-peak", "memory of a site while it trains, frozen path, at the most records", "GiB")
_LISTS = Figure(
    "list-memory",
    "memory for building the neighbour lists of 100,000 records, keys included",
    "GiB",
    Goal(Relation.AT_MOST, 1.0),
)

_FEATURES = (2, 512)
_KEY_SIZE = 1024
_SIZES = (12_500, 25_000, 50_000, 100_000)
_QUICK_SIZES = (100, 200)


def _measure(bench: Bench) -> Iterator[Result]:
    """Let a child process be the site, for each size; another one builds the lists of the largest."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    secret = FederationSecret.generate()
    peaks, stored = [], []
    with tempfile.TemporaryDirectory(prefix="fedmunkey-bench-") as folder:
        with bench.progress.counting("memory of a site", 2 * sum(sizes)) as count:
            for size in sizes:
                path = Path(folder) / f"{size}.sqlite"
                _synthetic(size, lists=True).write(path, secret, count)
                peaks.append(in_child(train_site, path, count))
                stored.append(path.stat().st_size)
                path.unlink()
                count(size)
        with bench.progress.counting("building neighbour lists", 2 * sizes[-1]) as count:
            path = Path(folder) / "unlisted.sqlite"
            _synthetic(sizes[-1], lists=False).write(path, secret, count)
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
    yield bench.result(_LISTS, lists / 2**30, note, keys_bytes=sizes[-1] * _KEY_SIZE * 4)


def _synthetic(records: int, *, lists: bool) -> SyntheticStore:
    settings = Settings()
    description = StoreDescription(
        site=SITE,
        encoder="synthetic",
        key_size=_KEY_SIZE,
        image_path=ImagePath.FROZEN,
        input_shape=_FEATURES,
        exemplar_size=settings.exemplar_size,
        list_length=settings.retrieved + SLACK,
        guarantee=settings.guarantee,
        epsilon=settings.epsilon,
        delta=settings.delta,
    )
    return SyntheticStore(description, records, subjects=records, lists=lists)


GROUP = Group("site-memory", (_RECORD, _LINEAR, _PEAK, _LISTS), _measure)

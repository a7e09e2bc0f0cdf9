"""Shared weights that are solved for: the sums, the masks over them, and the solution."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fedmunkey.common.closed_form.feature_map import FeatureMap, Numbers
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.masks import Participants
from fedmunkey.common.closed_form.solving import choose, left_out_weights, shared_weights, tally
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.identities.member_keys import public_bytes
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.memory import in_child, peak_memory, resident_memory
from fedmunkey.simulations.bench.timing import alternate, keep_freed_memory, ratio

_SUMS = Figure(
    "sums-time",
    "sums over 100,000 records of 1,025 numbers, over a plain float64 matrix product",
    "x",
    at_most(1.2),
)
_MEMORY = Figure(
    "sums-memory", "memory that sums over 100,000 records take, beyond their features", "MB", at_most(200.0)
)
_MASKED_BYTES = Figure("masks-bytes", "bytes of a contribution under masks of 5 sites, over without", "x", at_most(1.3))
_MASKED_TIME = Figure(
    "masks-time",
    "a contribution from 1,000 records' numbers to a message, under masks of 5 sites, over without",
    "x",
    at_most(1.5),
)
_SENT = Figure("contribution-bytes", "a contribution, over the features of one record", "records")
_SOLVING = Figure("solving-time", "solving for shared weights from sums, every ridge and fold", "s")

_MAP = FeatureMap((2, 512), 0)
_CLASSES = 5
_BLOCK = 2048
_SITES = 5
_FEATURE_BYTES = 2 * 512 * 4


def _measure(bench: Bench) -> Iterator[Measured]:
    """Take numbers of normal features, with one thread and processor time."""
    records, repetitions = (4_000, 2) if bench.quick else (100_000, 3)
    keep_freed_memory()
    with threadpool_limits(1), bench.progress.counting("closed form", 2 * repetitions + 2) as count:
        numbers, labels, folds = _records(records)

        def add_up() -> Sums:
            sums = Sums.zeros(_shape())
            for start in range(0, records, _BLOCK):
                some = slice(start, start + _BLOCK)
                sums.add(numbers[some], labels[some], folds[some])
            return sums

        product: list[Callable[[], object]] = [add_up, lambda: numbers.T @ numbers]
        found = ratio(alternate(product, repetitions, count, clock=time.process_time))
        note = f"{records:,} records in blocks of {_BLOCK:,} and {FOLDS} folds, 1 thread, processor time"
        yield bench.result(_SUMS, found.median, note, **found.to_json())
        more = in_child(_memory, records, lambda _: None)
        count(1)
        yield bench.result(_MEMORY, more / 1e6, f"{records:,} records, reading their features in blocks included")
        yield from _masks(bench, repetitions, count)
        few = slice(0, 4 * _BLOCK)
        yield _solving(bench, add_up(), numbers[few], labels[few], folds[few])
        count(1)


def _shape() -> SumsShape:
    return SumsShape(FOLDS, _MAP.size, _CLASSES)


def _records(count: int) -> tuple[Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers, labels and folds of records."""
    random = np.random.default_rng(0)
    numbers = np.empty((count, _MAP.size))
    for start in range(0, count, _BLOCK):
        rows = numbers[start : start + _BLOCK]
        rows[:] = _read(random, len(rows))
    return numbers, random.integers(_CLASSES, size=count), random.integers(FOLDS, size=count)


def _read(random: np.random.Generator, count: int) -> Numbers:
    features = random.standard_normal((count, *_MAP.features), dtype=np.float32)
    return _MAP.read(np.empty((count, 0), np.float32), features)


def _memory(records: int, _progress: Callable[[int], None]) -> int:
    """Add features up; return the most bytes that this took beyond what was there with them."""
    random = np.random.default_rng(0)
    features = random.standard_normal((records, *_MAP.features), dtype=np.float32)
    labels, folds = random.integers(_CLASSES, size=records), random.integers(FOLDS, size=records)
    before = resident_memory()
    sums = Sums.zeros(_shape())
    for start in range(0, records, _BLOCK):
        some = slice(start, start + _BLOCK)
        part = features[some]
        sums.add(_MAP.read(np.empty((len(part), 0), np.float32), part), labels[some], folds[some])
    return max(peak_memory() - before, 0)


def _masks(bench: Bench, repetitions: int, count: Callable[[int], None]) -> Iterator[Measured]:
    keys = {f"hospital-{number}": ec.generate_private_key(ec.SECP256R1()) for number in range(1, _SITES + 1)}
    participants = Participants("bench", {name: key.public_key() for name, key in keys.items()})
    name = next(iter(keys))
    numbers, labels, folds = _records(1000)

    def row() -> NDArray[np.uint64]:
        sums = Sums.zeros(_shape())
        sums.add(numbers, labels, folds)
        return sums.to_numbers()

    def masked() -> Array:
        return Array(row() + participants.mask(name, keys[name], "sums", _shape().length))

    actions: list[Callable[[], object]] = [masked, lambda: Array(row())]
    found = ratio(alternate(actions, repetitions, count, clock=time.process_time))
    plain = len(Array(row()).data)
    announced = len(json.dumps({one: public_bytes(key).hex() for one, key in participants.keys.items()}))
    yield bench.result(_MASKED_BYTES, (len(masked().data) + announced) / plain, "the other sites' keys included")
    yield bench.result(_MASKED_TIME, found.median, "1 thread, processor time", **found.to_json())
    note = f"{plain / 1e6:.1f} MB once; with fewer records than that, uploading their features would send fewer bytes"
    yield bench.result(_SENT, plain / _FEATURE_BYTES, note, contribution_bytes=plain)


def _solving(
    bench: Bench, sums: Sums, numbers: Numbers, labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> Measured:
    start = time.perf_counter()
    left_out = left_out_weights(sums)
    solved = time.perf_counter() - start
    start = time.perf_counter()
    tallies = tally(left_out, numbers, labels, folds)
    counted = time.perf_counter() - start
    start = time.perf_counter()
    shared_weights(sums, choose(tallies, len(labels))[1].ridge)
    seconds = solved + time.perf_counter() - start
    note = f"{_MAP.size:,} numbers, 1 thread; a site's tallies over {len(labels):,} records: {counted:.2g} s"
    return bench.result(_SOLVING, seconds, note, tally_seconds=counted)


GROUP = Group("closed-form", (_SUMS, _MEMORY, _MASKED_BYTES, _MASKED_TIME, _SENT, _SOLVING), _measure)

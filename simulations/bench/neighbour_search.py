"""The exact neighbour search against that of faiss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.common.model.neighbours import nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.timing import alternate, ratio
from fedmunkey.simulations.programs.machine import torch_threads, usable_cores

_TIME = Figure(
    "search-time", "neighbour search, 50,000 keys of 1,024 numbers, over faiss IndexFlatIP", "x", at_most(1.2)
)
_DIFFERENCE = Figure(
    "search-difference", "neighbour search: largest difference of a similarity to faiss's", "", at_most(1e-5)
)


def _measure(bench: Bench) -> Iterator[Measured]:
    """Search a block of queries with both, in turn, with one thread for each core."""
    import faiss

    keys_count, size, queries_count, repetitions = (2_000, 64, 128, 3) if bench.quick else (50_000, 1_024, 4_096, 7)
    threads = usable_cores()
    length = Recipe.of(Settings()).neighbours + SLACK
    draws = np.random.default_rng(0)
    keys = draws.standard_normal((keys_count, size), dtype=np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries = keys[:queries_count]
    index: Any = faiss.IndexFlatIP(size)
    index.add(keys)
    key_tensor, query_tensor = torch.from_numpy(keys), torch.from_numpy(queries)
    actions: list[Callable[[], object]] = [
        lambda: nearest(query_tensor, key_tensor, length),
        lambda: index.search(queries, length),
    ]
    with (
        torch_threads(threads),
        threadpool_limits(threads),
        bench.progress.counting("neighbour search", repetitions) as count,
    ):
        found = ratio(alternate(actions, repetitions, count))
        mine = nearest(query_tensor, key_tensor, length)
        similarities, indices = index.search(queries, length)
    note = f"{queries_count:,} queries, {length} neighbours each, {threads} threads"
    yield bench.result(_TIME, found.median, note, **found.to_json())
    difference = float(np.abs(mine.similarities.numpy() - similarities).max())
    same = float((mine.indices.numpy() == indices).mean())
    yield bench.result(_DIFFERENCE, difference, f"{same:.2%} of the neighbours are the same key in the same place")


def _obstacle() -> str:
    return "" if importlib.util.find_spec("faiss") else "pip install 'fedmunkey[bench]' for faiss"


GROUP = Group("neighbour-search", (_TIME, _DIFFERENCE), _measure, _obstacle)

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmunkey.common.model import neighbours
from fedmunkey.common.model.neighbours import NONE, NeighbourLists, nearest, patch_arrivals

# Small whole numbers make every dot product exact, so that ties are frequent and the order of equals can be tested.
numbers = st.integers(-2, 2)


def matrices(columns: int, *, least: int = 0, most: int = 12) -> st.SearchStrategy[Tensor]:
    rows = st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=least, max_size=most)
    return rows.map(lambda values: torch.tensor(values, dtype=torch.float32).reshape(-1, columns))


def ranking(query: Tensor, keys: Tensor, positions: list[int]) -> list[int]:
    """Rank positions by falling similarity, the earlier first among equals."""
    return sorted(positions, key=lambda position: (-float(query @ keys[position]), position))


def similarity(query: Tensor, key: Tensor) -> float:
    """Add products in float64, the second half of them to the first, and round once."""
    products = [float(x) * float(y) for x, y in zip(query, key, strict=True)]
    while len(products) > 1:
        half = (len(products) + 1) // 2
        products = [x + y for x, y in zip(products[:half], [*products[half:], 0.0], strict=False)]
    return float(np.float32(products[0])) + 0.0


def crowd(seed: int, count: int, columns: int) -> Tensor:
    """Return unit vectors of which many are equal, or differ by what float32 scores may or may not tell apart.

    Some are other orders of the same numbers: their lengths are equal, and their sums differ by rounding alone.
    """
    draws = np.random.default_rng(seed)
    sources = draws.normal(size=(3, columns)).astype(np.float32)
    keys = sources[draws.integers(0, 3, count)]
    widths = draws.choice([0.0, 2.0**-24, 2.0**-20, columns * 2.0**-23, 0.1], count)[:, None]
    keys = keys + (widths * draws.normal(size=keys.shape)).astype(np.float32)
    for row in draws.choice(count, count // 4, replace=False):
        keys[row] = draws.permutation(sources[0])
    return torch.nn.functional.normalize(torch.from_numpy(keys), dim=1)


def assert_same(left: NeighbourLists, right: NeighbourLists) -> None:
    assert torch.equal(left.indices, right.indices)
    assert left.similarities.numpy().tobytes() == right.similarities.numpy().tobytes()


def row(lists: NeighbourLists, index: int) -> list[int]:
    return [position for position in lists.indices[index].tolist() if position != NONE]


def without(lists: NeighbourLists, deleted: set[int]) -> NeighbourLists:
    """Take deleted keys out of every list and close the gaps."""
    shortened = NeighbourLists.empty(*lists.indices.shape)
    for index in range(len(lists.indices)):
        kept = [
            place for place, position in enumerate(lists.indices[index].tolist()) if position not in {NONE, *deleted}
        ]
        shortened.indices[index, : len(kept)] = lists.indices[index, kept]
        shortened.similarities[index, : len(kept)] = lists.similarities[index, kept]
    return shortened


def moved(lists: NeighbourLists, positions: list[int]) -> NeighbourLists:
    """Turn positions in a part of the keys into positions in all of them."""
    table = torch.tensor([*positions, NONE])
    return dataclasses.replace(lists, indices=table[lists.indices])


@given(data=st.data(), columns=st.integers(1, 3), length=st.integers(1, 6), memory=st.sampled_from([1, 64, 2**20]))
def test_nearest_equals_brute_force_with_ties(data: st.DataObject, columns: int, length: int, memory: int) -> None:
    queries, keys = data.draw(matrices(columns)), data.draw(matrices(columns, most=20))
    own = data.draw(st.lists(st.integers(NONE, len(keys) - 1), min_size=len(queries), max_size=len(queries)))

    lists = nearest(queries, keys, length, own=torch.tensor(own, dtype=torch.int64), memory=memory)

    assert lists.indices.shape == lists.similarities.shape == (len(queries), length)
    for index, query in enumerate(queries):
        expected = ranking(query, keys, [position for position in range(len(keys)) if position != own[index]])[:length]
        assert row(lists, index) == expected
        assert lists.lengths[index] == len(expected)
        assert lists.similarities[index, : len(expected)].tolist() == [float(query @ keys[p]) for p in expected]
        assert (lists.indices[index, len(expected) :] == NONE).all()
        assert (lists.similarities[index, len(expected) :] == -torch.inf).all()


crowds = st.builds(crowd, st.integers(0, 10_000), st.integers(8, 60), st.sampled_from([2, 5, 17, 64]))


@given(keys=crowds, length=st.integers(1, 6), memory=st.sampled_from([1, 800, 5000, 2**28]))
def test_nearest_equals_brute_force_where_keys_crowd(keys: Tensor, length: int, memory: int) -> None:
    queries = keys[:8]

    lists = nearest(queries, keys, length, own=torch.arange(8), memory=memory)

    for index, query in enumerate(queries):
        values = [similarity(query, key) for key in keys]
        expected = sorted((p for p in range(len(keys)) if p != index), key=lambda p: (-values[p], p))[:length]
        assert row(lists, index) == expected
        assert lists.similarities[index, : len(expected)].tolist() == [values[p] for p in expected]


@given(data=st.data(), keys=crowds, length=st.integers(1, 6))
def test_list_is_the_same_whatever_is_searched_with_it(data: st.DataObject, keys: Tensor, length: int) -> None:
    own = torch.arange(len(keys))
    together = nearest(keys, keys, length, own=own)

    order = torch.tensor(data.draw(st.permutations(range(len(keys)))))
    shuffled = nearest(keys[order], keys, length, own=order, memory=data.draw(st.sampled_from([1, 3000, 2**20])))
    cut = data.draw(st.integers(0, len(keys)))
    halves = [nearest(keys[part], keys, length, own=own[part]) for part in (slice(cut), slice(cut, None))]
    alone = [nearest(keys[n : n + 1], keys, length, own=own[n : n + 1]) for n in range(len(keys))]

    back = order.argsort()
    assert_same(NeighbourLists(shuffled.indices[back], shuffled.similarities[back]), together)
    for parts in (halves, alone):
        indices, similarities = zip(*((part.indices, part.similarities) for part in parts), strict=True)
        assert_same(NeighbourLists(torch.cat(indices), torch.cat(similarities)), together)


@given(keys=crowds, length=st.integers(1, 6), seed=st.integers(0, 1000))
def test_scores_only_choose_candidates(keys: Tensor, length: int, seed: int) -> None:
    """Any error of the scores within the bound of float32 arithmetic leaves the lists as they are."""
    multiply, draws = neighbours._multiply, torch.Generator().manual_seed(seed)

    def multiply_badly(queries: Tensor, some: Tensor, out: Tensor) -> None:
        scores = out.double()
        multiply(queries.double(), some.double(), scores)
        if out.dtype == torch.float32:
            # Rounding the score to float32 is one more error of 2^-24.
            signs = torch.randint(0, 2, out.shape, generator=draws) * 2 - 1
            scores += signs * (keys.shape[1] - 1) * 2.0**-24
        out.copy_(scores)

    whole = nearest(keys, keys, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_multiply", multiply_badly)
        assert_same(nearest(keys, keys, length), whole)


@pytest.mark.parametrize("columns", [4, 64])
def test_similarity_of_a_pair_is_the_same_in_both_directions(columns: int) -> None:
    keys = crowd(1, 40, columns)
    lists = nearest(keys, keys, 40)

    places = lists.indices.argsort(1)
    square = lists.similarities.gather(1, places)

    assert torch.equal(square, square.T)


def count_calls(patch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Note how many queries each call of a function of `common.model.neighbours` has."""
    noted: list[int] = []
    function: Callable[..., NeighbourLists] = getattr(neighbours, name)

    def counted(queries: Tensor, *rest: object) -> NeighbourLists:
        noted.append(len(queries))
        return function(queries, *rest)

    patch.setattr(neighbours, name, counted)
    return noted


def test_only_rows_in_a_crowd_are_searched_again_and_equal_keys_are_ranked_by_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowded = count_calls(monkeypatch, "_search_in_double")
    draws = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(600, 256, generator=draws), dim=1)

    nearest(keys, keys, 5, own=torch.arange(600))
    assert crowded == []
    keys[100:500] = keys[100]
    lists = nearest(keys, keys, 5, own=torch.arange(600))

    assert lists.indices[100].tolist() == [101, 102, 103, 104, 105]
    assert lists.indices[499].tolist() == [100, 101, 102, 103, 104]
    assert 400 <= sum(crowded) < 600


def test_zero_has_one_sign() -> None:
    lists = nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.0, 1.0], [0.0, -1.0]]), 2)

    assert lists.indices.tolist() == [[0, 1]]
    assert not lists.similarities.signbit().any()


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-60, 2.0**40])
def test_keys_of_any_length_are_ranked(scale: float) -> None:
    keys = crowd(3, 40, 17)

    lists, scaled = nearest(keys, keys, 5), nearest(keys, keys * scale, 5)

    # A power of two moves exponents only.
    assert_same(scaled, NeighbourLists(lists.indices, lists.similarities * scale))


def test_many_queries_are_taken_in_parts_and_reported() -> None:
    keys = torch.randint(-3, 4, (1030, 3), generator=torch.Generator().manual_seed(0)).float()
    finished: list[int] = []

    lists = nearest(keys, keys, 4, own=torch.arange(1030), progress=finished.append)

    assert len(finished) > 1
    assert sum(finished) == 1030
    for index in (0, 1023, 1024, 1029):
        assert row(lists, index) == ranking(keys[index], keys, [p for p in range(1030) if p != index])[:4]


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_search_gives_empty_lists(queries: int, keys: int) -> None:
    lists = nearest(torch.ones(queries, 2), torch.ones(keys, 2), 4)

    assert lists.indices.shape == (queries, 4)
    assert (lists.indices == NONE).all()
    assert lists.lengths.tolist() == [0] * queries


@pytest.mark.parametrize(("queries", "keys"), [((3, 2), (3, 4)), ((2,), (3, 2)), ((3, 2), (2,))])
def test_queries_and_keys_of_different_width_are_refused(queries: tuple[int, ...], keys: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        nearest(torch.ones(queries), torch.ones(keys), 4)


def test_lists_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one"):
        NeighbourLists(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4))


@given(data=st.data(), columns=st.integers(1, 3), length=st.integers(1, 5))
def test_patched_lists_stay_true_beginnings_of_the_ranking(data: st.DataObject, columns: int, length: int) -> None:
    """After any sequence of deletions and arrivals, every row is a beginning of the ranking over the keys there are.

    Stronger where the list is complete: it ranks every key, up to its length.
    """
    queries = data.draw(matrices(columns, least=1, most=4))
    keys = data.draw(matrices(columns))
    there = list(range(len(keys)))
    lists = nearest(queries, keys, length)

    for _ in range(data.draw(st.integers(1, 4))):
        deleted = data.draw(st.sets(st.sampled_from(there))) if there else set()
        there = [position for position in there if position not in deleted]
        lists = without(lists, deleted)
        shortened, known = lists, len(there)
        arrived = data.draw(matrices(columns, most=6))
        positions = list(range(len(keys), len(keys) + len(arrived)))
        arrivals = moved(nearest(queries, arrived, length), positions)
        lists = patch_arrivals(lists, arrivals, torch.full((len(queries),), known))
        keys, there = torch.cat([keys, arrived]), [*there, *positions]

        for index, query in enumerate(queries):
            whole = ranking(query, keys, there)
            patched = row(lists, index)
            assert patched == whole[: len(patched)]
            assert lists.similarities[index, : len(patched)].tolist() == [float(query @ keys[p]) for p in patched]
            assert len(patched) >= shortened.lengths[index]
            if shortened.lengths[index] == known:
                assert patched == whole[:length]


@given(data=st.data(), columns=st.integers(1, 3), length=st.integers(1, 5))
def test_patching_full_lists_equals_a_rebuild(data: st.DataObject, columns: int, length: int) -> None:
    keys = data.draw(matrices(columns, least=1))
    arrived = data.draw(matrices(columns, least=1, most=6))
    count, own = len(keys), torch.arange(len(keys))
    everything = torch.cat([keys, arrived])

    before = nearest(keys, keys, length, own=own)
    arrivals = moved(nearest(keys, arrived, length), list(range(count, len(everything))))
    patched = patch_arrivals(before, arrivals, torch.full((count,), count - 1))
    rebuilt = nearest(keys, everything, length, own=own)

    assert torch.equal(patched.indices, rebuilt.indices)
    assert torch.equal(patched.similarities, rebuilt.similarities)


@given(keys=crowds, length=st.integers(1, 6), cut=st.integers(1, 7), deleted=st.sets(st.integers(0, 7)))
def test_patching_a_crowd_equals_searching_anew(keys: Tensor, length: int, cut: int, deleted: set[int]) -> None:
    count = len(keys)
    deleted = {position for position in deleted if position < cut}
    left = [position for position in range(count) if position not in deleted]
    shortened = without(nearest(keys, keys[:cut], length), deleted)
    arrivals = moved(nearest(keys, keys[cut:], length), list(range(cut, count)))

    patched = patch_arrivals(shortened, arrivals, torch.full((count,), cut - len(deleted)))

    anew = moved(nearest(keys, keys[left], length), left)
    for index, held in enumerate(patched.lengths.tolist()):
        assert patched.indices[index, :held].tolist() == anew.indices[index, :held].tolist()
        assert patched.similarities[index, :held].tolist() == anew.similarities[index, :held].tolist()
    if not deleted:
        assert_same(patched, anew)


def test_nothing_is_appended_below_the_reach_of_a_shortened_list() -> None:
    queries, keys = torch.tensor([[1.0]]), torch.tensor([[9.0], [7.0], [5.0]])
    shortened = without(nearest(queries, keys, 2), {1})
    arrivals = moved(nearest(queries, torch.tensor([[10.0], [6.0]]), 2), [3, 4])

    patched = patch_arrivals(shortened, arrivals, torch.tensor([2]))

    # The arrival at 6 may not follow: the bank still has the key at 5, and for all the list says it might be at 8.
    assert row(patched, 0) == [3, 0]
    one_more = patch_arrivals(shortened, moved(nearest(queries, torch.tensor([[6.0]]), 2), [3]), torch.tensor([2]))
    assert row(one_more, 0) == [0]

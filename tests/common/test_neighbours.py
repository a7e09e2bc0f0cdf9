from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.neighbours import NONE, NeighbourLists, nearest, patch_arrivals

# Small whole numbers make every dot product exact, so that ties are frequent and the order of equals can be tested.
numbers = st.integers(-2, 2)


def matrices(columns: int, *, least: int = 0, most: int = 12) -> st.SearchStrategy[Tensor]:
    rows = st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=least, max_size=most)
    return rows.map(lambda values: torch.tensor(values, dtype=torch.float32).reshape(-1, columns))


def ranking(query: Tensor, keys: Tensor, positions: list[int]) -> list[int]:
    """Rank positions by falling similarity, the earlier first among equals."""
    return sorted(positions, key=lambda position: (-float(query @ keys[position]), position))


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
        assert lists.similarities[index, : len(expected)].tolist() == [float(query @ keys[p]) for p in expected]
        assert (lists.indices[index, len(expected) :] == NONE).all()
        assert (lists.similarities[index, len(expected) :] == -torch.inf).all()


def test_lists_do_not_depend_on_the_memory_that_is_allowed() -> None:
    keys = torch.randint(-3, 4, (300, 5), generator=torch.Generator().manual_seed(0)).float()
    own = torch.arange(300)

    whole = nearest(keys, keys, 9, own=own)
    chunked = nearest(keys, keys, 9, own=own, memory=4 * 300 * 17)
    smallest = nearest(keys, keys, 9, own=own, memory=1)

    for lists in (chunked, smallest):
        assert torch.equal(lists.indices, whole.indices)
        assert torch.equal(lists.similarities, whole.similarities)


def test_many_queries_are_taken_in_parts_and_reported() -> None:
    keys = torch.randint(-3, 4, (1030, 3), generator=torch.Generator().manual_seed(0)).float()
    finished: list[int] = []

    lists = nearest(keys, keys, 4, own=torch.arange(1030), progress=finished.append)

    assert len(finished) > 1
    assert sum(finished) == 1030
    for index in (0, 1023, 1024, 1029):
        assert row(lists, index) == ranking(keys[index], keys, [p for p in range(1030) if p != index])[:4]


def test_own_key_is_left_out_even_among_equals() -> None:
    keys = torch.ones(4, 2)

    lists = nearest(keys, keys, 3, own=torch.arange(4))

    assert lists.indices.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_query_without_own_key_leaves_nothing_out() -> None:
    keys = torch.ones(2, 2)

    assert nearest(keys, keys, 2, own=torch.tensor([NONE, 0])).indices.tolist() == [[0, 1], [1, NONE]]


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


def test_lengths_count_neighbours() -> None:
    lists = nearest(torch.ones(2, 1), torch.ones(3, 1), 5, own=torch.tensor([NONE, 1]))

    assert lists.lengths.tolist() == [3, 2]


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


def test_nothing_is_appended_below_the_reach_of_a_shortened_list() -> None:
    queries, keys = torch.tensor([[1.0]]), torch.tensor([[9.0], [7.0], [5.0]])
    shortened = without(nearest(queries, keys, 2), {1})
    arrivals = moved(nearest(queries, torch.tensor([[10.0], [6.0]]), 2), [3, 4])

    patched = patch_arrivals(shortened, arrivals, torch.tensor([2]))

    # The arrival at 6 may not follow: the bank still has the key at 5, and for all the list says it might be at 8.
    assert row(patched, 0) == [3, 0]
    one_more = patch_arrivals(shortened, moved(nearest(queries, torch.tensor([[6.0]]), 2), [3]), torch.tensor([2]))
    assert row(one_more, 0) == [0]


def test_arrivals_fill_a_list_that_ranks_every_known_key() -> None:
    queries, keys = torch.tensor([[1.0]]), torch.tensor([[9.0]])
    arrivals = moved(nearest(queries, torch.tensor([[1.0], [10.0]]), 3), [1, 2])

    assert row(patch_arrivals(nearest(queries, keys, 3), arrivals, torch.tensor([1])), 0) == [2, 0, 1]


def test_arrivals_are_not_put_into_a_list_that_lost_all_its_neighbours() -> None:
    queries, keys = torch.tensor([[1.0]]), torch.tensor([[9.0], [8.0]])
    emptied = without(nearest(queries, keys, 1), {0})
    arrivals = moved(nearest(queries, torch.tensor([[10.0]]), 1), [2])

    assert row(patch_arrivals(emptied, arrivals, torch.tensor([1])), 0) == []
    assert row(patch_arrivals(emptied, arrivals, torch.tensor([0])), 0) == [2]

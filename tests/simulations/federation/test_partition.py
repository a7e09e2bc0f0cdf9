import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.errors import InvalidDataset, InvalidSetting
from fedmunkey.simulations.federation.partition import DivideBy, partition
from tests.simulations.tiny_hospitals import records_of


def make(subjects: list[int], labels: list[int], held_out: int = 3) -> Dataset:
    """Return training records with these subjects and labels, in between held-out records."""
    return records_of(
        "record",
        ["test"] * held_out + ["train"] * len(subjects) + ["val"] * held_out,
        labels=[0] * held_out + labels + [0] * held_out,
        subjects=[f"subject-{number}" for number in [0] * held_out + subjects + [1] * held_out],
        class_names=tuple(str(label) for label in range(max([0, *labels]) + 1)),
    )


def balanced(count: int, classes: int = 4) -> Dataset:
    """Return training records that are each their own subject."""
    return make(list(range(count)), [row % classes for row in range(count)])


def sizes(parts: list[Dataset]) -> list[int]:
    return [len(part.split(Split.TRAIN)) for part in parts]


records = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=80)
alphas = st.one_of(st.floats(1e-3, 1e4), st.just(math.inf))


@given(records, st.integers(1, 6), alphas, st.integers(0, 2**31 - 1))
def test_every_training_record_is_at_one_hospital_and_no_subject_is_split(
    rows: list[tuple[int, int]], hospitals: int, alpha: float, seed: int
) -> None:
    dataset = make([subject for subject, _ in rows], [label for _, label in rows])
    hospitals = min(hospitals, len({subject for subject, _ in rows}))

    parts = partition(dataset, hospitals, alpha=alpha, seed=seed)

    trained = [part.split(Split.TRAIN) for part in parts]
    assert sorted(name for part in trained for name in part.record_ids) == sorted(dataset.split(Split.TRAIN).record_ids)
    subjects = [name for part in trained for name in set(part.subject_ids)]
    assert len(subjects) == len(set(subjects))
    assert min(sizes(parts)) >= 1


@given(st.integers(4, 60), st.integers(1, 4), alphas, st.integers(0, 2**31 - 1))
def test_no_hospital_starves_where_subjects_are_single_records(
    count: int, hospitals: int, alpha: float, seed: int
) -> None:
    parts = partition(balanced(count), hospitals, alpha=alpha, seed=seed)

    assert min(sizes(parts)) >= min(10, count // (2 * hospitals))


@given(records, st.integers(0, 2**31 - 1))
def test_same_seed_gives_the_same_parts(rows: list[tuple[int, int]], seed: int) -> None:
    dataset = make([subject for subject, _ in rows], [label for _, label in rows])
    hospitals = min(3, len({subject for subject, _ in rows}))

    first, second = (partition(dataset, hospitals, alpha=0.5, seed=seed) for _ in range(2))

    assert [part.record_ids.tolist() for part in first] == [part.record_ids.tolist() for part in second]


def test_another_seed_gives_other_parts() -> None:
    first, second = (partition(balanced(200), 3, alpha=0.5, seed=seed) for seed in range(2))

    assert [part.record_ids.tolist() for part in first] != [part.record_ids.tolist() for part in second]


@given(st.integers(1, 120), st.integers(1, 7), st.sampled_from([1e12, math.inf]))
@settings(max_examples=50)
def test_large_alpha_gives_hospitals_of_nearly_equal_size(count: int, hospitals: int, alpha: float) -> None:
    hospitals = min(hospitals, count)

    parts = partition(balanced(count), hospitals, alpha=alpha, seed=0)

    allowed = 1 if alpha == math.inf else 4
    assert max(sizes(parts)) - min(sizes(parts)) <= allowed


def test_large_alpha_gives_every_hospital_the_same_mixture_and_a_small_one_different_ones() -> None:
    for part in partition(balanced(200), 5, alpha=math.inf, seed=3):
        assert np.bincount(part.split(Split.TRAIN).labels).tolist() == [10, 10, 10, 10]
    parts = partition(balanced(400), 4, alpha=0.05, seed=0)
    shares = [np.bincount(part.split(Split.TRAIN).labels, minlength=4) / sizes([part])[0] for part in parts]
    assert max(share.max() for share in shares) > 0.8


def test_every_hospital_has_all_held_out_records_in_the_order_of_the_data() -> None:
    dataset = balanced(40)

    for part in partition(dataset, 3, alpha=0.5, seed=0):
        for split in (Split.VAL, Split.TEST):
            assert part.split(split).record_ids.tolist() == dataset.split(split).record_ids.tolist()
        rows = [dataset.record_ids.tolist().index(name) for name in part.record_ids]
        assert rows == sorted(rows)


def test_subject_counts_with_the_label_of_most_of_its_records() -> None:
    subjects = [row // 5 for row in range(100)]
    labels = [int(subject % 2 == 0) if row % 5 else int(subject % 2 == 1) for row, subject in enumerate(subjects)]

    parts = partition(make(subjects, labels), 2, alpha=math.inf, seed=0)

    assert [np.bincount(part.split(Split.TRAIN).labels).tolist() for part in parts] == [[25, 25], [25, 25]]


def test_one_large_subject_leaves_the_rest_to_the_other_hospitals() -> None:
    parts = partition(make([0] * 50 + list(range(1, 11)), [0] * 60), 2, alpha=math.inf, seed=0)

    assert sorted(sizes(parts)) == [10, 50]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e300, 1.7e308])
def test_extreme_alpha_is_accepted(alpha: float) -> None:
    assert min(sizes(partition(balanced(100), 5, alpha=alpha, seed=0))) >= 10


def test_fewer_subjects_than_hospitals_are_refused() -> None:
    with pytest.raises(InvalidDataset, match="2 subjects with training records cannot be divided among 3 hospitals"):
        partition(make([0, 0, 1, 1], [0, 1, 0, 1]), 3, alpha=1, seed=0)


@pytest.mark.parametrize(("hospitals", "alpha"), [(0, 1.0), (2, 0.0), (2, -1.0), (2, math.nan)])
def test_settings_out_of_range_are_refused(hospitals: int, alpha: float) -> None:
    with pytest.raises(InvalidSetting):
        partition(balanced(20), hospitals, alpha=alpha, seed=0)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_by_sizes_hospitals_differ_in_size_and_have_the_same_mixture(alpha: float) -> None:
    parts = partition(balanced(2000), 4, alpha=alpha, seed=1, by=DivideBy.SIZES)

    assert max(sizes(parts)) > 2 * min(sizes(parts))
    assert sum(sizes(parts)) == 2000
    for part in parts:
        counts = np.bincount(part.split(Split.TRAIN).labels, minlength=4)
        assert counts.max() - counts.min() <= 2


def from_sources(sources: list[str]) -> Dataset:
    dataset = balanced(len(sources))
    given = np.full(len(dataset), "", dtype="<U9")
    given[dataset.splits == Split.TRAIN.value] = sources
    return dataclasses.replace(dataset, sources=given)


def sources_of(part: Dataset) -> set[str]:
    sources = part.split(Split.TRAIN).sources
    assert sources is not None
    return set(sources.tolist())


def test_by_sources_each_source_is_whole_at_one_hospital_and_sizes_are_evened_out() -> None:
    dataset = from_sources(["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"])

    alone = partition(dataset, 4, alpha=1.0, seed=0, by=DivideBy.SOURCES)
    joined = partition(dataset, 2, alpha=1.0, seed=0, by=DivideBy.SOURCES)

    assert [sources_of(part) for part in alone] == [{"a"}, {"b"}, {"c"}, {"d"}]
    assert [sources_of(part) for part in joined] == [{"a"}, {"b", "c", "d"}]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (balanced(8), "write the array train_sources into its .npz, or divide by labels or sizes"),
        (from_sources(["a", "b"] * 4), "2 sources cannot be divided among 3 hospitals; choose at most 2 hospitals"),
    ],
)
def test_sources_that_are_missing_or_too_few_are_refused(dataset: Dataset, message: str) -> None:
    with pytest.raises(InvalidDataset) as caught:
        partition(dataset, 3, alpha=1.0, seed=0, by=DivideBy.SOURCES)

    assert message in str(caught.value)

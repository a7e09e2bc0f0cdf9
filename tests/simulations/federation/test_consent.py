"""Simulated patients give their records for good: whole subjects, as many records as asked, the same for a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.federation.consent import donate, parse_share
from tests.simulations.tiny_hospitals import records_of

LARGEST = 4


def patients(train: int = 60, val: int = 0, test: int = 20, *, size: int = 2) -> Dataset:
    """Return records of which each `size` that follow each other in a split are one subject's."""
    counts = {Split.TRAIN: train, Split.VAL: val, Split.TEST: test}
    subjects = [f"{split}-{place // size}" for split, count in counts.items() for place in range(count)]
    return records_of("record", [subject.partition("-")[0] for subject in subjects], subjects=subjects)


def is_permanent(dataset: Dataset) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = dataset.consents == Consent.PERMANENT.value
    return found


def permanent_subjects(dataset: Dataset) -> set[str]:
    return set(dataset.subject_ids[is_permanent(dataset)].tolist())


def counts(dataset: Dataset) -> dict[Split, int]:
    return {split: int(is_permanent(dataset)[dataset.splits == split.value].sum()) for split in Split}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 1.0])
def test_share_of_each_split_becomes_permanent(share: float) -> None:
    given = donate(patients(60, 10, 20), share, seed=0)

    assert counts(given) == {Split.TRAIN: 60 * share, Split.VAL: 10 * share + 10 * share % 2, Split.TEST: 20 * share}


@given(st.floats(0, 1), st.integers(0, 1000), st.integers(1, LARGEST))
def test_share_is_exceeded_by_part_of_one_subject_at_most(share: float, seed: int, size: int) -> None:
    dataset = patients(30, 7, 20, size=size)

    found = counts(donate(dataset, share, seed))

    for split in Split:
        wanted = round(share * int((dataset.splits == split.value).sum()))
        assert wanted <= found[split] < wanted + size


def test_subject_has_one_consent_in_all_its_records_and_splits() -> None:
    both = np.array([f"patient-{row % 40 // 2}" for row in range(80)])

    given = donate(replace(patients(40, 0, 40), subject_ids=both), 0.3, seed=0)

    assert counts(given) == {Split.TRAIN: 12, Split.VAL: 0, Split.TEST: 12}
    assert len(permanent_subjects(given)) == 6
    assert not permanent_subjects(given) & set(given.subject_ids[~is_permanent(given)].tolist())


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_no_share_and_one_too_small_for_any_record_change_nothing(share: float) -> None:
    assert donate(patients(), share, seed=0).consents.tolist() == patients().consents.tolist()


def test_everything_but_consents_stays_as_it_was_and_what_was_passed_in_too() -> None:
    dataset = patients()

    given = donate(dataset, 0.5, seed=0)

    assert set(dataset.consents) == {"revocable"}
    assert set(given.consents) == {"revocable", "permanent"}
    for name in ("images", "labels", "record_ids", "subject_ids", "splits"):
        assert np.array_equal(getattr(given, name), getattr(dataset, name))


def test_records_that_are_permanent_already_stay_so_and_count() -> None:
    dataset = patients(60, 0, 0, size=2)
    dataset.consents[:20] = "permanent"

    given = donate(dataset, 0.5, seed=0)

    assert is_permanent(given)[:20].all()
    assert counts(given)[Split.TRAIN] == 30
    assert np.array_equal(donate(dataset, 0.1, seed=0).consents, dataset.consents)


def test_same_seed_asks_the_same_subjects_and_another_seed_others() -> None:
    first, same, other = (donate(patients(), 0.3, seed) for seed in (0, 0, 1))

    assert permanent_subjects(first) == permanent_subjects(same)
    assert permanent_subjects(first) != permanent_subjects(other)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidSetting, match="give from 0% to 100%"):
        donate(patients(), share, seed=0)


@pytest.mark.parametrize(
    ("text", "share"), [("30%", 0.3), ("0.3", 0.3), ("0", 0), ("0%", 0), ("100%", 1), ("1", 1), ("2.5%", 0.025)]
)
def test_share_is_read_as_a_percentage_or_a_number(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["many", "", "%", "30%%"], "'{}' is not a share; write for example 30%"),
        (["30", "101%", "-1%", "nan", "inf"], "{} is out of range; give from 0% to 100%"),
    ],
)
def test_what_is_no_share_is_refused_in_one_line(texts: list[str], reason: str) -> None:
    for text in texts:
        with pytest.raises(InvalidSetting) as caught:
            parse_share(text)

        assert str(caught.value) == reason.format(text)

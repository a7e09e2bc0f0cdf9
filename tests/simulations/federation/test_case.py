"""What a case says of its records: which are forgotten, which stay, and what an oracle must not have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.case import Case, Rows, fingerprints, seen_although_forgotten
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from tests.simulations.tiny_hospitals import hospital_of

SETTINGS = Settings(num_classes=2, seed=4)
SHAPE = ModelShape(ImagePath.PATCHES, (1, 1, 1), 1, num_classes=2, width=8, depth=1, heads=1, exemplar_size=2)


def hospital(name: str, images: Sequence[int], labels: Sequence[int], tests: Sequence[int] = ()) -> Hospital:
    """Return a hospital with images of one pixel; `tests` are positions that do not train."""
    splits = [Split.TEST if row in tests else Split.TRAIN for row in range(len(images))]
    return hospital_of(name, np.array(images, dtype=np.uint8).reshape(-1, 1, 1, 1), labels, splits)


FIRST = hospital("first", [10, 11, 12, 13, 14], [0, 1, 0, 1, 0], tests=[0])
SECOND = hospital("second", [20, 21, 22], [1, 1, 0], tests=[2])


def rows(first: Sequence[int], second: Sequence[int] = ()) -> Rows:
    return {"first": positions(first), "second": positions(second)}


def positions(chosen: Sequence[int]) -> NDArray[np.int64]:
    return np.array(chosen, dtype=np.int64)


def case(*deletions: Rows, hospitals: Sequence[Hospital] = (FIRST, SECOND)) -> Case:
    return Case(hospitals, deletions, rows([]), SETTINGS, SHAPE)


def ids(records: dict[str, Encoded]) -> dict[str, list[str]]:
    return {name: some.records.record_ids.tolist() for name, some in records.items()}


def renamed(records: Encoded) -> Encoded:
    names = np.array([f"copy-{row}" for row in range(len(records.records))])
    return Encoded(replace(records.records, record_ids=names), records.encoding)


def test_training_records_are_either_forgotten_or_retained() -> None:
    asked = case(rows([3], [0]), rows([1]))

    assert {name: found.tolist() for name, found in asked.forgotten.items()} == {"first": [1, 3], "second": [0]}
    assert ids(asked.forget_records()) == {"first": ["first-1", "first-3"], "second": ["second-0"]}
    assert ids(asked.retained()) == {"first": ["first-2", "first-4"], "second": ["second-1"]}
    assert ids(asked.everything()) == {
        "first": ["first-1", "first-2", "first-3", "first-4"],
        "second": ["second-0", "second-1"],
    }
    assert asked.retained()["first"].encoding.keys.argmax(1).tolist() == [2, 4]
    # A whole hospital may be forgotten.
    assert ids(case(rows([1, 2, 3, 4])).retained()) == {"first": [], "second": ["second-0", "second-1"]}


@pytest.mark.parametrize(
    ("deletions", "message"),
    [
        ([], "nothing is forgotten; ask for a larger forget set"),
        ([rows([]), rows([])], "nothing is forgotten; ask for a larger forget set"),
        ([rows([1, 1])], "a record is forgotten twice"),
        ([rows([1], [0]), rows([2], [0])], "a record is forgotten twice"),
        ([rows([1, 2], [0]), rows([3, 4], [1])], "forgetting everything leaves nothing to compare with"),
    ],
)
def test_forgetting_nothing_or_twice_or_everything_is_refused(deletions: list[Rows], message: str) -> None:
    with pytest.raises(InvalidDeletion, match=message):
        case(*deletions)


def test_another_seed_is_the_same_question_with_other_random_choices() -> None:
    asked = case(rows([1]))

    other = asked.with_seed(9)

    assert (asked.settings.seed, other.settings.seed) == (4, 9)
    assert replace(other, settings=asked.settings) == asked


def test_fingerprint_is_of_the_image_and_the_label_and_not_of_the_id() -> None:
    assert len(fingerprints(FIRST.given)) == 5
    assert fingerprints(renamed(FIRST.given)) == fingerprints(FIRST.given)
    image, label, both = ([1], [0]), ([2], [1]), ([1], [1])
    assert len({fingerprints(hospital("h", *one).given) for one in (image, label, both)}) == 3


def test_forgotten_records_that_an_oracle_learned_from_are_counted() -> None:
    asked = case(rows([1, 3], [0]))

    assert seen_although_forgotten(asked, asked.retained()) == 0
    assert seen_although_forgotten(asked, asked.everything()) == 3
    assert seen_although_forgotten(asked, {**asked.retained(), "second": SECOND.given}) == 1


@pytest.mark.parametrize(
    ("smuggled", "counted"),
    [
        pytest.param(renamed(FIRST.given.select(positions([1]))), 1, id="under-another-id-elsewhere"),
        pytest.param(hospital("second", [11], [0]).given, 0, id="another-label-is-another-record"),
    ],
)
def test_forgotten_record_is_known_again_by_its_image_and_label(smuggled: Encoded, counted: int) -> None:
    asked = case(rows([1]))

    assert seen_although_forgotten(asked, {**asked.retained(), "second": smuggled}) == counted


@pytest.mark.parametrize(("label", "counted"), [(1, 0), (0, 1)])
def test_forgotten_record_whose_twin_stays_does_not_count(label: int, counted: int) -> None:
    # The second hospital has the image of the first one's forgotten record, whose label is 1.
    twin = hospital("second", [11, 21], [label, 1])
    asked = case(rows([1]), hospitals=[FIRST, twin])

    assert seen_although_forgotten(asked, asked.everything()) == counted

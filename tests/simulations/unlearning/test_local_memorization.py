"""kNN-Per: what neighbours add at hospitals that differ, and what deleting an entry leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmunkey.simulations.federation.answers import MixedAnswers
from fedmunkey.simulations.unlearning import local_memorization
from fedmunkey.simulations.unlearning.local_memorization import (
    LocalMemorization,
    LocalMemoryFamily,
    LocalMemoryFederation,
    best_share,
    neighbours_say,
)
from tests.simulations.unlearning.small_case import BUDGET, SETTINGS, accuracy, labels_of, small_case
from tests.simulations.unlearning.test_nearest_neighbours import FIRST, QUERY

LABELS = torch.tensor([0, 1, 1, 0])
RIGHT = torch.eye(2)[LABELS]
WRONG = 1 - RIGHT


@pytest.fixture(scope="module")
def federation() -> LocalMemoryFederation:
    case = small_case()
    return LocalMemoryFamily().train(case.everything(), case.settings, case.shape)


def test_nearer_neighbours_count_more_by_the_exponential_of_their_similarity() -> None:
    settings = SETTINGS.replace(num_classes=3, neighbours=2, temperature=0.1)

    answers = neighbours_say(FIRST.given, QUERY, settings)

    # At 1 degree the nearest are those of 0 and of 10 degrees.
    near, far = (float(np.exp(np.cos(np.radians(degrees)) / 0.1)) for degrees in (1, 9))
    assert answers[0].tolist() == pytest.approx([near / (near + far), far / (near + far), 0], abs=1e-4)
    assert torch.allclose(answers.sum(1), torch.ones(2))


def test_share_is_that_of_whoever_is_right() -> None:
    assert best_share(RIGHT, WRONG, LABELS) == 1.0
    assert best_share(WRONG, RIGHT, LABELS) == 0.0
    # Each is right about half of them and unsure about the rest: together they are right about all.
    half = torch.where(torch.arange(4)[:, None] < 2, RIGHT, torch.full((4, 2), 0.5))
    other = torch.where(torch.arange(4)[:, None] < 2, torch.full((4, 2), 0.5), RIGHT)
    assert 0 < best_share(half, other, LABELS) < 1
    assert best_share(RIGHT[:0], WRONG[:0], LABELS[:0]) == 0.0


def test_answers_are_a_mixture_of_neighbours_and_of_the_common_model(federation: LocalMemoryFederation) -> None:
    records = small_case().everything()["hospital-1"]
    assert isinstance(federation, MixedAnswers)
    for share, expected in ((0.0, federation.common), (1.0, lambda *_: neighbours_say(records, records, SETTINGS))):
        mixed = LocalMemoryFederation(
            federation.common_model, federation.left_out_model, federation.records, {"hospital-1": share}, SETTINGS
        )
        assert torch.allclose(mixed.answer("hospital-1", records), expected("hospital-1", records), atol=1e-6)


def test_memory_helps_where_hospitals_name_the_same_thing_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's property: where hospitals differ, no common model serves all, and local memory does."""
    from dataclasses import replace

    case = small_case()
    records = case.everything()
    shifted = {
        name: replace(some, records=replace(some.records, labels=(some.records.labels + 3 * place) % 10))
        for place, (name, some) in enumerate(records.items())
    }
    # Neighbours would find the record itself: ask for what a hospital has not seen.
    held = {name: some.select(np.arange(len(some.records)) % 4 > 0) for name, some in shifted.items()}
    asked = {name: some.select(np.arange(len(some.records)) % 4 == 0) for name, some in shifted.items()}
    monkeypatch.setattr(local_memorization, "NEIGHBOURS", 3)

    federation = LocalMemoryFamily().train(held, case.settings, case.shape)

    common = torch.cat([federation.common(name, some) for name, some in asked.items()]).argmax(1)
    right = float((common == labels_of(asked)).float().mean())
    assert max(federation.shares.values()) > 0
    assert accuracy(federation, asked) > right + 0.1


def test_deleted_entries_answer_no_more_and_the_common_model_stays(federation: LocalMemoryFederation) -> None:
    case = small_case()

    done = LocalMemorization().forget(federation, case, BUDGET)

    left = done.answers
    assert isinstance(left, LocalMemoryFederation)
    assert left.common_model is federation.common_model
    assert {name: len(some.records) for name, some in left.records.items()} == {
        name: len(some.records) for name, some in case.retained().items()
    }
    for name, some in case.forget_records().items():
        assert not np.isin(some.records.record_ids, left.records[name].records.record_ids).any()
    assert done.bytes_sent == 0


def test_hospital_without_entries_has_the_common_answer(federation: LocalMemoryFederation) -> None:
    case = small_case(whole_site=True)

    left = LocalMemorization().forget(federation, case, BUDGET).answers

    gone = next(iter(case.forget_records()))
    some = case.everything()[gone]
    assert gone not in left.sites
    assert torch.equal(left.answer(gone, some), federation.common(gone, some))

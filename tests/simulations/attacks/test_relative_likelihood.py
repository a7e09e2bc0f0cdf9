"""Likelihoods relative to what shadows find likely."""

from __future__ import annotations

import numpy as np
import pytest

from fedmunkey.simulations.attacks.attack import Attacked, Shadow
from fedmunkey.simulations.attacks.candidates import Candidates
from fedmunkey.simulations.attacks.relative_likelihood import RelativeLikelihood, beaten
from fedmunkey.simulations.federation.case import Case
from tests.simulations.attacks.conftest import Tell


def test_share_of_the_population_that_is_beaten_by_hand() -> None:
    assert beaten(np.array([0.0, 1.0, -2.0]), np.array([-1.0, 0.5, 1.0])).tolist() == pytest.approx([1 / 3, 2.5 / 3, 0])
    assert len(beaten(np.array([0.0]), np.array([]))) == 0


@pytest.fixture
def shadows(case: Case, asked: Candidates, told: Tell) -> list[Shadow]:
    """Easy records are likely under all shadows, hard ones under none, whoever was in."""
    ids = [record for h in case.hospitals for record in h.given.records.record_ids[asked.rows(h.name)].tolist()]
    likely = {record: 0.9 if place % 2 else 0.2 for place, record in enumerate(ids)}
    return [Shadow(told({**likely, **dict.fromkeys(ids[:2], 0.4)}), told(likely), {}) for _ in range(4)]


def test_who_is_surer_than_shadows_is_found_out_however_hard_records_are(
    case: Case, told: Tell, honest: list[str], shadows: list[Shadow]
) -> None:
    usual = dict(shadows[0].deleted.sure)  # type: ignore[attr-defined]
    state = told({**usual, **{record: min(0.99, 1.08 * usual[record]) for record in honest}})

    scores = RelativeLikelihood().score(Attacked(state, told({})), case, shadows)

    assert scores.auroc == 1
    assert len(scores.members) == len(honest)


def test_who_answers_as_shadows_do_gives_nothing_away(case: Case, shadows: list[Shadow], told: Tell) -> None:
    scores = RelativeLikelihood().score(Attacked(shadows[0].deleted, told({})), case, shadows)

    assert scores.auroc == 0.5


def test_before_deletion_it_is_compared_with_shadows_before_theirs(case: Case, shadows: list[Shadow]) -> None:
    before = shadows[0].trained

    assert RelativeLikelihood().score(Attacked(before, before), case, shadows).auroc == 0.5

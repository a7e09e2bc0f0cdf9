"""Verdicts about some of the records, and about a privacy loss that is claimed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.attacks.attack import Scores
from fedmunkey.simulations.audit.closer_look import Claimed, most_vulnerable, privacy_loss, subgroups
from fedmunkey.simulations.audit.groups import FIRST, RAREST, groups_of
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital
from tests.simulations.given_records import case_of, train_rows

COUNT = 200
STATES = ("before", "after", "oracle", "other_oracle")


def trial_of(seed: int, **planted: NDArray[np.float64]) -> Any:
    """Return a trial whose states differ by chance only, save for what is added to one."""
    draws = np.random.default_rng(seed)
    easy = draws.uniform(0.3, 0.8, COUNT)
    known = {
        state: SimpleNamespace(
            forget_confidence=tuple(np.clip(easy + draws.normal(0, 0.05, COUNT) + planted.get(state, 0), 0, 1)),
            test_confidence=tuple(easy + draws.normal(0, 0.05, COUNT)),
        )
        for state in STATES
    }
    number = np.arange(COUNT)
    groups = {"class a": number % 2 == 0, "class b": number % 2 == 1, "hospital-1": number < 20, "tiny": number < 4}
    return SimpleNamespace(known=known, groups=groups, scores={})


def some(rows: slice, by: float) -> NDArray[np.float64]:
    added = np.zeros(COUNT)
    added[rows] = by
    return added


def test_few_records_that_stay_known_are_found_among_many_that_do_not() -> None:
    stood_out = some(slice(10, 30), 0.5)
    (cheat,) = most_vulnerable([trial_of(0, before=stood_out, after=stood_out)])
    (honest,) = most_vulnerable([trial_of(0, before=stood_out)])

    assert not cheat.passed
    assert "remembered" in cheat.sentence
    assert honest.passed
    assert honest.figures["records"] == COUNT / 10
    assert honest.figures["before"] > 0.2


def test_one_hospital_or_class_left_behind_is_named() -> None:
    (cheat,) = subgroups([trial_of(1, after=some(slice(0, 20), 0.15))])
    (too_much,) = subgroups([trial_of(1, after=some(slice(0, 20), -0.2))])

    assert not cheat.passed
    assert "hospital-1 (20 records)" in cheat.sentence
    assert "remembered" in cheat.sentence
    assert not too_much.passed
    assert "over-forgotten" in too_much.sentence
    # Of the group of four nothing is said.
    assert cheat.figures["groups"] == 3


def test_where_nothing_was_planted_nothing_is_found() -> None:
    honest = [trial_of(seed, before=some(slice(10, 30), 0.4)) for seed in range(20)]

    found = [verdict for one in honest for verdict in (*most_vulnerable([one]), *subgroups([one]))]

    assert len(found) == 40
    assert [verdict.sentence for verdict in found if not verdict.passed] == []


def test_weights_that_are_kept_and_are_surer_of_some_records_by_chance_are_not_taken_for_memory() -> None:
    found = []
    for seed in range(20):
        draws = np.random.default_rng(seed)
        one = trial_of(seed)
        kept = {name: draws.uniform(0.3, 0.8, COUNT) + draws.normal(0, 0.2, COUNT) for name in ("forget", "test")}
        for name, confidence in kept.items():
            for state in ("before", "after"):
                setattr(one.known[state], f"{name}_confidence", tuple(confidence))
        found += most_vulnerable([one])

    assert [verdict.sentence for verdict in found if not verdict.passed] == []
    # Without the test records that are chosen in the same way, all of these would have been flagged.
    assert all(one.figures["difference"] - one.figures["half"] > 0.1 for one in found)


def test_too_few_records_are_not_judged() -> None:
    few = trial_of(0)
    for state in STATES:
        few.known[state].forget_confidence = few.known[state].forget_confidence[:8]
    few.groups = {"tiny": np.arange(8) < 4}

    assert most_vulnerable([few]) == []
    assert subgroups([few]) == []


@pytest.mark.parametrize(("apart", "passed"), [(5.0, False), (0.0, True)])
def test_privacy_loss_that_attacks_prove_is_held_against_the_claim(apart: float, passed: bool) -> None:
    draws = np.random.default_rng(0)
    scores = Scores(draws.normal(apart, 1, 300), draws.normal(0, 1, 300))
    one: Any = SimpleNamespace(scores={"loss-threshold": {"after": scores}})

    (verdict,) = privacy_loss([one], ["loss-threshold"], Claimed(1.0, 1e-5))

    assert verdict.passed is passed
    assert verdict.figures["claimed"] == 1
    assert (verdict.figures["proved"] > 1) is not passed
    assert verdict.figures["most"] > 3


def test_claim_that_so_few_records_cannot_refute_is_said_to_be_so() -> None:
    one: Any = SimpleNamespace(scores={"loss-threshold": {"after": Scores(np.ones(40), np.zeros(40))}})

    (small,) = privacy_loss([one], ["loss-threshold"], Claimed(1.0, 1e-5))
    (large,) = privacy_loss([one], ["loss-threshold"], Claimed(8.0, 1e-5))

    assert not small.passed
    assert large.passed
    assert "only more forgotten records could refute the claim" in large.sentence


def test_groups_are_classes_hospitals_and_what_is_least_like_the_rest(
    hospitals: list[Hospital], settings: Any, shape: Any
) -> None:
    first, second, third = hospitals
    rows = {first.name: train_rows(first)[:6], second.name: train_rows(second)[:5], third.name: train_rows(third)[:0]}
    case: Case = case_of(hospitals, rows, settings, shape)
    labels = np.concatenate([h.given.records.labels[rows[h.name]] for h in (first, second)])
    alone = int(np.flatnonzero(~np.isin(labels[:6], case.retained()[first.name].records.labels)).min(initial=99))

    groups = groups_of(case)

    assert groups[first.name].tolist() == [True] * 6 + [False] * 5
    assert groups[second.name].tolist() == [False] * 6 + [True] * 5
    assert third.name not in groups
    names = first.given.records.class_names
    for label, name in enumerate(names):
        if label in labels:
            assert groups[f"class {name}"].tolist() == (labels == label).tolist()
    assert groups[RAREST].sum() == 2
    if alone < 99:
        assert groups[RAREST][alone]


def test_first_half_of_several_deletions_is_a_group(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape
) -> None:
    """What was forgotten first may come back with what is forgotten later."""
    first, second, third = hospitals
    mine, its = train_rows(first)[:6], train_rows(second)[:4]
    none = {third.name: mine[:0]}
    deletions = [
        {first.name: mine[[1, 4]], second.name: its[:0], **none},
        {first.name: mine[[0]], second.name: its[[3]], **none},
        {first.name: mine[[2, 3, 5]], second.name: its[:3], **none},
    ]
    one = case_of(hospitals, {first.name: mine, second.name: its}, settings, shape)

    groups = groups_of(replace(one, deletions=deletions))

    assert groups[FIRST].tolist() == [False, True, False, False, True, False, *([False] * 4)]
    assert FIRST not in groups_of(one)


def test_what_the_first_deletions_forgot_and_later_ones_brought_back_is_flagged() -> None:
    trial = trial_of(1, after=some(slice(0, 60), 0.15))
    trial.groups[FIRST] = np.arange(COUNT) < 60

    (verdict,) = subgroups([trial])

    assert not verdict.passed
    assert f"{FIRST} (60 records)" in verdict.sentence
    assert "remembered" in verdict.sentence

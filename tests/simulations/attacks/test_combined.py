"""Several looks at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.combined import Combined, _modified_entropy
from fedmunkey.simulations.attacks.loss_threshold import LossThreshold
from fedmunkey.simulations.federation.case import Case
from tests.simulations.attacks.conftest import Tell
from tests.simulations.given_records import train_rows


@pytest.fixture
def many(case: Case) -> Case:
    """Ten records of each of two hospitals are forgotten."""
    first, second, third = case.hospitals
    rows = {first.name: train_rows(first)[:10], second.name: train_rows(second)[:10], third.name: train_rows(third)[:0]}
    return replace(case, deletions=[rows], canaries={name: some[:0] for name, some in rows.items()})


def test_what_no_look_tells_alone_is_told_by_two_together(many: Case, told: Tell) -> None:
    draws = np.random.default_rng(0)
    members = [r for some in many.forget_records().values() for r in some.records.record_ids.tolist()]
    others = [r for h in many.hospitals for r in h.given.records.record_ids.tolist() if r not in members]
    # How sure banks are says nothing by itself, only beside what the weights say.
    weights = {record: float(draws.uniform(0.2, 0.8)) for record in members + others}
    full = {record: min(0.99, weights[record] + (0.05 if record in members else 0)) for record in weights}
    state = told(full, weights)

    combined = Combined().score(Attacked(state, state), many, [])

    assert combined.auroc > 0.9
    assert LossThreshold().score(Attacked(state, state), many, []).auroc < 0.75


def test_where_nothing_is_to_be_told_nothing_is_made_up(many: Case, told: Tell) -> None:
    found = []
    for seed in range(5):
        draws = np.random.default_rng(seed)
        ids = [r for h in many.hospitals for r in h.given.records.record_ids.tolist()]
        state = told({r: float(draws.uniform()) for r in ids}, {r: float(draws.uniform()) for r in ids})
        found.append(Combined().score(Attacked(state, state), many, []).auroc)

    assert abs(np.mean(found) - 0.5) < 0.1


def test_too_few_records_to_learn_from_have_no_scores(case: Case, told: Tell) -> None:
    state = told({})

    assert not Combined().score(Attacked(state, state), case, []).usable


def test_modified_entropy_by_hand(case: Case) -> None:
    some = case.hospitals[0].given.select(np.array([0, 1]))
    labels = some.records.labels
    said = torch.full((2, some.records.num_classes), 0.0)
    said[0, labels[0]], said[0, (labels[0] + 1) % 10] = 0.8, 0.2
    said[1, labels[1]] = 1.0

    first, sure = _modified_entropy(said, some)

    # -(1 - p_y) log p_y - sum p_i log(1 - p_i) over the other classes.
    assert first == pytest.approx(-0.2 * np.log(0.8) - 0.2 * np.log(0.8))
    assert sure == pytest.approx(0)

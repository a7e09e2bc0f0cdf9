"""Federations seen from outside: banks that lose entries, and who answers what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.evaluation import predict, predict_image_only
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NONE, nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Banked, HospitalBank, MunkeyAnswers
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, bank_of
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, first_plain

SITES = ("hospital-1", "hospital-2", "hospital-3")


def place_of(records: Encoded, settings: Settings, shape: ModelShape) -> HospitalBank:
    """Return a bank whose tokens tell its records apart."""
    bank = bank_of(records, settings, shape)
    bank.tokens.offsets.copy_(token_of(records, shape))
    return HospitalBank(bank, records.encoding.keys)


def token_of(records: Encoded, shape: ModelShape) -> Tensor:
    lightness = torch.from_numpy(records.records.images).float().flatten(1).norm(dim=1)
    # Their directions differ, not their lengths alone, which a layer norm takes away.
    token: Tensor = torch.sin(lightness[:, None] * torch.arange(1, shape.exemplar_size + 1))
    return token


@pytest.fixture
def train(hospitals: list[Hospital]) -> dict[str, Encoded]:
    return {hospital.name: hospital.given.split(Split.TRAIN) for hospital in hospitals}


@pytest.fixture
def tests(hospitals: list[Hospital]) -> Encoded:
    return hospitals[0].given.split(Split.TEST)


@pytest.fixture
def answers(
    train: dict[str, Encoded], settings: Settings, shape: ModelShape, opinionated: Callable[[Munkey], Munkey]
) -> MunkeyAnswers:
    model = opinionated(Munkey(shape)).eval()
    return MunkeyAnswers(model, {name: place_of(some, settings, shape) for name, some in train.items()}, settings)


def test_hospital_whose_bank_is_empty_does_not_count(
    answers: MunkeyAnswers, train: dict[str, Encoded], settings: Settings, shape: ModelShape, tests: Encoded
) -> None:
    assert answers.sites == set(SITES)

    nobody = place_of(train["hospital-2"].select(np.empty(0, dtype=np.int64)), settings, shape)
    emptied = MunkeyAnswers(answers.model, {**answers.places, "hospital-2": nobody}, settings)

    assert emptied.sites == {"hospital-1", "hospital-3"}
    # It still answers, by the image alone.
    assert torch.allclose(emptied.answer("hospital-2", tests).sum(1), torch.ones(len(tests.records)))


def test_each_hospital_answers_with_its_own_bank(
    answers: MunkeyAnswers, tests: Encoded, settings: Settings, shape: ModelShape
) -> None:
    found = {site: answers.answer(site, tests) for site in SITES}

    for site, probabilities in found.items():
        place = answers.places[site]
        lists = nearest(tests.encoding.keys, place.keys, Recipe.of(settings).neighbours)
        expected = predict(answers.model, place.bank, tests.inputs(shape), lists, Recipe.of(settings).reading)
        assert torch.equal(probabilities, expected)
        assert torch.allclose(probabilities.sum(1), torch.ones(len(expected)))
    assert not torch.equal(found["hospital-1"], found["hospital-2"])


def test_weights_alone_ask_no_bank(answers: MunkeyAnswers, tests: Encoded, shape: ModelShape) -> None:
    alone = [answers.weights_alone(site, tests) for site in SITES]

    assert all(torch.equal(one, predict_image_only(answers.model, tests.inputs(shape))) for one in alone)
    assert not torch.equal(alone[0], answers.answer("hospital-1", tests))


@pytest.mark.parametrize("gone", [[], [0], [1, 2, 5, 8], None])
def test_bank_without_some_rows_is_the_bank_of_the_others(
    train: dict[str, Encoded], settings: Settings, shape: ModelShape, gone: list[int] | None
) -> None:
    records = train["hospital-1"]
    rows = torch.zeros(len(records.records), dtype=torch.bool)
    rows[torch.arange(len(rows)) if gone is None else gone] = True
    left = records.select((~rows).numpy())

    found = place_of(records, settings, shape).without(rows, Recipe.of(settings).neighbours)

    expected = place_of(left, settings, shape)
    assert torch.equal(found.keys, expected.keys)
    for column in fields(Tokens):
        mine, theirs = (getattr(bank.tokens, column.name) for bank in (found.bank, expected.bank))
        assert torch.equal(mine, theirs)
    for name in ("labels", "inputs", "permanent"):
        assert torch.equal(getattr(found.bank, name), getattr(expected.bank, name))
    # Places among the entries that are left, nobody beside itself, and as long as a deletion's patches leave them.
    neighbours = Recipe.of(settings).neighbours
    assert torch.equal(found.bank.lists.indices, expected.bank.lists.indices[:, :neighbours])
    assert torch.equal(found.bank.lists.similarities, expected.bank.lists.similarities[:, :neighbours])
    itself = torch.arange(len(left.records))[:, None]
    assert not (found.bank.lists.indices == itself).any()
    assert found.bank.entries.tolist() == (~rows).nonzero()[:, 0].tolist()


def test_bank_that_loses_entries_stays_as_it_was_and_the_last_two_have_each_other(
    train: dict[str, Encoded], settings: Settings, shape: ModelShape
) -> None:
    place = place_of(train["hospital-1"], settings, shape)
    before = len(place.bank), place.bank.tokens.offsets.clone(), place.keys.clone()

    pair = place.without(torch.arange(len(place.bank)) >= 2, Recipe.of(settings).neighbours)
    pair.bank.tokens.offsets.fill_(math.pi)

    assert len(place.bank) == before[0]
    assert torch.equal(place.bank.tokens.offsets, before[1])
    assert torch.equal(place.keys, before[2])
    assert pair.bank.lists.indices[:, 0].tolist() == [1, 0]
    assert (pair.bank.lists.indices[:, 1:] == NONE).all()


def test_only_federations_that_keep_keys_are_banked(answers: MunkeyAnswers, shape: ModelShape) -> None:
    assert isinstance(answers, Banked)
    assert torch.equal(answers.keys_of("hospital-2"), answers.places["hospital-2"].keys)
    assert not isinstance(PlainFederation(first_plain(shape, 0), frozenset(SITES)), Banked)
    # Keys lie beside a bank; what a site's training reads has none.
    assert "keys" not in {column.name for column in fields(Bank)}
    assert len(answers.keys_of("hospital-1")) == len(answers.places["hospital-1"].bank)

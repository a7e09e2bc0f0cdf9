"""Federated averaging in one process, without Flower: for the oracle and for baselines, which nobody deletes from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import train
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.model_choice import first_model
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded, bank_of, noise_key

Model = TypeVar("Model", bound=nn.Module)

LocalTraining = Callable[[Model, int], int]
"""Trains a model in place in a round, from 1; returns the number of examples."""


@dataclass(frozen=True)
class Averaged(Generic[Model]):
    """One round of averaging, from 1, as a server that keeps everything sees it.

    The sites got the weights `before`; in their order, each `sent` weights back, trained on so many examples; `model`
    has the average.
    """

    number: int
    before: dict[str, torch.Tensor]
    sent: tuple[dict[str, torch.Tensor], ...]
    examples: tuple[int, ...]
    model: Model


def average_rounds(
    model: Model,
    sites: Sequence[LocalTraining[Model]],
    num_rounds: int,
    *,
    after_round: Callable[[Averaged[Model]], None] | None = None,
) -> Model:
    """Train a model in rounds (FedAvg, McMahan et al. 2017, algorithm 1); the model that is passed in is changed.

    All sites take part in each round; `after_round` is called with it and must not change what it is given.
    """
    for number in range(1, num_rounds + 1):
        sent, examples = [], []
        for site in sites:
            local = copy.deepcopy(model)
            examples.append(site(local, number))
            sent.append(local.state_dict())
        before = {name: weight.clone() for name, weight in model.state_dict().items()} if after_round else {}
        model.load_state_dict(average(sent, examples))
        if after_round is not None:
            after_round(Averaged(number, before, tuple(sent), tuple(examples), model))
    return model.eval()


def average(sent: Sequence[Mapping[str, torch.Tensor]], examples: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return the average of several models' weights, each counted with its number of examples."""
    averaged = {}
    for name in sent[0]:
        total = torch.zeros_like(sent[0][name])
        for weights, count in zip(sent, examples, strict=True):
            total = total + weights[name] * count
        averaged[name] = total / sum(examples)
    return averaged


def munkey_site(
    name: str, bank: Bank, recipe: Recipe, trained: Callable[[int], None] = lambda _: None
) -> LocalTraining[Munkey]:
    """Return the local training of a MUNKEY site, with the random choices that the real site of that name makes.

    The bank has the entries that may train shared weights; its tokens are updated in place. `trained` is called with 1
    after each training.
    """

    def train_locally(model: Munkey, number: int) -> int:
        draws = generator(recipe.settings.seed, name, number)
        secret = SecretNoise(noise_key(recipe.settings, name), "training", number)
        examples = train(model, bank, recipe, round_number=number, generator=draws, secret=secret).examples
        trained(1)
        return examples

    return train_locally


@dataclass(frozen=True)
class Learned:
    """What a federation has learned: shared weights, and each site's whole bank with the tokens that go with them."""

    model: Munkey
    banks: dict[str, Bank]


def learn(
    records: Mapping[str, Encoded],
    settings: Settings,
    shape: ModelShape,
    *,
    trained: Callable[[int], None] = lambda _: None,
    after_round: Callable[[int, Learned], None] | None = None,
) -> Learned:
    """Train a federation on its sites' training records as the guarantee in the settings has it; not under `exact`.

    A site without any record does not take part. `trained` is called with 1 after each site's local training, and
    `after_round` after each round, from 1, with what has been learned so far, which changes afterwards.
    """
    recipe = Recipe.of(settings)
    route = recipe.route
    banks = {name: bank_of(some, settings, shape) for name, some in records.items()}
    sites = [munkey_site(name, bank, recipe, trained) for name, bank in banks.items() if len(bank)]
    model = first_model(settings, shape)

    def finish(model: Munkey) -> Learned:
        if not route.joint_tokens:
            for bank in banks.values():
                bank.tokens.copy_(own_tokens(model, bank.inputs))
        return Learned(model.eval(), banks)

    def tell(averaged: Averaged[Munkey]) -> None:
        if after_round is not None:
            after_round(averaged.number, finish(averaged.model))

    if sites:
        model = average_rounds(model, sites, settings.rounds, after_round=tell if after_round else None)
    return finish(model)

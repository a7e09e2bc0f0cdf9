"""Federated averaging in one process, without Flower: for the oracle and for baselines, which nobody deletes from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from client.bank import Bank
from client.training import train
from common.model import Munkey
from common.randomness import generator
from common.settings import Settings

Model = TypeVar("Model", bound=nn.Module)

LocalTraining = Callable[[Model, int], int]
"""Trains a model in place in a round, from 1; returns the number of examples."""


def average_rounds(model: Model, sites: Sequence[LocalTraining[Model]], num_rounds: int) -> Model:
    """Train a model in rounds (FedAvg, McMahan et al. 2017, algorithm 1); the model that is passed in is changed.

    Parameters
    ----------
    model : Module
        The first weights.
    sites : sequence of callable
        Local training of each site.
    num_rounds : int
        Rounds; all sites take part in each.
    """
    for number in range(1, num_rounds + 1):
        total: dict[str, torch.Tensor] = {}
        examples = 0
        for site in sites:
            local = copy.deepcopy(model)
            count = site(local, number)
            examples += count
            for name, weight in local.state_dict().items():
                total[name] = total.get(name, torch.zeros_like(weight)) + weight * count
        model.load_state_dict({name: weight / examples for name, weight in total.items()})
    return model.eval()


def munkey_site(name: str, bank: Bank, settings: Settings) -> LocalTraining[Munkey]:
    """Return the local training of a MUNKEY site, with the random choices that the real site of that name makes."""

    def train_locally(model: Munkey, number: int) -> int:
        draws = generator(settings.seed, name, number)
        return train(model, bank, settings, round_number=number, generator=draws).examples

    return train_locally

"""Three hospitals with a few digits, and a plain ViT that has learned them by heart."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, divide, encode_all
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.unlearning.method import Budget, Method
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, Weights
from tests.simulations.given_records import case_of, train_rows

SETTINGS = Settings(
    guarantee="empirical",
    num_rounds=6,
    width=32,
    depth=1,
    heads=2,
    exemplar_size=8,
    local_epochs=8,
    batch_size=16,
    learning_rate=1e-2,
    seed=3,
)
BUDGET = Budget(2)
_RECORDS = {Split.TRAIN: 72, Split.TEST: 20}


@cache
def small_case(*, whole_site: bool = False, digit: int | None = None) -> Case:
    """Forget every eighth record of the first two of three hospitals, all of the first, or a digit."""
    digits = load_dataset("digits", data_dir=None, seed=0)
    rows = [np.flatnonzero(digits.splits == split.value)[:count] for split, count in _RECORDS.items()]
    images = encode_all(choose_encoder(SETTINGS), digits.select(np.sort(np.concatenate(rows))))
    hospitals = divide(images, 3, alpha=10.0, permanent=0.0, seed=0)
    train = {h.name: train_rows(h) for h in hospitals}
    first, second, _ = train
    steps = {first: 1} if whole_site else {first: 8, second: 8}
    forgotten = {name: train[name][::step] for name, step in steps.items()}
    if digit is not None:
        labels = {h.name: h.given.records.labels for h in hospitals}
        forgotten = {name: rows[labels[name][rows] == digit] for name, rows in train.items()}
    return case_of(hospitals, forgotten, SETTINGS, choose_shape(SETTINGS))


@cache
def trained() -> PlainFederation:
    """Learn all records of the case; nobody may change it."""
    case = small_case()
    return PlainFamily().train(case.everything(), case.settings, case.shape)


def forget(method: Method[PlainFederation], case: Case, budget: Budget = BUDGET) -> Answers:
    """Return the federation that a method leaves of the trained one."""
    return method.forget(trained(), case, budget).answers


def weights(federation: Answers) -> Weights:
    """Return a copy of a plain federation's shared weights."""
    assert isinstance(federation, PlainFederation)
    return {name: weight.clone() for name, weight in federation.model.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    """Say whether weights are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def probabilities(federation: Answers, records: dict[str, Encoded]) -> Tensor:
    """Return (n, classes) answers of each hospital about its own records."""
    return torch.cat([federation.answer(name, some) for name, some in records.items()])


def labels_of(records: dict[str, Encoded]) -> Tensor:
    """Return the (n,) labels in the order of `probabilities`."""
    return torch.from_numpy(np.concatenate([some.records.labels for some in records.values()]))


def loss(federation: Answers, records: dict[str, Encoded]) -> float:
    """Return the mean cross-entropy."""
    return float(F.nll_loss(probabilities(federation, records).log(), labels_of(records)))


def accuracy(federation: Answers, records: dict[str, Encoded]) -> float:
    """Return the share of right answers."""
    return float((probabilities(federation, records).argmax(1) == labels_of(records)).float().mean())

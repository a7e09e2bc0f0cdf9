"""Fine-tuning is training that goes on with fewer records."""

from __future__ import annotations

import copy

import pytest
import torch

from fedmunkey.common.model.randomness import generator
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.plain_models import PlainModel, train_plain
from fedmunkey.simulations.unlearning.method import weights_bytes
from fedmunkey.simulations.unlearning.plain.fine_tuning import FineTuning
from fedmunkey.simulations.unlearning.plain.local_epochs import RATE
from tests.simulations.unlearning.small_case import (
    BUDGET,
    SETTINGS,
    accuracy,
    forget,
    same,
    small_case,
    trained,
    weights,
)


def test_it_continues_training_on_what_is_retained() -> None:
    case = small_case()
    settings = SETTINGS.replace(num_rounds=BUDGET.rounds, learning_rate=SETTINGS.learning_rate * RATE)

    def site(name: str) -> LocalTraining[PlainModel]:
        records = case.retained()[name].records
        inputs, labels = torch.from_numpy(records.images), torch.from_numpy(records.labels)

        def train(model: PlainModel, number: int) -> int:
            return train_plain(model, inputs, labels, settings, number, generator(3, "fine-tuning", name, number))

        return train

    sites = [site(name) for name in case.retained()]
    continued = average_rounds(copy.deepcopy(trained().model), sites, BUDGET.rounds)

    assert same(weights(forget(FineTuning(), case)), continued.state_dict())


@pytest.mark.parametrize(("whole_site", "hospitals"), [(False, 3), (True, 2)])
def test_what_is_retained_stays_known_and_weights_go_to_and_from_each_hospital_that_retains_something(
    whole_site: bool, hospitals: int
) -> None:
    case = small_case(whole_site=whole_site)

    done = FineTuning().forget(trained(), case, BUDGET)

    assert accuracy(done.answers, case.retained()) >= accuracy(trained(), case.retained()) - 0.05
    assert done.bytes_sent == 2 * BUDGET.rounds * hospitals * weights_bytes(trained().model)
    assert len(done.answers.sites) == hospitals

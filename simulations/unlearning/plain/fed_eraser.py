"""FedEraser: replay kept updates from the first weights, with their lengths and with directions that are found again.

Liu et al. 2021, "FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning Models", IWQoS.
"""

from __future__ import annotations

import copy

import torch

from fedmunkey.common.model.randomness import generator
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import average
from fedmunkey.simulations.federation.plain_models import train_plain
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod, Weights

INTERVAL = 2
"""Every how many rounds the server has kept updates: the paper's retaining interval, with the value that it settles on.
"""

CALIBRATION = 0.5
"""Epochs of calibration for one of training: the paper's calibration ratio r, with the value that it settles on."""


class FedEraser(PlainMethod):
    """Rebuild a federation from every second round's updates, calibrated by what hospitals retain.

    The paper forgets whole clients, and a hospital of which nothing is retained is left out here as there. For records
    of a hospital that stays it is adapted: that hospital calibrates with what it retains, and all that is left of its
    forgotten records is the length of its kept updates. In the first round hospitals send the same first weights
    changed by their own records only, so those that forget nothing are not asked again.

    Half of the rounds are replayed with half of the epochs, whatever the budget: this method takes more than those
    that begin from the trained weights.
    """

    kind = "fed-eraser"
    words = "FedEraser"
    paper = "Liu et al. 2021, IWQoS"
    needs_data = True
    retrains = True
    choices = ({}, {"calibration": 1.0}, {"interval": 1}, {"interval": 1, "calibration": 1.0})

    def __init__(self, family: PlainFamily | None = None) -> None:
        super().__init__(family)
        self.interval = INTERVAL
        self.calibration = CALIBRATION

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Replay what the server has kept; raises `ValueError` if the federation comes without its rounds."""
        del budget
        if not trained.rounds:
            raise ValueError("FedEraser needs the rounds that the server received; keep them when training")
        settings = case.settings.replace(local_epochs=max(1, int(case.settings.local_epochs * self.calibration)))
        retained = {name: some for name, some in case.retained().items() if len(some.records)}
        model = copy.deepcopy(trained.model)
        model.load_state_dict(trained.rounds[0].before)
        calibrations = 0
        for number, kept in list(enumerate(trained.rounds, start=1))[:: self.interval]:
            weights = copy.deepcopy(model.state_dict())
            updates = []
            for name, some in retained.items():
                old = _difference(kept.sent[name], kept.before)
                if number == 1 and not len(case.forgotten[name]):
                    updates.append(old)
                    continue
                local = copy.deepcopy(model)
                labels = torch.from_numpy(some.records.labels)
                draws = generator(settings.seed, self.kind, name, number)
                train_plain(local, some.inputs(model.shape), labels, settings, number, draws)
                updates.append(calibrate(old, _difference(local.state_dict(), weights)))
                calibrations += 1
            update = average(updates, [len(some.records) for some in retained.values()])
            model.load_state_dict({name: weight + update[name] for name, weight in weights.items()})
        answers = PlainFederation(model.eval(), frozenset(retained))
        return Forgotten(answers, 2 * weights_bytes(model) * calibrations)


def calibrate(old: Weights, new: Weights) -> Weights:
    """Return an update as long as the old one in the direction of the new one, ||old|| new / ||new||.

    The paper's update calibrating. The norm is that of all weights as one vector, as its formula has it. Where `new`
    has no direction, the update is zero.
    """
    length = _length(new)
    share = _length(old) / length if length else 0.0
    return {name: update * share for name, update in new.items()}


def _length(update: Weights) -> float:
    return float(torch.linalg.vector_norm(torch.cat([part.flatten().double() for part in update.values()])))


def _difference(after: Weights, before: Weights) -> Weights:
    return {name: weight - before[name] for name, weight in after.items()}

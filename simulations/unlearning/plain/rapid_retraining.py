"""Rapid retraining: training again without the forgotten records, with second-order steps and so in fewer rounds.

Liu et al. 2022, "The Right to be Forgotten in Federated Learning: An Efficient Realization with Rapid Retraining",
INFOCOM, arXiv 2203.07320.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.common.model.randomness import generator
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.plain_models import Examples, PlainModel, falling
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain.record_gradients import record_gradients
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod, Weights

ROUNDS = 0.5
"""Rounds for one of training."""

BETAS = (0.9, 0.999)
"""Momentum of the gradient and of the squared curvature: the paper's."""

POWER = 0.5
"""Power of the curvature by which a step is divided (AdaHessian's Hessian power).

Fisher information goes down with the square of the gradients, so with power 1 a step goes up as they go down. On
BreastMNIST, none of the rates (1e-4 to 1) and dampings (1e-4 to 1) tried with power 1 learned much more than the most
frequent class on both image paths.
"""

RATE = 4.0
"""Learning rate for one of training, chosen from 1 and 4 by BreastMNIST's validation accuracy."""

DAMPING = 1e-8
"""Added to the curvature's power, so that a weight without any gradient stays where it is."""


@dataclass(frozen=True)
class Moments:
    """Sums over past steps, weighted by momentum, for each weight by name."""

    steps: int
    gradient: Mapping[str, Tensor]
    squared_curvature: Mapping[str, Tensor]

    @classmethod
    def none(cls, weights: Mapping[str, Tensor]) -> Moments:
        """Return the moments before the first step."""
        return cls(0, _zeros(weights), _zeros(weights))


class RapidRetraining(PlainMethod):
    """Train from the first weights on what is retained, in half of the rounds whatever the budget.

    Each hospital's moments begin again with each round, as in training they do. Unlike in the paper, each weight has
    its own curvature, not one averaged over a block of three, and steps are divided by its square root (`POWER`).
    """

    kind = "rapid-retraining"
    words = "rapid retraining"
    paper = "Liu et al. 2022, arXiv 2203.07320"
    needs_data = True
    retrains = True
    choices = ({}, {"rate": 1.0}, {"rate": 8.0}, {"rate": 16.0})

    def __init__(self, family: PlainFamily | None = None) -> None:
        super().__init__(family)
        self.rate = RATE

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Train again; nothing of the trained weights is used."""
        del budget
        settings = case.settings.replace(num_rounds=max(1, int(case.settings.descending_rounds * ROUNDS)))
        retained = {name: some for name, some in case.retained().items() if len(some.records)}
        shape = trained.model.shape
        sites = [rapid_site(name, Examples.of(some, shape), settings, self.rate) for name, some in retained.items()]
        model = average_rounds(self.family.first(shape, settings.seed), sites, settings.descending_rounds)
        sent = 2 * weights_bytes(trained.model) * settings.descending_rounds * len(retained)
        return Forgotten(PlainFederation(model, frozenset(retained)), sent)


def rapid_site(name: str, records: Examples, settings: Settings, rate: float = RATE) -> LocalTraining[PlainModel]:
    """Return the local training of a site with second-order steps; epochs and batches are those of training."""

    def train_locally(model: PlainModel, number: int) -> int:
        """Train in place for a round of a number; return how many records took part."""
        draws = generator(settings.seed, RapidRetraining.kind, name, number)
        step = rate * settings.learning_rate * falling(number, settings.descending_rounds)
        weights: Weights = dict(model.state_dict())
        moments = Moments.none(weights)
        for _ in range(settings.local_epochs):
            for batch in records.batches(settings.batch_size, draws):
                each = record_gradients(model, weights, batch, settings.label_smoothing)
                gradient = {name: part.mean(0) for name, part in each.items()}
                fisher = {name: part.square().mean(0) for name, part in each.items()}
                weights, moments = newton_step(weights, gradient, fisher, moments, rate=step)
        model.load_state_dict(weights)
        return len(records)

    return train_locally


def newton_step(
    weights: Mapping[str, Tensor],
    gradient: Mapping[str, Tensor],
    curvature: Mapping[str, Tensor],
    moments: Moments,
    *,
    rate: float,
    betas: tuple[float, float] = BETAS,
    power: float = POWER,
    damping: float = DAMPING,
) -> tuple[Weights, Moments]:
    """Take one step of Newton's method with a diagonal Hessian and momentum.

    w <- w - rate m / (sqrt(v)^power + damping), where m and v are means of the gradients g and of the squared
    curvatures h^2 of all steps so far, a step counting beta times as much as the one after it (Liu et al. 2022; the
    form and the power are AdaHessian's, Yao et al. 2021, arXiv 2006.00719). Without momentum that is
    w - rate g / (h^power + damping): the minimum of a separable quadratic function for rate 1, power 1 and no damping.

    `curvature` is not negative; `rate` is the share of the step that is taken, and a `power` of 0 leaves the gradient
    alone. Returned are weights and moments after the step.
    """
    steps = moments.steps + 1
    first, second, after = {}, {}, {}
    for name, weight in weights.items():
        first[name] = betas[0] * moments.gradient[name] + (1 - betas[0]) * gradient[name]
        second[name] = betas[1] * moments.squared_curvature[name] + (1 - betas[1]) * curvature[name].square()
        mean = first[name] / (1 - betas[0] ** steps)
        hessian = (second[name] / (1 - betas[1] ** steps)).sqrt()
        after[name] = weight - rate * mean / (hessian**power + damping)
    return after, Moments(steps, first, second)


def _zeros(weights: Mapping[str, Tensor]) -> Weights:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}

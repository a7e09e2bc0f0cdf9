"""Selective synaptic dampening (SSD): shrink the weights that matter far more for what is forgotten than for all.

Foster et al. 2024, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI, arXiv
2308.07707.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.plain_vit import Examples
from fedmunkey.simulations.unlearning.local_epochs import shares_of
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, Method, weights_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, Weights
from fedmunkey.simulations.unlearning.record_gradients import record_gradients

ALPHA = 10.0
"""How many times as important for forgotten records as for all a weight must be to be dampened: the paper's."""

LAMBDA = 1.0
"""How gently weights are dampened: the paper's."""

_BATCH = 64


class SynapticDampening(Method[PlainFederation]):
    """Dampen weights by importances that hospitals compute and the server adds up; no training.

    A hospital with training records sends its importances once, one with forgotten records those of the forgotten,
    too; the dampened weights go back to those that retain something.

    Importances are means, and all training records include the forgotten ones, so none is more than 1 / share times as
    important for a forgotten share of all records: with an alpha of 10 nothing is dampened where a tenth or more is
    forgotten.
    """

    name = "ssd"
    title = "selective synaptic dampening"
    paper = "Foster et al. 2024, arXiv 2308.07707"
    family = PlainFamily()
    needs_data = True
    retrains = False

    def __init__(self, alpha: float = ALPHA, dampening: float = LAMBDA) -> None:
        self.alpha = alpha
        self.dampening = dampening

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Dampen the weights once, whatever the budget."""
        del budget
        model = copy.deepcopy(trained.model)
        shares = [share for share in shares_of(case).values() if len(share)]
        forgotten = [share.forgotten for share in shares if len(share.forgotten)]
        forgotten_sums = [squared_gradients(model, records) for records in forgotten]
        retained_sums = [squared_gradients(model, share.retained) for share in shares]
        of_forgotten = mean_importances(forgotten_sums, sum(map(len, forgotten)))
        of_all = mean_importances([*forgotten_sums, *retained_sums], sum(map(len, shares)))
        weights = dict(model.state_dict())
        model.load_state_dict(dampen(weights, of_all, of_forgotten, alpha=self.alpha, dampening=self.dampening))
        left = frozenset(name for name, some in case.retained().items() if len(some.records))
        messages = len(shares) + len(forgotten) + len(left)
        return Forgotten(PlainFederation(model.eval(), left), messages * weights_bytes(model))


def dampen(
    weights: Mapping[str, Tensor],
    of_all: Mapping[str, Tensor],
    of_forgotten: Mapping[str, Tensor],
    *,
    alpha: float,
    dampening: float,
) -> Weights:
    """Multiply each weight by min(lambda I_D / I_F, 1) where I_F > alpha I_D; leave the others as they are.

    Foster et al. 2024, arXiv 2308.07707. I_D and I_F are a weight's importances for all and for forgotten records, and
    `dampening` is lambda.
    """
    dampened = {}
    for name, weight in weights.items():
        chosen = of_forgotten[name] > alpha * of_all[name]
        factor = (dampening * of_all[name] / of_forgotten[name]).clamp(max=1.0)
        dampened[name] = torch.where(chosen, weight * factor, weight)
    return dampened


def mean_importances(sums: Sequence[Mapping[str, Tensor]], count: int) -> Weights:
    """Add up what hospitals send, and divide by the number of their records."""
    return {name: torch.stack([part[name] for part in sums]).sum(0) / count for name in sums[0]}


def squared_gradients(model: nn.Module, records: Examples) -> Weights:
    """Return for each weight the sum over records of (d ln p(label | input) / d weight)^2.

    Divided by the number of records, that is the diagonal of the empirical Fisher information, which Foster et al. 2024
    take for importance. Each record's gradient is squared by itself, not that of a batch.
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in records.parts(_BATCH):
        gradients = record_gradients(model, weights, batch, 0.0)
        sums = {name: total + gradients[name].square().sum(0) for name, total in sums.items()}
    return sums

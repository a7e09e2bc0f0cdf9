"""Selective synaptic dampening (SSD): shrink the weights that matter far more for what is forgotten than for all.

Foster et al. 2024, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI, arXiv
2308.07707; the threshold by how much is forgotten is of Schoepf et al. 2024, "Parameter-Tuning-Free Data Entry Error
Unlearning with Adaptive Selective Synaptic Dampening", arXiv 2402.10098.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.plain_models import Examples
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain.local_epochs import shares_of
from fedmunkey.simulations.unlearning.plain.record_gradients import record_gradients
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod, Weights

ADAPTIVE = 0.0
"""In place of an alpha: take the one above which the share of weights lies that `dampened_share` says.

The paper's alpha of 10 was found where a few records of many are forgotten. Importances are means, and all training
records include the forgotten ones, so none is more than 1 / share times as important for a forgotten share of all
records: where a tenth or more is forgotten nothing has ten times the importance, and nothing would be dampened.
"""

LAMBDA = 1.0
"""How gently weights are dampened: the paper's."""

_BATCH = 64


class SynapticDampening(PlainMethod):
    """Dampen weights by importances that hospitals compute and the server adds up; no training.

    A hospital with training records sends its importances once, one with forgotten records those of the forgotten,
    too; the dampened weights go back to those that retain something.

    A weight is dampened that is more than `alpha` times as important for forgotten records as for all, by default with
    the alpha that follows from the forgotten share; `portion` is by how much more or fewer weights lie above that one.
    """

    kind = "ssd"
    words = "selective synaptic dampening"
    paper = "Foster et al. 2024, arXiv 2308.07707"
    needs_data = True
    retrains = False
    choices = ({}, {"portion": 0.25}, {"portion": 4.0, "dampening": 3.0}, {"portion": 16.0, "dampening": 3.0})

    def __init__(
        self, family: PlainFamily | None = None, *, alpha: float = ADAPTIVE, dampening: float = LAMBDA
    ) -> None:
        super().__init__(family)
        self.alpha = alpha
        self.dampening = dampening
        self.portion = 1.0

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Dampen the weights once, whatever the budget."""
        del budget
        model = copy.deepcopy(trained.model)
        shares = [share for share in shares_of(case, trained.model.shape).values() if len(share)]
        forgotten = [share.forgotten for share in shares if len(share.forgotten)]
        forgotten_sums = [squared_gradients(model, records) for records in forgotten]
        retained_sums = [squared_gradients(model, share.retained) for share in shares]
        of_forgotten = mean_importances(forgotten_sums, sum(map(len, forgotten)))
        of_all = mean_importances([*forgotten_sums, *retained_sums], sum(map(len, shares)))
        weights = dict(model.state_dict())
        alpha = self.alpha
        if alpha == ADAPTIVE:
            dampened = self.portion * dampened_share(sum(map(len, forgotten)) / sum(map(len, shares)))
            alpha = adaptive_alpha(of_all, of_forgotten, min(dampened, 1.0))
        model.load_state_dict(dampen(weights, of_all, of_forgotten, alpha=alpha, dampening=self.dampening))
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


def dampened_share(forgotten: float) -> float:
    """Return which share of the weights is dampened where a share of all records is forgotten: ln(1 + 100 s) percent.

    Schoepf et al. 2024, arXiv 2402.10098: the threshold is the percentile 100 - ln(1 + 100 |D_f| / |D|) of how many
    times as important weights are for the forgotten as for all.
    """
    return math.log1p(100 * forgotten) / 100


def adaptive_alpha(of_all: Mapping[str, Tensor], of_forgotten: Mapping[str, Tensor], share: float) -> float:
    """Return the alpha above which a share of the weights lies, 0 to 1.

    A weight that matters for nothing counts as one that lies below.
    """
    ratios = torch.cat(
        [torch.where(of_all[name] > 0, some / of_all[name], 0.0).flatten() for name, some in of_forgotten.items()]
    )
    above = int(len(ratios) * share)
    # The next smaller one: those that are chosen lie above it.
    return float(ratios.sort(descending=True).values[above]) if above < len(ratios) else 0.0


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

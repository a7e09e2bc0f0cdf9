"""The simplest attack: what a federation is sure of, it has learned.

Yeom et al. 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting", arXiv 1709.01604,
adversary 2: the smaller a record's loss, the likelier it was in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.asking import honest_records, join, log_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded


class LossThreshold(Attack):
    """Compare the loss of forgotten records with that of test records, each at its own hospital."""

    name = "loss-threshold"
    title = "loss threshold"
    question = "Is the federation surer of forgotten records than of records it never saw?"
    paper = "Yeom et al. 2018, arXiv 1709.01604"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the log-probability of the label, which is the loss with its sign turned."""
        del shadows
        return score_by_loss(target.state.answer, case)


def score_by_loss(ask: Callable[[str, Encoded], Tensor], case: Case) -> Scores:
    """Score forgotten records, and the test records of the hospitals that have any, by their log-probability.

    `ask` takes a hospital's name and n records, and returns (n, num_classes) probabilities. Canaries are left out.
    """
    members, others = [], []
    forgotten = honest_records(case)
    for hospital in case.hospitals:
        if hospital.name in forgotten:
            mine, test = forgotten[hospital.name], hospital.given.split(Split.TEST)
            members.append(log_confidence(ask(hospital.name, mine), mine))
            others.append(log_confidence(ask(hospital.name, test), test))
    return Scores(join(members), join(others))

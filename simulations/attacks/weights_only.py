"""What the shared weights still know when every hospital's bank is taken away.

A deleted entry cannot answer any more, so whatever this attack finds was learned by the weights and outlives deletion.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.attacks.loss_threshold import score_by_loss
from fedmunkey.simulations.federation.case import Case


class WeightsOnly(Attack):
    """The loss threshold of Yeom et al., asked of the shared weights alone."""

    name = "weights-only"
    title = "loss threshold, weights alone"
    question = "Without any bank, are the shared weights surer of forgotten records than of records they never saw?"
    paper = "Yeom et al. 2018, arXiv 1709.01604"
    asked = "Asked without its banks, the federation"
    holds = "The shared weights alone know no more than the oracle's"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the log-probability that the shared weights give to the label."""
        del shadows
        return score_by_loss(target.state.weights_alone, case)

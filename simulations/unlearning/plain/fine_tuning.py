"""Fine-tuning: train on with what is retained, and hope that the rest fades (catastrophic forgetting).

Golatkar et al. 2020, "Eternal Sunshine of the Spotless Net", arXiv 1911.04933, compare with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.plain_models import Loss, task_loss
from fedmunkey.simulations.unlearning.method import Budget, Forgotten
from fedmunkey.simulations.unlearning.plain.local_epochs import RATE, Epoch, Share, shares_of, unlearn
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod


class FineTuning(PlainMethod):
    """Train the trained model on, on what hospitals retain; forgotten records are not needed."""

    kind = "fine-tuning"
    words = "fine-tuning"
    paper = "Golatkar et al. 2020, arXiv 1911.04933"
    needs_data = True
    retrains = False
    choices = ({}, {"rate": 0.1}, {"rate": 1.0}, {"rate": 2.0})

    def __init__(self, family: PlainFamily | None = None) -> None:
        super().__init__(family)
        self.rate = RATE

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Train on for the budget's rounds; a hospital that retains nothing has no part."""
        settings = case.settings

        def steps(share: Share, epoch: Epoch, draws: torch.Generator) -> Iterator[Loss]:
            del epoch
            for batch in share.retained.batches(settings.batch_size, draws):
                yield partial(task_loss, records=batch, settings=settings)

        shares = {name: share.without_forgotten() for name, share in shares_of(case, trained.model.shape).items()}
        return unlearn(trained, shares, settings, budget, self.kind, steps, rate=self.rate)

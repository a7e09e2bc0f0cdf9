"""SCRUB: a student that obeys its teacher, the trained model, on what is retained and disobeys it on what is forgotten.

Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning", NeurIPS, arXiv 2302.09880.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.plain_models import Examples, Loss, PlainModel, task_loss
from fedmunkey.simulations.unlearning.method import Budget, Forgotten
from fedmunkey.simulations.unlearning.plain.local_epochs import RATE, Epoch, Share, shares_of, unlearn
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod

ALPHA = 0.001
"""Weight of the divergence from the teacher on retained records.

This and the next three are those of the authors' large-scale experiments.
"""

GAMMA = 0.99
"""Weight of the task loss on retained records."""

TEMPERATURE = 4.0
"""By which logits are divided before they are compared."""

MAX_SHARE = 2 / 3
"""Share of the epochs, from the first, that begin with max steps."""


class Scrub(PlainMethod):
    """Alternate max steps, away from the teacher on forgotten records, with min steps on retained ones.

    Each hospital alternates by epochs within a round, as the paper does without a federation; the last epochs are min
    steps only. The first max steps hardly move a student that is still its teacher. A hospital of which all is
    forgotten has no part in rounds without max steps.
    """

    kind = "scrub"
    words = "SCRUB"
    paper = "Kurmanji et al. 2023, arXiv 2302.09880"
    needs_data = True
    retrains = False
    choices = ({}, {"rate": 1.0}, {"rate": 1.0, "max_share": 1 / 3}, {"alpha": 0.5, "rate": 1.0})

    def __init__(self, family: PlainFamily | None = None) -> None:
        super().__init__(family)
        self.alpha = ALPHA
        self.max_share = MAX_SHARE
        self.rate = RATE

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Train a student from the trained weights for the budget's rounds."""
        settings = case.settings
        teacher = copy.deepcopy(trained.model).requires_grad_(False)

        def apart(model: PlainModel, records: Examples) -> Tensor:
            return divergence(teacher(records.inputs), model(records.inputs), TEMPERATURE)

        def lower(model: PlainModel, records: Examples) -> Tensor:
            return self.alpha * apart(model, records) + GAMMA * task_loss(model, records, settings)

        def higher(model: PlainModel, records: Examples) -> Tensor:
            return -apart(model, records)

        def steps(share: Share, epoch: Epoch, draws: torch.Generator) -> Iterator[Loss]:
            if has_max_steps(epoch, self.max_share):
                for batch in share.forgotten.batches(settings.batch_size, draws):
                    yield partial(higher, records=batch)
            for batch in share.retained.batches(settings.batch_size, draws):
                yield partial(lower, records=batch)

        return unlearn(
            trained, shares_of(case, trained.model.shape), settings, budget, self.kind, steps, rate=self.rate
        )


def has_max_steps(epoch: Epoch, share: float = MAX_SHARE) -> bool:
    """Return whether an epoch begins with max steps: those of the first share of all do, and always the first."""
    return epoch.number <= max(1, int(epoch.total * share))


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student), the mean over records, of answers softened by a temperature T.

    Kurmanji et al. 2023 take D_KL(p(f(x; w_o)) || p(f(x; w_u))); temperature and the factor, which keeps gradients of
    one size, are of Hinton et al. 2015, arXiv 1503.02531. Both are (n, classes) logits.
    """
    said, wanted = (student / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(said, wanted, reduction="batchmean", log_target=True)

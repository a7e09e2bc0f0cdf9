"""NegGrad+: lower the loss on what is retained and, with a small weight, raise it on what is forgotten.

Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning", NeurIPS, arXiv 2302.09880, compare SCRUB with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.plain_models import Examples, Loss, PlainModel, task_loss
from fedmunkey.simulations.unlearning.method import Budget, Forgotten
from fedmunkey.simulations.unlearning.plain.local_epochs import RATE, Epoch, Share, shares_of, unlearn
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod

ALPHA = 0.95
"""Weight of the retained loss, which the paper tunes for each task.

Of 0.95, 0.99 and 0.9999, tried on BreastMNIST with one seed, this one forgets most; test and retained accuracy hardly
differ.
"""

CEILING = 2.0
"""How far the loss on a forgotten record is raised, in units of ln(classes), the loss of one who guesses.

The paper has no such bound. Without it, a hospital of which all is forgotten would climb for ever.
"""


class NegativeGradient(PlainMethod):
    """Go down the retained and up the forgotten loss in the same step.

    An epoch goes once through a hospital's retained records; its forgotten ones are repeated beside them. Where nothing
    is retained it goes once through the forgotten ones.

    `alpha` is the weight of the retained loss, from 0 to 1.
    """

    kind = "neg-grad-plus"
    words = "NegGrad+"
    paper = "Kurmanji et al. 2023, arXiv 2302.09880"
    needs_data = True
    retrains = False
    choices = ({}, {"alpha": 0.8}, {"alpha": 0.8, "rate": 1.0}, {"alpha": 0.5, "rate": 0.25})

    def __init__(self, family: PlainFamily | None = None, *, alpha: float = ALPHA) -> None:
        super().__init__(family)
        self.alpha = alpha
        self.rate = RATE

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Train on for the budget's rounds with both kinds of records."""
        settings = case.settings
        ceiling = CEILING * math.log(case.shape.num_classes)

        def loss(model: PlainModel, retained: Examples, forgotten: Examples) -> Tensor:
            both = task_loss(model, retained.joined(forgotten), settings, reduction="none")
            return neg_grad_plus(both[: len(retained)], both[len(retained) :], alpha=self.alpha, ceiling=ceiling)

        def steps(share: Share, epoch: Epoch, draws: torch.Generator) -> Iterator[Loss]:
            del epoch
            size = settings.batch_size
            if not len(share.retained):
                for batch in share.forgotten.batches(size, draws):
                    yield partial(loss, retained=share.retained, forgotten=batch)
            again = _repeated(share.forgotten, size, draws)
            for batch in share.retained.batches(size, draws):
                yield partial(loss, retained=batch, forgotten=next(again, share.forgotten))

        return unlearn(
            trained, shares_of(case, trained.model.shape), settings, budget, self.kind, steps, rate=self.rate
        )


def neg_grad_plus(retained: Tensor, forgotten: Tensor, *, alpha: float, ceiling: float) -> Tensor:
    """Return alpha mean(l_R) - (1 - alpha) mean(min(l_F, ceiling)): Kurmanji et al. 2023, with a ceiling.

    The losses are those of single records, (n,) and (m,); a part without any counts as 0.
    """
    return alpha * _mean(retained) - (1 - alpha) * _mean(forgotten.clamp(max=ceiling))


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, len(losses))


def _repeated(records: Examples, size: int, draws: torch.Generator) -> Iterator[Examples]:
    """Yield batches without end, each time in another order; nothing if there are no records."""
    while len(records):
        yield from records.batches(size, draws)

"""Retraining without the forgotten records: the oracle of each family."""

from __future__ import annotations

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, training_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, PlainMethod

_OTHER_SEED = 1_000_003
"""Added to the seed, so that retraining is compared with an oracle that made other random choices."""


class Retraining(PlainMethod):
    """Train again from other first weights: exact, and as dear as training was."""

    kind = "retraining"
    words = "retrained"
    paper = "Cao and Yang 2015, IEEE S&P"
    needs_data = True
    retrains = True

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Train on what is retained, for all rounds whatever the budget."""
        del trained, budget
        other = other_choices(case)
        return self.trained_again(self.family.train(case.retained(), other.settings, case.shape), case)

    def trained_again(self, again: PlainFederation, case: Case) -> Forgotten:
        """Return what a federation is that has been trained so already."""
        return Forgotten(again, training_bytes(again, case.settings.descending_rounds))


def other_choices(case: Case) -> Case:
    """Return the same question with other first weights and random choices."""
    return case.with_seed((case.settings.seed + _OTHER_SEED) % 2**31)

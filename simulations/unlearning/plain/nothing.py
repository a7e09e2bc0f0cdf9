"""Doing nothing: what forgetting has to be better than."""

from __future__ import annotations

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.unlearning.method import Budget, Forgotten
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation, PlainMethod


class Nothing(PlainMethod):
    """Leave the trained federation as it is."""

    kind = "nothing"
    words = "nothing done"
    paper = "Dosovitskiy et al. 2021, arXiv 2010.11929; McMahan et al. 2017, arXiv 1602.05629"
    needs_data = False
    retrains = False

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Return what was trained."""
        del case, budget
        return Forgotten(trained, 0)

"""Retraining from a checkpoint: rewind to the weights of an earlier round, and go on without the forgotten records.

Mu and Klabjan 2024, "Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions", NeurIPS 2025, arXiv
2409.09778, without the noise that makes theirs certified.
"""

from __future__ import annotations

import copy

from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.plain_models import Examples, PlainModel, plain_site
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, weights_bytes
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, PlainMethod

REWOUND = 0.5
"""Share of the rounds that are taken back. The paper has no one value: more costs more and forgets more."""


class Rewinding(PlainMethod):
    """Take back the last rounds, and repeat them with what hospitals retain.

    The weights that it begins from have learned from the forgotten records in the rounds that stay. With all rounds
    taken back it is the oracle, to the last bit.
    """

    kind = "checkpoint"
    words = "retrained from a checkpoint"
    paper = "Mu and Klabjan 2024, arXiv 2409.09778"
    needs_data = True
    retrains = False
    choices = ({}, {"rewound": 0.25}, {"rewound": 0.75}, {"rewound": 0.9})

    def __init__(self, family: PlainFamily | None = None) -> None:
        super().__init__(family)
        self.rewound = REWOUND

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        """Go on from a kept round, whatever the budget; raises `ValueError` if the federation comes without them."""
        del budget
        total = len(trained.rounds)
        if not total:
            raise ValueError("a checkpoint is one of the rounds that the server received; keep them when training")
        kept = min(total - 1, round(total * (1 - self.rewound)))
        model, settings = copy.deepcopy(trained.model), case.settings
        model.load_state_dict(trained.rounds[kept].before)
        retained = {name: some for name, some in case.retained().items() if len(some.records)}
        sites = [
            _later(plain_site(name, Examples.of(some, model.shape), settings), kept) for name, some in retained.items()
        ]
        model = average_rounds(model, sites, total - kept)
        sent = 2 * weights_bytes(model) * (total - kept) * len(retained)
        return Forgotten(PlainFederation(model, frozenset(retained)), sent)


def _later(site: LocalTraining[PlainModel], rounds: int) -> LocalTraining[PlainModel]:
    """Return the training of a site in rounds that come after some others."""
    return lambda model, number: site(model, number + rounds)

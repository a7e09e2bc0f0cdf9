"""Whether what was forgotten comes back when a federation goes on learning from what it retained.

arXiv 2505.22310: after many ways to unlearn, some fine-tuning on retained records alone restores most of the accuracy
on forgotten ones, for the weights had only hidden them. A model that never saw the records cannot get them back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.attacks.loss_threshold import score_by_loss
from fedmunkey.simulations.federation.answers import Answers, HospitalBank
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds, munkey_site
from fedmunkey.simulations.federation.plain_models import Examples, PlainModel, plain_site
from fedmunkey.simulations.federation.solved_federation import SolvedFederation
from fedmunkey.simulations.unlearning.munkey import MunkeyFederation
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation

_SHARE = 4
"""A federation goes on for a quarter of its rounds, with the rates that it had after half of them."""


class GoingOn(Attack):
    """Let the federation learn on from retained records, then compare losses.

    Under `exact` going on is the next release; whoever descends has more rounds of training.
    """

    name = "going-on"
    title = "loss threshold after going on"
    question = "When the federation goes on learning from retained records alone, does what was forgotten come back?"
    paper = "Fine-tuning resurrects what was unlearned, arXiv 2505.22310"
    asked = "Having gone on with what it retained, the federation"
    holds = "What was forgotten does not come back"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the label's log-probability then; nothing for a federation that does not say how it goes on."""
        del shadows
        further = go_on(target.state, case)
        return Scores.none() if further is None else score_by_loss(further.answer, case)


@singledispatch
def go_on(answers: Any, case: Case) -> Answers | None:
    """Return the federation after it has learned on from what the case retains, or None where there is no such way.

    What is passed in stays as it is. Federations of a new kind are registered.
    """
    del answers, case
    return None


@go_on.register
def _solved(answers: SolvedFederation, case: Case) -> SolvedFederation:
    del case
    return answers.forget({})


@go_on.register
def _munkey(answers: MunkeyFederation, case: Case) -> MunkeyFederation:
    settings = _as_further(answers.settings)
    recipe = Recipe.of(settings)
    del case
    banks = {name: copy.deepcopy(place.bank) for name, place in answers.places.items()}
    sites = [munkey_site(name, bank, recipe) for name, bank in banks.items() if len(bank)]
    model = _last_rounds(copy.deepcopy(answers.model), sites, settings)
    if not recipe.route.joint_tokens:
        for bank in banks.values():
            bank.tokens.copy_(own_tokens(model, bank.inputs))
    places = {name: HospitalBank(bank, answers.places[name].keys) for name, bank in banks.items()}
    return replace(answers, model=model, places=places)


@go_on.register
def _plain(answers: PlainFederation, case: Case) -> PlainFederation:
    settings = _as_further(case.settings)
    retained = {name: some for name, some in case.retained().items() if len(some.records)}
    sites = [plain_site(name, Examples.of(some, answers.model.shape), settings) for name, some in retained.items()]
    model: PlainModel = _last_rounds(copy.deepcopy(answers.model), sites, settings)
    return PlainFederation(model, frozenset(retained))


def _as_further(settings: Settings) -> Settings:
    """Return settings with random choices that training has not made."""
    return settings.replace(seed=derive_seed(settings.seed, "going on") % 2**31)


def _last_rounds(model: Any, sites: Sequence[LocalTraining[Any]], settings: Settings) -> Any:
    """Train for a share of all rounds, as in the middle of them: at their end, rates have fallen to nothing."""
    total = settings.descending_rounds
    count = max(1, total // _SHARE)
    late = [_later(site, min(total // 2, total - count)) for site in sites]
    return average_rounds(model, late, count) if late else model


def _later(site: LocalTraining[Any], by: int) -> LocalTraining[Any]:
    return lambda model, number: site(model, number + by)

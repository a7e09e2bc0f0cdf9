"""MUNKEY: each hospital drops its entries; one method for each guarantee.

Under `exact` the shared weights are then solved for anew.

Laguna et al. 2026, arXiv 2603.15033.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.accounting import epsilon_of
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import HospitalBank, MunkeyAnswers
from fedmunkey.simulations.federation.case import Case, Rows
from fedmunkey.simulations.federation.federated_loop import Learned, learn
from fedmunkey.simulations.federation.solved_federation import SolvedFederation, solve_records
from fedmunkey.simulations.unlearning.method import AfterRound, Budget, Choices, Family, Forgotten, Method, SiteRecords


@dataclass(frozen=True)
class MunkeyFederation(MunkeyAnswers):
    """A trained federation that knows which entry of which hospital's bank is which record, as key stores do."""

    record_ids: Mapping[str, NDArray[np.str_]]

    def forget(self, gone: Mapping[str, frozenset[str]]) -> MunkeyFederation:
        """Return the federation without some records' entries."""
        places, left = {}, {}
        for name, place in self.places.items():
            rows = np.isin(self.record_ids[name], list(gone.get(name, frozenset())))
            places[name] = place.without(torch.from_numpy(rows), Recipe.of(self.settings).neighbours)
            left[name] = self.record_ids[name][~rows]
        return replace(self, places=places, record_ids=left)

    def same_bytes(self, other: MunkeyFederation) -> bool:
        """Compare shared weights, keys and exemplar tokens byte by byte."""
        mine, its = self.model.state_dict(), other.model.state_dict()
        return all(torch.equal(weight, its[name]) for name, weight in mine.items()) and all(
            torch.equal(place.keys, other.places[name].keys)
            and torch.equal(place.bank.tokens.offsets, other.places[name].bank.tokens.offsets)
            for name, place in self.places.items()
        )


_CHOICES: Mapping[Guarantee, Choices] = {
    Guarantee.CERTIFIED: (
        {},
        {"clipped-learning-rate": 8.0},
        {"clipped-learning-rate": 32.0},
        {"local-steps": 1, "clipped-learning-rate": 32.0},
    ),
    Guarantee.EMPIRICAL: (
        {},
        {"depth": 0},
        {"local-steps": 6},
        {"depth": 1, "image-dropout": 0.6, "memory-dropout": 0.3},
    ),
}


class MunkeyFamily(Family[MunkeyFederation]):
    """MUNKEY under a guarantee that descends; with settings that are not the federation's it goes by another name."""

    forgets_by_design = True

    def __init__(self, guarantee: Guarantee, name: str = "") -> None:
        self.guarantee = guarantee
        self.choices = _CHOICES[guarantee]
        self.name = name or f"munkey-{guarantee}"

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> MunkeyFederation:
        """Train as `munkey-sim run` does; a test holds the averaging loop to the Flower apps."""
        asked = settings.replace(guarantee=self.guarantee.value)
        # Which blocks there are is the guarantee's, which is not always that of the settings.
        shape = replace(shape, depth=Recipe.of(asked).depth)
        ids = {name: some.records.record_ids for name, some in records.items()}

        def federation(learned: Learned) -> MunkeyFederation:
            places = {name: HospitalBank(bank, records[name].encoding.keys) for name, bank in learned.banks.items()}
            return MunkeyFederation(learned.model, places, asked, ids)

        def tell(number: int, learned: Learned) -> None:
            if after_round is not None:
                after_round(number, federation(learned))

        return federation(learn(records, asked, shape, after_round=tell if after_round else None))


class SolvedFamily(Family[SolvedFederation]):
    """MUNKEY under `exact`; with settings that are not the federation's it goes by another name."""

    guarantee = Guarantee.EXACT
    choices = ({}, {"random-features": 250}, {"random-features": 500}, {"random-features": 1000})
    forgets_by_design = True

    def __init__(self, name: str = "") -> None:
        self.name = name or f"munkey-{Guarantee.EXACT}"

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> SolvedFederation:
        """Solve as a round of `munkey-sim run` does; `after_round` is called once."""
        federation = solve_records(records, settings.replace(guarantee=Guarantee.EXACT.value), shape)
        if after_round is not None:
            after_round(1, federation)
        return federation


class SolvedDeletion(Method[SolvedFederation]):
    """Drop the forgotten records' keys, and solve for the shared weights and all tokens from what is left."""

    paper = "Laguna et al. 2026, arXiv 2603.15033; Hoerl and Kennard 1970"
    needs_data = False
    retrains = False

    def __init__(self, name: str = "", title: str = "") -> None:
        self.family = SolvedFamily(name)
        self.name = self.family.name
        self.title = title or f"MUNKEY, {Guarantee.EXACT}"

    def forget(self, trained: SolvedFederation, case: Case, budget: Budget) -> Forgotten:
        """Delete entries, one deletion after the other, each with its renewal."""
        del budget
        sent = 0
        for deletion in case.deletions:
            trained = trained.forget(_named(deletion, case))
            sent += trained.sent_bytes
        return Forgotten(trained, sent)


class KeyDeletion(Method[MunkeyFederation]):
    """Drop the forgotten records' keys and tokens; no weight changes and nothing but the order is sent."""

    paper = "Laguna et al. 2026, arXiv 2603.15033"
    needs_data = False
    retrains = False

    def __init__(self, guarantee: Guarantee, name: str = "", title: str = "") -> None:
        self.family = MunkeyFamily(guarantee, name)
        self.name = self.family.name
        self.title = title or f"MUNKEY, {guarantee}"

    def forget(self, trained: MunkeyFederation, case: Case, budget: Budget) -> Forgotten:
        """Delete entries, one deletion after the other."""
        del budget
        for deletion in case.deletions:
            trained = trained.forget(_named(deletion, case))
        return Forgotten(trained, 0)


def _named(deletion: Rows, case: Case) -> dict[str, frozenset[str]]:
    """Return the ids of a deletion's records, by hospital."""
    return {h.name: frozenset(h.given.records.record_ids[deletion[h.name]].tolist()) for h in case.hospitals}


def munkey_family(guarantee: Guarantee) -> Family[Any]:
    """Return how MUNKEY learns under a guarantee."""
    return SolvedFamily() if guarantee is Guarantee.EXACT else MunkeyFamily(guarantee)


def epsilon_of_settings(settings: Settings) -> float:
    """Return a record's privacy loss over all rounds; every site adds the same noise, and a record has one site.

    It is 0 under `exact`, and infinite where nothing bounds it.
    """
    if settings.guarantee is Guarantee.EXACT:
        return 0.0
    if settings.guarantee is Guarantee.EMPIRICAL or math.isinf(settings.epsilon):
        return math.inf
    one = noisy_steps_of_round(Recipe.of(settings))
    return epsilon_of(
        [NoisySteps(one.steps * settings.rounds, one.sampling_rate, one.noise_multiplier)], settings.delta
    )

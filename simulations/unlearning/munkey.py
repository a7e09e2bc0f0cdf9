"""MUNKEY: each hospital drops its entries; one method for each guarantee.

Laguna et al. 2026, arXiv 2603.15033.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from common.guarantees import Guarantee
from common.model import ModelShape
from common.recipe import Recipe
from common.settings import Settings
from simulations.answers import HospitalBank, MunkeyAnswers
from simulations.case import Case
from simulations.federated_loop import Learned, learn
from simulations.hospitals import Encoded
from simulations.unlearning.method import AfterRound, Budget, Family, Forgotten, Method


@dataclass(frozen=True)
class MunkeyFederation(MunkeyAnswers):
    """A trained federation that knows which entry is which record, as key stores do.

    Attributes
    ----------
    record_ids : mapping
        For each hospital, the record id of each entry of its bank.
    """

    record_ids: Mapping[str, NDArray[np.str_]]

    def forget(self, gone: Mapping[str, frozenset[str]]) -> MunkeyFederation:
        """Return the federation without some records' entries."""
        places, left = {}, {}
        for name, place in self.places.items():
            rows = np.isin(self.record_ids[name], list(gone.get(name, frozenset())))
            places[name] = place.without(torch.from_numpy(rows), Recipe.of(self.settings).neighbours)
            left[name] = self.record_ids[name][~rows]
        return replace(self, places=places, record_ids=left)


class MunkeyFamily(Family[MunkeyFederation]):
    """MUNKEY under one guarantee."""

    def __init__(self, guarantee: Guarantee) -> None:
        self.guarantee = guarantee
        self.name = f"munkey-{guarantee}"

    def train(
        self,
        records: Mapping[str, Encoded],
        settings: Settings,
        shape: ModelShape,
        *,
        after_round: AfterRound | None = None,
    ) -> MunkeyFederation:
        """Train as `munkey-sim run` does; a test holds the averaging loop to the Flower apps."""
        asked = settings.replace(guarantee=self.guarantee.value)
        ids = {name: some.records.record_ids for name, some in records.items()}

        def federation(learned: Learned) -> MunkeyFederation:
            places = {name: HospitalBank(bank, records[name].encoding.keys) for name, bank in learned.banks.items()}
            return MunkeyFederation(learned.model, places, asked, ids)

        def tell(number: int, learned: Learned) -> None:
            if after_round is not None:
                after_round(number, federation(learned))

        return federation(learn(records, asked, shape, after_round=tell if after_round else None))


class KeyDeletion(Method[MunkeyFederation]):
    """Drop the forgotten records' keys and tokens; no weight changes and nothing but the order is sent."""

    paper = "Laguna et al. 2026, arXiv 2603.15033"
    needs_data = False
    retrains = False

    def __init__(self, guarantee: Guarantee) -> None:
        self.family = MunkeyFamily(guarantee)
        self.name = self.family.name
        self.title = f"MUNKEY, {guarantee}"

    def forget(self, trained: MunkeyFederation, case: Case, budget: Budget) -> Forgotten:
        """Delete entries, one deletion after the other."""
        del budget
        for deletion in case.deletions:
            gone = {h.name: frozenset(h.given.records.record_ids[deletion[h.name]].tolist()) for h in case.hospitals}
            trained = trained.forget(gone)
        return Forgotten(trained, 0)

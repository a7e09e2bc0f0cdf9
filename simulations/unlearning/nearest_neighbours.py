"""Nearest neighbours: the labels of the nearest keys vote, without a model; to forget is to drop entries.

Cover and Hart 1967, "Nearest Neighbor Pattern Classification", IEEE Transactions on Information Theory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.evaluation import neighbour_votes
from fedmunkey.client.records.dataset import Consent
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.neighbours import NeighbourLists, nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.method import AfterRound, Budget, Family, Forgotten, Method, SiteRecords


@dataclass(frozen=True)
class NeighbourFederation:
    """Hospitals that share nothing, by name; only the keys and labels of their records are read."""

    records: Mapping[str, Encoded]
    settings: Settings

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals with entries."""
        return frozenset(name for name, held in self.records.items() if len(held.records))

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) shares of the K nearest entries' labels; uniform ones without any entry."""
        if site not in self.sites:
            return self.weights_alone(site, records)
        held = self.records[site]
        neighbours = Recipe.of(self.settings).neighbours
        lists = nearest(records.encoding.keys, held.encoding.keys, neighbours)
        return neighbour_votes(_voters(held), lists, neighbours, self.settings.num_classes)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return uniform probabilities, because nothing is shared."""
        del site
        return torch.full((len(records.records), self.settings.num_classes), 1 / self.settings.num_classes)

    def forget(self, gone: Mapping[str, Encoded]) -> NeighbourFederation:
        """Return the federation without some records' entries."""
        left = {
            name: held.select(~np.isin(held.records.record_ids, gone[name].records.record_ids))
            for name, held in self.records.items()
        }
        return NeighbourFederation(left, self.settings)


class NeighbourFamily(Family[NeighbourFederation]):
    """Keys and labels that each hospital keeps to itself; there is nothing to train."""

    name = "nearest-neighbours"
    choices = ({}, {"neighbours": 1}, {"neighbours": 16}, {"neighbours": 64})
    forgets_by_design = True

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> NeighbourFederation:
        """Take the records as they are; `after_round` is called once, as if after round 1."""
        del shape
        federation = NeighbourFederation(dict(records), settings)
        if after_round is not None:
            after_round(1, federation)
        return federation


class NearestNeighbours(Method[NeighbourFederation]):
    """Drop the forgotten records' keys and labels."""

    name = "nearest-neighbours"
    title = "nearest neighbours"
    paper = "Cover and Hart 1967, IEEE Trans. Inf. Theory"
    family = NeighbourFamily()
    needs_data = False
    retrains = False

    def forget(self, trained: NeighbourFederation, case: Case, budget: Budget) -> Forgotten:
        """Drop entries; what is left is what the oracle has."""
        del budget
        return Forgotten(trained.forget(case.forget_records()), 0)


def _voters(held: Encoded) -> Bank:
    """Return a bank whose labels can be counted: without tokens, and without neighbours among itself."""
    count = len(held.records)
    return Bank(
        generation=0,
        entries=np.arange(count),
        labels=torch.from_numpy(held.records.labels),
        inputs=held.encoding.features,
        tokens=Tokens.zeros(count, 0),
        lists=NeighbourLists.empty(count, 0),
        permanent=torch.from_numpy(held.records.consents == Consent.PERMANENT.value),
    )

"""SISA: several models, each of which has seen one shard of the records; forgetting trains those models again.

Bourtoule et al. 2021, "Machine Unlearning", IEEE S&P, arXiv 1912.03817.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.plain_models import Examples, PlainModel, plain_site
from fedmunkey.simulations.unlearning.method import (
    AfterRound,
    Budget,
    Family,
    Forgotten,
    Method,
    SiteRecords,
    weights_bytes,
)
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation, first_plain

SHARDS = 4
"""How many there are. A number that followed from how many records there are would change with a deletion."""


@dataclass(frozen=True)
class SisaFederation:
    """A trained federation of one model for each shard in which some hospital has records."""

    models: Mapping[int, PlainModel]
    sites: frozenset[str]
    num_classes: int

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) means of the models' probabilities; uniform ones where there is no model."""
        if not self.models:
            return torch.full((len(records.records), self.num_classes), 1 / self.num_classes)
        votes = [PlainFederation(model, self.sites).answer(site, records) for model in self.models.values()]
        return torch.stack(votes).mean(0)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return what `answer` does: everything is in the shared weights."""
        return self.answer(site, records)


class SisaFamily(Family[SisaFederation]):
    """Federated averaging of one plain ViT for each shard; a shard is a part of every hospital's records.

    The paper's slices, which keep a shard's model at several points of its training, are left out.
    """

    name = "sisa"
    choices = PlainFamily.choices

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> SisaFederation:
        """Train all shards' models, round by round."""
        sites = frozenset(name for name, some in records.items() if len(some.records))

        def tell(number: int, models: Mapping[int, PlainModel]) -> None:
            if after_round is not None:
                after_round(number, SisaFederation(models, sites, shape.num_classes))

        parts = shards_of(records, settings.seed)
        return SisaFederation(train_shards(parts, settings, shape, after_round=tell), sites, shape.num_classes)


class Sisa(Method[SisaFederation]):
    """Train again, from their first weights, the models of the shards that lose a record.

    What comes out is byte for byte the federation that never had the forgotten records. Deletions that are asked for
    one after the other are carried out together.
    """

    name = "sisa"
    title = "SISA"
    paper = "Bourtoule et al. 2021, arXiv 1912.03817"
    family = SisaFamily()
    needs_data = True
    retrains = True

    def forget(self, trained: SisaFederation, case: Case, budget: Budget) -> Forgotten:
        """Train the shards that lose a record for all rounds whatever the budget."""
        del budget
        settings, retained = case.settings, case.retained()
        lose = shards_of(case.forget_records(), settings.seed)
        parts = {shard: part for shard, part in shards_of(retained, settings.seed).items() if shard in lose}
        again = train_shards(parts, settings, case.shape)
        stay = {shard: model for shard, model in trained.models.items() if shard not in lose}
        sites = frozenset(name for name, some in retained.items() if len(some.records))
        answers = SisaFederation(dict(sorted({**stay, **again}.items())), sites, case.shape.num_classes)
        messages = 2 * settings.descending_rounds * sum(len(part) for part in parts.values())
        return Forgotten(answers, messages * _message(trained.models.values()))


def shard_of(record_id: str, seed: int) -> int:
    """Return a record's shard, which depends on no other record."""
    return derive_seed(seed, "shard of a record", record_id) % SHARDS


def shards_of(records: Mapping[str, Encoded], seed: int) -> dict[int, dict[str, Encoded]]:
    """Return the records of each shard at each hospital; shards and hospitals without any are left out."""
    places = {
        name: np.array([shard_of(record, seed) for record in some.records.record_ids.tolist()], dtype=np.int64)
        for name, some in records.items()
    }
    parts = {
        shard: {name: some.select(places[name] == shard) for name, some in records.items() if shard in places[name]}
        for shard in range(SHARDS)
    }
    return {shard: part for shard, part in parts.items() if part}


def train_shards(
    parts: Mapping[int, Mapping[str, Encoded]],
    settings: Settings,
    shape: ModelShape,
    *,
    after_round: Callable[[int, Mapping[int, PlainModel]], None] | None = None,
) -> dict[int, PlainModel]:
    """Train some shards' models on each hospital's records of them, from first weights, with random choices of its own.

    `after_round` is called after each round, from 1, with the models as they are then, which change afterwards.
    """
    models: dict[int, PlainModel] = {}
    sites: dict[int, list[LocalTraining[PlainModel]]] = {}
    for shard, part in parts.items():
        own = settings.replace(seed=derive_seed(settings.seed, "shard", shard) % 2**31)
        models[shard] = first_plain(shape, own.seed).eval()
        sites[shard] = [plain_site(name, Examples.of(some, shape), own) for name, some in part.items()]
    for number in range(1, settings.descending_rounds + 1):
        for shard, model in models.items():
            average_rounds(model, [_in_round(site, number) for site in sites[shard]], 1)
        if after_round is not None:
            after_round(number, models)
    return models


def _in_round(site: LocalTraining[PlainModel], number: int) -> LocalTraining[PlainModel]:
    return lambda model, _: site(model, number)


def _message(models: Iterable[PlainModel]) -> int:
    return max(map(weights_bytes, models), default=0)

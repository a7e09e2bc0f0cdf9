"""kNN-Per: a model that all hospitals train together, mixed at each with its own nearest neighbours.

Marfoq et al. 2022, "Personalized Federated Learning through Local Memorization", ICML, arXiv 2111.09360.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.common.closed_form.folds import folds_of
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.neighbours import NONE, nearest
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.method import AfterRound, Budget, Family, Forgotten, Method, SiteRecords
from fedmunkey.simulations.unlearning.plain_federation import LinearFamily, PlainFederation

NEIGHBOURS = 10
"""k, unless the settings name another: the paper's."""

SHARES = tuple(step / 10 for step in range(11))
"""Shares of the neighbours in an answer, lambda, that a hospital chooses from: the paper's grid has steps of 0.1."""

_LEFT_OUT = 0
"""The fold on which a hospital chooses, a third of its subjects: the model for that has not seen it."""


@dataclass(frozen=True)
class LocalMemoryFederation:
    """The common model, one that has not seen the records on which shares are chosen, and the hospitals' datastores."""

    common_model: PlainFederation
    left_out_model: PlainFederation
    records: Mapping[str, Encoded]
    shares: Mapping[str, float]
    settings: Settings

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals with entries."""
        return frozenset(name for name, held in self.records.items() if len(held.records))

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes): lambda times the neighbours' answer, the rest the common model's."""
        said = self.common_model.answer(site, records)
        if site not in self.sites:
            return said
        share = self.shares[site]
        return share * neighbours_say(self.records[site], records, self.settings) + (1 - share) * said

    def common(self, site: str, records: Encoded) -> Tensor:
        """Ask the common model, which has learned the federation's case mix."""
        return self.common_model.answer(site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Ask the common model."""
        return self.common_model.answer(site, records)

    def forget(self, gone: Mapping[str, Encoded]) -> LocalMemoryFederation:
        """Return the federation without some records' entries; shares are chosen again, and no weight changes."""
        left = {
            name: held.select(~np.isin(held.records.record_ids, gone[name].records.record_ids))
            for name, held in self.records.items()
        }
        return _with_shares(self.common_model, self.left_out_model, left, self.settings)


class LocalMemoryFamily(Family[LocalMemoryFederation]):
    """A linear model of the frozen features, and a datastore of keys and labels at each hospital.

    The paper keeps what its model's last layer reads; here that is frozen, and the key stands for it.
    """

    name = "knn-per"
    choices = ({}, {"neighbours": 4}, {"neighbours": 32}, {"neighbours": 32, "temperature": 0.1})
    forgets_by_design = True

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> LocalMemoryFederation:
        """Train the common model on all, and once more without the records on which shares are chosen."""
        family = LinearFamily()
        others = {name: some.select(~_is_left_out(some)) for name, some in records.items()}
        common, left_out = (family.train(some, settings, shape) for some in (records, others))
        federation = _with_shares(common, left_out, dict(records), settings)
        if after_round is not None:
            after_round(settings.descending_rounds, federation)
        return federation


class LocalMemorization(Method[LocalMemoryFederation]):
    """Drop the forgotten records' entries; the common model has learned from them, and stays as it is."""

    name = "knn-per"
    title = "kNN-Per"
    paper = "Marfoq et al. 2022, arXiv 2111.09360"
    family = LocalMemoryFamily()
    needs_data = False
    retrains = False

    def forget(self, trained: LocalMemoryFederation, case: Case, budget: Budget) -> Forgotten:
        """Drop entries; nothing is sent."""
        del budget
        return Forgotten(trained.forget(case.forget_records()), 0)


def neighbours_say(held: Encoded, asked: Encoded, settings: Settings) -> Tensor:
    """Return (n, num_classes) sums over the k nearest entries of exp(cosine / temperature), by label, of sum 1.

    The paper's exp(-distance), with a scale.
    """
    lists = nearest(asked.encoding.keys, held.encoding.keys, settings.neighbours or NEIGHBOURS)
    places = lists.indices.clamp_min(0)
    weights = (lists.similarities / settings.temperature).masked_fill(lists.indices == NONE, -torch.inf).softmax(1)
    labels = F.one_hot(torch.from_numpy(held.records.labels)[places], settings.num_classes)
    return (weights[..., None] * labels).sum(1)


def best_share(neighbours: Tensor, common: Tensor, labels: Tensor) -> float:
    """Return which share of the neighbours answers most of n records rightly; of several the likeliest, 0 without any.

    Both are (n, classes) probabilities.
    """
    if not len(labels):
        return 0.0

    def goodness(share: float) -> tuple[int, float]:
        mixed = share * neighbours + (1 - share) * common
        right = int((mixed.argmax(1) == labels).sum())
        return right, -float(F.nll_loss(mixed.clamp(min=1e-6).log(), labels))

    return max(SHARES, key=goodness)


def _with_shares(
    common: PlainFederation, left_out: PlainFederation, records: Mapping[str, Encoded], settings: Settings
) -> LocalMemoryFederation:
    shares = {}
    for name, held in records.items():
        chosen = _is_left_out(held)
        asked, rest = held.select(chosen), held.select(~chosen)
        if not len(asked.records) or not len(rest.records):
            shares[name] = 0.0
            continue
        labels = torch.from_numpy(asked.records.labels)
        shares[name] = best_share(neighbours_say(rest, asked, settings), left_out.answer(name, asked), labels)
    return LocalMemoryFederation(common, left_out, records, shares, settings)


def _is_left_out(records: Encoded) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = folds_of(records.records.subject_ids.tolist()) == _LEFT_OUT
    return chosen
